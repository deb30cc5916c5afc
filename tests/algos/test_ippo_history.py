"""Inputs, actions on offer, credits and loss of IPPO on the history; a rollout as an evaluation plays it."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe import SMALL, assert_equal, rows, script, shaken
from worlds import OZA, PAZ, blue_of, user

from purecc4.algos import ippo_history
from purecc4.envs import cc4
from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import ACTION_TABLE, SLEEP
from purecc4.envs.cc4.by_host import HOST_KINDS, OWN_HOSTS
from purecc4.envs.cc4.constants import NO_HOST, NUM_ACTIONS, NUM_BLUE, NUM_HOSTS, NUM_OBS, SLOTS, BlueAction
from purecc4.envs.cc4.notebook import AGENT_OF, WATCHED
from purecc4.play import policies
from purecc4.play.scripts import SCRIPTS
from purecc4.train import checkpoint

CONFIG = ippo_history.Config(arm=("C00",), seeds=(7,), num_envs=4, num_steps=60, num_minibatches=4, hidden=8)
ENV = ippo_history.make_env(CONFIG)
KEY = 5
FULL = cc4.action_mask(jnp.ones(NUM_HOSTS, bool))
FLAT = jnp.zeros((NUM_BLUE, NUM_OBS), jnp.uint8)
HOST = user(OZA)


@pytest.fixture(scope="module")
def arm():
    return jax.tree.map(lambda x: x[0], ENV.arms)


@pytest.fixture(scope="module")
def network():
    return jax.jit(partial(ippo_history.init, CONFIG, ENV))(jnp.uint32(7)).network


@pytest.fixture(scope="module")
def rolled(network, arm):
    return jax.jit(partial(ippo_history.rollout, CONFIG, ENV))(shaken(network), arm, jax.random.key(KEY))


choose = jax.jit(lambda notes: SCRIPTS["analyst"].choose(notes, FULL))


def place(host):
    """Zone among the watched and slot of a host."""
    return host // SLOTS - WATCHED[0], host % SLOTS


def notes_with(host=HOST, **values):
    """An empty history in step 100 with values of one host."""
    notes = dataclasses.replace(history.init(), step=jnp.int16(100))
    at = tuple(np.argwhere(host == OWN_HOSTS)[0])
    fields = {name: getattr(notes, name).at[at].set(value) for name, value in values.items()}
    return dataclasses.replace(notes, **fields)


features = jax.jit(ippo_history.features)
logits = jax.jit(lambda network, notes: network.logits(notes, FLAT, FULL)[1])


def offered(notes, host=HOST):
    """Action types on offer on a host."""
    flags = np.asarray(features(notes, FULL).host)[place(host)][ippo_history.OFFER] > 0
    return [kind for kind, flag in zip(HOST_KINDS, flags, strict=True) if flag]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"looked": 90}, [BlueAction.DEPLOY_DECOY]),
        ({"looked": 90, "gaps": 1}, [BlueAction.RESTORE, BlueAction.DEPLOY_DECOY]),
        ({"looked": 90, "files": 1}, [BlueAction.RESTORE, BlueAction.DEPLOY_DECOY]),
        ({"looked": 90, "removed": True}, [BlueAction.ANALYSE, BlueAction.DEPLOY_DECOY]),
        ({"looked": 90, "named": 1}, [BlueAction.ANALYSE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY]),
        ({"looked": 90, "exploits": 1}, list(HOST_KINDS)),
        ({"looked": -1}, [BlueAction.ANALYSE, BlueAction.DEPLOY_DECOY]),
    ],
)
def test_evidence_puts_actions_on_offer(values, kinds):
    """The host looked at for longest may be analysed without any."""
    assert offered(notes_with(**values)) == kinds


@pytest.mark.slow
def test_every_action_of_the_script_is_on_offer(rolled):
    """... to idle agents, and it is likelier than any other at first."""
    flags = np.asarray(rolled.obs.host)
    script, offer = flags[..., ippo_history.SCRIPT] > 0, flags[..., ippo_history.OFFER] > 0
    assert not (script & ~offer).any() and script.any(axis=(0, 1, 2, 3))[:3].all()
    per_zone = script.any(axis=(3, 4)).swapaxes(0, 2)
    acts = np.stack([per_zone[agent == AGENT_OF].any(axis=0) for agent in range(NUM_BLUE)], axis=-1).swapaxes(0, 1)
    np.testing.assert_array_equal(acts, rolled.idle)


def test_training_starts_from_the_script(network):
    """The likeliest action of the new network is that of `analyst`."""
    for values in ({}, {"named": 2}, {"unanswered": 1, "exploits": 1}, {"removed": True}, {"files": 2}):
        notes = notes_with(**values)
        np.testing.assert_array_equal(logits(network, notes).argmax(axis=1), choose(notes))


def test_places_are_those_of_the_actions():
    """Every action on a host, and Sleep, has a place of its own; traffic and Monitor have none."""
    for agent in range(NUM_BLUE):
        used = np.flatnonzero(ippo_history.OFFERED[agent])
        places = ippo_history.PLACE[agent, used]
        assert len(set(places)) == len(used) == (OWN_HOSTS[agent] != NO_HOST).sum() * len(HOST_KINDS) + 1
        np.testing.assert_array_equal(ippo_history.INDEX[agent, places], used)
        assert ippo_history.PLACE[agent, SLEEP[agent]] == ippo_history.NUM_PLACES - 1
        slot, kind = divmod(places[:-1] if used[-1] == SLEEP[agent] else places[used != SLEEP[agent]], len(HOST_KINDS))
        table = ACTION_TABLE[agent, used[used != SLEEP[agent]]]
        np.testing.assert_array_equal(OWN_HOSTS[agent].ravel()[slot], table[:, 1])
        np.testing.assert_array_equal(np.array(HOST_KINDS)[kind], table[:, 0])


def test_the_busy_can_only_sleep(network):
    notes = notes_with()
    busy = history.submit(notes, choose(notes))
    np.testing.assert_array_equal(
        logits(network, busy) > jnp.finfo(jnp.float32).min, np.arange(NUM_ACTIONS) == SLEEP[:, None]
    )


def test_features_of_an_agent_are_its_own():
    """Changes in another agent's history leave them as they are."""
    one, other = features(notes_with(), FULL), features(notes_with(user(PAZ), named=3, exploits=1), FULL)
    mine = blue_of(HOST) == AGENT_OF
    assert_equal(jax.tree.map(lambda x: x[mine], one), jax.tree.map(lambda x: x[mine], other))
    assert (np.asarray(one.host) != np.asarray(other.host)).any()


