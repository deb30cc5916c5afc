"""The banks of the published study, and those of games."""

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from purecc4.envs.cc4.constants import ALLOWED, MAX_SERVERS, NUM_HOSTS, NUM_ZONES, RED_DURATION, RedAction, Subnet
from purecc4.envs.cc4.games import BASE, GameSpec
from purecc4.envs.cc4.scenario import ADDONS, Topology

Triple = Sequence[int | float]
"""(LWF, ASF, RIA)"""
TableChange = Mapping[tuple[int, Subnet], Triple]
"""Changes of the canonical reward table: {(phase, subnet): triple}. {} is the canonical table itself."""


def _published_topologies() -> tuple[Topology, ...]:
    """Build the study's 16 snapshots: 4 base networks (snapshot // 4) in 4 variants (snapshot % 4).

    Variants 1 and 2 also change links between routers. Links only decide which routers raise an alert on an SSH brute
    force, and routers are not observed, so links are omitted. Variant 3 equals variant 0, except that CON and ADM
    cannot reach each other in phase 1. The study does not list services. They are sampled once here, with the same
    result for variants 0 and 3.
    """
    parted = ALLOWED.copy()
    parted[1, Subnet.CON, Subnet.ADM] = parted[1, Subnet.ADM, Subnet.CON] = False
    zones = tuple(Subnet)[:NUM_ZONES]
    topologies = []
    with (files(__package__) / "topology_bank.csv").open() as file:
        for row in csv.DictReader(file):
            base, variant = divmod(int(row["snapshot"]), 4)
            _, kind, number = row["red0_start"].split()
            random = np.random.default_rng((base, variant % 3))
            topology = Topology(
                servers=tuple(int(row[f"{zone.name}_servers"]) for zone in zones),
                users=tuple(int(row[f"{zone.name}_users"]) for zone in zones),
                services=ADDONS[random.integers(len(ADDONS), size=NUM_HOSTS)].T,
                red_start=int(number) + (MAX_SERVERS if kind == "user" else 0),
                hq_start=Subnet[row["red5_start_subnet"]],
                allowed=parted if variant == 3 else ALLOWED,
            )
            topologies.append(topology)
    return tuple(topologies)


def _reward_tables() -> tuple[TableChange, ...]:
    rza, rzb, oza, ozb = Subnet.RZA, Subnet.RZB, Subnet.OZA, Subnet.OZB
    low, jewel, hq = (-1, -1, -1), (-10, 0, -10), (-5, -2, -5)
    rotated = {(1, oza): low, (1, ozb): jewel, (2, oza): jewel, (2, ozb): low}
    swapped = {(1, rza): low, (1, rzb): (-2, -1, -3), (2, rza): (-2, -1, -3), (2, rzb): (-1, -3, -3)}
    admin, office = {(1, Subnet.ADM): hq}, {(2, Subnet.OFF): hq}
    return {}, rotated | swapped, admin, office, {(1, ozb): jewel}, rotated | admin | office


VARIED = 64
"""Games of a bank."""
_FACTOR = {"rates": 10.0, "tempo": 2.0}
"""Rates and durations are drawn from the base's divided by this up to the base's times this, log-uniform."""


def varied_games(*axes: str) -> tuple[GameSpec, ...]:
    """Games that differ from the base game on some axes, drawn once: the same on an axis whatever the others.

    `rates` are green's phishing and its two kinds of false alarms, `tempo` is one factor of all durations of red,
    rounded to steps, and `sizes` are the least and most servers and users of a subnet.
    """
    return tuple(GameSpec(**{k: v for axis in axes for k, v in _drawn(axis, n).items()}) for n in range(VARIED))


def _drawn(axis: str, number: int) -> dict[str, Any]:
    """Numbers of one axis in one game of a bank."""
    random = np.random.default_rng((list(_AXES).index(axis), number))
    return _AXES[axis](random)


def _factors(random: np.random.Generator, axis: str, count: int) -> list[float]:
    return (_FACTOR[axis] ** random.uniform(-1, 1, count)).tolist()


def _rates(random: np.random.Generator) -> dict[str, float]:
    names = "phishing", "work_alarm", "visit_alarm"
    return {name: getattr(BASE, name) * x for name, x in zip(names, _factors(random, "rates", 3), strict=True)}


def _tempo(random: np.random.Generator) -> dict[str, Any]:
    (factor,) = _factors(random, "tempo", 1)
    durations = {kind: max(round(factor * RED_DURATION[kind]), 1) for kind in RedAction}
    return {"red_durations": {kind: steps for kind, steps in durations.items() if steps != RED_DURATION[kind]}}


def _sizes(random: np.random.Generator) -> dict[str, tuple[int, int]]:
    def bounds(least: int, most: int) -> tuple[int, int]:
        low, high = sorted(random.integers(least, most + 1, 2).tolist())
        return low, high

    return {"servers": bounds(*BASE.servers), "users": bounds(*BASE.users)}


_AXES = {"rates": _rates, "tempo": _tempo, "sizes": _sizes}
PUBLISHED_TOPOLOGIES = _published_topologies()
MISSIONS = ((1, 1, 1), (3, 3, 1), (1, 3, 3), (3, 1, 3))
PHASE_STARTS = ((0, 167, 333), (0, 100, 300), (0, 200, 400), (0, 150, 250))
REWARD_TABLES = _reward_tables()
