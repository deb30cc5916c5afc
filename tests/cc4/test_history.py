"""The history of raw observations, story by story, and the scripts that act on it. `..._qr14` is about QR14."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import CON, OFF, OZA, OZB, PAZ, RZA, SLEEP_INDEX, blue_of, index_of, server, user

from purecc4.envs import cc4
from purecc4.envs.cc4 import history, raw
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.by_host import OWN_HOSTS
from purecc4.envs.cc4.constants import BLUE_DURATION, NO_HOST, NUM_BLUE, NUM_HOSTS, NUM_OBS, SLOTS, BlueAction, Decoy
from purecc4.envs.cc4.raw import AttackKind, Files, ResultColumn, Success
from purecc4.play.scripts import SCRIPTS

ANALYSE, REMOVE, RESTORE, DECOY, SLEEP = (
    BlueAction.ANALYSE,
    BlueAction.REMOVE,
    BlueAction.RESTORE,
    BlueAction.DEPLOY_DECOY,
    BlueAction.SLEEP,
)
SCAN, BRUTE_FORCE, DECOY_HIT = AttackKind.SCAN, AttackKind.BRUTE_FORCE, AttackKind.DECOY_HIT
HOST, SERVER, OTHER = user(OZA), server(OZA), user(OZA, 1)
update, submit = jax.jit(history.update), jax.jit(history.submit)


def saw(*rows, done=(), files=-1, decoy_pid=-1):
    """An observation of all agents. Rows are (host, pid) of exploits and (kind, target, source) of attacks."""
    seen = jax.tree.map(np.array, raw.silent())
    if done:
        kind, host = done
        seen.result[blue_of(host), :3] = Success.TRUE, kind, host
        seen.result[blue_of(host), ResultColumn.FILES] = files
        seen.result[blue_of(host), ResultColumn.PID] = decoy_pid
        seen.result[blue_of(host), ResultColumn.DECOY] = Decoy.TOMCAT if decoy_pid >= 0 else -1
    for index, row in enumerate(rows):
        for agent in {blue_of(host) for host in row[-2 if len(row) == 3 else 0 :][: len(row) - 1] if host >= SLOTS}:
            table = seen.attacks if len(row) == 3 else seen.pids
            table[agent, index, : len(row)] = row
    return seen


def live(*story, notes=None):
    """The history after the observations, from the one after the reset on."""
    notes = update(history.init(), raw.silent()) if notes is None else notes
    for seen in story:
        notes = update(notes, seen)
    return notes


def place(host: int) -> tuple[int, int, int]:
    """Agent, own zone and slot of a host."""
    return tuple(np.argwhere(host == OWN_HOSTS)[0].tolist())


def at(notes, field: str, host: int = HOST):
    """The value of a host."""
    return np.asarray(getattr(notes, field))[(..., *place(host))].tolist()


FIELDS = (
    "exploits",
    "unanswered",
    "named",
    "brute_forces",
    "exploited_at",
    "named_at",
    "files",
    "removed",
    "explained",
    "unexplained",
    "gaps",
)


def test_it_starts_empty():
    notes = live()
    assert notes.step == 0 and not any(np.asarray(getattr(notes, field)).any() for field in (*FIELDS, "looked", "pid"))
    assert not history.is_busy(notes).any()


def test_an_exploit_is_counted_and_a_remove_answers_it():
    notes = live(saw((HOST, 5)), saw((HOST, 9)))
    assert (at(notes, "exploits"), at(notes, "unanswered"), at(notes, "explained")) == (2, 2, False)
    notes = live(saw(done=(REMOVE, HOST)), notes=notes)
    assert (at(notes, "exploits"), at(notes, "unanswered")) == (2, 0)
    assert at(notes, "explained") and at(notes, "removed")
    assert at(notes, "exploits", OTHER) == 0


def test_a_remove_without_an_exploit_explains_nothing():
    notes = live(saw(done=(REMOVE, HOST)))
    assert at(notes, "removed") and not at(notes, "explained")


def test_attackers_are_named_and_targets_noted():
    """Attackers in zones of others are known to nobody's history; a brute force counts as a naming, too."""
    notes = live(saw((SCAN, SERVER, HOST)), saw((BRUTE_FORCE, user(RZA), HOST)), saw((DECOY_HIT, OTHER, user(CON))))
    assert (at(notes, "named"), at(notes, "brute_forces")) == (2, 1)
    assert at(notes, "met", SERVER) == [0, 1, 0, 0] and at(notes, "met", OTHER) == [0, 0, 0, 1]
    assert at(notes, "met", user(RZA)) == [0, 0, 1, 0]
    assert notes.named.sum() == 2 and notes.met.sum() == 3