@pytest.mark.slow
def test_evaluation_plays_as_the_rollout_did(network, arm, rolled):
    """The same actions give the same rewards, credits and features by `read`, `logits` and `update_carry`."""
    network = shaken(network)
    params = cc4.make_params(CONFIG.red, CONFIG.num_steps, "raw")
    key_reset, _, key_env = jax.random.split(jax.random.key(KEY), 3)
    keys_env = jax.random.split(key_env, (CONFIG.num_steps, CONFIG.num_envs))
    index = ippo_history.INDEX[np.arange(NUM_BLUE), np.asarray(rolled.place)]
    actions = np.where(rolled.idle, index, SLEEP)

    def episode(key_reset, keys, actions):
        first = ENV.reset(key_reset, arm)

        def step(now, chosen):
            (obs, state, notes), (key, action) = now, chosen
            notes = network.read(notes, obs.raw)
            seen = ippo_history.features(notes, obs.mask)
            notes, row = network.logits(notes, obs.flat, obs.mask)
            obs, state, reward, *_ = cc4.step(key, state, action, params)
            return (obs, state, network.update_carry(notes, action)), (seen, row, reward)

        return jax.lax.scan(step, (first.obs, first.state, network.initial_carry(NUM_BLUE)), (keys, actions))[1]

    play = jax.jit(jax.vmap(episode, (0, 1, 1), 1))
    seen, found, reward = play(jax.random.split(key_reset, CONFIG.num_envs), keys_env, jnp.asarray(actions))
    assert_equal(seen, rolled.obs)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(found), actions[..., None], 3)[..., 0]
    np.testing.assert_allclose(chosen, np.where(rolled.idle, rolled.log_prob, 0), atol=1e-4)
    np.testing.assert_array_equal(reward, rolled.reward)
    # what is not credited is the loss of the contractor network
    assert (rolled.credit.sum(axis=-1) >= rolled.reward - 1e-4).all() and (rolled.credit < 0).any(axis=(0, 1)).all()


@pytest.fixture(scope="module")
def gradient(network, rolled):
    """Changes of a batch -> gradient of the loss."""
    advantage = jax.random.normal(jax.random.key(0), rolled.value.shape)
    columns = *(getattr(rolled, x) for x in ("obs", "privileged_obs", "idle", "place", "log_prob")), advantage
    batch = ippo_history.Batch(*jax.tree.map(lambda x: x[-1], (*columns, rolled.value + advantage)))
    compiled = jax.jit(jax.grad(ippo_history.ppo_loss, has_aux=True), static_argnums=4)
    moved = shaken(network)
    return batch, lambda learns=True, **changes: compiled(
        moved, dataclasses.replace(batch, **changes), 0.01, jnp.bool_(learns), CONFIG
    )


@pytest.mark.slow
def test_what_the_busy_did_is_not_learned_from(gradient):
    batch, gradient = gradient
    busy = ~batch.idle
    assert busy.any() and batch.idle.any()
    changed = gradient(log_prob=batch.log_prob - 3 * busy, advantage=batch.advantage + 10 * busy)
    assert_equal(gradient(), changed)
    assert (gradient()[0].sleep_out.bias != gradient(log_prob=batch.log_prob - 3)[0].sleep_out.bias).any()


@pytest.mark.slow
def test_the_critic_learns_first(gradient):
    """While it does, the loss of the policy has no gradient."""
    found = gradient[1](learns=False)[0]
    assert not found.host_out.weight.any() and found.critic_out.bias.any() and found.belief_out.bias.any()


@pytest.mark.slow
def test_a_minibatch_without_decisions_has_a_finite_gradient(gradient):
    batch, gradient = gradient
    found, logs = gradient(idle=jnp.zeros_like(batch.idle))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found)) and logs["policy_loss"] == 0


@pytest.mark.slow
def test_checkpoint_round_trip(network, rolled, tmp_path):
    path = checkpoint.path_of(tmp_path, "C00", 7, 240)
    checkpoint.save(path, network, {"algorithm": "ippo_history", "network": network.init_kwargs})
    loaded = policies.trained(path)
    assert loaded.observation == "raw"
    assert_equal(loaded.network(rolled.obs), network(rolled.obs))


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = "--seeds 1 --schedule-timesteps 160 --checkpoint-every 1 --critic-warmup 1"
    assert script(ippo_history, "--name whole", SMALL, schedule, "--total-timesteps 80") is None
    assert script(ippo_history, "--name run", SMALL, schedule, "--total-timesteps 40") is None
    assert script(ippo_history, "--name run --resume --total-timesteps 80") is None
    whole, run = Path("runs/whole"), Path("runs/run")
    assert (run / checkpoint.STATE).read_bytes() == (whole / checkpoint.STATE).read_bytes()
    assert rows(run) == rows(whole)
