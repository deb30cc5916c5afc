"""IPPO, and behaviour common to all algorithms, on a probe environment; the script on tiny runs of CC4."""

import dataclasses
import itertools
import re
from functools import partial
from pathlib import Path

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import probe
import pytest
from probe import EVERY, TINY, assert_equal

from purecc4 import minibatches
from purecc4.algos import ippo
from purecc4.moments import merge
from purecc4.play import policies
from purecc4.train import checkpoint, devices, run_writer, runs
from purecc4.train.settings import MAX_STEPS

CONFIG = probe.CONFIG


@pytest.fixture(scope="module", params=[ippo], ids=["ippo"])
def algorithm(request):
    """A file of algos/."""
    return request.param


@pytest.fixture(scope="module")
def config(algorithm):
    """Its settings for the probe."""
    return probe.CONFIGS[algorithm]


@pytest.fixture(scope="module")
def env(algorithm):
    """The probe."""
    return probe.ENV


@pytest.fixture(scope="module")
def advance(algorithm, config, env):
    """(updates, tasks, runners) -> (runners, logs); compiled once for each number of updates and runs.

    It works on copies, as the program takes its runners away.
    """
    train = runs.map_over_runs(config, algorithm.make_train, env).train
    return lambda num_updates, *trees: train(*map(devices.shard_runs, trees), num_updates)


@pytest.fixture(scope="module")
def begun(algorithm, config):
    """(tasks, runners) of all runs before their first update."""
    return probe.start(algorithm, config)


@pytest.fixture(scope="module")
def learned(advance, begun):
    """(runners, last logs) after a hundred updates."""
    task, runners = begun
    for _ in range(10):
        runners, logs = advance(10, task, runners)
    return runners, logs


@EVERY
def test_probe_is_learned(learned):
    _, logs = learned
    assert (logs["return"][:2].mean(1) > 1.7).all() and logs["return"][:2].max() <= 2
    assert set(logs) == set(run_writer.LOGS)


def test_policy_and_value_are_right(learned):
    runners, _ = learned
    vector = jnp.array([[c == 0, c == 1, s == 0, s == 1] for c, s in itertools.product((0, 1), (0, 1))], jnp.uint8)
    mask = jnp.broadcast_to(jnp.arange(3) < 2, (4, 3))
    logits, value = jax.vmap(lambda network: network(vector, mask))(runners.network)
    probs = jax.nn.softmax(logits)
    np.testing.assert_allclose(probs[:2, [1, 3], [0, 1]], 1, atol=0.05)
    np.testing.assert_array_equal(probs[..., 2], 0)
    np.testing.assert_allclose(value[:2, ::2] / value[:2, 1::2], CONFIG.gamma, atol=0.05)


def test_masked_actions_are_never_taken(algorithm, config, env, begun):
    task, runner = jax.tree.map(lambda x: x[0], begun)
    traj, *_, mask = jax.jit(partial(algorithm.rollout, config, env))(runner.network, task.arm, jax.random.key(0))
    assert mask.shape == (config.num_envs, 2, 3) and traj.obs.shape == (2, config.num_envs, 2, 4)
    assert traj.obs.dtype == traj.action.dtype == jnp.uint8
    assert (traj.action < 2).all()


def test_gae_by_hand():
    reward, value = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([[0.5], [1.0], [3.0]])
    # deltas 1 + 0.5 * 1 - 0.5 = 1, 2 + 0.5 * 3 - 1 = 2.5, 4 + 0 - 3 = 1; decay 0.5 * 0.8 = 0.4
    np.testing.assert_allclose(ippo.gae(reward, value, 0.5, 0.8), [[1 + 0.4 * 2.9], [2.5 + 0.4], [1.0]], rtol=1e-6)


def test_rewards_are_divided_by_the_deviation_that_contains_them():
    reward = np.random.default_rng(0).normal(-20, 7, (6, 5)).astype(np.float32)
    stats, scaled = jax.jit(ippo.normalise_rewards, static_argnums=(2, 3))(ippo.RunningMeanVar(), reward, 0.9, 3.0)
    discounted, seen = np.zeros(5), []
    for now, result in zip(reward, np.asarray(scaled), strict=True):
        discounted = 0.9 * discounted + now
        seen.append(discounted)
        np.testing.assert_allclose(result, np.clip(now / np.std(seen), -3, 3), rtol=1e-3)
    np.testing.assert_allclose(stats.mean, np.mean(seen), rtol=1e-4)
    assert (scaled == -3).any() and round(float(stats.count), 3) == 30


