"""Scripted blue policies on the raw observation, each agent on its own history (`envs.cc4.history`).

`sweep` analyses the own hosts in turn. It restores a host with escalate.sh and uses Remove on one with cmd.sh.

`analyst` takes the first cause that any own host has:

| cause | action |
|---|---|
| Analyse found escalate.sh | Restore, except in the last 15 steps |
| an exploit showed a pid since the last Remove or Restore | Remove |
| a Remove took effect since the last Analyse | Analyse |
| Analyse found a cmd.sh that no Remove explains | Restore |
| the host was named as an attacker often enough | Restore, except in the last 120 steps |
| none | Analyse the user host not looked at for longest |

Often enough is twice since the last Restore; once in the operational zone whose mission phase it is, five times in
headquarters. The last cause counts a host that was named, and one that was exploited, as looked at 20 steps earlier
than it was. Among the hosts with a cause the order is: most brute forces, most often named, most exploits, by name.
Simpler rules, which restore at the first naming and nearly to the end, return 4.1 ± 0.5 less against `fsm` (the same
300 episodes).

Both submit Sleep while busy, and neither blocks traffic, deploys decoys or sends messages. Steps are those of an
episode of 500.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import SLEEP
from purecc4.envs.cc4.by_host import ACTION_INDEX, OWN_HOSTS, exists
from purecc4.envs.cc4.constants import HQ, NO_HOST, NUM_ACTIONS, NUM_BLUE, SLOTS, BlueAction, Subnet
from purecc4.envs.cc4.history import History
from purecc4.envs.cc4.raw import Files
from purecc4.history_policy import HistoryPolicy

LAST = 499
"""Step of the last decision."""
PHASE = 167
"""Steps of a mission phase in an episode of 500."""
_QUIET_SOURCES, _QUIET = 120, 15  # steps before the last one without a Restore of an attacker, and of any host
_OVERDUE = 20  # steps
_NEVER = np.iinfo(np.int16).max


def _named_often_enough() -> Int32[np.ndarray, "phase blue own_zone 1"]:
    """Number of times that a host is named before it is restored, by zone."""
    zone = OWN_HOSTS[:, :, :1] // SLOTS
    often = np.where(OWN_HOSTS[:, :, :1] == NO_HOST, _NEVER, np.where(np.isin(zone, HQ), 5, 2))
    by_phase = [often, np.where(zone == Subnet.OZA, 1, often), np.where(zone == Subnet.OZB, 1, often)]
    return np.stack(by_phase).astype(np.int32)


_OFTEN = _named_often_enough()


class Cause(NamedTuple):
    """A reason to act on some hosts."""

    action: BlueAction
    hosts: Bool[Array, "blue own_zone slot"]
    rank: Int32[Array, "blue own_zone slot"]
    """Not negative; the highest host is acted on, the first among equals."""


class RawScript(HistoryPolicy):
    """A policy that acts on its history when idle. Subclasses list causes, the most urgent first."""

    def causes(self, notes: History, there: Bool[Array, "blue own_zone slot"]) -> Iterator[Cause]:
        """Reasons to act, whether the hosts exist (`there`) or not."""
        raise NotImplementedError

    def logits(
        self, carry: History, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[History, Float[Array, "blue action"]]:
        """0 for the action, the lowest float for all others."""
        chosen = (np.arange(NUM_ACTIONS) == self.choose(carry, mask)[:, None]) & mask
        return carry, jnp.where(chosen, 0.0, jnp.finfo(jnp.float32).min)

    def choose(self, notes: History, mask: Bool[Array, "blue action"]) -> Int32[Array, "blue"]:
        """Index of every agent's action."""
        agents = np.arange(NUM_BLUE)
        there = exists(mask)
        action = jnp.asarray(SLEEP)
        for cause in reversed(list(self.causes(notes, there))):
            rank = jnp.where(cause.hosts & there, cause.rank, -1).reshape(NUM_BLUE, -1)
            index = jnp.asarray(ACTION_INDEX[cause.action]).reshape(NUM_BLUE, -1)[agents, rank.argmax(axis=1)]
            action = jnp.where(rank.max(axis=1) >= 0, index, action)
        return jnp.where(history.is_busy(notes), SLEEP, action)


class Sweep(RawScript):
    """The policy `sweep` above."""

    def causes(self, notes: History, there: Bool[Array, "blue own_zone slot"]) -> Iterator[Cause]:
        """Files that were found, then the turn of each host."""
        age = (notes.step - notes.looked).astype(jnp.int32)
        yield Cause(BlueAction.RESTORE, notes.files >= Files.ESCALATE, age)
        yield Cause(BlueAction.REMOVE, (notes.files == Files.CMD) & ~notes.removed, age)
        yield Cause(BlueAction.ANALYSE, age >= 0, age)


class Analyst(RawScript):
    """The policy `analyst` above."""

    def causes(self, notes: History, there: Bool[Array, "blue own_zone slot"]) -> Iterator[Cause]:
        """The causes of the table above."""
        step = notes.step.astype(jnp.int32)
        rank = worst(notes)
        yield Cause(BlueAction.RESTORE, (notes.files >= Files.ESCALATE) & (step < LAST - _QUIET), rank)
        yield Cause(BlueAction.REMOVE, notes.unanswered > 0, rank)
        yield Cause(BlueAction.ANALYSE, notes.removed, rank)
        yield Cause(BlueAction.RESTORE, notes.unexplained, rank)
        often = notes.named >= jnp.asarray(_OFTEN)[jnp.minimum(step // PHASE, 2)]
        yield Cause(BlueAction.RESTORE, often & (step < LAST - _QUIET_SOURCES), rank)
        yield Cause(BlueAction.ANALYSE, jnp.asarray(history.IS_USER), overdue(notes))


def overdue(notes: History) -> Int32[Array, "blue own_zone slot"]:
    """Steps since each host was looked at, and 20 more for one that was named, and for one that was exploited."""
    suspicion = (notes.named > 0).astype(jnp.int32) + (notes.exploits > 0)
    return notes.step.astype(jnp.int32) - notes.looked + _OVERDUE * suspicion


def worst(notes: History) -> Int32[Array, "blue own_zone slot"]:
    """Rank by brute forces from the host, times it was named, exploits of it."""
    rank = jnp.int32(0)
    for count in (notes.brute_forces, notes.named, notes.exploits):
        rank = rank * 1024 + jnp.minimum(count.astype(jnp.int32), 1023)
    return rank
