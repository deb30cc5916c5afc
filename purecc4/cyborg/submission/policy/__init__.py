"""NumPy implementation of purecc4's policies: from observations and masks to actions of the padded flat wrapper.

Most policies read the flat wrapper's observation. A `RawPolicy` reads the raw one.
"""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import numpy as np

from . import history, history_features, notebook, rules, scripts
from .raw import RawObservation

WEIGHTS = "policy.safetensors"
TABLE = "numbers"
CELL, GRU, LINEAR = "cell", ("weight_ih", "weight_hh", "bias", "bias_n"), ("weight", "bias")
LAYERS = {
    "ippo": ("first", "second", "actor"),
    "ippo_rnn": ("first", CELL, "actor"),
    "mappo": ("actor.0", "actor.1", "actor.2"),
    "ippo_notebook": (
        *("zone.layer", "host_in", "host_from_zone", "host_out"),
        *("traffic_in", "traffic_from_zone", "traffic_out", "sleep_out"),
    ),
    "ippo_history": ("zone.layer", "host_in", "host_from_zone", "host_mid", "host_out", "sleep_out"),
    "pgpe": (TABLE,),
}
"""Layers from observation to logits, by algorithm: linear layers with tanh after all but the last, and a GRU; or the
layers of a `NotebookPolicy` or `HistoryPolicy`; or the table of a `RulesPolicy`."""
KIND_BIAS, SLEEP_BIAS, HEAD_START = np.array([0, -1, -2.5, -4], np.float32), np.float32(-3), np.float32(3)
TRAFFIC_BIAS = np.float32(-3)
SLEEP = np.array([49, 49, 49, 49, 145])
"""Index of Sleep by agent."""


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the float32 arrays by name and the metadata of a safetensors file."""
    data = Path(path).read_bytes()
    start = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:start])
    about = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return arrays, about


def names_of(algorithm: str) -> list[str]:
    """Names of the arrays of an algorithm's policy."""
    if LAYERS[algorithm] == (TABLE,):
        return [TABLE]
    return [f"{layer}.{part}" for layer in LAYERS[algorithm] for part in (GRU if layer == CELL else LINEAR)]


