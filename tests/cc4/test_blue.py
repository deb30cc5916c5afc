"""Blue's actions on hosts and traffic."""

import numpy as np
import pytest
from worlds import OFF, OZA, RZA, World, assert_frequencies, index_of, run, sample, server, user

from purecc4.envs.cc4.constants import (
    MAX_RECREATED,
    MAX_SUSPICIOUS_ORPHANS,
    BlueAction,
    Decoy,
    Knowledge,
    Port,
    RedAction,
    Service,
)

HOST = server(OZA)
OWNER = 2


def held_by_red(**session):
    """A world where red has a harmless first session elsewhere in the zone and one on HOST with id 1."""
    world = World()
    world.session(OWNER, server(OZA, 1), id=0)
    world.session(OWNER, HOST, id=1, **session)
    return world


# Remove


def test_remove_kills_an_exploits_session_by_the_pid_blue_noted():
    world = held_by_red(abstract=False, pid=7)
    world.suspect(HOST, 7)
    world.blue_does(BlueAction.REMOVE, HOST)
    after = world.step()
    assert after.sessions_on(HOST) == set()
    assert after.suspicious_pids(HOST) == [7], "the list is never cleared (Q29)"


def test_remove_cannot_kill_what_blue_has_not_noted():
    world = held_by_red(abstract=True, pid=7)  # as phishing leaves it: no alert, no note
    world.suspect(HOST, 6, 8)
    world.blue_does(BlueAction.REMOVE, HOST)
    assert world.step().sessions_on(HOST) == {1}


def test_remove_spares_root_sessions_q30():
    world = held_by_red(root=True, pid=7)
    world.suspect(HOST, 7)
    world.blue_does(BlueAction.REMOVE, HOST)
    assert world.step().sessions_on(HOST) == {1}


def test_remove_kills_a_phished_session_that_got_an_old_pid_again_q29():
    world = held_by_red(abstract=True, pid=7)
    world.suspect(HOST, 3, 7)
    world.blue_does(BlueAction.REMOVE, HOST)
    assert world.step().sessions_on(HOST) == set()


def test_remove_touches_no_other_host():
    world = held_by_red(abstract=False, pid=7)
    world.suspect(HOST, 7)
    world.blue_does(BlueAction.REMOVE, server(OZA, 1))
    assert world.step().sessions_on(HOST) == {1}


def test_remove_acts_on_the_notes_of_steps_before():
    world = World()
    world.session(OWNER, server(OZA, 1))
    world.remember(OWNER, HOST, id=0)
    world.red_does(OWNER, RedAction.EXPLOIT_REMOTE_SERVICE, HOST)
    world.blue_does(BlueAction.REMOVE, HOST)
    after = world.step()
    assert after.sessions_on(HOST) == {1}
    assert after.suspicious_pids(HOST) == [after.sessions(OWNER)[1].pid]


def test_remove_recreates_a_decoy_whose_pid_is_noted():
    world = World()
    world.decoy(HOST, Decoy.TOMCAT, pid=4, reliability=60)
    world.decoy(HOST, Decoy.HARAKA, pid=2)
    world.suspect(HOST, 4)
    world.blue_does(BlueAction.REMOVE, HOST)
    world.draw("recreated_pid", 0, 0.99)
    after = world.step()
    assert after.decoys(HOST) == {Decoy.TOMCAT: 2 + 9, Decoy.HARAKA: 2}
    assert after.decoy_reliability(HOST)[Decoy.TOMCAT] == 60


@pytest.mark.parametrize(("notes", "pid"), [((9, 4), 0 + 1), ((4, 9), 9 + 1)])
def test_remove_walks_the_notes_in_order(notes, pid):
    """A session killed before the decoy comes back no longer counts for its new pid; one killed after it does."""
    world = held_by_red(abstract=False, pid=9)
    world.decoy(HOST, Decoy.TOMCAT, pid=4)
    world.suspect(HOST, *notes)
    world.blue_does(BlueAction.REMOVE, HOST)
    world.draw("recreated_pid", 0, 0)
    after = world.step()
    assert after.decoys(HOST) == {Decoy.TOMCAT: pid}
    assert after.sessions_on(HOST) == set()