def test_one_red_after_the_other_names_a_host_twice_in_a_step():
    assert at(live(saw((SCAN, SERVER, HOST), (SCAN, OTHER, HOST))), "named") == 2


def test_exploits_and_attackers_are_dated():
    """By the last of each."""
    notes = live(saw(), saw((HOST, 5)), saw((SCAN, SERVER, HOST)), saw((SCAN, OTHER, HOST)), saw((SERVER, 5)))
    assert (at(notes, "exploited_at"), at(notes, "named_at"), at(notes, "named_at", OTHER)) == (2, 4, 0)
    assert at(notes, "exploited_at", SERVER) == 5


def slots(notes, host=HOST):
    """Slots that a host attacked, from its word of targets."""
    return [slot for slot in range(SLOTS) if at(notes, "targets", host) >> slot & 1]


def test_targets_are_the_hosts_of_the_zone_that_an_attacker_can_exploit():
    notes = live(saw((SCAN, SERVER, HOST)), saw((BRUTE_FORCE, OTHER, HOST), (SCAN, user(RZA), HOST)))
    assert slots(notes) == [SERVER % SLOTS, OTHER % SLOTS] and not slots(notes, OTHER)
    attacked = np.argwhere(np.asarray(history.attacked(notes))).tolist()
    assert attacked == [list(place(SERVER)), list(place(OTHER))]
    assert slots(live(saw(done=(REMOVE, OTHER)), notes=notes)) == [SERVER % SLOTS]
    assert slots(live(saw(done=(RESTORE, SERVER)), notes=notes)) == [OTHER % SLOTS]
    assert not slots(live(saw(done=(RESTORE, HOST)), notes=notes))


def test_restore_of_an_attacker_makes_its_targets_stale():
    """Until they are attacked from their zone, removed or restored."""
    notes = live(saw((SCAN, SERVER, HOST)), saw((SCAN, OTHER, HOST)), saw(done=(RESTORE, HOST)))
    assert [at(notes, "stale", host) for host in (HOST, SERVER, OTHER)] == [False, True, True]
    assert at(notes, "restores") == 1 and notes.restores.sum() == 1
    for later in (saw((SCAN, OTHER, SERVER)), saw(done=(REMOVE, OTHER)), saw(done=(RESTORE, OTHER))):
        after = live(later, notes=notes)
        assert [at(after, "stale", host) for host in (SERVER, OTHER)] == [True, False]
    assert at(live(saw((SCAN, OTHER, user(RZA))), notes=notes), "stale", OTHER)
    again = live(saw((SCAN, OTHER, HOST), done=(RESTORE, SERVER)), notes=notes)
    assert not at(again, "stale", OTHER) and at(again, "restores", SERVER) == 1


def test_restore_clears_the_host_alone():
    story = [saw((host, 40), (BRUTE_FORCE, OTHER, host)) for host in (HOST, SERVER)]
    story += [saw(done=(ANALYSE, host), files=Files.CMD_ESCALATE) for host in (HOST, SERVER)]
    before = live(*story)
    after = live(saw(done=(RESTORE, HOST)), notes=before)
    assert at(before, "gaps") == 1 and at(before, "files") == Files.CMD_ESCALATE
    assert not any(at(after, field) for field in (*FIELDS, "pid"))
    assert at(after, "looked") == 5
    for field in (*FIELDS, "pid", "looked", "met"):
        assert at(after, field, SERVER) == at(before, field, SERVER)


