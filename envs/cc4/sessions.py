"""Red sessions: ids, hosts and reassignment.

Ids are unique within a red agent. A new session gets the largest live id plus 1, so ids are reused. A session in a zone
that its agent does not own is *visiting*: at the end of the step it moves to the owner of the zone. Ported from
`State.py:add_session`, `RedSessionCheck.py` and `SimulationController.py:different_subnet_agent_reassignment`;
QUIRKS.md: Q6 to Q9, Q31, Q49.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt8, UInt16, UInt32

from .constants import (
    GENERATION_ORDER,
    HQ_RED,
    MAX_IDS,
    MAX_SERVERS,
    MAX_USERS,
    NO_HOST,
    NUM_RED,
    NUM_ZONES,
)
from .draws import Draws, pid_step, sample_index
from .hosts import own_pids
from .layout import AGENTS, HOSTS, USER_SLOTS, ZONES, bit, once, pack, select, slot_of, unpack, zone_of
from .routing import OWNER, owner_of, zones_to_red
from .sets import BitSet
from .state import Hosts, Sessions

IDS = np.arange(MAX_IDS, dtype=np.uint8)
_TURN = np.argsort(GENERATION_ORDER)
"""[zone] position of its green agents in the order of acting."""
_EARLIER = _TURN[None, :] < _TURN[:, None]
"""[zone, other]: the other zone's green agents act before this zone's."""


def id_set(flags: Bool[Array, "*n 64"]) -> BitSet:
    """Flags of session ids as sets."""
    words = pack(flags.reshape(*flags.shape[:-1], 2, 32))
    return BitSet(words[..., 0], words[..., 1])


def id_flags(ids: BitSet) -> Bool[Array, "*n 64"]:
    """Sets of session ids as flags."""
    return BitSet(ids.low[..., None], ids.high[..., None]).contains(IDS)


def live_ids(sessions: Sessions) -> BitSet:
    """[red] the ids that exist."""
    return id_set(sessions.host != NO_HOST)


def held_hosts(sessions: Sessions) -> UInt32[Array, "zone"]:
    """Hosts with a red session, each in a zone of its agent."""
    host = sessions.host[OWNER]
    words = jnp.where(zone_of(host) == ZONES[:, None], bit(slot_of(host)), np.uint32(0))
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (1,))


class Phished(eqx.Module):
    """Sessions opened by phishing in this step."""

    count: Int32[Array, "zone"]
    sponsor: Int32[Array, "zone"]
    """The agent that gets them."""
    first_id: Int32[Array, "zone"]
    """Id of the zone's first one; the others follow."""
    visiting: Bool[Array, "zone"]
    """True if there are any and their sponsor does not own the zone."""
    old_next_id: Int32[Array, "red"]
    """The id after the highest, before phishing."""
    next_id: Int32[Array, "red"]
    """The id after the highest, once phishing is done."""
    opened: UInt32[Array, "zone"]
    """The hosts."""
    pid: UInt16[Array, "zone user"]
    """0 for users who opened no mail."""


def _before(counts: Int32[Array, "zone"], among: Bool[Array, "zone zone"] | bool = True) -> Int32[Array, "zone"]:
    """[zone] sums over the zones whose green agents act before, or over some of them ([zone, other])."""
    return jnp.where(_EARLIER & among, counts, 0).sum(axis=1)


def _sponsors(
    counts: Int32[Array, "zone"], infected: Int32[Array, "zone"], u: Float[Array, "zone"]
) -> Int32[Array, "zone"]:
    """The agent that gets a zone's phished sessions (`PhishingEmail.py:_create_new_session`, Q49).

    It is the owner if red has a session in the zone, else the holder of a uniformly sampled infected host of the
    network. Hosts phished earlier in this step count, too.
    """
    up_to_agent = jnp.where(AGENTS[:, None] >= AGENTS, zones_to_red(infected, jnp.add), 0).sum(axis=1)
    num_old = up_to_agent[-1]
    num_new = _before(counts)
    drawn = sample_index(u, num_old + num_new)
    holder = (up_to_agent <= drawn[:, None]).sum(axis=1)
    sponsor = jnp.where(infected > 0, OWNER, holder).astype(jnp.int32)
    new = (drawn - num_old)[:, None]
    source = (num_new <= new) & (new < num_new + counts)  # [zone, other]: the zone of the sampled new host
    follows = (infected == 0) & (drawn >= num_old)
    first = jnp.where(follows, select(source, ZONES), ZONES)
    for _ in range(3):  # each doubles the links followed; zones that get red only in this step make up to seven
        first = select(first[:, None] == ZONES, first)
    return select(first[:, None] == ZONES, sponsor)


