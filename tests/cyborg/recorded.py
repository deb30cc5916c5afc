"""CybORG's raw dictionaries, rebuilt from a recorded episode, and its arrays as each agent sees them."""

import enum
from ipaddress import IPv4Address

import numpy as np

from purecc4.cyborg.submission.policy.raw import (
    ACTIONS,
    DECOYS,
    HOSTS,
    OWN_ZONES,
    SERVERS,
    SLOTS,
    SUCCESS,
    RawObservation,
)

Success = enum.Enum("TernaryEnum", SUCCESS, start=0)
FILES = "cmd.sh", "escalate.sh"
AGENTS = tuple(OWN_ZONES)


class Record:
    """The recorded raw observations of all agents and steps; step 0 is after the reset."""

    def __init__(self, path):
        with np.load(path) as file:
            self.of = dict(file)
        self.hosts = [str(name) for name in self.of["hosts"]]
        self.addresses = [IPv4Address(int(number)) for number in self.of["address"]]
        self.ip_map = dict(zip(self.hosts, self.addresses, strict=True))
        self.steps = range(len(self.of["raw_head"]))
        self.rows = {}
        for step, agent, *row in self.of["raw_rows"].tolist():
            self.rows.setdefault((step, agent), []).append(row)

    def observation(self, step: int, agent: int) -> dict:
        """The dictionary that CybORG returned."""
        success, action, first, second = self.of["raw_head"][step, agent].tolist()
        found = {"success": Success(success)}
        if step == 0:
            return found | {
                name: self._first(i) for i, name in enumerate(self.hosts) if self.of["blue_owner"][i] == agent
            }
        if action >= 0:
            found["action"] = self._action(action, first, second)
        found["message"] = list(np.delete(self.of["messages"][step - 1], agent, axis=0).astype(bool))
        for host, *row in self.rows.get((step, agent), []):
            entry = found.setdefault(self.hosts[host], {"System info": {"Hostname": self.hosts[host]}})
            key, value = self._entry(*row)
            entry.setdefault(key, []).append(value)
        return found

    def _first(self, host: int) -> dict:
        pid = int(self.of["blue_pid"][host])
        return {
            "Interface": [{"interface_name": "eth0", "ip_address": self.addresses[host]}],
            "Processes": [{"PID": pid, "username": "ubuntu"}],
            "Sessions": [{"session_id": int(self.of["blue_session"][host]), "PID": pid, "username": "ubuntu"}],
        }

    def _action(self, kind: int, first: int, second: int) -> object:
        action = type(ACTIONS[kind], (), {})()
        if ACTIONS[kind].endswith("TrafficZone"):
            action.to_subnet, action.from_subnet = str(self.of["subnets"][first]), str(self.of["subnets"][second])
        elif first >= 0:
            action.hostname = self.hosts[first]
        return action

    def _entry(self, kind, local, local_port, remote, remote_port, pid, aux) -> tuple[str, dict]:
        if kind == 4:
            return "Files", {"Path": "/tmp/", "File Name": FILES[aux], "Density": 0.9}
        if kind == 3:
            properties = {} if DECOYS[aux] == "haraka" else {"Properties": ["rfi"]}
            decoy = {"PID": pid, "PPID": 1, "service_name": DECOYS[aux], "username": "ubuntu"}
            return "Processes", decoy | properties
        if kind == 1:
            return "Processes", {"PID": pid}
        ports = {"local_port": local_port, "remote_port": remote_port}
        ends = {"local_address": local, "remote_address": remote}
        connection = {name: port for name, port in ports.items() if port >= 0}
        connection |= {name: self.addresses[host] for name, host in ends.items() if host >= 0}
        return "Processes", {"Connections": [connection]}

    def arrays(self, agent: int) -> RawObservation:
        """The agent's part of the recorded arrays, [step, ...], with pids counted from those of its sessions."""
        zones, gap = list(OWN_ZONES[AGENTS[agent]]), self._gap(agent)
        own, alarm, attack, pid, green = (self.of[f"raw_{name}"] for name in ("own", "alarm", "attack", "pid", "green"))
        steps = len(own)
        result = own[:, agent].copy()
        result[:, 7] += np.where(result[:, 6] >= 0, gap[result[:, 2]], 0).astype(np.int16)
        alerts = np.zeros((steps, 3, 6), np.uint16)
        alerts[:, : len(zones)] = alarm[:, :, zones].swapaxes(1, 2)
        attacks = np.delete(attack, 5, axis=2) * (attack[:, :, 5:6] >> agent & 1)
        attacks[:, :, 5] *= np.isin(attacks[:, :, 2] // SLOTS, zones)
        attacks[:, :, 6] &= np.uint8(sum(1 << zone for zone in zones))
        visits = np.zeros((steps, 3, 2, 8), np.uint8)
        users = green.reshape(steps, 2, 8, SERVERS)[:, :, zones, :, None] >> np.arange(8) & 1
        visits[:, : len(zones)] = (users << np.arange(SERVERS)[:, None]).sum(axis=3).swapaxes(1, 2)
        pids = np.stack([self._own_pids(rows, zones, gap) for rows in pid.tolist()])
        return RawObservation(result, alerts, attacks, pids, visits)

    def _own_pids(self, rows: list, zones: list[int], gap: np.ndarray) -> np.ndarray:
        own = [(host, pid + gap[host]) for host, pid in rows if host // SLOTS in zones]
        return np.array(own + [(0, 0)] * (len(rows) - len(own)), np.uint16)

    def _gap(self, agent: int) -> np.ndarray:
        """By host: from the pid of the agent's session to the largest one at reset."""
        gap = np.zeros(len(HOSTS), int)
        for i, name in enumerate(self.hosts):
            if name in HOSTS and self.of["blue_owner"][i] == agent:
                gap[HOSTS[name]] = self.of["max_pid"][0, i] - self.of["blue_pid"][i]
        return gap


def is_raw(path) -> bool:
    """True if a recorded episode has the raw observation."""
    with np.load(path) as file:
        return "raw_rows" in file.files
