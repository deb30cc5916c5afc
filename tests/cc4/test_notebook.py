"""The notebook of a blue agent, also against the simulator's own queue, and the scripts that use it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    ADM,
    CONNECTION,
    FEW,
    OFF,
    OZA,
    PAZ,
    PROCESS,
    RZA,
    RZB,
    SLEEP_INDEX,
    World,
    alert_at,
    blue_of,
    index_of,
    reset_few,
    server,
    step_few,
    user,
)

from purecc4.algos import ippo_notebook
from purecc4.envs import cc4
from purecc4.envs.cc4 import notebook
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_HOSTS, NUM_OBS, SLOTS, BlueAction
from purecc4.envs.cc4.notebook import AGENT_OF, Event
from purecc4.play.scripts import SCRIPTS

events, observe, submit, legal = map(jax.jit, (notebook.events, notebook.observe, notebook.submit, notebook.legal))
HOST = user(OZA)


def obs(process=(), connection=(), phase=0):
    """Observations with alerts on these hosts."""
    flat = np.zeros((NUM_BLUE, NUM_OBS), np.uint8)
    flat[:, 0] = phase
    for alert, hosts in ((PROCESS, process), (CONNECTION, connection)):
        for host in hosts:
            flat[alert_at(host, alert)] = 1
    return flat


def at(array, host):
    """The entries [..., zone, slot] of a host."""
    return np.asarray(array)[..., host // SLOTS - 1, host % SLOTS]


def seen(process=(), connection=()):
    """{host: its event}"""
    found = np.argwhere(events(obs(process, connection)))
    return {int((zone + 1) * SLOTS + slot): Event(event) for event, zone, slot in found}


def does(kind, host=HOST):
    """Actions of all: one agent does something, the others sleep."""
    actions = np.array(SLEEP_INDEX)
    actions[blue_of(host)] = index_of(blue_of(host), kind, host)
    return actions


def live(notes, *story):
    """Notes after pairs of (actions, observation)."""
    for actions, vector in story:
        notes = observe(submit(notes, actions), vector)
    return notes


def quiet(steps):
    """So many steps in which nothing is done or seen."""
    return [(np.array(SLEEP_INDEX), obs())] * steps


@pytest.fixture(scope="module")
def alerted():
    """A process alert on HOST with the first observation."""
    return observe(notebook.initial_notes(), obs([HOST]))


def test_one_event_of_each_kind():
    assert seen([HOST], [HOST]) == {HOST: Event.BREACH}
    assert seen([HOST]) == {HOST: Event.PROCESS}
    assert seen([], [HOST]) == {HOST: Event.CONNECTION}
    assert seen() == {}


def test_a_connection_beside_a_breach_is_its_source():
    assert seen([HOST], [HOST, server(OZA)]) == {HOST: Event.BREACH, server(OZA): Event.SOURCE}
    both = {server(ADM): Event.BREACH, user(OFF): Event.SOURCE, user(PAZ, 2): Event.SOURCE}
    assert seen([server(ADM)], both) == both


def test_zones_of_other_agents_are_not_beside():
    others = {server(RZA): Event.CONNECTION, user(RZB): Event.CONNECTION, server(ADM): Event.CONNECTION}
    assert seen([HOST], [HOST, *others]) == {HOST: Event.BREACH} | others
    assert seen([user(OFF)], [user(OFF), HOST]) == {user(OFF): Event.BREACH, HOST: Event.CONNECTION}


def test_a_restore_counts_from_the_step_in_which_it_takes_effect(alerted):
    """It takes five steps; alerts in the meantime count as before, and those of its last step as the first ones."""
    notes, restore = alerted, does(BlueAction.RESTORE)
    for step in range(1, 5):
        notes = live(notes, (restore, obs([HOST])))
        assert at(notes.counts, HOST)[Event.PROCESS] == 1 + step and at(notes.since_restore, HOST) == step
    notes = submit(notes, restore)
    assert not at(notes.counts, HOST).any() and not at(notes.recent, HOST).any()
    notes = observe(notes, obs([HOST]))
    assert at(notes.counts, HOST)[Event.PROCESS] == at(notes.unanswered, HOST)[Event.PROCESS] == 1
    assert at(notes.since_restore, HOST) == 0 and at(notes.since_restore, server(OZA)) == 5
    assert at(live(notes, *quiet(3)).since_restore, HOST) == 3


def test_a_restore_leaves_other_hosts_and_the_recent_activity_of_the_zone():
    notes = observe(notebook.initial_notes(), obs([HOST, server(OZA)]))
    before = live(notes, *quiet(4))
    notes = live(notes, *[(does(BlueAction.RESTORE), obs())] * 5)
    assert not at(notes.counts, HOST).any() and at(notes.counts, server(OZA))[Event.PROCESS] == 1
    np.testing.assert_allclose(notes.recent_activity, before.recent_activity * notebook.ACTIVITY_RATE)


def test_a_remove_answers_but_is_no_clean_host(alerted):
    remove = does(BlueAction.REMOVE)
    notes = live(alerted, (remove, obs()), (remove, obs()))
    assert at(notes.unanswered, HOST)[Event.PROCESS] == 1
    assert at(notes.since_remove, HOST) == notebook.FORGOTTEN
    notes = live(notes, (remove, obs()))
    assert not at(notes.unanswered, HOST).any() and at(notes.counts, HOST)[Event.PROCESS] == 1
    assert at(notes.since_remove, HOST) == 0 and at(notes.since_restore, HOST) == 3


def test_decoys_are_counted_until_a_restore(alerted):
    decoy = does(BlueAction.DEPLOY_DECOY)
    notes = live(alerted, (decoy, obs()))
    assert not notes.decoys.any()
    notes = live(notes, *[(decoy, obs())] * 3)
    assert at(notes.decoys, HOST) == notes.decoys.sum() == 2
    assert not live(notes, *[(does(BlueAction.RESTORE), obs())] * 5).decoys.any()


def test_actions_of_the_busy_are_lost(alerted):
    """The Restore continues, although another action is submitted."""
    ignored = does(BlueAction.REMOVE, server(OZA))
    notes = live(alerted, (does(BlueAction.RESTORE), obs()), *[(ignored, obs())] * 4)
    assert at(notes.since_restore, HOST) == 0 and not notebook.is_busy(notes).any()
    assert (notes.since_remove == notebook.FORGOTTEN).all()


def test_only_the_busy_must_sleep(alerted):
    mask = np.ones((NUM_BLUE, NUM_ACTIONS), bool)
    notes = live(alerted, (does(BlueAction.RESTORE), obs()))
    allowed = legal(notes, mask)
    assert np.flatnonzero(allowed[blue_of(HOST)]) == [SLEEP_INDEX[blue_of(HOST)]]
    assert np.delete(allowed, blue_of(HOST), axis=0).all()


def test_phase_and_its_age():
    notes, found = notebook.initial_notes(), []
    for phase in (0, 0, 1, 1, 1, 2):
        notes = observe(notes, obs(phase=phase))
        found.append((int(notes.phase), int(notes.phase_age), int(notes.step)))
    assert found == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3), (1, 2, 4), (2, 0, 5)]


def test_what_is_recent_fades_and_what_is_counted_does_not(alerted):
    notes = live(alerted, *quiet(3), (np.array(SLEEP_INDEX), obs([HOST])))
    for rate, recent in zip((0.8, 0.97), at(notes.recent, HOST), strict=True):
        np.testing.assert_allclose(recent[Event.PROCESS], rate**4 + 1, rtol=1e-5)
    np.testing.assert_allclose(notes.recent_activity[Event.PROCESS, OZA - 1], 0.98**4 + 1, rtol=1e-5)
    assert at(notes.counts, HOST)[Event.PROCESS] == notes.counts.sum() == 2


def test_counts_end(alerted):
    notes = live(alerted, *[(np.array(SLEEP_INDEX), obs([HOST]))] * 20)
    assert at(notes.counts, HOST)[Event.PROCESS] == at(notes.unanswered, HOST)[Event.PROCESS] == notebook.COUNTED_TO
    late = eqx.tree_at(lambda notes: notes.since_restore, notes, notes.since_restore + np.int16(2000))
    assert (observe(late, obs()).since_restore == notebook.FORGOTTEN).all()


NUM_STEPS = 500


class Played(NamedTuple):
    """[step env ...] of random play."""

    ticks: np.ndarray
    noted_ticks: np.ndarray
    ignored: np.ndarray
    since_restore: np.ndarray
    restored: np.ndarray
    """[step env zone slot] where the simulator says that a Restore took effect."""


@pytest.fixture(scope="module")
def played():
    """Any legal action is submitted, by the busy, too."""
    params = cc4.make_params()
    now, state = reset_few()(jax.random.split(jax.random.key(0), FEW), params)
    look, note = jax.jit(jax.vmap(notebook.observe)), jax.jit(jax.vmap(notebook.submit))
    notes = look(jax.vmap(lambda _: notebook.initial_notes())(jnp.arange(FEW)), now.flat)
    rng, mask, found = np.random.default_rng(0), np.asarray(now.mask), []
    for key in jax.random.split(jax.random.key(1), NUM_STEPS):
        action = (rng.random(mask.shape) * mask).argmax(axis=2)
        asleep = np.take_along_axis(ACTION_TABLE[None, :, :, 0], action[..., None], 2)[..., 0] == BlueAction.SLEEP
        ignored = (np.asarray(state.blue.ticks) > 0) & ~asleep
        now, state, _, _, info = step_few()(jax.random.split(key, FEW), state, jnp.asarray(action), params)
        notes = look(note(notes, action), now.flat)
        done = np.where(info.executed == BlueAction.RESTORE, ACTION_TABLE[np.arange(5), state.blue.action, 1], 0)
        restored = (done[:, :, None] == np.arange(SLOTS, NUM_HOSTS)).any(axis=1).reshape(FEW, -1, SLOTS)
        found.append((state.blue.ticks, notes.in_progress.ticks, ignored, notes.since_restore, restored))
    return Played(*(np.stack(x) for x in zip(*found, strict=True)))


def test_busy_as_in_the_simulator(played):
    np.testing.assert_array_equal(played.noted_ticks, played.ticks)
    assert played.ignored.sum() > NUM_STEPS and (played.ticks > 0).any(axis=(0, 1)).all()


def test_restores_take_effect_when_the_simulator_says_so(played):
    expected = np.zeros(played.restored.shape[1:], int)
    for restored, noted in zip(played.restored, played.since_restore, strict=True):
        expected = np.where(restored, 0, expected + 1)
        np.testing.assert_array_equal(noted, expected)
    assert played.restored.sum() > 100


@jax.jit
def lives(vectors, actions, mask):
    """Notes and features [step ...] of an episode as arrays."""

    def step(notes, now):
        vector, action = now
        notes = notebook.observe(notes, vector)
        return notebook.submit(notes, action), (notes, ippo_notebook.features(notes, vector, mask))

    return jax.lax.scan(step, notebook.initial_notes(), (vectors, actions))[1]


def of_agent(notes, features, agent):
    """The parts of one agent, and the shared ones."""
    by_host = notes.counts, notes.recent, notes.unanswered, notes.since_restore, notes.since_remove, notes.decoys
    by_zone = (x.reshape(*x.shape[:2], -1) for x in (features.host, features.zone, features.traffic))
    own = agent == AGENT_OF
    return [
        *(x[..., own, :] for x in (*by_host, *by_zone)),
        notes.recent_activity[..., own],
        *(x[:, agent] for x in (notes.in_progress.action, notes.in_progress.ticks)),
        *(notes.phase, notes.phase_age, notes.step),
    ]


@pytest.mark.parametrize("agent", range(NUM_BLUE))
def test_nothing_comes_from_other_agents(agent):
    """Whatever the others see, may do and do."""
    rng = np.random.default_rng(agent)

    def story():
        vectors = (rng.random((30, NUM_BLUE, NUM_OBS)) < 0.2).astype(np.uint8)
        vectors[:, :, 0] = np.arange(30)[:, None] // 10
        return vectors, rng.integers(0, 82, (30, NUM_BLUE)), rng.random((NUM_BLUE, NUM_ACTIONS)) < 0.5

    mine, others = story(), story()
    for mixed, own, axis in zip(others, mine, (1, 1, 0), strict=True):
        np.moveaxis(mixed, axis, 0)[agent] = np.moveaxis(own, axis, 0)[agent]
    first, second = (lives(*each) for each in (mine, others))
    for one, other in zip(of_agent(*first, agent), of_agent(*second, agent), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


EXISTING = {host for host in range(SLOTS, NUM_HOSTS) if host % SLOTS in (0, 1, 2, 6, 7, 8, 9)}
MASK = np.asarray(cc4.action_mask(jnp.isin(jnp.arange(NUM_HOSTS), jnp.array(sorted(EXISTING)))))
logits_of = eqx.filter_jit(lambda script, notes, vector: script.logits(notes, vector, jnp.asarray(MASK))[1])


def choices(name, notes, vector=None):
    """{(agent, kind, host)} of the actions that a script may take."""
    carry = () if name == "sleep" else notes
    logits = np.asarray(logits_of(SCRIPTS[name], carry, obs() if vector is None else vector))
    rows = [(agent, *ACTION_TABLE[agent, index, :2]) for agent, index in np.argwhere(logits == 0)]
    assert (logits[logits != 0] == np.finfo(np.float32).min).all()
    return {(int(agent), BlueAction(kind), int(host)) for agent, kind, host in rows}


def noted(**events):
    """Notes with events, by name, on lists of hosts; repeated ones count twice."""
    counts = np.zeros((len(Event), len(AGENT_OF), SLOTS), np.uint8)
    for name, hosts in events.items():
        for host in hosts:
            counts[Event[name.upper()], host // SLOTS - 1, host % SLOTS] += 1
    return eqx.tree_at(lambda notes: notes.counts, notebook.initial_notes(), jnp.asarray(counts))


def everywhere(kind, agents=range(NUM_BLUE)):
    return {(blue_of(host), kind, host) for host in EXISTING if blue_of(host) in agents}


def asleep(agents=range(NUM_BLUE)):
    return {(agent, BlueAction.SLEEP, 255) for agent in agents}


def restores(*hosts):
    return {(blue_of(host), BlueAction.RESTORE, host) for host in hosts}


def test_sleep_and_random():
    assert choices("sleep", noted(breach=[HOST])) == asleep()
    assert (np.asarray(logits_of(SCRIPTS["random"], (), obs()) == 0) == MASK).all()


def test_restore_looks_at_nothing():
    assert choices("restore", noted(breach=[HOST])) == everywhere(BlueAction.RESTORE)


def test_two_strikes():
    """One connection is not enough, two or one of another kind are; the worst comes first; else decoys."""
    others = [agent for agent in range(NUM_BLUE) if agent != blue_of(HOST)]
    decoys = everywhere(BlueAction.DEPLOY_DECOY, others)
    assert choices("two_strikes", noted(connection=[HOST])) == everywhere(BlueAction.DEPLOY_DECOY)
    assert choices("two_strikes", noted(connection=[HOST] * 2)) == restores(HOST) | decoys
    assert choices("two_strikes", noted(source=[HOST], connection=[HOST])) == restores(HOST) | decoys
    assert choices("two_strikes", noted(process=[HOST], connection=[server(OZA)] * 2)) == restores(HOST) | decoys
    assert choices("two_strikes", noted(process=[server(OZA)], breach=[HOST])) == restores(HOST) | decoys
    tie = choices("two_strikes", noted(process=[HOST, server(OZA)]))
    assert tie == restores(HOST, server(OZA)) | decoys
    assert choices("two_strikes", noted(connection=[HOST]), obs([], [HOST])) == restores(HOST) | decoys


def test_decoys_of_two_strikes_go_where_there_are_fewest():
    full = eqx.tree_at(lambda notes: notes.decoys, noted(), jnp.full((7, SLOTS), 4, jnp.uint8))
    assert choices("two_strikes", full) == asleep()
    one_lacks = eqx.tree_at(lambda notes: notes.decoys, full, full.decoys.at[OZA - 1, 6].set(2))
    lacking = (blue_of(HOST), BlueAction.DEPLOY_DECOY, HOST)
    assert choices("two_strikes", one_lacks) == {lacking} | asleep(set(range(NUM_BLUE)) - {blue_of(HOST)})


def test_evidence():
    assert choices("evidence", noted(connection=[HOST] * 8)) == asleep()
    for kind in ("breach", "source", "process"):
        assert choices("evidence", noted(**{kind: [HOST]})) == restores(HOST) | asleep((0, 2, 3, 4))
    worse = noted(process=[HOST], breach=[user(RZA)], source=[user(RZA, 1)] * 2)
    assert choices("evidence", worse) == restores(HOST, user(RZA, 1)) | asleep((2, 3, 4))


def test_glance_restores_what_this_step_shows_and_else_any_host_in_one_step_of_ten():
    breach = obs([HOST], [HOST])
    logits = np.asarray(logits_of(SCRIPTS["glance"], (), breach))
    chance = np.exp(logits)
    np.testing.assert_allclose(chance.sum(axis=1), 1, rtol=1e-5)
    restore = (ACTION_TABLE[:, :, 0] == BlueAction.RESTORE) & MASK
    agent = blue_of(HOST)
    assert [int(ACTION_TABLE[agent, index, 1]) for index in np.flatnonzero(chance[agent] == 1)] == [HOST]
    for other in set(range(NUM_BLUE)) - {agent}:
        np.testing.assert_allclose(chance[other][restore[other]], 0.1 / restore[other].sum(), rtol=1e-5)
        np.testing.assert_allclose(chance[other][~restore[other]].max(), 0.9, rtol=1e-5)


def test_oracle_restores_what_red_holds():
    world = World()
    world.session(2, HOST)
    notes = eqx.filter_jit(SCRIPTS["oracle"].look)(noted(breach=[user(RZA)]), world.state)
    assert choices("oracle", notes) == restores(HOST) | asleep((0, 2, 3, 4))


@pytest.mark.parametrize("name", ["sleep", "restore", "two_strikes", "evidence", "oracle"])
def test_scripts_sleep_while_busy(name):
    notes = noted(breach=sorted(EXISTING))
    busy = jnp.array([0, 2, 0, 0, 1], jnp.uint8)
    notes = eqx.tree_at(lambda notes: notes.in_progress.ticks, notes, busy)
    found = choices(name, notes)
    assert {choice for choice in found if choice[0] in (1, 4)} == asleep((1, 4))
    assert name == "sleep" or not any(choice in found for choice in asleep((0, 2, 3)))
