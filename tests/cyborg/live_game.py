"""Play an episode of random actions in CybORG and print its numbers. Run by CybORG's Python; see `test_game.py`.

PYTHONPATH=CYBORG python purecc4/cyborg/game.py GAME.json live_game.py NUM_STEPS
"""

import importlib.util
import json
import sys
import types
from collections import defaultdict

import numpy as np

if importlib.util.find_spec("ray") is None:
    stand_in = types.ModuleType("ray.rllib.env.multi_agent_env")
    stand_in.MultiAgentEnv = type("MultiAgentEnv", (), {})
    sys.modules.setdefault(stand_in.__name__, stand_in)

from CybORG import CybORG
from CybORG.Agents import EnterpriseGreenAgent, FiniteStateRedAgent, SleepAgent
from CybORG.Agents.Wrappers import BlueFlatWrapper
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator

RATES = "phishing_error_rate", "fp_detection_rate", "detection_rate"


def main() -> None:
    """One episode."""
    num_steps, random = int(sys.argv[1]), np.random.default_rng(0)
    agents = {"blue_agent_class": SleepAgent, "green_agent_class": EnterpriseGreenAgent}
    generator = EnterpriseScenarioGenerator(**agents, red_agent_class=FiniteStateRedAgent, steps=num_steps)
    env = BlueFlatWrapper(CybORG(generator, seed=3), pad_spaces=True)
    env.reset()
    controller = env.env.environment_controller
    found, began = defaultdict(set), {}
    for step in range(num_steps - 1):
        actions = {name: int(random.choice(np.flatnonzero(env.action_mask(name)))) for name in env.possible_agents}
        env.step(actions)
        restores = sum(env.action_labels(name)[index].startswith("Restore") for name, index in actions.items())
        if restores:
            found["cost of Restore"].add(controller.reward["Blue"]["action_cost"] / restores)
        for name, progress in controller.actions_in_progress.items():
            if progress is None:
                note(found, name, controller.action[name][0], step - began.pop(name, step) + 1)
            else:
                began.setdefault(name, step)
    hosts = defaultdict(int)
    for host in controller.state.hosts:
        hosts[host.rsplit("_", 1)[0]] += 1
    for kind in ("server", "user"):
        found[f"{kind}s"] = {number for name, number in hosts.items() if f"{kind}_host" in name}
    found["actions"] = {len(env.action_labels(name)) for name in env.possible_agents}
    print(json.dumps({name: sorted(values) for name, values in sorted(found.items())}))


def note(found: dict, agent: str, action: object, steps: int) -> None:
    """Note the duration of an action and the rates that it has."""
    team, kind = agent.split("_")[0], type(action).__name__
    found[f"{team} {kind}"].add(steps)
    for part in (action, getattr(action, "sub_action", None)):
        for name in RATES:
            if hasattr(part, name):
                found[f"{kind} {name}"].add(getattr(part, name))


if __name__ == "__main__":
    main()
