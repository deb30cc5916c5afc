"""CybORG's raw observations, written out of the arrays of `envs/cc4/raw.py`: the inverse of `submission/policy/raw.py`.

    network = draw(exists, Random(1))
    writer = DictionaryWriter("blue_agent_0", network, Random(2))
    observation = writer.reset()
    observation = writer.step(raw, messages)

A dictionary is what `BlueFixedActionWrapper` returns for an agent, or `cyborg.get_observation` asked once in a step.
What the arrays leave out is drawn as CybORG draws it; docs/cyborg.md lists it. Needs only NumPy and the standard
library, so it also runs in CybORG's Python. Ported from `Monitor.py`, `Observation.py`, `Portscan.py`,
`SSHBruteForce.py`, `ExploitAction.py`, `GreenAccessService.py`, `Analyse.py`, `DecoyAction.py` and
`EnterpriseScenarioGenerator.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any, NamedTuple

import numpy as np

from purecc4.cyborg import objects
from purecc4.cyborg.submission.policy.raw import (
    ACTIONS,
    ATTEMPTS,
    BLOCKED,
    BLOCKED_VISIT,
    BRUTE_FORCE,
    DECOYS,
    EPHEMERAL,
    FILES,
    HOSTS,
    HTTP,
    OWN_ZONES,
    PORTS,
    ROUTERS,
    SCAN,
    SLOTS,
    SSH,
    SUBNETS,
    SUCCESS,
    WORK,
    ZONE_OF,
    RawObservation,
)

GENERATED = 1, 2, 3, 4, 0, 7, 5, 6
"""Zones in the order in which CybORG generates their hosts."""
LAST_PORT, DETECTION = 59999, 0.95
NAMES = {host: name for name, host in HOSTS.items()}
ROUTER_OF = {zone: name for name, zone in ROUTERS.items()}


@dataclass(frozen=True)
class Network:
    """The constants of an episode that only dictionaries hold, not arrays."""

    addresses: dict[str, IPv4Address]
    """Addresses of the existing hosts and routers by name, in CybORG's order."""
    kali: frozenset[str]
    """Hosts that run Kali; the others run Ubuntu."""
    session_pids: dict[str, int]
    """Pid of blue's session on each host and router that blue owns."""
    parents: dict[str, str]
    """By agent: the host of its parent session, which has id 0."""


def draw(exists: np.ndarray, random: Random) -> Network:
    """A network with the hosts that exist ([host] flags): addresses, distributions and pids as CybORG draws them."""
    thirds = dict(zip(GENERATED, random.sample(range(256), len(GENERATED)), strict=True))
    addresses = {}
    for zone in GENERATED:
        zone_hosts = [NAMES[host] for host in range(SLOTS * zone, SLOTS * (zone + 1)) if exists[host]]
        users = [ROUTER_OF[zone], *(name for name in zone_hosts if "_user_" in name)]
        servers = [name for name in zone_hosts if "_server_" in name]
        # servers have the largest addresses that are left
        taken = random.sample(range(1, 255), len(users))
        left = sorted(set(range(1, 255)) - set(taken), reverse=True)
        for name, last in zip([*users, *servers], [*taken, *left], strict=False):
            addresses[name] = IPv4Address(f"10.0.{thirds[zone]}.{last}")
    own = {agent: [name for name in addresses if ZONE_OF[name] in zones] for agent, zones in OWN_ZONES.items()}
    return Network(
        addresses=addresses,
        kali=frozenset(name for name in addresses if random.random() < 0.5),
        session_pids={name: _session_pid(name, random) for names in own.values() for name in names},
        parents={agent: random.choice(names) for agent, names in own.items()},
    )


def _session_pid(name: str, random: Random) -> int:
    """1 to 9 above the largest pid of the services; a router has none, and the others one at least."""
    return (0 if name in ROUTERS else random.randrange(1000, 10000)) + random.randint(1, 9)


def subnet_of(address: IPv4Address) -> IPv4Network:
    """The subnet of an address."""
    return IPv4Network(f"{address}/24", strict=False)


class Connection(NamedTuple):
    """An alert with addresses, given as hosts by name; None is an absent field."""

    local: str
    local_port: int | None = None
    remote: str | None = None
    remote_port: int | None = None


