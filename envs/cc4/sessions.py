"""Red sessions: their ids, where they are, and how they change hands.

Ids are unique within a red agent and handed out as the largest live one plus 1, so they are re-used. A session on a
host of a zone that its agent does not own exists only within a step: it is then *visiting*, and moves to the owner of
the zone at the end of the step. Ported from `State.py:add_session`, `RedSessionCheck.py` and
`SimulationController.py:different_subnet_agent_reassignment`; QUIRKS.md: Q6 to Q9, Q31, Q49.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt8, UInt16, UInt32

from .constants import (
    GENERATION_ORDER,
    MAX_IDS,
    MAX_PHISHED,
    NO_HOST,
    NUM_RED,
    NUM_ZONES,
    SLOTS,
)
from .draws import place
from .routing import OWNER, bit, red_to_zones, slot_of, union, zone_of, zones_to_red
from .sets import Set
from .state import Sessions

AGENTS = np.arange(NUM_RED)
IDS = np.arange(MAX_IDS, dtype=np.uint8)
_RANK = np.argsort(GENERATION_ORDER)
_EARLIER = _RANK[None, :] < _RANK[:, None]
"""[zone, other]: the other zone's green agents act before this zone's."""
_LOWER = AGENTS[:, None] > AGENTS
_add = jnp.add


def id_set(flags: Bool[Array, "*n 64"]) -> Set:
    """Flags of session ids as sets."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    words = jnp.where(flags.reshape(*flags.shape[:-1], 2, 32), bits, np.uint32(0))
    words = union(words, -1)
    return Set(words[..., 0], words[..., 1])


def id_flags(ids: Set) -> Bool[Array, "*n 64"]:
    """Sets of session ids as flags."""
    return Set(ids.low[..., None], ids.high[..., None]).has(IDS)


def live_ids(sessions: Sessions) -> Set:
    """[red] the ids that exist."""
    return id_set(sessions.host != NO_HOST)


def held_hosts(sessions: Sessions) -> UInt32[Array, "zone"]:
    """Hosts with a red session, each in a zone of its agent."""
    bits, zone = bit(slot_of(sessions.host)), zone_of(sessions.host)
    words = [
        union(jnp.where(zone == (AGENTS + offset).astype(np.uint8)[:, None], bits, np.uint32(0)), 1)
        for offset in range(NUM_ZONES - NUM_RED + 1)
    ]
    return jnp.concatenate([words[0], words[1][-1:], words[2][-1:]])


class Phished(eqx.Module):
    """The sessions that phishing opened in this step: by zone, and as a list in the order of the green agents."""

    count: Int32[Array, "zone"]
    sponsor: Int32[Array, "zone"]
    """The agent that gets them."""
    first_id: Int32[Array, "zone"]
    """Id of the zone's first one."""
    visiting: Bool[Array, "zone"]
    """The sponsor does not own the zone."""
    next_id: Int32[Array, "red"]
    """The id after the highest, once phishing is done."""
    done: Bool[Array, "phished"]
    host: Int32[Array, "phished"]
    rank: Int32[Array, "phished"]
    """Place within the zone."""
    lost: Int32[Array, ""]
    """Phished hosts that the list has no room for."""


def _before(counts: Int32[Array, "zone"], same: Bool[Array, "zone zone"] | bool = True) -> Int32[Array, "zone"]:
    """Sums over the zones whose green agents act before, or over some of them."""
    return jnp.where(_EARLIER & same, counts, 0).sum(axis=1)


def _sponsors(
    counts: Int32[Array, "zone"], infected: Int32[Array, "zone"], u: Float[Array, "zone"]
) -> Int32[Array, "zone"]:
    """Which agent gets a zone's phished sessions (`PhishingEmail.py:_create_new_session`).

    The owner if red holds a host there; else the holder of a uniformly drawn infected host of the network, among them
    the ones phished in zones earlier in this step.
    """
    holders = zones_to_red(infected, _add)
    held = jnp.where(AGENTS[:, None] >= AGENTS, holders, 0).sum(axis=1)
    earlier = _before(counts)
    drawn = place(u, held[-1] + earlier)
    holder = (held <= drawn[:, None]).sum(axis=1)
    new = (drawn - held[-1])[:, None]
    source = jnp.argmax((earlier <= new) & (new < earlier + counts), axis=1)
    sponsor = jnp.where(infected > 0, OWNER, holder).astype(jnp.int32)
    follows = (infected == 0) & (drawn >= held[-1])
    for _ in range(2):  # a chain of three new footholds in one step does not occur in practice
        sponsor = jnp.where(follows, sponsor[source], sponsor)
    return sponsor


