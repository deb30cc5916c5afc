"""A policy of purecc4 with NumPy alone: observations and masks of the padded flat wrapper in, action indices out."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

WEIGHTS = "policy.safetensors"
HIDDEN, LOGITS = ("first", "second"), "actor"
"""Layers of a network; each has a `.weight` [out, in] and a `.bias` [out]."""
SLEEP = np.array([49, 49, 49, 49, 145])
"""Index of Sleep, by agent."""


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Float32 arrays by name, and the metadata, of a safetensors file."""
    data = Path(path).read_bytes()
    start = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:start])
    about = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return arrays, about


class Random:
    """Uniform over the legal actions; and what a trained policy does with its logits."""

    def __init__(self, seed: int | tuple[int, ...], greedy: bool = False):
        self.random = np.random.default_rng(seed)
        self.greedy = greedy

    def logits(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Of observations [..., 210] and masks [..., 242]: float32 [..., 242], the lowest number where illegal."""
        return np.where(mask, np.float32(0), np.finfo(np.float32).min)

    def act(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray | np.integer:
        """Action indices [...], each sampled by its probability, or the likeliest if greedy."""
        logits = self.logits(vector, mask)
        return (logits if self.greedy else logits + self.random.gumbel(size=logits.shape)).argmax(axis=-1)


class Policy(Random):
    """Two tanh layers and the logits of the actions, one network for all agents."""

    def __init__(self, arrays: dict[str, np.ndarray], seed: int | tuple[int, ...], greedy: bool = False):
        super().__init__(seed, greedy)
        self.arrays = arrays

    def logits(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """As the class above says."""
        x = np.asarray(vector, np.float32)
        for layer in HIDDEN:
            x = np.tanh(self._linear(layer, x))
        return np.where(mask, self._linear(LOGITS, x), np.finfo(np.float32).min)

    def _linear(self, layer: str, x: np.ndarray) -> np.ndarray:
        return x @ self.arrays[layer + ".weight"].T + self.arrays[layer + ".bias"]


class Sleep:
    """All agents sleep, in observations [..., agent, 210]."""

    def act(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Action indices [..., agent]."""
        return np.broadcast_to(SLEEP, vector.shape[:-1])


def load(folder: str | Path, seed: int | tuple[int, ...]) -> Policy:
    """The policy of an exported folder, sampling or greedy as it was exported."""
    arrays, about = read(Path(folder) / WEIGHTS)
    return Policy(arrays, seed, about["mode"] == "greedy")
