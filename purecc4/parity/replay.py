"""Replay recorded episodes of the reference simulator through `transition` and compare every step.

Red and green repeat the recorded choices. With --choose, the scripted policies choose instead, given random numbers
under which they can make the recorded choice. Prints the first difference of each episode and exits 1 if there is any.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.typing import ArrayLike
from jaxtyping import Array

from purecc4.envs import cc4
from purecc4.envs.cc4.actions import host_name
from purecc4.envs.cc4.constants import (
    HOST_SUBNET,
    IN_PROGRESS,
    IS_OPERATIONAL,
    NO_HOST,
    NUM_HOSTS,
    NUM_RED,
    OWN_TARGETS,
    SLOTS,
    SUBNET_NAMES,
    ZONE_START,
    BlueAction,
    Decoy,
    GreenAction,
    Knowledge,
    RedAction,
    Subnet,
)
from purecc4.envs.cc4.draws import Draws
from purecc4.envs.cc4.sessions import id_flags
from purecc4.envs.cc4.state import Queue, ScriptedChoices, State
from purecc4.errors import UserError
from purecc4.parity import raw
from purecc4.parity import translation as tr
from purecc4.parity.translation import NONE, Trace, Translation, find, load, translate
from purecc4.train import devices

SERVICES = ("SSHD", "OTSERVICE", *tr.GENUINE, *tr.DECOYS)
BATCH = 8
_OWN = np.arange(OWN_TARGETS) + ZONE_START[:, None]  # [red, target] hosts
_IS_OWN = (_OWN < NUM_HOSTS) & (np.minimum(_OWN // SLOTS, NUM_RED - 1) == np.arange(NUM_RED)[:, None])


@dataclass(frozen=True)
class Config:
    """Replay recorded episodes of CybORG and compare every step."""

    dir: Annotated[Path, tyro.conf.Positional]
    """Folder of recorded episodes (.npz)."""
    choose: bool = False
    """Let the red and green policies choose, instead of repeating the recorded choices."""
    first: int | None = None
    """Replay the first N episodes only."""


# The compared quantities of a step


class View(eqx.Module):
    """The compared quantities of a state and of the step that led to it."""

    obs: Array
    world: cc4.View
    blue: Queue
    red: Queue
    overflow: Array
    machine_reward: Array
    cost: Array
    executed: Array
    choices: dict[str, Array]
    raw: cc4.RawObservation | None
    orphans: Array | None


def _view(obs, state: State, parts, executed, choices: ScriptedChoices) -> View:
    return View(
        obs=obs.flat,
        world=cc4.view(state),
        blue=state.blue,
        red=state.red.queue,
        overflow=state.overflow,
        machine_reward=parts.lwf + parts.asf + parts.ria,
        cost=parts.cost,
        executed=executed,
        choices=vars(choices),
        raw=obs.raw,
        orphans=_orphans(state),
    )


def _orphans(state: State) -> Array | None:
    """[host] number of left-over Vsftpd processes; only the raw observation tells it."""
    if state.evidence is None:
        return None
    suspicious = (state.hosts.suspicious_orphan_pid > 0).sum(axis=0)
    return (state.evidence.orphans + suspicious).reshape(NUM_HOSTS)


# Playing


def _episode(scenario, play: tr.Play, policy, choose: bool) -> tuple[View, View, Array]:
    """Play an episode. Returns the first state, all later ones, and the mask."""

    def step(state, now: tr.Play):
        choices, draws = recorded_chances(state, now)
        if choose:
            draws = _reproduce(state, policy, choices, draws)
            choices = cc4.decide(state, policy, draws)
        obs, state, _, _, info = cc4.transition(state, now.actions, now.messages, choices, draws)
        return state, _view(obs, state, info.rewards, info.executed, choices)

    obs, state = cc4.start(scenario)
    zero = jnp.float32(0)
    idle = ScriptedChoices(**jax.tree.map(lambda x: jnp.zeros_like(x[0]), play.choices))
    first = _view(obs, state, cc4.Rewards(zero, zero, zero, zero), jnp.zeros(5, jnp.uint8), idle)
    return first, jax.lax.scan(step, state, play)[1], obs.mask


def recorded_chances(state: State, now: tr.Play) -> tuple[ScriptedChoices, Draws]:
    """Choices and random numbers of a recorded step."""
    return ScriptedChoices(**now.choices), Draws(**now.draws | {"escalate": _escalation(state, now.escalated)})


def _escalation(state: State, escalated: Array) -> Array:
    """Uniforms that select the recorded session among the agents' sessions on the attacked hosts."""
    target = state.red.target.astype(jnp.int32)
    host = jnp.where(target < OWN_TARGETS, ZONE_START + target, (target - OWN_TARGETS) * SLOTS)
    here = state.sessions.host == host[:, None]
    wanted = here & (state.sessions.pid == escalated[:, None])
    return _place(here, jnp.arange(64), jnp.argmax(wanted, axis=1))


