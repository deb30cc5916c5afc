"""A policy of purecc4 as a submission to CAGE Challenge 4. Evaluate it with

python -m CybORG.Evaluation.evaluation --max-eps 2 THIS_FOLDER OUTPUT_FOLDER
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from CybORG import CybORG
from CybORG.Agents import BaseAgent
from CybORG.Agents.Wrappers import EnterpriseMAE
from policy import WEIGHTS, load, read
from policy.wrapper import RawWrapper

FOLDER = Path(__file__).parent
ABOUT = read(FOLDER / WEIGHTS)[1]


class ExportedAgent(BaseAgent):
    """One of the five blue agents. Each has its own random stream."""

    def __init__(self, index: int):
        name = f"blue_agent_{index}"
        self.policy = load(FOLDER, (int(ABOUT["sample_seed"]), index), name)
        super().__init__(name, self.policy.random)

    def get_action(self, observation, action_space) -> int:
        """Action index for the wrapper's observation. The mask is the wrapper's, as the challenge passes none."""
        return int(self.policy.act(observation, np.array(self.env.action_mask(self.name))))


class Resetting:
    """A wrapper whose reset also resets the agents, as the challenge does not announce new episodes."""

    def reset(self, *args, **kwargs):
        """Reset the environment and the memory of the agents."""
        for agent in Submission.AGENTS.values():
            agent.policy.reset()
        return super().reset(*args, **kwargs)


class FlatSubmissionWrapper(Resetting, EnterpriseMAE):
    """The challenge's wrapper."""


class RawSubmissionWrapper(Resetting, RawWrapper):
    """The wrapper of raw observations."""


WRAPPERS = {"flat": FlatSubmissionWrapper, "raw": RawSubmissionWrapper}


class Submission:
    """Interface that the challenge's evaluation requires."""

    NAME: str = f"purecc4 {ABOUT['name']}"
    TEAM: str = "purecc4"
    TECHNIQUE: str = ABOUT["technique"]
    AGENTS: dict[str, BaseAgent] = {f"blue_agent_{index}": ExportedAgent(index) for index in range(5)}  # noqa: RUF012

    def wrap(env: CybORG) -> FlatSubmissionWrapper | RawSubmissionWrapper:
        """Wrap the environment with the observation that the policy reads and padded action indices."""
        agents = Submission.AGENTS.values()
        (observation,) = {agent.policy.observation for agent in agents}
        wrapped = WRAPPERS[observation](env, pad_spaces=True)
        for agent in agents:
            agent.env = wrapped
        return wrapped
