"""The input of the network of `algos/ippo_history.py` for one agent, from its history and mask.

Equivalent to `features` there, which explains it. Hosts are [own_zone slot].
"""

from __future__ import annotations

import numpy as np

from . import scripts
from .history import CMD, CMD_ESCALATE, ESCALATE, History, is_busy, is_user
from .notebook import ACTIONS, exists
from .raw import BRUTE_FORCE, DECOY_HIT, SCAN, SLOTS

KINDS = "analyse", "remove", "restore", "deploy_decoy"
ZONES = 7
OFFER, SCRIPT = slice(0, len(KINDS)), slice(len(KINDS), 2 * len(KINDS))
"""Host features: the actions of KINDS on offer, and the action of `analyst`."""


def features(notes: History, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Network input, float32 in units of 1/64: [own_zone slot feature] and [own_zone zone_feature]."""
    here = exists(mask, len(notes.hosts))
    actions = ACTIONS[len(notes.hosts)]

    def at_target(action: int, true: bool) -> list[np.ndarray]:
        kind, host = actions[action]
        at = (np.arange(here.size) == host).reshape(here.shape)
        return [at & (true and kind == each) for each in KINDS]

    def recency(at: np.ndarray, *scales: int) -> list[np.ndarray]:
        return [np.where(at > 0, np.exp(np.minimum(at - notes.step, 0) / scale), 0) for scale in scales]

    rank = np.where(here & is_user(notes), scripts.overdue(notes), -1)
    turn = (np.arange(rank.size) == rank.argmax()).reshape(here.shape)
    accused = (notes.named > 0) | (notes.exploits > 0)
    evidence = accused | (notes.files > 0) | (notes.gaps > 0)
    host = [
        *(turn | accused | notes.removed, notes.exploits > 0, evidence, here),
        *at_target(scripts.analyst(notes, mask), not is_busy(notes)),
        ~is_user(notes),
        *at_target(notes.action, is_busy(notes)),
        *(np.log1p(x) for x in (notes.exploits, notes.unanswered, notes.named, notes.brute_forces, notes.gaps)),
        notes.decoys / 4,
        *(np.log1p(notes.met[kind]) for kind in (SCAN, BRUTE_FORCE, DECOY_HIT)),
        *(np.minimum(x, 1) for x in (notes.exploits, notes.unanswered, notes.named)),
        *(notes.named >= often for often in (2, 3, 4, 5)),
        (notes.files == CMD) | (notes.files >= CMD_ESCALATE),
        *(notes.files >= ESCALATE, notes.removed, notes.explained, notes.unexplained),
        *recency(notes.named_at, 10, 60),
        *recency(notes.exploited_at, 10, 60),
        *recency(notes.looked, 10, 50),
        (notes.step - notes.looked) / 64,
    ]
    host = np.stack([x * here for x in host], axis=-1)
    left = notes.step - 500
    now = np.arange(3) == min(notes.step // scripts.PHASE, 2), (notes.step / 128, np.exp(left / 20), np.exp(left / 80))
    now = np.broadcast_to(np.concatenate([*now, [notes.ticks / 5]]), (len(here), 7))
    zone = notes.hosts[:, :1] // SLOTS - 1 == np.arange(ZONES)
    return in_64ths(host), in_64ths(np.concatenate([zone, now], axis=1))


def in_64ths(x: np.ndarray) -> np.ndarray:
    """Round to multiples of 1/64 between 0 and 255/64."""
    return np.clip(np.round(np.asarray(x, np.float32) * 64), 0, 255) / np.float32(64)