@pytest.mark.parametrize(("notes", "pid"), [((9, 4), 0 + 1), ((4, 9), 9 + 1)])
def test_left_over_processes_die_in_the_order_of_the_notes_too(notes, pid):
    world = World()
    world.decoy(HOST, Decoy.TOMCAT, pid=4)
    world.suspect(HOST, *notes)
    world.orphan(HOST, 9)
    world.blue_does(BlueAction.REMOVE, HOST)
    world.draw("recreated_pid", 0, 0)
    after = world.step()
    assert after.decoys(HOST) == {Decoy.TOMCAT: pid} and after.orphans(HOST) == []


def test_remove_meets_a_recreated_decoy_again():
    world = World()
    world.decoy(HOST, Decoy.TOMCAT, pid=1)
    world.suspect(HOST, 1, 2, 3)
    world.blue_does(BlueAction.REMOVE, HOST)
    for turn, pid in enumerate((2, 3, 5)):
        world.draw("recreated_pid", turn, (pid - 0.5) / 9)
    after = world.step()
    assert after.decoys(HOST) == {Decoy.TOMCAT: 5}
    assert after.state.overflow == 0


def test_a_decoy_recreated_more_often_than_there_is_room_for_is_counted():
    """It comes back with the very pid that the next note names, each time."""
    fits, overflows = World(), World()
    for world, count in ((fits, MAX_RECREATED), (overflows, MAX_RECREATED + 1)):
        world.decoy(HOST, Decoy.TOMCAT, pid=1)
        world.suspect(HOST, *range(1, count + 1))
        world.blue_does(BlueAction.REMOVE, HOST)
        for turn in range(MAX_RECREATED):
            world.draw("recreated_pid", turn, (turn + 1.5) / 9)
    fits, overflows = run([fits, overflows])
    assert fits.decoys(HOST) == {Decoy.TOMCAT: MAX_RECREATED + 1} and fits.state.overflow == 0
    assert overflows.state.overflow == 1


def test_remove_kills_left_over_processes_whose_pid_is_noted():
    world = World()
    world.suspect(HOST, 3)
    world.orphan(HOST, 3)
    world.orphan(HOST, 5)
    world.blue_does(BlueAction.REMOVE, HOST)
    assert world.step().orphans(HOST) == [5]


# Restore


def test_restore_takes_all_but_blues_notes_and_reds_memories():
    world = held_by_red(root=True, pid=7)
    world.session(OWNER, HOST, id=2, abstract=False, pid=8)
    world.remember(OWNER, HOST, 0, Port.HTTP)
    world.remember(OWNER, server(OZA, 2), 2)
    world.decoy(HOST, Decoy.VSFTPD, pid=4, reliability=20)
    world.suspect(HOST, 3, 7)
    world.orphan(HOST, 3)
    world.orphan(HOST, 2)
    world.wear(HOST, 40)
    world.stop_ot(HOST)
    world.blue_does(BlueAction.RESTORE, HOST)
    after = world.step()
    assert after.sessions_on(HOST) == set()
    assert after.decoys(HOST) == {} and after.orphans(HOST) == []
    assert after.reliability(HOST) == 100 and not after.ot_stopped(HOST)
    assert after.suspicious_pids(HOST) == [3, 7]  # Q29
    assert after.memory(OWNER, HOST, 0) == {Port.SCANNED, Port.HTTP}
    assert after.memory(OWNER, server(OZA, 2), 2) == set(), "a dead session remembers nothing"
    assert after.known(OWNER) == {0, 1}, "nor are ids forgotten (Q6)"


