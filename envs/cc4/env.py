"""CAGE Challenge 4 for blue: `reset`, `step`, and the deterministic `transition`, which lists the parts of a step.

Every function takes one environment; `vmap` adds the batch axis. Order of a step: `SimulationController.py:step`.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, PRNGKeyArray, UInt8, UInt32

from . import actions, blue, draws, green, observations, raw, red, red_fsm, report, rewards, sessions
from .checks import check_integers
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
    """Details of a step."""

    rewards: Rewards
    executed: UInt8[Array, "blue"]
    """constants.BlueAction that took effect; IN_PROGRESS while the agent is busy."""
    zone_rewards: Float[Array, "zone term"]
    """The team reward by the zone of the green user or of red's target, and by RewardTerm; without Restores."""
    killed: Int32[Array, "blue"]
    """Red sessions that the agent's Remove or Restore has ended."""
    decoy_hits: Int32[Array, ""]
    """HTTP and HTTPS exploits that met a decoy."""
    impacts: Int32[Array, ""]
    """Impacts that stopped OTService."""


def mission_phase(scenario: Scenario, step: Int32[Array, ""]) -> Int32[Array, ""]:
    """Mission phase 0, 1 or 2 of a step. Steps count from 0; after the end of the episode the phase stays 2."""
    return (step >= scenario.phase_starts[1:]).sum(dtype=jnp.int32)


def reset(key: PRNGKeyArray, params: Params) -> tuple[Observation, State]:
    """Start an episode on a newly sampled network.

    Returns the observation (`Observation`: flat [blue, 210], mask [blue, 242]) and the state. `vmap` over keys gives
    a batch. For a scenario given as data, use `start`.
    """
    return start(generate(key, params))


