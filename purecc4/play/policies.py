"""Blue policies as data: checkpoints of any algorithm, and scripts. One program plays them, sampled or greedy.

A playable network has three methods. `initial_carry(num_agents)` returns the carry at the start of an episode.
`logits(carry, obs, mask)` returns the next carry and the logits. `update_carry(carry, action)` returns the carry after
the actions.
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
from purecc4.history_policy import HistoryPolicy
from purecc4.play.scripts import SCRIPTS
from purecc4.sampling import sample
from purecc4.train import checkpoint

ALGORITHMS = dict.fromkeys(("ippo", "ippo_history", "ippo_notebook", "ippo_rnn", "mappo"), "ActorCritic")
ALGORITHMS |= {"pgpe": "Rules"}
"""Class of the network of each algorithm."""
_GREEDY = 1e30  # inverse temperature at which every action but the likeliest has probability 0


class Policy(eqx.Module):
    """A network or script, and the temperature that its actions are sampled at."""

    network: eqx.Module
    """Network of any algorithm, or a script."""
    inverse_temperature: Float[Array, ""]
    """Factor of the logits. 1 samples from the network's own probabilities."""

    @property
    def observation(self) -> str:
        """Observation that the network acts on, one of cc4.OBSERVATIONS."""
        return "raw" if isinstance(self.network, HistoryPolicy) else "flat"


class Biased(eqx.Module):
    """A network with a constant added to the logits of one action type."""

    network: eqx.Module
    kind: str = eqx.field(static=True)
    """Lower-case name of a constants.BlueAction."""
    by: Float[Array, ""]
    """Logit bias."""

    def initial_carry(self, num_agents: int) -> PyTree:
        """The initial carry of the network."""
        return self.network.initial_carry(num_agents)

    def logits(
        self, carry: PyTree, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[PyTree, Float[Array, "blue action"]]:
        """The logits of the network plus the bias. Masked actions keep the lowest float."""
        carry, logits = self.network.logits(carry, vector, mask)
        chosen = ACTION_TABLE[:, :, 0] == BlueAction[self.kind.upper()]
        return carry, jnp.where(chosen & mask, logits + self.by, logits)

    def update_carry(self, carry: PyTree, action: Int32[Array, "blue"]) -> PyTree:
        """The carry of the network after the actions."""
        return self.network.update_carry(carry, action)


def act(
    policy: Policy,
    carry: PyTree,
    vector: UInt8[Array, "blue obs"],
    mask: Bool[Array, "blue action"],
    u: Float[Array, "blue"],
) -> tuple[PyTree, Int32[Array, "blue"]]:
    """Sample one legal action per agent from the uniform numbers `u` in [0, 1). Returns the next carry, too."""
    carry, logits = policy.network.logits(carry, vector, mask)
    shifted = logits - logits.max(axis=1, keepdims=True)
    action = sample(shifted * policy.inverse_temperature, u)[0]
    return policy.network.update_carry(carry, action), action


def load_network(path: Path) -> eqx.Module:
    """Load the network of a checkpoint of any algorithm. Raises UserError if the file holds none."""
    about = checkpoint.read_about(path)
    if "network" not in about:
        raise UserError(f"{path} does not hold a single network: use a file under checkpoints/.")
    algorithm = about.get("algorithm")
    if algorithm not in tuple(ALGORITHMS):
        raise UserError(f"{path} was trained by {algorithm}: known algorithms are {', '.join(ALGORITHMS)}.")
    network = getattr(importlib.import_module(f"purecc4.algos.{algorithm}"), ALGORITHMS[algorithm])
    try:
        like = eqx.filter_eval_shape(network, jax.random.key(0), **about["network"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} lacks the size of its network: the file is damaged or foreign.") from error
    return checkpoint.load(path, like)


def trained(path: Path, greedy: bool = False) -> Policy:
    """Load the policy of a checkpoint. Raises UserError if the file holds none for this environment."""
    network = load_network(path)
    for name, ours in (("num_obs", NUM_OBS), ("num_actions", NUM_ACTIONS)):
        if (size := network.init_kwargs.get(name, ours)) != ours:
            raise UserError(f"{path} holds a network with {name} {size}, but CC4 has {ours}: retrain it.")
    return Policy(network, jnp.float32(_GREEDY if greedy else 1))


def scripted(name: str) -> Policy:
    """Look up a policy in `scripts.SCRIPTS`. Raises UserError for an unknown name."""
    if name not in SCRIPTS:
        raise UserError(f"unknown policy '{name}'; known are {', '.join(SCRIPTS)}.")
    return Policy(SCRIPTS[name], jnp.float32(1))
