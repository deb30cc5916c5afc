"""A notebook for each blue agent: all it can infer from its own observations and actions in an episode.

An observation shows the alerts of one step, and not if the agent is busy. The notebook keeps the alerts on every host
since its last Restore, and the action in progress, which is exact because durations are known. It reads neither the
simulator's state nor the observations of other agents.

The alerts of one step on a host are one of four events (Q18, Q19; alert table in README.md). Both alerts at once are a
successful SSH brute force: a breach. A lone connection alert, with a breach in the zones of the same agent, is its
source. The other two may be false alarms.

An episode starts with `initial_notes`. Call `observe` with each observation and `submit` with the actions that follow.

Zones are the seven that blue watches, constants.Subnet 1 to 7. Functions take one environment and all five agents; no
value mixes zones of different agents.
"""

from dataclasses import replace
from enum import IntEnum

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int16, Int32, Integer, UInt8

from . import actions
from .constants import (
    BLUE_DURATION,
    NUM_BLUE,
    NUM_SUBNETS,
    NUM_ZONES,
    SLOTS,
    BlueAction,
    Subnet,
)
from .state import Queue

WATCHED = np.arange(Subnet.RZA, NUM_ZONES)
"""[zone] the subnets that blue watches."""
AGENT_OF = np.array([next(a for a in range(NUM_BLUE) if z in actions.zones_of_blue(a)) for z in WATCHED])
"""[zone] the blue agent."""
NUM_WATCHED = len(WATCHED)
_BLOCK = 3 * NUM_SUBNETS + 2 * SLOTS  # of one zone in an observation
_RESTORE = np.stack(
    [
        [
            np.flatnonzero(
                (actions.ACTION_TABLE[agent, :, 0] == BlueAction.RESTORE)
                & (actions.ACTION_TABLE[agent, :, 1] == zone * SLOTS + slot)
            )[0]
            for slot in range(SLOTS)
        ]
        for zone, agent in zip(WATCHED, AGENT_OF, strict=True)
    ]
)
_IS_SLEEP = np.zeros(actions.ACTION_TABLE.shape[:2], bool)
_IS_SLEEP[np.arange(NUM_BLUE), actions.SLEEP] = True
"""[blue action] the one index that is Sleep, padding left out."""
COUNTED_TO = 8  # events of a kind on a host
FORGOTTEN = 1000  # steps; the largest age that is told apart


class Event(IntEnum):
    """Interpretation of the alerts of one step on a host."""

    BREACH, SOURCE, PROCESS, CONNECTION = range(4)


class Notes(eqx.Module):
    """Contents of the notebooks; hosts are [zone slot]."""

    in_progress: Queue
    """[blue]"""
    counts: UInt8[Array, "event zone slot"]
    """Events since the last Restore, up to COUNTED_TO."""
    recent: Float32[Array, "rate event zone slot"]
    """The same, decayed by RATES at every step."""
    unanswered: UInt8[Array, "event zone slot"]
    """Events since the last Restore or Remove, up to COUNTED_TO."""
    since_restore: Int16[Array, "zone slot"]
    """Steps since the host was last clean: its Restore, or the start of the episode."""
    since_remove: Int16[Array, "zone slot"]
    """Steps since the last Remove; FORGOTTEN if there was none."""
    decoys: UInt8[Array, "zone slot"]
    """Deployed since the last Restore."""
    recent_activity: Float32[Array, "event zone"]
    """Steps in which the zone had such an event, decayed by ACTIVITY_RATE at every step; Restores do not matter."""
    phase: Int32[Array, ""]
    phase_age: Int32[Array, ""]
    """Steps observed since the phase began."""
    step: Int32[Array, ""]


RATES = np.array([0.8, 0.97], np.float32)
ACTIVITY_RATE = 0.98


def initial_notes() -> Notes:
    """An empty notebook, before the first observation of an episode."""

    def none(*axes, dtype=jnp.uint8):
        return jnp.zeros((*axes, NUM_WATCHED, SLOTS), dtype)

    idle = jnp.zeros(NUM_BLUE, jnp.uint8)
    return Notes(
        in_progress=Queue(idle, idle),
        counts=none(len(Event)),
        recent=none(len(RATES), len(Event), dtype=jnp.float32),
        unanswered=none(len(Event)),
        since_restore=none(dtype=jnp.int16) - 1,
        since_remove=none(dtype=jnp.int16) + FORGOTTEN,
        decoys=none(),
        recent_activity=jnp.zeros((len(Event), NUM_WATCHED), jnp.float32),
        phase=jnp.int32(0),
        phase_age=jnp.int32(-1),
        step=jnp.int32(-1),
    )


