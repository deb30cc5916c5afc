"""Inputs, credits and loss of IPPO with a notebook; the script on tiny runs of CC4."""

import dataclasses
from functools import partial
from pathlib import Path

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe import SMALL, assert_equal, rows, script, shaken
from worlds import OZA, World, server, user

from purecc4 import files
from purecc4.algos import ippo_notebook
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE, IS_PADDING, SLEEP
from purecc4.envs.cc4.constants import (
    ALPHABETICAL,
    NO_HOST,
    NUM_ACTIONS,
    NUM_BLUE,
    NUM_ZONES,
    SLOTS,
    BlueAction,
    RewardTerm,
)
from purecc4.envs.cc4.notebook import NUM_WATCHED, WATCHED
from purecc4.errors import UserError
from purecc4.play import policies
from purecc4.train import checkpoint, runs
from purecc4.train.run_reader import MAY_DIFFER, REWARD_TERMS, read_config, refuse_unlike

CONFIG = ippo_notebook.Config(arm=("C00",), seeds=(7,), num_envs=4, num_steps=60, num_minibatches=4, hidden=8)
ENV = ippo_notebook.make_env(CONFIG)
KEY = 5


@pytest.fixture(scope="module")
def arm():
    return jax.tree.map(lambda x: x[0], ENV.arms)


@pytest.fixture(scope="module")
def network(arm):
    init = jax.jit(partial(ippo_notebook.init, CONFIG, ENV))
    return shaken(init(jnp.uint32(7)).network)


@pytest.fixture(scope="module")
def rolled(network, arm):
    """(traj, mask) of a rollout."""
    return jax.jit(partial(ippo_notebook.rollout, CONFIG, ENV))(network, arm, jax.random.key(KEY))


@pytest.fixture(scope="module")
def replayed(network, arm, rolled):
    """[env step ...] of the same episodes as an evaluation plays them, by `logits` and `update_carry`."""
    params = cc4.make_params(CONFIG.red, CONFIG.num_steps)
    key_reset, _, key_env = jax.random.split(jax.random.key(KEY), 3)

    def episode(key_reset, keys, actions):
        first = ENV.reset(key_reset, arm)

        def step(now, chosen):
            (obs, state, notes), (key, action) = now, chosen
            notes, logits = network.logits(notes, obs.flat, obs.mask)
            seen = ippo_notebook.features(notes, obs.flat, obs.mask)
            notes = network.update_carry(notes, action)
            obs, state, reward, _, info = cc4.step(key, state, action, params)
            return (obs, state, notes), {"seen": seen, "logits": logits, "reward": reward, "info": info}

        start = first.obs, first.state, network.initial_carry(NUM_BLUE)
        return jax.lax.scan(step, start, (keys, actions))[1]

    keys_env = jax.random.split(key_env, (CONFIG.num_steps, CONFIG.num_envs))
    actions = rolled[0].action.astype(jnp.int32)
    play = jax.jit(jax.vmap(episode, (0, 1, 1)))
    return play(jax.random.split(key_reset, CONFIG.num_envs), keys_env, actions)


@pytest.mark.slow
def test_evaluation_sees_what_the_rollout_saw(rolled, replayed):
    traj, _ = rolled
    assert_equal(jax.tree.map(lambda x: x.swapaxes(0, 1), replayed["seen"]), traj.obs)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(replayed["logits"]), traj.action.swapaxes(0, 1)[..., None], 3)
    np.testing.assert_allclose(chosen[..., 0].swapaxes(0, 1), traj.log_prob, atol=1e-4)
    np.testing.assert_array_equal(replayed["reward"].T, traj.reward)


@pytest.mark.slow
def test_the_busy_only_sleep(rolled, replayed):
    traj, mask = rolled
    asleep = np.asarray(traj.action) == SLEEP
    assert asleep[~traj.idle].all() and 0.2 < traj.idle.mean() < 0.8 and traj.idle[0].all()
    options = (replayed["logits"] > np.finfo(np.float32).min).sum(axis=-1).swapaxes(0, 1)
    np.testing.assert_array_equal(options, np.where(traj.idle, (mask & ippo_notebook.USED).sum(axis=-1), 1))


@pytest.mark.slow
def test_credits_are_the_team_reward(rolled):
    traj, _ = rolled
    np.testing.assert_allclose(traj.credit.sum(axis=-1), traj.reward, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sum(traj.reward_terms[part] for part in REWARD_TERMS), traj.reward, rtol=1e-5)
    assert (traj.credit < 0).any(axis=(0, 1)).all()


@pytest.mark.slow
def test_each_is_charged_its_own_restores(rolled):
    traj, _ = rolled
    restores = ACTION_TABLE[np.arange(NUM_BLUE), traj.action, 0] == BlueAction.RESTORE
    assert (traj.credit[restores] <= -1).all() and restores.any()