def _reproduce(state: State, policy, wanted: ScriptedChoices, draws: Draws) -> Draws:
    """Random numbers under which red makes the wanted choice, if it is possible."""
    red, known = state.red, known_targets(cc4.view(state))
    eligible = (known != Knowledge.UNKNOWN) & (known != Knowledge.F)
    action = wanted.red_action.astype(jnp.int32)
    cdf = jnp.pad(policy.action_cdf, ((0, 0), (1, 0)))
    possible = eligible & (cdf[known, action[:, None]] < cdf[known, action[:, None] + 1])
    sweeps = action == RedAction.DISCOVER_REMOTE_SYSTEMS  # the recording does not have the target host
    target = jnp.where(sweeps, jnp.argmax(possible, axis=1), wanted.red_target)
    state_of = known[np.arange(NUM_RED), target]
    ids = id_flags(red.known_ids)
    in_hq = jnp.arange(len(red.hq_known)) + Subnet.ADM
    return replace(
        draws,
        red_host=_place(eligible, np.arange(eligible.shape[1]), target),
        red_action=(cdf[state_of, action] + cdf[state_of, action + 1]) / 2,
        red_session=_place(ids, np.arange(64), wanted.red_session),
        red_subnet=_place(jnp.broadcast_to(red.hq_known, (NUM_RED, 3)), in_hq, wanted.red_subnet),
    )


def known_targets(seen: cc4.View) -> Array:
    """[red, target] constants.Knowledge of own hosts and of other zones' server 0."""
    own = jnp.where(_IS_OWN, seen.knowledge[np.minimum(_OWN, NUM_HOSTS - 1)], Knowledge.UNKNOWN)
    return jnp.concatenate([own, seen.foreign], axis=1)


def _place(members: Array, names: ArrayLike, wanted: Array) -> Array:
    """[red] the uniform that selects the wanted member."""
    rank = (members & (names < wanted[:, None])).sum(axis=1)
    return (rank + 0.5) / jnp.maximum(members.sum(axis=1), 1)


_play_batch = eqx.filter_jit(eqx.filter_vmap(_episode, in_axes=(0, 0, None, None)))


def stack(translations: list[Translation]) -> tuple[cc4.Scenario, tr.Play]:
    """Scenarios and inputs of BATCH episodes; the last one is repeated if there are fewer."""
    filled = translations + translations[-1:] * (BATCH - len(translations))
    return tuple(
        jax.tree.map(lambda *x: np.stack(x), *(getattr(t, part) for t in filled)) for part in ("scenario", "play")
    )


def play(translations: list[Translation], choose: bool) -> list[tuple[View, np.ndarray]]:
    """Play episodes of equal length together. Returns for each the states ([T + 1, ...]) and the mask."""
    policy = cc4.make_params("fsm").red
    first, later, mask = jax.device_get(_play_batch(*stack(translations), policy, choose))
    views = jax.tree.map(lambda a, b: np.concatenate([a[:, None], b], axis=1), first, later)
    return [(jax.tree.map(lambda x, i=i: x[i], views), mask[i]) for i in range(len(translations))]


