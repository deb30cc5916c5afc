"""Green users: what they choose, work, visits and phishing mails."""

import numpy as np
import pytest
from worlds import (
    ADM,
    CON,
    CONNECTION,
    OFF,
    OZA,
    OZB,
    PAZ,
    PROCESS,
    RZA,
    RZB,
    World,
    alerts_on,
    assert_frequencies,
    assert_rate,
    count_alerts,
    decide,
    green_on,
    index_of,
    red_of,
    run,
    sample,
    server,
    user,
)

from purecc4.envs.cc4 import make_params
from purecc4.envs.cc4.constants import (
    GREEN_HOST,
    GREEN_SUBNET,
    HOST_SUBNET,
    NUM_HOSTS,
    BlueAction,
    Decoy,
    GreenAction,
    Knowledge,
    Service,
)

WORK, ACCESS, SLEEP = GreenAction.LOCAL_WORK, GreenAction.ACCESS_SERVICE, GreenAction.SLEEP
ZONES = (CON, RZA, OZA, RZB, OZB, ADM, OFF, PAZ)
HQ = {PAZ, ADM, OFF}
VISITED = {
    RZA: [{RZA, *HQ, CON, OZA, RZB}, {RZA, *HQ}, {RZA, *HQ, CON, OZA}],
    OZA: [{OZA, RZA}, {OZA}, {OZA, RZA}],
    RZB: [{RZB, *HQ, CON, RZA, OZB}, {RZB, *HQ, CON, OZB}, {RZB, *HQ}],
    OZB: [{OZB, RZB}, {OZB, RZB}, {OZB}],
    CON: [{CON, *HQ, RZA, RZB}, {CON, *HQ, RZB}, {CON, *HQ, RZA}],
    **{zone: [{zone, CON, RZA, RZB}] * 3 for zone in HQ},
}
"""[own zone][phase]: `EnterpriseScenarioGenerator.py:_set_allowed_subnets_per_mission_phase`, both ways."""
QUIET_ZONES = [user(zone, slot) for zone in ZONES[1:] for slot in range(4)]


def everyone(kind, visits=0, **kw):
    """All users do the same."""
    world = World(**kw)
    for zone in ZONES:
        for slot in range(4):
            world.green_does(user(zone, slot), kind, visits)
    return world


# choices


def test_one_of_three_things_uniformly():
    choices = decide(World(), make_params("fsm").red, green_action=1)
    for kind in GreenAction:
        assert np.abs((choices.green_action == kind).sum(axis=0) - 256 / 3).max() < 1


@pytest.mark.parametrize("phase", range(3))
def test_any_server_of_the_allowed_zones_is_visited_alike(phase):
    counts = [1, 2, 3, 4, 5, 6, 1, 2]
    world = World(servers=counts, step=(0, 167, 334)[phase])
    choices = decide(world, make_params("fsm").red, rounds=4, green_outcome=1)
    for zone in ZONES:
        allowed = [server(to, i) for to in VISITED[zone][phase] for i in range(counts[to])]
        visits = choices.green_server[:, green_on(user(zone))]
        seen = np.bincount(visits, minlength=NUM_HOSTS)
        assert set(np.flatnonzero(seen)) == set(allowed)
        assert np.abs(seen[allowed] - 1024 / len(allowed)).max() <= 1


# local work


@pytest.mark.parametrize(
    ("host", "services", "reliability", "decoys", "ot_stopped", "rate"),
    [
        (user(RZA), (), 100, {}, False, 0.0),
        (user(RZA), (), 80, {}, False, 0.2),
        (user(RZA), (Service.MYSQL, Service.SMTP), 40, {}, False, 0.6),
        (user(RZA), (), 0, {}, False, 1.0),
        (user(RZA), (), 0, {Decoy.TOMCAT: 100}, False, 1 / 2),  # decoys are used, too (Q17)
        (user(RZA), (Service.APACHE,), 60, {Decoy.TOMCAT: 100, Decoy.VSFTPD: 0}, False, (0.4 * 2 + 1) / 4),
        (user(OZA), (), 40, {Decoy.HARAKA: 100}, False, 0.6 * 2 / 3),
        (user(OZA), (), 40, {Decoy.HARAKA: 100}, True, 0.6 / 2),  # OTService is not picked while it is stopped
    ],
)
def test_work_fails_with_the_lost_reliability_of_a_random_active_service(
    host, services, reliability, decoys, ot_stopped, rate
):
    below, above = worlds = [World(services=[(service, host) for service in services]) for _ in range(2)]
    for world in worlds:
        world.green_does(host, WORK)
        world.wear(host, reliability)
        if ot_stopped:
            world.stop_ot(host)
        for kind, reliable in decoys.items():
            world.decoy(host, kind, reliability=reliable)
    below.draw("green_outcome", green_on(host), max(rate - 1e-4, 0))
    above.draw("green_outcome", green_on(host), min(rate + 1e-4, 0.9999))
    failed = [after.info.rewards.lwf < 0 for after in run(worlds)]
    assert failed == [rate > 0, rate == 1]


def test_failed_work_raises_no_alarm_and_opens_no_mail_q4():
    host = user(RZA)
    world = World()
    world.phish(host)
    world.draw("green_alarm", green_on(host), 0)
    failing = world.copy()
    failing.wear(host, 0)
    worked, failed = run([world, failing])
    assert worked.process_alert(host) and worked.sessions_on(host)
    assert not failed.process_alert(host) and not failed.sessions_on(host)


