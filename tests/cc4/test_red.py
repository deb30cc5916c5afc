"""Red's actions: scans, exploits, escalation, Impact and DegradeServices, with their quirks (envs/cc4/QUIRKS.md)."""

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
    green_on,
    run,
    sample,
    server,
    user,
)

from purecc4.envs.cc4.constants import BlueAction, Decoy, Exploit, GreenAction, Knowledge, Port, RedAction, Service

DRS, AGGRESSIVE, STEALTH, DECEPTION, EXPLOIT, ESCALATE, IMPACT, DEGRADE = list(RedAction)[:8]
QUIET = {"process": set(), "connection": set()}
RED = 2  # owner of OZA
SOURCE, TARGET = server(OZA), user(OZA, 1)


def at_work(kind, host=TARGET, services=(), session=0, **kw):
    """Red agent 2 holds its abstract session 0 on SOURCE and its action takes effect now."""
    world = World(services=services, **kw)
    world.session(RED, SOURCE, id=0)
    world.red_does(RED, kind, host, session)
    return world


def killed(world, host=SOURCE, id=0):
    """Blue restores the acting session's host in this very step: red's action is not dropped, but fails."""
    world = world.copy()
    world.session(RED, server(OZA, 2), id=20)  # so that the agent is still there
    world.blue_does(BlueAction.RESTORE, host)
    return world


def plain(world):
    """The acting session is an exploit's shell (Q8, Q9)."""
    world = world.copy()
    world.session(RED, SOURCE, id=0, abstract=False)
    return world


# DiscoverRemoteSystems


def test_a_sweep_finds_all_hosts_of_the_subnet_unseen():
    world = at_work(DRS)
    dead, shell = killed(world), plain(world)
    after, dead, shell = run([world, dead, shell])
    everything = [host for host in range(server(OZA), server(RZB)) if world.state.scenario.exists[host]]
    for swept in (after, shell):
        assert all(swept.knowledge(RED, host) == Knowledge.K for host in everything)
        assert swept.knowledge(RED, user(OZA, 9)) == Knowledge.UNKNOWN, "there is no such host"
        assert swept.alerts() == QUIET
    assert dead.knowledge(RED, TARGET) == Knowledge.UNKNOWN


def test_a_sweep_goes_through_a_block_q21():
    world = World()
    world.session(5, server(ADM))
    world.block(OFF, ADM)
    scanning = world.copy()
    scanning.red_does(5, AGGRESSIVE, server(OFF))
    world.red_does(5, DRS, server(ADM))
    world.choices.red_subnet[5] = OFF
    swept, scanned = run([world, scanning])
    assert swept.knowledge(5, server(OFF, 1)) == Knowledge.K
    assert not scanned.memory(5, server(OFF), 0), "a scan does not"


def test_a_sweep_hits_the_subnet_that_was_drawn_not_the_hosts_q23():
    world = World()
    world.session(5, server(PAZ))
    world.red_does(5, DRS, server(PAZ))
    world.choices.red_subnet[5] = OFF
    after = world.step()
    assert after.knowledge(5, server(OFF, 1)) == Knowledge.K
    assert after.knowledge(5, server(PAZ, 1)) == Knowledge.UNKNOWN


# scans


@pytest.mark.parametrize(("kind", "rate"), [(AGGRESSIVE, 0.75), (STEALTH, 0.25)])
def test_scans_are_seen_at_their_rate(kind, rate):
    flat = sample(at_work(kind), rounds=8)[0].flat
    seen = alerts_on(flat, TARGET, CONNECTION)
    assert_rate(seen, rate)
    assert count_alerts(flat) == seen.sum(), "there is no other alert"


@pytest.mark.parametrize("decoy", [*Decoy, "orphan"])
@pytest.mark.parametrize("kind", [AGGRESSIVE, STEALTH])
def test_any_decoy_makes_every_scan_visible_and_its_port_is_remembered_q18(decoy, kind):
    world = at_work(kind)
    if decoy == "orphan":
        world.orphan(TARGET, 3)
    else:
        world.decoy(TARGET, decoy)
    world.draw("detection", RED, 0.999)
    after = world.step()
    port = {Decoy.TOMCAT: Port.HTTPS, Decoy.HARAKA: Port.SMTP}.get(decoy, Port.HTTP)
    assert after.alerts() == {"process": set(), "connection": {TARGET}}
    assert after.memory(RED, TARGET, 0) == {Port.SCANNED, port}


