"""Blue policies as data: checkpoints, and the two that need none. One program plays them all, sampled or greedy.

A network of any algorithm can be played that has `initial_carry(num_agents)`, what the agents remember at the start of
an episode, and `logits(carry, vector, mask)`, which returns the next carry and the logits.
"""

import importlib
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree, UInt8

from envs.cc4.actions import ACTION_TABLE, action_mask
from envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_HOSTS, NUM_OBS, BlueAction
from purecc4.errors import UserError
from purecc4.play.tables import BASELINES
from purecc4.sampling import sample
from purecc4.train import checkpoint

ALGORITHMS = ("ippo", "ippo_rnn", "mappo")
_GREEDY = 1e30  # at this inverse temperature every action but the likeliest has probability 0


class Policy(eqx.Module):
    """What blue's action probabilities are computed from."""

    network: eqx.Module
    """Of any algorithm, or `Uniform`."""
    logit_bias: Float[Array, "blue action"]
    """Added to the network's logits."""
    inverse_temperature: Float[Array, ""]
    """Factor of the logits; 1 samples from the network's own probabilities."""


class Uniform(eqx.Module):
    """A network without weights: all legal actions have the same probability."""

    def initial_carry(self, num_agents: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Logits 0, the lowest number for masked actions."""
        return carry, jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min)


def act(
    policy: Policy,
    carry: PyTree,
    vector: UInt8[Array, "blue obs"],
    mask: Bool[Array, "blue action"],
    u: Float[Array, "blue"],
) -> tuple[PyTree, Int32[Array, "blue"]]:
    """The next carry, and one action of each agent drawn by the uniform numbers `u` on [0, 1); never a masked one."""
    carry, logits = policy.network.logits(carry, vector, mask)
    logits = logits + policy.logit_bias
    shifted = logits - logits.max(axis=1, keepdims=True)
    return carry, sample(shifted * policy.inverse_temperature, u)[0]


def load_network(path: Path) -> eqx.Module:
    """The network of a checkpoint, of whatever algorithm. UserError, with one sentence, if the file holds none."""
    about = checkpoint.read_about(path)
    if "network" not in about:
        raise UserError(f"{path} holds no single network: take a file under checkpoints/.")
    algorithm = about.get("algorithm")
    if algorithm not in ALGORITHMS:
        raise UserError(f"{path} is of the algorithm {algorithm}; known are {', '.join(ALGORITHMS)}.")
    network = importlib.import_module(f"algos.{algorithm}").ActorCritic
    try:
        like = eqx.filter_eval_shape(network, jax.random.key(0), **about["network"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} does not say of what size its network is: it is damaged or foreign.") from error
    return checkpoint.load(path, like)


def trained(path: Path, greedy: bool = False) -> Policy:
    """The policy of a checkpoint. Raises UserError, with one sentence, if the file holds none for this environment."""
    network = load_network(path)
    sizes = tuple(network.init_kwargs[name] for name in ("num_obs", "num_actions"))
    if sizes != (NUM_OBS, NUM_ACTIONS):
        raise UserError(f"{path} is a network for {sizes[0]} observations and {sizes[1]} actions, not for CC4.")
    return Policy(network, jnp.zeros((NUM_BLUE, NUM_ACTIONS)), jnp.float32(_GREEDY if greedy else 1))


def scripted(name: str, like: eqx.Module | None = None) -> Policy:
    """One of BASELINES: `sleep` always sleeps, `random` takes any legal action.

    With a network `like` the policy has the same arrays, all 0, so that one compiled program plays both. Raises
    UserError for an unknown name.
    """
    if name not in BASELINES:
        raise UserError(f"unknown policy '{name}'; known are {', '.join(BASELINES)}")
    asleep = (ACTION_TABLE[:, :, 0] == BlueAction.SLEEP) & action_mask(jnp.zeros(NUM_HOSTS, bool))
    logit_bias = jnp.where(asleep & (name == "sleep"), 1e9, 0).astype(jnp.float32)
    network = Uniform() if like is None else jax.tree.map(jnp.zeros_like, like)
    return Policy(network, logit_bias, jnp.float32(1))
