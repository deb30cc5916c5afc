"""The scripted red agents: what they know of hosts, and what they choose. Parameters are data, one program plays all.

Ported from `FiniteStateRedAgent.py`, `FSMRedVariants.py` and `ActionSpace.py`; QUIRKS.md: Q6, Q23 to Q28, Q53. The
CIA reds weigh hosts by their resilience role: any eligible host, whether or not its name is known (PARITY.md).
"""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt32

from .checks import check_num_steps, check_red
from .constants import (
    LINKS,
    NO_HOST,
    NUM_RED,
    NUM_RED_ACTIONS,
    NUM_STATES,
    NUM_ZONES,
    SLOTS,
    Foreign,
    Knowledge,
    Level,
    RedAction,
    Role,
    Subnet,
)
from .draws import Draws, place
from .red import RedOrder, Results
from .routing import OWNER, SERVERS, ZONES, hosts_of, red_to_zones, slot_of, union, zone_of
from .sessions import AGENTS
from .sets import Set
from .state import Red, Scenario

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

    Raises ValueError, with one sentence, for anything else than this (checks.py).
    """
    check_red(actions, role_weight, hunted, state_weights, server_chance)
    table = np.zeros((NUM_STATES, NUM_RED_ACTIONS))
    for state, row in actions.items():
        table[state, : len(row)] = row
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


RED_ARGUMENTS = {
    "fsm": {"actions": _FSM},
    "cia_c": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.DB)},
    "cia_i": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.WEB)},
    "cia_a": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.DB, Role.WEB)},
    "discovery": {"actions": _DISCOVERY, "state_weights": _DISCOVERY_WEIGHTS, "server_chance": 0.75},
    "sleep": {"actions": {}},
}
"""Arguments of `red_policy`, by the red's name."""
REDS = tuple(RED_ARGUMENTS)


def make_params(red: str | RedPolicy = "fsm", num_steps: int = 500) -> Params:
    """Parameters of one of REDS, or of a RedPolicy of your own.

    Roles are drawn for a red that hunts them, on three servers in each operational zone. Raises ValueError, with one
    sentence, for an unknown name, or an episode shorter than one step per phase.
    """
    check_num_steps(num_steps)
    if isinstance(red, RedPolicy):
        policy = red
    elif isinstance(red, str) and red in RED_ARGUMENTS:
        policy = red_policy(**RED_ARGUMENTS[red])
    else:
        raise ValueError(f"unknown red {red!r}; known are {', '.join(REDS)}.")
    return Params(policy, jnp.where(policy.hunted.any(), 3, 0).astype(jnp.int32), jnp.int32(num_steps))


def _targets(own: UInt32[Array, "*n zone"], foreign: UInt32[Array, "*n red"]) -> Set:
    """[red] sets of own hosts and of foreign server 0s as sets of targets (see Red.target)."""
    hq = own[..., 5] | own[..., 6] << SLOTS
    low = jnp.concatenate([own[..., :5], hq[..., None]], axis=-1)
    high = jnp.where(AGENTS == NUM_RED - 1, own[..., 7:], np.uint32(0))
    return Set(low, high | foreign << SLOTS)


def _hunted_targets(scenario: Scenario, policy: RedPolicy) -> Set:
    """[red] the targets with a hunted role."""
    roles = scenario.roles.astype(jnp.int32)
    hosts = hosts_of(roles, policy.hunted & (roles != NO_HOST))
    foreign = union(jnp.where(hosts & 1 == 1, np.uint32(1) << np.arange(NUM_ZONES, dtype=np.uint32), np.uint32(0)), 0)
    return _targets(hosts, jnp.broadcast_to(foreign, NUM_RED))


def _states(red: Red) -> list[tuple[Knowledge, Set]]:
    """[red] the targets in every state from which red acts."""
    states = []
    nothing = jnp.zeros(NUM_RED, jnp.uint32)
    for level in Level:
        foreign = red.foreign[level] if level <= Level.S else nothing
        states.append((_K(2 * level + 1), _targets(red.known[level] & ~red.discovered, foreign)))
        states.append((_K(2 * level + 2), _targets(red.known[level] & red.discovered, nothing)))
    return states


def _restrict_to_state(red: Red, policy: RedPolicy, u: Float[Array, "red"]) -> Set:
    """Targets in one state, drawn by weight among the states that occur; uniformly if none of them has a weight."""
    states = _states(red)
    weights = jnp.stack([jnp.where(targets.count() > 0, policy.state_weights[state], 0) for state, targets in states])
    present = jnp.stack([(targets.count() > 0).astype(jnp.float32) for _, targets in states])
    weights = jnp.where(weights.sum(axis=0) > 0, weights, present)
    limit, stop, chosen = u * weights.sum(axis=0), jnp.zeros(NUM_RED), None
    for (_, targets), weight in zip(states, weights, strict=True):
        here = targets.where((stop <= limit) & (limit < stop + weight))
        chosen, stop = here if chosen is None else chosen | here, stop + weight
    return chosen


