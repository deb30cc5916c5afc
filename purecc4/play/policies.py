"""Blue policies as data: checkpoints, and the two that need none. One program plays them all, sampled or greedy.

A network of any algorithm can be played that has `begin` and `think`: what the agents remember before their first
step, and (memory, observation, mask) -> (memory, logits).
"""

import importlib
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree, UInt8

from envs.cc4.actions import ACTION_TABLE, action_mask
from envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_HOSTS, NUM_OBS, BlueAction
from purecc4.errors import UserError
from purecc4.play.tables import BASELINES
from purecc4.train import checkpoint

ALGORITHMS = ("ippo", "ippo_rnn", "mappo")
_GREEDY = 1e30  # at this sharpness every action but the likeliest has probability 0


class Policy(eqx.Module):
    """What blue's action probabilities are computed from."""

    network: eqx.Module
    """Of any algorithm."""
    preference: Float[Array, "blue action"]
    """Added to the network's logits."""
    sharpness: Float[Array, ""]
    """The logits are multiplied by it; 1 samples from the network's own probabilities."""


def act(
    policy: Policy,
    memory: PyTree,
    vector: UInt8[Array, "blue obs"],
    mask: Bool[Array, "blue action"],
    u: Float[Array, "blue"],
) -> tuple[PyTree, Int32[Array, "blue"]]:
    """Memory and one action of each agent, picked by the uniform numbers `u` on [0, 1); never a masked one."""
    memory, logits = policy.network.think(memory, vector, mask)
    logits = logits + policy.preference
    return memory, _algorithm("ippo").sample((logits - logits.max(axis=1, keepdims=True)) * policy.sharpness, u)[0]


def load_network(path: Path) -> eqx.Module:
    """The network of a checkpoint, of whatever algorithm. UserError, with one sentence, if the file holds none."""
    about = checkpoint.read_about(path)
    if "network" not in about:
        raise UserError(f"{path} holds no single network: take a file under checkpoints/.")
    algorithm = about.get("algorithm")
    if algorithm not in ALGORITHMS:
        raise UserError(f"{path} is of the algorithm {algorithm}; known are {', '.join(ALGORITHMS)}.")
    network = _algorithm(algorithm).ActorCritic
    return checkpoint.load(path, eqx.filter_eval_shape(network, jax.random.key(0), **about["network"]))


def trained(path: Path, greedy: bool = False) -> Policy:
    """The policy of a checkpoint. Raises UserError, with one sentence, if the file holds none for this environment."""
    network = load_network(path)
    sizes = network.sizes["num_obs"], network.sizes["num_actions"]
    if sizes != (NUM_OBS, NUM_ACTIONS):
        raise UserError(f"{path} is a network for {sizes[0]} observations and {sizes[1]} actions, not for CC4.")
    return _policy(network, jnp.zeros((NUM_BLUE, NUM_ACTIONS)), greedy)


def scripted(name: str, like: eqx.Module | None = None) -> Policy:
    """One of BASELINES: `sleep` always sleeps, `random` picks any legal action. `like` gives the network's sizes.

    Raises UserError for an unknown name.
    """
    if name not in BASELINES:
        raise UserError(f"unknown policy '{name}'; known are {', '.join(BASELINES)}")
    if like is None:
        network = _algorithm("ippo").ActorCritic
        like = eqx.filter_eval_shape(network, jax.random.key(0), NUM_OBS, NUM_ACTIONS, hidden=1)
    asleep = (ACTION_TABLE[:, :, 0] == BlueAction.SLEEP) & action_mask(jnp.zeros(NUM_HOSTS, bool))
    preference = jnp.where(asleep & (name == "sleep"), 1e9, 0).astype(jnp.float32)
    network = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return _policy(network, preference, greedy=False)


def _algorithm(name: str) -> ModuleType:
    """A file of `algos/`, which is imported only when a network of it is played."""
    return importlib.import_module(f"algos.{name}")


def _policy(network: eqx.Module, preference: Float[Array, "blue action"], greedy: bool) -> Policy:
    return Policy(network, preference, jnp.float32(_GREEDY if greedy else 1))
