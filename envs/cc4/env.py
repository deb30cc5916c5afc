"""CAGE Challenge 4 for blue: `reset`, `step`, and the deterministic `transition`, one step as a table of contents.

Everything is written for one environment; `vmap` adds the batch. Order of a step: `SimulationController.py:step`.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, PRNGKeyArray, UInt8, UInt32

from . import actions, blue, draws, green, observations, red, red_fsm, rewards, sessions
from .constants import (
    IN_PROGRESS,
    MAX_IDS,
    MAX_SUSPICIOUS,
    MAX_SUSPICIOUS_ORPHANS,
    MESSAGE_BITS,
    NO_HOST,
    NUM_BLUE,
    NUM_DECOYS,
    NUM_RED,
    NUM_SUBNETS,
    NUM_ZONES,
    RED_DURATION,
    SLOTS,
    Foreign,
    Level,
    Port,
    RedAction,
    Subnet,
)
from .draws import Draws
from .layout import ZONES, hosts_of, is_foreign, pack, unpack, zone_of
from .params import Params, RedPolicy
from .routing import red_to_zones
from .scenario import generate
from .sessions import IDS
from .sets import BitSet
from .state import Hosts, Observation, PackedNetwork, Queue, Red, Rewards, Scenario, ScriptedChoices, Sessions, State


class Info(eqx.Module):
    """What a step returns beside the observation."""

    rewards: Rewards
    executed: UInt8[Array, "blue"]
    """constants.BlueAction that took effect, IN_PROGRESS for agents still busy."""
    zone_rewards: Float[Array, "zone term"]
    """The team reward by the zone of the green user or of red's target, and by RewardTerm; without Restores."""


