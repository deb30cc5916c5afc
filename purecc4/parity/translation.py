"""Translate recorded episodes of the reference simulator into scenarios, actions, choices and random numbers.

The format is that of the recordings: one `.npz` per episode, hosts and subnets in alphabetical order, absolute pids.
Nothing here plays an episode: each random number is set so that the recorded outcome *can* happen. The result is
compared in `replay`. A chance alert is set only if the recording has no certain cause of it.
"""

import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import numpy as np

from purecc4.envs.cc4.actions import host_name
from purecc4.envs.cc4.constants import (
    ALLOWED,
    EXPLOIT_DETECTION,
    GENERATION_ORDER,
    GREEN_HOST,
    HOST_SUBNET,
    IS_MONITORED,
    IS_SERVER,
    MAX_PID_STEP,
    MAX_RECREATED,
    NUM_BLUE,
    NUM_DECOYS,
    NUM_GREEN,
    NUM_HOSTS,
    NUM_RED,
    NUM_ZONES,
    OWN_TARGETS,
    PHISHING_RATE,
    SUBNET_NAMES,
    ZONE_START,
    BlueAction,
    Decoy,
    Exploit,
    GreenAction,
    Knowledge,
    RedAction,
    Service,
    Subnet,
)
from purecc4.envs.cc4.scenario import HQ, Topology, from_data
from purecc4.envs.cc4.state import Scenario
from purecc4.errors import UserError
from purecc4.parity import raw

NONE = -1
ALWAYS, NEVER = np.float32(0), np.float32(1 - 2**-24)  # uniforms below every rate, and below none that is not 1
DECOYS = ("apache2", "tomcat", "haraka", "vsftpd")
GENUINE = ("APACHE2", "MYSQLD", "SMTP")
EXPLOITS = {
    "SSHBruteForce": Exploit.SSH_BRUTE_FORCE,
    "HTTPRFI": Exploit.HTTP_RFI,
    "HTTPSRFI": Exploit.HTTPS_RFI,
    "SQLInjection": Exploit.SQL_INJECTION,
}
SCANS = (RedAction.AGGRESSIVE_SERVICE_DISCOVERY, RedAction.STEALTH_SERVICE_DISCOVERY)
_HOST_INDEX = {host_name(host): host for host in range(NUM_HOSTS)}
_GREEN_AT = {int(host): green for green, host in enumerate(GREEN_HOST)}
_OWNER = np.minimum(HOST_SUBNET, NUM_RED - 1)


def _camel(member, prefix: str = "") -> str:
    name = member.name.title().replace("_", "")
    return name if name == "Sleep" else prefix + name


def _codes(names, meaning: dict[str, int]) -> np.ndarray:
    """Translation of coded columns: recorded code to ours, NONE for what we do not have; code -1 stays NONE."""
    return np.array([int(meaning.get(str(name), NONE)) for name in names] + [NONE])


class Held(NamedTuple):
    """A red session of the record, at (host, pid offset)."""

    agent: int
    id: int
    root: bool
    abstract: bool


class Act(NamedTuple):
    """A red action that took effect, i.e. was due and not dropped."""

    step: int
    agent: int
    action: int
    host: int
    success: bool
    exploit: int
    source: int
    """Host of the acting session."""


@dataclass
class Step:
    """The sessions of one step, sorted by what became of them."""

    index: int
    survivors: dict[tuple[int, int], Held]
    """Those of the state before that blue left alive."""
    fresh: dict[int, list[int]]
    """By host the pids of new sessions, ascending."""
    after: dict[tuple[int, int], Held]
    acts: list[Act]

    def exploits(self, host: int) -> list[Act]:
        """The exploits that opened a session on a host."""
        return [act for act in self.acts if act.host == host and act.exploit != NONE and act.success]


