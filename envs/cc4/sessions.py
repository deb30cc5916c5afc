"""Red sessions: their ids, where they are, and how they change hands.

Ids are unique within a red agent and handed out as the largest live one plus 1, so they are re-used. A session on a
host of a zone that its agent does not own exists only within a step: it is then *visiting*, and moves to the owner of
the zone at the end of the step. Ported from `State.py:add_session`, `RedSessionCheck.py` and
`SimulationController.py:different_subnet_agent_reassignment`; quirks Q6 to Q9, Q31, Q49.
"""

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt8, UInt16

from .constants import (
    GENERATION_ORDER,
    MAX_IDS,
    NO_ID,
    NUM_HOSTS,
    NUM_RED,
    NUM_ZONES,
    SESSION_SLOTS,
    SLOTS,
)
from .draws import place
from .routing import by_zone, red_to_hosts, red_to_zones, zones_to_hosts, zones_to_red
from .sets import Set
from .state import Hosts, Sessions

OWNER = np.minimum(np.arange(NUM_ZONES), NUM_RED - 1)
_RANK = np.argsort(GENERATION_ORDER)
EARLIER = _RANK[None, :] < _RANK[:, None]
"""[zone, other]: the other zone's green agents act before this zone's."""
_LOWER = np.arange(NUM_RED) < np.arange(NUM_RED)[:, None]
_add = jnp.add


def count_before(flags: Bool[Array, "k *n"]) -> Int32[Array, "k *n"]:
    """How many of the entries before are true, along axis 0."""
    counts = [jnp.zeros(flags.shape[1:], jnp.int32)]
    for row in flags[:-1]:
        counts.append(counts[-1] + row)
    return jnp.stack(counts)


def live_ids(sessions: Sessions) -> Set:
    """[red] the ids that exist."""
    ids = Set.single(sessions.id)

    def union(words):
        per_zone = jax.lax.reduce(by_zone(words), np.uint32(0), jax.lax.bitwise_or, (0, 2))
        return zones_to_red(per_zone, jnp.bitwise_or)

    return Set(union(ids.low), union(ids.high))


def occupied(sessions: Sessions) -> Bool[Array, "slot *host"]:
    """Which slots hold a session."""
    return sessions.id != NO_ID


def largest_pid(hosts: Hosts, sessions: Sessions) -> UInt16[Array, "*host"]:
    """The largest pid of a host, as an offset; new ones lie above it (`Host.py:create_pid`)."""
    pids = jnp.concatenate([sessions.pid, hosts.decoy_pid, hosts.suspicious_orphan_pid, hosts.orphan_pid[None]])
    return pids.max(axis=0)


def close(sessions: Sessions, gone: Bool[Array, "slot *host"]) -> Sessions:
    """End sessions."""
    return Sessions(
        id=jnp.where(gone, NO_ID, sessions.id).astype(jnp.uint8),
        pid=jnp.where(gone, 0, sessions.pid).astype(jnp.uint16),
        abstract=sessions.abstract & ~gone,
        root=sessions.root & ~gone,
    )


class Phished(eqx.Module):
    """The sessions that phishing opened in this step, zone by zone; within a zone in slot order."""

    hosts: Bool[Array, "host"]
    count: Int32[Array, "zone"]
    sponsor: Int32[Array, "zone"]
    """The agent that gets them."""
    first_id: Int32[Array, "zone"]
    """Id of the zone's first one."""
    visiting: Bool[Array, "zone"]
    """The sponsor does not own the zone."""
    next_id: Int32[Array, "red"]
    """The id after the highest, once phishing is done."""


def _before(counts: Int32[Array, "zone"], same: Bool[Array | np.ndarray, "zone zone"]) -> Int32[Array, "zone"]:
    return jnp.where(EARLIER & same, counts, 0).sum(axis=1)