def mission_phase(scenario: Scenario, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """Mission phase 0, 1 or 2 of a step, which counts from 0; after the end of the episode it stays 2."""
    return (step >= scenario.phase_starts[1:]).sum(dtype=jnp.int32)


def reset(key: PRNGKeyArray, params: Params) -> tuple[Observation, State]:
    """Start an episode on a freshly drawn network.

    Returns what blue sees (`Observation`: flat [blue, 210], mask [blue, 242]) and the state. `vmap` over keys makes
    a batch. A scenario given as data is started with `start`.
    """
    return start(generate(key, params))


def start(scenario: Scenario) -> tuple[Observation, State]:
    """Start an episode in a given scenario (`scenario.generate` or `scenario.from_data`).

    Red agent 0 holds one session in the contractor network, nothing is blocked, all services are as new. Returns the
    observation and the state.
    """
    network = PackedNetwork(pack(_by_zone(scenario.exists)), pack(_by_zone(scenario.services)))
    here = hosts_of(scenario.red_start[None].astype(jnp.int32), jnp.ones(1, bool))
    first = (np.arange(NUM_RED) == 0)[:, None] & (IDS == 0)
    zero = BitSet.single(jnp.where(np.arange(NUM_RED) == 0, 0, MAX_IDS))
    state = State(
        step=jnp.int32(0),
        blue=_idle(NUM_BLUE),
        red=_red_start(scenario, here, zero),
        hosts=_hosts_start(),
        ot_stopped=jnp.zeros(NUM_ZONES, jnp.uint32),
        sessions=Sessions(
            host=jnp.where(first, scenario.red_start, NO_HOST).astype(jnp.uint8),
            pid=jnp.zeros((NUM_RED, MAX_IDS), jnp.uint16),
            abstract=zero,
            root=zero.where(jnp.zeros(NUM_RED, bool)),
        ),
        blocked=jnp.zeros((NUM_SUBNETS, NUM_SUBNETS), bool),
        overflow=jnp.int32(0),
        network=network,
        scenario=scenario,
    )
    silent = jnp.zeros(NUM_ZONES, jnp.uint32)
    return _observation(state, jnp.int32(0), silent, silent, _no_messages()), state


def _by_zone(values: Bool[Array, "*n 128"]) -> Bool[Array, "*n 8 16"]:
    return values.reshape(*values.shape[:-1], NUM_ZONES, SLOTS)


def _idle(agents: int) -> Queue:
    return Queue(jnp.zeros(agents, jnp.uint8), jnp.zeros(agents, jnp.uint8))


def _no_messages() -> UInt8[Array, "blue bit"]:
    return jnp.zeros((NUM_BLUE, MESSAGE_BITS), jnp.uint8)


def _hosts_start() -> Hosts:
    def no_pids(*rows):
        return jnp.zeros((*rows, NUM_ZONES, SLOTS), jnp.uint16)

    return Hosts(
        reliability=jnp.full((NUM_ZONES, SLOTS), 100, jnp.uint8),
        decoy_pid=no_pids(NUM_DECOYS),
        decoy_reliability=no_pids(NUM_DECOYS).astype(jnp.uint8),
        orphan_pid=no_pids(),
        suspicious_orphan_pid=no_pids(MAX_SUSPICIOUS_ORPHANS),
        suspicious_pid=no_pids(MAX_SUSPICIOUS),
    )


def _red_start(scenario: Scenario, here: UInt32[Array, "zone"], known_ids: BitSet) -> Red:
    def nothing(*axes, dtype=jnp.uint32):
        return jnp.zeros(axes, dtype)

    def no_scans(*targets):
        return BitSet(nothing(len(Port), *targets), nothing(len(Port), *targets))

    return Red(
        queue=_idle(NUM_RED),
        target=nothing(NUM_RED, dtype=jnp.uint8),
        session=nothing(NUM_RED, dtype=jnp.uint8),
        known=jnp.where(np.arange(len(Level))[:, None] == Level.U, here, nothing(1)),
        discovered=nothing(NUM_ZONES),
        foreign=nothing(len(Foreign), NUM_RED),
        named=here,
        first_call=jnp.arange(NUM_RED) > 0,
        known_ids=known_ids,
        hq_known=scenario.hq_start == np.arange(Subnet.ADM, Subnet.INT),
        scans=no_scans(NUM_ZONES, SLOTS),
        foreign_scans=no_scans(NUM_RED, NUM_ZONES),
    )


def _observation(state: State, phase, process, connection, messages) -> Observation:
    vector = observations.observe(phase, state.blocked, process, connection, messages)
    return Observation(vector, actions.action_mask(state.scenario.exists))


def decide(state: State, policy: RedPolicy, draws: Draws) -> ScriptedChoices:
    """What the six red agents and the 80 green users choose, from what they know at the end of the step before.

    The choices of busy agents count for nothing; `transition` leaves them out.
    """
    order = red_fsm.choose(state.red, state.scenario, policy, draws)
    phase = mission_phase(state.scenario, state.step)
    green_action, green_server = green.choose(state.scenario, phase, draws)
    return ScriptedChoices(order.kind, order.target, order.session, order.subnet, green_action, green_server)


def step(
    key: PRNGKeyArray,
    state: State,
    action: Integer[Array, "blue"],
    params: Params,
    messages: UInt8[Array, "blue bit"] | None = None,
) -> tuple[Observation, State, Float[Array, ""], Bool[Array, ""], Info]:
    """Play one step with freshly drawn chances.

    `key` is used up; `action` holds five indices within 0..241, masked ones act as Sleep; `messages` are 8 bits of each
    blue agent, none if None. Returns what `transition` returns. There is no automatic reset. Raises ValueError for
    another shape of `action`.
    """
    if jnp.shape(action) != (NUM_BLUE,):
        raise ValueError(f"action holds an index for each of {NUM_BLUE} agents, not the shape {jnp.shape(action)}.")
    drawn = draws.sample(key)
    return transition(state, action, messages, decide(state, params.red, drawn), drawn)


def _queue_red(red_state: Red, choices: ScriptedChoices, alive: BitSet) -> tuple[Red, red.RedOrder, red.RedOrder]:
    """Advance red's queues.

    Returns red's state, the actions that are due, and the same without those that are dropped because their session is
    gone (Q7).
    """
    active = alive.count() > 0
    wanted = jnp.where(active, choices.red_action, RedAction.SLEEP).astype(jnp.uint8)
    queue, taken, ready = actions.advance(red_state.queue, wanted, jnp.asarray(RED_DURATION)[wanted])
    target = jnp.where(taken, choices.red_target, red_state.target)
    session = jnp.where(taken, choices.red_session, red_state.session)
    kind = jnp.where(ready, queue.action, IN_PROGRESS).astype(jnp.uint8)
    due = red.RedOrder(kind, target, session, choices.red_subnet)
    kept = replace(due, kind=jnp.where(alive.contains(session), kind, IN_PROGRESS).astype(jnp.uint8))
    return replace(red_state, queue=queue, target=target, session=session), due, kept


def transition(
    state: State,
    action: Integer[Array, "blue"],
    messages: UInt8[Array, "blue bit"] | None,
    choices: ScriptedChoices,
    draws: Draws,
) -> tuple[Observation, State, Float[Array, ""], Bool[Array, ""], Info]:
    """One step, deterministic: blue's action indices, what the scripted agents chose, and the outcomes of chance.

    Returns the observation after the step, the next state, the team reward, whether the episode is over (a time limit),
    and `Info`. Blue's messages arrive within the step; None sends zeros. `action` must be within 0..241.
    """
    scenario, network, phase = state.scenario, state.network, mission_phase(state.scenario, state.step)
    # queues, and the drop of red actions whose session is gone
    blue_queue, order, restores = actions.submit(state.blue, action, scenario.exists)
    alive = sessions.live_ids(state.sessions)
    red_state, due, red_order = _queue_red(state.red, choices, alive)
    # blue, traffic first
    blocked = blue.control_traffic(state.blocked, order)
    defended = blue.act(state.hosts, state.sessions, network, order, draws)
    alive, ot_stopped = alive & ~defended.killed, state.ot_stopped & ~defended.restored
    # green
    held = sessions.held_hosts(defended.sessions)
    worked = green.act(defended.hosts, ot_stopped, held, blocked, network, choices, draws)
    phished = sessions.phish(worked.phished, held, defended.hosts, alive, draws)
    # red
    found = red.World(defended.hosts, network, blocked, defended.sessions, alive, phished)
    attacked = red.act(red_state, found, red_order, draws)
    # sessions in foreign zones are handed over; agents without a session 0 get one
    moves = sessions.reassign(phished, attacked.opened)
    table = replace(defended.sessions, root=attacked.root)
    table, lost_sessions = sessions.open_new(table, phished, attacked.opened, moves)
    alive = alive | moves.new
    active = alive.count() > 0
    table, renumbered = sessions.renumber(table, alive, draws.primary)
    # everyone takes notes
    suspicious_pids, lost_pids = red.record_pids(attacked.hosts.suspicious_pid, attacked.opened, attacked.recorded)
    known_ids = sessions.learn_ids(red_state.known_ids, table, moves, renumbered)
    red_state = _remember(red_state, red_order, attacked, defended.killed, renumbered)
    red_state = red_fsm.learn(
        replace(red_state, known_ids=known_ids),
        network.exists,
        red_order,
        attacked.target,
        attacked.results,
        sessions.held_hosts(table),
        active,
    )
    # rewards, observations
    charged = scenario, phase, worked.work_failed, worked.access_failed, due, active
    parts = rewards.team_reward(*charged, restores)
    state = State(
        step=state.step + 1,
        blue=blue_queue,
        red=red_state,
        hosts=replace(attacked.hosts, suspicious_pid=suspicious_pids),
        ot_stopped=ot_stopped | attacked.ot_stopped,
        sessions=table,
        blocked=blocked,
        overflow=state.overflow + defended.overflow + lost_sessions + lost_pids,
        network=network,
        scenario=scenario,
    )
    obs = _observation(
        state,
        phase,
        worked.process | attacked.process,
        worked.connection | attacked.connection,
        _no_messages() if messages is None else messages,
    )
    reward = parts.lwf + parts.asf + parts.ria + parts.cost
    return obs, state, reward, state.step >= scenario.num_steps, Info(parts, order.kind, rewards.by_zone(*charged))


def _remember(
    red_state: Red, order: red.RedOrder, attacked: red.RedStep, gone: BitSet, renumbered: sessions.Renumbered
) -> Red:
    """Scan memory of all sessions after the step."""
    abroad = is_foreign(order.target)
    own = unpack(attacked.target.where(attacked.remembers & ~abroad))
    foreign = (attacked.remembers & abroad)[:, None] & (zone_of(attacked.target.host)[:, None] == ZONES)
    changes = sessions.ScanChanges(
        scanned=BitSet.single(order.session),
        ports=attacked.ports,
        gone=gone,
        renumbered=BitSet.single(renumbered.old_id).where(renumbered.done),
    )
    by_zone = jax.tree.map(red_to_zones, changes)
    return replace(
        red_state,
        scans=sessions.update_scans(red_state.scans, own, by_zone),
        foreign_scans=sessions.update_scans(red_state.foreign_scans, foreign, changes),
    )
