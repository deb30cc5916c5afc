"""The raw observation of a step: a report of the actions of all sides, divided among the blue agents.

`observe` makes the report of a step, `tell` cuts it up: agent b gets its share and nothing else.
Every value that is told several times goes through a reduction (`layout.select`). A CPU computes a reduction once;
without one, all that leads to a value is computed again for each byte that is told.

Ported from `Monitor.py`, `Portscan.py`, `SSHBruteForce.py`, `ExploitAction.py`, `GreenAccessService.py` and
`SimulationController.py:step`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16, Int32, Integer, Shaped, UInt8, UInt16, UInt32, UInt64

from . import files, green
from .actions import BlueOrder
from .blue import BlueStep, put
from .constants import (
    HQ_BLUE,
    IN_PROGRESS,
    NO_HOST,
    NUM_BLUE,
    NUM_RED,
    NUM_ZONES,
    SLOTS,
    BlueAction,
    Decoy,
    Service,
    Subnet,
)
from .draws import Draws
from .green import GreenStep
from .hosts import at
from .layout import AGENTS, bit, holds, select, sets_of, union, zone_of
from .raw import OWN_ZONES, AttackKind, OpenPort, RawObservation, Success
from .red import RedStep
from .routing import owner_of
from .sessions import Acting, Phished
from .sets import BitSet
from .state import Evidence, State

_UPLINK = {Subnet.OZA: (Subnet.RZA,), Subnet.OZB: (Subnet.RZB,), Subnet.ADM: (Subnet.PAZ,), Subnet.OFF: (Subnet.PAZ,)}
"""Zones whose routers are not connected to the internet themselves."""
_MONITORED = np.uint32(0xFF & ~(1 << Subnet.CON))
"""Zones with a blue agent, as bits."""
_OWN = np.array([1 << zone for zone in range(Subnet.RZA, Subnet.ADM)] + [0b111 << Subnet.ADM], np.uint32)
"""[blue] own zones, as bits."""
_SHIFTS = np.array([0, 8, 16, 24, 0, 8, 16], np.uint32)
"""Bit offsets of an attack's columns within the two words of its row."""


_ON_THE_WAY = np.array([sum(1 << z for z in (zone, *_UPLINK.get(zone, ()))) for zone in range(NUM_ZONES)], np.uint64)
"""[zone] zones of the routers from a zone up to the internet, as bits."""


class Attacks(eqx.Module):
    """Noticed red actions, by red agent."""

    kind: Int32[Array, "red"]
    """raw.AttackKind; NONE if the action raises no connection alert at all."""
    target: Int32[Array, "red"]
    source: Int32[Array, "red"]
    ports: UInt32[Array, "red"]
    """Bits by raw.OpenPort."""
    on_80: Int32[Array, "red"]
    """Processes met on port 80."""
    reported: Bool[Array, "red"]
    """The source reports the brute force."""
    routers: UInt32[Array, "red"]
    """Monitored zones whose routers report it, as bits."""


class Report(eqx.Module):
    """Everything that blue is told of a step, for all agents together."""

    result: Int16[Array, "blue 8"]
    alerts: UInt32[Array, "6 zone"]
    attacks: Attacks
    new_host: Int32[Array, "red"]
    """Host of the process that an exploit is seen to start, NO_HOST without one."""
    new_pid: UInt16[Array, "red"]
    visits: UInt32[Array, "zone zone"]
    """[zone of the users, zone] servers with an alert, as green.visited has them."""


def observe(
    state: State, order: BlueOrder, defended: BlueStep, worked: GreenStep, phished: Phished, did: RedStep, draws: Draws
) -> tuple[Evidence | None, RawObservation | None]:
    """The evidence after a step, and the raw observations; None and None if blue sees the flat ones alone.

    `state` is the one before the step.
    """
    if state.evidence is None:
        return None, None
    left = after_blue(state.evidence, order, defended)
    report = Report(
        result=_results(state, order, defended),
        alerts=_alerts(worked, did),
        attacks=_attacks(state, left, defended, phished, did, draws),
        new_host=jnp.where(did.recorded, did.opened.host, NO_HOST),
        new_pid=did.opened.pid + _gap(state, did.opened.host),
        visits=green.visited(worked.visits),
    )
    return Evidence(files.update(left.files, defended.restored, did), left.orphans), tell(report)