@dataclass
class Trace:
    """One recorded episode in our order of hosts, subnets and services. T steps; arrays of T + 1 rows are states."""

    name: str
    raw: dict[str, np.ndarray]

    @property
    def num_steps(self) -> int:
        return len(self.raw["blue_action"])

    @property
    def is_raw(self) -> bool:
        """The raw observation was recorded, too."""
        return raw.is_recorded(self.raw)

    @cached_property
    def hosts(self) -> np.ndarray:
        """Our index of every recorded host; NONE for routers and the internet host."""
        return np.array([_HOST_INDEX.get(str(name), NONE) for name in self.raw["hosts"]] + [NONE])

    @cached_property
    def subnets(self) -> np.ndarray:
        return np.array([SUBNET_NAMES.index(str(name)) for name in self.raw["subnets"]] + [NONE])

    @cached_property
    def exists(self) -> np.ndarray:
        return np.isin(np.arange(NUM_HOSTS), self.hosts)

    def to_hosts(self, values: np.ndarray) -> np.ndarray:
        """[T + 1, H, ...] -> [T + 1, host, ...]; zero where there is no host."""
        known = self.hosts[:-1] >= 0
        out = np.zeros((len(values), NUM_HOSTS, *values.shape[2:]), values.dtype)
        out[:, self.hosts[:-1][known]] = values[:, known]
        return out

    def by_service(self, name: str, services: tuple[str, ...]) -> np.ndarray:
        """[T + 1, service, host]"""
        recorded = [str(service) for service in self.raw["services"]]
        return np.moveaxis(self.to_hosts(self.raw[name])[:, :, [recorded.index(s) for s in services]], 2, 1)

    @cached_property
    def max_pid(self) -> np.ndarray:
        """[T + 1, host] as offsets from the first row."""
        pids = self.to_hosts(self.raw["max_pid"]).astype(int)
        return pids - pids[0]

    @cached_property
    def base_pid(self) -> np.ndarray:
        return self.to_hosts(self.raw["max_pid"])[0].astype(int)

    @cached_property
    def decoy_pid(self) -> np.ndarray:
        """[T + 1, decoy, host] offsets, 0 where there is no decoy."""
        present = self.by_service("service_present", DECOYS) > 0
        return np.where(present, self.by_service("service_pid", DECOYS) - self.base_pid, 0)

    @cached_property
    def genuine(self) -> np.ndarray:
        """[service, host]"""
        return self.by_service("service_present", GENUINE)[0] > 0

    @cached_property
    def blocks(self) -> np.ndarray:
        """[T + 1, to, from]"""
        place = np.argsort(self.subnets[:-1])
        return self.raw["blocks"][:, place][:, :, place] > 0

    @cached_property
    def knowledge(self) -> np.ndarray:
        """[T + 1, red, host]"""
        codes = _codes(self.raw["fsm_states"], {"-": 0} | {state.name: state for state in Knowledge})
        return np.moveaxis(codes[self.to_hosts(np.moveaxis(self.raw["fsm"], 1, 2))], 2, 1)

    @cached_property
    def session_rows(self) -> np.ndarray:
        """[row, (step, agent, id, host, pid, root, abstract)] in our hosts and offsets."""
        rows = self.raw["sessions"][:, :7].astype(int)
        rows[:, 3] = self.hosts[rows[:, 3]]
        rows[:, 4] -= self.base_pid[rows[:, 3]]
        return rows

    @cached_property
    def held(self) -> list[dict[tuple[int, int], Held]]:
        """For every state the red sessions by (host, pid)."""
        states = [{} for _ in range(self.num_steps + 1)]
        for step, agent, id_, host, pid, root, abstract in self.session_rows.tolist():
            states[step][host, pid] = Held(agent, id_, bool(root), bool(abstract))
        return states

    @cached_property
    def suspicious(self) -> list[dict[int, set[int]]]:
        """For every state the pids that blue has written down, by host; the record sorts them and drops repetitions."""
        states = [{} for _ in range(self.num_steps + 1)]
        for step, _, host, pid in self.raw["sus_pids"].tolist():
            host = int(self.hosts[host])
            if host != NONE:
                states[step].setdefault(host, set()).add(pid - int(self.base_pid[host]))
        return states

    @cached_property
    def blue_done(self) -> np.ndarray:
        """[T, blue, (kind, host)] what took effect; SLEEP for nothing."""
        codes = _codes(self.raw["blue_exec_names"], {_camel(kind): kind for kind in BlueAction})
        done = self.raw["blue_exec"]
        return np.stack([codes[done[..., 2]], self.hosts[done[..., 0]]], axis=-1)

    @cached_property
    def red_codes(self) -> np.ndarray:
        return _codes(self.raw["red_actions"], {_camel(action): action for action in RedAction})

    @cached_property
    def red_chosen(self) -> np.ndarray:
        """[T, red, (action, host, session, subnet)] accepted choices; action NONE where busy or inactive."""
        choice = self.raw["red_choice"].astype(int)
        action = self.red_codes[choice[..., 0]]
        action = np.where(action == RedAction.SLEEP, NONE, action)
        return np.stack([action, self.hosts[choice[..., 1]], choice[..., 2], self.subnets[choice[..., 3]]], axis=-1)

    @cached_property
    def green_done(self) -> np.ndarray:
        """[T, green, (action, destination, success)]; SLEEP where there is no user."""
        meaning = {_camel(action, "Green"): action for action in GreenAction}
        codes = _codes(self.raw["green_actions"], meaning)
        done = self.raw["green"].astype(int)
        out = np.tile([int(GreenAction.SLEEP), NONE, NONE], (self.num_steps, NUM_GREEN, 1))
        users = [_GREEN_AT[int(self.hosts[host])] for host in self.raw["green_host"]]
        out[:, users] = np.stack([codes[done[..., 0]], self.hosts[done[..., 1]], done[..., 2]], axis=-1)
        return out

    @cached_property
    def acts(self) -> list[Act]:
        """Every red action that took effect, by step and agent."""
        exploits = _codes(self.raw["subactions"], EXPLOITS)
        done = self.raw["red_exec"].astype(int)
        action, sub = self.red_codes[done[..., 0]], exploits[done[..., 3]]
        acts, session = [], [NONE] * NUM_RED
        for step in range(self.num_steps):
            where = {(held.agent, held.id): host for (host, _), held in self.held[step].items()}
            for agent in range(NUM_RED):
                if self.red_chosen[step, agent, 0] != NONE:
                    session[agent] = int(self.red_chosen[step, agent, 2])
                due = action[step, agent] not in (NONE, RedAction.SLEEP)
                if due and (agent, session[agent]) in where:
                    _, host, success, _, _ = done[step, agent]
                    what = int(action[step, agent]), int(self.hosts[host]), bool(success == 1), int(sub[step, agent])
                    acts.append(Act(step, agent, *what, where[agent, session[agent]]))
        return acts

    @cached_property
    def steps(self) -> list[Step]:
        return list(_steps(self))

    @cached_property
    def exploit_pids(self) -> dict[tuple[int, int], int]:
        """By (step, agent) the pid of the session that the agent's exploit opened."""
        pids = {}
        for step in self.steps:
            for host, fresh in step.fresh.items():
                exploits = step.exploits(host)
                pids |= {(step.index, act.agent): pid for act, pid in zip(exploits[::-1], fresh[::-1], strict=False)}
        return pids


