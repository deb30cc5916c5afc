"""What red's actions do, all six agents at once.

Agents can only meet on a host by scanning or exploiting server 0 of each other's zones: alerts commute, and the pids
of sessions opened on one host follow the order of the agents. Ported from `DiscoverNetworkServices.py`,
`ExploitRemoteService.py`, `ExploitActions/`, `PrivilegeEscalate.py`, `Impact.py` and `DegradeServices.py`;
QUIRKS.md: Q8 to Q19, Q21, Q22, Q29, Q37, Q38, Q44.
"""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8, UInt16, UInt32

from .blue import at, has_orphan, own_pids
from .constants import (
    DEGRADATION,
    EXPLOIT_DETECTION,
    MAX_SUSPICIOUS,
    NUM_RED,
    OWN_TARGETS,
    PHISHING_RATE,
    SCAN_DETECTION,
    SLOTS,
    ZONE_START,
    Decoy,
    Exploit,
    Port,
    RedAction,
    Service,
    Subnet,
)
from .draws import Draws, highest, pid_step, place
from .routing import HOSTS, OWNER, holds, hosts_of, is_blocked, unpack, zone_of
from .sessions import AGENTS, Acting, Opened, Phished, id_flags, id_set
from .sets import Set
from .state import Hosts, Network, Red, Sessions

_HAS_OT_SERVICES = np.isin(AGENTS, OWNER[[Subnet.OZA, Subnet.OZB]])
"""Agents whose zone is operational."""


class RedOrder(eqx.Module):
    """The red actions that take effect in a step; `kind` is IN_PROGRESS where there is none."""

    kind: UInt8[Array, "red"]
    target: UInt8[Array, "red"]
    session: UInt8[Array, "red"]
    subnet: UInt8[Array, "red"]

    def is_foreign(self) -> Bool[Array, "red"]:
        """The target is server 0 of a foreign zone."""
        return self.target >= OWN_TARGETS

    def foreign_zone(self) -> Int32[Array, "red"]:
        """The zone of a foreign target, negative for own ones."""
        return self.target.astype(jnp.int32) - OWN_TARGETS

    def host(self) -> Int32[Array, "red"]:
        """The target's host index."""
        own = ZONE_START + self.target.astype(jnp.int32)
        return jnp.where(self.is_foreign(), self.foreign_zone() * SLOTS, own)


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
    """The largest."""
    own: Bool[Array, "red id"]
    """The agent's sessions there."""


def phished_pids(hosts: Hosts, phished: Phished, draws: Draws) -> UInt16[Array, "phished"]:
    """Pids of the sessions that phishing opens; no other session is on those hosts."""
    user = phished.host - 6 * (1 + zone_of(phished.host))
    u = draws.green_phishing.at[user].get(mode="clip") / PHISHING_RATE
    return own_pids(at(hosts, phished.host)) + pid_step(u)


def look(
    order: RedOrder,
    hosts: Hosts,
    sessions: Sessions,
    phished: Phished,
    phished_pid: UInt16[Array, "phished"],
    network: Network,
) -> Target:
    """Copy out what the actions read of their targets."""
    host = order.host()
    there = at(hosts, host)
    on_host = sessions.host == host.astype(jnp.uint8)[:, None, None]
    pid = jnp.where(on_host, sessions.pid, 0).max(axis=(1, 2))
    new = jnp.where(phished.done & (phished.host == host[:, None]), phished_pid, 0).max(axis=1)
    return Target(
        host=host,
        services=holds(network.services, host),
        decoyed=there.decoy_pid > 0,
        orphaned=has_orphan(there),
        pid=jnp.maximum(jnp.maximum(pid, new), own_pids(there)),
        own=sessions.host == host.astype(jnp.uint8)[:, None],
    )


def open_ports(target: Target) -> Bool[Array, "port red"]:
    """What a scan remembers: decoys' ports only, as genuine ones never change."""
    http = target.decoyed[Decoy.APACHE] | target.decoyed[Decoy.VSFTPD] | target.orphaned
    scanned = jnp.ones_like(http)
    return jnp.stack([scanned, http, target.decoyed[Decoy.TOMCAT], target.decoyed[Decoy.HARAKA]])


