"""Scripted blue policies: what a learner has to beat. They take the place of a network (see `policies`).

| name | what every agent does |
|---|---|
| sleep | sleeps |
| random | any legal action, whether busy or not |
| restore | Restore on any host of its own, whenever idle; it looks at nothing |
| two_strikes | Restore where most alerts were since the last one, if two (a process alert counts 3); else a decoy |
| glance | Restore where `evidence` would, of this step alone; if nowhere, on any host in one step of ten. See below |
| evidence | Restore where a breach, the source of one or a process alert was since the last one |
| oracle | Restore where red holds a session: it reads the state, so it is a bound, not a competitor |

All but `random` and `glance` submit Sleep while busy and when there is nothing to do. A decoy goes where there are
fewest, up to 4. `glance` remembers nothing, not even that it is busy: it shows what a policy that sees one step can do.
Ties are broken at random. Alerts are counted by `envs.cc4.notebook`.
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

LOWEST = jnp.finfo(jnp.float32).min
_KIND, _HOST = ACTION_TABLE[:, :, 0], ACTION_TABLE[:, :, 1].astype(int)
_PLACE = np.where(_HOST == NO_HOST, 0, _HOST - WATCHED[0] * SLOTS)
_IS_SLEEP = np.arange(NUM_ACTIONS) == SLEEP[:, None]
_MOST_DECOYS = 4
_BLIND = 0.1  # chance of a Restore where nothing is seen


class Uniform(MemorylessPolicy):
    """All legal actions are equally likely."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Logits 0, the lowest number for masked actions."""
        return carry, jnp.where(mask, 0.0, LOWEST)


class Asleep(Uniform):
    """Everybody sleeps."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Logit 0 for Sleep."""
        return carry, jnp.where(_IS_SLEEP, 0.0, LOWEST)


class Scores(NamedTuple):
    """How much each host needs a Restore or a decoy."""

    restore: Float[Array, "zone slot"]
    """The host with the most is restored, if it has 1 or more."""
    decoy: Float[Array, "zone slot"]
    """Otherwise the host with the most gets a decoy, if it has 1 or more."""


class Script(eqx.Module):
    """Acts by its notebook when idle. Subclasses score the hosts."""

    def scores(self, notes: Notes) -> Scores:
        """Of hosts that exist and others alike."""
        raise NotImplementedError

    def initial_carry(self, num_agents: int) -> Notes:
        """An empty notebook."""
        return notebook.initial_notes()

    def logits(
        self, carry: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Notes, Float[Array, "blue action"]]:
        """Logit 0 for the best actions, the lowest number for all others."""
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
        """The notebook, with the action submitted."""
        return notebook.submit(carry, action)


def _nowhere(notes: Notes) -> Float[Array, "zone slot"]:
    return jnp.zeros(notes.decoys.shape)


class RestoreAny(Script):
    """See `restore` above."""

    def scores(self, notes: Notes) -> Scores:
        """All hosts alike."""
        return Scores(_nowhere(notes) + 1, _nowhere(notes))


class TwoStrikes(Script):
    """See `two_strikes` above."""

    def scores(self, notes: Notes) -> Scores:
        """Alerts in units of two strikes; decoys that a host lacks."""
        weights = np.zeros(len(Event), np.float32)
        weights[[Event.BREACH, Event.SOURCE, Event.PROCESS, Event.CONNECTION]] = 4, 1, 3, 1
        strikes = jnp.tensordot(weights, notes.counts.astype(jnp.float32), 1)
        return Scores(strikes / 2, _MOST_DECOYS - notes.decoys.astype(jnp.float32))


class Evidence(Script):
    """See `evidence` above."""

    def scores(self, notes: Notes) -> Scores:
        """Events that are hardly ever false alarms."""
        seen = notes.counts[np.array([Event.BREACH, Event.SOURCE, Event.PROCESS])].sum(axis=0)
        return Scores(seen.astype(jnp.float32), _nowhere(notes))


class Glance(Uniform):
    """See `glance` above."""

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Logits of `evidence` with an empty notebook, or where that sleeps log-probabilities of Restores and Sleep."""
        _, seen = Evidence().logits(notebook.initial_notes(), vector, mask)
        restore = (_KIND == BlueAction.RESTORE) & mask
        blind = jnp.where(restore, jnp.log(_BLIND / restore.sum(axis=1, keepdims=True)), LOWEST)
        blind = jnp.where(_IS_SLEEP, jnp.log(1 - _BLIND), blind)
        nothing_seen = (_IS_SLEEP & (seen == 0)).any(axis=1, keepdims=True)
        return carry, jnp.where(nothing_seen, blind, seen)


class Oracle(Script):
    """See `oracle` above."""

    def look(self, carry: Notes, state: cc4.State) -> Notes:
        """The notebook with red's sessions in the place of breaches."""
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
}
