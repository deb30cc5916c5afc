"""Run CybORG with its slow functions replaced by equal ones. The checkout stays untouched.

    PYTHONPATH=CYBORG python fast.py -m CybORG.Evaluation.evaluation --max-eps 100 SUBMISSION OUTPUT
    PYTHONPATH=CYBORG python fast.py SCRIPT ARGUMENTS

Every replacement returns what the original returns and draws the same random numbers. Equal seeds therefore give equal
rewards and observations, which `tests/cyborg/test_fast.py` checks. An episode takes about a seventh of the time.
Final figures always come from the untouched reference: use this to choose, to debug and to look at episodes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from ipaddress import IPv4Address
from typing import TypeVar

import launch  # before CybORG
import networkx as nx
import numpy as np
from CybORG.Agents import EnterpriseGreenAgent, FiniteStateRedAgent
from CybORG.Agents.Wrappers import BlueFlatWrapper
from CybORG.Agents.Wrappers.BlueFlatWrapper import EMPTY_MESSAGE, NUM_MESSAGES
from CybORG.Shared import Observation
from CybORG.Shared.BlueRewardMachine import BlueRewardMachine
from CybORG.Shared.Enums import TernaryEnum
from CybORG.Shared.ObservationSet import ObservationSet
from CybORG.Shared.RewardCalculator import EmptyRewardCalculator
from CybORG.Simulator.Actions import Action, Monitor, Sleep
from CybORG.Simulator.Actions.Action import RemoteAction
from CybORG.Simulator.Actions.ConcreteActions.PhishingEmail import PhishingEmail
from CybORG.Simulator.Actions.GreenActions import GreenAccessService, GreenLocalWork
from CybORG.Simulator.Scenarios import EnterpriseScenarioGenerator
from CybORG.Simulator.SimulationController import SimulationController
from CybORG.Simulator.State import State

T = TypeVar("T")
STATUS = {"success", "action"}
"""Keys of an observation that neither a merge nor an action space reads."""
REPLACEMENTS: list[tuple[type, str, str, Callable]] = []
"""Class, name of its method, digest of the original's source, replacement."""


def replaces(owner: type, name: str, digest: str) -> Callable[[Callable], Callable]:
    """Register a replacement of a method whose source has this digest."""

    def register(function: Callable) -> Callable:
        REPLACEMENTS.append((owner, name, digest, function))
        return function

    return register


def apply() -> None:
    """Replace everything, for the rest of the process.

    Raises RuntimeError if an original is not the one that its replacement was compared with.
    """
    for owner, name, digest, _ in REPLACEMENTS:
        if digest_of(getattr(owner, name)) != digest:
            raise RuntimeError(f"{owner.__name__}.{name} differs from commit 8c3c50c: play this CybORG without fast.")
    for owner, name, _, function in REPLACEMENTS:
        static = isinstance(inspect.getattr_static(owner, name), staticmethod)
        setattr(owner, name, staticmethod(function) if static else function)
    sys.modules[Monitor.__module__].deepcopy = copy_events
    sys.modules[FiniteStateRedAgent.__module__].signature = functools.cache(inspect.signature)


