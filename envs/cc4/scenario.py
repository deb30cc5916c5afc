"""Networks, sampled under jit or given as data, and the other constants of an episode.

Ports `EnterpriseScenarioGenerator.py` of CybORG. Addresses, routers, operating systems and absolute pids take no part
in any rule and are not drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, UInt8

from .checks import check_phase_starts, is_float32, is_whole
from .constants import (
    ALLOWED,
    HQ,
    IS_OPERATIONAL,
    IS_SERVER,
    MAX_SERVERS,
    MAX_USERS,
    NO_HOST,
    NUM_HOSTS,
    NUM_PHASES,
    NUM_SUBNETS,
    NUM_ZONES,
    REWARDS,
    SLOTS,
    RewardTerm,
    Role,
    Service,
    Subnet,
)
from .draws import pid_step, sample_index
from .games import BASE, Game, GameSpec, build_game
from .params import Params
from .state import Scenario

_RAW = int.from_bytes(b"raw", "big")
"""Folded into a key for what only the raw observation needs."""
ROLE_HOSTS = np.flatnonzero(IS_OPERATIONAL & IS_SERVER)
ADDONS = np.array(
    [(0, 0, 0)] * 3 + [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)] + [(1, 1, 1)] * 3, bool
)
"""[12, service]: equally likely sets of add-on services, i.e. 0..3 of them, drawn without replacement."""


class Network(eqx.Module):
    """The sampled part of a scenario; fields as in Scenario. `state.PackedNetwork` is the packed form."""

    exists: Bool[Array, "host"]
    services: Bool[Array, "service host"]
    red_start: UInt8[Array, ""]
    hq_start: UInt8[Array, ""]
    """A Subnet."""
    servers: UInt8[Array, "phase zone zone"]


class Uniforms(eqx.Module):
    """Every random number of one generated network and its roles, on [0, 1)."""

    servers: Float[Array, "zone"]
    users: Float[Array, "zone"]
    services: Float[Array, "host"]
    starts: Float[Array, "2"]
    """Red agent 0's host; the subnet that red agent 5 can sweep."""
    roles: Float[Array, "candidate"]
    """Scores of the servers that can have a role: AUTH, DB, WEB go to the three highest."""


_SIZES = (NUM_ZONES, NUM_ZONES, NUM_HOSTS, 2, len(ROLE_HOSTS))


def sample_uniforms(key: PRNGKeyArray) -> Uniforms:
    """Sample the random numbers of one network."""
    block = jax.random.uniform(key, (sum(_SIZES),))
    return Uniforms(*jnp.split(block, np.cumsum(_SIZES)[:-1]))


def generate(key: PRNGKeyArray, params: Params) -> Scenario:
    """A newly sampled network with the canonical tables (`EnterpriseScenarioGenerator.py:create_scenario`).

    Users and servers are uniform on the ranges of the game in every zone; the two operational zones get exactly
    `params.operational_servers` servers if that is above 0, and three of these get roles.
    """
    uniforms = sample_uniforms(key)
    scenario = complete(draw_network(uniforms, params.operational_servers, params.game), uniforms.roles, params)
    return add_pid_gaps(key, scenario, params)


def add_pid_gaps(key: PRNGKeyArray, scenario: Scenario, params: Params) -> Scenario:
    """The scenario with what the raw observation needs; unchanged for the flat one. `key` is that of the network."""
    if params.observation == "flat":
        return scenario
    return replace(scenario, pid_gap=draw_pid_gaps(jax.random.fold_in(key, _RAW)))


def draw_pid_gaps(key: PRNGKeyArray) -> UInt8[Array, "host"]:
    """Pid of green's session minus that of blue's: 1 to 9 on user hosts, 0 on servers, which have no green session."""
    gaps = pid_step(jax.random.uniform(key, (NUM_HOSTS,)))
    return jnp.where(IS_SERVER, 0, gaps).astype(jnp.uint8)