def test_a_scan_overwrites_what_the_session_remembered():
    world = at_work(AGGRESSIVE)
    world.remember(RED, TARGET, 0, Port.HTTP, Port.HTTPS)
    world.remember(RED, TARGET, 7, Port.HTTP)
    world.decoy(TARGET, Decoy.HARAKA)
    after = world.step()
    assert after.memory(RED, TARGET, 0) == {Port.SCANNED, Port.SMTP}
    assert after.memory(RED, TARGET, 7) == {Port.SCANNED, Port.HTTP}, "memories are each session's own (Q10)"


def test_scans_fail_unseen_without_a_live_abstract_session_or_through_a_block():
    world = at_work(AGGRESSIVE)
    world.decoy(TARGET, Decoy.TOMCAT)
    dead, shell = killed(world), plain(world)
    abroad = at_work(AGGRESSIVE, server(RZA))
    abroad.decoy(server(RZA), Decoy.TOMCAT)
    blocked, other_way, transit = abroad.copy(), abroad.copy(), abroad.copy()
    blocked.block(RZA, OZA)
    other_way.block(OZA, RZA)
    transit.block(CON, OZA)
    results = run([world, dead, shell, abroad, blocked, other_way, transit])
    seen = [bool(after.alerts()["connection"]) for after in results]
    assert seen == [True, False, False, True, False, True, True]  # Q22: only the two ends, one direction
    hosts = [TARGET] * 3 + [server(RZA)] * 4
    memories = [bool(after.memory(RED, host, 0)) for after, host in zip(results, hosts, strict=True)]
    assert memories == seen


# exploits: selection

SSH, HTTP, HTTPS, SQL = Exploit
SELECTION = {  # w t m k: what is chosen from, uniformly
    "0000": [SSH],
    "0001": [SSH],
    "0010": [SSH],
    "0011": [SSH],
    "1000": [SSH],
    "1001": [SSH, HTTP],
    "0100": [SSH],
    "0101": [SSH, HTTPS],
    "1100": [SSH, HTTP],
    "1101": [SSH, HTTP, HTTPS],
    "1010": [SSH, HTTP],
    "1011": [SSH, HTTP, SQL],
    "0110": [SSH, HTTPS],
    "0111": [SSH, HTTPS, SQL],
    "1110": [SSH, HTTP, HTTPS],
    "1111": [SSH, HTTP, HTTPS, SQL],
}


@pytest.mark.parametrize("ports", SELECTION)
def test_any_but_the_best_exploit_is_chosen_uniformly_q11(ports):
    """Ports 80, 443, 3390, 25 are remembered or not. An Apache decoy tells HTTP from HTTPS by its alert; the alert
    on the source tells SSH from SQL."""
    w, t, m, k = (digit == "1" for digit in ports)
    world = at_work(EXPLOIT, services=[(Service.MYSQL, TARGET)] if m else [])
    remembered = [port for port, there in ((Port.HTTP, w), (Port.HTTPS, t), (Port.SMTP, k)) if there]
    world.remember(RED, TARGET, 0, *remembered)
    world.decoy(TARGET, Decoy.APACHE)
    world.draw("source_detection", RED, 0)
    obs, view, *_ = sample(world, rounds=3)
    opened = view.held[:, TARGET]
    on_target, on_source = (alerts_on(obs.flat, host, CONNECTION) == 1 for host in (TARGET, SOURCE))
    chosen = [opened & on_source, ~opened & on_target, ~opened & ~on_target, opened & ~on_source]
    expected = SELECTION[ports]
    assert_frequencies([flags.sum() for flags in chosen], [(e in expected) / len(expected) for e in Exploit])


@pytest.mark.parametrize(
    ("services", "remembered", "expected"),
    [
        ([Service.APACHE, Service.MYSQL], [], [SSH, HTTP]),
        ([Service.APACHE, Service.MYSQL], [Port.SMTP], [SSH, HTTP, SQL]),  # a Haraka decoy shields SQL (Q12)
        ([Service.APACHE, Service.MYSQL, Service.SMTP], [], [SSH, HTTP, SQL]),
        ([Service.MYSQL, Service.SMTP], [], [SSH]),
        ([Service.APACHE], [], [SSH]),
        ([Service.SMTP], [Port.HTTP], [SSH, HTTP]),
    ],
)
def test_genuine_services_are_found_by_any_scan(services, remembered, expected):
    world = at_work(EXPLOIT, services=[(service, TARGET) for service in services])
    world.remember(RED, TARGET, 0, *remembered)
    assert_rate(sample(world, rounds=2)[1].held[:, TARGET], sum(e in (SSH, SQL) for e in expected) / len(expected))


