"""The scripted red agents: what they know of hosts, and what they choose. Parameters are data, one program plays all.

Ported from `FiniteStateRedAgent.py`, `FSMRedVariants.py` and `ActionSpace.py`; quirks Q6, Q23 to Q28. The CIA reds
weigh hosts by their resilience role (rules of the other JAX port: any eligible host, whether or not its name is known).
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from .constants import (
    HOST_SUBNET,
    IS_SERVER,
    LINKS,
    NO_HOST,
    NUM_HOSTS,
    NUM_PHASES,
    NUM_RED,
    NUM_RED_ACTIONS,
    NUM_STATES,
    NUM_ZONES,
    OWN_TARGETS,
    SLOTS,
    Knowledge,
    RedAction,
    Role,
    Subnet,
)
from .draws import Draws, place
from .red import RedOrder, Results
from .routing import by_zone, red_to_hosts, zones_to_hosts, zones_to_red
from .sessions import OWNER, occupied
from .sets import Set
from .state import Red, Scenario, Sessions

_K = Knowledge
_FSM = {
    _K.K: (0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0),
    _K.KD: (0, 0.5, 0.5, 0, 0, 0, 0, 0, 0),
    _K.S: (0.25, 0, 0, 0.25, 0.5, 0, 0, 0, 0),
    _K.SD: (0, 0, 0, 0.25, 0.75, 0, 0, 0, 0),
    _K.U: (0.5, 0, 0, 0, 0, 0.5, 0, 0, 0),
    _K.UD: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.R: (0.5, 0, 0, 0, 0, 0, 0.25, 0.25, 0),
    _K.RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5, 0),
}
_CIA = _FSM | {_K.R: (0.1, 0, 0, 0, 0, 0, 0.45, 0.45, 0)}
_DISCOVERY = {
    _K.K: (0.25, 0.75, 0, 0, 0, 0, 0, 0, 0),
    _K.KD: (0, 1, 0, 0, 0, 0, 0, 0, 0),
    _K.S: (0.25, 0, 0, 0, 0.75, 0, 0, 0, 0),
    _K.SD: (0, 0, 0, 0, 1, 0, 0, 0, 0),
    _K.U: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.UD: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.R: (1, 0, 0, 0, 0, 0, 0, 0, 0),
    _K.RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5, 0),
}
_DISCOVERY_WEIGHTS = {_K.K: 20, _K.KD: 20, _K.S: 20, _K.SD: 20, _K.U: 10, _K.UD: 10}


class RedPolicy(eqx.Module):
    """A scripted red as data."""

    action_cdf: Float[Array, "state red_action"]
    """Running sums of the action probabilities, by the state of the chosen host (constants.Knowledge)."""
    role_weight: Float[Array, ""]
    """Weight of a host whose role is hunted; others have 1."""
    hunted: Bool[Array, "role"]
    by_state: Bool[Array, ""]
    """Draw a state first, then a host in it."""
    state_weights: Float[Array, "state"]
    server_chance: Float[Array, ""]
    """Chance to pick among known servers only, if there are any; 0 does not tell them apart."""


def red_policy(
    actions: dict[Knowledge, tuple[float | int, ...]],
    role_weight: float | int = 1,
    hunted: tuple[Role, ...] = (),
    state_weights: dict[Knowledge, float | int] | None = None,
    server_chance: float | int = 0,
) -> RedPolicy:
    """Build a red: action probabilities by host state, in the order of RedAction; what is missing to 1 is Sleep.

    Raises ValueError if a row is negative or sums to more than 1.
    """
    table = np.zeros((NUM_STATES, NUM_RED_ACTIONS))
    for state, row in actions.items():
        table[state, : len(row)] = row
    if (table < 0).any() or (table.sum(axis=1) > 1 + 1e-6).any():
        raise ValueError("action probabilities of a red must be at least 0 and sum to at most 1 in every state")
    table[:, RedAction.SLEEP] += 1 - table.sum(axis=1)
    weights = np.zeros(NUM_STATES)
    for state, weight in (state_weights or {}).items():
        weights[state] = weight
    return RedPolicy(
        action_cdf=jnp.asarray(np.cumsum(table, axis=1), jnp.float32),
        role_weight=jnp.float32(role_weight),
        hunted=jnp.asarray([role in hunted for role in Role]),
        by_state=jnp.asarray(state_weights is not None),
        state_weights=jnp.asarray(weights, jnp.float32),
        server_chance=jnp.float32(server_chance),
    )


class Params(eqx.Module):
    """What an episode is played with, beside its scenario."""

    red: RedPolicy
    operational_servers: Int32[Array, ""]
    """Servers in each operational zone; 0 draws 1 to 6. Resilience roles are drawn only if it is not 0."""
    num_steps: Int32[Array, ""]


_POLICIES = {
    "fsm": lambda: red_policy(_FSM),
    "cia_c": lambda: red_policy(_CIA, 10, (Role.AUTH, Role.DB)),
    "cia_i": lambda: red_policy(_CIA, 10, (Role.AUTH, Role.WEB)),
    "cia_a": lambda: red_policy(_CIA, 10, (Role.AUTH, Role.DB, Role.WEB)),
    "discovery": lambda: red_policy(_DISCOVERY, state_weights=_DISCOVERY_WEIGHTS, server_chance=0.75),
    "sleep": lambda: red_policy({}),
}
REDS = tuple(_POLICIES)


def make_params(red: str | RedPolicy = "fsm", num_steps: int = 500) -> Params:
    """Parameters of one of REDS, or of a RedPolicy of your own.

    Raises ValueError for an unknown name or an episode shorter than one step per phase.
    """
    if num_steps < NUM_PHASES:
        raise ValueError(f"num_steps must be at least {NUM_PHASES}, one per mission phase, but is {num_steps}")
    if isinstance(red, str):
        if red not in _POLICIES:
            raise ValueError(f"unknown red '{red}'; known are {', '.join(REDS)}")
        policy, servers = _POLICIES[red](), 3 if red.startswith("cia_") else 0
    else:
        policy, servers = red, 0
    return Params(policy, jnp.int32(servers), jnp.int32(num_steps))


def _pack(flags: Bool[Array, "host"], foreign: Bool[Array, "red zone"]) -> Set:
    """[red] the targets (see Red.target) whose flag is set."""
    words = jnp.where(by_zone(flags), 1 << np.arange(SLOTS, dtype=np.uint32), 0).sum(axis=1, dtype=jnp.uint32)
    abroad = jnp.where(foreign, 1 << np.arange(SLOTS, SLOTS + NUM_ZONES, dtype=np.uint32), 0).sum(
        axis=1, dtype=jnp.uint32
    )
    in_hq = np.arange(NUM_RED) == NUM_RED - 1
    low = words[:NUM_RED] | jnp.where(in_hq, words[6] << 16, 0)
    return Set(low, jnp.where(in_hq, words[7], 0) | abroad)


def _hunted_targets(scenario: Scenario, policy: RedPolicy) -> Set:
    """[red] the targets with a hunted role."""
    hosts = jnp.where(policy.hunted, scenario.roles, NO_HOST)
    flags = (hosts[:, None] == np.arange(NUM_HOSTS)).any(axis=0)
    foreign = jnp.broadcast_to(by_zone(flags)[:, 0], (NUM_RED, NUM_ZONES))
    return _pack(flags, foreign)


def _draw_state(red: Red, policy: RedPolicy, eligible: Bool[Array, "host"], u) -> Int32[Array, "red"]:
    """A state among those of an agent's hosts, by weight; uniformly if none of them has any."""
    bits = jnp.where(eligible, jnp.int32(1) << red.knowledge, 0)
    own = jax.lax.reduce(by_zone(bits), np.int32(0), jax.lax.bitwise_or, (1,))
    abroad = jax.lax.reduce(jnp.int32(1) << red.foreign, np.int32(0), jax.lax.bitwise_or, (1,))
    present = ((zones_to_red(own, jnp.bitwise_or) | abroad)[:, None] >> np.arange(NUM_STATES)) % 2 == 1
    present = present & ~np.isin(np.arange(NUM_STATES), (_K.UNKNOWN, _K.F))
    weights = jnp.where(present, policy.state_weights, 0)
    weights = jnp.where(weights.sum(axis=1, keepdims=True) > 0, weights, present)
    stops = jnp.cumsum(weights, axis=1)
    return (stops <= (u * stops[:, -1])[:, None]).sum(axis=1)


