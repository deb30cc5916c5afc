"""Base class of policies that act on a history of raw observations."""

import equinox as eqx
from jaxtyping import Array, Int32

from purecc4.envs.cc4 import history
from purecc4.envs.cc4.history import History
from purecc4.envs.cc4.raw import RawObservation


class HistoryPolicy(eqx.Module):
    """A policy whose carry is the history of `envs.cc4.history`. A subclass defines `logits(carry, vector, mask)`."""

    def initial_carry(self, num_agents: int) -> History:
        """An empty history."""
        return history.init()

    def read(self, carry: History, raw: RawObservation) -> History:
        """The history with the raw observation that `logits` acts on."""
        return history.update(carry, raw)

    def update_carry(self, carry: History, action: Int32[Array, "blue"]) -> History:
        """The history after the submitted actions."""
        return history.submit(carry, action)
