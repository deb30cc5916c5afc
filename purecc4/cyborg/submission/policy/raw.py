"""Raw observations of CybORG as arrays of fixed shape, one blue agent at a time. The same as `envs/cc4/raw.py`.

A raw observation is the dictionary that `BlueFixedActionWrapper` returns for an agent, or `cyborg.get_observation`
asked once in a step. Asked twice, CybORG lists every alert twice.

    translator = RawTranslator("blue_agent_0")
    raw = translator.reset(observations["blue_agent_0"], cyborg.get_ip_map())
    raw = translator.step(observations["blue_agent_0"])

Host `16 * zone + slot` is server `slot` for slots 0..5 and user `slot - 6` for slots 6..15; zones are numbered as in
SUBNETS.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

SUBNETS = (
    "contractor_network_subnet",
    "restricted_zone_a_subnet",
    "operational_zone_a_subnet",
    "restricted_zone_b_subnet",
    "operational_zone_b_subnet",
    "admin_network_subnet",
    "office_network_subnet",
    "public_access_zone_subnet",
    "internet_subnet",
)
ZONES = {name: zone for zone, name in enumerate(SUBNETS[:-1])}
OWN_ZONES = {f"blue_agent_{index}": zones for index, zones in enumerate(((1,), (2,), (3,), (4,), (5, 6, 7)))}
SERVERS, USERS, SLOTS = 6, 10, 16
HOSTS = {
    **{f"{name}_server_host_{i}": SLOTS * zone + i for name, zone in ZONES.items() for i in range(SERVERS)},
    **{f"{name}_user_host_{i}": SLOTS * zone + SERVERS + i for name, zone in ZONES.items() for i in range(USERS)},
}
ROUTERS = {f"{name}_router": zone for name, zone in ZONES.items()}
ZONE_OF = {name: host // SLOTS for name, host in HOSTS.items()} | ROUTERS
NUM_RED = 6

SUCCESS = "FALSE", "TRUE", "UNKNOWN", "IN_PROGRESS"
ACTIONS = "Sleep", "Monitor", "Analyse", "Remove", "Restore", "DeployDecoy", "AllowTrafficZone", "BlockTrafficZone"
DECOYS = "apache2", "tomcat", "haraka", "vsftpd"
FILES = [], ["cmd.sh"], ["escalate.sh"], ["cmd.sh", "escalate.sh"], ["escalate.sh", "cmd.sh"]
ALERTS = WORK, PROCESS, BRUTE_FORCED, DECOY_WAS_HIT, SCANNED, ATTACKS = range(6)
SCAN, BRUTE_FORCE, DECOY_HIT = 1, 2, 3
ALERT_OF = {SCAN: SCANNED, BRUTE_FORCE: BRUTE_FORCED, DECOY_HIT: DECOY_WAS_HIT}
BLOCKED, FALSE_ALARM = range(2)
SSH, HTTP = 22, 80
PORTS = SSH, 1, HTTP, 443, 3390, 25
BLOCKED_VISIT = 8800  # remote port of a green visit that is blocked
EPHEMERAL = 49152  # the smallest of the ports that are drawn
ATTEMPTS = 10  # alerts of a brute force on its target


class RawObservation(NamedTuple):
    """One agent's raw observation of a step. `envs/cc4/raw.py` names the columns and bits."""

    result: np.ndarray
    """int16 [8]: success, action, host, to zone, from subnet, files found, kind of decoy, its pid; -1 is none."""
    alerts: np.ndarray
    """uint16 [own zone, alert]: sets of hosts, a bit for each slot."""
    attacks: np.ndarray
    """uint8 [red, 7]: kind, target, source, ports, processes on port 80, 1 if the source reported, routers that did."""
    pids: np.ndarray
    """uint16 [red, 2]: host and pid of new processes, by ascending host and pid; the rest is 0."""
    visits: np.ndarray
    """uint8 [own zone, blocked or false alarm, zone of the user]: sets of servers, a bit for each slot."""