def _sponsors(
    counts: Int32[Array, "zone"], infected: Int32[Array, "zone"], u: Float[Array, "zone"]
) -> Int32[Array, "zone"]:
    """Which agent gets a zone's phished sessions (`PhishingEmail.py:_create_new_session`).

    The owner if red holds a host there; else the holder of a uniformly drawn infected host of the network, among them
    the ones phished in zones earlier in this step.
    """
    held = jnp.cumsum(zones_to_red(infected, _add))
    earlier = _before(counts, np.ones((NUM_ZONES, NUM_ZONES), bool))
    drawn = place(u, held[-1] + earlier)
    holder = (held <= drawn[:, None]).sum(axis=1)
    of_this_step = drawn >= held[-1]
    new = drawn - held[-1]
    stop = earlier + counts
    source = jnp.argmax((earlier <= new[:, None]) & (new[:, None] < stop), axis=1)
    sponsor = jnp.where(infected > 0, OWNER, holder).astype(jnp.int32)
    follows = (infected == 0) & of_this_step
    for _ in range(2):  # a chain of three new footholds in one step does not occur in practice
        sponsor = jnp.where(follows, sponsor[source], sponsor)
    return sponsor


def phish(
    sessions: Sessions,
    hosts: Bool[Array, "host"],
    pids: UInt16[Array, "host"],
    alive: Set,
    u: Float[Array, "zone"],
) -> tuple[Sessions, Phished]:
    """Open an abstract session on every phished host, none of which may hold one."""
    counts = by_zone(hosts).sum(axis=1, dtype=jnp.int32)
    infected = by_zone(occupied(sessions).any(axis=0)).sum(axis=1, dtype=jnp.int32)
    sponsor = _sponsors(counts, infected, u)
    next_id = alive.after_highest()
    first_id = next_id[sponsor] + _before(counts, sponsor[:, None] == sponsor)
    gained = jnp.where(sponsor[:, None] == np.arange(NUM_RED), counts[:, None], 0).sum(axis=0)
    phished = Phished(hosts, counts, sponsor, first_id, (sponsor != OWNER) & (counts > 0), next_id + gained)
    opened = (np.arange(SESSION_SLOTS)[:, None] == 0) & hosts
    return (
        Sessions(
            id=jnp.where(opened, _phished_ids(phished, first_id), sessions.id),
            pid=jnp.where(opened, pids, sessions.pid),
            abstract=sessions.abstract | opened,
            root=sessions.root & ~opened,
        ),
        phished,
    )


def _phished_ids(phished: Phished, first_id: Int32[Array, "zone"]) -> UInt8[Array, "host"]:
    bits = jnp.where(by_zone(phished.hosts), 1 << np.arange(SLOTS), 0).sum(axis=1, dtype=jnp.uint32)
    below = (1 << (np.arange(NUM_HOSTS, dtype=np.uint32) % SLOTS)) - 1
    rank = jax.lax.population_count(zones_to_hosts(bits) & below)
    return (zones_to_hosts(first_id) + rank).astype(jnp.uint8)


class Acting(eqx.Module):
    """The acting sessions of the six red agents, as they are when red's turn comes."""

    alive: Bool[Array, "red"]
    abstract: Bool[Array, "red"]
    host: Int32[Array, "red"]
    visiting: Bool[Array, "red"]
    """It will have moved to another agent at the end of the step."""


