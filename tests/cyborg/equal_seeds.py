"""Play episodes in CybORG and print a digest of every step. Run by CybORG's Python; see `test_fast.py`, `test_game.py`.

PYTHONPATH=CYBORG python equal_seeds.py NUM_STEPS [RED]
PYTHONPATH=CYBORG python purecc4/cyborg/fast.py equal_seeds.py NUM_STEPS [RED]

RED is a class of CybORG.Agents, for all episodes.
"""

import hashlib
import importlib.util
import sys
import types

import numpy as np

if importlib.util.find_spec("ray") is None:
    stand_in = types.ModuleType("ray.rllib.env.multi_agent_env")
    stand_in.MultiAgentEnv = type("MultiAgentEnv", (), {})
    sys.modules.setdefault(stand_in.__name__, stand_in)

from CybORG import Agents, CybORG
from CybORG.Agents import DiscoveryFSRed, EnterpriseGreenAgent, FiniteStateRedAgent, SleepAgent
from CybORG.Agents.Wrappers import BlueFlatWrapper
from CybORG.Simulator.Actions.ConcreteActions.ControlTraffic import BlockTrafficZone
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator

KINDS = {
    "random": ("Sleep", "Monitor", "Analyse", "Remove", "Restore", "Deploy", "Block", "Allow"),
    "sleep": ("Sleep",),
    "repair": ("Analyse", "Remove", "Restore"),
    "deceive": ("Deploy", "Deploy", "Remove", "Restore"),
    "divide": ("Block", "Allow", "Remove", "[Invalid]"),
}
"""Kinds of actions that a policy draws from, by policy."""


class Recorder(CybORG):
    """CybORG with the last step's observations and rewards of all agents, as it returned them."""

    def parallel_step(self, *args, **kwargs):
        """The step, recorded."""
        self.last = super().parallel_step(*args, **kwargs)
        return self.last


def play(policy: str, red: type, num_steps: int, seed: int) -> None:
    """One episode, with messages, and with a zone that is shut off from itself for some time."""
    agents = {"blue_agent_class": SleepAgent, "green_agent_class": EnterpriseGreenAgent, "red_agent_class": red}
    generator = EnterpriseScenarioGenerator(**agents, steps=num_steps)
    inner = Recorder(generator, seed=seed)
    env = BlueFlatWrapper(inner, pad_spaces=True)
    random = np.random.default_rng(seed)
    for _ in range(2):
        seen = env.reset()
        tell(policy, seed, "reset", seen, inner)
    zone = "restricted_zone_b_subnet"
    shut = BlockTrafficZone(session=0, agent="blue_agent_2", from_subnet=zone, to_subnet=zone)
    for step in range(num_steps - 1):
        actions = {agent: draw(env, agent, KINDS[policy], random) for agent in env.possible_agents}
        if policy == "divide" and step == num_steps // 2:
            actions["blue_agent_2"] = shut
        messages = {agent: random.integers(0, 2, 8) for agent in env.possible_agents if random.random() < 0.5}
        seen = env.step(actions, messages)
        observations, rewards, done, _ = inner.last
        tell(policy, seed, step, seen, sorted(observations.items()), sorted(rewards.items()), sorted(done), inner)


def draw(env: BlueFlatWrapper, agent: str, kinds: tuple[str, ...], random: np.random.Generator) -> int:
    """Index of an action of a kind drawn first, or 0 if there is none: a full network has no invalid actions."""
    kind = random.choice(kinds)
    return int(random.choice([i for i, label in enumerate(env.action_labels(agent)) if label.startswith(kind)] or [0]))


def tell(*values) -> None:
    """A line with all values but the first three as one digest, and the random generator's state in place of CybORG."""
    *seen, inner = values
    state = inner.environment_controller.np_random.bit_generator.state
    with np.printoptions(threshold=sys.maxsize):
        digest = hashlib.sha256(repr((seen[3:], state)).encode()).hexdigest()[:16]
    print(*seen[:3], digest, flush=True)


def main() -> None:
    """One episode of each policy."""
    num_steps, *names = sys.argv[1:]
    reds = FiniteStateRedAgent, FiniteStateRedAgent, DiscoveryFSRed, FiniteStateRedAgent, FiniteStateRedAgent
    if names:
        reds = [getattr(Agents, names[0])] * len(KINDS)
    for seed, (policy, red) in enumerate(zip(KINDS, reds, strict=True), start=11):
        play(policy, red, int(num_steps), seed)


if __name__ == "__main__":
    main()