def draw_network(uniforms: Uniforms, operational_servers: Int32[Array, ""], game: Game) -> Network:
    """The network defined by these uniforms; `operational_servers` is 0 to sample them like all others."""
    zones = np.arange(NUM_ZONES)
    fixed = np.isin(zones, (Subnet.OZA, Subnet.OZB)) & (operational_servers > 0)
    servers = jnp.where(fixed, operational_servers, _within(uniforms.servers, game.servers))
    users = _within(uniforms.users, game.users)
    exists = _exists(servers, users)
    start = sample_index(uniforms.starts[0], servers[Subnet.CON] + users[Subnet.CON])
    start = jnp.where(start < servers[Subnet.CON], start, start - servers[Subnet.CON] + MAX_SERVERS)
    return Network(
        exists=exists,
        services=jnp.asarray(ADDONS.T)[:, _scaled(uniforms.services, len(ADDONS))] & exists,
        red_start=(Subnet.CON * SLOTS + start).astype(jnp.uint8),
        hq_start=(Subnet.ADM + _scaled(uniforms.starts[1], len(HQ))).astype(jnp.uint8),
        servers=_reachable_servers(ALLOWED, servers),
    )


def complete(network: Network, role_scores: Float[Array, "candidate"], params: Params) -> Scenario:
    """The scenario of `network` with the canonical tables; roles are sampled if `params.operational_servers` is set."""
    scores = jnp.where(network.exists[ROLE_HOSTS] & (params.operational_servers > 0), role_scores, -1)
    best, index = jax.lax.top_k(scores, len(Role))
    return Scenario(
        **vars(network),
        roles=jnp.where(best >= 0, jnp.asarray(ROLE_HOSTS)[index], NO_HOST).astype(jnp.uint8),
        rewards=jnp.asarray(REWARDS),
        restore_cost=params.game.restore_cost,
        phase_starts=_thirds(params.num_steps),
        num_steps=params.num_steps,
        game=params.game,
    )


@dataclass(frozen=True, eq=False)
class Topology:
    """A network as plain data. Raises ValueError for an impossible network."""

    servers: Sequence[int] | np.ndarray
    """1..6 in each zone, in the order of Subnet: CON RZA OZA RZB OZB ADM OFF PAZ."""
    users: Sequence[int] | np.ndarray
    """0..10 in each zone."""
    services: np.ndarray = field(default_factory=lambda: np.zeros((len(Service), NUM_HOSTS), bool))
    """[service, host]: Apache, MySQL, SMTP; those of hosts that do not exist are ignored."""
    red_start: int = 0
    """Host of CON where red agent 0 starts: server 0..5 or 6 + user."""
    hq_start: Subnet = Subnet.ADM
    """The one of ADM, OFF, PAZ that red agent 5 can sweep from the start."""
    allowed: np.ndarray = field(default_factory=lambda: ALLOWED)
    """[phase, from, to]: whose servers green users of a zone visit."""

    def __post_init__(self):
        _check_counts("servers", self.servers, 1, MAX_SERVERS)
        _check_counts("users", self.users, 0, MAX_USERS)
        _check_shape("services", self.services, (len(Service), NUM_HOSTS))
        _check_shape("allowed", self.allowed, (NUM_PHASES, NUM_ZONES, NUM_ZONES))
        if not (0 <= self.red_start < SLOTS and self.exists[self.red_start]):
            raise ValueError(
                f"red_start must be an existing host of CON (servers 0..5, users 6..15): {self.red_start}."
            )
        if self.hq_start not in HQ:
            raise ValueError(f"hq_start must be Subnet.ADM, OFF or PAZ: {self.hq_start!r}.")

    @property
    def exists(self) -> np.ndarray:
        """[host]"""
        return np.asarray(_exists(np.asarray(self.servers), np.asarray(self.users)))

    def network(self) -> Network:
        return Network(
            exists=jnp.asarray(self.exists),
            services=jnp.asarray(np.asarray(self.services, bool) & self.exists),
            red_start=jnp.uint8(self.red_start),
            hq_start=jnp.uint8(self.hq_start),
            servers=_reachable_servers(np.asarray(self.allowed), np.asarray(self.servers)),
        )