# Comparing


class Difference(NamedTuple):
    """The first difference of an episode. Step 0 is the state before the first step."""

    step: int
    field: str
    where: str
    ours: object
    recorded: object

    def __str__(self) -> str:
        return f"step {self.step}: {self.field} {self.where}: ours {self.ours}, recorded {self.recorded}"


@dataclass(frozen=True)
class Field:
    """One compared quantity; a row is a state, or the step that led to it."""

    name: str
    axes: tuple[str, ...]
    """Leading axes of a row; the remaining ones are the value."""
    ours: np.ndarray
    recorded: np.ndarray
    start: int = 0
    """State of the first row."""

    def first(self) -> Difference | None:
        rows = min(len(self.ours), len(self.recorded))
        unequal = self.ours[:rows] != self.recorded[:rows]
        if not unequal.any():
            return None
        step, *place = np.argwhere(unequal)[0][: 1 + len(self.axes)]
        where = " ".join(_NAMES[axis](int(index)) for axis, index in zip(self.axes, place, strict=True))
        at = (step, *place)
        return Difference(self.start + int(step), self.name, where, self.ours[at].tolist(), self.recorded[at].tolist())


_NAMES = {
    "host": host_name,
    "red": "red agent {}".format,
    "blue": "blue agent {}".format,
    "green": lambda g: host_name(int(tr.GREEN_HOST[g])),
    "to": lambda s: f"to {SUBNET_NAMES[s]}",
    "from": lambda s: f"from {SUBNET_NAMES[s]}",
    "service": SERVICES.__getitem__,
    "decoy": tr.DECOYS.__getitem__,
    **{
        axis: f"{axis} {{}}".format
        for axis in ("index", "column", "row", "place", "port", "own_zone", "alert", "visit")
    },
}


def fields(trace: Trace, view: View) -> list[Field]:
    """All compared quantities, causes before consequences."""
    return [
        Field("overflow", (), view.overflow, np.zeros_like(view.overflow)),
        *(_raw_fields(trace, view) if trace.is_raw else ()),
        *_world_fields(trace, view),
        *_service_fields(trace, view),
        *_agent_fields(trace, view),
    ]


def _world_fields(trace: Trace, view: View) -> list[Field]:
    raw = trace.raw
    obs = np.unpackbits(raw["obs"], axis=-1)[..., : view.obs.shape[-1]]
    obs[..., 0] = raw["phase"][:, None]
    ours, recorded = _sessions(trace, view)
    ours_suspicious = view.world.suspicious_pid.astype(np.int32)
    suspicious = _suspicious(trace, ours_suspicious.shape[1])
    return [
        Field("sessions (agent, id, pid, root, abstract) on", ("host",), ours, recorded),
        Field("suspicious pids on", ("host",), _distinct(ours_suspicious, suspicious.shape[2]), suspicious),
        Field("blocked", ("to", "from"), view.world.blocked, trace.blocks),
        Field("largest pid on", ("host",), view.world.largest_pid, trace.max_pid),
        Field("observation of", ("blue", "index"), view.obs, obs),
        Field("reward of the machine", (), view.machine_reward, np.append(0, raw["reward"])),
        Field("action cost", (), view.cost, np.append(0, raw["cost"])),
    ]


