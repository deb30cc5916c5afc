"""Effects of red's actions, all six agents at once.

Agents can only meet on a host by scanning or exploiting server 0 of each other's zones: alerts commute, and the pids
of sessions opened on one host follow the order of the agents. Ported from `DiscoverNetworkServices.py`,
`ExploitRemoteService.py`, `ExploitActions/`, `PrivilegeEscalate.py`, `Impact.py` and `DegradeServices.py`;
QUIRKS.md: Q8 to Q19, Q21, Q22, Q29, Q37, Q38, Q44.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16, UInt32

from .constants import (
    DEGRADATION,
    MAX_REPEATED,
    MAX_SERVERS,
    MAX_SUSPICIOUS,
    NUM_RED,
    Decoy,
    Exploit,
    Port,
    RedAction,
    Service,
    Subnet,
)
from .draws import Draws, highest, pid_step, sample_index
from .games import Game
from .hosts import at, has_orphan, own_pids
from .layout import (
    AGENTS,
    HOSTS,
    ZONES,
    bit,
    foreign_zone,
    holds,
    host_of_target,
    hosts_of,
    is_foreign,
    once,
    select,
    slot_of,
    union,
    unpack,
    words_of,
    zone_of,
)
from .routing import OWNER, is_blocked
from .sessions import Acting, Opened, Phished, find, id_set
from .sets import BitSet
from .state import Hosts, PackedNetwork, Red, Sessions

_HAS_OT_SERVICES = np.isin(AGENTS, OWNER[[Subnet.OZA, Subnet.OZB]])
"""Agents whose zone is operational."""


class RedOrder(eqx.Module):
    """The red actions that take effect in a step; `kind` is IN_PROGRESS if there is none."""

    kind: UInt8[Array, "red"]
    target: UInt8[Array, "red"]
    session: UInt8[Array, "red"]
    subnet: UInt8[Array, "red"]


class World(eqx.Module):
    """The state in which red acts, after blue and green."""

    hosts: Hosts
    network: PackedNetwork
    blocked: Bool[Array, "subnet subnet"]
    sessions: Sessions
    """Without those that blue killed and without those phished in this step."""
    alive: BitSet
    """[red] ids of `sessions`."""
    phished: Phished


class Results(eqx.Module):
    """Flags of the agents whose actions succeeded, by what red learns from them."""

    swept: Bool[Array, "red"]
    scanned: Bool[Array, "red"]
    exploited: Bool[Array, "red"]
    escalated: Bool[Array, "red"]
    disclosed: Bool[Array, "red"]
    """The escalation showed the host's links."""


class Target(eqx.Module):
    """The hosts of the agents' targets."""

    host: Int32[Array, "red"]
    words: UInt32[Array, "red zone"]
    """Each agent's target as a set of hosts."""
    services: Bool[Array, "service red"]
    decoyed: Bool[Array, "decoy red"]
    orphaned: Bool[Array, "red"]
    suspicious_orphans: Int32[Array, "red"]
    """Number of orphans that Remove will kill."""
    pid: UInt16[Array, "red"]
    """Largest pid on the host."""
    own: Bool[Array, "red id"]
    """The agent's sessions there."""

    def where(self, do: Bool[Array, "red"]) -> UInt32[Array, "zone"]:
        """The targets of some agents as a set of hosts."""
        return union(jnp.where(do[:, None], self.words, np.uint32(0)), 0)


def look(order: RedOrder, world: World) -> Target:
    """Gather the data of the target hosts."""
    host, sessions, phished = host_of_target(order.target), world.sessions, world.phished
    there = at(world.hosts, host)
    on_host = sessions.host == host.astype(jnp.uint8)[:, None, None]
    pid = jnp.where(on_host, sessions.pid, 0).max(axis=(1, 2))
    new = jnp.where(
        holds(phished.opened, host), phished.pid.at[zone_of(host), slot_of(host) - MAX_SERVERS].get(mode="clip"), 0
    )
    return Target(
        host=host,
        words=words_of(host),
        services=holds(world.network.services, host),
        decoyed=there.decoy_pid > 0,
        orphaned=has_orphan(there),
        suspicious_orphans=(there.suspicious_orphan_pid > 0).sum(axis=0),
        pid=jnp.stack([pid, new, own_pids(there)]).max(axis=0),
        own=sessions.host == host.astype(jnp.uint8)[:, None],
    )


def open_ports(target: Target) -> Bool[Array, "port red"]:
    """Ports that a scan stores: only those of decoys, since genuine ones never change."""
    http = target.decoyed[Decoy.APACHE] | target.decoyed[Decoy.VSFTPD] | target.orphaned
    scanned = jnp.ones_like(http)
    return jnp.stack([scanned, http, target.decoyed[Decoy.TOMCAT], target.decoyed[Decoy.HARAKA]])