def digest_of(function: Callable) -> str:
    """First digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def once(owner: object, name: Hashable, make: Callable[[], T]) -> T:
    """The result of `make`, computed once and kept with its owner."""
    kept = owner.__dict__.setdefault("_once", {})
    if name not in kept:
        kept[name] = make()
    return kept[name]


def pick(random: np.random.Generator, items: Sequence[T]) -> T:
    """As `random.choice`, which draws the same integer but converts the sequence to an array first."""
    return items[random.integers(0, len(items))]


def copy_events(events: list) -> list:
    """As `deepcopy`. Nearly all lists of events are empty."""
    return deepcopy(events) if events else []


# The step


@replaces(SimulationController, "step", "c506dc10bc81")
def step(self: SimulationController, actions: dict | None = None, skip_valid_action_check: bool = False) -> None:
    """Same stages in the same order. Observations that hold no more than their status are not passed around."""
    is_cc4 = isinstance(self.scenario_generator, EnterpriseScenarioGenerator)
    if is_cc4 and self.state.check_next_phase_on_update_step(self.step_count):
        self._update_agents_allowed_subnets()
    actions = actions or {}
    submit(self, actions, skip_valid_action_check)
    execute(self)
    self.different_subnet_agent_reassignment()
    end_turn(self)
    update_action_spaces(self)
    self.step_count += 1
    self.done = self.scenario_generator.determine_done(self)
    self.reward = {team: rewards_of(self, team, actions) for team in self.team_reward_calculators}
    for host in self.state.hosts.values():
        host.update(self.state)
    self.state.update_data_links()


def submit(controller: SimulationController, actions: dict[str, Action], skip_check: bool) -> None:
    """Actions of idle agents get under way. Green agents read no observation, so none is merged for them."""
    for name, interface in controller.agent_interfaces.items():
        action = actions.get(name)
        if action is None:
            is_green = type(interface.agent) is EnterpriseGreenAgent
            action = interface.get_action(None if is_green else controller.get_last_observation(name))
        if not skip_check:
            action = controller.replace_action_if_invalid(action, interface)
        if controller.actions_in_progress.get(name) is None:
            controller.actions_in_progress[name] = {"action": action, "remaining_ticks": action.duration}


def execute(controller: SimulationController) -> None:
    """Actions that are due take effect, by priority."""
    controller.observation = {name: ObservationSet([]) for name in controller.agent_interfaces}
    controller.action = {}
    for name, item in controller.actions_in_progress.items():
        item["remaining_ticks"] -= 1
        if item["remaining_ticks"] < 1:
            controller.actions_in_progress[name] = None
            controller.action[name] = [item["action"]]
        else:
            controller.observation[name].append(Observation(TernaryEnum.IN_PROGRESS))
            controller.action[name] = [Sleep()]
    for name, action in controller.sort_action_order(controller.action):
        observation = controller._filter_obs(controller.execute_action(action), name)
        observation.data["action"] = action
        controller.observation[name].append(observation)


def end_turn(controller: SimulationController) -> None:
    """Default actions at the end of the turn. A Sleep after another action adds nothing to the observation."""
    for name, (kind, arguments) in controller.end_turn_actions.items():
        seen = controller.observation[name].observations
        if not controller.agent_interfaces[name].active or (kind is Sleep and seen):
            continue
        observation = controller._filter_obs(controller.execute_action(kind(**arguments)), name)
        observation.data["action"] = kind(**arguments)
        seen.append(observation)


def update_action_spaces(controller: SimulationController) -> None:
    """Action spaces learn from observations of hosts."""
    always = controller.scenario_generator.update_each_step
    for name, observations in controller.observation.items():
        interface = controller.agent_interfaces[name]
        for observation in observations.observations:
            if not observation.data.keys() <= STATUS and (always or not interface.action_space.server_session):
                interface.update(observation)


def rewards_of(controller: SimulationController, team: str, actions: dict[str, Action]) -> dict[str, float]:
    """Rewards of a team by name. The default action of other agents costs 0."""
    calculators = controller.team_reward_calculators[team]
    rewards = {name: controller.calculate_reward(calculator) for name, calculator in calculators.items()}
    return rewards | {"action_cost": sum(actions[name].cost for name in controller.team[team] if name in actions)}


@replaces(BlueRewardMachine, "calculate_simulation_reward", "2453974267c7")
@replaces(EmptyRewardCalculator, "calculate_simulation_reward", "2453974267c7")
def calculate_simulation_reward(self, env_controller: SimulationController) -> float:
    """Without the true state of all hosts, which neither calculator reads."""
    on = env_controller
    return self.calculate_reward(None, on.action, on.observation, on.done, on.state)


check_action = SimulationController.replace_action_if_invalid


@replaces(SimulationController, "replace_action_if_invalid", "d647e0e64d56")
def replace_action_if_invalid(self: SimulationController, action: Action, agent) -> Action:
    """Valid actions pass a shorter test. The original replaces the others."""
    valid = is_valid(action, agent.action_space.get_action_space())
    return action if valid else check_action(self, action, agent)


def is_valid(action: Action, space: dict) -> bool:
    """True if the agent may take the action and knows all of its parameters."""
    if not space["action"].get(type(action), False):
        return False
    for name, value in vars(action).items():
        if name not in space:
            continue
        known = space[name]
        if not (all(item in known for item in value) if isinstance(value, list) else known.get(value, False)):
            return False
    return True


@replaces(SimulationController, "_filter_obs", "41360361d034")
def filter_observation(self: SimulationController, obs: Observation, agent_name: str | None = None) -> Observation:
    """Addresses are hashed once per episode. An observation of no host has nothing to filter."""
    if not obs.data.keys() <= STATUS and self.scenario_generator.update_each_step:
        names = self.subnet_cidr_map if agent_name is None else self.agent_interfaces[agent_name].allowed_subnets
        addresses = once(self.state, "addresses", lambda: {*self.hostname_ip_map.values(), IPv4Address("0.0.0.0")})
        subnets = [self.subnet_cidr_map[name] for name in names]
        obs.filter_addresses(ips=addresses, cidrs=subnets, include_localhost=False)
    return obs


@replaces(ObservationSet, "get_combined_observation", "0c0f61ec4f19")
def get_combined_observation(self: ObservationSet) -> Observation:
    """Observations that hold no more than their status are not merged."""
    if not self.observations:
        return Observation()
    combined, *later = self.observations
    for observation in later:
        if not observation.data.keys() <= STATUS:
            combined.combine_obs(observation)
    return combined


@replaces(SimulationController, "send_messages", "36f997dd6d06")
def send_messages(self: SimulationController, messages: dict | None = None) -> None:
    """The message space is made once; it is the same for all agents."""
    for interface in self.agent_interfaces.values():
        interface.messages = []
    space = once(self, "message_space", lambda: self.get_message_space(""))
    for agent, message in sorted((messages or {}).items()):
        assert space.contains(message), f"{agent} attempting to send message {message} that is not in {space}"
        for other in self.get_connected_agents(agent):
            self.agent_interfaces[other].messages.append(message)
    for agent, observation in self.observation.items():
        if received := self.agent_interfaces[agent].messages:
            observation.append(Observation(msg=received))


@replaces(SimulationController, "get_connected_agents", "67337cf557d2")
def get_connected_agents(self: SimulationController, agent: str) -> list[str]:
    """The hosts connected with the agent's own are a set, not a list."""
    sessions = self.state.sessions
    own = [session.hostname for session in sessions[agent].values() if session.parent is None]
    if not own:
        return [agent]
    hosts = next((hosts for hosts in self.state.connected_components if own[-1] in hosts), ())
    return [
        other
        for other, held in sessions.items()
        if other != agent and any(session.parent is None and session.hostname in hosts for session in held.values())
    ]