def test_pids_start_over_after_restore():
    world = held_by_red(pid=90)
    world.blue_does(BlueAction.RESTORE, HOST)
    world.remember(OWNER, HOST, 0)
    world.red_does(OWNER, RedAction.EXPLOIT_REMOTE_SERVICE, HOST, session=0)
    world.draw("session_pid", OWNER, 0)
    assert world.step().sessions(OWNER)[1].pid == 1


def test_a_host_can_be_phished_in_the_step_of_its_restore_q28():
    host = user(OZA)
    world = World()
    world.session(OWNER, server(OZA, 1))
    world.session(OWNER, host, id=1, root=True, pid=7)
    world.learn(OWNER, host, Knowledge.R)
    world.blue_does(BlueAction.RESTORE, host)
    world.phish(host)
    after = world.step()
    assert not after.sessions(OWNER)[1].root
    assert after.knowledge(OWNER, host) == Knowledge.R


def test_restore_hides_no_alert_of_its_step_q33():
    world = held_by_red()
    world.red_does(OWNER, RedAction.AGGRESSIVE_SERVICE_DISCOVERY, HOST)
    world.draw("detection", OWNER, 0)
    world.blue_does(BlueAction.RESTORE, HOST)
    after = world.step()
    assert after.sessions_on(HOST) == set() and after.alerts()["connection"] == {HOST}


def test_five_restores_at_once():
    world = World()
    hosts = [server(zone) for zone in range(1, 6)]
    for zone, host in enumerate(hosts, start=1):
        world.session(zone, host, id=0)
        world.blue_does(BlueAction.RESTORE, host)
    after = world.step()
    assert all(after.sessions_on(host) == set() for host in hosts)
    assert after.sessions(0)[0].host == world.red_start, "blue cannot restore the contractor network"


# DeployDecoy


def deploying(services=()):
    world = World(services=[(service, HOST) for service in services])
    world.blue_does(BlueAction.DEPLOY_DECOY, HOST)
    return world


@pytest.mark.parametrize(
    ("services", "decoys", "possible"),
    [
        ((), (), (Decoy.APACHE, Decoy.TOMCAT, Decoy.HARAKA, Decoy.VSFTPD)),
        ((Service.MYSQL,), (), (Decoy.APACHE, Decoy.TOMCAT, Decoy.HARAKA, Decoy.VSFTPD)),
        ((Service.APACHE,), (), (Decoy.TOMCAT, Decoy.HARAKA, Decoy.VSFTPD)),
        ((Service.SMTP,), (), (Decoy.APACHE, Decoy.TOMCAT, Decoy.VSFTPD)),
        ((), (Decoy.APACHE,), (Decoy.TOMCAT, Decoy.HARAKA, Decoy.VSFTPD)),
        ((), (Decoy.VSFTPD,), (Decoy.TOMCAT, Decoy.HARAKA, Decoy.VSFTPD)),
        ((Service.APACHE, Service.SMTP), (Decoy.TOMCAT,), (Decoy.VSFTPD,)),
    ],
)
def test_one_of_the_compatible_decoys_is_deployed_uniformly(services, decoys, possible):
    world = deploying(services)
    for kind in decoys:
        world.decoy(HOST, kind)
    pids = sample(world, rounds=8)[1].decoy_pid[:, :, HOST]
    new = pids > (1 if decoys else 0)
    assert (new.sum(axis=1) == 1).all()
    assert_frequencies(new.sum(axis=0), [(kind in possible) / len(possible) for kind in Decoy])


def test_a_left_over_vsftpd_keeps_port_80():
    world = deploying((Service.SMTP,))
    world.decoy(HOST, Decoy.TOMCAT)
    world.orphan(HOST, 3)
    assert set(world.step().decoys(HOST)) == {Decoy.TOMCAT, Decoy.VSFTPD}


