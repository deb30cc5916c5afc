"""Red sessions: their ids, where they are, and how they change hands.

Ids are unique within a red agent and handed out as the largest live one plus 1, so they are re-used. A session on a
host of a zone that its agent does not own exists only within a step: it is then *visiting*, and moves to the owner of
the zone at the end of the step. Ported from `State.py:add_session`, `RedSessionCheck.py` and
`SimulationController.py:different_subnet_agent_reassignment`; quirks Q6 to Q9, Q31, Q49.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16, UInt32

from .constants import (
    GENERATION_ORDER,
    MAX_IDS,
    MAX_PHISHED,
    MAX_SERVERS,
    MAX_USERS,
    NO_HOST,
    NUM_RED,
    NUM_ZONES,
    PHISHING_RATE,
    SLOTS,
)
from .draws import Draws, pid_step, place
from .hosts import at, own_pids
from .layout import AGENTS, HOSTS, ZONES, bit, lookup, pack, slot_of, sum_of, union_of, zone_of
from .routing import OWNER, owner_of, zones_to_red
from .sets import Set
from .state import Hosts, Sessions

IDS = np.arange(MAX_IDS, dtype=np.uint8)
_TURN = np.argsort(GENERATION_ORDER)
"""[zone] when its green agents act."""
_EARLIER = _TURN[None, :] < _TURN[:, None]
"""[zone, other]: the other zone's green agents act before this zone's."""


def id_set(flags: Bool[Array, "*n 64"]) -> Set:
    """Flags of session ids as sets."""
    words = pack(flags.reshape(*flags.shape[:-1], 2, 32))
    return Set(words[..., 0], words[..., 1])


def id_flags(ids: Set) -> Bool[Array, "*n 64"]:
    """Sets of session ids as flags."""
    return Set(ids.low[..., None], ids.high[..., None]).has(IDS)


def live_ids(sessions: Sessions) -> Set:
    """[red] the ids that exist."""
    return id_set(sessions.host != NO_HOST)


def held_hosts(sessions: Sessions) -> UInt32[Array, "zone"]:
    """Hosts with a red session, each in a zone of its agent."""
    host = sessions.host[OWNER]
    words = jnp.where(zone_of(host) == ZONES[:, None], bit(slot_of(host)), np.uint32(0))
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (1,))


class Phished(eqx.Module):
    """The sessions that phishing opened in this step: by zone, and as a list in the order of the green agents."""

    count: Int32[Array, "zone"]
    sponsor: Int32[Array, "zone"]
    """The agent that gets them."""
    first_id: Int32[Array, "zone"]
    """Id of the zone's first one; the others follow."""
    visiting: Bool[Array, "zone"]
    """There are some, and the sponsor does not own the zone."""
    old_next_id: Int32[Array, "red"]
    """The id after the highest, before phishing."""
    next_id: Int32[Array, "red"]
    """The id after the highest, once phishing is done."""
    done: Bool[Array, "phished"]
    """Whether this place of the list is used; what stands at the others means nothing."""
    host: Int32[Array, "phished"]
    pid: UInt16[Array, "phished"]
    rank: Int32[Array, "phished"]
    """Place within the zone."""
    lost: Int32[Array, ""]
    """Phished hosts that the list has no room for."""


def _before(counts: Int32[Array, "zone"], kind: Int32[Array, "zone"] | None = None) -> Int32[Array, "zone"]:
    """Sums over the zones whose green agents act before a zone's; over those of the same kind, if kinds are given."""

    def part(other):
        earlier = _EARLIER[:, other] if kind is None else _EARLIER[:, other] & (kind == kind[other])
        return jnp.where(earlier, counts[other], 0)

    return sum_of(NUM_ZONES, part)


def _sponsors(
    counts: Int32[Array, "zone"], infected: Int32[Array, "zone"], u: Float[Array, "zone"]
) -> Int32[Array, "zone"]:
    """Which agent gets a zone's phished sessions (`PhishingEmail.py:_create_new_session`).

    The owner if red holds a host there; else the holder of a uniformly drawn infected host of the network, among them
    the ones phished in zones earlier in this step.
    """
    holds = zones_to_red(infected, jnp.add)
    up_to_agent = sum_of(NUM_RED, lambda agent: jnp.where(agent <= AGENTS, holds[agent], 0))
    num_old, num_new = up_to_agent[-1], _before(counts)
    drawn = place(u, num_old + num_new)
    holder = sum_of(NUM_RED, lambda agent: up_to_agent[agent] <= drawn)
    sponsor = jnp.where(infected > 0, OWNER, holder).astype(jnp.int32)
    follows, new = (infected == 0) & (drawn >= num_old), drawn - num_old

    def sponsor_of_new(sponsor):
        """Of the zone where the drawn new session lies."""

        def part(zone):
            here = (num_new[zone] <= new) & (new < num_new[zone] + counts[zone])
            return jnp.where(here, sponsor[zone], 0)

        return union_of(NUM_ZONES, part)

    for _ in range(2):  # a chain of three new footholds in one step does not occur in practice
        sponsor = jnp.where(follows, sponsor_of_new(sponsor), sponsor)
    return sponsor