# The network

update_links, find_route = State.update_data_links, RemoteAction.get_route


@replaces(State, "update_data_links", "e3ddc70837db")
def update_data_links(self: State) -> None:
    """Only wireless links change, and CAGE Challenge 4 has none."""
    interfaces = (interface for host in self.hosts.values() for interface in host.interfaces)
    has_wireless = once(self, "has_wireless", lambda: any(i.interface_type == "wireless" for i in interfaces))
    if has_wireless or self.connected_components is None:
        update_links(self)


@replaces(RemoteAction, "get_route", "092d42e7cd9d")
def get_route(state: State, target: str, source: str, routing: bool = False) -> list[str] | None:
    """A forest has at most one path between two hosts. The original takes it even if it is blocked."""
    if not once(state, "is_forest", lambda: nx.is_forest(state.link_diagram)):
        return find_route(state, target, source, routing)
    route = once(state, ("route", source, target), lambda: find_route(state, target, source))
    return route and list(route)


# Green agents


@replaces(EnterpriseGreenAgent, "get_action", "b70e67dbe4f9")
def get_green_action(self: EnterpriseGreenAgent, observation: Observation, action_space: dict) -> Action:
    """Same draw among the three kinds."""
    kind = pick(self.np_random, list(action_space["action"]))
    arguments = {"agent": self.name, "session_id": 0, "fp_detection_rate": self.fp_detection_rate}
    if kind == GreenAccessService:
        return kind(src_ip=self.own_ip, allowed_subnets=action_space["allowed_subnets"], **arguments)
    if kind == GreenLocalWork:
        return kind(ip_address=self.own_ip, phishing_error_rate=self.phishing_error_rate, **arguments)
    return Sleep()