def test_alerts_in_the_step_of_a_restore_are_later_than_it():
    notes = live(saw((HOST, 3)), saw((HOST, 5), (SCAN, SERVER, HOST), done=(RESTORE, HOST)))
    assert (at(notes, "exploits"), at(notes, "named"), at(notes, "pid")) == (1, 1, 5)


def test_analyse_dates_the_files():
    notes = live(saw(), saw(done=(ANALYSE, HOST), files=Files.CMD), saw(), saw())
    assert (at(notes, "files"), at(notes, "looked"), int(notes.step)) == (Files.CMD, 2, 4)
    notes = live(saw(done=(ANALYSE, HOST), files=Files.NONE), notes=notes)
    assert (at(notes, "files"), at(notes, "looked"), at(notes, "looked", SERVER)) == (Files.NONE, 5, 0)


@pytest.mark.parametrize(
    ("before", "files", "unexplained"),
    [
        ([], Files.CMD, True),
        ([], Files.ESCALATE_CMD, True),
        ([], Files.ESCALATE, False),
        ([], Files.NONE, False),
        ([saw((HOST, 5))], Files.CMD, False),
        ([saw((HOST, 5)), saw(done=(REMOVE, HOST))], Files.CMD, False),
        ([saw(done=(REMOVE, HOST))], Files.CMD, True),
        ([saw((HOST, 5)), saw(done=(REMOVE, HOST)), saw(done=(RESTORE, HOST))], Files.CMD, True),
    ],
)
def test_a_cmd_file_is_unexplained(before, files, unexplained):
    """... unless an exploit was shown that Remove has answered or that is still unanswered."""
    notes = live(*before, saw(done=(ANALYSE, HOST), files=files))
    assert at(notes, "unexplained") == unexplained and not at(notes, "removed")
    assert not at(live(saw(done=(REMOVE, HOST)), notes=notes), "unexplained")


@pytest.mark.parametrize(
    ("host", "story", "gaps"),
    [
        (SERVER, [saw((SERVER, 9))], 0),
        (SERVER, [saw((SERVER, 10))], 1),
        (SERVER, [saw((SERVER, 9)), saw((SERVER, 18))], 0),
        (SERVER, [saw((SERVER, 9)), saw((SERVER, 19))], 1),
        (SERVER, [saw((SERVER, 9)), saw((SERVER, 18), (SERVER, 27))], 0),
        (SERVER, [saw((SERVER, 9)), saw((SERVER, 18), (SERVER, 28))], 1),
        (SERVER, [saw((SERVER, 9)), saw(done=(DECOY, SERVER), decoy_pid=18)], 0),
        (SERVER, [saw((SERVER, 9)), saw(done=(DECOY, SERVER), decoy_pid=19)], 1),
        (SERVER, [saw((SERVER, 9)), saw(done=(RESTORE, SERVER)), saw((SERVER, 10))], 1),
        (HOST, [saw((HOST, 18))], 0),
        (HOST, [saw((HOST, 19))], 1),
        (HOST, [saw((HOST, 30)), saw((HOST, 45)), saw((HOST, 60)), saw((HOST, 5))], 3),
    ],
)
def test_a_large_pid_shows_a_hidden_process_qr14(host, story, gaps):
    """A process adds 1 to 9; the green user of a user host has a session with an unknown pid of 1 to 9."""
    assert at(live(*story), "gaps", host) == gaps


@pytest.mark.parametrize("kind", [ANALYSE, REMOVE, RESTORE, DECOY])
def test_an_agent_is_busy_until_its_action_takes_effect(kind):
    """Submissions of a busy agent are ignored."""
    agent, actions, notes, busy = blue_of(HOST), np.array(SLEEP_INDEX), live(), []
    actions[agent] = index_of(agent, kind, HOST)
    ignored = index_of(agent, RESTORE, SERVER)
    for _ in range(BLUE_DURATION[kind]):
        notes = submit(notes, actions)
        busy.append(history.is_busy(notes).tolist())
        assert notes.in_progress.action[agent] == index_of(agent, kind, HOST)
        actions[agent] = ignored
    assert [row[agent] for row in busy] == [True] * (BLUE_DURATION[kind] - 1) + [False]
    assert not np.delete(busy, agent, axis=1).any()