def _phished_pids(
    hosts: Hosts, opened: UInt32[Array, "zone"], rate: Float[Array, ""], draws: Draws
) -> UInt16[Array, "zone user"]:
    """Pids of new sessions on user hosts that have no other.

    A mail is opened if its uniform falls below the rate; divided by the rate it is a uniform again, and gives the pid.
    """
    step = pid_step(draws.green_phishing / rate).reshape(NUM_ZONES, MAX_USERS)
    pid = own_pids(hosts)[:, MAX_SERVERS:] + step
    return jnp.where(unpack(opened, USER_SLOTS), pid, 0).astype(jnp.uint16)


def phish(
    opened: UInt32[Array, "zone"],
    held: UInt32[Array, "zone"],
    hosts: Hosts,
    alive: BitSet,
    rate: Float[Array, ""],
    draws: Draws,
) -> Phished:
    """Agents and ids of the sessions on hosts that opened a phishing mail, none of which has a red session."""
    counts, infected = (jax.lax.population_count(words).astype(jnp.int32) for words in (opened, held))
    sponsor = _sponsors(counts, infected, draws.sponsor)
    of_sponsor = sponsor[:, None] == AGENTS
    old_next_id = alive.after_highest()
    return Phished(
        count=counts,
        sponsor=sponsor,
        first_id=select(of_sponsor, old_next_id) + _before(counts, sponsor[:, None] == sponsor),
        visiting=(sponsor != OWNER) & (counts > 0),
        old_next_id=old_next_id,
        next_id=old_next_id + jnp.where(of_sponsor, counts[:, None], 0).sum(axis=0),
        opened=opened,
        pid=_phished_pids(hosts, opened, rate, draws),
    )


class Acting(eqx.Module):
    """The acting sessions of the six red agents, when red acts."""

    alive: Bool[Array, "red"]
    abstract: Bool[Array, "red"]
    host: Int32[Array, "red"]
    """The session's host; any host of the zone for a session phished in this step; NO_HOST if there is none."""
    visiting: Bool[Array, "red"]
    """True if it moves to another agent at the end of the step."""
    rank: Int32[Array, "red"]
    """Place in its zone of a session phished in this step; -1 for other sessions."""


def find(sessions: Sessions, alive: BitSet, phished: Phished, ids: UInt8[Array, "red"]) -> Acting:
    """Look up the acting sessions, including those phished in this step."""
    old = alive.contains(ids)
    position = ids[:, None].astype(jnp.int32) - phished.first_id
    new = (phished.sponsor == AGENTS[:, None]) & (position >= 0) & (position < phished.count)
    is_new = new.any(axis=1)
    host = sessions.host.at[AGENTS, ids].get(mode="clip").astype(jnp.int32)
    alive, abstract = once(jnp.stack([old | is_new, (old & sessions.abstract.contains(ids)) | is_new]))
    return Acting(
        alive=alive,
        abstract=abstract,
        host=jnp.where(is_new, select(new, HOSTS[:, 0].astype(np.int32)), jnp.where(old, host, NO_HOST)),
        visiting=(new & phished.visiting).any(axis=1),
        rank=jnp.where(new, position, -1).max(axis=1),
    )


class Opened(eqx.Module):
    """The sessions that successful exploits open in this step, at most one per red agent."""

    done: Bool[Array, "red"]
    host: Int32[Array, "red"]
    pid: UInt16[Array, "red"]


class Reassignment(eqx.Module):
    """Final owners and ids of the sessions opened in this step. The name is CybORG's."""

    exploit_owner: Int32[Array, "red"]
    exploit_id: Int32[Array, "red"]
    moved: Bool[Array, "red"]
    """The agent's exploit opened its session in a foreign zone."""
    phished_id: Int32[Array, "zone"]
    """First id of the phished sessions of a zone."""
    new_abstract: BitSet
    """[red] ids of all phished sessions and of the exploit sessions that moved, which become abstract."""
    new: BitSet
    """[red] ids of all sessions opened in this step."""


class _Groups(eqx.Module):
    """Visiting sessions that move together: first one group per zone (phished there), then one per agent (exploits)."""

    count: Int32[Array, "group"]
    old: Int32[Array, "group"]
    """The agent that they leave."""
    new: Int32[Array, "group"]
    """The agent that they join."""
    turn: Int32[Array, "group"]
    """Groups move in this order: by old agent, its phished ones by zone, then its exploit's."""


