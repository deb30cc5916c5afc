"""Play agents that were written for CybORG: `get_action(observation, action_space)` on raw dictionaries.

    from purecc4.adapters.cyborg_agents import play
    returns = play(lambda: {"blue_agent_0": MyAgent("blue_agent_0")}, episodes=1000)

CybORG need not be installed. An action is an object of CybORG's or of `purecc4.cyborg.objects`, or an index of the flat
wrapper. docs/cyborg.md says what is not as in CybORG.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from purecc4 import arms
from purecc4.adapters import AGENTS
from purecc4.adapters.vector import CC4Vector
from purecc4.cyborg import objects
from purecc4.cyborg.dictionary import DictionaryWriter, Network, draw, subnet_of
from purecc4.cyborg.submission.policy.raw import ACTIONS, HOSTS, OWN_ZONES, ROUTERS, SUBNETS, ZONE_OF, RawObservation
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE, IS_PADDING, SLEEP, host_name
from purecc4.envs.cc4.checks import is_whole
from purecc4.envs.cc4.constants import MESSAGE_BITS, NO_HOST, NUM_ACTIONS, NUM_BLUE
from purecc4.errors import UserError
from purecc4.play.tables import outgrew

NUM_ENVS = 64
"""Most episodes that are played at a time."""
_SILENCE = np.zeros((NUM_BLUE - 1, MESSAGE_BITS), bool)


def play(
    make_agents: Callable[[], Mapping[str, Any]],
    episodes: int = 100,
    red: str | cc4.RedPolicy = "fsm",
    arm: str | arms.ArmSpec = "C00",
    seed: int = 0,
    num_steps: int = 500,
    define: str | Path | None = None,
) -> Float[np.ndarray, "episode"]:
    """Returns of episodes, each played by new agents: `make_agents()` returns them by name. A missing agent sleeps.

    Equal seeds play equal episodes. See `adapters.make_game` for `red`, `arm`, `num_steps` and `define`. Raises
    UserError for invalid settings, agents or actions, and for episodes that overflow a table of the simulator.
    """
    if not is_whole(episodes) or episodes < 1:
        raise UserError(f"episodes must be a whole number of at least 1: {episodes!r}.")
    env = CC4Vector(min(episodes, NUM_ENVS), red, arm, num_steps, define, observation="raw")
    random, returns = Random(seed), []
    for _ in range(0, episodes, env.num_envs):
        returns.append(_play_batch(env, make_agents, seed if not returns else None, random))
    return np.concatenate(returns)[:episodes]


def _play_batch(
    env: CC4Vector, make_agents: Callable[[], Mapping[str, Any]], seed: int | None, random: Random
) -> Float[np.ndarray, "episode"]:
    """One episode in every environment. Returns their returns."""
    seen, infos = env.reset(seed)
    masks, exists = infos["action_mask"], np.asarray(env.state.scenario.exists)
    teams = [Team(make_agents(), *own, random) for own in zip(masks, exists, strict=True)]
    total = np.zeros(env.num_envs)
    for step in range(env.num_steps):
        actions = np.array([team.act(_of(seen, i), first=step == 0) for i, team in enumerate(teams)])
        seen, rewards, _, _, infos = env.step(actions)
        total += rewards
    if count := int((infos["overflow"] > 0).sum()):
        raise UserError(outgrew(count))
    return total


def _of(seen: dict[str, np.ndarray], env: int) -> dict[str, np.ndarray]:
    """The arrays of one environment."""
    return {name: array[env] for name, array in seen.items()}


class Team:
    """The agents of one episode, and what they need to act in it."""

    def __init__(
        self,
        agents: Mapping[str, Any],
        mask: Bool[np.ndarray, "blue action"],
        exists: Bool[np.ndarray, "host"],
        random: Random,
    ):
        """Raises UserError for an unknown name or an agent without `get_action`."""
        for name, agent in agents.items():
            if name not in AGENTS or not callable(getattr(agent, "get_action", None)):
                raise UserError(f"agents are objects with get_action, named {AGENTS[0]} to {AGENTS[-1]}: {name!r}.")
        self.agents, self.mask = agents, mask
        network = draw(exists, random)
        self.writers = {name: DictionaryWriter(name, network, random) for name in agents}
        self.spaces = {name: action_space(name, network) for name in agents}

    def act(self, seen: dict[str, np.ndarray], first: bool) -> Int[np.ndarray, "blue"]:
        """Indices of the actions that the agents choose."""
        indices = SLEEP.copy()
        for i, name in enumerate(AGENTS):
            if name in self.agents:
                raw = RawObservation(*(seen[field][i] for field in RawObservation._fields))
                writer = self.writers[name]
                observation = writer.reset() if first else writer.step(raw, _SILENCE)
                action = self.agents[name].get_action(observation, self.spaces[name])
                indices[i] = index_of(name, action, self.mask[i])
        return indices


def action_space(agent: str, network: Network) -> dict[str, Any]:
    """The dictionary of `cyborg.get_action_space(agent)`, without the parts that no action of blue takes.

    Routers are marked False: actions on them have no index.
    """
    zones = OWN_ZONES[agent]
    own = {name: ZONE_OF[name] in zones for name in network.addresses}
    return {
        "action": {objects.known_as(action): True for action in objects.ACTIONS},
        "allowed_subnets": [SUBNETS[zone] for zone in zones],
        "subnet": {subnet_of(network.addresses[name]): zone in zones for name, zone in ROUTERS.items()},
        "ip_address": {address: own[name] for name, address in network.addresses.items()},
        "session": {0: True},
        "agent": {agent: True},
        "hostname": {name: mine and name in HOSTS for name, mine in own.items()},
    }


def index_of(agent: str, action: Any, mask: Bool[np.ndarray, "action"]) -> int:
    """The index of an action: of CybORG's, of `purecc4.cyborg.objects`, or an index itself.

    Raises UserError if it is none of the agent's 242, and for an action on a host that does not exist in the episode.
    """
    if is_whole(action) and 0 <= action < NUM_ACTIONS:
        return int(action)
    key = (type(action).__name__, *(getattr(action, name, None) for name in ("hostname", "to_subnet", "from_subnet")))
    index = _indices(agent).get(key)
    if index is None or not mask[index]:
        said = " ".join(filter(None, key)) if key[0] in ACTIONS else repr(action)
        raise UserError(f"{agent} has no such action in this episode: {said}.")
    return index


@cache
def _indices(agent: str) -> dict[tuple[str | None, ...], int]:
    """Indices of an agent by class, host, and subnets to and from."""
    number, found = AGENTS.index(agent), {}
    for index, (kind, host, to, source) in enumerate(ACTION_TABLE[number].tolist()):
        traffic = ACTIONS[kind].endswith("TrafficZone")
        key = ACTIONS[kind], None if host == NO_HOST else host_name(host)
        if not IS_PADDING[number, index]:
            found[*key, *((SUBNETS[to], SUBNETS[source]) if traffic else (None, None))] = index
    return found
