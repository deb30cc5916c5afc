"""Owners of zones, and blocks between subnets."""

import jax.numpy as jnp

from purecc4.envs.cc4 import routing
from purecc4.envs.cc4.constants import NUM_ZONES, Subnet

RED = {Subnet.CON: 0, Subnet.RZA: 1, Subnet.OZA: 2, Subnet.RZB: 3, Subnet.OZB: 4}
BLUE = {Subnet.RZA: 0, Subnet.OZA: 1, Subnet.RZB: 2, Subnet.OZB: 3}
ZONES = tuple(Subnet)[:NUM_ZONES]


def test_owners_of_zones():
    assert routing.red_to_zones(jnp.arange(6)).tolist() == [RED.get(zone, 5) for zone in ZONES]
    assert routing.blue_to_zones(jnp.arange(1, 6)).tolist() == [0, *[BLUE.get(zone, 4) + 1 for zone in ZONES[1:]]]


def test_zones_combine_into_red_agents():
    assert routing.zones_to_red(jnp.arange(8), jnp.add).tolist() == [0, 1, 2, 3, 4, 5 + 6 + 7]


def test_blocks_have_a_direction_and_two_ends_q22():
    blocked = jnp.zeros((9, 9), bool).at[Subnet.OZA, Subnet.CON].set(True)
    source, target = jnp.array([Subnet.CON, Subnet.OZA, Subnet.RZA]), jnp.array([Subnet.OZA, Subnet.CON, Subnet.OZA])
    assert routing.is_blocked(blocked, source, target).tolist() == [True, False, False]