class RawTranslator:
    """Translates the raw observations of one blue agent. Pids count from the pid of its own session on the host."""

    def __init__(self, agent: str):
        """Raises ValueError for an unknown agent."""
        if agent not in OWN_ZONES:
            raise ValueError(f"unknown agent {agent!r}; known are {', '.join(OWN_ZONES)}.")
        self.agent, self.zones = agent, OWN_ZONES[agent]
        self.session_pid, self.names = {}, {}

    def reset(self, observation: Any, ip_map: Mapping[str, Any]) -> RawObservation:
        """The arrays of the first observation of an episode; `ip_map` holds the address of each host by name.

        Raises ValueError if it is not such an observation.
        """
        hosts = self._hosts(observation)
        if not hosts or not all(entry.get("Sessions") for entry in hosts.values()):
            raise ValueError("this is not the first observation of an episode: translate it with step.")
        self.session_pid = {name: entry["Sessions"][0]["PID"] for name, entry in hosts.items()}
        self.names = {str(address): name for name, address in ip_map.items()}
        return _empty(observation)

    def step(self, observation: Any) -> RawObservation:
        """The arrays of the observation after a step.

        Raises ValueError if it is not such an observation, another agent's, or was asked for twice.
        """
        hosts = self._hosts(observation)
        if not self.session_pid or any("Sessions" in entry for entry in hosts.values()):
            raise ValueError("this is the first observation of an episode: translate it with reset.")
        raw, pids = _empty(observation), []
        for name, entry in hosts.items():
            processes = entry.get("Processes", ())
            self._connections(raw, name, [one for process in processes for one in process.get("Connections", ())])
            new = [self._pid(name, process) for process in processes if set(process) == {"PID"}]
            pids += [(HOSTS[name], pid) for pid in new]
            if new:
                self._alert(raw, PROCESS, name)
        if pids:
            raw.pids[: len(pids)] = sorted(pids)
        if "action" in observation:
            self._result(raw, observation["action"], hosts)
        return raw

    def _hosts(self, observation: Any) -> dict[str, Mapping[str, Any]]:
        """The entries of hosts, all of them the agent's own."""
        success = observation.get("success") if isinstance(observation, Mapping) else None
        if getattr(success, "name", None) not in SUCCESS:
            raise ValueError("this is no raw observation: take the dictionary of CybORG's BlueFixedActionWrapper.")
        hosts = {name: entry for name, entry in observation.items() if isinstance(entry, Mapping)}
        for name in hosts:
            if ZONE_OF.get(name) not in self.zones:
                raise ValueError(f"this is no observation of {self.agent}: it has an entry of {name}.")
        return hosts

    def _connections(self, raw: RawObservation, host: str, connections: Iterable[Mapping[str, Any]]) -> None:
        """Alerts of a host that have addresses. Their ports tell the causes apart."""
        local_ports = defaultdict(Counter)
        for connection in connections:
            port, remote_port = (connection.get(f"{side}_port") for side in ("local", "remote"))
            if remote_port is None:
                self._alert(raw, WORK, host)
                continue
            local, remote = (self._name(connection[f"{side}_address"]) for side in ("local", "remote"))
            if remote_port == BLOCKED_VISIT:
                self._visit(raw, BLOCKED, host, user=remote)
            elif port is not None:
                local_ports[remote][min(port, EPHEMERAL)] += 1
            elif remote_port == SSH:
                self._brute_force_passed(raw, host, target=local, source=remote)
            else:
                self._visit(raw, FALSE_ALARM, host, user=local)
        for source, ports in local_ports.items():
            self._attacked(raw, host, source, ports)

    def _attacked(self, raw: RawObservation, target: str, source: str, ports: Counter[int]) -> None:
        """A red action on an own host, by how many alerts name each local port."""
        if ports[SSH] not in (0, 1, ATTEMPTS):
            raise ValueError("this observation has every alert twice: ask CybORG for it once in a step.")
        kind = DECOY_HIT if ports[EPHEMERAL] else BRUTE_FORCE if ports[SSH] > 1 else SCAN
        self._alert(raw, ALERT_OF[kind], target)
        row = _attack(raw, kind, target, source)
        if kind != BRUTE_FORCE:
            row[3] = sum(1 << k for k, port in enumerate(PORTS) if ports[port])
        if kind == SCAN:
            row[4] = ports[HTTP]

    def _brute_force_passed(self, raw: RawObservation, host: str, target: str, source: str) -> None:
        """A brute force as reported on its way: by its source, a router or its target."""
        row = _attack(raw, BRUTE_FORCE, target, source)
        if host in ROUTERS:
            row[6] |= 1 << ROUTERS[host]
        elif host == source:
            row[5] = 1
            self._alert(raw, ATTACKS, host)

    def _visit(self, raw: RawObservation, visit: int, server: str, user: str) -> None:
        raw.visits[self._own_zone(server), visit, ZONE_OF[user]] |= 1 << HOSTS[server] % SLOTS

    def _alert(self, raw: RawObservation, alert: int, host: str) -> None:
        raw.alerts[self._own_zone(host), alert] |= 1 << HOSTS[host] % SLOTS

    def _result(self, raw: RawObservation, action: Any, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        """The action that took effect, and what it found or made."""
        kind, host = type(action).__name__, getattr(action, "hostname", None)
        if kind not in ACTIONS or not (host is None or host in HOSTS):
            raise ValueError(f"this is the result of {action}, which is none of the wrapper's numbered actions.")
        raw.result[1] = ACTIONS.index(kind)
        if host is not None:
            raw.result[2] = HOSTS[host]
        if kind.endswith("TrafficZone"):
            raw.result[3:5] = ZONES[action.to_subnet], SUBNETS.index(action.from_subnet)
        entry = hosts.get(host, {})
        if kind == "Analyse":
            raw.result[5] = FILES.index([file["File Name"] for file in entry.get("Files", ())])
        if kind == "DeployDecoy":
            (decoy,) = (process for process in entry["Processes"] if "service_name" in process)
            raw.result[6:] = DECOYS.index(decoy["service_name"]), self._pid(host, decoy)

    def _pid(self, host: str, process: Mapping[str, Any]) -> int:
        """Pid of a process on an own host."""
        return process["PID"] - self.session_pid[host]

    def _own_zone(self, host: str) -> int:
        return self.zones.index(ZONE_OF[host])

    def _name(self, address: Any) -> str:
        """Name of the host with an address."""
        if str(address) not in self.names:
            raise ValueError(f"no host has the address {address}: give reset the ip_map of the current episode.")
        return self.names[str(address)]


def _empty(observation: Mapping[str, Any]) -> RawObservation:
    """Arrays without alerts or results."""
    zones = max(map(len, OWN_ZONES.values()))
    raw = RawObservation(
        result=np.full(8, -1, np.int16),
        alerts=np.zeros((zones, len(ALERTS)), np.uint16),
        attacks=np.zeros((NUM_RED, 7), np.uint8),
        pids=np.zeros((NUM_RED, 2), np.uint16),
        visits=np.zeros((zones, 2, len(ZONES)), np.uint8),
    )
    raw.result[0] = SUCCESS.index(observation["success"].name)
    return raw


def _attack(raw: RawObservation, kind: int, target: str, source: str) -> np.ndarray:
    """The row of a red action: that of the red agent that owns the zone of its source, or a free one.

    A session that was phished in this very step may act for another agent (Q49), so that two actions have a source in
    one zone.
    """
    new, owner = [kind, HOSTS[target], HOSTS[source]], min(ZONE_OF[source], NUM_RED - 1)
    row = next(raw.attacks[k] for k in (owner, *range(NUM_RED)) if raw.attacks[k, :3].tolist() in ([0, 0, 0], new))
    row[:3] = new
    return row
