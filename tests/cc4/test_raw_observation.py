"""The raw observation, rule by rule. `..._qr8` is about QR8 of QUIRKS.md."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    ADM,
    CON,
    OFF,
    OZA,
    OZB,
    PAZ,
    RZA,
    RZB,
    World,
    assert_rate,
    blue_of,
    green_on,
    run,
    sample,
    server,
    user,
)

from purecc4.envs import cc4
from purecc4.envs.cc4 import report
from purecc4.envs.cc4.by_host import FEATURES, OWN_HOSTS, by_host
from purecc4.envs.cc4.constants import (
    NO_HOST,
    NUM_HOSTS,
    SLOTS,
    BlueAction,
    Decoy,
    GreenAction,
    Port,
    RedAction,
    Service,
)
from purecc4.envs.cc4.raw import (
    Alert,
    AttackColumn,
    AttackKind,
    Files,
    OpenPort,
    ResultColumn,
    Success,
    Visit,
)
from purecc4.parity.raw import one_uniform

AGGRESSIVE, STEALTH, EXPLOIT, ESCALATE, IMPACT = (
    RedAction.AGGRESSIVE_SERVICE_DISCOVERY,
    RedAction.STEALTH_SERVICE_DISCOVERY,
    RedAction.EXPLOIT_REMOTE_SERVICE,
    RedAction.PRIVILEGE_ESCALATE,
    RedAction.IMPACT,
)
GAP = 4
LOUD, QUIET = 0.0, 0.99


def raw_world(*args, **kw) -> World:
    """A world in which blue sees the raw observation; on user hosts the largest pid lies GAP above blue's."""
    return World(*args, pid_gap=np.where(np.arange(NUM_HOSTS) % SLOTS < 6, 0, GAP), **kw)


def exploiting(agent: int, source: int, target: int, **kw) -> World:
    """An agent whose session on `source` exploits `target` by SSH; every coin of the path shows it."""
    world = raw_world(**kw)
    world.session(agent, source)
    world.remember(agent, target, 0)
    world.red_does(agent, EXPLOIT, target)
    world.draw("source_detection", agent, LOUD)
    return world


def scanning(agent: int, source: int, target: int, kind=AGGRESSIVE, roll=LOUD, **kw) -> World:
    world = raw_world(**kw)
    world.session(agent, source)
    world.red_does(agent, kind, target)
    world.draw("detection", agent, roll)
    return world


def attacks(after, blue: int) -> list[dict[str, int]]:
    """The attacks that an agent is told of, by column."""
    rows = [row for row in after.obs.raw.attacks[blue].tolist() if any(row)]
    return [dict(zip([column.name for column in AttackColumn], row, strict=True)) for row in rows]


