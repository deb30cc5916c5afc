"""The scripted red agents: their knowledge of hosts and their choices under a `params.RedPolicy`.

Ported from `FiniteStateRedAgent.py`, `FSMRedVariants.py` and `ActionSpace.py`; QUIRKS.md: Q6, Q23 to Q28, Q53. The
CIA reds weight eligible hosts by resilience role, with known names or without (PARITY.md).
"""

from dataclasses import replace
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt32

from .constants import HQ_RED, LINKS, NO_HOST, NUM_RED, NUM_ZONES, Foreign, Knowledge, Level, Subnet
from .draws import Draws, sample_index
from .layout import (
    AGENTS,
    SERVERS,
    ZONES,
    bit,
    foreign_zone,
    hosts_of,
    is_foreign,
    slot_of,
    target_sets,
    union,
    unpack,
    zone_of,
)
from .params import RedPolicy
from .red import RedOrder, Results, Target
from .routing import OWNER, red_to_zones
from .sets import BitSet
from .state import Red, Scenario

_ZONE_BITS = 1 << ZONES.astype(np.uint32)
_LINKED = (LINKS * _ZONE_BITS).sum(axis=1, dtype=np.uint32)
"""[zone] sets of the zones whose server 0 is seen once this zone's server 0 is rooted."""
_OWNED = ((AGENTS[:, None] == OWNER) * _ZONE_BITS).sum(axis=1, dtype=np.uint32)
"""[red] sets of the zones that each agent owns."""


# Choosing


def _hunted_targets(scenario: Scenario, policy: RedPolicy) -> BitSet:
    """[red] the targets with a hunted role."""
    roles = scenario.roles.astype(jnp.int32)
    hosts = hosts_of(roles, policy.hunted & (roles != NO_HOST))
    zones = union(jnp.where(hosts & 1 == 1, _ZONE_BITS, np.uint32(0)), 0)  # where server 0 is hunted
    return target_sets(hosts, jnp.broadcast_to(zones, NUM_RED))


def _states(red: Red) -> list[tuple[Knowledge, BitSet]]:
    """[red] the targets in each state in which red can act on them."""
    states = []
    nothing = jnp.zeros(NUM_RED, jnp.uint32)
    for level in Level:
        foreign = red.foreign[level] if level <= Level.S else nothing
        states.append((Knowledge(2 * level + 1), target_sets(red.known[level] & ~red.discovered, foreign)))
        states.append((Knowledge(2 * level + 2), target_sets(red.known[level] & red.discovered, nothing)))
    return states


def _restrict_to_state(red: Red, policy: RedPolicy, u: Float[Array, "red"]) -> BitSet:
    """Targets in one state, sampled by weight among the states present; uniformly if none of these has a weight."""
    states = _states(red)
    weights = jnp.stack([jnp.where(targets.count() > 0, policy.state_weights[state], 0) for state, targets in states])
    present = jnp.stack([(targets.count() > 0).astype(jnp.float32) for _, targets in states])
    weights = jnp.where(weights.sum(axis=0) > 0, weights, present)
    x = u * weights.sum(axis=0)
    start = jnp.zeros(NUM_RED)
    chosen = []
    for (_, targets), weight in zip(states, weights, strict=True):
        chosen.append(targets.where((start <= x) & (x < start + weight)))
        start = start + weight
    return reduce(BitSet.__or__, chosen)


def _prefer_servers(targets: BitSet, servers: BitSet, chance: Float[Array, ""], u: Float[Array, "red"]) -> BitSet:
    """With probability `chance` the servers among the targets, else the rest; all targets without a server."""
    servers = servers & targets
    others = targets & ~servers
    wants_servers = (u <= chance) | (others.count() == 0)
    return servers.where(wants_servers, others).where((chance > 0) & (servers.count() > 0), targets)


def _draw_by_weight(
    targets: BitSet, heavy: BitSet, weight: Float[Array, ""], u: Float[Array, "red"]
) -> Int32[Array, "red"]:
    """Sample a target. Those in `heavy` have weight `weight`, all others 1.

    `u` is a point on a line with one unit for every target, followed by `weight - 1` for every heavy one.
    """
    heavy = heavy & targets
    extra = weight - 1
    count = targets.count()
    x = u * (count + extra * heavy.count())
    is_extra = x >= count
    rank = jnp.where(is_extra, (x - count) / jnp.maximum(extra, 1e-6), x).astype(jnp.int32)
    candidates = heavy.where(is_extra, targets)
    return candidates.nth(jnp.minimum(rank, candidates.count() - 1))