@pytest.mark.parametrize("count", [0.99 * 2**20, 2.0**24, 2e8])
def test_reward_deviation_does_not_drift_in_long_trainings(count):
    """Two million steps of constant deviation, with one environment, after `count` others."""
    reward = jnp.asarray(np.random.default_rng(0).normal(30, 200, (2**21, 1)), jnp.float32)
    stats = ippo.RunningMeanVar(jnp.float32(30), jnp.float32(200**2), jnp.float32(count))
    stats, _ = jax.jit(ippo.normalise_rewards, static_argnums=(2, 3))(stats, reward, 0.0, 10.0)
    np.testing.assert_allclose(jnp.sqrt(stats.var), 200, rtol=0.01)


def group(batch, mask, rows, num_obs, num_actions):
    """Some rows of a minibatch, cut to a length."""
    part = jax.tree.map(lambda x: x[rows], batch)
    return dataclasses.replace(part, obs=part.obs[:, :num_obs]), jnp.asarray(mask[rows, :num_actions])


def test_loss_by_hand():
    network = eqx.filter_jit(ippo.ActorCritic)(jax.random.key(0), 4, 2, 8)
    vector, mask = jnp.eye(4, dtype=jnp.uint8), jnp.ones((4, 2), bool)
    logits, value = network(vector, mask)
    policy = distrax.Categorical(logits=logits)
    action, ratio = jnp.array([0, 1, 0, 1], jnp.uint8), np.array([1.5, 0.5, 1.1, 1.0])
    advantage, target = np.array([1.0, 2.0, 3.0, 6.0]), np.arange(4.0)
    old = policy.log_prob(action) - np.log(ratio)
    batch = ippo.Batch(vector, action, old, jnp.float32(advantage), jnp.float32(target))
    halves = [group(batch, mask, rows, 4, 2) for rows in (slice(1), slice(1, None))]
    loss, logs = jax.jit(ippo.ppo_loss, static_argnums=2)(network, halves, CONFIG)
    expected = probe.loss_by_hand(ratio, advantage, value, target, policy.entropy())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["clipfrac"], 0.5)
    np.testing.assert_allclose(logs["approx_kl"], np.mean(ratio - 1 - np.log(ratio)), rtol=1e-4)