def _service_fields(trace: Trace, view: View) -> list[Field]:
    hosts, rows = view.world, len(view.overflow)
    decoys = hosts.decoy_pid > 0
    genuine = np.stack([trace.exists, trace.exists & IS_OPERATIONAL, *trace.genuine])
    present = np.concatenate([np.broadcast_to(genuine, (rows, *genuine.shape)), decoys], axis=1)
    active = present.copy()
    active[:, 1] &= ~hosts.ot_stopped
    worn = np.repeat(hosts.reliability[:, None], len(genuine), axis=1)
    reliability = np.where(active, np.concatenate([worn, hosts.decoy_reliability], axis=1), 0)
    recorded_active = trace.by_service("service_active", SERVICES) > 0
    recorded = np.where(recorded_active, trace.by_service("reliability", SERVICES), 0)
    return [
        Field("presence of", ("service", "host"), present, trace.by_service("service_present", SERVICES) > 0),
        Field("activity of", ("service", "host"), active, recorded_active),
        Field("reliability of", ("service", "host"), reliability, recorded),
        Field("pid of decoy", ("decoy", "host"), hosts.decoy_pid, trace.decoy_pid),
    ]


def _raw_fields(trace: Trace, view: View) -> list[Field]:
    """Fields that only recordings of the raw observation have."""
    told, recorded = vars(view.raw), raw.shares(trace)
    files = trace.to_hosts(trace.raw["files"])[..., 0]
    axes = {
        "result": ("blue", "column"),
        "alerts": ("blue", "own_zone", "alert"),
        "attacks": ("blue", "row", "column"),
        "pids": ("blue", "row"),
        "visits": ("blue", "own_zone", "visit"),
    }
    return [
        Field("files on", ("host",), view.world.files, files),
        Field("processes listening on", ("port", "host"), *_listening(trace, view)),
        Field("suspicious pids in order on", ("place", "host"), *_suspicious_in_order(trace, view)),
        *[Field(f"{name} of", where, told[name], recorded[name]) for name, where in axes.items()],
    ]


def _listening(trace: Trace, view: View) -> tuple[np.ndarray, np.ndarray]:
    """[T + 1, port, host] number of processes that listen on 22, 1, 80, 443, 3390, 25."""
    hosts, exists = view.world, trace.exists.astype(int)
    apache, mysql, smtp = trace.genuine.astype(int)
    decoys = np.moveaxis(hosts.decoy_pid > 0, 1, 0).astype(int)
    on_80 = apache + decoys[Decoy.APACHE] + decoys[Decoy.VSFTPD] + view.orphans
    rows = [exists, exists * IS_OPERATIONAL * ~hosts.ot_stopped, on_80, decoys[Decoy.TOMCAT], mysql]
    ours = np.stack(np.broadcast_arrays(*rows, smtp + decoys[Decoy.HARAKA]), axis=1)
    return ours, np.moveaxis(trace.to_hosts(trace.raw["listen"]), 1, 2)


def _suspicious_in_order(trace: Trace, view: View) -> tuple[np.ndarray, np.ndarray]:
    """[T + 1, place, host] blue's lists of suspicious pids, repetitions included."""
    ours = view.world.suspicious_pid
    step, _, host, place, pid = trace.raw["sus_list"].T
    host, monitored = trace.hosts[host], trace.hosts[host] != NONE
    recorded = np.zeros((len(ours), max(ours.shape[1], place.max(initial=0) + 1), NUM_HOSTS), int)
    recorded[step[monitored], place[monitored], host[monitored]] = (pid - trace.base_pid[host])[monitored]
    return np.pad(ours, ((0, 0), (0, recorded.shape[1] - ours.shape[1]), (0, 0))), recorded


def _agent_fields(trace: Trace, view: View) -> list[Field]:
    raw = trace.raw
    owner = np.minimum(HOST_SUBNET, NUM_RED - 1)
    knowledge = np.where(owner == np.arange(NUM_RED)[:, None], view.world.knowledge[:, None], 0)
    knowledge[..., ::SLOTS] += view.world.foreign
    executed = np.where(view.executed == IN_PROGRESS, BlueAction.SLEEP, view.executed)[1:]
    green_action, visited, _ = np.moveaxis(trace.green_done, -1, 0)
    visits = green_action == GreenAction.ACCESS_SERVICE
    visited_by_ours = np.where(visits, view.choices["green_server"][1:].astype(int), NONE)
    return [
        Field("red active:", ("red",), view.world.active, raw["red_active"] > 0),
        Field("knowledge of", ("red", "host"), knowledge, trace.knowledge[1:]),
        Field("steps to go of", ("blue",), view.blue.ticks[1:], raw["blue_busy"], 1),
        Field("steps to go of", ("red",), view.red.ticks[1:], raw["red_exec"][..., 4], 1),
        Field("action executed by", ("blue",), executed, trace.blue_done[..., 0], 1),
        Field("choice (action, target, session, subnet) of", ("red",), *_red_choices(trace, view), 1),
        Field("action of", ("green",), view.choices["green_action"][1:], green_action, 1),
        Field("server visited by", ("green",), visited_by_ours, visited, 1),
    ]


