"""The scripts `sweep` and `analyst` for one blue agent: from its history and mask to the index of an action.

Equivalent to `purecc4/play/raw_scripts.py`, which explains the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .history import CMD, ESCALATE, History, is_busy, is_user
from .notebook import ACTIONS, exists
from .raw import SLOTS, ZONES

LAST, PHASE = 499, 167  # step of the last decision; steps of a phase
QUIET_SOURCES, QUIET = 120, 15
OVERDUE = 20
HQ = [ZONES[f"{name}_subnet"] for name in ("admin_network", "office_network", "public_access_zone")]
MISSION_ZONES = -1, ZONES["operational_zone_a_subnet"], ZONES["operational_zone_b_subnet"]
"""The operational zone whose mission phase it is, by phase."""


class Cause(NamedTuple):
    """A reason to act on some hosts, [own_zone slot]."""

    kind: str
    """Type of action, as in `notebook.ACTIONS`."""
    hosts: np.ndarray
    rank: np.ndarray
    """Not negative; the highest host is acted on, the first among equals."""


def sweep(notes: History, mask: np.ndarray) -> int:
    """Index of the action of `sweep`."""
    age = notes.step - notes.looked
    causes = (
        Cause("restore", notes.files >= ESCALATE, age),
        Cause("remove", (notes.files == CMD) & ~notes.removed, age),
        Cause("analyse", age >= 0, age),
    )
    return first(notes, mask, causes)


def analyst(notes: History, mask: np.ndarray) -> int:
    """Index of the action of `analyst`."""
    return first(notes, mask, _causes_of_analyst(notes))


def _causes_of_analyst(notes: History) -> Iterator[Cause]:
    """The causes, the most urgent first."""
    rank = worst(notes)
    yield Cause("restore", (notes.files >= ESCALATE) & (notes.step < LAST - QUIET), rank)
    yield Cause("remove", notes.unanswered > 0, rank)
    yield Cause("analyse", notes.removed, rank)
    yield Cause("restore", notes.unexplained, rank)
    yield Cause("restore", (notes.named >= _often(notes)) & (notes.step < LAST - QUIET_SOURCES), rank)
    yield Cause("analyse", is_user(notes), overdue(notes))


def overdue(notes: History) -> np.ndarray:
    """Steps since each host was looked at, and 20 more for one that was named, and for one that was exploited."""
    suspicion = (notes.named > 0).astype(int) + (notes.exploits > 0)
    return notes.step - notes.looked + OVERDUE * suspicion


def first(notes: History, mask: np.ndarray, causes: Iterable[Cause]) -> int:
    """Index of the action on the host of the most urgent cause; Sleep without a cause and while busy."""
    actions, here = ACTIONS[len(notes.hosts)], exists(mask, len(notes.hosts))
    for cause in () if is_busy(notes) else causes:
        rank = np.where(cause.hosts & here, cause.rank, -1)
        if rank.max() >= 0:
            return actions.index((cause.kind, int(rank.argmax())))
    return actions.index(("sleep", -1))


def _often(notes: History) -> np.ndarray:
    """[own_zone 1] number of times that a host is named before it is restored."""
    zone = notes.hosts[:, :1] // SLOTS
    return np.where(np.isin(zone, HQ), 5, np.where(zone == MISSION_ZONES[min(notes.step // PHASE, 2)], 1, 2))


def worst(notes: History) -> np.ndarray:
    """Rank by brute forces from the host, times it was named, exploits of it."""
    rank = np.zeros(notes.hosts.shape, int)
    for count in (notes.brute_forces, notes.named, notes.exploits):
        rank = rank * 1024 + np.minimum(count, 1023)
    return rank


SCRIPTS = {"sweep": sweep, "analyst": analyst}
