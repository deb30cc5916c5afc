"""The policy of `algos/pgpe.py` for one blue agent: rules with learned numbers.

Equivalent to `Rules` there, which explains them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .history import ESCALATE, SLOT, History, attacked, is_busy, is_user
from .notebook import ACTIONS, exists
from .scripts import LAST, PHASE, Cause, first, worst

NUMBERS = (
    *(f"user_named_{phase}" for phase in range(3)),
    *(f"server_named_{phase}" for phase in range(3)),
    *("sources", "exploited_named", "quiet_sources", "quiet_exploited", "quiet_rooted", "user_decoys", "server_decoys"),
    *("named_bonus", "exploited_bonus", "server_delay"),
    *("named_weight", "target_weight", "share_weight", "stale_weight"),
    *("fresh_weight", "size_weight", "restore_weight", "phase_weight"),
)
TYPICAL = 10
OPENING = 2, 5, 8, 13, 16, 19
"""Blocks between the three zones of headquarters, counted from the first block action."""
HIGH = np.iinfo(np.int16).max


def act(notes: History, mask: np.ndarray, numbers: np.ndarray) -> int:
    """Index of the action, from the history, the mask [242] and the agent's NUMBERS."""
    actions = ACTIONS[len(notes.hosts)]
    if len(notes.hosts) > 1 and notes.step < len(OPENING) and not is_busy(notes):
        return actions.index(("block_traffic", -1)) + OPENING[notes.step]
    there = exists(mask, len(notes.hosts))
    return first(notes, mask, _causes(notes, there, dict(zip(NUMBERS, numbers, strict=True))))


def _causes(notes: History, there: np.ndarray, of: dict[str, np.float32]) -> Iterator[Cause]:
    """The causes, the most urgent first."""
    left, phase, user = LAST - notes.step, min(notes.step // PHASE, 2), is_user(notes)
    rank, exploited, named = worst(notes), notes.unanswered > 0, notes.named > 0
    yield Cause("restore", (notes.files >= ESCALATE) & (left > of["quiet_rooted"]), rank)
    again = exploited & named & (notes.named >= of["exploited_named"])
    yield Cause("restore", again & (left > of["quiet_exploited"]), rank)
    yield Cause("remove", exploited, rank)
    yield Cause("analyse", notes.removed, rank)
    yield Cause("restore", notes.unexplained, rank)
    needed = np.where(user, of[f"user_named_{phase}"], of[f"server_named_{phase}"])
    often = named & (_suspicion(notes, there, of) >= needed)
    yield Cause("restore", often & (named.sum() < of["sources"]) & (left > of["quiet_sources"]), rank)
    missing = notes.decoys < np.where(user, of["user_decoys"], of["server_decoys"])
    yield Cause("deploy_decoy", missing, HIGH - notes.decoys.astype(int))
    age = notes.step - notes.looked + of["named_bonus"] * named + of["exploited_bonus"] * (notes.exploits > 0)
    age = np.round(age - np.where(user, np.float32(0), of["server_delay"])).astype(int) + HIGH
    yield Cause("analyse", age >= 0, age)


def _suspicion(notes: History, there: np.ndarray, of: dict[str, np.float32]) -> np.ndarray:
    """Weighted sum of what speaks for and against the Restore of an attacker."""

    def count(flags: np.ndarray) -> np.ndarray:
        return flags.sum(axis=-1, keepdims=True).astype(np.float32)

    targets, size = count(notes.targets[..., None] & SLOT > 0)[..., 0], count(there)
    parts = {
        "named": notes.named.astype(np.float32),
        "target": targets,
        "share": TYPICAL * targets / np.maximum(size, 1),
        "stale": count(notes.stale),
        "fresh": count(there & ~notes.stale & ~attacked(notes)),
        "size": size - TYPICAL,
        "restore": np.float32(notes.restores.sum()),
        "phase": np.float32((PHASE - notes.step % PHASE) / (PHASE / 3)),
    }
    return sum(of[f"{name}_weight"] * part for name, part in parts.items())