def recall(red: Red, order: RedOrder, gone: Set) -> Bool[Array, "port red"]:
    """What the acting sessions remember of their targets from their own last scans (Q10)."""
    own = at(red.scans, order.host())
    zone = jnp.maximum(order.foreign_zone(), 0)
    low, high = (x.at[:, AGENTS, zone].get(mode="clip") for x in (red.foreign_scans.low, red.foreign_scans.high))
    abroad = order.is_foreign()
    memory = own.where(~abroad) | Set(low, high).where(abroad)
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
    together = (target.host == target.host[:, None]) & (AGENTS[:, None] >= AGENTS)
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
    order: RedOrder, acting: Acting, phished: Phished, root: Set, target: Target, draws: Draws
) -> tuple[Set, Bool[Array, "red"]]:
    """PrivilegeEscalate: one of the agent's sessions on the host becomes root, if none is and the acting one is fit.

    Returns the agents' root ids and who succeeded.
    """
    own = id_set(target.own)
    rooted = (own & root).count() > 0
    zone = zone_of(target.host)
    new = phished.done & (phished.host == target.host[:, None]) & ~phished.visiting[zone][:, None]
    new_id = phished.first_id[zone] + jnp.where(new, phished.rank, 0).sum(axis=1)
    own = own | Set.single(new_id).where(new.any(axis=1))
    do = order.kind == RedAction.PRIVILEGE_ESCALATE
    count = own.count()
    lifts = do & acting.alive & acting.abstract & ~rooted & (count > 0)
    chosen = Set.single(own.nth(place(draws.escalate, count))).where(lifts)
    return root | chosen, (do & rooted) | lifts


def disrupt(
    order: RedOrder, acting: Acting, hosts: Hosts, root: Set, target: Target
) -> tuple[Hosts, UInt32[Array, "zone"]]:
    """Impact and DegradeServices, where red holds root.

    DegradeServices wears all active services down; returns the hosts, and those where Impact stops OTService.
    """
    rooted = (target.own & id_flags(root)).any(axis=1)
    impact = rooted & (order.kind == RedAction.IMPACT) & acting.alive & _HAS_OT_SERVICES
    degrade = unpack(hosts_of(target.host, rooted & (order.kind == RedAction.DEGRADE_SERVICES)))

    def worn(reliability):
        return jnp.where(degrade, jnp.maximum(reliability, DEGRADATION) - DEGRADATION, reliability)

    hosts = replace(hosts, reliability=worn(hosts.reliability), decoy_reliability=worn(hosts.decoy_reliability))
    return hosts, hosts_of(target.host, impact)


class Done(eqx.Module):
    """What red did in a step."""

    results: Results
    opened: Opened
    connection: UInt32[Array, "zone"]
    process: UInt32[Array, "zone"]
    recorded: Bool[Array, "red"]
    """Whose new session's pid blue writes down."""
    ports: Bool[Array, "port red"]
    remembers: Bool[Array, "red"]
    """Whose scan stays in memory: that of a visiting session is lost with it."""
    hosts: Hosts
    ot_stopped: UInt32[Array, "zone"]
    root: Set


def act(
    red: Red,
    hosts: Hosts,
    sessions: Sessions,
    phished: Phished,
    phished_pid: UInt16[Array, "phished"],
    blocked: Bool[Array, "subnet subnet"],
    network: Network,
    order: RedOrder,
    acting: Acting,
    gone: Set,
    draws: Draws,
) -> Done:
    """All red actions that take effect in a step, on the world that green has left."""
    target = look(order, hosts, sessions, phished, phished_pid, network)
    cut_off = is_blocked(blocked, zone_of(acting.host), zone_of(target.host))
    scanned, noticed = scan(order, acting, cut_off, target, draws)
    attack = exploit(order, acting, cut_off, target, recall(red, order, gone), draws)
    hosts, stopped = disrupt(order, acting, hosts, sessions.root, target)
    root, escalated = escalate(order, acting, phished, sessions.root, target, draws)
    seen = hosts_of(target.host, noticed | attack.connection) | hosts_of(acting.host, attack.source_connection)
    return Done(
        results=Results(
            swept=(order.kind == RedAction.DISCOVER_REMOTE_SYSTEMS) & acting.alive,
            scanned=scanned,
            exploited=attack.opened.done,
            escalated=escalated,
            disclosed=escalated & acting.alive,
        ),
        opened=attack.opened,
        connection=seen,
        process=hosts_of(target.host, attack.process),
        recorded=attack.process,
        ports=open_ports(target),
        remembers=scanned & ~acting.visiting,
        hosts=hosts,
        ot_stopped=stopped,
        root=root,
    )


def note_pids(
    notes: UInt16[Array, "suspicious zone slot"], opened: Opened, recorded: Bool[Array, "red"]
) -> tuple[UInt16[Array, "suspicious zone slot"], Int32[Array, ""]]:
    """Blue's Monitor appends the pids of detected exploits. Returns the number that found no room, too."""
    recorded = recorded & (zone_of(opened.host) != Subnet.CON)
    same = recorded & (opened.host == opened.host[:, None])
    before = jnp.where(AGENTS[:, None] > AGENTS, same, False).sum(axis=1)
    index = (at(notes, opened.host) > 0).sum(axis=0) + before
    host = jnp.where(recorded, opened.host, -1)
    places = np.arange(MAX_SUSPICIOUS)[:, None, None]
    for agent in range(NUM_RED):
        here = (host[agent] == HOSTS) & (places == index[agent])
        notes = jnp.where(here, opened.pid[agent], notes)
    return notes, (recorded & (index >= MAX_SUSPICIOUS)).sum()