def test_vsftpd_can_be_deployed_again_and_leaves_its_process_behind_q15_q47():
    world = deploying((Service.APACHE, Service.SMTP))
    world.decoy(HOST, Decoy.TOMCAT, pid=2)
    world.decoy(HOST, Decoy.VSFTPD, pid=5, reliability=20)
    world.draw("decoy_pid", 1, 0)
    after = world.step()
    assert after.decoys(HOST)[Decoy.VSFTPD] == 5 + 1
    assert after.orphans(HOST) == [5]
    assert after.decoy_reliability(HOST)[Decoy.VSFTPD] == 100


def test_left_over_processes_that_blue_suspects_are_kept_apart_up_to_a_bound():
    world = deploying((Service.APACHE, Service.SMTP))
    world.decoy(HOST, Decoy.TOMCAT, pid=2)
    world.decoy(HOST, Decoy.VSFTPD, pid=20)
    old = list(range(3, 3 + MAX_SUSPICIOUS_ORPHANS))
    world.suspect(HOST, *old, 20)
    for pid in old[:-1]:
        world.orphan(HOST, pid)
    crowded = world.copy()
    crowded.orphan(HOST, old[-1])
    roomy, full = run([world, crowded])
    assert roomy.orphans(HOST) == [*old[:-1], 20] and roomy.state.overflow == 0
    assert full.orphans(HOST) == [*old, 20] and full.state.overflow == 1


def test_new_pids_lie_1_to_9_above_the_largest():
    world = deploying()
    world.decoy(HOST, Decoy.HARAKA, pid=11)
    world.session(OWNER, HOST, pid=20)
    world.draw("decoy", Decoy.TOMCAT, 0.999)
    pids = sample(world, rounds=8)[1].decoy_pid[:, Decoy.TOMCAT, HOST]
    assert_frequencies(np.bincount(pids - 21, minlength=9), np.full(9, 1 / 9))


# the rest


@pytest.mark.parametrize("kind", [BlueAction.ANALYSE, BlueAction.REMOVE])
def test_nothing_to_remove_and_analyse_change_nothing_q34(kind):
    world = held_by_red(pid=7)
    world.decoy(HOST, Decoy.TOMCAT, pid=2)
    world.blue_does(kind, HOST)
    after = world.step()
    assert after.sessions(OWNER) == world.sessions(OWNER)
    assert after.decoys(HOST) == world.decoys(HOST)


def test_monitor_and_sleep_change_nothing_q34():
    world = held_by_red(pid=7)
    world.blue_submits(1, BlueAction.MONITOR)
    after = world.step()
    assert after.sessions(OWNER) == world.sessions(OWNER)
    assert after.info.executed.tolist() == [BlueAction.SLEEP, BlueAction.MONITOR, *[BlueAction.SLEEP] * 3]


def test_blocks_are_added_once_and_taken_away_once():
    world = World()
    world.block(OFF, RZA)
    world.block(RZA, OFF)
    block, again, allow, absent = (world.copy() for _ in range(4))
    block.blue_submits(0, BlueAction.BLOCK_TRAFFIC_ZONE, to=RZA, source=OZA)
    again.blue_submits(0, BlueAction.BLOCK_TRAFFIC_ZONE, to=RZA, source=OFF)
    allow.blue_submits(4, BlueAction.ALLOW_TRAFFIC_ZONE, to=OFF, source=RZA)
    absent.blue_submits(4, BlueAction.ALLOW_TRAFFIC_ZONE, to=OFF, source=OZA)
    blocks = [after.blocks() for after in run([block, again, allow, absent])]
    assert blocks == [{(OFF, RZA), (RZA, OFF), (RZA, OZA)}, {(OFF, RZA), (RZA, OFF)}, {(RZA, OFF)}, world.blocks()]


def test_every_agent_edits_the_blocks_of_its_own_zones():
    world = World()
    for agent in range(5):
        world.actions[agent] = index_of(agent, BlueAction.BLOCK_TRAFFIC_ZONE, to=agent + 1, source=0)
    assert world.step().blocks() == {(zone, 0) for zone in range(1, 6)}
