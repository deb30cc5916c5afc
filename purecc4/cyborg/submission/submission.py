"""A policy trained by purecc4 as a submission to CAGE Challenge 4. Evaluate it with

python -m CybORG.Evaluation.evaluation --max-eps 2 THIS_FOLDER OUTPUT_FOLDER
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from CybORG import CybORG
from CybORG.Agents import BaseAgent
from CybORG.Agents.Wrappers import EnterpriseMAE
from policy import WEIGHTS, load, read

FOLDER = Path(__file__).parent
ABOUT = read(FOLDER / WEIGHTS)[1]


class ExportedAgent(BaseAgent):
    """One of the five blue agents. Each has its own random stream."""

    def __init__(self, index: int):
        self.policy = load(FOLDER, (int(ABOUT["sample_seed"]), index))
        super().__init__(f"blue_agent_{index}", self.policy.random)

    def get_action(self, observation, action_space) -> int:
        """Action index for an observation [210]. The mask comes from the wrapper, as the challenge passes none."""
        return int(self.policy.act(observation, np.array(self.env.action_mask(self.name))))


class ResettingWrapper(EnterpriseMAE):
    """The challenge's wrapper. Its reset also resets the agents, as the challenge does not announce new episodes."""

    def reset(self, *args, **kwargs):
        """Reset the environment and the memory of the agents."""
        for agent in Submission.AGENTS.values():
            agent.policy.reset()
        return super().reset(*args, **kwargs)


class Submission:
    """Interface that the challenge's evaluation requires."""

    NAME: str = f"purecc4 {ABOUT['arm']} seed {ABOUT['seed']}"
    TEAM: str = "purecc4"
    TECHNIQUE: str = f"{ABOUT['algorithm']} with action masks, {ABOUT['env_steps']} env steps, {ABOUT['mode']} actions"
    AGENTS: dict[str, BaseAgent] = {f"blue_agent_{index}": ExportedAgent(index) for index in range(5)}  # noqa: RUF012

    def wrap(env: CybORG) -> ResettingWrapper:
        """Wrap the environment with padded observations and action indices, as in training."""
        wrapped = ResettingWrapper(env, pad_spaces=True)
        for agent in Submission.AGENTS.values():
            agent.env = wrapped
        return wrapped
