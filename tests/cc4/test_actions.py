"""Blue's 242 indices, labels and masks, and the queue of one action."""

import jax.numpy as jnp
import numpy as np
import pytest
from worlds import ADM, CON, INT, OFF, OZA, OZB, PAZ, RZA, RZB, SLEEP_INDEX, World, index_of, run, server, user

from purecc4.envs import cc4
from purecc4.envs.cc4 import checks
from purecc4.envs.cc4.actions import ACTION_TABLE, host_name
from purecc4.envs.cc4.constants import (
    BLUE_DURATION,
    IN_PROGRESS,
    NO_HOST,
    NUM_HOSTS,
    RED_DURATION,
    BlueAction,
    RedAction,
)

SOURCES = {
    RZA: (ADM, CON, INT, OFF, OZA, OZB, PAZ, RZB),
    OZA: (ADM, CON, INT, OFF, OZB, PAZ, RZA, RZB),
    RZB: (ADM, CON, INT, OFF, OZA, OZB, PAZ, RZA),
    OZB: (ADM, CON, INT, OFF, OZA, PAZ, RZA, RZB),
    ADM: (CON, INT, OFF, OZA, OZB, PAZ, RZA, RZB),
    OFF: (ADM, CON, INT, OZA, OZB, PAZ, RZA, RZB),
    PAZ: (ADM, CON, INT, OFF, OZA, OZB, RZA, RZB),
}


@pytest.mark.parametrize("agent", range(5))
def test_order_of_the_indices(agent):
    zones = (ADM, OFF, PAZ) if agent == 4 else (agent + 1,)
    hosts = [zone * 16 + slot for zone in zones for slot in range(16)]
    traffic = [(to, source) for to in zones for source in SOURCES[to]]
    kinds = BlueAction
    expected = [
        *[(kinds.ANALYSE, host, 0, 0) for host in hosts],
        (kinds.MONITOR, NO_HOST, 0, 0),
        *[(kinds.REMOVE, host, 0, 0) for host in hosts],
        *[(kinds.RESTORE, host, 0, 0) for host in hosts],
        (kinds.SLEEP, NO_HOST, 0, 0),
        *[(kinds.ALLOW_TRAFFIC_ZONE, NO_HOST, *pair) for pair in traffic],
        *[(kinds.BLOCK_TRAFFIC_ZONE, NO_HOST, *pair) for pair in traffic],
        *[(kinds.DEPLOY_DECOY, host, 0, 0) for host in hosts],
    ]
    assert len(expected) == (242 if agent == 4 else 82)
    expected += [(kinds.SLEEP, NO_HOST, 0, 0)] * (242 - len(expected))
    assert [tuple(row) for row in ACTION_TABLE[agent].tolist()] == expected


def test_landmarks_of_the_indices():
    assert SLEEP_INDEX == [49, 49, 49, 49, 145]
    assert index_of(0, BlueAction.MONITOR) == 16 and index_of(4, BlueAction.MONITOR) == 48
    assert index_of(4, BlueAction.ALLOW_TRAFFIC_ZONE, to=OFF, source=ADM) == 154
    assert index_of(4, BlueAction.BLOCK_TRAFFIC_ZONE, to=PAZ, source=RZB) == 193
    assert index_of(2, BlueAction.DEPLOY_DECOY, user(RZB, 9)) == 81
    assert index_of(4, BlueAction.RESTORE, server(OFF)) == 97 + 16


def test_labels():
    assert cc4.label(0, 33) == "Restore restricted_zone_a_subnet_server_host_0"
    assert cc4.label(4, 47) == "Analyse public_access_zone_subnet_user_host_9"
    assert cc4.label(4, 154) == "AllowTrafficZone office_network_subnet <- admin_network_subnet"
    assert cc4.label(1, 49) == "Sleep" and cc4.label(1, 16) == "Monitor"
    assert cc4.label(3, 82) == "[Padding] Sleep"
    assert host_name(user(CON, 3)) == "contractor_network_subnet_user_host_3"


@pytest.mark.parametrize(("servers", "users"), [(1, 3), (3, 4), (6, 10)])
def test_the_mask_is_true_for_existing_hosts_and_all_traffic(servers, users):
    exists = World(servers, users).state.scenario.exists
    mask = np.asarray(cc4.action_mask(jnp.asarray(exists)))
    hosts = servers + users
    assert mask.sum(axis=1).tolist() == [4 * hosts + 18] * 4 + [4 * 3 * hosts + 50]
    host = ACTION_TABLE[:, :, 1]
    on_hosts = host != NO_HOST
    assert (mask[on_hosts] == exists[host[on_hosts]]).all()
    assert not mask[:4, 82:].any()


def test_durations():
    assert {kind.name: int(BLUE_DURATION[kind]) for kind in BlueAction if BLUE_DURATION[kind] > 1} == {
        "ANALYSE": 2,
        "REMOVE": 3,
        "RESTORE": 5,
        "DEPLOY_DECOY": 2,
    }
    assert {kind.name: int(RED_DURATION[kind]) for kind in RedAction if RED_DURATION[kind] > 1} == {
        "STEALTH_SERVICE_DISCOVERY": 3,
        "DISCOVER_DECEPTION": 2,
        "EXPLOIT_REMOTE_SERVICE": 4,
        "PRIVILEGE_ESCALATE": 2,
        "IMPACT": 2,
        "DEGRADE_SERVICES": 2,
    }


def play(world, steps):
    """The kinds that take effect for blue agent 1 while it submits the same action all the time."""
    executed = []
    for _ in range(steps):
        after = world.step()
        executed.append(int(after.info.executed[1]))
        world.state = after.state
    return executed


