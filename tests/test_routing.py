"""Who owns what, and which zone is blocked from which."""

import jax.numpy as jnp
import numpy as np

from envs.cc4 import routing
from envs.cc4.constants import NUM_HOSTS, NUM_ZONES, SLOTS, Subnet

RED = {Subnet.CON: 0, Subnet.RZA: 1, Subnet.OZA: 2, Subnet.RZB: 3, Subnet.OZB: 4}
BLUE = {Subnet.RZA: 0, Subnet.OZA: 1, Subnet.RZB: 2, Subnet.OZB: 3}
ZONES = tuple(Subnet)[:NUM_ZONES]


def test_owners_of_zones():
    assert routing.red_to_zones(jnp.arange(6)).tolist() == [RED.get(zone, 5) for zone in ZONES]
    assert routing.blue_to_zones(jnp.arange(1, 6)).tolist() == [0, *[BLUE.get(zone, 4) + 1 for zone in ZONES[1:]]]


def test_zones_combine_into_red_agents():
    assert routing.zones_to_red(jnp.arange(8), jnp.add).tolist() == [0, 1, 2, 3, 4, 5 + 6 + 7]


def test_sets_of_hosts_are_words():
    flags = np.random.default_rng(0).random((3, NUM_ZONES, SLOTS)) < 0.5
    words = routing.pack(jnp.asarray(flags))
    assert words.shape == (3, NUM_ZONES)
    assert (routing.unpack(words) == flags).all()
    hosts = jnp.arange(NUM_HOSTS)
    assert (routing.holds(words, hosts) == flags.reshape(3, NUM_HOSTS)).all()
    some = jnp.array([0, 17, 127, 17])
    assert routing.hosts_of(some, jnp.array([True, True, True, False])).tolist() == [1, 2, 0, 0, 0, 0, 0, 1 << 15]


def test_users_fill_the_upper_slots():
    everyone = routing.pack_users(jnp.ones(80, bool))
    assert everyone.tolist() == [0b1111111111000000] * 8
    assert routing.SERVERS == 0b111111


def test_blocks_have_a_direction_and_two_ends_q22():
    blocked = jnp.zeros((9, 9), bool).at[Subnet.OZA, Subnet.CON].set(True)
    source, target = jnp.array([Subnet.CON, Subnet.OZA, Subnet.RZA]), jnp.array([Subnet.OZA, Subnet.CON, Subnet.OZA])
    assert routing.is_blocked(blocked, source, target).tolist() == [True, False, False]