def test_users_and_servers_that_do_not_exist_do_nothing():
    world = World(users=4)
    for host in (user(RZA, 4), user(OFF, 9)):
        world.green_does(host, WORK)
        world.wear(host, 0)
        world.draw("green_phishing", green_on(host), 0)
    after = world.step()
    assert after.reward == 0 and not after.sessions_on(user(RZA, 4))


def test_false_alarms_of_work_come_at_one_in_a_hundred():
    world = everyone(WORK)
    world.draw("green_phishing", slice(None), 0.5)
    flat = sample(world, rounds=20)[0].flat
    process = np.stack([alerts_on(flat, host, PROCESS) for host in QUIET_ZONES])
    assert_rate(process, 0.01)
    assert process.sum() == count_alerts(flat)


# phishing


def test_mails_are_opened_at_one_in_a_hundred_but_not_where_red_is_q5():
    world = everyone(WORK)
    view = sample(world, rounds=20)[1]
    new = view.held
    assert ((view.session_host == world.red_start).sum(axis=(1, 2)) == 1).all()
    users = [host for host in GREEN_HOST if HOST_SUBNET[host] in ZONES and host % 16 < 10 and host != world.red_start]
    assert_rate(new[:, users], 0.01)
    pids = view.largest_pid[:, users][new[:, users]]
    assert_frequencies(np.bincount(pids - 1, minlength=9), np.full(9, 1 / 9))


def test_a_phished_session_is_abstract_plain_user_without_alert_or_note():
    host = user(OZA)
    world = World()
    world.session(2, server(OZA))
    world.decoy(host, Decoy.TOMCAT, pid=12)
    world.phish(host)
    after = world.step()
    assert after.sessions(2)[1] == (host, True, False, 13)
    assert after.alerts() == {"process": set(), "connection": set()}
    assert after.suspicious_pids(host) == []
    assert after.known(2) == {0, 1}
    assert after.knowledge(2, host) == Knowledge.K


@pytest.mark.parametrize("zone", ZONES[1:])
def test_phishing_in_a_zone_without_red_wakes_its_owner_q24(zone):
    """The session visits agent 0, the only one there is, and ends with the owner, as its number 0."""
    host = user(zone, 2)
    world = World()
    world.phish(host)
    after = world.step()
    owner = red_of(host)
    assert set(after.sessions(owner)) == {0} and set(after.sessions(0)) == {0}
    assert after.known(owner) == {0} and after.known(0) == {0}
    assert after.knowledge(owner, host) == Knowledge.U
    assert not after.state.red.first_call[owner]


# access


@pytest.mark.parametrize(
    ("block", "fails"),
    [(None, False), ((OFF, RZA), True), ((RZA, OFF), True), ((OFF, RZB), False), ((RZA, ADM), False)],
)
def test_access_fails_where_either_direction_is_blocked(block, fails):
    world = World()
    world.green_does(user(RZA), ACCESS, server(OFF, 1))
    if block:
        world.block(*block)
    after = world.step()
    assert after.alerts() == {"process": set(), "connection": {server(OFF, 1)} if fails else set()}
    assert after.info.rewards.asf == (-3 if fails else 0), "by the zone of the user (Q50)"


def test_a_block_of_this_step_already_counts():
    world = World()
    world.green_does(user(RZA), ACCESS, server(OFF))
    world.actions[0] = index_of(0, BlueAction.BLOCK_TRAFFIC_ZONE, to=RZA, source=OFF)
    assert world.step().info.rewards.asf == -3
    world.block(RZA, OFF)
    world.actions[0] = index_of(0, BlueAction.ALLOW_TRAFFIC_ZONE, to=RZA, source=OFF)
    assert world.step().info.rewards.asf == 0


def test_access_within_a_zone_cannot_be_blocked():
    world = World()
    world.state.blocked[...] = ~np.eye(9, dtype=bool)
    world.green_does(user(OFF), ACCESS, server(OFF))
    assert world.step().info.rewards.asf == 0


def test_access_does_not_care_for_services_q3():
    world = World()
    world.green_does(user(OZA), ACCESS, server(OZA))
    world.wear(server(OZA), 0)
    world.stop_ot(server(OZA))
    world.draw("green_outcome", slice(None), 0)
    assert world.step().reward == 0


def test_false_alarms_of_access_come_at_one_in_a_hundred_on_the_server():
    world = everyone(ACCESS, visits=server(OFF, 2))
    for zone in ZONES[1:]:  # only contractors visit
        for slot in range(4):
            world.green_does(user(zone, slot), SLEEP)
    flat = sample(world, rounds=20)[0].flat
    seen = alerts_on(flat, server(OFF, 2), CONNECTION)
    assert_rate(seen, 1 - 0.99**4)
    assert count_alerts(flat) == seen.sum()


def test_sleeping_users_do_nothing():
    world = everyone(SLEEP)
    world.draw("green_alarm", slice(None), 0)
    world.draw("green_phishing", slice(None), 0)
    for host in QUIET_ZONES:
        world.wear(host, 0)
    after = world.step()
    assert after.reward == 0 and after.alerts() == {"process": set(), "connection": set()}
    assert (HOST_SUBNET[GREEN_HOST] == GREEN_SUBNET).all()