def no_evidence() -> Evidence:
    """The evidence at the start of an episode."""
    return Evidence(files.none(), jnp.zeros((NUM_ZONES, SLOTS), jnp.uint8))


# What happened


def after_blue(evidence: Evidence, order: BlueOrder, defended: BlueStep) -> Evidence:
    """The number of plain orphans once blue has acted; files are left to `files.update`."""
    target = order.host.astype(jnp.int32)
    restores = order.kind == BlueAction.RESTORE
    count = at(evidence.orphans, target)
    # the count stops at 255, which takes 510 steps of nothing but deployments
    count = jnp.where(restores, 0, jnp.minimum(count, 254) + defended.deployed.orphaned).astype(jnp.uint8)
    changes = restores | defended.deployed.orphaned
    return Evidence(evidence.files, put(evidence.orphans, count, jnp.where(changes, target, NO_HOST)))


def _gap(state: State, host: Int32[Array, "n"]) -> UInt16[Array, "n"]:
    """Difference between a host's largest pid at reset and the pid of blue's session there."""
    return state.scenario.pid_gap.at[host].get(mode="clip").astype(jnp.uint16)


def _results(state: State, order: BlueOrder, defended: BlueStep) -> Int16[Array, "blue 8"]:
    """Blue's own actions, by raw.ResultColumn."""
    kind, deployed = order.kind, defended.deployed
    busy, on_host = kind == IN_PROGRESS, order.host != NO_HOST
    allows, blocks = kind == BlueAction.ALLOW_TRAFFIC_ZONE, kind == BlueAction.BLOCK_TRAFFIC_ZONE
    was_blocked = state.blocked.at[order.to, order.source].get(mode="clip")
    done = jnp.where(allows, was_blocked, jnp.where(blocks, ~was_blocked, True))
    success = jnp.where(kind == BlueAction.SLEEP, Success.UNKNOWN, jnp.where(done, Success.TRUE, Success.FALSE))
    deploys, host = kind == BlueAction.DEPLOY_DECOY, order.host.astype(jnp.int32)

    def shown(value, where):
        return jnp.where(where & ~busy, value.astype(jnp.int16), jnp.int16(-1))

    columns = [
        jnp.where(busy, Success.IN_PROGRESS, success).astype(jnp.int16),
        shown(kind, True),
        shown(order.host, on_host),
        shown(order.to, allows | blocks),
        shown(order.source, allows | blocks),
        shown(files.found(state.evidence.files, host), kind == BlueAction.ANALYSE),
        shown(select(deployed.kind.T, np.arange(len(Decoy))), deploys),
        shown(deployed.pid + _gap(state, host), deploys),
    ]
    return jnp.stack(columns, axis=1)


def _alerts(worked: GreenStep, did: RedStep) -> UInt32[Array, "6 zone"]:
    """Sets of hosts by raw.Alert."""
    attack = did.attack
    on_target = jnp.stack([attack.process, attack.brute_force, union(attack.decoy_hits, 0), did.scan.noticed])
    words = sets_of(did.target.host, on_target)
    source = sets_of(did.acting.host, attack.source_connection[None])
    return jnp.concatenate([worked.process[None], words, source])


def _attacks(state: State, left: Evidence, defended: BlueStep, phished: Phished, did: RedStep, draws: Draws) -> Attacks:
    """The scans, brute forces and decoy hits of a step."""
    attack, scan, target = did.attack, did.scan, did.target
    http, https = attack.decoy_hits
    kind = jnp.where(scan.noticed, AttackKind.SCAN, AttackKind.NONE)
    kind = jnp.where(attack.brute_force, AttackKind.BRUTE_FORCE, jnp.where(http | https, AttackKind.DECOY_HIT, kind))
    source, host = _source(did.acting, phished), target.host
    between = routers_between(zone_of(source), zone_of(host))
    passes = attack.brute_force & (source != host)
    ports, on_80 = _open_ports(state, left, defended, did)
    hit = http.astype(jnp.uint32) << OpenPort.HTTP | https.astype(jnp.uint32) << OpenPort.HTTPS
    return Attacks(
        kind=kind.astype(jnp.int32),
        target=host,
        source=source,
        ports=jnp.where(scan.noticed, ports, hit),
        on_80=jnp.where(scan.noticed, on_80, 0),
        reported=attack.source_connection & (zone_of(source) != Subnet.CON),
        routers=jnp.where(
            passes, between & _detecting(draws.source_detection, state.scenario.game.exploit_detection), np.uint32(0)
        ),
    )


