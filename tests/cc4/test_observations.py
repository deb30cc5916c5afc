"""Blue's 210 values: `BlueFlatWrapper.py:observation_change`."""

import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    ADM,
    CON,
    INT,
    OFF,
    OZA,
    OZB,
    PAZ,
    RZA,
    RZB,
    World,
    green_on,
    run,
    server,
    start,
    user,
)

from purecc4.envs import cc4
from purecc4.envs.cc4 import observations
from purecc4.envs.cc4.constants import ALPHABETICAL, COMMS_POLICY, BlueAction, GreenAction, RedAction

COLUMNS = (ADM, CON, INT, OFF, OZA, OZB, PAZ, RZA, RZB)
COMMS = {  # by subnet: phases 0, 1, 2
    ADM: ("100011000", "100011000", "100011000"),
    OFF: ("000111000", "000111000", "000111000"),
    OZA: ("111111101", "111111111", "111111101"),
    OZB: ("111111110", "111111110", "111111111"),
    PAZ: ("000011100", "000011100", "000011100"),
    RZA: ("000001010", "011011011", "000001011"),
    RZB: ("000010001", "000010011", "011011011"),
}
ZONES = [(RZA,), (OZA,), (RZB,), (OZB,), (ADM, OFF, PAZ)]


def blocks(after):
    """{zone: its 59 values}"""
    flat = after.obs.flat
    return {zone: flat[a, 1 + 59 * k :][:59] for a, zones in enumerate(ZONES) for k, zone in enumerate(zones)}


def concatenated(phase, blocked, process, connection, messages):
    """The observations as a plain concatenation of flags; alerts are [zone, slot]."""
    order = list(ALPHABETICAL)
    rows = []
    for agent, zones in enumerate(ZONES):
        parts = [[phase]]
        for zone in zones:
            parts += [np.equal(order, zone), blocked[zone, order], COMMS_POLICY[phase, zone][order]]
            parts += [process[zone], connection[zone]]
        parts += [messages[other] for other in range(5) if other != agent]
        row = np.concatenate(parts).astype(np.uint8)
        rows.append(np.pad(row, (0, 210 - len(row))))
    return np.stack(rows)


@pytest.mark.parametrize("phase", range(3))
def test_an_observation_is_the_concatenation_of_its_parts(phase):
    rng = np.random.default_rng(phase)
    blocked, process, connection = (rng.random(shape) < 0.5 for shape in ((9, 9), (8, 16), (8, 16)))
    messages = rng.integers(0, 2, (5, 8), np.uint8)
    words = (jnp.asarray((alerts << np.arange(16)).sum(axis=1), jnp.uint32) for alerts in (process, connection))
    flat = observations.observe(jnp.int32(phase), jnp.asarray(blocked), *words, jnp.asarray(messages))
    np.testing.assert_array_equal(flat, concatenated(phase, blocked, process, connection, messages))


@pytest.mark.parametrize(("step", "phase"), [(0, 0), (166, 0), (167, 1), (333, 1), (334, 2), (498, 2)])
def test_phase_subnet_and_comms_policy(step, phase):
    after = World(step=step).step()
    assert after.obs.flat[:, 0].tolist() == [phase] * 5
    for zone, block in blocks(after).items():
        assert [COLUMNS[i] for i in np.flatnonzero(block[:9])] == [zone]
        assert "".join(map(str, block[18:27])) == COMMS[zone][phase]


@pytest.mark.parametrize("to", COMMS)
def test_blocks_are_seen_by_the_owner_of_their_destination(to):
    sources = [source for source in COLUMNS if source != to]
    worlds = [World() for _ in sources]
    for world, source in zip(worlds, sources, strict=True):
        world.block(to, source)
    for after, source in zip(run(worlds), sources, strict=True):
        for zone, block in blocks(after).items():
            assert [COLUMNS[i] for i in np.flatnonzero(block[9:18])] == ([source] if zone == to else [])


def test_a_block_is_seen_in_the_step_in_which_it_is_made():
    world = World()
    world.blue_submits(4, BlueAction.BLOCK_TRAFFIC_ZONE, to=OFF, source=INT)
    after = world.step()
    assert np.flatnonzero(blocks(after)[OFF][9:18]).tolist() == [2]


@pytest.mark.parametrize("zone", COMMS)
def test_alerts_of_every_host_have_their_place(zone):
    """One false alarm of work and one of access per world; servers come before users."""
    worlds, expected = [], []
    for slot in range(4):
        world = World()
        host = user(zone, slot)
        world.green_does(host, GreenAction.LOCAL_WORK)
        world.draw("green_alarm", green_on(host), 0)
        worlds.append(world)
        expected.append((27 + 6 + slot, zone))
    for slot in range(3):
        world = World()
        visitor = user(zone)
        world.green_does(visitor, GreenAction.ACCESS_SERVICE, server(zone, slot))
        world.draw("green_alarm", green_on(visitor), 0)
        worlds.append(world)
        expected.append((43 + slot, zone))
    for after, (offset, there) in zip(run(worlds), expected, strict=True):
        for other, block in blocks(after).items():
            assert np.flatnonzero(block[27:]).tolist() == ([offset - 27] if other == there else [])


def test_alerts_are_pulses_of_one_step():
    world = World()
    world.session(2, server(OZA))
    world.remember(2, user(OZA), 0)
    world.red_does(2, RedAction.EXPLOIT_REMOTE_SERVICE, user(OZA))
    first = world.step()
    world.state = first.state
    second = world.step()
    assert first.alerts() == {"process": {user(OZA)}, "connection": {server(OZA), user(OZA)}}
    assert second.alerts() == {"process": set(), "connection": set()}


def test_contractors_are_not_watched():
    world = World()
    world.remember(0, user(CON), 0)
    world.red_does(0, RedAction.EXPLOIT_REMOTE_SERVICE, user(CON))
    after = world.step()
    assert after.sessions_on(user(CON)) and not any(block[27:].any() for block in blocks(after).values())


def test_messages_of_the_others_arrive_in_the_same_step():
    world = World()
    world.messages[...] = np.random.default_rng(0).integers(0, 2, (5, 8))
    after = world.step()
    for agent in range(5):
        start = 178 if agent == 4 else 60
        heard = after.obs.flat[agent, start : start + 32].reshape(4, 8)
        assert (heard == world.messages[[other for other in range(5) if other != agent]]).all()
    world.state, world.messages[...] = after.state, 0
    assert not world.step().obs.flat[:4, 60:92].any(), "and are gone in the next"


def test_padding_is_zero():
    world = World()
    world.messages[...] = 1
    assert not world.step().obs.flat[:4, 92:].any()


def test_the_first_observation_is_quiet():
    obs, _ = start()(World().state.scenario)
    first, quiet = np.asarray(obs.flat), World().step().obs.flat
    assert (first == quiet).all() and first.shape == (5, 210) and first.dtype == np.uint8


def test_the_mask_is_that_of_the_network():
    world = World(servers=2, users=5)
    after = world.step()
    assert after.obs.mask.shape == (5, 242)
    assert (after.obs.mask == np.asarray(cc4.action_mask(jnp.asarray(world.state.scenario.exists)))).all()
    assert after.obs.mask.sum(axis=1).tolist() == [4 * 7 + 18] * 4 + [4 * 21 + 50]