def _choose_target(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> Int32[Array, "red"]:
    """A target among the known ones that are not F, by the policy's preferences."""
    own = union(red.known, 0)
    foreign = red.foreign[Foreign.K] | red.foreign[Foreign.S]
    targets, servers = _targets(own, foreign), _targets(own & red.named & SERVERS, foreign)
    targets = _restrict_to_state(red, policy, draws.red_state).where(policy.by_state) | targets.where(~policy.by_state)
    servers = servers & targets
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


def _state_of(red: Red, target: Int32[Array, "red"]) -> Int32[Array, "red"]:
    """The state in which the agents have their targets."""
    level = jnp.zeros(NUM_RED, jnp.int32)
    for state, targets in _states(red):
        level = jnp.where(targets.has(target), state, level)
    return level


def choose(red: Red, scenario: Scenario, policy: RedPolicy, draws: Draws) -> RedOrder:
    """What each red agent would do: a host, an action by the host's state, any known session id, any known subnet."""
    target = _choose_target(red, scenario, policy, draws)
    cdf = policy.action_cdf[_state_of(red, target)]
    action = (cdf[:, :-1] <= draws.red_action[:, None]).sum(axis=1)
    session = red.known_ids.nth(place(draws.red_session, red.known_ids.count()))
    known = union(jnp.where(red.hq_known, 1 << np.arange(3, dtype=np.uint32), np.uint32(0)), 0)
    known = Set(known, jnp.uint32(0))
    hq = Subnet.ADM + known.nth(place(draws.red_subnet[-1], known.count()))
    subnet = jnp.where(AGENTS == NUM_RED - 1, hq, AGENTS)
    return RedOrder(*(x.astype(jnp.uint8) for x in (action, target, session, subnet)))


def _learn_own(
    red: Red, exists: UInt32[Array, "zone"], order: RedOrder, results: Results, held, disclosed
) -> tuple[UInt32[Array, "level zone"], UInt32[Array, "zone"]]:
    """The owners' state machines: transition of the action that succeeded, hosts newly seen, hosts lost."""
    own, host = ~order.is_foreign(), order.host()
    k, s, u, r = red.known
    known = k | s | u | r
    zone = red_to_zones(jnp.where(results.swept, order.subnet, NO_HOST))
    swept = jnp.where(zone == ZONES, exists, 0)
    discovered = red.discovered | (swept & known)
    to_s, to_u, to_r = (
        hosts_of(host, done & own) & level
        for done, level in ((results.scanned, k), (results.exploited, s), (results.escalated, u))
    )
    k, s, u, r = k & ~to_s, (s | to_s) & ~to_u, (u | to_u) & ~to_r, r | to_r
    new = (swept | held | disclosed) & ~known
    first = red_to_zones(red.first_call)
    k, u = k | jnp.where(first, 0, new), u | jnp.where(first, new, 0)
    lost = (u | r) & ~held
    return jnp.stack([k | lost, s, u & ~lost, r & ~lost]), discovered | lost


def _learn_foreign(
    red: Red, order: RedOrder, results: Results, disclosed: Bool[Array, "red zone"]
) -> UInt32[Array, "foreign red"]:
    """The same for server 0 of foreign zones: to K when disclosed, to S when scanned, to F when exploited."""
    zone = jnp.where(order.is_foreign(), np.uint32(1) << jnp.maximum(order.foreign_zone(), 0).astype(jnp.uint32), 0)
    k, s, f = red.foreign
    to_s, to_f = jnp.where(results.scanned, zone & k, 0), jnp.where(results.exploited, zone & s, 0)
    seen = union(jnp.where(disclosed, np.uint32(1) << np.arange(NUM_ZONES, dtype=np.uint32), np.uint32(0)), 1)
    return jnp.stack([(k & ~to_s) | (seen & ~(k | s | f)), (s | to_s) & ~to_f, f | to_f])


def learn(
    red: Red,
    exists: UInt32[Array, "zone"],
    order: RedOrder,
    results: Results,
    held: UInt32[Array, "zone"],
    active: Bool[Array, "red"],
) -> Red:
    """What the active agents know after a step; an inactive one's knowledge is frozen (Q25). `held`: red's hosts."""
    rooted_server_0 = results.disclosed & ~order.is_foreign() & (slot_of(order.host()) == 0)
    links = jnp.asarray(LINKS).at[zone_of(order.host())].get(mode="clip") & rooted_server_0[:, None]
    own_links = links & (AGENTS[:, None] == OWNER)
    disclosed = own_links.any(axis=0).astype(jnp.uint32)
    known, discovered = _learn_own(red, exists, order, results, held, disclosed)
    foreign = _learn_foreign(red, order, results, links & ~own_links)
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