def routers_between(source: Integer[Array, "*n"], target: Integer[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Zones whose monitored routers lie between two different hosts of two zones, as bits.

    The way leads up towards the internet and down again; it turns at the first router that both have in common.
    """
    up, down = (_lookup(_ON_THE_WAY, zone) for zone in (source, target))
    return jnp.where(source == target, bit(source), up | down) & _MONITORED


def _lookup(table: UInt64[np.ndarray, "8"], index: Integer[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Bytes out of a constant table, which costs less than a gather."""
    low, high = (np.uint32((half << 8 * np.arange(4, dtype=np.uint64)).sum()) for half in (table[:4], table[4:]))
    word = jnp.where(index < 4, low, high)
    return word >> (8 * (index & 3)).astype(jnp.uint32) & 0xFF


def _detecting(u: Float[Array, "red"], rate: Float[Array, ""]) -> UInt32[Array, "red"]:
    """Zones whose routers detect a brute force that passes them, as bits: one coin of `rate` after the other.

    A uniform decides about the source first. Divided by the rate if below it, or what is above it by the rest, it is a
    uniform again.
    """
    zones = jnp.zeros(NUM_RED, jnp.uint32)
    for zone in range(Subnet.RZA, NUM_ZONES):
        u = jnp.where(u < rate, u / rate, (u - rate) / (1 - rate))
        zones |= jnp.where(u < rate, np.uint32(1 << zone), np.uint32(0))
    return zones


def _source(acting: Acting, phished: Phished) -> Int32[Array, "red"]:
    """Hosts of the acting sessions, those phished in this very step included."""
    zone = zone_of(acting.host)
    slot = BitSet.of_word(phished.opened.at[zone].get(mode="clip")).nth(acting.rank)
    return jnp.where(acting.rank >= 0, zone * SLOTS + slot, acting.host)


def _open_ports(
    state: State, left: Evidence, defended: BlueStep, did: RedStep
) -> tuple[UInt32[Array, "red"], Int32[Array, "red"]]:
    """Ports that noticed scans show, as bits of raw.OpenPort, and the number of processes on port 80 (Q18)."""
    target, loud = did.target, did.scan.loud
    apache, tomcat, haraka, vsftpd = target.decoyed
    orphans = at(left.orphans, target.host) + target.suspicious_orphans
    decoys_80 = apache.astype(jnp.int32) + vsftpd + orphans
    on_80 = decoys_80 + (loud & target.services[Service.APACHE])
    ports = [
        loud,
        loud & _has_ot(state, defended, did),
        on_80 > 0,
        tomcat,
        loud & target.services[Service.MYSQL],
        haraka | (loud & target.services[Service.SMTP]),
    ]
    return _word(ports, 1), on_80


def _word(parts: list[Shaped[Array, "*n"]], bits: int) -> UInt32[Array, "*n"]:
    """Numbers of so many bits side by side in a word, the first one lowest."""
    shifts = bits * np.arange(len(parts), dtype=np.uint32)
    shifted = jnp.stack([part.astype(jnp.uint32) for part in parts], axis=-1) << shifts
    return jax.lax.reduce(shifted, np.uint32(0), jax.lax.bitwise_or, (shifted.ndim - 1,))


def _has_ot(state: State, defended: BlueStep, did: RedStep) -> Bool[Array, "red"]:
    """True if OTService still listens at the agent's turn: agents with lower numbers may have stopped it."""
    host = did.target.host
    stopped = holds(state.ot_stopped & ~defended.restored, host)
    just_now = did.impact & (host[:, None] == host) & (AGENTS[:, None] > AGENTS)
    operational = (zone_of(host) == Subnet.OZA) | (zone_of(host) == Subnet.OZB)
    return operational & ~stopped & ~just_now.any(axis=1)


# Who is told


def tell(report: Report) -> RawObservation:
    """Cut a report up by agent."""
    alerts, visits = ([_of_zones(words, k) for k in range(OWN_ZONES)] for words in (report.alerts, report.visits))
    visits = jnp.stack(visits, axis=1)
    return RawObservation(
        result=report.result,
        alerts=jnp.stack(alerts, axis=1).astype(jnp.uint16),
        attacks=_attack_rows(report.attacks),
        pids=_pid_rows(report),
        visits=(visits[:, :, None] >> np.array([[0], [green.FALSE_ALARM]], np.uint32) & 0xFF).astype(jnp.uint8),
    )


def _of_zones(words: UInt32[Array, "*n 8"], k: int) -> UInt32[Array, "blue *n"]:
    """Words of each agent's k-th own zone; zero without one."""
    words = jnp.moveaxis(words[..., Subnet.RZA + k :][..., :NUM_BLUE], -1, 0)
    has = (np.arange(NUM_BLUE) == HQ_BLUE) | (k == 0)
    return jnp.where(has.reshape(-1, *[1] * (words.ndim - 1)), words, np.uint32(0))


def _zone_bit(host: Int32[Array, "red"], do: Bool[Array, "red"]) -> UInt32[Array, "red"]:
    return jnp.where(do, bit(zone_of(host)), np.uint32(0))


def _attack_rows(attacks: Attacks) -> UInt8[Array, "blue row 7"]:
    """Each agent's rows of attacks: those on own hosts, and brute forces that an own source or router reports.

    On the way a row is two words of four bytes: kind, target, source, ports; then processes on port 80, and as sets of
    zones where the source reports, whose routers report, and who is told.
    """
    reported = _zone_bit(attacks.source, attacks.reported)
    told = _zone_bit(attacks.target, attacks.kind != AttackKind.NONE) | reported | attacks.routers
    told = told & _MONITORED
    one = _word([attacks.kind, attacks.target, attacks.source, attacks.ports], 8)
    two = _word([attacks.on_80, reported, attacks.routers, told], 8)
    # the words are reductions and computed once; rows from the attacks themselves cost a step 9 % more CPU time
    row = _row(one, two >> 24 > 0)
    one, two = select(row, one), select(row, two)
    own = _OWN[:, None]
    mine = (two >> 24) & own != 0
    two = (two & 0xFF) | jnp.where((two >> 8) & own != 0, np.uint32(1 << 8), np.uint32(0)) | (two & own << 16)
    words = jnp.where(np.arange(7) < 4, one[:, None], two[:, :, None])
    return jnp.where(mine[..., None], words >> _SHIFTS & 0xFF, np.uint32(0)).astype(jnp.uint8)


def _row(word: UInt32[Array, "red"], told: Bool[Array, "red"]) -> Bool[Array, "row red"]:
    """The row of each attack, given as its first word: that of the owner of the source's zone.

    A session that was phished in this very step may act for another agent (Q49). If its row is taken it gets that of
    the other agent.
    """
    owner = owner_of(zone_of(word >> 16 & 0xFF))
    taken = ((owner[:, None] == owner) & (AGENTS[:, None] > AGENTS) & told).any(axis=1)
    return told & (jnp.where(taken, AGENTS, owner) == AGENTS[:, None])


def _pid_rows(report: Report) -> UInt16[Array, "blue row 2"]:
    """Each agent's new processes, by ascending host and pid."""
    host, pid = report.new_host, report.new_pid.astype(jnp.int32)
    owner = jnp.minimum(zone_of(host) - Subnet.RZA, HQ_BLUE)
    key = jnp.where(host == NO_HOST, -1, host * 2**16 + pid)
    earlier = (owner[:, None] == owner) & (key < key[:, None]) & (key >= 0)
    place = jnp.where(key < 0, -1, owner * NUM_RED + earlier.sum(axis=1))
    rows = select(place == np.arange(NUM_BLUE * NUM_RED)[:, None], key.astype(jnp.uint32)).reshape(NUM_BLUE, NUM_RED)
    return (rows[..., None] >> np.array([16, 0], np.uint32) & 0xFFFF).astype(jnp.uint16)