def _groups(phished: Phished, owner: Int32[Array, "red"], moved: Bool[Array, "red"]) -> _Groups:
    turns = NUM_ZONES + 1
    return _Groups(
        count=jnp.concatenate([jnp.where(phished.visiting, phished.count, 0), moved.astype(jnp.int32)]),
        old=jnp.concatenate([phished.sponsor, AGENTS]).astype(jnp.int32),
        new=jnp.concatenate([OWNER, owner]).astype(jnp.int32),
        turn=jnp.concatenate([turns * phished.sponsor + _TURN, turns * AGENTS + NUM_ZONES]).astype(jnp.int32),
    )


def reassign(phished: Phished, opened: Opened) -> Reassignment:
    """Final owners and ids of the sessions of this step (Q31).

    The reference moves visiting sessions one by one:

        for agent in range(NUM_RED):
            for session in visiting sessions of the agent, in the order they were opened:
                owner = owner of the session's zone
                give the session the id after the highest of owner, and move it there

    So an agent's own visiting sessions still count for arrivals from agents with lower numbers, and are gone for
    arrivals from higher ones. Later arrivals follow the first one, which makes the loop a running count.

    Example: agents 1 and 2 hold session 0 only, and each one's exploit opens session 1 in the other's zone. Agent 1
    moves first. Agent 2 still has its visiting session 1, so it gets the arrival as id 2. Agent 2 moves next. Agent 1
    has only session 0 left, so it gets the arrival as id 1.
    """
    owner = owner_of(zone_of(opened.host))
    moved = opened.done & (owner != AGENTS)
    stays = opened.done & (owner == AGENTS)
    groups = _groups(phished, owner, moved)
    # the id of the first arrival of each agent
    arriving = jnp.where(groups.new == AGENTS[:, None], groups.count, 0)  # [red, group]
    from_lower = ((arriving > 0) & (groups.old < AGENTS[:, None])).any(axis=1)
    resident = jnp.where(phished.visiting, 0, phished.count)
    next_with_visiting = phished.next_id + opened.done
    first = jnp.where(from_lower, next_with_visiting, _next_without_visiting(phished, resident, stays))
    # the first id of each group: after the groups that joined the same agent before it
    before = (groups.new[:, None] == groups.new) & (groups.turn < groups.turn[:, None])
    ids = select(groups.new[:, None] == AGENTS, first) + jnp.where(before, groups.count, 0).sum(axis=1)
    # phished sessions that stay keep their ids
    resident_ids = BitSet.span(phished.first_id, resident)
    low = zones_to_red(resident_ids.low, jnp.bitwise_or)
    high = zones_to_red(resident_ids.high, jnp.bitwise_or)
    new_abstract = BitSet.span(first, arriving.sum(axis=1)) | BitSet(low, high)
    return Reassignment(
        exploit_owner=owner,
        exploit_id=jnp.where(moved, ids[NUM_ZONES:], phished.next_id),
        moved=moved,
        phished_id=jnp.where(phished.visiting, ids[:NUM_ZONES], phished.first_id),
        new_abstract=new_abstract,
        new=new_abstract | BitSet.single(phished.next_id).where(stays),
    )


def _next_without_visiting(
    phished: Phished, resident: Int32[Array, "zone"], stays: Bool[Array, "red"]
) -> Int32[Array, "red"]:
    """The id after an agent's highest, without its visiting sessions."""
    stop = jnp.where(resident > 0, phished.first_id + resident, 0)
    after = jnp.maximum(phished.old_next_id, zones_to_red(stop, jnp.maximum))
    return jnp.where(stays, phished.next_id + 1, after)


def _pair(host: Integer[Array | np.ndarray, "*n"], pid: UInt16[Array, "*n"]) -> Int32[Array, "*n"]:
    """A session's host and pid in one word: one chain of selects, in 32 bits, is the fastest on a CPU."""
    return (host.astype(jnp.int32) << 16) | pid.astype(jnp.int32)


def _phished_table(phished: Phished, first: Int32[Array, "zone"]) -> Int32[Array, "red id"]:
    """Pairs of the phished sessions by owner and id, 0 elsewhere. `first` are the zones' first ids."""
    opened = unpack(phished.opened, USER_SLOTS)
    rank = jax.lax.population_count(phished.opened[:, None] & (bit(np.array(USER_SLOTS)) - 1)).astype(jnp.int32)
    ids = jnp.where(opened, first[:, None] + rank, MAX_IDS)
    # computed once, before the loop
    ids, pairs = jax.lax.optimization_barrier((ids, _pair(HOSTS[:, MAX_SERVERS:], phished.pid)))
    table = jnp.int32(0)
    for user in range(MAX_USERS):
        table = jnp.where(ids[:, user, None] == IDS, pairs[:, user, None], table)
    # HQ's rows are merged afterwards, as XLA does not vectorize a loop with a concatenation
    table = jax.lax.optimization_barrier(table)
    return jnp.concatenate([table[:HQ_RED], table[HQ_RED:].max(axis=0, keepdims=True)])