def _choose_target(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> Int32[Array, "red"]:
    """A target among the known ones that are not F, by the policy's preferences."""
    own = (red.knowledge != _K.UNKNOWN) & (red.knowledge != _K.F)
    foreign = (red.foreign == _K.K) | (red.foreign == _K.S)
    state = _draw_state(red, policy, own, draws.red_state)
    own = own & (~policy.by_state | (red.knowledge == red_to_hosts(state)))
    foreign = foreign & (~policy.by_state | (red.foreign == state[:, None]))
    targets = _pack(own, foreign)
    servers = _pack(own & red.named & IS_SERVER, foreign)
    others = targets & ~servers
    want_servers = (draws.red_server <= policy.server_chance) | (others.count() == 0)
    choosy = (policy.server_chance > 0) & (servers.count() > 0)
    targets = servers.where(choosy & want_servers) | others.where(choosy & ~want_servers) | targets.where(~choosy)
    hunted = targets & _hunted_targets(scenario, policy)
    extra = policy.role_weight - 1
    count = targets.count()
    x = draws.red_host * (count + extra * hunted.count())
    in_hunted = x >= count
    rank = jnp.where(in_hunted, (x - count) / jnp.maximum(extra, 1e-6), x).astype(jnp.int32)
    candidates = hunted.where(in_hunted) | targets.where(~in_hunted)
    return candidates.nth(jnp.minimum(rank, candidates.count() - 1))


def choose(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> RedOrder:
    """What each red agent would do: a host, an action by the host's state, any known session id, any known subnet."""
    target = _choose_target(red, scenario, policy, draws)
    abroad = target >= OWN_TARGETS
    host = jnp.minimum(target + np.arange(NUM_RED) * SLOTS, NUM_HOSTS - 1)
    zone = jnp.maximum(target - OWN_TARGETS, 0)
    state = jnp.where(abroad, red.foreign[np.arange(NUM_RED), zone], red.knowledge[host])
    action = (policy.action_cdf[state][:, :-1] <= draws.red_action[:, None]).sum(axis=1)
    session = red.known_ids.nth(place(draws.red_session, red.known_ids.count()))
    known = Set(jnp.where(red.hq_known, 1 << np.arange(3, dtype=np.uint32), 0).sum(dtype=jnp.uint32), jnp.uint32(0))
    hq = Subnet.ADM + known.nth(place(draws.red_subnet[-1], known.count()))
    subnet = jnp.where(np.arange(NUM_RED) == NUM_RED - 1, hq, np.arange(NUM_RED))
    return RedOrder(*(x.astype(jnp.uint8) for x in (action, target, session, subnet)))


_FIRST_STATE = (("scanned", _K.K), ("exploited", _K.S), ("escalated", _K.U))


def _progress(order: RedOrder, results: Results) -> tuple[UInt8[Array, "red"], UInt8[Array, "red"]]:
    """The state (undiscovered) that a successful action lifts its target from, 0 for none; and the zone swept."""
    level = jnp.zeros(NUM_RED, jnp.uint8)
    for name, state in _FIRST_STATE:
        level = jnp.where(getattr(results, name), np.uint8(state), level)
    return level, jnp.where(results.swept, order.subnet, NO_HOST).astype(jnp.uint8)


def _learn_own(
    red: Red,
    scenario: Scenario,
    order: RedOrder,
    results: Results,
    held: Bool[Array, "host"],
    disclosed: Bool[Array, "host"],
) -> UInt8[Array, "host"]:
    """The owners' state machines: transition of the action that succeeded, hosts newly seen, hosts lost."""
    level, zone = _progress(order, results)
    level = red_to_hosts(jnp.where(order.is_foreign(), 0, level))
    here = red_to_hosts(order.host().astype(jnp.uint8)) == np.arange(NUM_HOSTS, dtype=np.uint8)
    swept = red_to_hosts(zone) == HOST_SUBNET.astype(np.uint8)
    state = red.knowledge
    lifted = here & (level > 0) & ((state == level) | (state == level + 1))
    discovered = swept & (state % 2 == 1) & (state < _K.F)
    new = jnp.where(lifted, state + 2, jnp.where(discovered, state + 1, state))
    first = jnp.where(red_to_hosts(red.first_call), np.uint8(_K.U), np.uint8(_K.K))
    seen = (swept & scenario.exists) | held | disclosed
    new = jnp.where((state == _K.UNKNOWN) & seen, first, new)
    lost = ~held & (new >= _K.U) & (new <= _K.RD)
    return jnp.where(lost, _K.KD, new).astype(jnp.uint8)


def _learn_foreign(
    red: Red, order: RedOrder, results: Results, disclosed: Bool[Array, "red zone"]
) -> UInt8[Array, "red zone"]:
    """The same for server 0 of foreign zones: UNKNOWN to K when disclosed, to S when scanned, to F when exploited."""
    here = order.is_foreign()[:, None] & (order.target[:, None] == np.arange(OWN_TARGETS, OWN_TARGETS + NUM_ZONES))
    state = red.foreign
    state = jnp.where(here & results.scanned[:, None] & (state == _K.K), _K.S, state)
    state = jnp.where(here & results.exploited[:, None] & (red.foreign == _K.S), _K.F, state)
    return jnp.where(disclosed & (red.foreign == _K.UNKNOWN), _K.K, state).astype(jnp.uint8)


def learn(
    red: Red, scenario: Scenario, order: RedOrder, results: Results, sessions: Sessions, active: Bool[Array, "red"]
) -> Red:
    """What the active agents know after a step; an inactive one's knowledge is frozen (Q25)."""
    held = occupied(sessions).any(axis=0)
    rooted_server_0 = results.disclosed & ~order.is_foreign() & (order.host() % SLOTS == 0)
    links = jnp.asarray(LINKS)[order.host() // SLOTS] & rooted_server_0[:, None]
    own_links = links & (np.arange(NUM_RED)[:, None] == OWNER)
    first_slot = np.arange(NUM_HOSTS) % SLOTS == 0
    disclosed = zones_to_hosts(own_links.any(axis=0)) & first_slot
    awake = red_to_hosts(active)
    knowledge = _learn_own(red, scenario, order, results, held, disclosed)
    foreign = _learn_foreign(red, order, results, links & ~own_links)
    in_hq = by_zone(held).any(axis=1)[Subnet.ADM :]
    return replace(
        red,
        knowledge=jnp.where(awake, knowledge, red.knowledge),
        foreign=jnp.where(active[:, None], foreign, red.foreign),
        named=red.named | (awake & (held | disclosed)),
        first_call=red.first_call & ~active,
        hq_known=red.hq_known | in_hq,
    )