class RandomPolicy:
    """Uniform distribution over legal actions. Trained policies override the logits."""

    observation = "flat"

    def __init__(self, seed: int | tuple[int, ...], greedy: bool = False):
        self.random = np.random.default_rng(seed)
        self.greedy = greedy
        self.reset()

    def reset(self) -> None:
        """Clear the memory. Call it at the start of every episode."""
        self.memory = None

    def logits(
        self, memory: np.ndarray | None, vector: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Compute the memory [..., memory] after this step and float32 logits [..., 242].

        Takes the memory before this step (None at the start of an episode), observations [..., 210] and masks
        [..., 242]. Illegal actions get the lowest float.
        """
        return memory, np.where(mask, np.float32(0), np.finfo(np.float32).min)

    def act(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray | np.integer:
        """Sample action indices [...] for the next step, or take the likeliest if greedy."""
        self.memory, logits = self.logits(self.memory, np.asarray(vector), mask)
        action = draw(logits, None if self.greedy else self.random)
        self.memory = self.update_carry(self.memory, action)
        return action

    def update_carry(self, memory, action: np.ndarray | np.integer):
        """Memory after the actions."""
        return memory


def draw(logits: np.ndarray, random: np.random.Generator | None) -> np.ndarray | np.integer:
    """Sample indices [...] from logits [..., n]; the likeliest without a random generator."""
    return (logits if random is None else logits + random.gumbel(size=logits.shape)).argmax(axis=-1)


class TrainedPolicy(RandomPolicy):
    """The actor of a trained network, shared by all agents. Some algorithms have memory."""

    def __init__(
        self, algorithm: str, arrays: dict[str, np.ndarray], seed: int | tuple[int, ...], greedy: bool = False
    ):
        super().__init__(seed, greedy)
        self.layers, self.arrays = LAYERS[algorithm], arrays

    def logits(
        self, memory: np.ndarray | None, vector: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """As of `RandomPolicy`."""
        x = np.asarray(vector, np.float32)
        *hidden, last = self.layers
        for layer in hidden:
            if layer == CELL:
                x = memory = self._remember(memory, x)
            else:
                x = np.tanh(self._linear(layer, x))
        return memory, np.where(mask, self._linear(last, x), np.finfo(np.float32).min)

    def _linear(self, layer: str, x: np.ndarray) -> np.ndarray:
        return linear(self.arrays, layer, x)

    def _remember(self, memory: np.ndarray | None, x: np.ndarray) -> np.ndarray:
        """Step of the gated recurrent unit (Cho et al. 2014, arXiv 1406.1078)."""
        of_x, of_memory, bias, bias_new = (self.arrays[f"{CELL}.{part}"] for part in GRU)
        if memory is None:
            memory = np.zeros((*x.shape[:-1], of_memory.shape[1]), np.float32)
        reset, keep, new = np.split(x @ of_x.T + bias, 3, axis=-1)
        reset_by, keep_by, new_by = np.split(memory @ of_memory.T, 3, axis=-1)
        reset, keep = sigmoid(reset + reset_by), sigmoid(keep + keep_by)
        new = np.tanh(new + reset * (new_by + bias_new))
        return new + keep * (memory - new)


class NotebookPolicy(TrainedPolicy):
    """The actor of `algos/ippo_notebook.py`. The memory is one private notebook per agent."""

    def logits(
        self, memory: list[notebook.Notes] | None, vector: np.ndarray, mask: np.ndarray
    ) -> tuple[list[notebook.Notes], np.ndarray]:
        """As of `RandomPolicy`."""
        vectors, masks = (x.reshape(-1, x.shape[-1]) for x in (vector, mask))
        if memory is None:
            memory = [notebook.initial_notes(notebook.zones_of(vector)) for vector in vectors]
        memory = list(map(notebook.observe, memory, vectors))
        return memory, np.stack(list(map(self._of_agent, memory, vectors, masks))).reshape(mask.shape)

    def update_carry(self, memory: list[notebook.Notes], action: np.ndarray | np.integer) -> list[notebook.Notes]:
        """Each agent records its own action."""
        return list(map(notebook.submit, memory, np.ravel(action).tolist()))

    def _of_agent(self, notes: notebook.Notes, vector: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits [242] of one agent, in the order of `notebook.ACTIONS`."""
        host, zone, traffic = notebook.features(notes, vector, mask)
        pooled = np.concatenate([host.sum(axis=1) / np.float32(4), host.max(axis=1)], axis=1)
        of_agent = np.broadcast_to(pooled.mean(axis=0), pooled.shape)
        zone = np.tanh(self._linear("zone.layer", np.concatenate([pooled, of_agent, zone], axis=1)))
        host = np.tanh(self._linear("host_in", host) + self._linear("host_from_zone", zone)[:, None])
        remove, restore, decoy = self._linear("host_out", host).reshape(-1, 3).T
        traffic = self._linear("traffic_in", np.concatenate([traffic, notebook.sources(vector)], axis=2))
        traffic = np.tanh(traffic + self._linear("traffic_from_zone", zone)[:, None])
        allow, block = (self._linear("traffic_out", traffic) + TRAFFIC_BIAS).reshape(-1, 2).T
        sleep = self._linear("sleep_out", zone.mean(axis=0))
        lowest = np.finfo(np.float32).min
        analyse, monitor = np.full(len(remove), lowest), [lowest]
        return padded([analyse, monitor, remove, restore, sleep, allow, block, decoy], notebook.legal(notes, mask))


class RawPolicy:
    """A policy of one agent on the history of its raw observations. Subclasses override the logits or the choice."""

    observation = "raw"

    def __init__(self, agent: str, arrays: dict[str, np.ndarray], seed: int | tuple[int, ...], greedy: bool = False):
        self.agent, self.arrays = agent, arrays
        self.random = np.random.default_rng(seed)
        self.greedy = greedy
        self.reset()

    def reset(self) -> None:
        """Clear the history. Call it at the start of every episode."""
        self.history = history.init(self.agent)

    def logits(self, notes: history.History, mask: np.ndarray) -> np.ndarray:
        """Logits [242] for a history that ends with the latest observation, and a mask [242]."""
        raise NotImplementedError

    def choose(self, notes: history.History, mask: np.ndarray) -> int:
        """Sample the index of a legal action, or take the likeliest if greedy."""
        return int(draw(self.logits(notes, mask), None if self.greedy else self.random))

    def act(self, raw: RawObservation, mask: np.ndarray) -> int:
        """Action index for the next step, from the agent's latest observation."""
        self.history = history.update(self.history, raw)
        action = self.choose(self.history, mask)
        self.history = history.submit(self.history, action)
        return action


class ScriptedPolicy(RawPolicy):
    """One of `scripts.SCRIPTS`."""

    def __init__(self, agent: str, script: str):
        super().__init__(agent, {}, 0)
        self.script = scripts.SCRIPTS[script]

    def choose(self, notes: history.History, mask: np.ndarray) -> int:
        """The script's action."""
        return self.script(notes, mask)


class RulesPolicy(RawPolicy):
    """The policy of `algos/pgpe.py`, which is deterministic."""

    def choose(self, notes: history.History, mask: np.ndarray) -> int:
        """The action of the rules with the agent's numbers."""
        return rules.act(notes, mask, self.arrays[TABLE][int(self.agent[-1])])


class HistoryPolicy(RawPolicy):
    """The actor of `algos/ippo_history.py`."""

    def logits(self, notes: history.History, mask: np.ndarray) -> np.ndarray:
        """As of `RawPolicy`, with the lowest float for illegal actions and for those not on offer."""
        host, zone = history_features.features(notes, mask)
        layer = partial(linear, self.arrays)
        pooled = np.concatenate([host.sum(axis=1) / np.float32(4), host.max(axis=1)], axis=1)
        of_agent = np.broadcast_to(pooled.mean(axis=0), pooled.shape)
        zone = np.tanh(layer("zone.layer", np.concatenate([pooled, of_agent, zone], axis=1)))
        hidden = np.tanh(layer("host_in", host) + layer("host_from_zone", zone)[:, None])
        hidden = np.tanh(layer("host_mid", hidden))
        start = np.where(host[..., history_features.SCRIPT] > 0, HEAD_START, KIND_BIAS)
        lowest = np.finfo(np.float32).min
        offered = (host[..., history_features.OFFER] > 0) & (not history.is_busy(notes))
        analyse, remove, restore, decoy = np.where(offered, layer("host_out", hidden) + start, lowest).reshape(-1, 4).T
        sleep = layer("sleep_out", zone.mean(axis=0)) + SLEEP_BIAS
        traffic = np.full(2 * len(zone) * (notebook.SUBNETS - 1), lowest)
        return padded([analyse, [lowest], remove, restore, sleep, traffic, decoy], mask)


def padded(logits: list, mask: np.ndarray) -> np.ndarray:
    """Logits [242] in the order of the actions, from arrays by type; illegal ones and padding get the lowest float."""
    lowest = np.finfo(np.float32).min
    logits = np.concatenate(logits)
    return np.where(mask, np.append(logits, np.full(len(mask) - len(logits), lowest)), lowest).astype(np.float32)


def linear(arrays: dict[str, np.ndarray], layer: str, x: np.ndarray) -> np.ndarray:
    """Apply a linear layer to the last axis."""
    return x @ arrays[layer + ".weight"].T + arrays[layer + ".bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function in a form that cannot overflow."""
    return (np.tanh(x / 2) + 1) / 2


class SleepPolicy:
    """All agents sleep. Masks are [..., agent, 242]."""

    observation = "flat"

    def act(self, vector: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Action indices [..., agent]."""
        return np.broadcast_to(SLEEP, mask.shape[:-1])


def load(folder: str | Path, seed: int | tuple[int, ...], agent: str = "blue_agent_0") -> TrainedPolicy | RawPolicy:
    """Load the policy of an exported folder, with the exported mode (sampled or greedy).

    Only a `RawPolicy` depends on the agent.
    """
    arrays, about = read(Path(folder) / WEIGHTS)
    algorithm, greedy = about["algorithm"], about["mode"] == "greedy"
    if algorithm in scripts.SCRIPTS:
        return ScriptedPolicy(agent, algorithm)
    if algorithm in ("ippo_history", "pgpe"):
        return (HistoryPolicy if algorithm == "ippo_history" else RulesPolicy)(agent, arrays, seed, greedy)
    kind = NotebookPolicy if algorithm == "ippo_notebook" else TrainedPolicy
    return kind(algorithm, arrays, seed, greedy)
