"""The notebook of one blue agent, and the network input computed from it.

Equivalent to `envs/cc4/notebook.py` and `features` of `algos/ippo_notebook.py`, which document the fields, but for a
single agent. Nothing here can depend on the observations or actions of another agent. Hosts are [zone, slot] of the
agent's zones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SLOTS, SERVERS, SUBNETS, PHASES = 16, 6, 9, 3
BLOCK = 3 * SUBNETS + 2 * SLOTS  # of one zone in an observation
EVENTS = 4  # breach, source, process, connection
COUNTED_TO, FORGOTTEN = 8, 1000
RATES, ACTIVITY_RATE = np.array([0.8, 0.97], np.float32)[:, None, None, None], np.float32(0.98)
DURATION = {
    **{"sleep": 1, "monitor": 1, "analyse": 2, "remove": 3, "restore": 5},
    **{"deploy_decoy": 2, "allow_traffic": 1, "block_traffic": 1},
}
"""Steps, by kind of action."""
HOST_KINDS = "remove", "restore", "deploy_decoy"
ADMIN = 1  # index in an observation that is 1 for the agent with three zones, whose first zone is the admin network


def zones_of(vector: np.ndarray) -> int:
    """Number of zones (1 or 3) of the agent with this observation."""
    return 3 if vector[ADMIN] else 1


def _actions_of(zones: int) -> list[tuple[str, int]]:
    hosts, traffic = range(zones * SLOTS), zones * (SUBNETS - 1)
    return [
        *(("analyse", host) for host in hosts),
        ("monitor", -1),
        *(("remove", host) for host in hosts),
        *(("restore", host) for host in hosts),
        ("sleep", -1),
        *[("allow_traffic", -1)] * traffic,
        *[("block_traffic", -1)] * traffic,
        *(("deploy_decoy", host) for host in hosts),
    ]


ACTIONS = {zones: _actions_of(zones) for zones in (1, 3)}
"""Type and host (-1 for none) of each action, by number of zones."""


@dataclass(frozen=True)
class Notes:
    """The notebook of an agent. Counts saturate at COUNTED_TO, steps at FORGOTTEN."""

    kind: str
    """Type of the current or last action of the agent."""
    host: int
    """Target of that action."""
    ticks: int
    """Remaining steps of that action; 0 if idle."""
    counts: np.ndarray
    """[event zone slot] events since the last Restore."""
    recent: np.ndarray
    """[rate event zone slot] the same, decaying with every step."""
    unanswered: np.ndarray
    """[event zone slot] events since the last Restore or Remove."""
    since_restore: np.ndarray
    since_remove: np.ndarray
    decoys: np.ndarray
    """[zone slot] decoys deployed since the last Restore."""
    recent_activity: np.ndarray
    """[event zone] recent activity: 1 for every step with an event, decaying with every step."""
    phase: int
    phase_age: int
    step: int


def initial_notes(zones: int) -> Notes:
    """An empty notebook, before the first observation of an episode."""
    hosts = zones, SLOTS
    return Notes(
        kind="sleep",
        host=-1,
        ticks=0,
        counts=np.zeros((EVENTS, *hosts), int),
        recent=np.zeros((len(RATES), EVENTS, *hosts), np.float32),
        unanswered=np.zeros((EVENTS, *hosts), int),
        since_restore=np.full(hosts, -1),
        since_remove=np.full(hosts, FORGOTTEN),
        decoys=np.zeros(hosts, int),
        recent_activity=np.zeros((EVENTS, zones), np.float32),
        phase=0,
        phase_age=-1,
        step=-1,
    )


def blocks(vector: np.ndarray) -> np.ndarray:
    """[zone, BLOCK] parts of an observation, one per zone."""
    zones = zones_of(vector)
    return vector[1 : 1 + zones * BLOCK].reshape(zones, BLOCK)


def events(vector: np.ndarray) -> np.ndarray:
    """[event zone slot] events derived from the alerts of the last step, at most one per host."""
    alerts = blocks(vector)[:, -2 * SLOTS :] > 0
    process, connection = alerts[:, :SLOTS], alerts[:, SLOTS:]
    breach, lone = process & connection, connection & ~process
    is_breached = breach.any()
    return np.stack([breach, lone & is_breached, process & ~connection, lone & ~is_breached])


def exists(mask: np.ndarray, zones: int) -> np.ndarray:
    """[zone slot] existing hosts, derived from the legal Restores."""
    first = ACTIONS[zones].index(("restore", 0))
    return mask[first : first + zones * SLOTS].reshape(zones, SLOTS)


def is_at(host: int, zones: int) -> np.ndarray:
    """[zone slot] one-hot position of a host; all False for -1."""
    return (np.arange(zones * SLOTS) == host).reshape(zones, SLOTS)


def submit(notes: Notes, action: int) -> Notes:
    """Update the notebook after submitting a legal action. A busy agent's action is dropped."""
    zones = len(notes.decoys)
    if notes.ticks == 0:
        kind, host = ACTIONS[zones][action]
        notes = replace(notes, kind=kind, host=host, ticks=DURATION[kind])
    notes = replace(notes, ticks=notes.ticks - 1)
    if notes.ticks > 0:
        return notes
    restored, removed, decoyed = (
        is_at(notes.host if notes.kind == kind else -1, zones) for kind in ("restore", "remove", "deploy_decoy")
    )
    return replace(
        notes,
        counts=notes.counts * ~restored,
        recent=notes.recent * ~restored,
        unanswered=notes.unanswered * ~(restored | removed),
        since_restore=np.where(restored, -1, notes.since_restore),
        since_remove=np.where(removed, -1, notes.since_remove),
        decoys=np.minimum(notes.decoys * ~restored + decoyed, COUNTED_TO),
    )