def find(sessions: Sessions, phished: Phished, ids: UInt8[Array, "red"]) -> Acting:
    """Look the acting sessions up, those still visiting elsewhere included."""
    match = (sessions.id == red_to_hosts(ids)) & ~zones_to_hosts(phished.visiting)
    code = jnp.where(match, 2 * np.arange(NUM_HOSTS) + sessions.abstract + 1, 0).max(axis=0)
    code = zones_to_red(by_zone(code).max(axis=1), jnp.maximum).astype(jnp.int32)
    position = ids[:, None].astype(jnp.int32) - phished.first_id
    visiting = phished.visiting & (phished.sponsor == np.arange(NUM_RED)[:, None])
    visiting = visiting & (position >= 0) & (position < phished.count)
    abroad = visiting.any(axis=1)
    return Acting(
        alive=(code > 0) | abroad,
        abstract=(code % 2 == 0) & (code > 0) | abroad,
        host=jnp.where(abroad, jnp.argmax(visiting, axis=1) * SLOTS, (code - 1) // 2),
        visiting=abroad,
    )


class Opened(eqx.Module):
    """The sessions that successful exploits open in this step, at most one per red agent."""

    done: Bool[Array, "red"]
    host: Int32[Array, "red"]
    pid: UInt16[Array, "red"]


class HandOver(eqx.Module):
    """Ids after visiting sessions have moved to the owners of their zones."""

    exploit_id: Int32[Array, "red"]
    phished_id: Int32[Array, "zone"]
    """First id of the phished sessions of a zone."""
    moved: Bool[Array, "red"]
    """The agent's exploit opened its session in a foreign zone."""
    new_abstract: Set
    """[red]"""
    new: Set
    """[red]"""


def hand_over(phished: Phished, opened: Opened) -> HandOver:
    """Which ids the sessions of this step end up with.

    Visiting sessions move in the order of their old agents, an agent's phished ones before its exploit's. Each gets
    the id after the highest of its new agent, whose own visiting sessions count until their turn comes.
    """
    agents = np.arange(NUM_RED)
    owner = jnp.minimum(opened.host // SLOTS, NUM_RED - 1)
    moved = opened.done & (owner != agents)
    stays = opened.done & ~moved
    leaving = jnp.where(phished.visiting, phished.count, 0)
    resident = jnp.where(phished.visiting, 0, phished.count)
    # how many arrive at the same new agent before a zone's phished sessions, and before an exploit's
    sponsor, to_same_zone = phished.sponsor, OWNER[:, None] == OWNER
    first = (sponsor < sponsor[:, None]) | ((sponsor == sponsor[:, None]) & EARLIER)
    exploit_to_zone = moved & (owner == OWNER[:, None])
    zone_rank = jnp.where(first & to_same_zone, leaving, 0).sum(axis=1)
    zone_rank += (exploit_to_zone & (agents < sponsor[:, None])).sum(axis=1)
    zone_to_exploit = (owner[:, None] == OWNER) & (sponsor <= agents[:, None])
    exploit_rank = jnp.where(zone_to_exploit, leaving, 0).sum(axis=1)
    exploit_rank += (moved & (owner == owner[:, None]) & (_LOWER)).sum(axis=1)
    # the first id that a new agent gives out
    arrives = (leaving > 0) & (agents[:, None] == OWNER)
    exploit_arrives = moved & (owner == agents[:, None])
    received = zones_to_red(leaving, _add) + exploit_arrives.sum(axis=1)
    from_lower = (arrives & (sponsor < agents[:, None])).any(axis=1)
    from_lower |= (exploit_arrives & (_LOWER)).any(axis=1)
    after_all = phished.next_id + opened.done
    after_own = _after_own(phished, resident, stays)
    base = jnp.where(from_lower, after_all, after_own)
    ids = Set.span(base, received)
    own = Set.span(phished.first_id, resident)
    own = Set(zones_to_red(own.low, jnp.bitwise_or), zones_to_red(own.high, jnp.bitwise_or))
    exploit_id = jnp.where(moved, base[owner] + exploit_rank, phished.next_id)
    return HandOver(
        exploit_id=exploit_id,
        phished_id=jnp.where(phished.visiting, red_to_zones(base) + zone_rank, phished.first_id),
        moved=moved,
        new_abstract=ids | own,
        new=ids | own | Set.single(phished.next_id).where(stays),
    )


def _after_own(
    phished: Phished, resident: Int32[Array, "zone"], stays: Bool[Array, "red"]
) -> Int32[Array, "red"]:
    """The id after the highest of an agent without its visiting sessions."""
    gained = jnp.where(phished.sponsor[:, None] == np.arange(NUM_RED), phished.count[:, None], 0).sum(axis=0)
    before = phished.next_id - gained
    stop = jnp.where(resident > 0, phished.first_id + resident, 0)
    after = jnp.maximum(before, zones_to_red(stop, jnp.maximum))
    return jnp.where(stays, phished.next_id + 1, after)


def open_exploited(
    sessions: Sessions, phished: Phished, opened: Opened, moves: HandOver
) -> tuple[Sessions, Int32[Array, ""]]:
    """Write the sessions of this step with their final ids. Returns the number that found no room, too."""
    visiting = phished.hosts & zones_to_hosts(phished.visiting)
    moved_here = visiting & (np.arange(SESSION_SLOTS)[:, None] == 0)
    ids = jnp.where(moved_here, _phished_ids(phished, moves.phished_id), sessions.id)
    pids, abstract = sessions.pid, sessions.abstract
    together = opened.done & (opened.host == opened.host[:, None])
    arrival = (together & _LOWER).sum(axis=1)
    here = opened.done[:, None] & (opened.host[:, None] == np.arange(NUM_HOSTS))
    free = ids == NO_ID
    rank = count_before(free)
    for agent in range(NUM_RED):
        put = here[agent] & free & (rank == arrival[agent])
        ids = jnp.where(put, moves.exploit_id[agent], ids)
        pids = jnp.where(put, opened.pid[agent], pids)
        abstract = abstract | (put & moves.moved[agent])
    room = free.sum(axis=0)
    overflow = (here & (arrival[:, None] >= room)).sum() + (opened.done & (moves.exploit_id >= MAX_IDS)).sum()
    overflow += ((phished.count > 0) & (moves.phished_id + phished.count > MAX_IDS)).sum()
    written = replace(sessions, id=ids.astype(jnp.uint8), pid=pids.astype(jnp.uint16), abstract=abstract)
    return written, overflow


class Renumbered(eqx.Module):
    """Which session of an agent that had lost its session 0 becomes the new one."""

    done: Bool[Array, "red"]
    old_id: Int32[Array, "red"]


def renumber(sessions: Sessions, alive: Set, u: Float[Array, "red"]) -> tuple[Sessions, Renumbered]:
    """RedSessionCheck: agents without a session 0 renumber one of theirs to 0; it keeps all else (Q9)."""
    count = alive.count()
    done = (count > 0) & ~alive.has(jnp.zeros(NUM_RED, jnp.int32))
    old_id = alive.nth(place(u, count))
    match = sessions.id == red_to_hosts(jnp.where(done, old_id, NO_ID - 1).astype(jnp.uint8))
    return replace(sessions, id=jnp.where(match, 0, sessions.id).astype(jnp.uint8)), Renumbered(done, old_id)


def learn_ids(known: Set, sessions: Sessions, opened: Opened, moves: HandOver, renumbered: Renumbered) -> Set:
    """Abstract ids join the known ones for good (`ActionSpace.py:update`).

    An id that was renumbered at once is not seen, unless it is the one that a foreign exploit's session arrived with.
    """
    agents = np.arange(NUM_RED)
    owner = jnp.minimum(opened.host // SLOTS, NUM_RED - 1)
    arrived = moves.moved & (owner == agents[:, None]) & (moves.exploit_id == renumbered.old_id[:, None])
    unseen = Set.single(renumbered.old_id).where(renumbered.done & ~arrived.any(axis=1))
    zero = by_zone(((sessions.id == 0) & sessions.abstract).any(axis=0)).any(axis=1)
    zero = Set.single(jnp.zeros(NUM_RED, jnp.int32)).where(zones_to_red(zero, jnp.logical_or))
    return known | (moves.new_abstract & ~unseen) | zero


class Scans(eqx.Module):
    """What sessions have just scanned, by agent."""

    session: Integer[Array, "red"]
    ports: Bool[Array, "port red"]
    """constants.Port found open by the scan."""


def update_scans(
    memory: Set, spread: Callable, scanned: Bool[Array, "*target"], scans: Scans, gone: Set, renumbered: Renumbered
) -> Set:
    """Scan memory after a step: of dead sessions none, of scanned targets the new, and a renumbered session's moved.

    `spread` repeats values of the red agents over their targets.
    """

    def over(sets: Set) -> Set:
        return Set(spread(sets.low), spread(sets.high))

    memory = memory & ~over(gone)
    bit = over(Set.single(scans.session)).where(scanned)
    memory = (memory & ~bit) | bit.where(spread(scans.ports))
    old = over(Set.single(renumbered.old_id).where(renumbered.done))
    moved = memory & old
    zero = jnp.where((moved.low | moved.high) != 0, np.uint32(1), np.uint32(0))
    memory = memory & ~old
    return replace(memory, low=memory.low | zero)
