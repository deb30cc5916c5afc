"""Play episodes in CybORG 4.0 and print a line of JSON for each. `purecc4 transfer` runs it with CybORG's Python.

    PYTHONPATH=CYBORG python game.py GAME.json play.py POLICY NUM_STEPS SEED...

POLICY is an exported folder, `sleep` or `random`. Without seeds, it only prints that CybORG can be imported. `game.py`
sets the game and its red; without it, they are CybORG's own.
"""

from __future__ import annotations

import json
import re
import sys
import types

import numpy as np
from policy import RandomPolicy, SleepPolicy, load
from policy.raw import RawObservation

stand_in = types.ModuleType("ray.rllib.env.multi_agent_env")
stand_in.MultiAgentEnv = type("MultiAgentEnv", (), {})
sys.modules[stand_in.__name__] = stand_in  # CybORG imports only this base class from Ray, and uses none of its methods

from CybORG import CybORG  # noqa: E402
from CybORG.Agents import EnterpriseGreenAgent, FiniteStateRedAgent, SleepAgent  # noqa: E402
from CybORG.Agents.Wrappers import BlueFixedActionWrapper, BlueFlatWrapper  # noqa: E402
from CybORG.Shared.BlueRewardMachine import BlueRewardMachine  # noqa: E402
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator  # noqa: E402
from policy.wrapper import RawWrapper  # noqa: E402

BLUE = [f"blue_agent_{index}" for index in range(5)]


class PartialReward(BlueRewardMachine):
    """The reward machine with the entries of its table set to 0 that `counts(subnet, term)` leaves out."""

    def __init__(self, counts):
        super().__init__("")
        self.counts = counts

    def get_phase_rewards(self, cur_mission_phase):
        table = super().get_phase_rewards(cur_mission_phase)
        return {
            subnet: {term: reward * self.counts(subnet, term) for term, reward in row.items()}
            for subnet, row in table.items()
        }


PARTS = {name.lower(): PartialReward(lambda _, term, name=name: term == name) for name in ("LWF", "ASF", "RIA")}
OWN_ZONES = PartialReward(lambda subnet, _: subnet != "contractor_network_subnet")


class Team:
    """The policies of an exported folder that read raw observations, one per agent."""

    observation = "raw"

    def __init__(self, folder: str, seed: int):
        self.policies = [load(folder, (seed, index), agent) for index, agent in enumerate(BLUE)]

    def act(self, seen: list[RawObservation], masks: np.ndarray) -> list[int]:
        """Action indices of the agents."""
        return [policy.act(*own) for policy, *own in zip(self.policies, seen, masks)]  # noqa: B905


def make_policy(name: str, seed: int):
    """Create the policy `sleep`, `random`, or that of an exported folder."""
    if name == "sleep":
        return SleepPolicy()
    policy = RandomPolicy(seed) if name == "random" else load(name, seed)
    return Team(name, seed) if policy.observation == "raw" else policy


def play(name: str, num_steps: int, seed: int) -> dict[str, float | str]:
    """Play one episode up to `done`.

    Returns its return, reward terms, submitted and executed actions and red's final footprint, or its crash. Every
    episode gets a new policy, so no memory carries over.
    """
    policy = make_policy(name, seed)
    generator = EnterpriseScenarioGenerator(
        blue_agent_class=SleepAgent,
        green_agent_class=EnterpriseGreenAgent,
        red_agent_class=FiniteStateRedAgent,
        steps=num_steps,
    )
    wrapper = RawWrapper if policy.observation == "raw" else BlueFlatWrapper
    env = wrapper(CybORG(generator, seed=seed), pad_spaces=True)
    seen, _ = env.reset()
    masks = np.array([env.action_mask(agent) for agent in BLUE])
    kinds = [[snake(label.split()[0]) for label in env.action_labels(agent)] for agent in BLUE]
    totals = {}
    for _ in range(num_steps - 1):
        actions = policy.act([seen[agent] for agent in BLUE], masks)
        try:
            seen = env.step({agent: int(action) for agent, action in zip(BLUE, actions)})[0]  # noqa: B905
        except KeyError as error:  # rare crash of CybORG: phishing and a scan of a host in another zone in one step
            return {"crash": repr(error)}
        counted = [f"submitted_{of_agent[action]}" for of_agent, action in zip(kinds, actions)]  # noqa: B905
        for key, value in [*rewards(env).items(), *((key, 1) for key in counted + executed(env))]:
            totals[key] = totals.get(key, 0) + value
    return {**totals, **footprint(env)}


def rewards(env: BlueFixedActionWrapper) -> dict[str, float]:
    """Reward of the last step, total, without the contractor network, and by term."""
    controller = env.env.environment_controller
    blue = controller.reward["Blue"]

    def part(machine: PartialReward) -> float:
        of_step = controller.action, controller.observation, controller.done, controller.state
        return machine.calculate_reward(None, *of_step)

    cost = blue["action_cost"]
    terms = {name: part(machine) for name, machine in PARTS.items()}
    return {"return": sum(blue.values()), "own_zones": part(OWN_ZONES) + cost, **terms, "cost": cost}


def footprint(env: BlueFixedActionWrapper) -> dict[str, int]:
    """Number of red sessions, and of hosts on which one has root."""
    by_agent = env.env.environment_controller.state.sessions
    held = [session for agent in by_agent if "red" in agent for session in by_agent[agent].values()]
    root = {session.hostname for session in held if session.has_privileged_access()}
    return {"red_sessions": len(held), "root_hosts": len(root)}


def executed(env: BlueFixedActionWrapper) -> list[str]:
    """Actions executed in the last step, by the agents that are no longer busy."""
    controller = env.env.environment_controller
    done = [agent for agent in BLUE if controller.actions_in_progress[agent] is None]
    return [f"executed_{snake(type(controller.action[agent][0]).__name__)}" for agent in done]


def snake(name: str) -> str:
    """Convert `DeployDecoy` to deploy_decoy. Labels of illegal indices, which sleep, become sleep."""
    return "sleep" if name.startswith("[") else re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def main() -> None:
    """Run the command line. CybORG's own prints go to standard error."""
    lines, sys.stdout = sys.stdout, sys.stderr
    name, num_steps, *seeds = sys.argv[1:]
    if not seeds:
        lines.write(json.dumps({"ready": True}) + "\n")
    for seed in map(int, seeds):
        episode = {"episode": seed, **play(name, int(num_steps), seed)}
        lines.write(json.dumps(episode) + "\n")  # a single write, as workers share a pipe
        lines.flush()


if __name__ == "__main__":
    main()
