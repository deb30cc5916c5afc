"""Rules with learned numbers, and PGPE on them."""

import dataclasses
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe import rows, script
from worlds import OFF, OZA, PAZ, blue_of, user

from purecc4.algos import pgpe
from purecc4.envs import cc4
from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import ACTION_TABLE, decode
from purecc4.envs.cc4.by_host import OWN_HOSTS
from purecc4.envs.cc4.constants import HQ, HQ_BLUE, NUM_BLUE, NUM_HOSTS, SLOTS, BlueAction
from purecc4.errors import UserError
from purecc4.play import policies
from purecc4.train import checkpoint

CONFIG = pgpe.Config(arm=("C00",), seeds=(7,), num_envs=8, num_steps=40, total_timesteps=640).resolved()
FULL = cc4.action_mask(jnp.ones(NUM_HOSTS, bool))
HOST, SECOND, THIRD = user(OZA), user(OZA, 1), user(OZA, 2)
NAMES = tuple(pgpe.NUMBERS)


@jax.jit
def chosen(numbers, notes):
    """Indices of all agents' actions."""
    return eqx.tree_at(lambda rules: rules.numbers, pgpe.Rules(), numbers).choose(notes, FULL)


WEIGHTS = {name: 0 for name in NAMES if name.endswith("_weight")}


def acts(notes, host=HOST, **numbers):
    """Kind and host of the action of the host's agent, with other numbers than at the start and no weight not given."""
    table = pgpe.start()
    for name, value in (WEIGHTS | {"named_weight": 1} | numbers).items():
        table[:, NAMES.index(name)] = value
    agent = blue_of(host)
    kind, target = ACTION_TABLE[agent, chosen(jnp.asarray(table), notes)[agent], :2].tolist()
    return BlueAction(kind), target


def notes_in(step=100, **hosts):
    """A history of idle agents. Values by field are (host, value) pairs."""
    notes = dataclasses.replace(history.init(), step=jnp.int16(step), looked=jnp.full(OWN_HOSTS.shape, step, jnp.int16))
    for name, pairs in hosts.items():
        for host, value in pairs:
            field = getattr(notes, name)
            at = tuple(np.argwhere(host == OWN_HOSTS)[0])
            notes = dataclasses.replace(notes, **{name: field.at[at].set(value)})
    return notes


RESTORE, REMOVE, ANALYSE, DECOY = (
    BlueAction.RESTORE,
    BlueAction.REMOVE,
    BlueAction.ANALYSE,
    BlueAction.DEPLOY_DECOY,
)


@pytest.mark.parametrize(("number", "step"), [("user_named_0", 166), ("user_named_1", 167), ("user_named_2", 334)])
def test_an_attacker_is_restored_at_its_number_of_namings(number, step):
    notes = notes_in(step, named=[(HOST, 3)])
    assert acts(notes, **{number: 3}) == (RESTORE, HOST)
    assert acts(notes, **{number: 3.01})[0] == ANALYSE
    assert acts(notes, **{number: 3, "sources": 1})[0] == ANALYSE
    assert acts(notes, **{number: 3, "quiet_sources": pgpe.LAST - step})[0] == ANALYSE


ZONE, TARGETS, LEFT = OZA * SLOTS, 0b101, 3 * 68 / 167
"""First host of the zone; slots attacked by HOST; the rest of the phase in step 99, in thirds."""


@pytest.mark.parametrize(
    ("weight", "needed"),
    [("named", 2), ("target", 2), ("share", 20 / 16), ("stale", 3), ("fresh", 11), ("size", 6), ("restore", 4)],
)
def test_suspicion_is_a_weighted_sum(weight, needed):
    """A zone of 16 hosts: two attacked by a host named twice, three stale ones, four Restores."""
    notes = notes_in(
        99,
        named=[(HOST, 2)],
        targets=[(HOST, TARGETS)],
        stale=[(ZONE + slot, True) for slot in (7, 8, 9)],
        restores=[(ZONE + 7, 3), (ZONE + 8, 1)],
    )
    only = {"named_weight": 0, f"{weight}_weight": 1}
    assert acts(notes, **only, user_named_0=needed - 0.01) == (RESTORE, HOST)
    assert acts(notes, **only, user_named_0=needed + 0.01)[0] == ANALYSE
    less = {"named_weight": 0, f"{weight}_weight": -1, "user_named_0": -needed - 0.01}
    assert acts(notes, **less) == (RESTORE, HOST)
    assert acts(notes, **(only | {"phase_weight": 1}), user_named_0=needed + LEFT - 0.01) == (RESTORE, HOST)


def test_an_exploited_attacker_is_restored_or_removed():
    notes = notes_in(unanswered=[(HOST, 1)], named=[(HOST, 1)], exploits=[(HOST, 1)])
    assert acts(notes, exploited_named=1) == (RESTORE, HOST) and acts(notes, exploited_named=2) == (REMOVE, HOST)
    assert acts(notes, exploited_named=1, quiet_exploited=399) == (REMOVE, HOST)
    never = notes_in(unanswered=[(HOST, 1)])
    assert acts(never, exploited_named=-1) == (REMOVE, HOST)