def recall(red: Red, order: RedOrder, alive: BitSet) -> Bool[Array, "port red"]:
    """Ports of the targets stored by the acting sessions in their own last scans (Q10)."""
    own = at(red.scans, host_of_target(order.target))
    zone = jnp.maximum(foreign_zone(order.target), 0)
    low, high = (x.at[:, AGENTS, zone].get(mode="clip") for x in (red.foreign_scans.low, red.foreign_scans.high))
    abroad = is_foreign(order.target)
    memory = own.where(~abroad) | BitSet(low, high).where(abroad)
    return (memory & alive).contains(order.session)


class Scan(eqx.Module):
    """Results of service discovery."""

    done: Bool[Array, "red"]
    loud: Bool[Array, "red"]
    """Detected by chance: the genuine services raise alerts, too."""
    noticed: Bool[Array, "red"]
    """The target raises connection alerts; a decoy always does (Q18)."""


def scan(
    order: RedOrder, acting: Acting, blocked: Bool[Array, "red"], target: Target, game: Game, draws: Draws
) -> Scan:
    """AggressiveServiceDiscovery and StealthServiceDiscovery."""
    aggressive = order.kind == RedAction.AGGRESSIVE_SERVICE_DISCOVERY
    rate = jnp.where(aggressive, game.aggressive_detection, game.stealth_detection)
    done = aggressive | (order.kind == RedAction.STEALTH_SERVICE_DISCOVERY)
    done = done & acting.alive & acting.abstract & ~blocked
    loud = done & (draws.detection <= rate)
    return Scan(*once(jnp.stack([done, loud, loud | (done & (union(target.decoyed, 0) | target.orphaned))])))


def select_exploit(
    memory: Bool[Array, "port red"], services: Bool[Array, "service red"], draws: Draws
) -> Bool[Array, "exploit red"]:
    """A uniform choice among all candidates but the heaviest; the heaviest if it is alone (Q11).

    By ascending weight: SSH (port 22, always open), HTTP (80), HTTPS (443), SQL (3390 and one of 80, 443), Haraka (25).
    """
    http = services[Service.APACHE] | memory[Port.HTTP]
    https = memory[Port.HTTPS]
    sql = services[Service.MYSQL] & (http | https)
    haraka = services[Service.SMTP] | memory[Port.SMTP]
    candidates = jnp.stack([jnp.ones_like(http), http & (https | sql | haraka), https & (sql | haraka), sql & haraka])
    return highest(candidates, draws.exploit)


class Attack(eqx.Module):
    """Results of the exploits of a step."""

    opened: Opened
    brute_force: Bool[Array, "red"]
    """SSH brute force: connection alerts on the target."""
    decoy_hits: Bool[Array, "2 red"]
    """HTTP and HTTPS file inclusions that meet a decoy: connection alerts on the target."""
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
    detection: Float[Array, ""],
    draws: Draws,
) -> Attack:
    """ExploitRemoteService: SSH brute force and SQL injection succeed; all others only trigger decoys (Q13).

    `detection` is the probability of each alert by chance.
    """
    do = (order.kind == RedAction.EXPLOIT_REMOTE_SERVICE) & acting.alive & acting.abstract & ~blocked
    chosen = once(do & memory[Port.SCANNED] & select_exploit(memory, target.services, draws))
    ssh, sql = chosen[Exploit.SSH_BRUTE_FORCE], chosen[Exploit.SQL_INJECTION]
    done = ssh | sql
    step = jnp.where(done, pid_step(draws.session_pid), 0)
    together = (target.host == target.host[:, None]) & (AGENTS[:, None] >= AGENTS)
    pid = target.pid + jnp.where(together, step, 0).sum(axis=1, dtype=jnp.uint16)
    webserver = ~target.services[Service.APACHE] & open_ports(target)[Port.HTTP]
    return Attack(
        opened=Opened(done, target.host, pid),
        brute_force=ssh,
        decoy_hits=jnp.stack(
            [chosen[Exploit.HTTP_RFI] & webserver, chosen[Exploit.HTTPS_RFI] & target.decoyed[Decoy.TOMCAT]]
        ),
        source_connection=ssh & (draws.source_detection < detection),
        process=ssh | (sql & (draws.detection < detection)),
    )


def escalate(
    order: RedOrder, acting: Acting, world: World, target: Target, draws: Draws
) -> tuple[BitSet, Bool[Array, "red"], Bool[Array, "red"]]:
    """PrivilegeEscalate by an abstract session: one of the agent's sessions on the host becomes root, unless one is.

    Returns the agents' root ids, the agents that succeeded, and those whose session became root.
    """
    phished = world.phished
    root = world.sessions.root
    own = id_set(target.own)
    rooted = (own & root).count() > 0
    in_zone = zone_of(target.host)[:, None] == ZONES
    # a phishing mail on the target in this very step; ids follow the order of the users
    new = holds(phished.opened, target.host)
    new_is_own = new & ~(in_zone & phished.visiting).any(axis=1)
    earlier = select(in_zone, phished.opened) & (bit(slot_of(target.host)) - 1)
    new_id = select(in_zone, phished.first_id) + jax.lax.population_count(earlier).astype(jnp.int32)
    own = own | BitSet.single(new_id).where(new_is_own)
    do = order.kind == RedAction.PRIVILEGE_ESCALATE
    count = own.count()
    rooted, lifts = once(jnp.stack([rooted, do & acting.alive & acting.abstract & ~rooted & (count > 0)]))
    chosen = BitSet.single(own.nth(sample_index(draws.escalate, count))).where(lifts)
    return root | chosen, (do & rooted) | lifts, lifts