def open_new(
    sessions: Sessions, phished: Phished, opened: Opened, moves: Reassignment
) -> tuple[Sessions, Int32[Array, ""]]:
    """Add the sessions of this step under their final ids. Also returns the number for which there was no room."""
    new = _phished_table(phished, moves.phished_id)
    row = jnp.where(opened.done, moves.exploit_owner, NUM_RED)
    # computed once, before the loop; one `max` over all new sessions takes a third of a step on a CPU
    row, at, pair = jax.lax.optimization_barrier((row, moves.exploit_id, _pair(opened.host, opened.pid)))
    for k in range(NUM_RED):
        new = jnp.where((row[k] == AGENTS[:, None]) & (at[k] == IDS), pair[k], new)
    stop = jnp.concatenate([moves.phished_id + phished.count, jnp.where(opened.done, moves.exploit_id + 1, 0)])
    room = jnp.concatenate([phished.count, opened.done.astype(jnp.int32)])
    return Sessions(
        host=jnp.where(new > 0, new >> 16, sessions.host).astype(jnp.uint8),
        pid=jnp.where(new > 0, new, sessions.pid).astype(jnp.uint16),
        abstract=sessions.abstract | moves.new_abstract,
        root=sessions.root,
    ), jnp.clip(stop - MAX_IDS, 0, room).sum()


class Renumbered(eqx.Module):
    """The session that becomes session 0, for agents without one."""

    done: Bool[Array, "red"]
    old_id: Int32[Array, "red"]

    def move(self, ids: BitSet) -> BitSet:
        """Apply the renumbering to sets of ids."""
        moved = self.done & ids.contains(self.old_id)
        ids = ids & ~BitSet.single(self.old_id).where(self.done)
        return ids | BitSet.single(jnp.zeros_like(self.old_id)).where(moved)


def renumber(sessions: Sessions, alive: BitSet, u: Float[Array, "red"]) -> tuple[Sessions, Renumbered]:
    """RedSessionCheck: agents without a session 0 renumber one of theirs to 0, which keeps everything else (Q9)."""
    count = alive.count()
    done = (count > 0) & ~alive.contains(jnp.zeros(NUM_RED, jnp.int32))
    change = Renumbered(done, alive.nth(sample_index(u, count)))
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


def learn_ids(known: BitSet, sessions: Sessions, moves: Reassignment, renumbered: Renumbered) -> BitSet:
    """Add the ids of abstract sessions to the known ones, which are never cleared (`ActionSpace.py:update`, Q6).

    An id renumbered in the same step is not seen, unless an exploit session arrived under it from another agent.
    """
    arrived = moves.moved & (moves.exploit_owner == AGENTS[:, None])
    arrived = (arrived & (moves.exploit_id == renumbered.old_id[:, None])).any(axis=1)
    return known | sessions.abstract | BitSet.single(renumbered.old_id).where(renumbered.done & arrived)


class ScanChanges(eqx.Module):
    """Changes of a step to the scan memory of sessions; the last axis is the agent, or the zone for its owner."""

    scanned: BitSet
    """The id of the session that has just scanned."""
    ports: Bool[Array, "port *n"]
    """constants.Port that this scan found open."""
    gone: BitSet
    """Ids of sessions that ended."""
    renumbered: BitSet
    """The id that became 0."""


def update_scans(memory: BitSet, scanned: Bool[Array, "row target"], changes: ScanChanges) -> BitSet:
    """Update the scan memory after a step.

    `memory` is [port, row, target] sets of session ids, `changes` has an entry per row, `scanned` marks the targets
    scanned by the row's agent. Dead sessions lose their memory, a scan replaces that of its target, and a
    renumbered session keeps its own.
    """
    changes = jax.tree.map(lambda x: x[..., None], changes)
    new = changes.scanned.where(scanned)
    added = new.where(changes.ports)
    moved = ((memory & ~(changes.gone | new)) | added) & changes.renumbered
    zero = jnp.where((moved.low | moved.high) != 0, np.uint32(1), np.uint32(0))
    kept = (memory & ~(changes.gone | new | changes.renumbered)) | (added & ~changes.renumbered)
    return BitSet(kept.low | zero, kept.high)
