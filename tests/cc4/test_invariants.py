"""Invariants after every step, for all reds against random, sleeping, busy and decoy-deploying blues."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import BATCH, decide_batch, reset_batch, sample_batch, transition_batch, view_batch

from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import (
    BLUE_DURATION,
    HOST_SUBNET,
    IS_MONITORED,
    LINKS,
    NO_HOST,
    NUM_HOSTS,
    NUM_RED,
    NUM_ZONES,
    ONE_ZONE_ACTIONS,
    ONE_ZONE_OBS,
    RED_DURATION,
    BlueAction,
    Knowledge,
    Subnet,
)

NUM_STEPS = 500
REDS = [cc4.REDS[i % len(cc4.REDS)] for i in range(BATCH)]
OWNER = np.minimum(HOST_SUBNET, NUM_RED - 1)
BLUES = [  # chances of a blue policy by kind of action, shared by the indices of the kind
    None,  # any legal index alike
    {BlueAction.SLEEP: 1.0},
    {BlueAction.REMOVE: 0.7, BlueAction.RESTORE: 0.3},
    {BlueAction.DEPLOY_DECOY: 0.5, BlueAction.REMOVE: 0.4, BlueAction.RESTORE: 0.1},
    {BlueAction.DEPLOY_DECOY: 0.3, BlueAction.REMOVE: 0.4, BlueAction.BLOCK_TRAFFIC_ZONE: 0.3},
]
CHECK_EVERY = 5


def blue_policy(mask):
    """Running sums of the action probabilities [env, blue, action], with one of BLUES for each environment."""
    kinds = ACTION_TABLE[:, :, 0]
    weights = np.zeros(mask.shape)
    for env in range(BATCH):
        chances = BLUES[env // len(cc4.REDS) % len(BLUES)]
        if chances is None:
            weights[env] = mask[env]
            continue
        for kind, chance in chances.items():
            legal = mask[env] & (kinds == kind)
            weights[env] += chance * legal / legal.sum(axis=1, keepdims=True)
    return np.cumsum(weights, axis=-1) / weights.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def played():
    """Violations of every invariant, by name, over an episode of BATCH environments."""
    params = jax.tree.map(lambda *x: jnp.stack(x), *[cc4.make_params(red, NUM_STEPS) for red in REDS])
    obs, state = reset_batch()(jax.random.split(jax.random.key(0), BATCH), params)
    mask = np.asarray(obs.mask)
    policy, rng = blue_policy(mask), np.random.default_rng(0)
    violations = defaultdict(int)
    for step, key in enumerate(jax.random.split(jax.random.key(1), NUM_STEPS)):
        actions = (policy <= rng.random((BATCH, 5, 1))).sum(axis=-1)
        messages = rng.integers(0, 2, (BATCH, 5, 8), dtype=np.uint8)
        draws = sample_batch()(key)
        choices = decide_batch()(state, params.red, draws)
        obs, state, reward, done, info = transition_batch()(state, actions, messages, choices, draws)
        for name, wrong in of_the_outputs(obs, mask, reward, done, info, step, actions).items():
            violations[name] += np.sum(wrong)
        if step % CHECK_EVERY == 0 or step == NUM_STEPS - 1:
            seen = jax.tree.map(np.asarray, (state, view_batch()(state)))
            for name, wrong in of_the_state(*seen).items():
                violations[name] += np.sum(wrong)
    return dict(violations), seen


def of_the_outputs(obs, mask, reward, done, info, step, actions):
    vector, parts = np.asarray(obs.flat), np.stack([np.asarray(part) for part in jax.tree.leaves(info.rewards)])
    blocks = vector[:, 4, 1:178].reshape(BATCH, 3, 59)
    restores = ACTION_TABLE[np.arange(5), actions, 0] == BlueAction.RESTORE
    return {
        "the mask is constant": np.asarray(obs.mask) != mask,
        "the phase is 0, 1 or 2": vector[:, :, 0] != (step >= 167) + (step >= 334),
        "all other values are bits": vector[:, :, 1:] > 1,
        "padding is zero": vector[:, :4, ONE_ZONE_OBS:] != 0,
        "and forbidden": mask[:, :4, ONE_ZONE_ACTIONS:],
        "one subnet of a block is its own": blocks[..., :9].sum(-1) != 1,
        "the reward is the sum of its parts": np.abs(np.asarray(reward) - parts.sum(0)) > 1e-3,
        "no part is above zero": parts > 0,
        "restores cost 1": -parts[3] != restores.sum(-1),
        "the episode ends at the time limit": np.asarray(done) != (step == NUM_STEPS - 1),
    }


def of_the_state(state, view):
    return of_sessions(state, view) | of_hosts(state, view) | of_red(state, view)


def as_bits(sets):
    """Membership [..., id] of a numpy BitSet."""
    words = np.stack([sets.low, sets.high], axis=-1)
    return ((words[..., None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(*sets.low.shape, 64) == 1


def repeated_pids(state, view):
    """Number of processes of a host with the pid of another one: sessions, decoys and orphans."""
    env, agent, id = np.nonzero((view.session_host != NO_HOST) & (view.session_pid > 0))
    found = [(env * NUM_HOSTS + view.session_host[env, agent, id]) * 2**16 + view.session_pid[env, agent, id]]
    for pids in (view.decoy_pid, state.hosts.orphan_pid, state.hosts.suspicious_orphan_pid):
        env, process, host = np.nonzero(pids.reshape(BATCH, -1, NUM_HOSTS))
        found.append((env * NUM_HOSTS + host) * 2**16 + pids.reshape(BATCH, -1, NUM_HOSTS)[env, process, host])
    found = np.concatenate(found)
    return len(found) - len(np.unique(found))


def of_sessions(state, view):
    alive, known = view.session_host != NO_HOST, as_bits(state.red.known_ids)
    env, agent, id = np.nonzero(alive)
    host = view.session_host[env, agent, id]
    scanned = as_bits(state.red.scans).any(axis=1).any(axis=2)  # [env, zone, id]
    return {
        "nothing overflows": state.overflow,
        "sessions are on hosts that exist": ~state.scenario.exists[env, host],
        "sessions are in a zone of their agent": OWNER[host] != agent,
        "active agents have a session 0": view.active & ~alive[..., 0],
        "activity is having sessions": view.active != alive.any(axis=-1),
        "agent 0 never leaves": ~view.active[:, 0],
        "free ids are blank": ~alive & ((view.session_pid > 0) | view.session_abstract | view.session_root),
        "ids of abstract sessions are known": view.session_abstract & ~known,
        "pids are unique on a host": repeated_pids(state, view),
        "the dead remember nothing at home": scanned & ~alive[:, OWNER[::16]],
        "nor abroad": as_bits(state.red.foreign_scans).any(axis=1).any(axis=2) & ~alive,
    }


def of_hosts(state, view):
    notes = view.suspicious_pid
    watched = np.zeros((9, 9), bool)
    watched[Subnet.RZA : Subnet.INT] = True
    return {
        "reliability is a multiple of 20 up to 100": (view.reliability > 100) | (view.reliability % 20 > 0),
        "decoys wear alike": (view.decoy_reliability > 100) | (view.decoy_reliability % 20 > 0),
        "decoys and notes are on watched hosts": (notes.any(axis=1) | view.decoy_pid.any(axis=1)) & ~IS_MONITORED,
        "decoys are on hosts that exist": view.decoy_pid.any(axis=1) & ~state.scenario.exists,
        "notes leave no gaps": (notes[:, 1:] > 0) & (notes[:, :-1] == 0),
        "only hosts that exist wear out": (view.reliability < 100) & ~state.scenario.exists,
        "blocks point at blue's subnets": view.blocked & ~watched,
        "no subnet is blocked from itself": view.blocked & np.eye(9, dtype=bool),
    }


def of_red(state, view):
    red, state_u = state.red, (view.knowledge >= Knowledge.U) & (view.knowledge <= Knowledge.RD)
    linked = np.zeros((NUM_RED, NUM_ZONES), bool)
    np.logical_or.at(linked, OWNER[::16], LINKS)
    linked &= OWNER[::16] != np.arange(NUM_RED)[:, None]
    states = np.isin(view.foreign, (Knowledge.UNKNOWN, Knowledge.K, Knowledge.S, Knowledge.F))
    levels = ((red.known[..., None] >> np.arange(16, dtype=np.uint32)) & 1).sum(axis=1)
    kinds = ((red.foreign[..., None] >> np.arange(NUM_ZONES, dtype=np.uint32)) & 1).sum(axis=1)
    blue = ACTION_TABLE[np.arange(5), state.blue.action, 0]
    return {
        "states U to RD imply a session": state_u & ~view.held & view.active[:, OWNER],
        "hosts with a session are known": view.held & (view.knowledge == Knowledge.UNKNOWN),
        "and named": view.held & ~view.named,
        "only hosts that exist are known": ~state.scenario.exists & (view.knowledge != Knowledge.UNKNOWN),
        "a host is in one state": levels > 1,
        "a foreign server is in one state": kinds > 1,
        "own hosts are never F": view.knowledge >= Knowledge.F,
        "foreign servers are unknown, K, S or F": ~states,
        "only linked foreign servers are known": (view.foreign != Knowledge.UNKNOWN) & ~linked,
        "agents that were called have made their first call": view.active & red.first_call,
        "red is busy for less than the duration": red.queue.ticks >= RED_DURATION[red.queue.action],
        "blue is busy for less than the duration": state.blue.ticks >= BLUE_DURATION[blue],
    }


@pytest.mark.slow
def test_nothing_that_must_hold_is_ever_violated(played):
    violations, _ = played
    assert len(violations) > 35
    assert {name: int(count) for name, count in violations.items() if count} == {}


@pytest.mark.slow
def test_the_play_was_worth_watching(played):
    """All agents became active, won and lost hosts; Remove and Restore had something to do."""
    _, (state, view) = played
    assert (view.active.mean(axis=0) > 0.6).all()
    assert {int(k) for k in np.unique(view.knowledge)} == set(range(Knowledge.F))
    assert (view.foreign == Knowledge.F).any()
    assert (view.suspicious_pid[:, 3] > 0).any() and state.hosts.orphan_pid.any()
    assert view.decoy_pid.max() > 50 and (view.session_host[:, :, 10:] != NO_HOST).any()