def _steps(trace: Trace) -> Iterator[Step]:
    acts = {step: list(group) for step, group in itertools.groupby(trace.acts, key=lambda act: act.step)}
    for step in range(trace.num_steps):
        before, after = trace.held[step], trace.held[step + 1]
        done = trace.blue_done[step]
        restored, removed = (set(done[done[:, 0] == k, 1].tolist()) for k in (BlueAction.RESTORE, BlueAction.REMOVE))
        noted = trace.suspicious[step]
        killed = {
            (host, pid)
            for (host, pid), held in before.items()
            if host in restored or (host in removed and not held.root and pid in noted.get(host, ()))
        }
        fresh: dict[int, list[int]] = {}
        for host, pid in sorted((after.keys() - before.keys()) | (after.keys() & killed)):
            fresh.setdefault(host, []).append(pid)
        survivors = {key: held for key, held in before.items() if key not in killed}
        yield Step(step, survivors, fresh, after, acts.get(step, []))


def find(folder: Path, first: int | None = None) -> list[Path]:
    """The recorded episodes of a folder by name, or the `first` ones. Raises UserError if there are none."""
    if first is not None and first < 1:
        raise UserError("--first must be at least 1.")
    paths = sorted(folder.glob("*.npz"))[:first]
    if not paths:
        raise UserError(f"no .npz traces in {folder}: give the folder of the recorded episodes.")
    return paths