def phish(hosts: UInt32[Array, "zone"], held: UInt32[Array, "zone"], alive: Set, u: Float[Array, "zone"]) -> Phished:
    """Who gets the sessions on phished hosts, none of which is held, and with which ids."""
    counts, infected = (jax.lax.population_count(words).astype(jnp.int32) for words in (hosts, held))
    sponsor = _sponsors(counts, infected, u)
    next_id = alive.after_highest()
    first_id = next_id[sponsor] + _before(counts, sponsor[:, None] == sponsor)
    gained = jnp.where(sponsor[:, None] == AGENTS, counts[:, None], 0).sum(axis=0)
    start = _before(counts)
    place_of = np.arange(MAX_PHISHED)[:, None]
    here = (start <= place_of) & (place_of < start + counts)
    zone = jnp.argmax(here, axis=1)
    rank = place_of[:, 0] - start[zone]
    return Phished(
        count=counts,
        sponsor=sponsor,
        first_id=first_id,
        visiting=(sponsor != OWNER) & (counts > 0),
        next_id=next_id + gained,
        done=here.any(axis=1),
        host=zone * SLOTS + Set(hosts[zone], jnp.zeros_like(hosts[zone])).nth(rank),
        rank=rank,
        lost=jnp.maximum(counts.sum() - MAX_PHISHED, 0),
    )


class Acting(eqx.Module):
    """The acting sessions of the six red agents, as they are when red's turn comes."""

    alive: Bool[Array, "red"]
    abstract: Bool[Array, "red"]
    host: Int32[Array, "red"]
    """Just any host of the zone for a session that was phished in this step; NO_HOST if there is none."""
    visiting: Bool[Array, "red"]
    """It will have moved to another agent at the end of the step."""


def find(sessions: Sessions, alive: Set, phished: Phished, ids: UInt8[Array, "red"]) -> Acting:
    """Look the acting sessions up, those phished in this step included."""
    old = alive.has(ids)
    position = ids[:, None].astype(jnp.int32) - phished.first_id
    new = (phished.sponsor == AGENTS[:, None]) & (position >= 0) & (position < phished.count)
    is_new, zone = new.any(axis=1), jnp.argmax(new, axis=1)
    host = sessions.host.at[AGENTS, ids].get(mode="clip").astype(jnp.int32)
    return Acting(
        alive=old | is_new,
        abstract=(old & sessions.abstract.has(ids)) | is_new,
        host=jnp.where(is_new, zone * SLOTS, jnp.where(old, host, NO_HOST)),
        visiting=(new & phished.visiting).any(axis=1),
    )


class Opened(eqx.Module):
    """The sessions that successful exploits open in this step, at most one per red agent."""

    done: Bool[Array, "red"]
    host: Int32[Array, "red"]
    pid: UInt16[Array, "red"]


class HandOver(eqx.Module):
    """Ids after visiting sessions have moved to the owners of their zones."""

    exploit_owner: Int32[Array, "red"]
    exploit_id: Int32[Array, "red"]
    moved: Bool[Array, "red"]
    """The agent's exploit opened its session in a foreign zone."""
    phished_id: Int32[Array, "zone"]
    """First id of the phished sessions of a zone."""
    new_abstract: Set
    """[red]"""
    new: Set
    """[red]"""


def hand_over(phished: Phished, opened: Opened) -> HandOver:
    """Which ids the sessions of this step end up with.

    Visiting sessions move in the order of their old agents, an agent's phished ones before its exploit's. Each gets
    the id after the highest of its new agent, whose own visiting sessions count until their turn comes.
    """
    owner = jnp.minimum(zone_of(opened.host), NUM_RED - 1)
    moved = opened.done & (owner != AGENTS)
    stays = opened.done & ~moved
    leaving = jnp.where(phished.visiting, phished.count, 0)
    resident = phished.count - leaving
    zone_rank, exploit_rank = _arrival(phished, leaving, owner, moved)
    exploit_arrives = moved & (owner == AGENTS[:, None])
    received = zones_to_red(leaving, _add) + exploit_arrives.sum(axis=1)
    from_lower = ((leaving > 0) & (AGENTS[:, None] == OWNER) & (phished.sponsor < AGENTS[:, None])).any(axis=1)
    from_lower |= (exploit_arrives & _LOWER).any(axis=1)
    base = jnp.where(from_lower, phished.next_id + opened.done, _after_own(phished, resident, stays))
    ids, own = Set.span(base, received), Set.span(phished.first_id, resident)
    own = Set(zones_to_red(own.low, jnp.bitwise_or), zones_to_red(own.high, jnp.bitwise_or))
    return HandOver(
        exploit_owner=owner,
        exploit_id=jnp.where(moved, base[owner] + exploit_rank, phished.next_id),
        moved=moved,
        phished_id=jnp.where(phished.visiting, red_to_zones(base) + zone_rank, phished.first_id),
        new_abstract=ids | own,
        new=ids | own | Set.single(phished.next_id).where(stays),
    )


