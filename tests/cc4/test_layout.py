"""Hosts and red's targets as words."""

import jax.numpy as jnp
import numpy as np
from worlds import ADM, CON, OZA, PAZ, members, server, user

from purecc4.envs.cc4 import layout
from purecc4.envs.cc4.constants import NUM_HOSTS, NUM_ZONES, OWN_TARGETS, SLOTS


def test_sets_of_hosts_are_words():
    flags = np.random.default_rng(0).random((3, NUM_ZONES, SLOTS)) < 0.5
    words = layout.pack(jnp.asarray(flags))
    assert words.shape == (3, NUM_ZONES)
    assert (layout.unpack(words) == flags).all()
    hosts = jnp.arange(NUM_HOSTS)
    assert (layout.holds(words, hosts) == flags.reshape(3, NUM_HOSTS)).all()
    some = jnp.array([0, 17, 127, 17])
    assert layout.hosts_of(some, jnp.array([True, True, True, False])).tolist() == [1, 2, 0, 0, 0, 0, 0, 1 << 15]


def test_users_fill_the_upper_slots():
    everyone = layout.pack_users(jnp.ones((8, 10), bool))
    assert everyone.tolist() == [0b1111111111000000] * 8
    assert layout.SERVERS == 0b111111


def test_the_one_marked_value_is_picked():
    chosen = jnp.array([[False, True, False], [False, False, False]])
    assert layout.select(chosen, jnp.array([3, 5, 9])).tolist() == [5, 0]


def test_own_hosts_are_targets_by_offset_and_foreign_servers_by_zone():
    own = layout.pack(jnp.zeros((NUM_ZONES, SLOTS), bool))
    for host in (user(CON, 2), server(OZA), server(ADM, 1), user(PAZ, 9)):
        own = own.at[host // SLOTS].add(1 << host % SLOTS)
    foreign = jnp.zeros(6, jnp.uint32).at[0].set(1 << OZA)
    targets = layout.target_sets(own, foreign)
    assert [members(targets, agent) for agent in range(6)] == [
        {8, OWN_TARGETS + OZA},
        set(),
        {0},
        set(),
        set(),
        {1, 47},
    ]


def test_the_host_of_a_target():
    target = jnp.array([8, 48 + OZA, 0, 15, 48, 47], jnp.uint8)
    assert layout.host_of_target(target).tolist() == [user(CON, 2), server(OZA), server(OZA), 63, 0, user(PAZ, 9)]
    assert layout.is_foreign(target).tolist() == [False, True, False, False, True, False]