def load(path: Path) -> Trace:
    """Read one recorded episode. Raises UserError if the file is not one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a recorded episode: give a folder of .npz traces.") from error
    missing = {"hosts", "blue_action", "red_choice", "sessions", "sus_pids", "fsm", "obs"} - arrays.keys()
    if missing:
        raise UserError(f"{path} is not a recorded episode: it lacks {', '.join(sorted(missing))}.")
    if raw.is_recorded(arrays) and (problem := raw.problem(arrays)):
        raise UserError(f"{path} is not a recorded episode: {problem}.")
    return Trace(path.stem, arrays)


def scenario(trace: Trace) -> Scenario:
    """The recorded network with the canonical tables."""
    zone, exists = HOST_SUBNET, trace.exists
    counts = [[int((exists & kind & (zone == z)).sum()) for z in range(NUM_ZONES)] for kind in (IS_SERVER, ~IS_SERVER)]
    ((start, _),) = trace.held[0]
    topology = Topology(*counts, services=trace.genuine, red_start=start, hq_start=_hq_start(trace))
    gap = raw.pid_gap(trace) if trace.is_raw else None
    return from_data(topology, num_steps=int(trace.raw["steps"]), pid_gap=gap)


def _hq_start(trace: Trace) -> Subnet:
    """The subnet that red agent 5 swept before it ever held a session there; any if it never did."""
    held = set()
    for step in range(trace.num_steps):
        held |= {int(HOST_SUBNET[host]) for host, _ in trace.held[step]}
        action, _, _, subnet = trace.red_chosen[step, NUM_RED - 1]
        if action == RedAction.DISCOVER_REMOTE_SYSTEMS and subnet not in held:
            return Subnet(int(subnet))
    return min(held & set(HQ), default=Subnet.ADM)


class Play(eqx.Module):
    """Inputs of the episode, T rows each. Sessions are named by pid if a random number depends on their order."""

    actions: np.ndarray
    messages: np.ndarray
    choices: dict[str, np.ndarray]
    """Fields of ScriptedChoices."""
    asked: np.ndarray
    """[T, red] the agent's choice counts."""
    draws: dict[str, np.ndarray]
    """Fields of Draws."""
    escalated: np.ndarray
    """[T, red] pid of the session that PrivilegeEscalate made root; NONE if none."""


@dataclass
class Translation:
    """A trace as inputs of the simulator."""

    scenario: Scenario
    play: Play
    unknown: dict[int, list[tuple[str, int, list[float]]]] = field(default_factory=dict)
    """By step: draws (name, index) that the record does not show, with the values that they can have had."""
    oddities: list[tuple[int, str, str]] = field(default_factory=list)
    """(step, host, what) where the record itself has no explanation."""


def translate(trace: Trace) -> Translation:
    """Turn a record into inputs."""
    steps = trace.num_steps
    play = Play(
        actions=trace.raw["blue_action"].astype(np.int32),
        messages=trace.raw["messages"].astype(np.uint8),
        choices=choices(trace),
        asked=trace.red_chosen[..., 0] != NONE,
        draws=_no_chance(steps),
        escalated=np.full((steps, NUM_RED), NONE, np.int32),
    )
    translation = Translation(scenario(trace), play)
    _green_choices(trace, play.draws)
    _selected_exploits(trace, play.draws)
    if trace.is_raw:
        raw.set_draws(trace, play.draws)
    else:
        _alerts(trace, play.draws)
    _processes(trace, translation)
    if trace.is_raw:
        raw.set_blue_draws(trace, play.draws)
    return translation


def _no_chance(steps: int) -> dict[str, np.ndarray]:
    """Draws for which nothing happens by chance."""

    def full(value, *shape):
        return np.full((steps, *shape), value, np.float32)

    by_red = (
        "red_state",
        "red_server",
        "red_host",
        "red_action",
        "red_session",
        "red_subnet",
        "primary",
        "session_pid",
    )
    by_green = ("green_alarm", "green_phishing", "green_outcome")
    return dict(
        **{name: full(0, NUM_RED) for name in by_red},
        **{name: full(NEVER, NUM_GREEN) for name in by_green},
        **{name: full(NEVER, NUM_RED) for name in ("detection", "source_detection")},
        green_action=full(0, NUM_GREEN),
        sponsor=full(0, NUM_ZONES),
        decoy=full(0, NUM_DECOYS, NUM_BLUE),
        decoy_pid=full(0, NUM_BLUE),
        recreated_pid=full(0, MAX_RECREATED, NUM_BLUE),
        exploit=full(0, len(Exploit), NUM_RED),
        escalate=full(0, NUM_RED),
    )