def disrupt(order: RedOrder, acting: Acting, world: World, target: Target) -> tuple[Hosts, Bool[Array, "red"]]:
    """Impact and DegradeServices, on hosts where the agent has root.

    Returns the hosts after DegradeServices, and the agents whose Impact stops OTService.
    """
    hosts = world.hosts
    rooted = (id_set(target.own) & world.sessions.root).count() > 0
    impact = rooted & (order.kind == RedAction.IMPACT) & acting.alive & _HAS_OT_SERVICES
    degrade = unpack(target.where(rooted & (order.kind == RedAction.DEGRADE_SERVICES)))

    def worn(reliability):
        return jnp.where(degrade, jnp.maximum(reliability, DEGRADATION) - DEGRADATION, reliability)

    hosts = replace(hosts, reliability=worn(hosts.reliability), decoy_reliability=worn(hosts.decoy_reliability))
    return hosts, impact


class RedStep(eqx.Module):
    """Results of red's actions in a step."""

    target: Target
    acting: Acting
    scan: Scan
    attack: Attack
    raised: Bool[Array, "red"]
    """Agents whose escalation made a session root."""
    impact: Bool[Array, "red"]
    """Agents whose Impact stopped OTService."""
    results: Results
    opened: Opened
    connection: UInt32[Array, "zone"]
    process: UInt32[Array, "zone"]
    recorded: Bool[Array, "red"]
    """Agents whose new session's pid blue records."""
    ports: Bool[Array, "port red"]
    remembers: Bool[Array, "red"]
    """Agents whose scan is stored: a visiting session loses its memory when it moves."""
    hosts: Hosts
    ot_stopped: UInt32[Array, "zone"]
    root: BitSet


def act(red: Red, world: World, order: RedOrder, game: Game, draws: Draws) -> RedStep:
    """All red actions that take effect in a step."""
    target = look(order, world)
    acting = find(world.sessions, world.alive, world.phished, order.session)
    cut_off = is_blocked(world.blocked, zone_of(acting.host), zone_of(target.host))
    scanned = scan(order, acting, cut_off, target, game, draws)
    memory = recall(red, order, world.alive)
    attack = exploit(order, acting, cut_off, target, memory, game.exploit_detection, draws)
    hosts, impact = disrupt(order, acting, world, target)
    root, escalated, raised = escalate(order, acting, world, target, draws)
    noticed = scanned.noticed | attack.brute_force | union(attack.decoy_hits, 0)
    return RedStep(
        target=target,
        acting=acting,
        scan=scanned,
        attack=attack,
        raised=raised,
        impact=impact,
        results=Results(
            swept=(order.kind == RedAction.DISCOVER_REMOTE_SYSTEMS) & acting.alive,
            scanned=scanned.done,
            exploited=attack.opened.done,
            escalated=escalated,
            disclosed=escalated & acting.alive,
        ),
        opened=attack.opened,
        connection=target.where(noticed) | hosts_of(acting.host, attack.source_connection),
        process=target.where(attack.process),
        recorded=attack.process,
        ports=open_ports(target),
        remembers=scanned.done & ~acting.visiting,
        hosts=hosts,
        ot_stopped=target.where(impact),
        root=root,
    )


def record_pids(
    suspicious_pids: UInt16[Array, "suspicious zone slot"], opened: Opened, recorded: Bool[Array, "red"]
) -> tuple[UInt16[Array, "suspicious zone slot"], Int32[Array, ""]]:
    """Blue's Monitor appends the pids of detected exploits. Also returns the number for which there was no room.

    A list of MAX_REPEATED takes no pid again that it has (PARITY.md).
    """
    recorded = recorded & (zone_of(opened.host) != Subnet.CON)
    noted, pid, host = jax.lax.optimization_barrier((at(suspicious_pids, opened.host), opened.pid, opened.host))
    count = (noted > 0).sum(axis=0)
    recorded &= ~((noted == pid).any(axis=0) & (count >= MAX_REPEATED))
    same = recorded & (opened.host == opened.host[:, None])
    index = count + (same & (AGENTS[:, None] > AGENTS)).sum(axis=1)
    host = jnp.where(recorded, opened.host, -1)
    places = np.arange(MAX_SUSPICIOUS)[:, None, None]
    for agent in range(NUM_RED):
        here = (host[agent] == HOSTS) & (places == index[agent])
        suspicious_pids = jnp.where(here, opened.pid[agent], suspicious_pids)
    return suspicious_pids, (recorded & (index >= MAX_SUSPICIOUS)).sum()
