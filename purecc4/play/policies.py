"""Blue policies as data: checkpoints of any algorithm, and scripts. One program plays them, sampled or greedy.

A network is playable if it has `initial_carry(num_agents)`, the carry at the start of an episode; `logits(carry, obs,
mask)`, which returns the next carry and the logits; and `update_carry(carry, action)`, the carry after acting.
"""

import importlib
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree, UInt8

from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_OBS, BlueAction
from purecc4.errors import UserError
from purecc4.play.scripts import SCRIPTS
from purecc4.sampling import sample
from purecc4.train import checkpoint

ALGORITHMS = ("ippo", "ippo_notebook", "ippo_rnn", "mappo")
_GREEDY = 1e30  # at this inverse temperature every action but the likeliest has probability 0


class Policy(eqx.Module):
    """What blue's action probabilities are computed from."""

    network: eqx.Module
    """Of any algorithm, or a script."""
    inverse_temperature: Float[Array, ""]
    """Factor of the logits; 1 samples from the network's own probabilities."""


class Biased(eqx.Module):
    """A network with a constant added to the logits of one kind of action."""

    network: eqx.Module
    kind: str = eqx.field(static=True)
    """Of constants.BlueAction, in small letters."""
    by: Float[Array, ""]

    def initial_carry(self, num_agents: int) -> PyTree:
        """The network's own."""
        return self.network.initial_carry(num_agents)

    def logits(
        self, carry: PyTree, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[PyTree, Float[Array, "blue action"]]:
        """The network's own, shifted. The lowest number stays what it is."""
        carry, logits = self.network.logits(carry, vector, mask)
        chosen = ACTION_TABLE[:, :, 0] == BlueAction[self.kind.upper()]
        return carry, jnp.where(chosen & mask, logits + self.by, logits)

    def update_carry(self, carry: PyTree, action: Int32[Array, "blue"]) -> PyTree:
        """The network's own."""
        return self.network.update_carry(carry, action)


def act(
    policy: Policy,
    carry: PyTree,
    vector: UInt8[Array, "blue obs"],
    mask: Bool[Array, "blue action"],
    u: Float[Array, "blue"],
) -> tuple[PyTree, Int32[Array, "blue"]]:
    """The next carry, and one action of each agent drawn by the uniform numbers `u` on [0, 1); never a masked one."""
    carry, logits = policy.network.logits(carry, vector, mask)
    shifted = logits - logits.max(axis=1, keepdims=True)
    action = sample(shifted * policy.inverse_temperature, u)[0]
    return policy.network.update_carry(carry, action), action


def load_network(path: Path) -> eqx.Module:
    """The network of a checkpoint, of whatever algorithm. UserError, with one sentence, if the file holds none."""
    about = checkpoint.read_about(path)
    if "network" not in about:
        raise UserError(f"{path} holds no single network: take a file under checkpoints/.")
    algorithm = about.get("algorithm")
    if algorithm not in ALGORITHMS:
        raise UserError(f"{path} is of the algorithm {algorithm}; known are {', '.join(ALGORITHMS)}.")
    network = importlib.import_module(f"purecc4.algos.{algorithm}").ActorCritic
    try:
        like = eqx.filter_eval_shape(network, jax.random.key(0), **about["network"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} does not say of what size its network is: it is damaged or foreign.") from error
    return checkpoint.load(path, like)


def trained(path: Path, greedy: bool = False) -> Policy:
    """The policy of a checkpoint. Raises UserError, with one sentence, if the file holds none for this environment."""
    network = load_network(path)
    for name, ours in (("num_obs", NUM_OBS), ("num_actions", NUM_ACTIONS)):
        if (size := network.init_kwargs.get(name, ours)) != ours:
            raise UserError(f"{path} is a network with {name} {size}, not {ours} as in CC4.")
    return Policy(network, jnp.float32(_GREEDY if greedy else 1))


def scripted(name: str) -> Policy:
    """One of `scripts.SCRIPTS`. Raises UserError for an unknown name."""
    if name not in SCRIPTS:
        raise UserError(f"unknown policy '{name}'; known are {', '.join(SCRIPTS)}")
    return Policy(SCRIPTS[name], jnp.float32(1))
