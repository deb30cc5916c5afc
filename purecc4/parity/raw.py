"""The raw observation of recorded episodes: its arrays, the chances behind it, and each agent's share of it.

Recordings of the flat observation have none of these arrays; of those that have one, all are required.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from purecc4.envs.cc4.constants import (
    EXPLOIT_DETECTION,
    GREEN_HOST,
    HQ_BLUE,
    MAX_PID_STEP,
    NUM_BLUE,
    NUM_RED,
    NUM_ZONES,
    SLOTS,
    BlueAction,
    Exploit,
    RedAction,
    Subnet,
)
from purecc4.envs.cc4.raw import ResultColumn, silent

if TYPE_CHECKING:
    from purecc4.parity.translation import Act, Trace

SHAPES = {
    "red_draws": ("*", 4),
    "blue_draws": ("*", 4),
    "green_alarm": ("T", "G"),
    "listen": ("T+1", "H", 6),
    "files": ("T+1", "H", 3),
    "sus_list": ("*", 5),
    "blue_pid": ("H",),
    "green_pid": ("H",),
    "raw_own": ("T+1", NUM_BLUE, 8),
    "raw_alarm": ("T+1", 6, NUM_ZONES),
    "raw_attack": ("T+1", NUM_RED, 8),
    "raw_pid": ("T+1", NUM_RED, 2),
    "raw_green": ("T+1", 2, 6 * NUM_ZONES),
}
"""Arrays that a recording of the raw observation has beyond the others, and their shapes: T steps, H hosts, G users."""
_SERVER_SLOTS = 6
_SCANS = (RedAction.AGGRESSIVE_SERVICE_DISCOVERY, RedAction.STEALTH_SERVICE_DISCOVERY)
_UPLINK = {Subnet.OZA: Subnet.RZA, Subnet.OZB: Subnet.RZB, Subnet.ADM: Subnet.PAZ, Subnet.OFF: Subnet.PAZ}


def is_recorded(raw: dict[str, np.ndarray]) -> bool:
    """A recording has the raw observation."""
    return not SHAPES.keys().isdisjoint(raw)


def problem(raw: dict[str, np.ndarray]) -> str | None:
    """Describe the first fault in the arrays of the raw observation; None without a fault."""
    missing = sorted(SHAPES.keys() - raw.keys())
    if missing:
        return f"it lacks {', '.join(missing)} of the raw observation"
    sizes = {"T": len(raw["blue_action"]), "H": len(raw["hosts"]), "G": len(raw["green_host"])}
    sizes["T+1"] = sizes["T"] + 1
    for name, axes in SHAPES.items():
        expected, found = [sizes.get(axis, axis) for axis in axes], raw[name].shape
        if len(expected) != len(found) or any(e not in ("*", f) for e, f in zip(expected, found, strict=True)):
            shape = " x ".join(map(str, expected))
            return f"{name} must have the shape {shape}, not {' x '.join(map(str, found))}"
    return None


# Chances


def set_draws(trace: "Trace", draws: dict[str, np.ndarray]) -> None:
    """Replace draws by those that were recorded."""
    users = np.searchsorted(GREEN_HOST, trace.hosts[trace.raw["green_host"]])
    draws["green_alarm"][:, users] = 1 - trace.raw["green_alarm"]
    values = _by_agent(trace.raw["red_draws"])
    for act in trace.acts:
        drawn = values.get((act.step, act.agent))
        if drawn:
            _set_red(act, drawn, draws)


def _set_red(act: "Act", drawn: list[float], draws: dict[str, np.ndarray]) -> None:
    at = act.step, act.agent
    if act.action in _SCANS:
        draws["detection"][at] = drawn[-1]
    elif act.exploit == Exploit.SQL_INJECTION:
        draws["detection"][at] = 1 - drawn[-1]
    elif act.exploit == Exploit.SSH_BRUTE_FORCE:
        path = _routers(act.source, act.host)
        coins = [value > 1 - EXPLOIT_DETECTION for value in drawn[-len(path) - 1 - (act.source != act.host) :]]
        draws["source_detection"][at] = one_uniform(coins[0], dict(zip(path, coins[1:], strict=False)))


def one_uniform(source: bool, routers: dict[int, bool]) -> float:
    """The uniform that stands for the coins of a brute force's source and of routers, by zone."""
    u = 0.5
    for detects in [*[routers.get(zone, True) for zone in reversed(range(Subnet.RZA, NUM_ZONES))], source]:
        u = u * EXPLOIT_DETECTION if detects else EXPLOIT_DETECTION + u * (1 - EXPLOIT_DETECTION)
    return u


