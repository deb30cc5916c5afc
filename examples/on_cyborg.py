"""CybORG behind the interfaces of `purecc4.adapters`, to run a page of this folder on both simulators.

Runs in CybORG's Python, which needs neither JAX nor the rest of purecc4:

    PYTHONPATH=CYBORG:purecc4/cyborg/submission:. python examples/dictionary_agent.py --simulator cyborg
"""

import numpy as np
from play import BLUE, REDS  # makes CybORG importable without Ray

# isort: split
from CybORG import CybORG
from CybORG.Agents import EnterpriseGreenAgent, SleepAgent
from CybORG.Agents.Wrappers import BlueFixedActionWrapper, BlueFlatWrapper
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator


def make(wrapper, num_steps, seed):
    """A wrapped CybORG with episodes of `num_steps` steps; it ends them a step early."""
    agents = {
        "blue_agent_class": SleepAgent,
        "green_agent_class": EnterpriseGreenAgent,
        "red_agent_class": REDS["fsm"],
    }
    return wrapper(CybORG(EnterpriseScenarioGenerator(**agents, steps=num_steps + 1), seed=seed), pad_spaces=True)


class CyborgVector:
    """`purecc4.adapters.vector.CC4Vector` on CybORG, one environment after the other."""

    def __init__(self, num_envs, num_steps=500, from_dlpack=np.from_dlpack):
        self.num_envs, self.num_steps, self.from_dlpack = num_envs, num_steps, from_dlpack
        self.envs = None

    def reset(self, seed=None):
        if self.envs is None:
            self.envs = [make(BlueFlatWrapper, self.num_steps, (seed or 0) + i) for i in range(self.num_envs)]
        seen = [env.reset()[0] for env in self.envs]
        masks = np.array([[env.action_mask(agent) for agent in BLUE] for env in self.envs])
        return self._observations(seen), {"action_mask": self.from_dlpack(masks)}

    def step(self, actions):
        joint = [dict(zip(BLUE, of_env, strict=True)) for of_env in actions.tolist()]
        seen, rewards = zip(*(env.step(of_env)[:2] for env, of_env in zip(self.envs, joint, strict=True)), strict=True)
        rewards = self.from_dlpack(np.array([reward[BLUE[0]] for reward in rewards], np.float32))
        return self._observations(seen), rewards, None, None, {}

    def _observations(self, seen):
        return self.from_dlpack(np.array([[own[agent] for agent in BLUE] for own in seen], np.uint8))


def play(make_agents, episodes=100, seed=0, num_steps=500):
    """`purecc4.adapters.cyborg_agents.play` on CybORG."""
    returns = []
    for episode in range(episodes):
        env, agents = make(BlueFixedActionWrapper, num_steps, seed + episode), make_agents()
        observations, total = env.reset()[0], 0
        for _ in range(num_steps):
            spaces = {name: env.env.get_action_space(name) for name in agents}
            actions = {name: agent.get_action(observations[name], spaces[name]) for name, agent in agents.items()}
            observations, rewards, *_ = env.step(actions)
            total += rewards[BLUE[0]]
        returns.append(total)
    return np.array(returns)