def alerted(after, alert: Alert, host: int) -> bool:
    blue = blue_of(host)
    zone = max(host // SLOTS - ADM, 0)
    return bool(after.obs.raw.alerts[blue, zone, alert] >> host % SLOTS & 1)


def result(after, blue: int) -> dict[str, int]:
    row = after.obs.raw.result[blue].tolist()
    return dict(zip([column.name for column in ResultColumn], row, strict=True))


def pids(after, blue: int) -> list[list[int]]:
    return [row for row in after.obs.raw.pids[blue].tolist() if any(row)]


def ports(row: dict[str, int]) -> set[OpenPort]:
    return {port for port in OpenPort if row["PORTS"] >> port & 1}


def zones(bits: int) -> set[int]:
    return {zone for zone in range(8) if bits >> zone & 1}


# Brute forces and their ways


def test_a_brute_force_names_its_source_and_shows_its_pid_qr1():
    source, target = user(OZA, 1), user(OZA)
    after = exploiting(2, source, target).step()
    (row,) = attacks(after, 1)
    assert (row["KIND"], row["TARGET"], row["SOURCE"]) == (AttackKind.BRUTE_FORCE, target, source)
    assert row["REPORTED"] == 1 and zones(row["ROUTERS"]) == {OZA}
    assert pids(after, 1) == [[target, after.sessions(2)[1].pid + GAP]]
    assert alerted(after, Alert.BRUTE_FORCED, target) and alerted(after, Alert.PROCESS, target)
    assert alerted(after, Alert.ATTACKS, source) and not alerted(after, Alert.BRUTE_FORCED, source)


WAYS = [
    (OZA, RZA, {OZA, RZA}),
    (OZA, OZB, {OZA, RZA, RZB, OZB}),
    (OZA, RZB, {OZA, RZA, RZB}),
    (ADM, OFF, {ADM, OFF, PAZ}),
    (OFF, PAZ, {OFF, PAZ}),
    (ADM, OZA, {ADM, PAZ, RZA, OZA}),
    (CON, RZA, {RZA}),
    (RZA, CON, {RZA}),
    (CON, ADM, {ADM, PAZ}),
]


def between(source: int, target: int) -> set[int]:
    return zones(int(report.routers_between(jnp.int32(source), jnp.int32(target))))


@pytest.mark.parametrize(("source", "target", "routers"), WAYS)
def test_routers_between_two_zones_qr8(source, target, routers):
    assert between(source, target) == between(target, source) == routers


def test_within_a_zone_its_router_lies_between_qr8():
    assert [between(zone, zone) for zone in range(CON, PAZ + 1)] == [set(), *[{zone} for zone in range(RZA, PAZ + 1)]]


def test_owners_of_routers_see_passing_brute_forces_and_their_target_qr8_qr9():
    """From OZA by RZA and RZB to OZB: each owner sees what its own hosts and routers report."""
    after = exploiting(2, server(OZA, 1), server(OZB)).step()
    expected = {0: (0, {RZA}), 1: (1, {OZA}), 2: (0, {RZB}), 3: (0, {OZB})}
    for blue, (reported, routers) in expected.items():
        (row,) = attacks(after, blue)
        assert (row["TARGET"], row["SOURCE"]) == (server(OZB), server(OZA, 1))
        assert (row["REPORTED"], zones(row["ROUTERS"])) == (reported, routers)
    assert attacks(after, 4) == []


def test_three_own_routers_of_agent_4_qr22():
    world = exploiting(5, server(ADM), server(OFF))
    (row,) = attacks(world.step(), 4)
    assert zones(row["ROUTERS"]) == {ADM, OFF, PAZ}


def test_each_router_has_a_coin_of_its_own():
    world = exploiting(2, server(OZA, 1), server(OZB))
    world.draw("source_detection", 2, one_uniform(False, {RZB: False}))
    after = world.step()
    assert attacks(after, 2) == [] and attacks(after, 1)[0]["REPORTED"] == 0
    assert zones(attacks(after, 1)[0]["ROUTERS"]) == {OZA}


def test_routers_report_at_their_rate():
    world = exploiting(2, server(OZA, 1), server(OZB))
    del world.draws["source_detection"]
    obs, *_ = sample(world, 8)
    for blue in (0, 1, 2, 3):
        assert_rate((obs.raw.attacks[:, blue, 2, AttackColumn.ROUTERS] > 0), 0.95)
    assert_rate(obs.raw.attacks[:, 1, 2, AttackColumn.REPORTED], 0.95)


def test_a_host_that_attacks_itself_passes_no_router():
    host = server(OZA)
    (row,) = attacks(exploiting(2, host, host).step(), 1)
    assert row["SOURCE"] == row["TARGET"] == host and row["REPORTED"] == 1 and row["ROUTERS"] == 0


def test_blocked_scans_and_exploits_are_silent_qr12():
    worlds = [exploiting(2, server(OZA), server(RZA)), scanning(2, server(OZA), server(RZA))]
    for world in worlds:
        world.block(RZA, OZA)
    for after in run(worlds):
        assert all(attacks(after, blue) == [] and pids(after, blue) == [] for blue in range(5))
        assert not after.obs.raw.alerts.any()


def test_an_sql_injection_shows_a_pid_and_no_source_qr16():
    host = server(OZA)
    world = raw_world(services=[(Service.APACHE, host), (Service.MYSQL, host), (Service.SMTP, host)])
    world.session(2, user(OZA))
    world.remember(2, host, 0)
    world.red_does(2, EXPLOIT, host)
    world.draw("exploit", (3, 2), 1.0)
    seen, hidden = world.copy(), world.copy()
    seen.draw("detection", 2, LOUD)
    hidden.draw("detection", 2, QUIET)
    seen, hidden = run([seen, hidden])
    assert pids(seen, 1) == [[host, seen.sessions(2)[1].pid]] and attacks(seen, 1) == []
    assert pids(hidden, 1) == [] and hidden.sessions_on(host)


def test_pids_are_sorted_and_do_not_show_how_many_others_have():
    """Agents of RZA and OZB exploit within their zones; owner 3 finds its row first."""
    world = exploiting(1, server(RZA, 1), server(RZA))
    world.session(4, server(OZB, 1))
    world.remember(4, user(OZB), 0)
    world.red_does(4, EXPLOIT, user(OZB))
    after = world.step()
    assert after.obs.raw.pids[3, 0].tolist() == [user(OZB), after.sessions(4)[1].pid + GAP]
    assert not after.obs.raw.pids[3, 1:].any() and not after.obs.raw.pids[1].any()


def test_two_exploits_of_one_host_show_two_pids():
    world = exploiting(1, server(RZA, 1), server(RZA))
    world.session(2, server(OZA))
    world.remember(2, server(RZA), 0)
    world.red_does(2, EXPLOIT, server(RZA))
    after = world.step()
    shown = pids(after, 0)
    assert [host for host, _ in shown] == [server(RZA)] * 2 and shown[0][1] < shown[1][1]
    assert {row["SOURCE"] for row in attacks(after, 0)} == {server(RZA, 1), server(OZA)}


# Scans


def test_a_loud_scan_lists_all_ports_a_quiet_one_those_of_decoys_qr13():
    host = server(OZA)
    services = [(Service.APACHE, host), (Service.MYSQL, host)]
    loud, quiet, silent = (scanning(2, user(OZA), host, roll=u, services=services) for u in (LOUD, QUIET, QUIET))
    for world in (loud, quiet):
        world.decoy(host, Decoy.HARAKA, 3)
    loud, quiet, silent = run([loud, quiet, silent])
    (row,), (hushed,) = attacks(loud, 1), attacks(quiet, 1)
    assert (row["KIND"], row["TARGET"], row["SOURCE"]) == (AttackKind.SCAN, host, user(OZA))
    assert ports(row) == {OpenPort.SSH, OpenPort.OT, OpenPort.HTTP, OpenPort.MYSQL, OpenPort.SMTP}
    assert row["PORT_80"] == 1 and ports(hushed) == {OpenPort.SMTP} and attacks(silent, 1) == []
    assert alerted(loud, Alert.SCANNED, host) and not alerted(silent, Alert.SCANNED, host)


def test_port_1_is_missing_once_impact_has_stopped_otservice_qr13():
    """An agent with a lower number has stopped it before the scan of this very step, one with a higher number after."""
    stopped = scanning(2, user(OZA), server(OZA))
    stopped.stop_ot(server(OZA))
    just_now, later = (scanning(agent, server(zone), server(OZA)) for agent, zone in ((3, RZB), (1, RZA)))
    for world in (just_now, later):
        world.session(2, server(OZA), root=True)
        world.red_does(2, IMPACT, server(OZA))
    restored = scanning(3, server(RZB), server(OZA))
    restored.stop_ot(server(OZA))
    restored.blue_does(BlueAction.RESTORE, server(OZA))
    shown = [OpenPort.OT in ports(attacks(after, 1)[0]) for after in run([stopped, just_now, later, restored])]
    assert shown == [False, False, True, True]


def test_processes_on_port_80_are_counted_orphans_included():
    host = server(RZA)
    world = scanning(1, user(RZA), host, roll=QUIET)
    world.decoy(host, Decoy.VSFTPD, 3)
    world.blue_does(BlueAction.DEPLOY_DECOY, host)
    world.draw("decoy", (Decoy.VSFTPD, 0), 1.0)
    (row,) = attacks(world.step(), 0)
    assert row["PORT_80"] == 2 and ports(row) == {OpenPort.HTTP}
    known = world.copy()
    known.suspect(host, 3)
    (row,) = attacks(known.step(), 0)
    assert row["PORT_80"] == 2


@pytest.mark.parametrize(("kind", "rate"), [(AGGRESSIVE, 0.75), (STEALTH, 0.25)])
def test_genuine_ports_show_at_the_rate_of_the_scan(kind, rate):
    world = scanning(1, user(RZA), server(RZA), kind)
    world.decoy(server(RZA), Decoy.TOMCAT, 3)
    del world.draws["detection"]
    obs, *_ = sample(world, 4)
    shown = obs.raw.attacks[:, 0, 1, AttackColumn.PORTS]
    assert (shown >> OpenPort.HTTPS & 1).all()
    assert_rate(shown >> OpenPort.SSH & 1, rate)


def test_the_source_of_a_noticed_action_has_a_live_abstract_session_qr24():
    """A shell cannot scan, a session that blue has just ended neither."""
    shell, dead, alive = (scanning(2, server(OZA, 1), server(OZA)) for _ in range(3))
    shell.session(2, server(OZA, 1), abstract=False)
    dead.blue_does(BlueAction.RESTORE, server(OZA, 1))
    assert [len(attacks(after, 1)) for after in run([shell, dead, alive])] == [0, 0, 1]


def test_a_session_phished_in_the_step_is_named_as_source():
    """Blue ends the acting session, and the mail's session gets its id before the scan."""
    fresh = user(OZA, 2)
    world = raw_world()
    world.session(2, server(OZA, 2))
    world.session(2, server(OZA, 1), id=1)
    world.red_does(2, AGGRESSIVE, server(OZA), session=1)
    world.draw("detection", 2, LOUD)
    world.blue_does(BlueAction.RESTORE, server(OZA, 1))
    world.phish(fresh)
    (row,) = attacks(world.step(), 1)
    assert (row["KIND"], row["SOURCE"]) == (AttackKind.SCAN, fresh)


# Decoys


@pytest.mark.parametrize(
    ("decoy", "exploit", "port"), [(Decoy.VSFTPD, 1, OpenPort.HTTP), (Decoy.TOMCAT, 2, OpenPort.HTTPS)]
)
def test_an_exploit_that_meets_a_decoy_is_told_from_a_scan_qr11(decoy, exploit, port):
    host = server(RZA)
    world = raw_world(services=[(Service.SMTP, host)])
    world.session(1, user(RZA))
    world.decoy(host, decoy, 3)
    world.remember(1, host, 0, Port.HTTP if decoy == Decoy.VSFTPD else Port.HTTPS)
    world.red_does(1, EXPLOIT, host)
    world.draw("exploit", (exploit, 1), 1.0)
    after = world.step()
    (row,) = attacks(after, 0)
    assert (row["KIND"], row["TARGET"], row["SOURCE"]) == (AttackKind.DECOY_HIT, host, user(RZA))
    assert ports(row) == {port} and alerted(after, Alert.DECOY_HIT, host) and not pids(after, 0)


@pytest.mark.parametrize("host", [server(RZA), user(RZA)], ids=["server", "user"])
def test_deploy_decoy_shows_kind_and_pid_which_probes_for_hidden_processes_qr14(host):
    """Pids count from blue's own session; beyond the known largest one by more than 9 there is a hidden process."""
    world = raw_world()
    world.blue_does(BlueAction.DEPLOY_DECOY, host)
    world.draw("decoy", (Decoy.TOMCAT, 0), 1.0)
    world.draw("decoy_pid", 0, 0.999)
    hidden = world.copy()
    hidden.session(1, host, pid=9)
    free, shown = (result(after, 0) for after in run([world, hidden]))
    gap = GAP if host == user(RZA) else 0
    assert (free["DECOY"], free["HOST"], free["PID"]) == (Decoy.TOMCAT, host, 9 + gap)
    assert shown["PID"] == 18 + gap and free["SUCCESS"] == Success.TRUE


def test_restore_lets_pids_start_again_qr23():
    host = server(RZA)
    world = raw_world()
    world.decoy(host, Decoy.VSFTPD, 100)
    world.blue_does(BlueAction.RESTORE, host)
    after = world.step()
    assert result(after, 0)["ACTION"] == BlueAction.RESTORE and not after.decoys(host)
    world.state = after.state
    world.blue_does(BlueAction.DEPLOY_DECOY, host)
    assert 1 <= result(world.step(), 0)["PID"] <= 9


# Files


def analysed(world: World, host: int) -> int:
    world.blue_does(BlueAction.ANALYSE, host)
    return result(world.step(), blue_of(host))["FILES"]


def then(world: World, after) -> World:
    """The same world after a step, in which nothing happens yet."""
    later = world.copy()
    later.state, later.draws = after.state, {}
    later.blue_submits(blue_of(server(OZA)), BlueAction.SLEEP)
    return later


def exploited_and_escalated(steps: str) -> World:
    """Host server(OZA) after exploits (x) and escalations (e), one in each step."""
    host = server(OZA)
    world = raw_world()
    world.session(2, user(OZA), id=0)
    world.session(2, host, id=20, pid=1)
    world.remember(2, host, 0)
    for step in steps:
        world.red_does(2, EXPLOIT if step == "x" else ESCALATE, host)
        world = then(world, world.step())
    return world


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("", Files.NONE),
        ("x", Files.CMD),
        ("e", Files.ESCALATE),
        ("xe", Files.CMD_ESCALATE),
        ("ex", Files.ESCALATE_CMD),
        ("xex", Files.ESCALATE_CMD),
        ("xxe", Files.CMD_ESCALATE),
        ("exe", Files.ESCALATE_CMD),  # there is a root session already: no new file
    ],
)
def test_analyse_shows_each_file_once_by_last_creation_qr3_qr5(steps, found):
    assert analysed(exploited_and_escalated(steps), server(OZA)) == found


