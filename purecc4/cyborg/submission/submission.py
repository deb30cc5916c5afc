"""Entry to CAGE Challenge 4 of a policy trained by purecc4. Try it with

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


class Agent(BaseAgent):
    """One of the five blue agents; each samples from a random stream of its own."""

    def __init__(self, index: int):
        self.policy = load(FOLDER, (int(ABOUT["sample_seed"]), index))
        super().__init__(f"blue_agent_{index}", self.policy.random)

    def get_action(self, observation, action_space) -> int:
        """Action index for a vector of 210; the mask is asked from the wrapper, which the challenge does not pass."""
        return int(self.policy.act(observation, np.array(self.env.action_mask(self.name))))


class Env(EnterpriseMAE):
    """The challenge's wrapper, by whose reset the agents learn that an episode begins: nothing else tells them."""

    def reset(self, *args, **kwargs):
        """Of the wrapper; the agents forget the last episode."""
        for agent in Submission.AGENTS.values():
            agent.policy.reset()
        return super().reset(*args, **kwargs)


class Submission:
    """What the challenge's evaluation reads."""

    NAME: str = f"purecc4 {ABOUT['arm']} seed {ABOUT['seed']}"
    TEAM: str = "purecc4"
    TECHNIQUE: str = f"{ABOUT['algorithm']} with action masks, {ABOUT['env_steps']} env steps, {ABOUT['mode']} actions"
    AGENTS: dict[str, BaseAgent] = {f"blue_agent_{index}": Agent(index) for index in range(5)}  # noqa: RUF012

    def wrap(env: CybORG) -> Env:
        """The environment as the policy knows it: padded vectors and action indices."""
        wrapped = Env(env, pad_spaces=True)
        for agent in Submission.AGENTS.values():
            agent.env = wrapped
        return wrapped
