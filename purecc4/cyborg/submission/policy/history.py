"""The history of one blue agent's raw observations, host by host.

Equivalent to `envs/cc4/history.py`, which documents the fields, but for a single agent. Nothing here can depend on the
observations or actions of another agent. Hosts are [own_zone slot] of the agent's zones.

    notes = init("blue_agent_0")
    notes = update(notes, raw)      # each raw observation, also the one after the reset
    notes = submit(notes, action)   # the action that follows
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .notebook import ACTIONS, DURATION
from .raw import ACTIONS as KINDS
from .raw import BRUTE_FORCE, DECOY_HIT, OWN_ZONES, SERVERS, SLOTS, SUCCESS, RawObservation

NO_FILES, CMD, ESCALATE, CMD_ESCALATE, ESCALATE_CMD = range(5)
"""Indices of `raw.FILES`."""
MAX_PID_STEP = 9
"""Largest difference of the pids of two processes started one after the other."""

COUNTS = (
    "exploits",
    "unanswered",
    "named",
    "brute_forces",
    "exploited_at",
    "named_at",
    "files",
    "looked",
    "decoys",
    "pid",
    "gaps",
    "targets",
    "restores",
)
FLAGS = "removed", "explained", "unexplained", "stale"
SLOT = 1 << np.arange(SLOTS)


@dataclass(frozen=True)
class History:
    """The history of an agent. Counts are since the last Restore of the host unless stated."""

    hosts: np.ndarray
    """Numbers of the own hosts, whether they exist or not."""
    step: int
    """Steps observed; 0 after the reset."""
    action: int
    """Index of the current or last own action."""
    ticks: int
    """Remaining steps of that action; 0 if idle."""
    exploits: np.ndarray
    unanswered: np.ndarray
    named: np.ndarray
    brute_forces: np.ndarray
    exploited_at: np.ndarray
    named_at: np.ndarray
    met: np.ndarray
    """[attack_kind own_zone slot]"""
    files: np.ndarray
    looked: np.ndarray
    removed: np.ndarray
    explained: np.ndarray
    unexplained: np.ndarray
    decoys: np.ndarray
    pid: np.ndarray
    gaps: np.ndarray
    targets: np.ndarray
    stale: np.ndarray
    restores: np.ndarray


def init(agent: str) -> History:
    """The empty history of an agent, such as blue_agent_0, before the first observation of an episode."""
    hosts = SLOTS * np.array(OWN_ZONES[agent])[:, None] + np.arange(SLOTS)
    return History(
        hosts=hosts,
        step=-1,
        action=0,
        ticks=0,
        met=np.zeros((DECOY_HIT + 1, *hosts.shape), int),
        **{name: np.zeros(hosts.shape, int) for name in COUNTS},
        **{name: np.zeros(hosts.shape, bool) for name in FLAGS},
    )


def submit(notes: History, action: int) -> History:
    """Add the submitted action, which must be legal. A busy agent's action is ignored, as in the game."""
    if notes.ticks == 0:
        kind, _ = ACTIONS[len(notes.hosts)][action]
        notes = replace(notes, action=action, ticks=DURATION[kind])
    return replace(notes, ticks=notes.ticks - 1)


def update(notes: History, raw: RawObservation) -> History:
    """Add a raw observation. Blue acts first in a step, so alerts count as later than the effect of an own action."""
    # a game may have other durations than the challenge
    ticks = max(notes.ticks, 1) if SUCCESS[raw.result[0]] == "IN_PROGRESS" else 0
    return _alerts(_effects(replace(notes, step=notes.step + 1, ticks=ticks), raw), raw)


def is_busy(notes: History) -> bool:
    """The next submission will be ignored."""
    return notes.ticks > 0


def is_user(notes: History) -> np.ndarray:
    """[own_zone slot] slots of user hosts."""
    return np.broadcast_to(np.arange(SLOTS) >= SERVERS, notes.hosts.shape)


def attacked(notes: History) -> np.ndarray:
    """[own_zone slot] hosts that an attacker of their zone was seen to attack since the last Remove or Restore."""
    return _met_in(notes.targets)