def _arrival(
    phished: Phished, leaving: Int32[Array, "zone"], owner: Int32[Array, "red"], moved: Bool[Array, "red"]
) -> tuple[Int32[Array, "zone"], Int32[Array, "red"]]:
    """How many arrive at the same new agent before a zone's phished sessions, and before an agent's exploit's."""
    sponsor = phished.sponsor
    first = (sponsor < sponsor[:, None]) | ((sponsor == sponsor[:, None]) & _EARLIER)
    zone_rank = jnp.where(first & (OWNER[:, None] == OWNER), leaving, 0).sum(axis=1)
    zone_rank += (moved & (owner == OWNER[:, None]) & (sponsor[:, None] > AGENTS)).sum(axis=1)
    before = (owner[:, None] == OWNER) & (sponsor <= AGENTS[:, None])
    exploit_rank = jnp.where(before, leaving, 0).sum(axis=1)
    exploit_rank += (moved & (owner == owner[:, None]) & _LOWER).sum(axis=1)
    return zone_rank, exploit_rank


def _after_own(phished: Phished, resident: Int32[Array, "zone"], stays: Bool[Array, "red"]) -> Int32[Array, "red"]:
    """The id after the highest of an agent without its visiting sessions."""
    gained = jnp.where(phished.sponsor[:, None] == AGENTS, phished.count[:, None], 0).sum(axis=0)
    stop = jnp.where(resident > 0, phished.first_id + resident, 0)
    after = jnp.maximum(phished.next_id - gained, zones_to_red(stop, jnp.maximum))
    return jnp.where(stays, phished.next_id + 1, after)


def open_new(
    sessions: Sessions,
    phished: Phished,
    phished_pid: UInt16[Array, "phished"],
    opened: Opened,
    moves: HandOver,
) -> tuple[Sessions, Int32[Array, ""]]:
    """Write the sessions of this step with their final ids. Returns the number that found no room, too."""
    zone = zone_of(phished.host)
    agent = jnp.concatenate([jnp.minimum(zone, NUM_RED - 1), moves.exploit_owner])
    ids = jnp.concatenate([moves.phished_id[zone] + phished.rank, moves.exploit_id])
    done = jnp.concatenate([phished.done, opened.done])
    host = jnp.concatenate([phished.host, opened.host]).astype(jnp.uint8)
    pid = jnp.concatenate([phished_pid, opened.pid])
    row = jnp.where(done, agent, NUM_RED).astype(jnp.uint8)
    here = (row[:, None, None] == AGENTS.astype(np.uint8)[:, None]) & (ids.astype(jnp.uint8)[:, None, None] == IDS)
    new_host = jnp.where(here, host[:, None, None], 0).max(axis=0)
    new_pid = jnp.where(here, pid[:, None, None], 0).max(axis=0)
    return Sessions(
        host=jnp.where(new_pid > 0, new_host, sessions.host),
        pid=jnp.where(new_pid > 0, new_pid, sessions.pid),
        abstract=sessions.abstract | moves.new_abstract,
        root=sessions.root,
    ), (done & (ids >= MAX_IDS)).sum() + phished.lost


class Renumbered(eqx.Module):
    """Which session of an agent that had lost its session 0 becomes the new one."""

    done: Bool[Array, "red"]
    old_id: Int32[Array, "red"]

    def move(self, ids: Set) -> Set:
        """A set of ids after the change."""
        moved = self.done & ids.has(self.old_id)
        ids = ids & ~Set.single(self.old_id).where(self.done)
        return ids | Set.single(jnp.zeros_like(self.old_id)).where(moved)


def renumber(sessions: Sessions, alive: Set, u: Float[Array, "red"]) -> tuple[Sessions, Renumbered]:
    """RedSessionCheck: agents without a session 0 renumber one of theirs to 0; it keeps all else (Q9)."""
    count = alive.count()
    done = (count > 0) & ~alive.has(jnp.zeros(NUM_RED, jnp.int32))
    change = Renumbered(done, alive.nth(place(u, count)))
    is_old = (change.old_id[:, None] == IDS) & done[:, None]
    is_new = (IDS == 0) & done[:, None]

    def move(column, vacant):
        value = column.at[AGENTS, change.old_id].get(mode="clip")
        return jnp.where(is_new, value[:, None], jnp.where(is_old, vacant, column)).astype(column.dtype)

    return Sessions(
        host=move(sessions.host, NO_HOST),
        pid=move(sessions.pid, 0),
        abstract=change.move(sessions.abstract),
        root=change.move(sessions.root),
    ), change


def learn_ids(known: Set, sessions: Sessions, moves: HandOver, renumbered: Renumbered) -> Set:
    """Abstract ids join the known ones for good (`ActionSpace.py:update`).

    An id that was renumbered at once is not seen, unless it is the one that a foreign exploit's session arrived with.
    """
    arrived = moves.moved & (moves.exploit_owner == AGENTS[:, None])
    arrived = (arrived & (moves.exploit_id == renumbered.old_id[:, None])).any(axis=1)
    return known | sessions.abstract | Set.single(renumbered.old_id).where(renumbered.done & arrived)


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

    bit = over(Set.single(scans.session)).where(scanned)
    memory = (memory & ~over(gone) & ~bit) | bit.where(spread(scans.ports))
    old = over(Set.single(renumbered.old_id).where(renumbered.done))
    moved = memory & old
    zero = jnp.where((moved.low | moved.high) != 0, np.uint32(1), np.uint32(0))
    return (memory & ~old) | Set(zero, jnp.zeros_like(zero))