def zone_blocks(flat: UInt8[Array, "blue obs"]) -> UInt8[Array, "zone place"]:
    """The blocks of flat observations, one per zone: subnet, blocked sources, comms policy, alerts."""
    single = flat[: NUM_BLUE - 1, 1 : 1 + _BLOCK]
    triple = flat[NUM_BLUE - 1, 1 : 1 + 3 * _BLOCK]
    return jnp.concatenate([single, triple.reshape(3, _BLOCK)])


def of_agents(zones: Bool[Array, "zone"]) -> Bool[Array, "zone"]:
    """For each zone, true if `zones` is true for any zone of the same agent."""
    last = zones[NUM_BLUE - 1 :].any()
    return jnp.concatenate([zones[: NUM_BLUE - 1], jnp.broadcast_to(last, (NUM_WATCHED - NUM_BLUE + 1,))])


def events(flat: UInt8[Array, "blue obs"]) -> Bool[Array, "event zone slot"]:
    """Events of the last step, at most one per host."""
    alerts = zone_blocks(flat)[:, -2 * SLOTS :] > 0
    process = alerts[:, :SLOTS]
    connection = alerts[:, SLOTS:]
    breach = process & connection
    breached = of_agents(breach.any(axis=1))[:, None]
    lone = connection & ~process
    return jnp.stack([breach, lone & breached, process & ~connection, lone & ~breached])


def exists(mask: Bool[Array, "blue action"]) -> Bool[Array, "zone slot"]:
    """Existing hosts, inferred from the legal Restores."""
    return mask[AGENT_OF[:, None], _RESTORE]


def is_at(host: UInt8[Array, "blue"], do: Bool[Array, "blue"]) -> Bool[Array, "zone slot"]:
    """True at the target hosts of the agents for which `do` is true."""
    places = (WATCHED[:, None] * SLOTS + np.arange(SLOTS)).astype(np.uint8)
    return ((host[:, None, None] == places) & do[:, None, None]).any(axis=0)


def submit(notes: Notes, action: Integer[Array, "blue"]) -> Notes:
    """Update the notebook with submitted actions, which must be legal.

    Blue acts before green and red, so the alerts of the coming step count as later than a Restore that takes effect.
    """
    wanted = actions.decode(action).kind
    queue, _, due = actions.advance(notes.in_progress, action.astype(jnp.uint8), jnp.asarray(BLUE_DURATION)[wanted])
    order = actions.decode(queue.action.astype(jnp.int32))
    restored, removed, decoyed = (
        is_at(order.host, due & (order.kind == kind))
        for kind in (BlueAction.RESTORE, BlueAction.REMOVE, BlueAction.DEPLOY_DECOY)
    )
    kept = ~restored
    return replace(
        notes,
        in_progress=queue,
        counts=notes.counts * kept,
        recent=notes.recent * kept,
        unanswered=notes.unanswered * (kept & ~removed),
        since_restore=jnp.where(restored, -1, notes.since_restore).astype(jnp.int16),
        since_remove=jnp.where(removed, -1, notes.since_remove).astype(jnp.int16),
        decoys=jnp.minimum(notes.decoys * kept + decoyed, COUNTED_TO).astype(jnp.uint8),
    )


def observe(notes: Notes, flat: UInt8[Array, "blue obs"]) -> Notes:
    """Update the notebook with an observation."""
    seen = events(flat)
    phase = flat[0, 0].astype(jnp.int32)

    def count(old):
        return jnp.minimum(old + seen, COUNTED_TO).astype(jnp.uint8)

    def later(steps):
        return jnp.minimum(steps + 1, FORGOTTEN).astype(jnp.int16)

    return replace(
        notes,
        counts=count(notes.counts),
        recent=notes.recent * RATES[:, None, None, None] + seen,
        unanswered=count(notes.unanswered),
        since_restore=later(notes.since_restore),
        since_remove=later(notes.since_remove),
        recent_activity=notes.recent_activity * ACTIVITY_RATE + seen.any(axis=2),
        phase=phase,
        phase_age=jnp.where(phase == notes.phase, notes.phase_age + 1, 0),
        step=notes.step + 1,
    )


def is_busy(notes: Notes) -> Bool[Array, "blue"]:
    """Agents whose next submission will be ignored."""
    return notes.in_progress.ticks > 0


def legal(notes: Notes, mask: Bool[Array, "blue action"]) -> Bool[Array, "blue action"]:
    """The action mask, reduced to Sleep for busy agents."""
    return jnp.where(is_busy(notes)[:, None], _IS_SLEEP, mask)