@pytest.mark.slow
def test_rewards_by_zone_are_the_team_reward(replayed):
    zones, parts = replayed["info"].zone_rewards, vars(replayed["info"].rewards)
    assert zones.shape[2:] == (NUM_ZONES, len(RewardTerm))
    for term in RewardTerm:
        np.testing.assert_array_equal(zones[..., term].sum(axis=-1), parts[term.name.lower()])
        assert zones[..., term].any()
    np.testing.assert_array_equal(zones.sum(axis=(2, 3)) + parts["cost"], replayed["reward"])


@pytest.mark.slow
def test_features(rolled):
    """In 1/64 and all below 4; nothing is said of hosts that do not exist."""
    (traj, mask) = rolled
    seen = traj.obs
    steps = CONFIG.num_steps, CONFIG.num_envs, NUM_WATCHED
    assert seen.host.shape[:4] == (*steps, SLOTS) and seen.zone.shape[:3] == steps
    assert seen.traffic.shape == (*steps, 8, 2)
    here = jax.vmap(ippo_notebook.notebook.exists)(mask)
    np.testing.assert_array_equal(seen.host[..., 0] == 64, jnp.broadcast_to(here, seen.host.shape[:-1]))
    assert not seen.host[~(seen.host[..., 0] > 0)].any()
    assert (seen.host.max(axis=(0, 1, 2, 3)) > 0).mean() > 0.8
    assert_equal(ippo_notebook.in_64ths(jnp.array([-1.0, 0.49 / 64, 1, 3.9, 5])), jnp.uint8([0, 0, 64, 250, 255]))


def test_secrets():
    """Sessions, root, what red takes a host for, how worn its services are and where red is active."""
    world, host, rooted = World(), user(OZA), server(OZA)
    world.session(2, host)
    world.session(2, rooted, id=1, root=True)
    world.wear(host, 25)
    found = np.asarray(jax.jit(ippo_notebook.privileged_obs)(jax.tree.map(jnp.asarray, world.state)))
    assert found.shape == (NUM_WATCHED, SLOTS, 7) and found.dtype == np.uint8
    zone = found[OZA - WATCHED[0]]
    assert np.flatnonzero(zone[:, 0]).tolist() == [0, 6] and np.flatnonzero(zone[:, 1]).tolist() == [0]
    assert zone[6, 5] == 48 and np.count_nonzero(found[..., 5]) == 1
    assert (zone[:, 6] == 64).all() and not np.delete(found[..., 6], OZA - WATCHED[0], axis=0).any()


def test_places_are_those_of_the_actions():
    """Every logit, named after what it stands for, reaches the indices that mean it; Analyse and Monitor have none."""
    names = []
    for zone, columns in zip(WATCHED, ippo_notebook.SOURCES, strict=True):
        names += [(kind, zone * SLOTS + slot, 0, 0) for slot in range(SLOTS) for kind in ippo_notebook.HOST_KINDS]
        sources = [ALPHABETICAL[column] for column in columns]
        names += [(kind, NO_HOST, zone, source) for source in sources for kind in ippo_notebook.TRAFFIC_KINDS]
    names = np.array(names + [(BlueAction.SLEEP, NO_HOST, 0, 0)] * NUM_BLUE)
    used = ippo_notebook.USED
    np.testing.assert_array_equal(names[ippo_notebook.PLACES[used]], ACTION_TABLE[used])
    assert set(ACTION_TABLE[~used][:, 0]) == {BlueAction.ANALYSE, BlueAction.MONITOR}
    real = ippo_notebook.PLACES[used & ~IS_PADDING]
    assert len(set(real)) == len(real) == len(names)
    assert (ippo_notebook.PLACES[np.arange(NUM_BLUE), SLEEP] == len(names) - NUM_BLUE + np.arange(NUM_BLUE)).all()


@pytest.mark.slow
def test_choices_are_the_categorical_distribution(network, rolled):
    """Log-probabilities and entropy by place are those of a row of 242 for each agent."""
    traj, mask = rolled
    seen = jax.tree.map(lambda x: x[-1], traj.obs)
    rows = distrax.Categorical(logits=ippo_notebook.by_action(network(seen)[0], mask))
    legal = ippo_notebook.per_action(mask)
    np.testing.assert_array_equal(legal.reduce(jnp.sum, jnp.add), (mask & ippo_notebook.USED).sum(axis=-1))
    log_prob, entropy = ippo_notebook.log_prob_and_entropy(network(seen)[0], legal, traj.action[-1])
    np.testing.assert_allclose(log_prob, rows.log_prob(traj.action[-1].astype(jnp.int32)), atol=1e-5)
    np.testing.assert_allclose(entropy, rows.entropy(), atol=1e-5)


@pytest.fixture(scope="module")
def gradient(network, rolled):
    """Changes of a batch -> gradient of the loss."""
    traj, mask = rolled
    advantage = jax.random.normal(jax.random.key(0), traj.value.shape)
    columns = traj.obs, traj.privileged_obs, traj.idle, traj.action, traj.log_prob, advantage, traj.value + advantage
    batch = ippo_notebook.Batch(*jax.tree.map(lambda x: x[-1], columns))
    compiled = jax.jit(jax.grad(ippo_notebook.ppo_loss, has_aux=True), static_argnums=4)
    legal = ippo_notebook.per_action(mask)
    return batch, lambda **changes: compiled(network, dataclasses.replace(batch, **changes), legal, 0.01, CONFIG)