def _noise(seed: int) -> raw.RawObservation:
    """Arbitrary observations about existing hosts."""
    rng = np.random.default_rng(seed)
    seen = jax.tree.map(np.array, raw.silent())
    seen.attacks[..., 0] = rng.integers(0, 4, seen.attacks.shape[:2])
    seen.attacks[..., 1:3] = rng.integers(0, NUM_HOSTS, (*seen.attacks.shape[:2], 2))
    seen.pids[..., 0] = rng.integers(SLOTS, NUM_HOSTS, seen.pids.shape[:2])
    seen.pids[..., 1] = rng.integers(0, 60, seen.pids.shape[:2])
    seen.result[:, 1] = rng.choice([ANALYSE, REMOVE, RESTORE], NUM_BLUE)
    seen.result[:, 2] = [rng.choice(hosts[hosts != NO_HOST]) for hosts in OWN_HOSTS]
    seen.result[:, 5] = np.where(seen.result[:, 1] == ANALYSE, rng.integers(0, 5, NUM_BLUE), -1)
    return seen


@pytest.mark.parametrize("agent", range(NUM_BLUE))
def test_an_agents_history_holds_nothing_of_the_others(agent):
    """Two stories are alike for one agent and differ for the others."""
    mine, others = [_noise(seed) for seed in range(40)], [_noise(seed) for seed in range(40, 80)]
    for one, other in zip(mine, others, strict=True):
        for field in ("result", "attacks", "pids"):
            getattr(other, field)[agent] = getattr(one, field)[agent]
    first, second = live(*mine), live(*others)
    for field in (*FIELDS, "looked", "pid"):
        one, other = np.asarray(getattr(first, field)), np.asarray(getattr(second, field))
        np.testing.assert_array_equal(one[agent], other[agent])
        assert (one != other).any() and not one[OWN_HOSTS == NO_HOST].any()
    np.testing.assert_array_equal(first.met[:, agent], second.met[:, agent])


# the scripts

EXISTING = {host for host in range(SLOTS, NUM_HOSTS) if host % SLOTS in (0, 1, 6, 7, 8)}
MASK = cc4.action_mask(jnp.isin(jnp.arange(NUM_HOSTS), jnp.array(sorted(EXISTING))))
NOTHING = jnp.zeros((NUM_BLUE, NUM_OBS), jnp.uint8)
logits_of = eqx.filter_jit(lambda script, notes: script.logits(notes, NOTHING, MASK)[1])


def acts(name: str, notes, agent: int = blue_of(HOST)) -> tuple[BlueAction, int]:
    """The action of one agent; every agent's must be legal."""
    logits = np.asarray(logits_of(SCRIPTS[name], notes))
    assert ((logits == 0).sum(axis=1) == 1).all() and (logits[~np.asarray(MASK)] < 0).all()
    kind, host = ACTION_TABLE[agent, logits[agent].argmax(), :2].tolist()
    return BlueAction(kind), host


def later(notes, step: int):
    """The same history at a later step."""
    return eqx.tree_at(lambda notes: notes.step, notes, jnp.int16(step))


FOUND = saw(done=(ANALYSE, SERVER), files=Files.ESCALATE)
SHOWN = saw((SERVER, 5))
REMOVED = saw(done=(REMOVE, SERVER))
UNEXPLAINED = saw(done=(ANALYSE, OTHER), files=Files.CMD)
NAMED = saw((SCAN, user(RZA), HOST))