def only(world, exploit):
    """Make red choose this one among several."""
    world = world.copy()
    world.draw("exploit", exploit, 0.9)
    return world


def four_ways():
    """A host where all four exploits can be chosen: MySQL is genuine, the rest is remembered."""
    world = at_work(EXPLOIT, services=[(Service.MYSQL, TARGET)])
    world.remember(RED, TARGET, 0, Port.HTTP, Port.HTTPS, Port.SMTP)
    return world


# exploits: what they do


def test_ssh_brute_force_always_works_and_is_seen_at_both_ends_q14_q19():
    world = only(four_ways(), SSH)
    for kind in Decoy:
        world.decoy(TARGET, kind)
    world.session(RED, TARGET, id=1, pid=10)
    world.draw("session_pid", RED, 0.99)
    after = world.step()
    assert after.sessions(RED)[2] == (TARGET, False, False, 10 + 9)
    assert after.alerts() == {"process": {TARGET}, "connection": {SOURCE, TARGET}}
    assert after.suspicious_pids(TARGET) == [19]
    assert after.known(RED) == {0, 1}, "the ids of shells are not learned"


def test_the_source_of_ssh_is_seen_at_95_in_100():
    flat = sample(only(four_ways(), SSH), rounds=8)[0].flat
    assert_rate(alerts_on(flat, SOURCE, CONNECTION), 0.95)
    assert alerts_on(flat, TARGET, CONNECTION).all() and alerts_on(flat, TARGET, PROCESS).all()


def test_sql_injection_always_works_and_is_seen_at_95_in_100():
    obs, view, *_ = sample(only(four_ways(), SQL), rounds=8)
    seen = alerts_on(obs.flat, TARGET, PROCESS) == 1
    assert (view.session_host[:, RED, 1] == TARGET).all()
    assert_rate(seen, 0.95)
    assert ((view.suspicious_pid[:, 0, TARGET] > 0) == seen).all(), "blue records the pid only with an alert"
    assert count_alerts(obs.flat) == seen.sum(), "there is no other alert"


@pytest.mark.parametrize(
    ("exploit", "services", "decoys", "seen"),
    [
        (HTTP, [], [], False),
        (HTTP, [], [Decoy.APACHE], True),
        (HTTP, [], [Decoy.VSFTPD], True),
        (HTTP, [], ["orphan"], True),
        (HTTP, [Service.APACHE], [Decoy.VSFTPD], False),  # Q16
        (HTTP, [], [Decoy.TOMCAT, Decoy.HARAKA], False),
        (HTTPS, [], [], False),
        (HTTPS, [Service.APACHE], [Decoy.TOMCAT], True),
        (HTTPS, [], [Decoy.APACHE, Decoy.VSFTPD, Decoy.HARAKA], False),
    ],
)
def test_file_inclusions_fail_and_are_seen_by_decoys_only_q13(exploit, services, decoys, seen):
    world = at_work(EXPLOIT, services=[(service, TARGET) for service in (*services, Service.MYSQL)])
    world.remember(RED, TARGET, 0, Port.HTTP, Port.HTTPS, Port.SMTP)
    world = only(world, exploit)
    for kind in decoys:
        if kind == "orphan":
            world.orphan(TARGET, 2)
        else:
            world.decoy(TARGET, kind)
    after = world.step()
    assert after.sessions_on(TARGET) == set()
    assert after.alerts() == {"process": set(), "connection": {TARGET} if seen else set()}


def test_exploits_fail_unseen_without_their_preconditions():
    world = at_work(EXPLOIT)
    world.remember(RED, TARGET, 0)
    forgetful = at_work(EXPLOIT)
    forgetful.session(RED, server(OZA, 1), id=1)
    forgetful.remember(RED, TARGET, 1)  # another session has scanned (Q10)
    abroad = at_work(EXPLOIT, server(RZA))
    abroad.remember(RED, server(RZA), 0)
    blocked, other_way = abroad.copy(), abroad.copy()
    blocked.block(RZA, OZA)
    other_way.block(OZA, RZA)
    results = run([world, killed(world), plain(world), forgetful, abroad, blocked, other_way])
    done = [bool(after.alerts()["process"]) for after in results]
    assert done == [True, False, False, False, True, False, True]
    assert all(after.alerts() == QUIET for after, d in zip(results, done, strict=True) if not d)