@pytest.mark.parametrize(("kind", "found"), [(BlueAction.REMOVE, Files.CMD), (BlueAction.RESTORE, Files.NONE)])
def test_only_restore_removes_files_qr4(kind, found):
    world = exploited_and_escalated("x")
    world.blue_does(kind, server(OZA))
    assert analysed(then(world, world.step()), server(OZA)) == found


def test_files_of_one_step_are_in_the_order_of_the_agents():
    """Agent 2 escalates where agent 1 or 3 exploits in the same step."""
    found = []
    for agent, zone in ((1, RZA), (3, RZB)):
        world = raw_world()
        world.session(2, server(OZA), pid=1)
        world.red_does(2, ESCALATE, server(OZA))
        world.session(agent, server(zone))
        world.remember(agent, server(OZA), 0)
        world.red_does(agent, EXPLOIT, server(OZA))
        found.append(analysed(then(world, world.step()), server(OZA)))
    assert found == [Files.CMD_ESCALATE, Files.ESCALATE_CMD]


def test_phishing_leaves_no_file():
    world = raw_world()
    world.session(2, server(OZA))
    world.phish(user(OZA))
    assert analysed(then(world, world.step()), user(OZA)) == Files.NONE


def test_analyse_does_not_see_the_files_of_its_own_step_qr19():
    host = server(OZA)
    world = exploiting(2, user(OZA), host)
    world.blue_does(BlueAction.ANALYSE, host)
    after = world.step()
    assert result(after, 1)["FILES"] == Files.NONE and pids(after, 1)


