"""One agent's raw observation in words."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Integer

from .actions import host_name, zones_of_blue
from .constants import NUM_HOSTS, SLOTS, BlueAction, Decoy, Subnet
from .raw import Alert, AttackColumn, AttackKind, Files, RawObservation, Success, Visit

HOST_NAMES = tuple(map(host_name, range(NUM_HOSTS)))
PORTS = (22, 1, 80, 443, 3390, 25)
"""By raw.OpenPort."""
FILES = {
    Files.NONE: "no files",
    Files.CMD: "cmd.sh",
    Files.ESCALATE: "escalate.sh",
    Files.CMD_ESCALATE: "cmd.sh, then escalate.sh",
    Files.ESCALATE_CMD: "escalate.sh, then cmd.sh",
}
ATTACKS = {AttackKind.SCAN: "scans", AttackKind.BRUTE_FORCE: "brute-forces", AttackKind.DECOY_HIT: "attacks a decoy of"}


def told(raw: RawObservation, agent: int, names: Sequence[str] = HOST_NAMES) -> list[str]:
    """Spell out what a blue agent learns from a step: its own action, attacks, processes, green users.

    `raw` holds the observations of all agents in one step as NumPy arrays, `names` the names of the hosts.
    """
    zones = zones_of_blue(agent)
    return [
        *_action(raw.result[agent].tolist(), names),
        *_attacks(raw.attacks[agent], zones, names),
        *(f"new process on {names[host]}: PID +{pid}" for host, pid in raw.pids[agent].tolist() if pid),
        *_work(raw.alerts[agent], zones, names),
        *_visits(raw.visits[agent], zones, names),
    ]


def _action(result: list[int], names: Sequence[str]) -> Iterator[str]:
    """The own action that took effect; none while the agent is busy or sleeps."""
    success, kind, host, to, source, files, decoy, pid = result
    if kind < BlueAction.ANALYSE:
        return
    label = BlueAction(kind).name.title().replace("_", "")
    if to >= 0:
        done = "" if success == Success.TRUE else ": no change"
        yield f"{label} {Subnet(to).name} \u2190 {Subnet(source).name}{done}"
    elif files >= 0:
        yield f"{label} {names[host]}: {FILES[Files(files)]}"
    elif decoy >= 0:
        yield f"{label} {names[host]}: {Decoy(decoy).name.lower()}, PID +{pid}"
    else:
        yield f"{label} {names[host]}: done"


def _attacks(attacks: Integer[np.ndarray, "red 7"], zones: tuple[int, ...], names: Sequence[str]) -> Iterator[str]:
    for row in attacks[attacks[:, AttackColumn.KIND] > 0].tolist():
        kind, target, source, ports, on_80, reported, routers = row
        sentence = f"{names[source]} {ATTACKS[AttackKind(kind)]} {names[target]}"
        shown = ", ".join(str(port) for k, port in enumerate(PORTS) if ports >> k & 1)
        if kind == AttackKind.SCAN:
            yield f"{sentence} (open ports: {shown}{f'; {on_80} processes on port 80' * (on_80 > 1)})"
        elif kind == AttackKind.DECOY_HIT:
            yield f"{sentence} (port {shown})"
        else:
            by = ["target"] * (target // SLOTS in zones) + ["source"] * reported
            by += [f"{zone.name} router" for zone in Subnet if routers >> zone & 1]
            yield f"{sentence} (reported by {', '.join(by)})"


def _work(alerts: Integer[np.ndarray, "own_zone 6"], zones: tuple[int, ...], names: Sequence[str]) -> Iterator[str]:
    for k, zone in enumerate(zones):
        for slot in _bits(alerts[k, Alert.WORK]):
            yield f"false alarm: work on {names[zone * SLOTS + slot]}"


def _visits(
    visits: Integer[np.ndarray, "own_zone 2 zone"], zones: tuple[int, ...], names: Sequence[str]
) -> Iterator[str]:
    for k, zone in enumerate(zones):
        for visit, what in ((Visit.BLOCKED, "blocked visit"), (Visit.FALSE_ALARM, "false alarm: visit")):
            for user_zone in np.flatnonzero(visits[k, visit]).tolist():
                servers = ", ".join(names[zone * SLOTS + slot] for slot in _bits(visits[k, visit, user_zone]))
                yield f"{what} from {Subnet(user_zone).name} to {servers}"


def _bits(word: np.integer) -> list[int]:
    """The slots of a set of hosts."""
    return [slot for slot in range(SLOTS) if int(word) >> slot & 1]
