"""Specifications of arms, and the published arms by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from numbers import Real
from typing import Any

import numpy as np

from purecc4.arms.banks import (
    MISSIONS,
    PHASE_STARTS,
    PUBLISHED_TOPOLOGIES,
    REWARD_TABLES,
    TableChange,
    Triple,
    varied_games,
)
from purecc4.envs.cc4.checks import check_phase_starts, is_float32, is_whole
from purecc4.envs.cc4.constants import NUM_PHASES, REWARDS, RewardTerm, Subnet
from purecc4.envs.cc4.games import GameSpec
from purecc4.envs.cc4.params import RED_ARGUMENTS, RedPolicy
from purecc4.envs.cc4.scenario import Topology
from purecc4.errors import UserError, user_values

GENERATE = "generate"
"""Entry of a topology bank: generate a new network at every reset."""
THIRDS = None
"""Entry of a phase bank: three phases of equal length, starting at 0, 167 and 334 of 500 steps."""

RESERVED = ("sleep", "random", "restore", "two_strikes", "glance", "evidence", "oracle", "sweep", "analyst")
"""Names of scripted policies. Evaluation tables list them along with the arms, so no arm can have one of them."""


@dataclass(frozen=True)
class Plain:
    """Entry of a topology bank: network `number` of a fixed, unlimited sequence of generated networks."""

    number: int


Entry = str | Plain | Topology


@dataclass(frozen=True)
class ArmSpec:
    """Specification of an arm. Raises UserError for invalid values."""

    topologies: Sequence[Entry] = (GENERATE,)
    missions: Sequence[Triple] = ((1, 1, 1),)
    """Factors of (LWF, ASF, RIA) for the whole reward table."""
    phase_starts: Sequence[Sequence[int | float] | None] = (THIRDS,)
    """First step of each of the three mission phases."""
    reward_tables: Sequence[TableChange] = ({},)
    games: Sequence[GameSpec] = ()
    """Games, of which one is drawn for every episode; empty for that of the training. Their `red` is not used."""
    reds: Sequence[str | RedPolicy] = ()
    """Reds likewise, by name or as data. They cannot hunt roles, for which the network is another."""
    restore_cost: int | float = 1
    """Cost of each submitted Restore, in points of reward. The banks do not change it."""
    probabilities: Mapping[str, Sequence[int | float]] = field(default_factory=dict)
    """Probabilities of the entries by name of the bank. The default is uniform."""

    def __post_init__(self):
        for bank in BANKS:
            if not getattr(self, bank):
                raise UserError(f"{bank} needs at least one entry.")
        for entry in self.topologies:
            _check_topology(entry)
        for red in self.reds:
            _check_red_of_bank(red)
        for mission in self.missions:
            _check_triple("a mission", mission, "at least 0", low=0)
        for change in self.reward_tables:
            _check_change(change)
        for starts in self.phase_starts:
            if starts is not THIRDS:
                with user_values():
                    check_phase_starts(starts)
        if not is_float32(self.restore_cost) or self.restore_cost < 0:
            raise UserError(f"restore_cost must be a float32 number of at least 0: {self.restore_cost}.")
        self._check_products()
        self._check_probabilities()

    def _check_products(self):
        cells = {x for change in self.reward_tables for triple in change.values() for x in triple}
        for factor, cell in product({x for mission in self.missions for x in mission}, cells | set(REWARDS.flat)):
            if not is_float32(float(factor) * float(cell)):
                raise UserError(f"missions times reward_tables must be float32 numbers: {factor} times {cell}.")

    def _check_probabilities(self):
        for bank, weights in self.probabilities.items():
            if bank not in (*BANKS, *GAME_BANKS):
                known = ", ".join((*BANKS, *GAME_BANKS))
                raise UserError(f"unknown bank {bank!r} in probabilities; known are {known}.")
            count = len(getattr(self, bank))
            possible = all(is_float32(weight) and weight >= 0 for weight in weights)
            if len(weights) != count or not possible or abs(sum(weights) - 1) > 1e-6:
                noun = "probability" if count == 1 else "probabilities"
                raise UserError(f"{bank} needs {count} {noun} summing to 1: {tuple(weights)}.")

    def check_fits(self, num_steps: int) -> None:
        """Raise UserError if a mission phase starts after the end of an episode of that length."""
        for starts in self.phase_starts:
            if starts is not THIRDS and starts[-1] >= num_steps:
                raise UserError(f"phase starts {tuple(starts)} exceed an episode of {num_steps} steps.")

    def weights(self, bank: str) -> np.ndarray:
        """Probabilities of the entries of a bank."""
        count = len(getattr(self, bank))
        return np.asarray(self.probabilities.get(bank, np.full(count, 1 / max(count, 1))), np.float64)


def _check_topology(entry: Any) -> None:
    if isinstance(entry, Plain):
        if not is_whole(entry.number) or not 0 <= entry.number < 2**31:
            raise UserError(f"the number of a Plain network must be from 0 to 2147483647: {entry.number!r}.")
    elif not isinstance(entry, Topology) and entry != GENERATE:
        raise UserError(f"a topology must be {GENERATE!r}, Plain(number) or a Topology: {entry!r}.")


def _check_red_of_bank(red: Any) -> None:
    if isinstance(red, str) and red not in RED_ARGUMENTS:
        raise UserError(f"unknown red {red!r}; known are {', '.join(RED_ARGUMENTS)}.")
    if RED_ARGUMENTS[red].get("hunted") if isinstance(red, str) else red.hunted.any():
        raise UserError("a bank of reds takes none that hunts roles, which needs another network: train it by --red.")


def _check_triple(what: str, triple: Any, sign: str, low: Real = -math.inf, high: Real = math.inf) -> None:
    if len(triple) != len(RewardTerm) or not all(is_float32(value) and low <= value <= high for value in triple):
        raise UserError(f"{what} is three float32 numbers (LWF, ASF, RIA), each {sign}: {tuple(triple)}.")


def _check_change(change: TableChange) -> None:
    cells = {(phase, subnet) for phase in range(NUM_PHASES) for subnet in Subnet}
    for cell, triple in change.items():
        if cell not in cells:
            raise UserError(f"keys of a reward table must be cells (phase 0..2, Subnet): {cell!r}.")
        phase, subnet = cell
        _check_triple(f"the reward of phase {phase} in {Subnet(subnet).name}", triple, "at most 0", high=0)


BANKS = ("topologies", "missions", "phase_starts", "reward_tables")
"""Banks of every arm."""
GAME_BANKS = ("games", "reds")
"""Banks that an arm may have besides."""

VARIED_REDS = "fsm", "discovery", "aggressive", "stealthy", "impact"
_C11 = ArmSpec(PUBLISHED_TOPOLOGIES, MISSIONS, PHASE_STARTS, REWARD_TABLES)
ARMS: dict[str, ArmSpec] = {
    "C00": ArmSpec(),
    "C11": _C11,
    "C11prime": replace(_C11, missions=((1, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5))),
    "miss": ArmSpec(missions=MISSIONS),
    "topo": ArmSpec(topologies=PUBLISHED_TOPOLOGIES),
    "pbound": ArmSpec(phase_starts=PHASE_STARTS),
    "cjewel": ArmSpec(reward_tables=REWARD_TABLES),
    "C11_notopo": replace(_C11, topologies=(GENERATE,)),
    "fixed222": ArmSpec(missions=((2, 2, 2),)),
    "restore_half": ArmSpec(restore_cost=0.5),
    "miss_mean1": ArmSpec(missions=tuple(tuple(factor / 2 for factor in triple) for triple in MISSIONS)),
    "topo_plain16": ArmSpec(topologies=tuple(map(Plain, range(16)))),
    "topo_plain256": ArmSpec(topologies=tuple(map(Plain, range(256)))),
    "rates": ArmSpec(games=varied_games("rates")),
    "tempo": ArmSpec(games=varied_games("tempo")),
    "sizes": ArmSpec(games=varied_games("sizes")),
    "reds": ArmSpec(reds=VARIED_REDS),
    "all": ArmSpec(games=varied_games("rates", "tempo", "sizes"), reds=VARIED_REDS),
    "all_no_rates": ArmSpec(games=varied_games("tempo", "sizes"), reds=VARIED_REDS),
    "all_no_tempo": ArmSpec(games=varied_games("rates", "sizes"), reds=VARIED_REDS),
    "all_no_sizes": ArmSpec(games=varied_games("rates", "tempo"), reds=VARIED_REDS),
    "all_no_reds": ArmSpec(games=varied_games("rates", "tempo", "sizes")),
}
