"""Scripted blue policies, the baselines of a learner. They take the place of a network (see `policies`).

| name | action of every agent |
|---|---|
| sleep | Sleep |
| random | any legal action, even while busy |
| restore | Restore on a random host of its zone whenever idle, ignoring observations |
| two_strikes | Restore on the host with most alerts since its Restore, if 2 or more (process alerts: 3); else a decoy |
| glance | the reactive script: Restore on evidence in this step; without any, on a random host in 10 % of steps |
| evidence | Restore on a host with a breach, the source of one, or a process alert since its last Restore |
| oracle | Restore on a host with a red session, read from the simulator's state |
| sweep, analyst | rules on the raw observation (`raw_scripts`) |

All but `random` and `glance` submit Sleep while busy or without a target. A decoy goes to the host with the fewest, up
to 4. `glance` has no memory, not even of being busy, so it shows the reach of a memoryless policy. `oracle` sees the
true state but only restores. It is not an upper bound: `analyst` does better. Ties are broken at random, those of
`analyst` and `sweep` by name. `envs.cc4.notebook` counts the alerts.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from purecc4.envs import cc4
from purecc4.envs.cc4 import notebook
from purecc4.envs.cc4.actions import ACTION_TABLE, SLEEP
from purecc4.envs.cc4.constants import NO_HOST, NUM_ACTIONS, SLOTS, BlueAction
from purecc4.envs.cc4.layout import unpack
from purecc4.envs.cc4.notebook import WATCHED, Event, Notes
from purecc4.envs.cc4.sessions import held_hosts
from purecc4.nn import MemorylessPolicy
from purecc4.play.raw_scripts import Analyst, Sweep

LOWEST = jnp.finfo(jnp.float32).min
_KIND, _HOST = ACTION_TABLE[:, :, 0], ACTION_TABLE[:, :, 1].astype(int)
_PLACE = np.where(_HOST == NO_HOST, 0, _HOST - WATCHED[0] * SLOTS)
_IS_SLEEP = np.arange(NUM_ACTIONS) == SLEEP[:, None]
_MOST_DECOYS = 4
_BLIND = 0.1  # probability of a Restore without evidence


class Uniform(MemorylessPolicy):
    """Uniform distribution over legal actions."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """0 for legal actions, the lowest float for masked ones."""
        return carry, jnp.where(mask, 0.0, LOWEST)


class Asleep(Uniform):
    """Every agent sleeps."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """0 for Sleep, the lowest float for all other actions."""
        return carry, jnp.where(_IS_SLEEP, 0.0, LOWEST)


class Scores(NamedTuple):
    """Priority of each host for a Restore or a decoy."""

    restore: Float[Array, "zone slot"]
    """The highest host is restored if it scores at least 1."""
    decoy: Float[Array, "zone slot"]
    """Otherwise the highest host gets a decoy if it scores at least 1."""


class Script(eqx.Module):
    """A policy that acts on its notebook when idle. Subclasses score the hosts."""

    def scores(self, notes: Notes) -> Scores:
        """Score every slot, whether its host exists or not."""
        raise NotImplementedError

    def initial_carry(self, num_agents: int) -> Notes:
        """An empty notebook."""
        return notebook.initial_notes()

    def logits(
        self, carry: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Notes, Float[Array, "blue action"]]:
        """0 for the best actions, the lowest float for all others."""
        notes = notebook.observe(carry, vector)
        restore, decoy = self.scores(notes)
        best = _IS_SLEEP
        for kind, score in ((BlueAction.DEPLOY_DECOY, decoy), (BlueAction.RESTORE, restore)):
            worth = jnp.where((kind == _KIND) & mask, score.reshape(-1)[_PLACE], -jnp.inf)
            most = worth.max(axis=1, keepdims=True)
            best = jnp.where(most >= 1, worth == most, best)
        best = jnp.where(notebook.is_busy(notes)[:, None], _IS_SLEEP, best)
        return notes, jnp.where(best, 0.0, LOWEST)

    def update_carry(self, carry: Notes, action: Int32[Array, "blue"]) -> Notes:
        """The notebook after the submitted action."""
        return notebook.submit(carry, action)


def _nowhere(notes: Notes) -> Float[Array, "zone slot"]:
    return jnp.zeros(notes.decoys.shape)


class RestoreAny(Script):
    """The policy `restore` above."""

    def scores(self, notes: Notes) -> Scores:
        """The same score for all hosts."""
        return Scores(_nowhere(notes) + 1, _nowhere(notes))


class TwoStrikes(Script):
    """The policy `two_strikes` above."""

    def scores(self, notes: Notes) -> Scores:
        """Weighted alerts in units of two strikes, and the number of missing decoys."""
        weights = np.zeros(len(Event), np.float32)
        weights[[Event.BREACH, Event.SOURCE, Event.PROCESS, Event.CONNECTION]] = 4, 1, 3, 1
        strikes = jnp.tensordot(weights, notes.counts.astype(jnp.float32), 1)
        return Scores(strikes / 2, _MOST_DECOYS - notes.decoys.astype(jnp.float32))


class Evidence(Script):
    """The policy `evidence` above."""

    def scores(self, notes: Notes) -> Scores:
        """The number of events that are rarely false alarms."""
        seen = notes.counts[np.array([Event.BREACH, Event.SOURCE, Event.PROCESS])].sum(axis=0)
        return Scores(seen.astype(jnp.float32), _nowhere(notes))


class Glance(Uniform):
    """The reactive policy `glance` above."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Logits of `evidence` with an empty notebook. If it sleeps, log-probabilities of blind Restores and Sleep."""
        _, seen = Evidence().logits(notebook.initial_notes(), vector, mask)
        restore = (_KIND == BlueAction.RESTORE) & mask
        blind = jnp.where(restore, jnp.log(_BLIND / restore.sum(axis=1, keepdims=True)), LOWEST)
        blind = jnp.where(_IS_SLEEP, jnp.log(1 - _BLIND), blind)
        nothing_seen = (_IS_SLEEP & (seen == 0)).any(axis=1, keepdims=True)
        return carry, jnp.where(nothing_seen, blind, seen)


class Oracle(Script):
    """The policy `oracle` above."""

    def look(self, carry: Notes, state: cc4.State) -> Notes:
        """The notebook with breaches replaced by red's true sessions."""
        held = unpack(held_hosts(state.sessions))[WATCHED].astype(jnp.uint8)
        return eqx.tree_at(lambda notes: notes.counts, carry, carry.counts.at[Event.BREACH].set(held))

    def scores(self, notes: Notes) -> Scores:
        """Hosts with a red session."""
        return Scores(notes.counts[Event.BREACH].astype(jnp.float32), _nowhere(notes))


SCRIPTS = {
    "sleep": Asleep(),
    "random": Uniform(),
    "restore": RestoreAny(),
    "two_strikes": TwoStrikes(),
    "glance": Glance(),
    "evidence": Evidence(),
    "oracle": Oracle(),
    "sweep": Sweep(),
    "analyst": Analyst(),
}