def from_data(
    topology: Topology,
    num_steps: int = 500,
    phase_starts: Sequence[int] | np.ndarray | None = None,
    rewards: np.ndarray = REWARDS,
    restore_cost: int | float = 1,
    roles: Sequence[int] | np.ndarray = (NO_HOST, NO_HOST, NO_HOST),
    pid_gap: np.ndarray | None = None,
    game: GameSpec = BASE,
) -> Scenario:
    """A scenario given as data.

    `phase_starts` are thirds of the episode if None; `rewards` is [phase, subnet, term], each at most 0; `roles` are
    the hosts with AUTH, DB, WEB. With `pid_gap` (see `draw_pid_gaps`) blue gets the raw observation, too. The sizes,
    the red and the Restore cost of `game` are not used. Raises ValueError for wrong shapes, starts or roles.
    """
    if phase_starts is not None:
        check_phase_starts(phase_starts)
    if pid_gap is not None:
        _check_shape("pid_gap", pid_gap, (NUM_HOSTS,))
    _check_shape("rewards", rewards, (NUM_PHASES, NUM_SUBNETS, len(RewardTerm)))
    if not all(map(is_float32, (*np.ravel(rewards).tolist(), restore_cost))):
        raise ValueError("rewards and restore_cost must be float32 numbers.")
    if len(roles) != len(Role) or not {*roles} <= {NO_HOST, *ROLE_HOSTS[topology.exists[ROLE_HOSTS]].tolist()}:
        raise ValueError(f"roles must be three existing servers of OZA and OZB, or NO_HOST: {tuple(roles)}.")
    return Scenario(
        **vars(topology.network()),
        roles=jnp.array(roles, jnp.uint8),
        rewards=jnp.asarray(rewards, jnp.float32),
        restore_cost=jnp.float32(restore_cost),
        phase_starts=_thirds(jnp.int32(num_steps)) if phase_starts is None else jnp.array(phase_starts, jnp.int32),
        num_steps=jnp.int32(num_steps),
        game=build_game(game),
        pid_gap=None if pid_gap is None else jnp.asarray(pid_gap, jnp.uint8),
    )


def _check_counts(what: str, counts: Sequence[int] | np.ndarray, least: int, most: int) -> None:
    if len(counts) != NUM_ZONES or not all(is_whole(count) and least <= count <= most for count in counts):
        raise ValueError(f"{what} must be {NUM_ZONES} counts of {least}..{most}, from CON to PAZ: {tuple(counts)}.")


def _check_shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{what} must have the shape {shape}: {np.shape(array)}.")


def _within(u: Float[Array, "*n"], bounds: Int32[Array, "2"]) -> Int32[Array, "*n"]:
    """Uniform whole numbers from bounds[0] to bounds[1]."""
    return bounds[0] + sample_index(u, bounds[1] - bounds[0] + 1)


def _scaled(u: Float[Array, "*n"], count: int) -> Int32[Array, "*n"]:
    return sample_index(u, jnp.full(u.shape, count))


def _exists(servers, users):
    slot = np.arange(SLOTS)
    is_server = slot < MAX_SERVERS
    return ((is_server & (slot < servers[:, None])) | (~is_server & (slot - MAX_SERVERS < users[:, None]))).reshape(-1)


def _reachable_servers(allowed, servers):
    return jnp.cumsum(allowed * servers, axis=-1).astype(jnp.uint8)


def _thirds(num_steps: Int32[Array, ""]) -> Int32[Array, "phase"]:
    """First steps of the mission phases: ceil(num_steps * phase / 3), longer phases first."""
    return (num_steps * jnp.arange(NUM_PHASES) + NUM_PHASES - 1) // NUM_PHASES