@replaces(GreenAccessService, "random_reachable_ip", "ecf3b8cad7a8")
def random_reachable_ip(self: GreenAccessService, state: State) -> IPv4Address:
    """Servers are listed once per user and phase."""
    key = "servers", self.ip_address, tuple(self.allowed_subnets)
    return pick(state.np_random, once(state, key, lambda: reachable_servers(self, state)))


def reachable_servers(action: GreenAccessService, state: State) -> list[IPv4Address]:
    """Servers of the subnets that a green user may visit, without its own host."""
    own = state.hostname_subnet_map[state.ip_addresses[action.ip_address]]
    names = action.allowed_subnets if own in action.allowed_subnets else [own]
    subnets = [state.subnet_name_to_cidr[name] for name in names]
    servers = [ip for ip, host in state.ip_addresses.items() if "server" in host and ip != action.ip_address]
    return [ip for ip in servers for subnet in subnets if ip in subnet]


@replaces(GreenLocalWork, "execute", "897bb354761c")
def execute_local_work(self: GreenLocalWork, state: State) -> Observation:
    """Same draws in the same order."""
    session = state.sessions[self.agent].get(self.session)
    host = session and state.hosts[session.hostname]
    services = [service for service in host.services.values() if service.active] if host else []
    if not host:
        self.log("Session does not exist in the state.")
    random = state.np_random
    if not services or random_fails(random, pick(random, services)):
        return Observation(False)
    if random.random() < self.fp_detection_rate:
        alert = {"local_address": self.ip_address, "local_port": host.get_ephemeral_port()}
        host.events.process_creation.append(alert)
    observation = Observation(True)
    if random.random() < self.phishing_error_rate:
        email = PhishingEmail(agent=self.agent, session=self.session, ip_address=self.ip_address)
        observation.combine_obs(email.execute(state))
    return observation


def random_fails(random: np.random.Generator, service) -> bool:
    """Draw whether a service fails its user."""
    return random.integers(100) >= service.get_service_reliability()


# The flat wrapper


@replaces(BlueFlatWrapper, "observation_change", "7d624cedd752")
def observation_change(self: BlueFlatWrapper, agent_name: str, observation: dict) -> np.ndarray:
    """Names, hosts and policies are prepared once per episode."""
    state = self.env.environment_controller.state
    policy = self.policy[agent_name] = self.comms_policies[state.mission_phase]
    names = once(state, "subnet_names", lambda: sorted(name.lower() for name in state.subnet_name_to_cidr))
    denied = once(policy, "denied", lambda: np.logical_not(nx.to_numpy_array(policy, nodelist=names)).tolist())
    output = [state.mission_phase]
    for subnet in self.subnets(agent_name):
        blocked = state.blocks.get(subnet, [])
        key = "hosts", agent_name, subnet
        hosts = once(state, key, lambda subnet=subnet: [h for h in self.hosts(agent_name) if in_subnet(h, subnet)])
        events = [state.hosts[host].events if host in state.hosts else None for host in hosts]
        output += [subnet == name for name in names]
        output += [name in blocked for name in names]
        output += denied[names.index(subnet)]
        output += [bool(of and (of.old_process_creation or of.process_creation)) for of in events]
        output += [bool(of and (of.old_network_connections or of.network_connections)) for of in events]
    messages = observation.get("message", [EMPTY_MESSAGE] * NUM_MESSAGES)
    assert len(messages) == NUM_MESSAGES
    output = np.concatenate([np.array(output, dtype=np.int64), *messages])
    missing = self._long_obs_space.shape[0] - len(output) if self.is_padded else 0
    return np.concatenate([output, np.zeros(missing, output.dtype)])


def in_subnet(host: str, subnet: str) -> bool:
    """True for a user host or server of a subnet."""
    return subnet in host and "router" not in host


def main() -> None:
    """Run a script, or a module after -m, with the replacements."""
    apply()
    launch.run(sys.argv[1:])


if __name__ == "__main__":
    main()