def choices(trace: Trace) -> dict[str, np.ndarray]:
    """Recorded choices of red and green, T rows each; fields of ScriptedChoices."""
    action, host, session, subnet = np.moveaxis(trace.red_chosen, -1, 0)
    own = _OWNER[host] == np.arange(NUM_RED)
    target = np.where(own, host - ZONE_START, OWN_TARGETS + HOST_SUBNET[host])
    green, destination, _ = np.moveaxis(trace.green_done, -1, 0)

    def code(values, default):
        return np.where(values == NONE, default, values).astype(np.uint8)

    return dict(
        red_action=code(action, RedAction.SLEEP),
        red_target=np.where(host == NONE, 0, target).astype(np.uint8),
        red_session=code(session, 0),
        red_subnet=code(subnet, 0),
        green_action=green.astype(np.uint8),
        green_server=code(destination, 0),
    )


def _green_choices(trace: Trace, draws: dict[str, np.ndarray]) -> None:
    """Green's actions, the servers of its accesses, and failures of its work."""
    action, destination, success = np.moveaxis(trace.green_done, -1, 0)
    draws["green_action"][:] = (action + 0.5) / len(GreenAction)
    work, access = action == GreenAction.LOCAL_WORK, action == GreenAction.ACCESS_SERVICE
    draws["green_outcome"][work & (success == 0)] = ALWAYS
    servers = trace.exists & IS_SERVER
    allowed = ALLOWED[trace.raw["phase"][1:]][:, :, HOST_SUBNET] & servers  # [T, zone, host]
    place = np.cumsum(allowed, axis=-1) - 1
    step, green = np.nonzero(access)
    zone, host = HOST_SUBNET[GREEN_HOST[green]], destination[step, green]
    draws["green_outcome"][step, green] = (place[step, zone, host] + 0.5) / allowed.sum(axis=-1)[step, zone]


def _selected_exploits(trace: Trace, draws: dict[str, np.ndarray]) -> None:
    for act in trace.acts:
        if act.exploit != NONE:
            draws["exploit"][act.step, act.exploit, act.agent] = 1


def _alerts(trace: Trace, draws: dict[str, np.ndarray]) -> None:
    """Grant chance alerts: to the likeliest cause, and only where there is an alert without a certain cause."""
    connection, process = _unexplained_alerts(trace, draws)
    for act in trace.acts:
        if act.action in SCANS and act.success and connection[act.step, act.host]:
            draws["detection"][act.step, act.agent] = ALWAYS
            connection[act.step, act.host] = False
    for act in trace.acts:
        if act.exploit == Exploit.SSH_BRUTE_FORCE and connection[act.step, act.source]:
            draws["source_detection"][act.step, act.agent] = ALWAYS
            connection[act.step, act.source] = False
    action, destination, success = np.moveaxis(trace.green_done, -1, 0)
    for alerts, kind, hosts in (
        (connection, GreenAction.ACCESS_SERVICE, destination),
        (process, GreenAction.LOCAL_WORK, np.broadcast_to(GREEN_HOST, action.shape)),
    ):
        possible = (action == kind) & (success == 1) & alerts[np.arange(len(hosts))[:, None], hosts]
        for step, green in np.argwhere(possible):
            if alerts[step, hosts[step, green]]:
                draws["green_alarm"][step, green] = ALWAYS
                alerts[step, hosts[step, green]] = False