def test_view_shows_the_files_that_analyse_would_find():
    state = exploited_and_escalated("ex").state
    files = np.asarray(jax.jit(cc4.view)(state).files)
    assert files[server(OZA)] == Files.ESCALATE_CMD and files.sum() == Files.ESCALATE_CMD


# Own actions


def test_success_and_action_of_each_kind_qr17_qr18():
    """Host actions succeed whatever they find; Sleep is UNKNOWN, Monitor TRUE without content."""
    host = server(RZA)
    worlds = []
    for kind in (BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY):
        world = raw_world()
        world.blue_does(kind, host)
        worlds.append(world)
    rows = [result(after, 0) for after in run(worlds)]
    assert [row["SUCCESS"] for row in rows] == [Success.TRUE] * 4 and [row["HOST"] for row in rows] == [host] * 4
    monitor, sleep = raw_world(), raw_world()
    monitor.blue_submits(0, BlueAction.MONITOR)
    monitor, sleep = (result(after, 0) for after in run([monitor, sleep]))
    assert (monitor["SUCCESS"], monitor["ACTION"], monitor["HOST"]) == (Success.TRUE, BlueAction.MONITOR, -1)
    assert (sleep["SUCCESS"], sleep["ACTION"]) == (Success.UNKNOWN, BlueAction.SLEEP)