def _choose_target(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> Int32[Array, "red"]:
    """Sample a target among the known ones that are not in F, by the policy's preferences."""
    own = union(red.known, 0)
    foreign = red.foreign[Foreign.K] | red.foreign[Foreign.S]
    targets = _restrict_to_state(red, policy, draws.red_state).where(policy.by_state, target_sets(own, foreign))
    servers = target_sets(own & red.named & SERVERS, foreign)
    targets = _prefer_servers(targets, servers, policy.server_chance, draws.red_server)
    return _draw_by_weight(targets, _hunted_targets(scenario, policy), policy.role_weight, draws.red_host)


def _state_of(red: Red, target: Int32[Array, "red"]) -> Int32[Array, "red"]:
    """State of each agent's target (constants.Knowledge)."""
    state = jnp.zeros(NUM_RED, jnp.int32)
    for of_state, targets in _states(red):
        state = jnp.where(targets.contains(target), of_state, state)
    return state


def choose(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> RedOrder:
    """Sample each agent's choice: a target, an action by the target's state, a known session id, a known subnet."""
    target = _choose_target(red, scenario, policy, draws)
    cdf = policy.action_cdf[_state_of(red, target)]
    action = (cdf[:, :-1] <= draws.red_action[:, None]).sum(axis=1)
    session = red.known_ids.nth(sample_index(draws.red_session, red.known_ids.count()))
    hq = BitSet.of_word(union(jnp.where(red.hq_known, bit(np.arange(len(red.hq_known))), np.uint32(0)), 0))
    hq = Subnet.ADM + hq.nth(sample_index(draws.red_subnet[HQ_RED], hq.count()))
    subnet = jnp.where(AGENTS == HQ_RED, hq, AGENTS)
    return RedOrder(*(x.astype(jnp.uint8) for x in (action, target, session, subnet)))


# Learning


def _learn_own(
    red: Red,
    exists: UInt32[Array, "zone"],
    order: RedOrder,
    target: Target,
    results: Results,
    held: UInt32[Array, "zone"],
    disclosed: UInt32[Array, "zone"],
) -> tuple[UInt32[Array, "level zone"], UInt32[Array, "zone"]]:
    """Advance the owners' state machines, one state per host:

        unknown ---> K ---scan---> S ---exploit---> U ---escalate---> R
              seen   ^                              |                 |
                     +------------------------------+-----------------+  no session left: KD

    A host is seen by a sweep, a session or a disclosure, and starts in U instead at an agent's first call (Q24). A
    sweep adds D to the hosts known before it (Q53). Returns the new `Red.known` and `Red.discovered`.
    """
    own = ~is_foreign(order.target)
    k, s, u, r = red.known
    known = k | s | u | r
    zone = red_to_zones(jnp.where(results.swept, order.subnet, NO_HOST))
    swept = jnp.where(zone == ZONES, exists, 0)
    discovered = red.discovered | (swept & known)
    # an owner has one action per step, which moves its target at most one state on
    to_s = target.where(results.scanned & own) & k
    to_u = target.where(results.exploited & own) & s
    to_r = target.where(results.escalated & own) & u
    k = k & ~to_s
    s = (s | to_s) & ~to_u
    u = (u | to_u) & ~to_r
    r = r | to_r
    # hosts seen for the first time
    seen = (swept | held | disclosed) & ~known
    first_call = red_to_zones(red.first_call)
    k = k | jnp.where(first_call, 0, seen)
    u = u | jnp.where(first_call, seen, 0)
    # hosts without a session
    lost = (u | r) & ~held
    return jnp.stack([k | lost, s, u & ~lost, r & ~lost]), discovered | lost


def _learn_foreign(
    red: Red, order: RedOrder, results: Results, disclosed: UInt32[Array, "red"]
) -> UInt32[Array, "foreign red"]:
    """The same for server 0 of foreign zones: unknown --disclosure--> K --scan--> S --exploit--> F."""
    zone = jnp.where(is_foreign(order.target), bit(jnp.maximum(foreign_zone(order.target), 0)), np.uint32(0))
    k, s, f = red.foreign
    to_s = jnp.where(results.scanned, zone & k, 0)
    to_f = jnp.where(results.exploited, zone & s, 0)
    seen = disclosed & ~(k | s | f)
    return jnp.stack([(k & ~to_s) | seen, (s | to_s) & ~to_f, f | to_f])


def learn(
    red: Red,
    exists: UInt32[Array, "zone"],
    order: RedOrder,
    target: Target,
    results: Results,
    held: UInt32[Array, "zone"],
    active: Bool[Array, "red"],
) -> Red:
    """Update the knowledge of active agents; inactive ones are frozen (Q25). `held` are the hosts with red sessions."""
    roots_server_0 = results.disclosed & ~is_foreign(order.target) & (slot_of(target.host) == 0)
    linked = jnp.where(roots_server_0, jnp.asarray(_LINKED).at[zone_of(target.host)].get(mode="clip"), np.uint32(0))
    disclosed = unpack(union(linked & _OWNED, 0), range(NUM_ZONES)).astype(jnp.uint32)  # server 0 is the lowest bit
    known, discovered = _learn_own(red, exists, order, target, results, held, disclosed)
    foreign = _learn_foreign(red, order, results, linked & ~_OWNED)
    awake = red_to_zones(active)
    return replace(
        red,
        known=jnp.where(awake, known, red.known),
        discovered=jnp.where(awake, discovered, red.discovered),
        foreign=jnp.where(active, foreign, red.foreign),
        named=red.named | jnp.where(awake, held | disclosed, 0),
        first_call=red.first_call & ~active,
        hq_known=red.hq_known | (held[Subnet.ADM :] > 0),
    )