def test_decoys_and_the_order_of_analyses():
    assert acts(notes_in(), user_decoys=0.1) == (DECOY, HOST) and acts(notes_in(), user_decoys=0)[0] == ANALYSE
    assert acts(notes_in(decoys=[(HOST, 1)]), user_decoys=1.5) == (DECOY, HOST + 1)
    looked = notes_in(looked=[(HOST, 60), (SECOND, 70), (THIRD, 90)], named=[(SECOND, 1)], exploits=[(THIRD, 1)])
    assert acts(looked, named_bonus=0, exploited_bonus=0) == (ANALYSE, HOST)
    assert acts(looked, named_bonus=11, exploited_bonus=0) == (ANALYSE, SECOND)
    assert acts(looked, named_bonus=11, exploited_bonus=32) == (ANALYSE, THIRD)
    assert acts(looked, server_delay=-100) == (ANALYSE, OZA * 16)


def test_headquarters_opens_with_blocks_between_its_zones():
    opening = [chosen(jnp.asarray(pgpe.start()), notes_in(step, files=[(user(OFF), 2)]))[HQ_BLUE] for step in range(7)]
    kinds, _, to, source = ACTION_TABLE[HQ_BLUE, opening].T.tolist()
    assert kinds == [BlueAction.BLOCK_TRAFFIC_ZONE] * 6 + [RESTORE]
    assert {*zip(to[:6], source[:6], strict=True)} == {(a, b) for a in HQ for b in HQ if a != b}
    assert acts(notes_in(0))[0] == ANALYSE and acts(notes_in(9), user(PAZ))[0] == ANALYSE


def test_an_odd_number_of_environments_is_refused():
    with pytest.raises(UserError, match="num_envs must be even, as episodes are played in pairs: 7"):
        dataclasses.replace(CONFIG, num_envs=7).check()


@pytest.fixture(scope="module")
def env():
    return pgpe.make_env(CONFIG)


@pytest.fixture(scope="module")
def arm(env):
    return jax.tree.map(lambda x: x[0], env.arms)


@pytest.fixture(scope="module")
def play(env, arm):
    return jax.jit(lambda numbers, key: pgpe.play(CONFIG, env, numbers, arm, key))


@pytest.mark.slow
def test_equal_numbers_and_keys_give_equal_scores(play):
    """The scores are the agents' parts of the team's return."""
    numbers = jnp.tile(pgpe.start(), (4, 1, 1))
    score, sums = play(numbers, jax.random.key(1))
    np.testing.assert_array_equal(score, play(numbers, jax.random.key(1))[0])
    assert (score != play(numbers, jax.random.key(2))[0]).any()
    terms = sum(sums[name] for name in ("lwf", "asf", "ria", "cost"))
    np.testing.assert_allclose(sums["return"], terms, atol=1e-4)
    assert (score.sum(axis=1) >= sums["return"] - 1e-4).all() and (sums["overflow"] == 0).all()


@pytest.mark.slow
def test_an_update_moves_the_numbers_along_the_noise_that_paid(env, arm, play):
    runner = pgpe.init(CONFIG, env, jnp.uint32(3))
    after, metrics = jax.jit(partial(pgpe.update, CONFIG, env))(arm, runner)
    key_noise, key = jax.random.split(jax.random.fold_in(jax.random.key(3), 0))
    noise = np.asarray(jax.random.normal(key_noise, (4, NUM_BLUE, len(NAMES))))
    numbers = [pgpe.start() + sign * pgpe.NOISE * noise for sign in (1, -1)]
    better, worse = (np.asarray(play(each, jax.random.clone(key))[0]) for each in numbers)
    assert (better != worse).any()
    score = np.clip((better - worse) / 2, -10, 10)
    gradient = (score / (np.sqrt((score**2).mean(axis=0)) + 1e-8))[..., None] * noise
    np.testing.assert_allclose(after.velocity, gradient.mean(axis=0), atol=1e-5)
    moved = pgpe.start() + CONFIG.learning_rate * pgpe.NOISE * gradient.mean(axis=0)
    np.testing.assert_allclose(after.network.numbers, moved, rtol=1e-5, atol=1e-5)
    assert metrics["own_zones"] == pytest.approx((better + worse).sum(axis=1).mean() / 2, abs=1e-4)


@pytest.mark.slow
def test_what_pays_is_learned(env, arm, monkeypatch):
    """If decoys alone pay, hosts get decoys."""
    monkeypatch.setattr(pgpe, "credit", lambda info, state, action: (decode(action).kind == DECOY).astype(jnp.float32))
    config = dataclasses.replace(CONFIG, num_envs=16, total_timesteps=12_800).resolved()
    runner, update = pgpe.init(config, env, jnp.uint32(1)), jax.jit(partial(pgpe.update, config, env))
    scores = []
    for _ in range(config.num_updates):
        runner, metrics = update(arm, runner)
        scores.append(float(metrics["own_zones"]))
    assert np.mean(scores[-5:]) > 1.3 * np.mean(scores[:5]) > 0
    learned = (runner.network.numbers - pgpe.start())[:, NAMES.index("user_decoys")]
    assert learned.min() > 0.3


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = "--seeds 1 --num-envs 4 --num-steps 20 --schedule-timesteps 160 --checkpoint-every 1"
    assert script(pgpe, "--name whole", flags, "--total-timesteps 160") is None
    assert script(pgpe, "--name run", flags, "--total-timesteps 80") is None
    assert script(pgpe, "--name run --resume --total-timesteps 160") is None
    whole, run = Path("runs/whole"), Path("runs/run")
    assert (run / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()
    assert rows(run) == rows(whole)
    loaded = policies.trained(checkpoint.path_of(run, "C00", 1, 160))
    assert loaded.observation == "raw" and isinstance(loaded.network, pgpe.Rules)
    assert (loaded.network.numbers != pgpe.start()).any()