@pytest.mark.slow
def test_what_the_busy_did_is_not_learned_from(gradient):
    batch, gradient = gradient
    busy = ~batch.idle
    changes = {
        "action": batch.action + busy.astype(jnp.uint8),
        "log_prob": batch.log_prob - 3 * busy,
        "advantage": batch.advantage + 10 * busy,
    }
    assert busy.any() and batch.idle.any()
    assert_equal(gradient(), gradient(**changes))
    for name, change in changes.items():
        mine = getattr(batch, name) + (change - getattr(batch, name))[busy][0] * batch.idle.astype(change.dtype)
        if name != "advantage":  # the same for all, which is normalised away
            assert (gradient()[0].sleep_out.bias != gradient(**{name: mine})[0].sleep_out.bias).any()


@pytest.mark.slow
def test_a_minibatch_without_decisions_has_a_finite_gradient(gradient):
    batch, gradient = gradient
    found, logs = gradient(idle=jnp.zeros_like(batch.idle))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found)) and logs["policy_loss"] == 0
    assert not found.sleep_out.bias.any() and found.critic_out.bias.any()


@pytest.mark.slow
def test_the_critic_learns_from_all(gradient):
    batch, gradient = gradient
    moved = gradient(target=batch.target + 5 * ~batch.idle)[0]
    assert (moved.critic_out.bias != gradient()[0].critic_out.bias).all()
    assert_equal(moved.host_out, gradient()[0].host_out)


@pytest.mark.slow
def test_checkpoint_round_trip(network, rolled, tmp_path):
    path = checkpoint.path_of(tmp_path, "C00", 7, 240)
    checkpoint.save(path, network, {"algorithm": "ippo_notebook", "network": network.init_kwargs})
    loaded = policies.trained(path)
    assert_equal(loaded.network, network)
    vector = jnp.zeros((NUM_BLUE, 210), jnp.uint8)
    carry, action = policies.act(loaded, loaded.network.initial_carry(5), vector, rolled[1][0], jnp.full(5, 0.5))
    assert (carry.in_progress.action == action).all() and action.max() < NUM_ACTIONS


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = "--seeds 1 --schedule-timesteps 160 --checkpoint-every 1"
    assert script(ippo_notebook, "--name whole", SMALL, schedule, "--total-timesteps 80") is None
    assert script(ippo_notebook, "--name run", SMALL, schedule, "--total-timesteps 40") is None
    assert script(ippo_notebook, "--name run --resume --total-timesteps 80") is None
    whole, run = Path("runs/whole"), Path("runs/run")
    assert (run / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()
    assert rows(run) == rows(whole)
    one, other = (policies.trained(checkpoint.path_of(folder, "C00", 1, 80)).network for folder in (run, whole))
    assert_equal(one, other)


@pytest.mark.slow
def test_the_schedule_alone_decides_how_fast_learning_ends(tmp_path, monkeypatch):
    """Checkpoints at 80 steps are equal for trainings of 80 and 160 steps; a resumed run keeps its schedule."""
    monkeypatch.chdir(tmp_path)
    start = partial(script, ippo_notebook, "--seeds 1 --checkpoint-every 1", SMALL)
    assert start("--name short --schedule-timesteps 160 --total-timesteps 80") is None
    assert start("--name long --total-timesteps 160") is None
    assert start("--name steep --total-timesteps 80") is None
    short, long, steep = (
        checkpoint.path_of(Path("runs") / name, "C00", 1, 80).read_bytes() for name in ("short", "long", "steep")
    )
    assert short == long != steep
    resume = partial(script, ippo_notebook, "--name steep --resume")
    assert "exceeds schedule_timesteps = 80" in resume("--total-timesteps 160")
    assert "started with schedule_timesteps = 80" in resume("--total-timesteps 160 --schedule-timesteps 160")
    settings = {Path("runs") / name: read_config(Path("runs") / name)[1] for name in ("steep", "long")}
    settings = {folder: {k: v for k, v in x.items() if k not in MAY_DIFFER} for folder, x in settings.items()}
    with pytest.raises(UserError, match="schedule_timesteps is 80 in the first and 160 in the second"):
        refuse_unlike("trained", settings)


def test_older_folders_have_a_schedule_as_long_as_their_training(tmp_path):
    files.write_json(tmp_path / "config.json", {"algorithm": "ippo_notebook", "resolved": {"total_timesteps": 3000}})
    assert read_config(tmp_path)[1]["schedule_timesteps"] == 3000


@pytest.mark.slow
def test_it_learns():
    """In 150,000 steps it leaves the random decisions that it starts with far behind."""
    config = ippo_notebook.Config(seeds=(42,), total_timesteps=150_000)
    training = runs.map_over_runs(config, ippo_notebook.make_train)
    _, logs = training.train(*training.start(), config.num_updates)
    found = np.asarray(logs["return"][0])
    assert len(found) == 12 and found[0] < -1200 and found[-3:].mean() > -900