@pytest.mark.parametrize(
    ("story", "action"),
    [
        ([], (ANALYSE, HOST)),
        ([saw(done=(ANALYSE, HOST), files=Files.NONE)], (ANALYSE, OTHER)),
        ([NAMED], (ANALYSE, HOST)),
        ([NAMED, NAMED], (RESTORE, HOST)),
        ([NAMED, NAMED, UNEXPLAINED], (RESTORE, OTHER)),
        ([NAMED, NAMED, UNEXPLAINED, REMOVED], (ANALYSE, SERVER)),
        ([REMOVED, saw((HOST, 4))], (REMOVE, HOST)),
        ([FOUND, SHOWN], (RESTORE, SERVER)),
        ([SHOWN, REMOVED, saw(done=(ANALYSE, SERVER), files=Files.CMD)], (ANALYSE, HOST)),
    ],
)
def test_the_analyst_acts_on_the_most_urgent_cause(story, action):
    assert acts("analyst", live(*story)) == action


@pytest.mark.parametrize(
    ("zone", "step", "needed"),
    [
        (OZA, 166, 2),
        (OZA, 167, 1),
        (OZA, 333, 1),
        (OZA, 334, 2),
        (OZB, 334, 1),
        (RZA, 200, 2),
        (OFF, 10, 5),
        (PAZ, 9, 5),
    ],
)
def test_the_analyst_restores_a_host_that_was_named_often_enough(zone, step, needed):
    host = user(zone, 2)
    notes = [later(live(*[saw((SCAN, user(CON), host))] * times), step) for times in (needed - 1, needed)]
    assert [acts("analyst", each, blue_of(host))[0] for each in notes] == [ANALYSE, RESTORE]


def test_the_analyst_no_longer_restores_at_the_end():
    named, found = live(NAMED, NAMED), live(FOUND)
    assert [acts("analyst", later(named, step))[0] for step in (378, 379)] == [RESTORE, ANALYSE]
    assert [acts("analyst", later(found, step))[0] for step in (483, 484)] == [RESTORE, ANALYSE]


def test_the_analyst_takes_the_worst_host_first():
    """Brute forces count more than scans, and those more than exploits; then the first by name."""
    other = saw((SCAN, user(RZA), OTHER))
    assert acts("analyst", live(NAMED, NAMED, other, other)) == (RESTORE, HOST)
    assert acts("analyst", live(NAMED, NAMED, other, other, other)) == (RESTORE, OTHER)
    brute = saw((BRUTE_FORCE, user(RZA), HOST))
    assert acts("analyst", live(NAMED, brute, other, other, other)) == (RESTORE, HOST)
    assert acts("analyst", live(saw((HOST, 3)), saw((OTHER, 3)), other)) == (REMOVE, OTHER)


def test_the_analyst_looks_at_suspicious_hosts_twenty_steps_earlier():
    looked = [saw(done=(ANALYSE, user(OZA, k)), files=Files.NONE) for k in range(3)]
    notes = live(*looked, NAMED)
    assert acts("analyst", notes) == (ANALYSE, HOST)
    again = live(*looked, saw((SCAN, user(RZA), user(OZA, 2))))
    assert acts("analyst", again) == (ANALYSE, user(OZA, 2))


@pytest.mark.parametrize(
    ("story", "action"),
    [
        ([], (ANALYSE, SERVER)),
        ([saw(done=(ANALYSE, SERVER), files=Files.NONE)], (ANALYSE, server(OZA, 1))),
        ([FOUND], (RESTORE, SERVER)),
        ([UNEXPLAINED], (REMOVE, OTHER)),
        ([UNEXPLAINED, saw(done=(REMOVE, OTHER))], (ANALYSE, SERVER)),
        ([saw((SERVER, 30)), NAMED, NAMED], (ANALYSE, SERVER)),
    ],
)
def test_sweep_reads_the_files_alone(story, action):
    assert acts("sweep", live(*story)) == action


@pytest.mark.parametrize("name", ["sweep", "analyst"])
def test_they_sleep_while_busy(name):
    notes = live(FOUND, SHOWN)
    ticks = jnp.zeros(NUM_BLUE, jnp.uint8).at[blue_of(HOST)].set(2)
    notes = eqx.tree_at(lambda notes: notes.in_progress.ticks, notes, ticks)
    assert acts(name, notes) == (SLEEP, NO_HOST) and acts(name, notes, 0)[0] == ANALYSE
