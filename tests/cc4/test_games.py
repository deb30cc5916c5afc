"""Games: every number of `GameSpec` changes what it says, and the defaults are the challenge's."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import BATCH, OZA, RZA, SLEEP_INDEX, World, assert_frequencies, decide, red_of, run, server, user

from purecc4.envs import cc4
from purecc4.envs.cc4 import env
from purecc4.envs.cc4.constants import (
    BLUE_DURATION,
    IN_PROGRESS,
    MAX_SERVERS,
    NUM_ZONES,
    RED_DURATION,
    SLOTS,
    BlueAction,
    GreenAction,
    RedAction,
    Service,
)
from purecc4.envs.cc4.games import BASE, GAMES, GameSpec, build_game
from purecc4.envs.cc4.params import RED_ARGUMENTS, make_params, red_policy

HOST, WORK, VISIT = user(RZA), GreenAction.LOCAL_WORK, GreenAction.ACCESS_SERVICE


def working(game: GameSpec, kind: GreenAction = WORK) -> World:
    world = World(game=game)
    world.green_does(HOST, kind, server(RZA, 1))
    return world


def test_the_base_game_is_the_challenge():
    game = build_game(BASE)
    assert (game.red_duration.tolist(), game.blue_duration.tolist()) == (RED_DURATION.tolist(), BLUE_DURATION.tolist())
    assert make_params().game.phishing == jnp.float32(0.01) and BASE.changes() == {}


def test_shares_of_a_third_are_those_of_a_uniform_index():
    """On every uniform number that JAX draws, multiples of 2^-23: trainings stay what they were."""
    u = np.arange(2**23, dtype=np.float32) / np.float32(2**23)
    by_shares = (u >= np.asarray(build_game(BASE).green_cdf)[:, None]).sum(axis=0)
    assert np.array_equal(by_shares, np.minimum((u * np.float32(3)).astype(np.int32), 2))


def test_shares_of_greens_actions():
    choices = decide(World(game=GameSpec(visit=0.5, work=0.25)), make_params().red, green_action=1)
    for kind, share in ((VISIT, 0.5), (WORK, 0.25), (GreenAction.SLEEP, 0.25)):
        assert np.abs((choices.green_action == kind).sum(axis=0) - BATCH * share).max() < 1


@pytest.mark.parametrize(
    ("name", "kind", "draw", "seen"),
    [
        ("phishing", WORK, "green_phishing", lambda after: bool(after.sessions_on(HOST))),
        ("work_alarm", WORK, "green_alarm", lambda after: after.process_alert(HOST)),
        ("visit_alarm", VISIT, "green_alarm", lambda after: after.connection_alert(server(RZA, 1))),
    ],
)
def test_rates_of_green(name, kind, draw, seen):
    worlds = [working(GameSpec(**{name: 0.6}), kind) for _ in range(2)] + [working(GameSpec(**{name: 0}), kind)]
    for world, u in zip(worlds, (0.59, 0.61, 0), strict=True):
        world.draw(draw, slice(None), u)
    assert [seen(after) for after in run(worlds)] == [True, False, False]


@pytest.mark.parametrize("rate", [0.75, 1])
def test_pids_of_phished_sessions_are_uniform_at_any_rate(rate):
    worlds = [working(GameSpec(phishing=rate)) for _ in range(90)]
    for index, world in enumerate(worlds):
        world.draw("green_phishing", slice(None), rate * (index + 0.5) / 90)
    pids = [after.sessions(red_of(HOST))[id].pid for after in run(worlds) for id in after.sessions_on(HOST)]
    assert np.bincount(pids, minlength=10).tolist() == [0, *[10] * 9]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aggressive_detection", RedAction.AGGRESSIVE_SERVICE_DISCOVERY),
        ("stealth_detection", RedAction.STEALTH_SERVICE_DISCOVERY),
        ("exploit_detection", RedAction.EXPLOIT_REMOTE_SERVICE),
    ],
)
def test_detection_of_red(name, kind):
    worlds = [World(game=GameSpec(**{name: rate}), services=[(Service.MYSQL, HOST)]) for rate in (0.4, 0.6)]
    for world in worlds:
        world.session(1, server(RZA))
        world.remember(1, HOST, 0)
        world.red_does(1, kind, HOST)
        world.draw("exploit", slice(None), 0)  # SSH brute force, whose other alert is on its source
        world.draw("detection", slice(None), 0.5)
        world.draw("source_detection", slice(None), 0.5)
    noticed = server(RZA) if kind == RedAction.EXPLOIT_REMOTE_SERVICE else HOST
    assert [after.connection_alert(noticed) for after in run(worlds)] == [False, True]


def test_durations():
    game = GameSpec(red_durations={RedAction.IMPACT: 7}, blue_durations={BlueAction.RESTORE: 1})
    world = World(game=game)
    world.session(2, server(OZA))
    world.red_chooses(2, RedAction.IMPACT, server(OZA))
    world.blue_submits(1, BlueAction.RESTORE, server(OZA, 1))
    world.blue_submits(0, BlueAction.REMOVE, server(RZA))
    after = world.step()
    assert after.state.red.queue.ticks[2] == 6
    assert after.info.executed[:2].tolist() == [IN_PROGRESS, BlueAction.RESTORE]


def test_one_step_suffices_for_every_action_in_the_aggressive_game():
    assert build_game(GAMES["aggressive"]).red_duration.tolist() == [1] * len(RedAction)


def test_generated_scenarios_have_the_sizes_and_the_restore_cost_of_the_game():
    params = make_params(game=GameSpec(servers=(2, 4), users=(0, 1), restore_cost=0.25))
    scenarios = jax.jit(jax.vmap(cc4.generate, (0, None)))(jax.random.split(jax.random.key(0), 600), params)
    exists = np.asarray(scenarios.exists).reshape(-1, SLOTS)
    servers, users = exists[:, :MAX_SERVERS].sum(axis=1), exists[:, MAX_SERVERS:].sum(axis=1)
    for counts, outcomes in ((servers, (2, 3, 4)), (users, (0, 1))):
        observed = np.array([(counts == k).sum() for k in outcomes])
        assert observed.sum() == 600 * NUM_ZONES
        assert_frequencies(observed, np.full(len(outcomes), 1 / len(outcomes)))
    assert (scenarios.restore_cost == 0.25).all()


def test_a_scenarios_own_red_plays_instead_of_that_of_the_parameters(monkeypatch):
    class Decided(Exception):
        """Raised with the policy that decides."""

    def decide(state, policy, draws):
        raise Decided(policy)

    monkeypatch.setattr(env, "decide", decide)
    state, params, mine = jax.tree.map(jnp.asarray, World().state), make_params("sleep"), make_params("fsm").red
    own = replace(state, scenario=replace(state.scenario, red=mine))
    for each, expected in ((state, params.red), (own, mine)):
        with pytest.raises(Decided) as decided:
            cc4.step(jax.random.key(0), each, jnp.array(SLEEP_INDEX), params)
        assert decided.value.args[0] is expected


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("aggressive", RedAction.STEALTH_SERVICE_DISCOVERY),
        ("stealthy", RedAction.AGGRESSIVE_SERVICE_DISCOVERY),
        ("impact", RedAction.DEGRADE_SERVICES),
    ],
)
def test_reds_that_never_take_one_action(name, gone):
    """All else is as with `fsm`."""
    kept = [kind for kind in RedAction if kind != gone]
    mine, fsm = (np.diff(red_policy(**RED_ARGUMENTS[red]).action_cdf, prepend=0) for red in (name, "fsm"))
    assert not mine[:, gone].any()
    assert (np.abs(mine - fsm)[:, kept].max(axis=0) > 1e-6).sum() == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"phishing": 1.5}, "phishing must be a probability, from 0 to 1: 1.5"),
        ({"exploit_detection": float("nan")}, "exploit_detection must be a probability"),
        ({"work": 0.7, "visit": 0.5}, "at most 1 together: 1.2"),
        ({"servers": (0, 3)}, r"servers must be the least and the most, within 1 to 6: \(0, 3\)"),
        ({"users": (7, 5)}, r"users must be the least and the most, within 0 to 10: \(7, 5\)"),
        ({"red_durations": {RedAction.IMPACT: 0}}, "IMPACT must last from 1 to 100 steps: 0"),
        ({"blue_durations": {BlueAction.RESTORE: 101}}, "RESTORE must last from 1 to 100 steps: 101"),
        ({"restore_cost": -1}, "restore_cost must be a float32 number of at least 0: -1"),
    ],
)
def test_bad_numbers_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        GameSpec(**change)


def test_an_unknown_game_is_refused():
    with pytest.raises(ValueError, match="unknown game 'fishing'; known are base, constant_size, phishing"):
        make_params(game="fishing")