def observe(notes: Notes, vector: np.ndarray) -> Notes:
    """Update the notebook with an observation."""
    seen, phase = events(vector), int(vector[0])
    return replace(
        notes,
        counts=np.minimum(notes.counts + seen, COUNTED_TO),
        recent=notes.recent * RATES + seen,
        unanswered=np.minimum(notes.unanswered + seen, COUNTED_TO),
        since_restore=np.minimum(notes.since_restore + 1, FORGOTTEN),
        since_remove=np.minimum(notes.since_remove + 1, FORGOTTEN),
        recent_activity=notes.recent_activity * ACTIVITY_RATE + seen.any(axis=2),
        phase=phase,
        phase_age=notes.phase_age + 1 if phase == notes.phase else 0,
        step=notes.step + 1,
    )


def legal(notes: Notes, mask: np.ndarray) -> np.ndarray:
    """The mask, reduced to Sleep while busy."""
    if notes.ticks == 0:
        return mask
    return np.arange(len(mask)) == ACTIONS[len(notes.decoys)].index(("sleep", -1))


def features(notes: Notes, vector: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Network input, float32: [zone slot feature], [zone feature] and [zone source feature]."""
    here = exists(mask, len(notes.decoys))
    host = [
        here,
        np.broadcast_to(np.arange(SLOTS) < SERVERS, here.shape),
        *(is_at(notes.host, len(here)) & (notes.ticks > 0) & (notes.kind == kind) for kind in HOST_KINDS),
        fading(notes.since_restore, 20),
        fading(notes.since_restore, 150),
        fading(notes.since_remove, 20),
        notes.decoys / 4,
        *events(vector),
        *notes.recent[0],
        *notes.recent[1] / 2,
        *np.minimum(notes.counts, 4) / 2,
        *np.minimum(notes.unanswered, 3),
    ]
    rows = blocks(vector)
    own, blocked, comms = (rows[:, i * SUBNETS :][:, :SUBNETS] for i in range(3))
    now = [*(np.arange(PHASES) == notes.phase), notes.step / 500, fading(notes.phase_age, 20), notes.ticks / 5]
    zone = [own, np.tile(now, (len(here), 1)), np.minimum(notes.recent_activity, 3.9).T]
    from_others = own == 0
    traffic = [row[from_others].reshape(len(here), -1) for row in (blocked, comms)]
    return (
        in_64ths(np.stack([x * here for x in host], axis=-1)),
        in_64ths(np.concatenate(zone, axis=1)),
        in_64ths(np.stack(traffic, axis=-1)),
    )


def fading(steps: np.ndarray | int, over: int) -> np.ndarray | np.floating:
    """Exponential decay: 1 at step 0, 1/e after `over` steps."""
    return np.exp(-np.asarray(steps, np.float32) / np.float32(over))


def in_64ths(x: np.ndarray) -> np.ndarray:
    """Round to multiples of 1/64 and clip to [0, 255/64]."""
    return (np.clip(np.round(np.asarray(x, np.float32) * 64), 0, 255) / 64).astype(np.float32)


def sources(vector: np.ndarray) -> np.ndarray:
    """[zone source subnet] one-hot sources of the traffic that a zone can block, in the order of its actions."""
    names = np.eye(SUBNETS, dtype=np.float32)
    return np.stack([names[row == 0] for row in blocks(vector)[:, :SUBNETS]])