def start(scenario: Scenario) -> tuple[Observation, State]:
    """Start an episode in a given scenario (`scenario.generate` or `scenario.from_data`).

    Red agent 0 has one session, in the contractor network. Nothing is blocked or degraded. Returns the observation and
    the state.
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
        evidence=None if scenario.pid_gap is None else report.no_evidence(),
    )
    silent = jnp.zeros(NUM_ZONES, jnp.uint32)
    obs = _observation(state, jnp.int32(0), silent, silent, _no_messages())
    return (obs if state.evidence is None else replace(obs, raw=raw.silent())), state


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
    """Choices of the six red agents and 80 green users, from their knowledge after the previous step.

    `transition` ignores the choices of busy agents.
    """
    order = red_fsm.choose(state.red, state.scenario, policy, draws)
    phase = mission_phase(state.scenario, state.step)
    green_action, green_server = green.choose(state.scenario, phase, draws)
    return ScriptedChoices(order.kind, order.target, order.session, order.subnet, green_action, green_server)


def step(
    key: PRNGKeyArray,
    state: State,
    action: Integer[Array | np.ndarray, "blue"],
    params: Params,
    messages: Integer[Array | np.ndarray, "blue bit"] | None = None,
) -> tuple[Observation, State, Float[Array, ""], Bool[Array, ""], Info]:
    """Advance one step, sampling its randomness from `key`.

    `action` holds five action indices within 0..241; masked ones and others act as Sleep. `messages` are 8 bits per
    blue agent, nonzero counting as 1; None sends zeros. Returns the results of `transition`. Episodes do not reset
    automatically. Raises ValueError if `action` or `messages` has another shape or holds no integers; messages may be
    booleans.
    """
    what = f"action, one index for each of {NUM_BLUE} agents,"
    action = check_integers(what, action, (NUM_BLUE,)).astype(jnp.int32)
    if messages is not None:
        messages = (check_integers("messages", messages, (NUM_BLUE, MESSAGE_BITS), bits=True) != 0).astype(jnp.uint8)
    drawn, own = draws.sample(key), state.scenario.red
    return transition(state, action, messages, decide(state, params.red if own is None else own, drawn), drawn)


def _queue_red(
    red_state: Red, choices: ScriptedChoices, alive: BitSet, duration: UInt8[Array, "red_action"]
) -> tuple[Red, red.RedOrder, red.RedOrder]:
    """Advance red's action queues.

    Returns red's state, the actions that are due, and those of them whose acting session still exists; the others are
    dropped (Q7).
    """
    active = alive.count() > 0
    wanted = jnp.where(active, choices.red_action, RedAction.SLEEP).astype(jnp.uint8)
    queue, taken, ready = actions.advance(red_state.queue, wanted, duration[wanted])
    target = jnp.where(taken, choices.red_target, red_state.target)
    session = jnp.where(taken, choices.red_session, red_state.session)
    kind = jnp.where(ready, queue.action, IN_PROGRESS).astype(jnp.uint8)
    due = red.RedOrder(kind, target, session, choices.red_subnet)
    kept = replace(due, kind=jnp.where(alive.contains(session), kind, IN_PROGRESS).astype(jnp.uint8))
    return replace(red_state, queue=queue, target=target, session=session), due, kept


class _Orders(eqx.Module):
    """The actions that take effect in a step."""

    blue: actions.BlueOrder
    restores: Integer[Array, ""]
    """Number of Restores submitted; all are charged (Q1)."""
    red_due: red.RedOrder
    """Every red action that is due; Impacts are charged from these (Q2)."""
    red: red.RedOrder
    """Without the dropped ones, whose acting session is gone (Q7)."""


def transition(
    state: State,
    action: Integer[Array, "blue"],
    messages: UInt8[Array, "blue bit"] | None,
    choices: ScriptedChoices,
    draws: Draws,
) -> tuple[Observation, State, Float[Array, ""], Bool[Array, ""], Info]:
    """Advance one step, deterministically, given all choices and random numbers.

    `action` holds five action indices within 0..241. Blue receives `messages` in the same step; None sends zeros.
    Returns the observation after the step, the next state, the team reward, a flag for the last step (a time limit),
    and `Info`.
    """
    before, phase = state, mission_phase(state.scenario, state.step)
    alive = sessions.live_ids(state.sessions)
    state, orders = _submit(state, action, choices, alive)
    # blue, then green, then red
    state, defended = _blue_acts(state, orders.blue, draws)
    survivors = alive & ~defended.killed
    worked, phished = _green_acts(state, survivors, choices, draws)
    state, attacked = _red_acts(state, survivors, phished, orders.red, draws)
    # sessions in foreign zones change owner; everyone records what it has learned
    state, moves, renumbered = _reassign(state, survivors, phished, attacked.opened, draws)
    active = (survivors | moves.new).count() > 0
    state = _learn(state, orders.red, attacked, defended.killed, moves, renumbered, active)
    # reward and observation
    charged = state.scenario, phase, worked.work_failed, worked.access_failed, orders.red_due, active
    parts = rewards.team_reward(*charged, orders.restores)
    evidence, told = report.observe(before, orders.blue, defended, worked, phished, attacked, draws)
    state = replace(state, step=state.step + 1, evidence=evidence)
    process = worked.process | attacked.process
    connection = worked.connection | attacked.connection
    obs = _observation(state, phase, process, connection, _no_messages() if messages is None else messages)
    obs = replace(obs, raw=told)
    reward = parts.lwf + parts.asf + parts.ria + parts.cost
    done = state.step >= state.scenario.num_steps
    return obs, state, reward, done, _info(parts, orders.blue.kind, rewards.by_zone(*charged), defended, attacked)


def _info(
    parts: Rewards,
    executed: UInt8[Array, "blue"],
    zone_rewards: Float[Array, "zone term"],
    defended: blue.BlueStep,
    attacked: red.RedStep,
) -> Info:
    """Details of a step. Red agent b + 1 has the sessions in the zones of blue agent b."""
    return Info(
        rewards=parts,
        executed=executed,
        zone_rewards=zone_rewards,
        killed=defended.killed.count()[1:],
        decoy_hits=attacked.attack.decoy_hits.sum(dtype=jnp.int32),
        impacts=attacked.impact.sum(dtype=jnp.int32),
    )


def _submit(
    state: State, action: Integer[Array, "blue"], choices: ScriptedChoices, alive: BitSet
) -> tuple[State, _Orders]:
    """Advance the action queues of blue and red."""
    game = state.scenario.game
    blue_queue, order, restores = actions.submit(state.blue, action, state.scenario.exists, game.blue_duration)
    red_state, due, kept = _queue_red(state.red, choices, alive, game.red_duration)
    return replace(state, blue=blue_queue, red=red_state), _Orders(order, restores, due, kept)


def _blue_acts(state: State, order: actions.BlueOrder, draws: Draws) -> tuple[State, blue.BlueStep]:
    """Blue's actions, traffic before hosts."""
    defended = blue.act(state.hosts, state.sessions, state.network, order, draws)
    after = replace(
        state,
        blocked=blue.control_traffic(state.blocked, order),
        hosts=defended.hosts,
        sessions=defended.sessions,
        ot_stopped=state.ot_stopped & ~defended.restored,
        overflow=state.overflow + defended.overflow,
    )
    return after, defended


