"""What red's actions do, all six agents at once.

Agents can only meet on a host by scanning or exploiting server 0 of each other's zones: alerts commute, and the pids
of sessions opened on one host follow the order of the agents. Ported from `DiscoverNetworkServices.py`,
`ExploitRemoteService.py`, `ExploitActions/`, `PrivilegeEscalate.py`, `Impact.py` and `DegradeServices.py`; quirks Q2,
Q8 to Q19, Q21, Q22, Q37, Q38.
"""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8, UInt16

from .blue import at, has_orphan
from .constants import (
    DEGRADATION,
    EXPLOIT_DETECTION,
    IS_MONITORED,
    IS_OPERATIONAL,
    MAX_SUSPICIOUS,
    NO_HOST,
    NUM_HOSTS,
    NUM_RED,
    OWN_TARGETS,
    SCAN_DETECTION,
    SLOTS,
    ZONE_START,
    Decoy,
    Exploit,
    Port,
    RedAction,
    Service,
)
from .draws import Draws, highest, pid_step
from .routing import is_blocked, red_to_hosts
from .sessions import Acting, Opened, Phished, count_before, largest_pid, occupied
from .sets import Set
from .state import Hosts, Red, Scenario, Sessions

_AGENTS = np.arange(NUM_RED)


class RedOrder(eqx.Module):
    """The red actions that take effect in a step; `kind` is IN_PROGRESS where there is none."""

    kind: UInt8[Array, "red"]
    target: UInt8[Array, "red"]
    session: UInt8[Array, "red"]
    subnet: UInt8[Array, "red"]

    def is_foreign(self) -> Bool[Array, "red"]:
        """The target is server 0 of a foreign zone."""
        return self.target >= OWN_TARGETS

    def host(self) -> Int32[Array, "red"]:
        """The target's host index."""
        target = self.target.astype(jnp.int32)
        return jnp.where(self.is_foreign(), (target - OWN_TARGETS) * SLOTS, ZONE_START + target)


class Results(eqx.Module):
    """Which agents' actions succeeded, by what red learns from them."""

    swept: Bool[Array, "red"]
    scanned: Bool[Array, "red"]
    exploited: Bool[Array, "red"]
    escalated: Bool[Array, "red"]
    disclosed: Bool[Array, "red"]
    """The escalation showed the host's links."""


class Target(eqx.Module):
    """The targets' hosts as the agents find them."""

    host: Int32[Array, "red"]
    services: Bool[Array, "service red"]
    decoyed: Bool[Array, "decoy red"]
    orphaned: Bool[Array, "red"]
    pid: UInt16[Array, "red"]


def look(order: RedOrder, hosts: Hosts, sessions: Sessions, scenario: Scenario) -> Target:
    """Copy out what the actions read of their targets."""
    host = order.host()
    services, there = at((scenario.services, hosts), host)
    pid = at(largest_pid(hosts, sessions), host)
    return Target(host, services, there.decoy_pid > 0, has_orphan(there), pid)


def open_ports(target: Target) -> Bool[Array, "port red"]:
    """What a scan remembers: decoys' ports only, as genuine ones never change."""
    http = target.decoyed[Decoy.APACHE] | target.decoyed[Decoy.VSFTPD] | target.orphaned
    scanned = jnp.ones_like(http)
    return jnp.stack([scanned, http, target.decoyed[Decoy.TOMCAT], target.decoyed[Decoy.HARAKA]])


def recall(red: Red, order: RedOrder, gone: Set) -> Bool[Array, "port red"]:
    """What the acting sessions remember of their targets from their own last scans (Q10)."""
    own = at(red.scans, jnp.minimum(order.host(), NUM_HOSTS - 1))
    zone = jnp.maximum(order.target.astype(jnp.int32) - OWN_TARGETS, 0)
    foreign = Set(red.foreign_scans.low[:, _AGENTS, zone], red.foreign_scans.high[:, _AGENTS, zone])
    abroad = order.is_foreign()
    memory = own.where(~abroad) | foreign.where(abroad)
    return (memory & ~gone).has(order.session)


