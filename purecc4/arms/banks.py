"""The banks of the published study."""

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from purecc4.envs.cc4.constants import ALLOWED, MAX_SERVERS, NUM_HOSTS, NUM_ZONES, Subnet
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


PUBLISHED_TOPOLOGIES = _published_topologies()
MISSIONS = ((1, 1, 1), (3, 3, 1), (1, 3, 3), (3, 1, 3))
PHASE_STARTS = ((0, 167, 333), (0, 100, 300), (0, 200, 400), (0, 150, 250))
REWARD_TABLES = _reward_tables()
