"""Run CybORG with the numbers of another game. The checkout stays untouched.

    PYTHONPATH=CYBORG python game.py GAME.json -m CybORG.Evaluation.evaluation --max-eps 100 SUBMISSION OUTPUT
    PYTHONPATH=CYBORG python fast.py game.py GAME.json SCRIPT ARGUMENTS

`purecc4 export --games NAME` writes GAME.json, whose keys `game_file.py` explains. Whatever it leaves out stays as in
CybORG, with the same random draws. Its red is the one that a program gets as `FiniteStateRedAgent`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import launch  # before CybORG
from CybORG.Agents import EnterpriseGreenAgent, FiniteStateRedAgent
from CybORG.Simulator.Actions import Action, Sleep
from CybORG.Simulator.Actions.AbstractActions import AggressiveServiceDiscovery, Restore, StealthServiceDiscovery
from CybORG.Simulator.Actions.ConcreteActions.ExploitActions.ExploitAction import ExploitAction
from CybORG.Simulator.Actions.GreenActions import GreenAccessService, GreenLocalWork
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator
from CybORG.Simulator.SimulationController import SimulationController

RATES = {
    "phishing": (GreenLocalWork, "phishing_error_rate"),
    "work_alarm": (GreenLocalWork, "fp_detection_rate"),
    "visit_alarm": (GreenAccessService, "fp_detection_rate"),
    "aggressive_detection": (AggressiveServiceDiscovery, "detection_rate"),
    "stealth_detection": (StealthServiceDiscovery, "detection_rate"),
    "exploit_detection": (ExploitAction, "detection_rate"),
}
"""Action and its attribute, by the name of the rate."""
SIZES = {"servers": "SERVER_HOSTS", "users": "USER_HOSTS"}


class Fixed:
    """An attribute that keeps its value, whatever an object assigns to it."""

    def __init__(self, value: Any):
        self.value = value

    def __get__(self, *_) -> Any:
        return self.value

    def __set__(self, *_) -> None:
        pass


def apply(game: Mapping[str, Any]) -> None:
    """Set the numbers of a game and its red, for the rest of the process. `fast.apply` comes before it."""
    for name, (owner, attribute) in RATES.items():
        if name in game:
            setattr(owner, attribute, Fixed(game[name]))
    if "restore_cost" in game:
        Restore.cost = Fixed(-game["restore_cost"])
    if "green" in game:
        set_shares(game["green"])
    if "durations" in game:
        set_durations(game["durations"])
    if "red" in game:
        set_red(**game["red"])
    set_sizes({part: game[name] for name, part in SIZES.items() if name in game})


def set_shares(shares: Mapping[str, float]) -> None:
    """Green draws its kind of action by these shares, by the action's name."""
    choose = EnterpriseGreenAgent.get_action

    def get_action(self: EnterpriseGreenAgent, observation: Any, action_space: dict) -> Action:
        kinds = list(action_space["action"])
        kind = kinds[self.np_random.choice(len(kinds), p=[shares[kind.__name__] for kind in kinds])]
        return choose(self, observation, {**action_space, "action": {kind: True}})

    EnterpriseGreenAgent.get_action = get_action


def set_durations(durations: Mapping[str, Mapping[str, int]]) -> None:
    """Actions that red and blue submit take these steps, by team and the action's name."""
    check = SimulationController.replace_action_if_invalid

    def replace_action_if_invalid(self: SimulationController, action: Action, agent: Any) -> Action:
        valid = check(self, action, agent)
        steps = durations.get(agent.agent_name.split("_")[0], {})
        valid.duration = steps.get(type(valid).__name__, valid.duration)
        return valid

    SimulationController.replace_action_if_invalid = replace_action_if_invalid


def set_sizes(sizes: Mapping[str, Sequence[int]]) -> None:
    """Networks have these least and most hosts per subnet. The wrappers number actions by the class's, as before."""
    create = EnterpriseScenarioGenerator.create_scenario

    def create_scenario(self: EnterpriseScenarioGenerator, np_random: Any) -> Any:
        for part, (least, most) in sizes.items():
            setattr(self, f"MIN_{part}", least)
            setattr(self, f"MAX_{part}", most)
        return create(self, np_random)

    EnterpriseScenarioGenerator.create_scenario = create_scenario


def set_red(
    actions: Mapping[str, Mapping[str, float]], state_weights: Mapping[str, float] | None, prefers_servers: bool
) -> None:
    """Red chooses actions by these probabilities, by the state of a host and the action's name. One without any sleeps.

    With `state_weights`, it draws a state before a host in it; `prefers_servers` is that of `DiscoveryFSRed`.
    """
    red = FiniteStateRedAgent
    if not actions:
        red.get_action = lambda *_: Sleep()
        return
    kinds = [*red.action_list(None), Sleep]
    table = {state: [row.get(kind.__name__) for kind in kinds] for state, row in actions.items()}
    red.action_list = lambda _: kinds
    red.state_transitions_probability = lambda _: table
    red.set_host_state_priority_list = lambda _: state_weights
    if prefers_servers:
        red.prioritise_servers = Fixed(True)


def main() -> None:
    """Run a script, or a module after -m, in the game."""
    path, *program = sys.argv[1:]
    apply(json.loads(Path(path).read_text()))
    launch.run(program)


if __name__ == "__main__":
    main()