def _phished_pid(hosts: Hosts, host: Int32[Array, "phished"], draws: Draws) -> UInt16[Array, "phished"]:
    """Pids of new sessions on hosts that have no other.

    A mail is opened if its uniform falls below the rate; divided by the rate it is a uniform again, and gives the pid.
    """
    user = zone_of(host) * MAX_USERS + slot_of(host) - MAX_SERVERS
    u = draws.green_phishing.at[user].get(mode="clip") / PHISHING_RATE
    return own_pids(at(hosts, host)) + pid_step(u)


def phish(
    opened: UInt32[Array, "zone"], held: UInt32[Array, "zone"], hosts: Hosts, alive: Set, draws: Draws
) -> Phished:
    """Who gets the sessions on the hosts that opened a phishing mail, none of which is held, and with which ids."""
    counts, infected = (jax.lax.population_count(words).astype(jnp.int32) for words in (opened, held))
    sponsor = _sponsors(counts, infected, draws.sponsor)
    old_next_id = alive.after_highest()
    gained = sum_of(NUM_ZONES, lambda zone: jnp.where(sponsor[zone] == AGENTS, counts[zone], 0))
    start, places = _before(counts), jnp.arange(MAX_PHISHED)

    def of_zone(values):
        """[phished] the value of the zone where each place of the list lies."""

        def part(zone):
            here = (start[zone] <= places) & (places < start[zone] + counts[zone])
            return jnp.where(here, values[zone], jnp.zeros_like(values[zone]))

        return union_of(NUM_ZONES, part)

    rank = places - of_zone(start)
    host = of_zone(HOSTS[:, 0].astype(np.int32)) + Set.of_word(of_zone(opened)).nth(rank)
    return Phished(
        count=counts,
        sponsor=sponsor,
        first_id=lookup(old_next_id, sponsor) + _before(counts, sponsor),
        visiting=(sponsor != OWNER) & (counts > 0),
        old_next_id=old_next_id,
        next_id=old_next_id + gained,
        done=places < counts.sum(),
        host=host,
        pid=_phished_pid(hosts, host, draws),
        rank=rank,
        lost=jnp.maximum(counts.sum() - MAX_PHISHED, 0),
    )


class Acting(eqx.Module):
    """The acting sessions of the six red agents, as they are when red's turn comes."""

    alive: Bool[Array, "red"]
    abstract: Bool[Array, "red"]
    host: Int32[Array, "red"]
    """The session's host; of a session that was phished in this step, only its zone is right; NO_HOST without one."""
    visiting: Bool[Array, "red"]
    """It will have moved to another agent at the end of the step."""