def test_traffic_actions_fail_if_they_change_nothing():
    rows = []
    for kind in (BlueAction.BLOCK_TRAFFIC_ZONE, BlueAction.ALLOW_TRAFFIC_ZONE):
        for blocked in (False, True):
            world = raw_world()
            if blocked:
                world.block(RZA, OZA)
            world.blue_submits(0, kind, to=RZA, source=OZA)
            rows.append(result(world.step(), 0))
    assert [row["SUCCESS"] for row in rows] == [Success.TRUE, Success.FALSE, Success.FALSE, Success.TRUE]
    assert all((row["TO"], row["SOURCE"], row["HOST"]) == (RZA, OZA, -1) for row in rows)


def test_the_busy_see_that_they_are_and_what_the_others_see_qr6():
    host = server(RZA)
    world = scanning(1, user(RZA), host)
    world.blue_does(BlueAction.RESTORE, host, ticks=3)
    after = world.step()
    assert after.obs.raw.result[0].tolist() == [Success.IN_PROGRESS, *[-1] * 7] and attacks(after, 0)


def test_after_a_reset_nothing_is_told():
    obs, _ = jax.jit(cc4.reset)(jax.random.key(0), cc4.make_params(observation="raw"))
    assert obs.raw.result.tolist() == [[Success.UNKNOWN, *[-1] * 7]] * 5
    assert not any(np.asarray(part).any() for part in (obs.raw.alerts, obs.raw.attacks, obs.raw.pids, obs.raw.visits))