def _red_choices(trace: Trace, view: View) -> tuple[np.ndarray, np.ndarray]:
    """[T, red, 4] choices that count; NONE for the rest and for what the action does not have."""
    asked = trace.red_chosen[..., :1] != NONE
    out = []
    for choices in ({name: x[1:] for name, x in view.choices.items()}, tr.choices(trace)):
        values = {name: x.astype(int) for name, x in choices.items()}
        sweeps = values["red_action"] == RedAction.DISCOVER_REMOTE_SYSTEMS
        target = np.where(sweeps, NONE, values["red_target"])
        subnet = np.where(sweeps, values["red_subnet"], NONE)
        rows = np.stack([values["red_action"], target, values["red_session"], subnet], axis=-1)
        out.append(np.where(asked, rows, NONE))
    return out[0], out[1]


def _sessions(trace: Trace, view: View) -> tuple[np.ndarray, np.ndarray]:
    """[T + 1, host, slot, (agent, id, pid, root, abstract)] by ascending pid, padded with NONE."""
    rows = trace.session_rows
    rows = rows[np.lexsort((rows[:, 4], rows[:, 3], rows[:, 0]))]
    slot = _rank_in_group(rows[:, [0, 3]])
    ours = np.stack(np.broadcast_arrays(np.arange(NUM_RED)[:, None], np.arange(64), *_columns(view.world)), axis=-1)
    ours = ours[view.world.session_host != NO_HOST].astype(np.int16)
    step, _, _ = np.nonzero(view.world.session_host != NO_HOST)
    host = view.world.session_host[view.world.session_host != NO_HOST]
    order = np.lexsort((ours[:, 2], host, step))
    ours, step, host = ours[order], step[order], host[order]
    ours_slot = _rank_in_group(np.stack([step, host], axis=1))
    shape = (trace.num_steps + 1, NUM_HOSTS, 1 + max(slot.max(), ours_slot.max()), 5)
    tables = np.full((2, *shape), NONE, np.int16)
    tables[0][step, host, ours_slot] = ours
    tables[1][rows[:, 0], rows[:, 3], slot] = rows[:, [1, 2, 4, 5, 6]]
    return tables[0], tables[1]


def _columns(world: cc4.View) -> tuple[np.ndarray, ...]:
    return world.session_pid, world.session_root, world.session_abstract


def _suspicious(trace: Trace, width: int) -> np.ndarray:
    """[T + 1, host, place] distinct and ascending, padded with 0."""
    longest = max((len(pids) for state in trace.suspicious for pids in state.values()), default=0)
    out = np.zeros((trace.num_steps + 1, NUM_HOSTS, max(longest, width)), int)
    for step, state in enumerate(trace.suspicious):
        for host, pids in state.items():
            out[step, host, : len(pids)] = sorted(pids)
    return out


def _distinct(pids: np.ndarray, width: int) -> np.ndarray:
    """[T + 1, host, place] the pids ([T + 1, place, host]), distinct and ascending, padded with 0."""
    none = np.iinfo(np.int32).max
    pids = np.sort(np.where(pids == 0, none, pids), axis=1)
    pids[:, 1:][pids[:, 1:] == pids[:, :-1]] = none
    pids = np.sort(pids, axis=1)
    pids[pids == none] = 0
    return np.moveaxis(np.pad(pids, ((0, 0), (0, width - pids.shape[1]), (0, 0))), 1, 2)