def find(sessions: Sessions, alive: Set, phished: Phished, ids: UInt8[Array, "red"]) -> Acting:
    """Look the acting sessions up, those phished in this step included."""
    old, asked = alive.has(ids), ids.astype(jnp.int32)

    def is_new(zone):
        first, sponsor = phished.first_id[zone], phished.sponsor[zone]
        return (sponsor == AGENTS) & (first <= asked) & (asked < first + phished.count[zone])

    new = union_of(NUM_ZONES, is_new)
    new_host = union_of(NUM_ZONES, lambda zone: jnp.where(is_new(zone), zone * SLOTS, 0))
    old_host = sessions.host.at[AGENTS, ids].get(mode="clip").astype(jnp.int32)
    return Acting(
        alive=old | new,
        abstract=(old & sessions.abstract.has(ids)) | new,
        host=jnp.where(new, new_host, jnp.where(old, old_host, NO_HOST)),
        visiting=union_of(NUM_ZONES, lambda zone: is_new(zone) & phished.visiting[zone]),
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
    """[red] ids of all phished sessions, and of the exploits' that moved: what is handed over becomes abstract."""
    new: Set
    """[red] ids of all sessions opened in this step."""


class _Group(eqx.Module):
    """Visiting sessions that move together: those phished in a zone, or the one that an agent's exploit opened."""

    count: Int32[Array, "*n"]
    old: Int32[Array, "*n"]
    """The agent that they leave."""
    new: Int32[Array, "*n"]
    """The agent that they go to."""
    turn: Int32[Array, "*n"]
    """Groups move in this order: by old agent, its phished ones by zone, and then its exploit's."""


def _groups(phished: Phished, owner: Int32[Array, "red"], moved: Bool[Array, "red"]) -> tuple[_Group, _Group]:
    """The groups of phished sessions, [zone], and of exploits' sessions, [red]."""
    turns, agents = NUM_ZONES + 1, jnp.asarray(AGENTS, jnp.int32)
    leaving = jnp.where(phished.visiting, phished.count, 0)
    by_zone = _Group(leaving, phished.sponsor, jnp.asarray(OWNER, jnp.int32), turns * phished.sponsor + _TURN)
    return by_zone, _Group(moved.astype(jnp.int32), agents, owner, turns * agents + NUM_ZONES)


def hand_over(phished: Phished, opened: Opened) -> HandOver:
    """Which ids the sessions of this step end up with.

    An arriving session gets the id after the highest of its new agent. The new agent's own visiting sessions leave
    when their turn comes: sessions that arrive from agents with lower numbers find them still there.
    """
    owner = owner_of(zone_of(opened.host))
    moved, stays = opened.done & (owner != AGENTS), opened.done & (owner == AGENTS)
    by_zone, by_agent = _groups(phished, owner, moved)
    groups = [jax.tree.map(lambda x, k=k: x[k], kind) for kind in (by_zone, by_agent) for k in range(len(kind.count))]
    arriving = sum_of(len(groups), lambda k: jnp.where(groups[k].new == AGENTS, groups[k].count, 0))

    def is_from_lower(k):
        return (groups[k].count > 0) & (groups[k].new == AGENTS) & (groups[k].old < AGENTS)

    resident = jnp.where(phished.visiting, 0, phished.count)
    from_lower = union_of(len(groups), is_from_lower)
    base = jnp.where(from_lower, phished.next_id + opened.done, _next_without_visiting(phished, resident, stays))

    def first_id(group: _Group):
        def arrived_before(k):
            return jnp.where((groups[k].new == group.new) & (groups[k].turn < group.turn), groups[k].count, 0)

        return lookup(base, group.new) + sum_of(len(groups), arrived_before)

    spans = Set.span(phished.first_id, resident)
    spans = Set(zones_to_red(spans.low, jnp.bitwise_or), zones_to_red(spans.high, jnp.bitwise_or))
    new_abstract = Set.span(base, arriving) | spans
    return HandOver(
        exploit_owner=owner,
        exploit_id=jnp.where(moved, first_id(by_agent), phished.next_id),
        moved=moved,
        phished_id=jnp.where(phished.visiting, first_id(by_zone), phished.first_id),
        new_abstract=new_abstract,
        new=new_abstract | Set.single(phished.next_id).where(stays),
    )


def _next_without_visiting(
    phished: Phished, resident: Int32[Array, "zone"], stays: Bool[Array, "red"]
) -> Int32[Array, "red"]:
    """The id after an agent's highest, were its visiting sessions gone."""
    stop = jnp.where(resident > 0, phished.first_id + resident, 0)
    after = jnp.maximum(phished.old_next_id, zones_to_red(stop, jnp.maximum))
    return jnp.where(stays, phished.next_id + 1, after)


def open_new(
    sessions: Sessions, phished: Phished, opened: Opened, moves: HandOver
) -> tuple[Sessions, Int32[Array, ""]]:
    """Write the sessions of this step with their final ids. Returns the number that found no room, too."""
    zone = zone_of(phished.host)
    phished_id = lookup(moves.phished_id, zone) + phished.rank
    host, pid, overflow = sessions.host, sessions.pid, phished.lost
    for agent, ids, new in ((owner_of(zone), phished_id, phished), (moves.exploit_owner, moves.exploit_id, opened)):
        ids = jnp.where(new.done, ids, NO_HOST)
        overflow += ((ids >= MAX_IDS) & new.done).sum()
        for k in range(len(ids)):
            here = ((agent[k] == AGENTS)[:, None]) & (ids[k].astype(jnp.uint8) == IDS)
            host = jnp.where(here, new.host[k].astype(jnp.uint8), host)
            pid = jnp.where(here, new.pid[k], pid)
    return Sessions(host, pid, sessions.abstract | moves.new_abstract, sessions.root), overflow


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

    def arrived(agent):
        there = moves.moved[agent] & (moves.exploit_owner[agent] == AGENTS)
        return there & (moves.exploit_id[agent] == renumbered.old_id)

    seen = renumbered.done & union_of(NUM_RED, arrived)
    return known | sessions.abstract | Set.single(renumbered.old_id).where(seen)


class ScanChanges(eqx.Module):
    """What a step does to the scan memory of each agent's sessions; the last axis is the agent, or its zones."""

    scanned: Set
    """The id of the session that has just scanned."""
    ports: Bool[Array, "port *n"]
    """constants.Port that this scan found open."""
    gone: Set
    """Ids of sessions that ended."""
    renumbered: Set
    """The id that became 0."""


def update_scans(memory: Set, scanned: Bool[Array, "row target"], changes: ScanChanges) -> Set:
    """Scan memory after a step.

    `memory` is [port, row, target] sets of session ids, `changes` has an entry per row, `scanned` marks the targets
    scanned by the row's agent. Dead sessions remember nothing, scanned targets are remembered anew, and a renumbered
    session takes its memory with it.
    """
    changes = jax.tree.map(lambda x: x[..., None], changes)
    new = changes.scanned.where(scanned)
    memory = (memory & ~(changes.gone | new)) | new.where(changes.ports)
    moved = memory & changes.renumbered
    zero = jnp.where((moved.low | moved.high) != 0, np.uint32(1), np.uint32(0))
    return (memory & ~changes.renumbered) | Set(zero, jnp.zeros_like(zero))