def scan(
    order: RedOrder, acting: Acting, blocked: Bool[Array, "red"], target: Target, draws: Draws
) -> tuple[Bool[Array, "red"], Bool[Array, "red"]]:
    """Service discovery: who succeeds, and whose target raises a connection alert (any decoy always does, Q18)."""
    rate, done = jnp.zeros(NUM_RED), jnp.zeros(NUM_RED, bool)
    for kind, detection in SCAN_DETECTION.items():
        rate = jnp.where(order.kind == kind, detection, rate)
        done = done | (order.kind == kind)
    done = done & acting.alive & acting.abstract & ~blocked
    return done, done & ((draws.detection <= rate) | target.decoyed.any(axis=0) | target.orphaned)


def select_exploit(
    memory: Bool[Array, "port red"], services: Bool[Array, "service red"], draws: Draws
) -> Bool[Array, "exploit red"]:
    """Any candidate but the heaviest, uniformly; the heaviest only where it is alone (Q11).

    By ascending weight: SSH (port 22, always open), HTTP (80), HTTPS (443), SQL (3390 and one of 80, 443), Haraka (25).
    """
    http = services[Service.APACHE] | memory[Port.HTTP]
    https = memory[Port.HTTPS]
    sql = services[Service.MYSQL] & (http | https)
    haraka = services[Service.SMTP] | memory[Port.SMTP]
    candidates = jnp.stack([jnp.ones_like(http), http & (https | sql | haraka), https & (sql | haraka), sql & haraka])
    return highest(candidates, draws.exploit)


class Attack(eqx.Module):
    """What the exploits of a step do."""

    opened: Opened
    connection: Bool[Array, "red"]
    """Alert on the target."""
    source_connection: Bool[Array, "red"]
    """Alert on the attacker's own host (Q19)."""
    process: Bool[Array, "red"]
    """Alert on the target, with the new session's pid."""


def exploit(
    order: RedOrder,
    acting: Acting,
    blocked: Bool[Array, "red"],
    target: Target,
    memory: Bool[Array, "port red"],
    draws: Draws,
) -> Attack:
    """ExploitRemoteService: only SSH brute force and SQL injection ever succeed; the others can meet decoys (Q13)."""
    do = (order.kind == RedAction.EXPLOIT_REMOTE_SERVICE) & acting.alive & acting.abstract & ~blocked
    chosen = do & memory[Port.SCANNED] & select_exploit(memory, target.services, draws)
    ssh, sql = chosen[Exploit.SSH_BRUTE_FORCE], chosen[Exploit.SQL_INJECTION]
    done = ssh | sql
    step = jnp.where(done, pid_step(draws.session_pid), 0)
    together = (target.host == target.host[:, None]) & (_AGENTS[:, None] >= _AGENTS)
    pid = target.pid + jnp.where(together, step, 0).sum(axis=1, dtype=jnp.uint16)
    webserver = ~target.services[Service.APACHE] & open_ports(target)[Port.HTTP]
    return Attack(
        opened=Opened(done, target.host, pid),
        connection=ssh
        | (chosen[Exploit.HTTP_RFI] & webserver)
        | (chosen[Exploit.HTTPS_RFI] & target.decoyed[Decoy.TOMCAT]),
        source_connection=ssh & (draws.source_detection < EXPLOIT_DETECTION),
        process=ssh | (sql & (draws.detection < EXPLOIT_DETECTION)),
    )