def _green_acts(
    state: State, alive: BitSet, choices: ScriptedChoices, draws: Draws
) -> tuple[green.GreenStep, sessions.Phished]:
    """Green's actions, and the sessions that phishing opens. They change no state before `_reassign`."""
    held = sessions.held_hosts(state.sessions)
    game = state.scenario.game
    worked = green.act(state.hosts, state.ot_stopped, held, state.blocked, state.network, game, choices, draws)
    return worked, sessions.phish(worked.phished, held, state.hosts, alive, game.phishing, draws)


def _red_acts(
    state: State, alive: BitSet, phished: sessions.Phished, order: red.RedOrder, draws: Draws
) -> tuple[State, red.RedStep]:
    """Red's actions. The sessions that exploits open join the table in `_reassign`."""
    world = red.World(state.hosts, state.network, state.blocked, state.sessions, alive, phished)
    attacked = red.act(state.red, world, order, state.scenario.game, draws)
    after = replace(
        state,
        hosts=attacked.hosts,
        ot_stopped=state.ot_stopped | attacked.ot_stopped,
        sessions=replace(state.sessions, root=attacked.root),
    )
    return after, attacked


def _reassign(
    state: State, alive: BitSet, phished: sessions.Phished, opened: sessions.Opened, draws: Draws
) -> tuple[State, sessions.Reassignment, sessions.Renumbered]:
    """Add the sessions of this step under their final owners; agents without a session 0 renumber one."""
    moves = sessions.reassign(phished, opened)
    table, lost = sessions.open_new(state.sessions, phished, opened, moves)
    table, renumbered = sessions.renumber(table, alive | moves.new, draws.primary)
    return replace(state, sessions=table, overflow=state.overflow + lost), moves, renumbered


def _learn(
    state: State,
    order: red.RedOrder,
    attacked: red.RedStep,
    killed: BitSet,
    moves: sessions.Reassignment,
    renumbered: sessions.Renumbered,
    active: Bool[Array, "red"],
) -> State:
    """Blue records pids of detected exploits; red records session ids, scans and host states."""
    suspicious_pids, lost = red.record_pids(state.hosts.suspicious_pid, attacked.opened, attacked.recorded)
    known_ids = sessions.learn_ids(state.red.known_ids, state.sessions, moves, renumbered)
    remembering = _remember(replace(state.red, known_ids=known_ids), order, attacked, killed, renumbered)
    held = sessions.held_hosts(state.sessions)
    return replace(
        state,
        red=red_fsm.learn(remembering, state.network.exists, order, attacked.target, attacked.results, held, active),
        hosts=replace(state.hosts, suspicious_pid=suspicious_pids),
        overflow=state.overflow + lost,
    )


def _remember(
    red_state: Red, order: red.RedOrder, attacked: red.RedStep, gone: BitSet, renumbered: sessions.Renumbered
) -> Red:
    """Update the scan memory of all sessions."""
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
