"""Dictionaries of a live CybORG and those written out of their arrays. Run by CybORG's Python; see test_dictionary.py.

    PYTHONPATH=CYBORG:.:purecc4/cyborg/submission python live_dictionary.py NUM_STEPS SEED...

Prints a line of JSON: how many dictionaries were compared, how many differ, and the first difference.
"""

import json
import sys
from random import Random

import numpy as np
from comparable import comparable
from play import BLUE, REDS, RandomPolicy  # makes CybORG importable without Ray

# isort: split
from CybORG import CybORG
from CybORG.Agents import EnterpriseGreenAgent, SleepAgent
from CybORG.Agents.Wrappers import BlueFixedActionWrapper
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator

from purecc4.cyborg.dictionary import DictionaryWriter, Network
from purecc4.cyborg.submission.policy.raw import RawTranslator


def network_of(observations, ip_map):
    """The network that the first observations show."""
    own = {name: entry for seen in observations.values() for name, entry in seen.items() if isinstance(entry, dict)}
    return Network(
        addresses={name: address for name, address in ip_map.items() if not name.startswith("root")},
        kali=frozenset(name for name in own if own[name]["System info"]["OSDistribution"].name == "KALI"),
        session_pids={name: entry["Sessions"][0]["PID"] for name, entry in own.items()},
        parents={x["Sessions"][0]["agent"]: name for name, x in own.items() if x["Sessions"][0]["session_id"] == 0},
    )


def play(seed, num_steps):
    """One episode of random legal actions and messages; yields (CybORG's dictionary, the written one)."""
    generator = EnterpriseScenarioGenerator(
        blue_agent_class=SleepAgent,
        green_agent_class=EnterpriseGreenAgent,
        red_agent_class=REDS["fsm"],
        steps=num_steps,
    )
    env = BlueFixedActionWrapper(CybORG(generator, seed=seed), pad_spaces=True)
    observations, _ = env.reset()
    network = network_of(observations, env.env.get_ip_map())
    names = {str(address): name for name, address in network.addresses.items()}
    translators = {agent: RawTranslator(agent) for agent in BLUE}
    writers = {agent: DictionaryWriter(agent, network, Random(seed)) for agent in BLUE}
    for agent, seen in observations.items():
        translators[agent].reset(seen, env.env.get_ip_map())
        yield comparable(seen, names), comparable(writers[agent].reset(), names)
    masks, policy, rng = (
        np.array([env.action_mask(agent) for agent in BLUE]),
        RandomPolicy(seed),
        np.random.default_rng(seed),
    )
    for _ in range(num_steps - 1):
        bits = rng.integers(0, 2, (len(BLUE), 8))
        actions = policy.act(np.zeros((len(BLUE), 210)), masks)
        joint, messages = dict(zip(BLUE, map(int, actions))), dict(zip(BLUE, bits))  # noqa: B905
        observations = env.step(joint, messages)[0]
        for i, agent in enumerate(BLUE):
            raw = translators[agent].step(observations[agent])
            written = writers[agent].step(raw, np.delete(bits, i, axis=0))
            yield comparable(observations[agent], names), comparable(written, names)


def main():
    """Command line."""
    num_steps, *seeds = map(int, sys.argv[1:])
    pairs = [pair for seed in seeds for pair in play(seed, num_steps)]
    differing = [repr(pair) for pair in pairs if pair[0] != pair[1]]
    print(json.dumps({"made": len(pairs), "differing": len(differing), "first": "".join(differing[:1])}))


if __name__ == "__main__":
    main()