class DictionaryWriter:
    """Writes the dictionaries of one blue agent in one episode."""

    def __init__(self, agent: str, network: Network, random: Random):
        self.agent, self.zones, self.network, self.random = agent, OWN_ZONES[agent], network, random
        self.own = [name for name in network.addresses if ZONE_OF[name] in self.zones]
        self.children = [name for name in self.own if name != network.parents[agent]]
        self.users = defaultdict(list)
        for name in network.addresses:
            if "_user_" in name:
                self.users[ZONE_OF[name]].append(name)
        self.actions = [objects.known_as(action) for action in objects.ACTIONS]
        self.success = objects.known_as(objects.TernaryEnum)
        self.systems = {name: self._system(name) for name in self.own}

    def reset(self) -> dict[str, Any]:
        """The first observation of the episode."""
        return {"success": self.success.UNKNOWN} | {name: self._first(name) for name in self.own}

    def step(self, raw: RawObservation, messages: np.ndarray) -> dict[str, Any]:
        """The observation after a step: `raw` is the agent's, `messages` [4, 8] bits of the others by number."""
        success, kind, host, to, source, files, decoy, pid = raw.result.tolist()
        found: dict[str, Any] = {"success": self.success[SUCCESS[success]]}
        if files > 0:
            found[NAMES[host]] = {"Files": [self._file(name) for name in FILES[files]]}
        if decoy >= 0:
            found[NAMES[host]] = {"Processes": [self._decoy(DECOYS[decoy], self._pid(host, pid))]}
        if kind >= 0:
            found["action"] = self._action(kind, host, to, source)
        self._add_alerts(found, raw)
        found["message"] = list(np.asarray(messages).astype(bool))
        return found

    # What an entry consists of

    def _first(self, name: str) -> dict[str, Any]:
        address, pid = self.network.addresses[name], self.network.session_pids[name]
        kinds, parent = objects.known_as(objects.SessionType), name == self.network.parents[self.agent]
        session = {
            "session_id": 0 if parent else 1 + self.children.index(name),
            "username": "ubuntu",
            "timeout": 0,
            "PID": pid,
            "Type": kinds.VELOCIRAPTOR_SERVER if parent else kinds.UNKNOWN,
            "agent": self.agent,
        }
        return {
            "Interface": [{"interface_name": "eth0", "ip_address": address, "Subnet": subnet_of(address)}],
            "Sessions": [session],
            "Processes": [{"PID": pid, "username": "ubuntu"}],
            "User Info": [{"username": name, "Groups": [{"GID": k}]} for k, name in enumerate(("root", "user"))],
            "System info": dict(self.systems[name]),
        }

    def _system(self, name: str) -> dict[str, Any]:
        kali, versions = name in self.network.kali, objects.known_as(objects.OperatingSystemVersion)
        return {
            "Hostname": name,
            "OSType": objects.known_as(objects.OperatingSystemType).LINUX,
            "OSDistribution": objects.known_as(objects.OperatingSystemDistribution)["KALI" if kali else "UBUNTU"],
            "OSVersion": versions.K2019_4 if kali else versions.UNKNOWN,
            "Architecture": objects.known_as(objects.Architecture).x64,
            "position": np.zeros(2),
        }

    def _file(self, name: str) -> dict[str, Any]:
        return {
            "Path": "/tmp/",
            "Known Path": objects.known_as(objects.Path).TEMP,
            "File Name": name,
            "Known File": objects.known_as(objects.FileType).UNKNOWN,
            "Density": 0.9,
        }

    def _decoy(self, service: str, pid: int) -> dict[str, Any]:
        process = {"PID": pid, "PPID": 1, "service_name": service, "username": "ubuntu"}
        return process if service == "haraka" else process | {"Properties": ["rfi"]}

    def _action(self, kind: int, host: int, to: int, source: int) -> Any:
        if ACTIONS[kind] == "Sleep":
            return self.actions[kind]()
        parameters: dict[str, Any] = {"session": 0, "agent": self.agent}
        if host >= 0:
            parameters["hostname"] = NAMES[host]
        if to >= 0:
            parameters |= {"from_subnet": SUBNETS[source], "to_subnet": SUBNETS[to]}
        return self.actions[kind](**parameters)

    def _pid(self, host: int, offset: int) -> int:
        return self.network.session_pids[NAMES[host]] + offset

    # Alerts, in the order of execution: green users, then red agents; connections before processes

    def _add_alerts(self, found: dict[str, Any], raw: RawObservation) -> None:
        """Add the alerts to the entries, as Monitor reads them: by session id, and the parent session's host last."""
        connections, processes = self._connections(raw), self._processes(raw)
        if not (connections or processes):
            return
        for name in (*self.children, self.network.parents[self.agent]):
            if name not in connections and name not in processes:
                continue
            seen = connections.get(name, []) + processes.get(name, [])
            entry = found.setdefault(name, {})
            entry.setdefault("Processes", []).extend(map(self._process, seen))
            local = [alert.local for alert in seen if isinstance(alert, Connection)]
            if local:
                distinct = reversed(dict.fromkeys(reversed(local)))
                entry["Interface"] = [{"ip_address": self.network.addresses[name]} for name in distinct]
            entry["System info"] = dict(self.systems[name])

    def _process(self, alert: Connection | int) -> dict[str, Any]:
        if not isinstance(alert, Connection):
            return {"PID": alert}
        fields = {
            "local_port": alert.local_port,
            "remote_port": alert.remote_port,
            "local_address": self.network.addresses[alert.local],
            "remote_address": alert.remote and self.network.addresses[alert.remote],
        }
        return {"Connections": [{name: value for name, value in fields.items() if value is not None}]}

    def _connections(self, raw: RawObservation) -> dict[str, list[Connection]]:
        alerts = defaultdict(list)
        if raw.visits.any():
            for server, alert in self._visits(raw.visits):
                alerts[server].append(alert)
        if raw.attacks.any():
            for row in raw.attacks[raw.attacks[:, 0] > 0].tolist():
                for name, alert in self._attack(*row):
                    alerts[name].append(alert)
        return alerts

    def _visits(self, visits: np.ndarray) -> Iterator[tuple[str, Connection]]:
        """One alert for each server and zone of the users; which of the users visited is drawn."""
        for k, visit, zone in np.argwhere(visits).tolist():
            for slot in _bits(int(visits[k, visit, zone])):
                server, user = NAMES[SLOTS * self.zones[k] + slot], self.random.choice(self.users[zone])
                if visit == BLOCKED:
                    yield server, Connection(server, None, user, BLOCKED_VISIT)
                else:
                    yield server, Connection(user, None, server, self._ephemeral())

    def _attack(
        self, kind: int, target: int, source: int, ports: int, on_80: int, reported: int, routers: int
    ) -> Iterator[tuple[str, Connection]]:
        here, there = NAMES[target], NAMES[source]
        shown = [port for k, port in enumerate(PORTS) if ports >> k & 1]
        if kind == BRUTE_FORCE:
            yield from self._brute_force(here, there, reported, routers)
        elif kind == SCAN:
            for port in shown:
                for _ in range(on_80 if port == HTTP else 1):
                    yield here, Connection(here, port, there, self._ephemeral())
        else:
            for port in (*shown, self._ephemeral()):
                yield here, Connection(here, port, there, self._ephemeral())

    def _brute_force(self, target: str, source: str, reported: int, routers: int) -> Iterator[tuple[str, Connection]]:
        passing = Connection(target, None, source, SSH)
        if reported:
            yield source, passing
        for zone in _bits(routers):
            yield ROUTER_OF[zone], passing
        if ZONE_OF[target] in self.zones:
            # the arrays leave the target's own report of the passing brute force out
            if source != target and self.random.random() < DETECTION:
                yield target, passing
            port = self._ephemeral()
            for _ in range(ATTEMPTS):
                yield target, Connection(target, SSH, source, port)

    def _processes(self, raw: RawObservation) -> dict[str, list[Connection | int]]:
        """Alerts of processes: false alarms of work have a connection, exploits the pid of the new process."""
        alerts = defaultdict(list)
        for zone, word in zip(self.zones, raw.alerts[:, WORK].tolist(), strict=False):
            for slot in _bits(word):
                name = NAMES[SLOTS * zone + slot]
                alerts[name].append(Connection(name, self._ephemeral()))
        if raw.pids.any():
            for host, pid in raw.pids[raw.pids[:, 1] > 0].tolist():
                alerts[NAMES[host]].append(self._pid(host, pid))
        return alerts

    def _ephemeral(self) -> int:
        return self.random.randint(EPHEMERAL, LAST_PORT)


def _bits(word: int) -> list[int]:
    """Places of the ones."""
    return [k for k in range(word.bit_length()) if word >> k & 1]