# Green


def test_a_false_alarm_of_work_has_no_pid_qr1():
    host = user(RZA)
    world = raw_world()
    world.green_does(host, GreenAction.LOCAL_WORK)
    world.draw("green_alarm", green_on(host), 0.0)
    world.draw("green_phishing", green_on(host), 0.9)
    after = world.step()
    assert alerted(after, Alert.WORK, host) and not alerted(after, Alert.PROCESS, host) and not pids(after, 0)


def test_visits_show_the_zone_of_the_user_qr10():
    """A blocked visit is told from a false alarm; each shows where the user is."""
    host = server(OFF, 1)
    blocked, alarm = raw_world(), raw_world()
    for world in (blocked, alarm):
        world.green_does(user(RZA), GreenAction.ACCESS_SERVICE, visits=host)
        world.draw("green_alarm", green_on(user(RZA)), 0.0)
    blocked.block(RZA, OFF)
    blocked, alarm = (after.obs.raw.visits for after in run([blocked, alarm]))
    assert blocked[4, 1, Visit.BLOCKED, RZA] == alarm[4, 1, Visit.FALSE_ALARM, RZA] == 1 << 1
    assert blocked.sum() == alarm.sum() == 1 << 1


# Each agent's view


@pytest.fixture(scope="module")
def busy_reports():
    """Random reports, denser than any step, and `tell` for all of them."""
    rng = np.random.default_rng(0)
    shape = 400, 6
    kind, target, slot = (rng.integers(0, n, shape).astype(np.int32) for n in (4, NUM_HOSTS, SLOTS))
    force = kind == AttackKind.BRUTE_FORCE
    attacks = dict(
        kind=kind,
        target=target,
        source=np.arange(6, dtype=np.int32) * SLOTS + slot,  # each agent acts in its own zone
        ports=rng.integers(0, 64, shape, dtype=np.uint32),
        on_80=rng.integers(0, 9, shape).astype(np.int32),
        reported=force & (rng.random(shape) < 0.5),
        routers=np.where(force, rng.integers(0, 256, shape, dtype=np.uint32) & 0xFE, 0).astype(np.uint32),
    )
    reports = dict(
        result=rng.integers(-1, 100, (400, 5, 8)).astype(np.int16),
        alerts=rng.integers(0, 2**16, (400, 6, 8), dtype=np.uint32),
        attacks=attacks,
        new_host=np.where(rng.random(shape) < 0.7, target, NO_HOST).astype(np.int32),
        new_pid=rng.integers(1, 300, shape).astype(np.uint16),
        visits=rng.integers(0, 2**16, (400, 8, 8), dtype=np.uint32) & 0x3F3F,
    )

    def tell(parts):
        return report.tell(report.Report(**parts | {"attacks": report.Attacks(**parts["attacks"])}))

    return reports, jax.jit(jax.vmap(tell))