@pytest.mark.parametrize(
    "kind",
    [BlueAction.SLEEP, BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY],
)
def test_an_action_takes_effect_in_the_last_step_of_its_duration(kind):
    world = World()
    world.blue_submits(1, kind, NO_HOST if kind == BlueAction.SLEEP else server(OZA))
    duration = BLUE_DURATION[kind]
    assert play(world, 2 * duration) == ([IN_PROGRESS] * (duration - 1) + [kind]) * 2


def test_submissions_of_a_busy_agent_are_lost():
    world = World()
    world.blue_submits(1, BlueAction.RESTORE, server(OZA))
    first = play(world, 1)
    world.blue_submits(1, BlueAction.DEPLOY_DECOY, server(OZA))
    assert first + play(world, 6) == [*[IN_PROGRESS] * 4, BlueAction.RESTORE, IN_PROGRESS, BlueAction.DEPLOY_DECOY]


@pytest.mark.parametrize("outside", [242, 289, -1, -223, 2**31 - 1, -(2**31)])
def test_indices_outside_the_table_are_sleep_and_free(outside):
    """None of them stands for another index."""
    after = World(servers=6, users=10)
    after.actions[:] = outside
    after = after.step()
    assert after.info.executed.tolist() == [BlueAction.SLEEP] * 5
    assert after.state.blue.action.tolist() == SLEEP_INDEX and after.reward == 0


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64, jnp.int8, jnp.uint32])
def test_indices_of_any_integer_type(kind):
    values = (np if kind.__module__ == "numpy" else jnp).array([1, 2, 3, 4, 100], kind)
    assert checks.check_integers("action", values, (5,)).tolist() == [1, 2, 3, 4, 100]


def test_large_indices_do_not_become_small_ones():
    large = np.array([2**32 + 5, 2**63, 7], np.uint64)
    assert checks.check_integers("action", large, (3,)).tolist() == [-1, -1, 7]


@pytest.mark.parametrize("values", [np.zeros(4, int), np.zeros((5, 1), int), np.zeros(5), [True] * 5, 3, ["a"] * 5])
def test_other_shapes_and_types_are_refused(values):
    with pytest.raises((ValueError, TypeError), match=r"action must be integers of shape \(5,\)|not a valid JAX"):
        checks.check_integers("action", values, (5,))


def test_only_messages_may_be_booleans():
    assert checks.check_integers("messages", np.eye(5, 8) > 0, (5, 8), bits=True).sum() == 5


def test_masked_and_padded_indices_are_sleep_and_free():
    """Neither takes more than a step nor costs anything."""
    world = World(servers=3, users=4)
    world.actions[:] = [
        index_of(0, BlueAction.RESTORE, server(RZA, 3)),
        index_of(1, BlueAction.ANALYSE, user(OZA, 4)),
        241,
        82,
        index_of(4, BlueAction.RESTORE, server(OFF, 5)),
    ]
    after = world.step()
    assert after.info.executed.tolist() == [BlueAction.SLEEP] * 5
    assert after.reward == 0


@pytest.mark.parametrize("kind", [k for k in RedAction if k not in (RedAction.SLEEP, RedAction.WITHDRAW)])
def test_red_is_busy_for_the_duration(kind):
    world = World()
    host = server(OZA)
    world.session(2, host)
    world.red_chooses(2, kind, host)
    ticks = []
    for _ in range(RED_DURATION[kind]):
        world.state = world.step().state
        ticks.append(int(world.state.red.queue.ticks[2]))
    assert ticks == [*range(RED_DURATION[kind] - 1, -1, -1)]


def test_an_inactive_red_agent_sleeps_whatever_is_chosen_for_it():
    world = World()
    world.red_chooses(2, RedAction.EXPLOIT_REMOTE_SERVICE, server(OZA))
    after = world.step()
    assert after.state.red.queue.action[2] == RedAction.SLEEP and after.state.red.queue.ticks[2] == 0


def test_an_action_whose_session_is_gone_before_the_step_is_dropped_q7():
    """Waiting for it took its whole duration; one killed by blue in the very step still lets it run and fail."""
    dropped, failed = World(), World()
    for world in (dropped, failed):
        world.session(2, server(OZA, 1), id=1)
        world.session(2, server(OZA), id=0, root=True)
        world.red_does(2, RedAction.DEGRADE_SERVICES, server(OZA), session=5)
    failed.session(2, server(OZA, 2), id=5)
    failed.blue_does(BlueAction.RESTORE, server(OZA, 2))
    dropped, failed = run([dropped, failed])
    assert dropped.reliability(server(OZA)) == 100
    assert failed.reliability(server(OZA)) == 80, "DegradeServices needs no live session, only not to be dropped (Q38)"
    assert dropped.state.red.queue.ticks[2] == failed.state.red.queue.ticks[2] == 0


def test_the_queue_of_an_agent_without_sessions_runs_on_q25():
    world = World()
    world.red_does(2, RedAction.EXPLOIT_REMOTE_SERVICE, server(OZA), ticks=2)
    first = world.step()
    assert first.state.red.queue.ticks[2] == 1 and first.state.red.queue.action[2] == RedAction.EXPLOIT_REMOTE_SERVICE


def test_hosts_of_the_table_are_the_agents_own():
    for agent in range(5):
        hosts = ACTION_TABLE[agent, :, 1]
        hosts = set(hosts[hosts != NO_HOST].tolist())
        assert hosts == set(range((agent + 1) * 16, NUM_HOSTS if agent == 4 else (agent + 2) * 16))
