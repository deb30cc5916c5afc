"""Translated observations of a live CybORG, compared with its state. Run by CybORG's Python; see test_raw.py.

    PYTHONPATH=CYBORG:purecc4/cyborg/submission python live_raw.py NUM_STEPS SEED...

Prints a line of JSON: how often each comparison was made and how often it failed.
"""

import json
import sys
from collections import Counter

import numpy as np
from play import BLUE, REDS, RandomPolicy  # makes CybORG importable without Ray
from policy import raw

# isort: split
from CybORG import CybORG
from CybORG.Agents import EnterpriseGreenAgent, SleepAgent
from CybORG.Agents.Wrappers import BlueFlatWrapper
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator

NAMES = {host: name for name, host in raw.HOSTS.items()}
KINDS = {raw.SCAN: "ServiceDiscovery", raw.BRUTE_FORCE: "ExploitRemoteService", raw.DECOY_HIT: "ExploitRemoteService"}
BLOCK, ALERTS = 59, 27  # of the flat observation: length of a zone's part, and where its alerts begin


class Watched(BlueFlatWrapper):
    """The flat wrapper, with each agent's dictionary translated on the way."""

    def reset(self, *args, **kwargs):
        self.translators = {agent: raw.RawTranslator(agent) for agent in BLUE}
        self.started, self.seen = False, {}
        returned = super().reset(*args, **kwargs)
        self.started = True
        return returned

    def observation_change(self, agent, observation):
        translator = self.translators[agent]
        if self.started:
            self.seen[agent] = translator.step(observation)
        else:
            self.seen[agent] = translator.reset(observation, self.env.get_ip_map())
        return super().observation_change(agent, observation)


class Before:
    """The state before a step: hosts of red sessions, and names of files by their age."""

    def __init__(self, state):
        self.hosts = {
            (agent, ident): session.hostname
            for agent, sessions in state.sessions.items()
            for ident, session in sessions.items()
        }
        self.files = {name: [file.name for file in host.files] for name, host in state.hosts.items()}


def alerts_agree(vector, seen, zones):
    """Process and connection alerts of the flat vector and of the translation."""
    words = np.array(vector[1 : 1 + zones * BLOCK]).reshape(zones, BLOCK)[:, ALERTS:] << np.tile(np.arange(16), 2)
    process, connection = words[:, :16].sum(axis=1), words[:, 16:].sum(axis=1)
    visits = np.bitwise_or.reduce(seen.visits, axis=(1, 2))
    alerts = seen.alerts[:zones].T
    yield "process alerts", (process == alerts[raw.WORK] | alerts[raw.PROCESS]).all()
    yield "connection alerts", (connection == np.bitwise_or.reduce(alerts[2:]) | visits[:zones]).all()


def attacks_agree(seen, controller, before):
    """Kind, target and source of each attack, and the red action that took effect."""
    for red, (kind, target, source, *_) in enumerate(seen.attacks.tolist()):
        if kind:
            (action,) = controller.action[f"red_agent_{red}"]
            done = type(action).__name__, controller.state.ip_addresses.get(getattr(action, "ip_address", None))
            yield "attacks: kind", done[0].endswith(KINDS[kind])
            yield "attacks: target", done[1] == NAMES[target]
            yield "attacks: source", before.hosts[action.agent, action.session] == NAMES[source]


def processes_agree(seen, controller, session_pid):
    """New processes are red sessions."""
    for host, pid in seen.pids[seen.pids.any(axis=1)].tolist():
        name = NAMES[host]
        sessions = [
            session.pid
            for agent, sessions in controller.state.sessions.items()
            for session in sessions.values()
            if "red" in agent and session.hostname == name
        ]
        yield "processes", pid + session_pid[name] in sessions


def result_agrees(seen, action, busy, state, before, session_pid):
    """The own action and what it found or made."""
    _, kind, host, to, source, files, decoy, pid = seen.result.tolist()
    yield "actions", (kind == -1) == busy and (busy or raw.ACTIONS[kind] == type(action).__name__)
    if host >= 0:
        yield "actions: host", NAMES[host] == action.hostname
    if to >= 0:
        yield "actions: subnets", (raw.SUBNETS[to], raw.SUBNETS[source]) == (action.to_subnet, action.from_subnet)
    if files >= 0:
        newest_last = list(dict.fromkeys(reversed(before.files[action.hostname])))[::-1]
        yield "files", raw.FILES[files] == newest_last
    if decoy >= 0:
        (process,) = (p for p in state.hosts[action.hostname].processes if p.pid == pid + session_pid[action.hostname])
        yield "decoys", process.name.lower().startswith(raw.DECOYS[decoy][:6])


def play(seed, num_steps):
    """One episode of random legal actions; yields (comparison, agrees)."""
    generator = EnterpriseScenarioGenerator(
        blue_agent_class=SleepAgent,
        green_agent_class=EnterpriseGreenAgent,
        red_agent_class=REDS["fsm"],
        steps=num_steps,
    )
    env = Watched(CybORG(generator, seed=seed), pad_spaces=True)
    vectors, _ = env.reset()
    controller = env.env.environment_controller
    masks, policy = np.array([env.action_mask(agent) for agent in BLUE]), RandomPolicy(seed)
    for _ in range(num_steps - 1):
        before = Before(controller.state)
        actions = policy.act(np.stack([vectors[agent] for agent in BLUE]), masks)
        vectors = env.step(dict(zip(BLUE, map(int, actions))))[0]  # noqa: B905
        for agent in BLUE:
            seen, session_pid = env.seen[agent], env.translators[agent].session_pid
            busy = controller.actions_in_progress[agent] is not None
            yield from alerts_agree(vectors[agent], seen, len(raw.OWN_ZONES[agent]))
            yield from attacks_agree(seen, controller, before)
            yield from processes_agree(seen, controller, session_pid)
            yield from result_agrees(seen, controller.action[agent][0], busy, controller.state, before, session_pid)


def main():
    """Command line."""
    num_steps, *seeds = map(int, sys.argv[1:])
    made, failed = Counter(), Counter()
    for seed in seeds:
        for comparison, agrees in play(seed, num_steps):
            made[comparison] += 1
            failed[comparison] += not agrees
    print(json.dumps({"made": made, "failed": +failed}))


if __name__ == "__main__":
    main()