def test_a_session_with_a_dead_ones_id_has_not_scanned():
    """Blue kills the acting session; a mail opened in the same step gives its id to a new one."""
    host = user(OZA, 3)
    world = at_work(EXPLOIT, session=1)
    world.session(RED, host, id=1)
    world.remember(RED, TARGET, 1)
    world.blue_does(BlueAction.RESTORE, host)
    world.phish(host)
    after = world.step()
    assert after.sessions_on(host) == {1}
    assert after.sessions_on(TARGET) == set() and after.memory(RED, TARGET, 1) == set()


def test_exploiting_ones_own_source():
    world = at_work(EXPLOIT, SOURCE)
    world.remember(RED, SOURCE, 0)
    after = world.step()
    assert after.sessions_on(SOURCE) == {0, 1}


def test_exploits_of_one_host_in_one_step_take_pids_in_the_order_of_the_agents():
    """Blue records them in this order."""
    host = server(RZA)
    world = World()
    for agent, source in ((0, world.red_start), (1, server(RZA, 1)), (2, SOURCE)):
        if agent:
            world.session(agent, source, id=0)
        world.remember(agent, host, 0)
        world.red_does(agent, EXPLOIT, host)
        world.draw("session_pid", agent, (agent + 0.5) / 9)
    after = world.step()
    assert sorted(after.sessions(1)[i].pid for i in after.sessions_on(host)) == [1, 1 + 2, 1 + 2 + 3]
    assert after.suspicious_pids(host) == [1, 3, 6] and after.state.overflow == 0


@pytest.mark.parametrize(
    ("notes", "noted", "lost"),
    [
        (range(101, 117), False, 1),
        (range(1, 13), False, 0),  # 5, the new one, is on it
        (range(1, 12), True, 0),
        (range(101, 116), True, 0),
    ],
)
def test_notes_beyond_16_are_counted_and_repeated_ones_beyond_12_left_out(notes, noted, lost):
    world = at_work(EXPLOIT)
    world.remember(RED, TARGET, 0)
    world.suspect(TARGET, *notes)
    after = world.step()
    assert after.suspicious_pids(TARGET) == [*notes, *[5] * noted] and after.state.overflow == lost


def test_blue_notes_nothing_in_the_contractor_network():
    world = World()
    world.remember(0, server(CON), 0)
    world.red_does(0, EXPLOIT, server(CON))
    after = world.step()
    assert after.sessions_on(server(CON)) == {1} and after.suspicious_pids(server(CON)) == []


# PrivilegeEscalate


def test_one_of_the_sessions_becomes_root_uniformly():
    world = at_work(ESCALATE)
    for id in (1, 2, 3):
        world.session(RED, TARGET, id=id, abstract=id == 2)
    root = sample(world, rounds=4)[1].session_root[:, RED]
    assert (root.sum(axis=1) == 1).all()
    assert_frequencies(root[:, 1:4].sum(axis=0), [1 / 3] * 3)


@pytest.mark.parametrize("state", ["user", "root"])
@pytest.mark.parametrize("acting", ["fit", "plain", "dead"])
def test_escalation_needs_a_fit_acting_session_unless_it_is_root_already(state, acting):
    world = at_work(ESCALATE)
    world.session(RED, TARGET, id=1, root=state == "root")
    world.learn(RED, TARGET, Knowledge.U)
    world = {"fit": lambda w: w, "plain": plain, "dead": killed}[acting](world)
    after = world.step()
    succeeds = state == "root" or acting == "fit"
    assert after.sessions(RED)[1].root == succeeds
    assert after.knowledge(RED, TARGET) == (Knowledge.R if succeeds else Knowledge.U)
    assert after.alerts() == QUIET


def test_escalation_fails_where_the_agent_has_no_session():
    world = at_work(ESCALATE)
    world.learn(RED, TARGET, Knowledge.U)
    after = world.step()
    assert after.knowledge(RED, TARGET) == Knowledge.KD
    assert not any(session.root for session in after.sessions(RED).values())


def test_escalation_and_degradation_go_through_a_block_q37():
    host = server(OFF)
    escalating, degrading = World(), World()
    for world, kind in ((escalating, ESCALATE), (degrading, DEGRADE)):
        world.session(5, server(ADM))
        world.session(5, host, id=1, root=kind == DEGRADE)
        world.block(OFF, ADM)
        world.red_does(5, kind, host)
    escalated, degraded = run([escalating, degrading])
    assert escalated.sessions(5)[1].root
    assert degraded.reliability(host) == 80