def escalate(
    order: RedOrder, acting: Acting, phished: Phished, sessions: Sessions, host: Int32[Array, "red"], draws: Draws
) -> tuple[Sessions, Bool[Array, "red"]]:
    """PrivilegeEscalate: one of the agent's sessions on the host becomes root, if none is and the acting one is fit."""
    there = at(sessions, host)
    visiting = phished.visiting[host // SLOTS]
    candidates = occupied(there) & ~visiting
    rooted = (there.root & candidates).any(axis=0)
    do = order.kind == RedAction.PRIVILEGE_ESCALATE
    fit = acting.alive & acting.abstract & ~rooted
    chosen = do & fit & highest(candidates, draws.escalate)
    here = red_to_hosts(jnp.where(do, host, NO_HOST)) == np.arange(NUM_HOSTS)
    sessions = replace(sessions, root=sessions.root | (here & red_to_hosts(chosen)))
    return sessions, do & (rooted | (fit & candidates.any(axis=0)))


def disrupt(order: RedOrder, acting: Acting, hosts: Hosts, sessions: Sessions, host: Int32[Array, "red"]) -> Hosts:
    """Impact stops OTService and DegradeServices wears all active services down, where red holds root."""
    rooted = at(sessions.root, host).any(axis=0)
    impact = rooted & (order.kind == RedAction.IMPACT) & acting.alive
    degrade = rooted & (order.kind == RedAction.DEGRADE_SERVICES)

    def here(do):
        return red_to_hosts(jnp.where(do, host, NO_HOST)) == np.arange(NUM_HOSTS)

    def worn(reliability):
        return jnp.where(here(degrade), jnp.maximum(reliability, DEGRADATION) - DEGRADATION, reliability)

    return replace(
        hosts,
        ot_stopped=hosts.ot_stopped | (here(impact) & IS_OPERATIONAL),
        reliability=worn(hosts.reliability),
        decoy_reliability=worn(hosts.decoy_reliability),
    )


class Done(eqx.Module):
    """What red did in a step."""

    results: Results
    opened: Opened
    connection: Bool[Array, "host"]
    process: Bool[Array, "host"]
    recorded: Bool[Array, "red"]
    """Whose new session's pid blue writes down."""
    ports: Bool[Array, "port red"]
    remembers: Bool[Array, "red"]
    """Whose scan stays in memory: that of a visiting session is lost with it."""


def act(
    red: Red,
    hosts: Hosts,
    sessions: Sessions,
    phished: Phished,
    blocked: Bool[Array, "subnet subnet"],
    scenario: Scenario,
    order: RedOrder,
    acting: Acting,
    gone: Set,
    draws: Draws,
) -> tuple[Hosts, Sessions, Done]:
    """All red actions that take effect in a step, on the world that green has left."""
    target = look(order, hosts, sessions, scenario)
    cut_off = is_blocked(blocked, acting.host // SLOTS, target.host // SLOTS)
    scanned, noticed = scan(order, acting, cut_off, target, draws)
    attack = exploit(order, acting, cut_off, target, recall(red, order, gone), draws)
    hosts = disrupt(order, acting, hosts, sessions, target.host)
    sessions, escalated = escalate(order, acting, phished, sessions, target.host, draws)
    results = Results(
        swept=(order.kind == RedAction.DISCOVER_REMOTE_SYSTEMS) & acting.alive,
        scanned=scanned,
        exploited=attack.opened.done,
        escalated=escalated,
        disclosed=escalated & acting.alive,
    )
    on_target = target.host[:, None] == np.arange(NUM_HOSTS)
    on_source = acting.host[:, None] == np.arange(NUM_HOSTS)
    connection = on_target & (noticed | attack.connection)[:, None]
    connection = connection | (on_source & attack.source_connection[:, None])
    process = on_target & attack.process[:, None]
    return hosts, sessions, Done(
        results=results,
        opened=attack.opened,
        connection=connection.any(axis=0),
        process=process.any(axis=0),
        recorded=attack.process,
        ports=open_ports(target),
        remembers=scanned & ~acting.visiting,
    )


def note_pids(
    notes: UInt16[Array, "suspicious host"], opened: Opened, recorded: Bool[Array, "red"]
) -> tuple[UInt16[Array, "suspicious host"], Int32[Array, ""]]:
    """Blue's Monitor appends the pids of detected exploits. Returns the number that found no room, too."""
    here = (recorded[:, None] & (opened.host[:, None] == np.arange(NUM_HOSTS))) & IS_MONITORED
    nth = count_before(here)
    used = (notes > 0).sum(axis=0)
    places = np.arange(MAX_SUSPICIOUS)[:, None]
    for arrival in range(2):
        pid = jnp.where(here & (nth == arrival), opened.pid[:, None], 0).max(axis=0)
        notes = jnp.where((pid > 0) & (places == used + arrival), pid, notes)
    return notes, (here & ((nth >= 2) | (used + nth >= MAX_SUSPICIOUS))).sum()