@cache
def _routers(source: int, target: int) -> list[int]:
    """Subnets of the routers from one host to another, in order; the internet is one of them."""
    if source == target:
        return []
    up, down = ([zone := int(host) // SLOTS, *_above(zone)] for host in (source, target))
    meet = next(zone for zone in up if zone in down)
    return [*up[: up.index(meet) + 1], *down[: down.index(meet)][::-1]]


def _above(zone: int) -> list[int]:
    return [int(_UPLINK[zone]), int(Subnet.INT)] if zone in _UPLINK else [int(Subnet.INT)]


def set_blue_draws(trace: "Trace", draws: dict[str, np.ndarray]) -> None:
    """Replace the draws of blue's pids: of a decoy deployed, and of those that Remove kills and that come back."""
    for (step, agent), drawn in _by_agent(trace.raw["blue_draws"]).items():
        pids = (np.array(drawn) - 0.5) / MAX_PID_STEP
        if trace.blue_done[step, agent, 0] == BlueAction.DEPLOY_DECOY:
            draws["decoy_pid"][step, agent] = pids[0]
        else:
            draws["recreated_pid"][step, : len(pids), agent] = pids


def _by_agent(rows: np.ndarray) -> dict[tuple[int, int], list[float]]:
    found: dict[tuple[int, int], list[float]] = {}
    for step, agent, _, value in rows.astype(float).tolist():
        found.setdefault((int(step), int(agent)), []).append(value)
    return found


def pid_gap(trace: "Trace") -> np.ndarray:
    """[host] how far the largest pid lies above that of blue's session at reset."""
    blue, green = (trace.to_hosts(trace.raw[name][None])[0].astype(int) for name in ("blue_pid", "green_pid"))
    return np.where((green > 0) & (blue > 0), green - blue, 0).astype(np.uint8)


# What each agent is told


def shares(trace: "Trace") -> dict[str, np.ndarray]:
    """The recorded raw observations by agent: the arrays of a RawObservation, T + 1 rows."""
    raw, gap = trace.raw, np.append(pid_gap(trace), 0).astype(int)
    result = raw["raw_own"].astype(np.int16)
    pid, host = result[..., ResultColumn.PID], result[..., ResultColumn.HOST]
    result[..., ResultColumn.PID] = np.where(pid >= 0, pid + gap[host], pid)
    share = {name: np.zeros((len(result), *x.shape), x.dtype) for name, x in vars(silent()).items()}
    share["result"] = result
    for agent in range(NUM_BLUE):
        zones = list(range(Subnet.ADM, NUM_ZONES)) if agent == HQ_BLUE else [agent + 1]
        for k, zone in enumerate(zones):
            share["alerts"][:, agent, k] = raw["raw_alarm"][:, :, zone]
            share["visits"][:, agent, k] = _visits(raw["raw_green"], zone)
        share["attacks"][:, agent] = _attacks(raw["raw_attack"], agent, zones)
        share["pids"][:, agent] = _pids(raw["raw_pid"], gap, zones)
    return share


def _visits(green: np.ndarray, zone: int) -> np.ndarray:
    """[T + 1, kind, zone of users] servers of a zone as bits, out of zones of users as bits by server."""
    users = green[..., zone * _SERVER_SLOTS :][..., :_SERVER_SLOTS, None] >> np.arange(NUM_ZONES) & 1
    return (users << np.arange(_SERVER_SLOTS)[:, None]).sum(axis=2)


def _attacks(attack: np.ndarray, agent: int, zones: list[int]) -> np.ndarray:
    """[T + 1, row, column] what an agent is told of attacks."""
    kind, target, source, ports, on_80, seen, reported, routers = np.moveaxis(attack, -1, 0)
    own = np.isin(source // SLOTS, zones)
    mine = sum(1 << zone for zone in zones)
    columns = np.stack([kind, target, source, ports, on_80, reported * own, routers & mine], axis=-1)
    return np.where((seen >> agent & 1)[..., None] > 0, columns, 0)


def _pids(pids: np.ndarray, gap: np.ndarray, zones: list[int]) -> np.ndarray:
    """[T + 1, row, (host, pid)] the new processes of some zones."""
    out = np.zeros_like(pids)
    mine = (pids > 0).any(axis=-1) & np.isin(pids[..., 0] // SLOTS, zones)
    step, row = np.nonzero(mine)
    place = np.cumsum(mine, axis=1)[step, row] - 1
    host, pid = pids[step, row].T.astype(int)
    out[step, place] = np.stack([host, pid + gap[host]], axis=-1)
    return out