def hide(reports: dict, blue: int) -> dict:
    """The reports of other steps, but for what an agent is told of these."""
    mine = np.arange(ADM, PAZ + 1) if blue == 4 else np.array([blue + 1])
    own = np.uint32((1 << mine).sum())
    others, attacks = jax.tree.map(lambda x: np.roll(x, 1, axis=0), reports), reports["attacks"]
    is_mine, force = np.isin(np.arange(8), mine), attacks["kind"] == AttackKind.BRUTE_FORCE
    source_is_mine = np.isin(attacks["source"] // SLOTS, mine)
    seen = np.isin(attacks["target"] // SLOTS, mine) & (attacks["kind"] > 0)
    seen |= (source_is_mine & attacks["reported"]) | (attacks["routers"] & own > 0)

    def replaced(values, other, keep):
        return np.where(keep, values, other).astype(values.dtype)

    return dict(
        result=replaced(reports["result"], others["result"], (np.arange(5) == blue)[:, None]),
        alerts=replaced(reports["alerts"], others["alerts"], is_mine),
        attacks=dict(
            kind=replaced(attacks["kind"], 0, seen),
            target=replaced(attacks["target"], 0, seen),
            source=replaced(attacks["source"], 0, seen),
            ports=replaced(attacks["ports"], 7, seen),
            on_80=replaced(attacks["on_80"], 7, seen),
            reported=np.where(source_is_mine, attacks["reported"], ~attacks["reported"] & force & seen),
            routers=replaced(attacks["routers"] & own, attacks["routers"] & own | ~own & 0xFE, ~(force & seen)),
        ),
        new_host=replaced(reports["new_host"], NO_HOST, np.isin(reports["new_host"] // SLOTS, mine)),
        new_pid=reports["new_pid"],
        visits=replaced(reports["visits"], others["visits"], is_mine),
    )


@pytest.mark.parametrize("blue", range(5))
def test_an_agent_is_told_nothing_of_what_is_not_its_own(busy_reports, blue):
    """All is replaced that neither happens on its hosts nor is reported by its hosts and routers."""
    reports, tell = busy_reports
    before, after = (jax.tree.map(np.asarray, tell(x)) for x in (reports, hide(reports, blue)))
    for name, values in vars(before).items():
        np.testing.assert_array_equal(values[:, blue], vars(after)[name][:, blue], name)
        assert (values != vars(after)[name]).any(), name


def test_what_an_agent_is_told_of_a_step_does_not_depend_on_other_zones():
    """Agent 1's report of its own brute force is independent of everything elsewhere."""
    alone = exploiting(2, user(OZA, 1), user(OZA))
    busy = alone.copy()
    for agent, zone in ((1, RZA), (3, RZB), (4, OZB), (5, ADM)):
        busy.session(agent, server(zone, 1))
        busy.remember(agent, server(zone), 0)
        busy.red_does(agent, EXPLOIT, server(zone))
    for kind, host in ((BlueAction.DEPLOY_DECOY, user(RZA)), (BlueAction.ANALYSE, server(RZB))):
        busy.blue_does(kind, host)
    busy.green_does(user(OZB), GreenAction.ACCESS_SERVICE, visits=server(OZB))
    busy.draw("green_alarm", green_on(user(OZB)), 0.0)
    own = np.arange(NUM_HOSTS) // SLOTS == OZA
    busy.state.scenario.pid_gap[...] = np.where(own, busy.state.scenario.pid_gap, 9)
    busy.state.evidence.files[:, [RZA, RZB]] = 0xFFFF
    alone, busy = (after.obs.raw for after in run([alone, busy]))
    for name in vars(alone):
        np.testing.assert_array_equal(vars(alone)[name][1], vars(busy)[name][1])
        assert (vars(alone)[name] != vars(busy)[name]).any(), name


def test_an_unknown_observation_is_refused():
    with pytest.raises(ValueError, match="unknown observation 'dict'; known are flat, raw"):
        cc4.make_params(observation="dict")


def test_gaps_of_pids():
    params = cc4.make_params(observation="raw")
    gaps = np.asarray(jax.vmap(lambda key: cc4.generate(key, params))(jax.random.split(jax.random.key(0), 200)).pid_gap)
    slots = gaps.reshape(200, 8, SLOTS)
    assert not slots[..., :6].any()
    counts = np.bincount(slots[..., 6:].ravel(), minlength=10)
    assert counts[0] == 0 and (np.abs(counts[1:] / counts.sum() - 1 / 9) < 0.01).all()


def test_a_world_host_by_host():
    source, target = user(OZA, 1), server(OZA)
    world = exploiting(2, source, target)
    world.blue_does(BlueAction.DEPLOY_DECOY, user(OZA))
    world.draw("decoy", (Decoy.VSFTPD, 1), 1.0)
    after = world.step()
    flags, shown = (np.asarray(part) for part in by_host(jax.tree.map(jnp.asarray, after.obs.raw)))
    assert flags.shape == (5, 3, SLOTS, sum(FEATURES.values()))
    assert (OWN_HOSTS[1, 0] == OZA * SLOTS + np.arange(SLOTS)).all()
    start = dict(zip(FEATURES, np.cumsum([0, *FEATURES.values()]), strict=False))
    found = {OZA * SLOTS + slot: np.flatnonzero(flags[1, 0, slot]).tolist() for slot in range(SLOTS)}
    assert {host: places for host, places in found.items() if places} == {
        target: [Alert.PROCESS, Alert.BRUTE_FORCED, start["attacked from"] + OZA],
        source: [Alert.ATTACKS, start["attacks"] + OZA],
        user(OZA): [start["decoy"] + Decoy.VSFTPD],
    }
    assert shown[1, 0, target % SLOTS] == pids(after, 1)[0][1] and shown[1, 0, 6] == result(after, 1)["PID"]
    view = jax.tree.map(np.asarray, jax.jit(cc4.view)(after.state, after.obs))
    assert np.flatnonzero(view.told.any(axis=1)).tolist() == sorted([target, source, user(OZA)])
    assert (view.told[OZA * SLOTS :][:SLOTS] == flags[1, 0]).all()
    assert (view.told_pid[OZA * SLOTS :][:SLOTS] == shown[1, 0]).all()