def test_samples_at_their_own_length_give_the_same_gradient():
    """A minibatch whose rows of agents with one zone are cut, against all rows at full length."""
    random, sizes = np.random.default_rng(0), (12, 9)
    network = eqx.filter_jit(ippo.ActorCritic)(jax.random.key(0), *sizes, 8)
    narrow = np.arange(20) >= 8
    vector = random.integers(0, 2, (20, sizes[0])) * ~(narrow[:, None] & (np.arange(sizes[0]) >= 5))
    mask = ~(narrow[:, None] & (np.arange(sizes[1]) >= 3))
    columns = (jnp.float32(random.normal(size=20)) for _ in range(3))
    batch = ippo.Batch(jnp.uint8(vector), jnp.uint8(random.integers(0, 3, 20)), *columns)
    whole = [group(batch, mask, slice(20), *sizes)]
    cut = [group(batch, mask, slice(8), *sizes), group(batch, mask, slice(8, None), 5, 3)]
    gradient = jax.jit(jax.grad(ippo.ppo_loss, has_aux=True), static_argnums=2)
    of_whole, of_cut = (jax.tree.leaves(gradient(network, groups, CONFIG)) for groups in (whole, cut))
    for one, other in zip(of_whole, of_cut, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert any(np.abs(x).max() > 0.01 for x in of_whole)


def test_minibatches_have_room_for_the_last_agent():
    """Every sample in exactly one minibatch of an epoch, and all of the last agent within the rows of full length."""
    rows, long = 7500, minibatches.long_rows(7500, 5)
    assert 1700 < long < 1800 and minibatches.long_rows(20, 2) == 20
    order = jax.jit(minibatches.shuffle, static_argnums=(1, 2, 3, 4))(jax.random.key(0), 2, 16, 16 * rows, 5)
    assert order.shape == (2 * 16, rows)
    np.testing.assert_array_equal(np.sort(order.reshape(2, -1)), np.tile(np.arange(16 * rows), (2, 1)))
    assert not (np.asarray(order)[:, long:] % 5 == 4).any() and len(np.unique(order[:16])) == 16 * rows
    assert (np.asarray(order)[0] != np.asarray(order)[16]).any()


@pytest.mark.parametrize("size", [1, 2, 500, 120_000])
def test_permutation_is_that_of_jax(size):
    for seed in range(3):
        ours = minibatches.permutation(jax.random.key(seed), size)
        np.testing.assert_array_equal(ours, jax.random.permutation(jax.random.key(seed), size))


def test_network_is_that_of_the_study():
    network = jax.jit(partial(ippo.ActorCritic, num_obs=210, num_actions=242, hidden=256))(jax.random.key(1))
    assert sum(x.size for x in jax.tree.leaves(network)) == 182_259
    weight = np.asarray(network.second.weight)
    np.testing.assert_allclose(weight @ weight.T, 2 * np.eye(256), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(network.actor.weight, axis=1), 0.01, rtol=1e-4)
    assert not network.first.bias.any()


@EVERY
def test_lone_run_equals_its_slice(advance, begun):
    whole, _ = advance(10, *begun)
    for run in (0, 3):
        lone, _ = advance(10, *jax.tree.map(lambda x, run=run: x[run : run + 1], begun))
        assert_equal(lone, jax.tree.map(lambda x, run=run: x[run : run + 1], whole))


@pytest.mark.slow
def test_runs_side_by_side_equal_runs_in_turn(algorithm, config, env, advance, begun):
    """Accelerators batch the runs, whose matrix products then differ in their last bits.

    Key-reuse checking takes the batched keys of a scan for used ones.
    """

    init, update, _ = algorithm.make_train(config, env)
    seeds = jnp.array(config.seeds, jnp.uint32)
    with jax.debug_key_reuse(False):
        beside = jax.vmap(lambda arm: jax.vmap(init)(seeds))(env.arms)
        for _ in range(2):
            beside, _ = jax.jit(jax.vmap(jax.vmap(update, (None, 0))))(env.arms, beside)
    beside = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), beside)
    arm, in_turn = begun
    for _ in range(2):
        in_turn, _ = advance(1, arm, in_turn)
    for one, other in zip(jax.tree.leaves(beside), jax.tree.leaves(in_turn), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@EVERY
def test_chunks_of_updates_equal_the_whole(advance, begun):
    task, runners = begun
    ten, whole = advance(10, task, runners)
    parts = []
    for _ in range(10):
        runners, logs = advance(1, task, runners)
        parts.append(logs)
    assert_equal(runners, ten)
    assert_equal(jax.tree.map(lambda *logs: np.concatenate(logs, 1), *parts), whole)


def test_arms_share_their_random_numbers(advance, begun):
    same, _ = advance(1, runs.Task({"bonus": jnp.zeros(4)}, {}), begun[1])
    assert_equal(jax.tree.map(lambda x: x[:2], same), jax.tree.map(lambda x: x[2:], same))


script = partial(probe.script, ippo)


@pytest.mark.slow
def test_script_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script("--arm C00 C11 --seeds 1 2 --name tiny", TINY) is None
    output = capsys.readouterr().out
    assert "no GPU" in output and "Compiled" in output and "C11" in output
    path = checkpoint.path_of(Path("runs/tiny"), "C11", 2, 120)
    assert policies.load_network(path).first.weight.shape == (32, 210)
    before = path.read_bytes()
    assert "exists already" in script("--arm C00 C11 --seeds 1 2 --name tiny", TINY)
    assert "started with hidden = 32" in script("--name tiny --resume --hidden 64")
    assert path.read_bytes() == before
    assert script("--name tiny --resume") is None


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("--arm C77", "C00"),
        ("--red dance", "known are fsm"),
        ("--arm C00 C00", "duplicates"),
        ("--seeds -1", "from 0 to 4294967295"),
        ("--num-minibatches 7", "does not divide"),
        ("--num-envs 1 --num-steps 4 --num-minibatches 20", "one sample in a minibatch"),
        ("--num-envs 0", "at least 1"),
        ("--total-timesteps 100", "at least 24000"),
        ("--name ../elsewhere", "without a path"),
        ("--resume --name nothing", "nothing to resume"),
        ("--name locked", "ermission|File exists|Not a directory"),
    ],
)
def test_refusals(args, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "locked" in args:
        Path("runs").write_text("a file where a folder should be")
    refusal = script(args)
    assert "\n" not in refusal and re.search(sentence, refusal)
    assert not Path("runs").is_dir()


def test_unknown_flag(capsys):
    assert script("--learning-rat 1") == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_moments_of_the_largest_batch_are_within_the_integers():
    """Traced, not computed: JAX refuses a constant beyond int32."""
    jax.eval_shape(merge, ippo.RunningMeanVar(), jax.ShapeDtypeStruct((MAX_STEPS,), jnp.float32))


@pytest.mark.slow
@EVERY
def test_the_largest_update_is_within_the_integers(algorithm, config, env):
    """Every part of it, traced."""
    config = dataclasses.replace(config, num_envs=MAX_STEPS // probe.NUM_STEPS)
    jax.eval_shape(partial(algorithm.update, config, env), *probe.one_run(algorithm, config, env))