def _effects(notes: History, raw: RawObservation) -> History:
    """The own Analyse, Remove or Restore that took effect."""
    restored, removed, analysed = (_acted(notes, raw, kind) for kind in ("Restore", "Remove", "Analyse"))
    kept = ~restored
    explained = kept & (notes.explained | (removed & (notes.exploits > 0)))
    unanswered = notes.unanswered * (kept & ~removed)
    found = int(raw.result[5])
    cmd = found == CMD or found >= CMD_ESCALATE
    lost = _met_in(notes.targets * restored)
    cleared = np.sum(SLOT * (restored | removed), axis=1)[:, None]
    return replace(
        notes,
        exploits=notes.exploits * kept,
        unanswered=unanswered,
        named=notes.named * kept,
        brute_forces=notes.brute_forces * kept,
        exploited_at=notes.exploited_at * kept,
        named_at=notes.named_at * kept,
        met=notes.met * kept,
        files=np.where(analysed, found, notes.files * kept),
        looked=np.where(analysed | restored, notes.step, notes.looked),
        removed=removed | (notes.removed & kept & ~analysed),
        explained=explained,
        unexplained=np.where(analysed, cmd & ~explained & (unanswered == 0), notes.unexplained & kept & ~removed),
        decoys=notes.decoys * kept,
        pid=notes.pid * kept,
        gaps=notes.gaps * kept,
        targets=notes.targets * kept & ~cleared,
        stale=(notes.stale | lost) & kept & ~removed,
        restores=notes.restores + restored,
    )


def _alerts(notes: History, raw: RawObservation) -> History:
    """Exploits, attacks and new pids."""
    kind, target, source = raw.attacks[:, :3].astype(int).T
    exploits = _count(notes, raw.pids[:, 0], raw.pids[:, 1] > 0)
    named = _count(notes, source, kind > 0)
    targets = _targets(notes, target, source, kind > 0)
    decoys = _acted(notes, raw, "DeployDecoy")
    pid = np.where(decoys, int(raw.result[7]), _largest_pid(notes, raw))
    # Every process adds at most MAX_PID_STEP to the largest pid, and so does the green user's session of a user host.
    steps = exploits + decoys + (is_user(notes) & (notes.pid == 0))
    gap = pid - notes.pid > MAX_PID_STEP * steps
    return replace(
        notes,
        exploits=notes.exploits + exploits,
        unanswered=notes.unanswered + exploits,
        named=notes.named + named,
        brute_forces=notes.brute_forces + _count(notes, source, kind == BRUTE_FORCE),
        exploited_at=np.where(exploits > 0, notes.step, notes.exploited_at),
        named_at=np.where(named > 0, notes.step, notes.named_at),
        met=notes.met + np.stack([_count(notes, target, (kind == k) & (k > 0)) for k in range(len(notes.met))]),
        decoys=notes.decoys + decoys,
        pid=np.where(pid > 0, pid, notes.pid),
        gaps=notes.gaps + ((pid > 0) & gap),
        targets=notes.targets | targets,
        stale=notes.stale & ~_met_in(targets),
    )


def _acted(notes: History, raw: RawObservation, kind: str) -> np.ndarray:
    """True at the host on which an own action of a kind took effect."""
    return (notes.hosts == raw.result[2]) & (raw.result[1] == KINDS.index(kind))


def _count(notes: History, host: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Number of valid rows that name each own host."""
    return ((notes.hosts[..., None] == host) & valid).sum(axis=-1)


def _met_in(targets: np.ndarray) -> np.ndarray:
    """[own_zone slot] hosts that any host of their zone has among its targets."""
    return np.bitwise_or.reduce(targets, axis=1)[:, None] & SLOT > 0


def _targets(notes: History, target: np.ndarray, source: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Hosts of its zone that each own host attacks in valid rows, bit by slot."""
    here = (notes.hosts[..., None] == source) & valid & (target // SLOTS == source // SLOTS)
    return np.bitwise_or.reduce(np.where(here, SLOT[target % SLOTS], 0), axis=-1)


def _largest_pid(notes: History, raw: RawObservation) -> np.ndarray:
    """The largest pid of an exploit on each host in this step; 0 is none."""
    return np.where(notes.hosts[..., None] == raw.pids[:, 0], raw.pids[:, 1].astype(int), 0).max(axis=-1)