LINKS = {CON: {RZA, RZB, PAZ}, RZA: {OZA, CON}, OZA: {RZA}, RZB: {OZB, CON}, OZB: {RZB}}
LINKS |= {PAZ: {ADM, OFF, CON}, ADM: {PAZ}, OFF: {PAZ}}


@pytest.mark.parametrize("zone", LINKS)
def test_root_on_server_0_discloses_the_linked_servers(zone):
    agent = min(zone, 5)
    server_0, server_1 = World(), World()
    for world, index in ((server_0, 0), (server_1, 1)):
        if agent:
            world.session(agent, server(zone, index), id=0)
        else:
            world.session(0, server(zone, index), id=1)
        world.red_does(agent, ESCALATE, server(zone, index))
    first, second = run([server_0, server_1])
    disclosed = {to for to in LINKS if to != zone and first.knowledge(agent, server(to)) == Knowledge.K}
    assert disclosed == LINKS[zone]
    assert all(second.knowledge(agent, server(to)) == Knowledge.UNKNOWN for to in LINKS if to != zone)


def test_a_dead_acting_session_discloses_nothing():
    world = at_work(ESCALATE, server(OZA), session=1)
    world.session(RED, server(OZA, 1), id=1)
    world.session(RED, SOURCE, id=0, root=True)
    alive, dead = run([world, killed(world, server(OZA, 1))])
    assert alive.knowledge(RED, server(RZA)) == Knowledge.K
    assert dead.knowledge(RED, server(RZA)) == Knowledge.UNKNOWN


# Impact, DegradeServices, DiscoverDeception


@pytest.mark.parametrize(
    ("host", "root", "acting", "stops"),
    [
        (TARGET, True, "fit", True),
        (TARGET, True, "plain", True),
        (TARGET, True, "dead", False),
        (TARGET, False, "fit", False),
    ],
)
def test_impact_stops_the_ot_service_where_red_is_root(host, root, acting, stops):
    world = at_work(IMPACT, host)
    world.session(RED, host, id=1, root=root)
    world = {"fit": lambda w: w, "plain": plain, "dead": killed}[acting](world)
    after = world.step()
    assert after.ot_stopped(host) == stops
    assert after.alerts() == QUIET
    assert after.reliability(host) == 100


def test_impact_stops_nothing_and_changes_no_work_outside_the_operational_zones():
    host = user(RZA)
    world = World()
    world.session(1, host, root=True)
    world.red_does(1, IMPACT, host)
    world.wear(host, 60)
    world.decoy(host, Decoy.TOMCAT)
    world.state = world.step().state
    assert not world.state.ot_stopped.any()
    rates = []
    for u in (0.19, 0.21):
        world.green_does(host, GreenAction.LOCAL_WORK)
        world.draw("green_outcome", green_on(host), u)
        rates.append(world.step().info.rewards.lwf)
    assert rates == [-1, 0], "a fifth of the work fails: sshd is at 60, the decoy at 100"


@pytest.mark.parametrize(("before", "after_one"), [(100, 80), (20, 0), (0, 0)])
def test_degrade_takes_20_points_from_all_services_and_decoys_q17(before, after_one):
    world = at_work(DEGRADE)
    world.session(RED, TARGET, id=1, root=True)
    world.wear(TARGET, before)
    world.decoy(TARGET, Decoy.TOMCAT, reliability=60)
    world.decoy(TARGET, Decoy.VSFTPD, reliability=0)
    after = world.step()
    assert after.reliability(TARGET) == after_one and after.reliability(SOURCE) == 100
    assert after.decoy_reliability(TARGET) == {Decoy.TOMCAT: 40, Decoy.VSFTPD: 0}
    assert after.alerts() == QUIET


def test_degrade_needs_root():
    world = at_work(DEGRADE)
    world.session(RED, TARGET, id=1)
    assert world.step().reliability(TARGET) == 100


def test_deception_only_takes_time_q44():
    world = at_work(DECEPTION)
    world.decoy(TARGET, Decoy.TOMCAT)
    world.learn(RED, TARGET, Knowledge.S)
    after = world.step()
    assert after.knowledge(RED, TARGET) == Knowledge.S and after.alerts() == QUIET
    assert after.sessions(RED) == world.sessions(RED)