def _unexplained_alerts(trace: Trace, draws: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[T, host] connection and process alerts without a certain cause. Settles the detection of SQL injections."""
    old = trace.to_hosts(trace.raw["events"])[1:, :, [1, 3]] > 0
    connection, process = np.moveaxis(old & IS_MONITORED[:, None], -1, 0)
    action, destination, success = np.moveaxis(trace.green_done, -1, 0)
    step, green = np.nonzero((action == GreenAction.ACCESS_SERVICE) & (success == 0))
    connection[step, destination[step, green]] = False
    decoy = trace.decoy_pid[1:] > 0
    open_80 = (decoy[:, Decoy.APACHE] | decoy[:, Decoy.VSFTPD]) & ~trace.genuine[Service.APACHE]
    certain = {
        Exploit.HTTP_RFI: open_80,
        Exploit.HTTPS_RFI: decoy[:, Decoy.TOMCAT],
        Exploit.SSH_BRUTE_FORCE: np.ones_like(open_80),
        Exploit.SQL_INJECTION: np.zeros_like(open_80),
        NONE: np.zeros_like(open_80),
    }
    for act in trace.acts:
        at = act.step, act.host
        scanned_decoy = act.action in SCANS and act.success and decoy[act.step, :, act.host].any()
        connection[at] &= not (scanned_decoy or certain[act.exploit][at])
        if act.exploit == Exploit.SSH_BRUTE_FORCE:
            process[at] = False
        if act.exploit == Exploit.SQL_INJECTION and _is_noted(trace, act, bool(process[at])):
            draws["detection"][act.step, act.agent] = ALWAYS
            process[at] = False
    return connection, process


def _is_noted(trace: Trace, act: Act, alert: bool) -> bool:
    """True if blue recorded the new session's pid: as a new one, or again with an alert."""
    before, after = (trace.suspicious[step].get(act.host, set()) for step in (act.step, act.step + 1))
    pid = trace.exploit_pids.get((act.step, act.agent))
    return pid in after and (pid not in before or alert)


# Processes: pids, sponsors of phishing, new primary sessions


def _processes(trace: Trace, translation: Translation) -> None:
    """Everything that follows from which processes are new in a step."""
    orphans: dict[int, set[int]] = {}
    suspicious: dict[int, list[int]] = {}
    for step in trace.steps:
        _blue_processes(trace, translation, step, orphans, suspicious)
        phished = _red_processes(trace, translation, step, orphans)
        _write_down(trace, translation, step, suspicious)
        _sponsors(translation, step, phished)
        _primaries(translation, step)
        _escalations(translation, step)


def _pid_step(translation: Translation, step: int, host: int, largest: int, pid: int) -> float:
    """The uniform for which the pid after `largest` is `pid`."""
    k = pid - largest
    if not 1 <= k <= MAX_PID_STEP:
        translation.oddities.append((step, host_name(host), f"new pid offset {pid} after {largest}"))
    return (k - 0.5) / MAX_PID_STEP


def _blue_processes(
    trace: Trace, translation: Translation, step: Step, orphans: dict[int, set[int]], suspicious: dict[int, list[int]]
) -> None:
    """Decoys deployed and re-created; keeps track of Vsftpd processes that lose their service."""
    draws, t = translation.play.draws, step.index
    for agent, (kind, host) in enumerate(trace.blue_done[t].tolist()):
        before, after = trace.decoy_pid[t, :, host], trace.decoy_pid[t + 1, :, host]
        if kind == BlueAction.RESTORE:
            orphans.pop(host, None)
        elif kind == BlueAction.DEPLOY_DECOY:
            decoy = int(np.argmax(before != after))
            draws["decoy"][t, decoy, agent] = 1
            largest = int(trace.max_pid[t, host])
            draws["decoy_pid"][t, agent] = _pid_step(translation, t, host, largest, int(after[decoy]))
            if before[decoy]:
                orphans.setdefault(host, set()).add(int(before[decoy]))
        elif kind == BlueAction.REMOVE:
            sessions = {pid: held.root for (h, pid), held in trace.held[t].items() if h == host}
            left = orphans.setdefault(host, set())
            noted = suspicious.get(host, [])
            pid_steps = _recreations(noted, sessions, before.tolist(), after.tolist(), left)
            if pid_steps is None:
                translation.oddities.append((t, host_name(host), "decoys that Remove cannot explain"))
            else:
                draws["recreated_pid"][t, : len(pid_steps), agent] = (np.array(pid_steps) - 0.5) / MAX_PID_STEP
            left -= set(noted)


def _write_down(trace: Trace, translation: Translation, step: Step, suspicious: dict[int, list[int]]) -> None:
    """Append the pids that blue suspects, in order."""
    for act in step.acts:
        detected = translation.play.draws["detection"][step.index, act.agent] < EXPLOIT_DETECTION
        opened = trace.exploit_pids.get((step.index, act.agent))
        seen = act.exploit == Exploit.SSH_BRUTE_FORCE or detected
        if opened is not None and seen and IS_MONITORED[act.host]:
            suspicious.setdefault(act.host, []).append(opened)


def _recreations(noted, sessions, decoys, recorded, orphans) -> list[int] | None:
    """Pid increments of the decoys that Remove killed, in order, that lead to the recorded pids."""
    for place, pid in enumerate(noted):
        if pid in sessions and not sessions[pid]:
            sessions = {p: root for p, root in sessions.items() if p != pid}
        elif pid in orphans:
            orphans = orphans - {pid}
        elif pid in decoys:
            others = [p for p in decoys if p != pid]
            largest = max(*others, *sessions, *orphans, 0)
            for k in range(1, MAX_PID_STEP + 1):
                back = [largest + k if p == pid else p for p in decoys]
                rest = _recreations(noted[place + 1 :], sessions, back, recorded, orphans)
                if rest is not None:
                    return [k, *rest]
            return None
    return [] if decoys == recorded else None


def _red_processes(trace: Trace, translation: Translation, step: Step, orphans: dict[int, set[int]]) -> list[int]:
    """Pids of phished and exploited sessions. Returns the phished hosts."""
    draws, t, phished = translation.play.draws, step.index, []
    for host, pids in step.fresh.items():
        exploits = step.exploits(host)
        mails = len(pids) - len(exploits)
        if mails not in (0, 1) or (mails and host not in _GREEN_AT):
            translation.oddities.append((t, host_name(host), f"{len(pids)} new sessions, {len(exploits)} exploits"))
            continue
        on_host = [pid for h, pid in step.survivors if h == host]
        largest = max(*on_host, *trace.decoy_pid[t + 1, :, host].tolist(), *orphans.get(host, ()), 0)
        steps = []
        for pid in pids:
            steps.append(_pid_step(translation, t, host, largest, pid))
            largest = pid
        if mails:
            phished.append(host)
            draws["green_phishing"][t, _GREEN_AT[host]] = PHISHING_RATE * steps.pop(0)
        for act, u in zip(exploits, steps, strict=True):
            draws["session_pid"][t, act.agent] = u
    return phished


def _sponsors(translation: Translation, step: Step, phished: list[int]) -> None:
    """Phishing in a subnet without red: any agent with a session can have had the new one until the step's end."""
    infected = {host for host, _ in step.survivors}
    zones = {int(HOST_SUBNET[host]) for host in infected}
    owners = np.bincount([_OWNER[host] for host in infected], minlength=NUM_RED)
    earlier = 0
    for zone in GENERATION_ORDER:
        count = sum(HOST_SUBNET[host] == zone for host in phished)
        if count and zone not in zones:
            total = owners.sum() + earlier
            ends = np.cumsum(owners)
            values = [(end - 0.5) / total for end, n in zip(ends, owners, strict=True) if n]
            values += [(owners.sum() + k + 0.5) / total for k in range(earlier)]
            translation.play.draws["sponsor"][step.index, zone] = values[0]
            translation.unknown.setdefault(step.index, []).append(("sponsor", int(zone), values))
        earlier += count


def _primaries(translation: Translation, step: Step) -> None:
    """Find the session that became a new session 0."""
    for key, held in step.after.items():
        before = step.survivors.get(key)
        if held.id != 0 or (before is not None and before.id == 0):
            continue
        own = {k: h for k, h in step.after.items() if h.agent == held.agent}
        new = {k for k in own if k[1] in step.fresh.get(k[0], ())}
        if key in new:
            places = range(len(own) - len(new), len(own))
        else:
            places = [sum(0 < h.id < before.id for h in own.values())]
        values = [(place + 0.5) / len(own) for place in places]
        translation.play.draws["primary"][step.index, held.agent] = values[-1]
        if len(values) > 1:
            translation.unknown.setdefault(step.index, []).append(("primary", held.agent, values[::-1]))


def _escalations(translation: Translation, step: Step) -> None:
    for act in step.acts:
        if act.action == RedAction.PRIVILEGE_ESCALATE and act.success:
            for (host, pid), held in step.after.items():
                before = step.survivors.get((host, pid))
                if host == act.host and held.root and before is not None and not before.root:
                    translation.play.escalated[step.index, act.agent] = pid