def _rank_in_group(keys: np.ndarray) -> np.ndarray:
    """Index of every row within its group of equal rows, which are adjacent."""
    starts = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
    first = np.flatnonzero(starts)
    return np.arange(len(keys)) - np.repeat(first, np.diff(np.append(first, len(keys))))


def compare(trace: Trace, translation: Translation, view: View, mask: np.ndarray) -> Difference | None:
    """The first difference between the recording and the replay."""
    found = [Difference(step, "record:", host, what, "-") for step, host, what in translation.oddities]
    found += [difference for field in fields(trace, view) if (difference := field.first())]
    recorded = trace.raw["mask"] > 0
    for blue, index in np.argwhere(mask != recorded)[:1]:
        where = f"blue agent {blue} index {index}"
        found.append(Difference(0, "mask of", where, mask[blue, index], recorded[blue, index]))
    return min(found, key=lambda difference: difference.step, default=None)


# Running


class Result(NamedTuple):
    name: str
    steps: int
    difference: Difference | None
    translation: Translation
    """With the values that settle everything that the recording does not show."""


def replay(paths: Iterable[Path], choose: bool) -> Iterable[Result]:
    """Replay episodes in batches."""
    loaded = ((trace, translate(trace)) for trace in map(load, paths))
    for _, group in itertools.groupby(loaded, key=lambda pair: (pair[0].num_steps, pair[0].is_raw)):
        while batch := list(itertools.islice(group, BATCH)):
            yield from _replay_batch(batch, choose)


def _replay_batch(batch: list[tuple[Trace, Translation]], choose: bool) -> Iterator[Result]:
    played = play([translation for _, translation in batch], choose)
    for (trace, translation), views in zip(batch, played, strict=True):
        difference = compare(trace, translation, *views)
        if difference:
            difference, translation = _settle(trace, translation, difference, choose)
        yield Result(trace.name, trace.num_steps, difference, translation)


def _settle(
    trace: Trace, translation: Translation, difference: Difference, choose: bool
) -> tuple[Difference | None, Translation]:
    """Try other values of random numbers that the recording does not show. Returns the best result."""
    while translation.unknown.get(difference.step - 1):
        attempts = []
        guesses = list(_guesses(translation, difference.step - 1))
        for start in range(0, len(guesses), BATCH):
            some = guesses[start : start + BATCH]
            for guess, views in zip(some, play(some, choose), strict=True):
                attempts.append((compare(trace, guess, *views), guess))
        best, guess = max(attempts, key=lambda attempt: attempt[0].step if attempt[0] else np.inf)
        if best is None or best.step <= difference.step:
            return best, guess
        difference, translation = best, guess
    return difference, translation


def _guesses(translation: Translation, step: int) -> Iterator[Translation]:
    """The translation with every other combination of values of the unknown random numbers of a step."""
    unknown = translation.unknown[step]
    for values in itertools.islice(itertools.product(*(values for _, _, values in unknown)), 1, None):
        draws = dict(translation.play.draws)
        for (name, index, _), value in zip(unknown, values, strict=True):
            draws[name] = draws[name].copy()
            draws[name][step, index] = value
        yield replace(translation, play=replace(translation.play, draws=draws))


def run(config: Config) -> None:
    """Replay the episodes and print a line for each. Raises UserError if one differs."""
    devices.use_compile_cache()
    paths = find(config.dir, config.first)
    start, steps, different = time.perf_counter(), 0, 0
    for result in replay(paths, config.choose):
        steps += result.steps
        different += result.difference is not None
        print(f"{result.name}: {result.steps} steps, {result.difference or 'no difference'}", flush=True)
    print(f"{len(paths)} traces, {steps:,} steps, {different} with differences, {time.perf_counter() - start:.0f} s")
    if different:
        raise UserError(f"{different} of {len(paths)} episodes differ from the recording.")
