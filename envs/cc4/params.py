"""Parameters of an episode. A scripted red is data, so that one compiled program plays every red.

The tables are those of `FiniteStateRedAgent.py` and `FSMRedVariants.py`. The CIA reds weight eligible hosts by
resilience role, with known names or without (PARITY.md).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from .checks import check_num_steps, check_red
from .constants import NUM_RED_ACTIONS, NUM_STATES, Knowledge, RedAction, Role
from .games import GAMES, Game, GameSpec, build_game

_K = Knowledge
_FSM = {
    _K.K: (0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0),
    _K.KD: (0, 0.5, 0.5, 0, 0, 0, 0, 0, 0),
    _K.S: (0.25, 0, 0, 0.25, 0.5, 0, 0, 0, 0),
    _K.SD: (0, 0, 0, 0.25, 0.75, 0, 0, 0, 0),
    _K.U: (0.5, 0, 0, 0, 0, 0.5, 0, 0, 0),
    _K.UD: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.R: (0.5, 0, 0, 0, 0, 0, 0.25, 0.25, 0),
    _K.RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5, 0),
}
_CIA = _FSM | {_K.R: (0.1, 0, 0, 0, 0, 0, 0.45, 0.45, 0)}
_DISCOVERY = {
    _K.K: (0.25, 0.75, 0, 0, 0, 0, 0, 0, 0),
    _K.KD: (0, 1, 0, 0, 0, 0, 0, 0, 0),
    _K.S: (0.25, 0, 0, 0, 0.75, 0, 0, 0, 0),
    _K.SD: (0, 0, 0, 0, 1, 0, 0, 0, 0),
    _K.U: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.UD: (0, 0, 0, 0, 0, 1, 0, 0, 0),
    _K.R: (1, 0, 0, 0, 0, 0, 0, 0, 0),
    _K.RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5, 0),
}
_SCANS = RedAction.AGGRESSIVE_SERVICE_DISCOVERY, RedAction.STEALTH_SERVICE_DISCOVERY
_DISCOVERY_WEIGHTS = {_K.K: 20, _K.KD: 20, _K.S: 20, _K.SD: 20, _K.U: 10, _K.UD: 10}


def _instead(old: RedAction, new: RedAction) -> dict[Knowledge, tuple[float | int, ...]]:
    """Probabilities of `fsm`, with all those of one action given to another."""

    def moved(row: tuple[float | int, ...]) -> tuple[float | int, ...]:
        return tuple({old: 0, new: row[old] + row[new]}.get(action, p) for action, p in enumerate(row))

    return {state: moved(row) for state, row in _FSM.items()}


class RedPolicy(eqx.Module):
    """A scripted red as data."""

    action_cdf: Float[Array, "state red_action"]
    """Cumulative action probabilities by state of the target (constants.Knowledge)."""
    role_weight: Float[Array, ""]
    """Weight of a host with a hunted role; others have 1."""
    hunted: Bool[Array, "role"]
    by_state: Bool[Array, ""]
    """Sample a state first, then a host in it."""
    state_weights: Float[Array, "state"]
    server_chance: Float[Array, ""]
    """Probability of choosing among the known servers only; 0 treats servers and users alike."""


def red_policy(
    actions: dict[Knowledge, tuple[float | int, ...]],
    role_weight: float | int = 1,
    hunted: tuple[Role, ...] = (),
    state_weights: dict[Knowledge, float | int] | None = None,
    server_chance: float | int = 0,
) -> RedPolicy:
    """Build a red policy from numbers.

    `actions` maps states of a host (constants.Knowledge) to action probabilities, in the order of constants.RedAction;
    the remainder to 1 is Sleep. Hosts with a `hunted` role have weight `role_weight` in the choice of a host, others 1.
    With `state_weights`, a state is sampled before a host in it. `server_chance` is the probability of choosing among
    servers only.

    Raises ValueError for invalid arguments (checks.py).
    """
    check_red(actions, role_weight, hunted, state_weights, server_chance)
    table = np.zeros((NUM_STATES, NUM_RED_ACTIONS))
    for state, row in actions.items():
        table[state, : len(row)] = row
    table[:, RedAction.SLEEP] += 1 - table.sum(axis=1)
    weights = np.zeros(NUM_STATES)
    for state, weight in (state_weights or {}).items():
        weights[state] = weight
    return RedPolicy(
        action_cdf=jnp.asarray(np.cumsum(table, axis=1), jnp.float32),
        role_weight=jnp.float32(role_weight),
        hunted=jnp.asarray([role in hunted for role in Role]),
        by_state=jnp.asarray(state_weights is not None),
        state_weights=jnp.asarray(weights, jnp.float32),
        server_chance=jnp.float32(server_chance),
    )


class Params(eqx.Module):
    """Parameters of an episode, in addition to its scenario."""

    red: RedPolicy
    operational_servers: Int32[Array, ""]
    """Servers in each operational zone; 0 samples 1 to 6, and no resilience roles."""
    num_steps: Int32[Array, ""]
    game: Game
    observation: str = eqx.field(static=True, default="flat")
    """One of OBSERVATIONS."""


OBSERVATIONS = ("flat", "raw")
"""Observations of blue; both include the flat one."""

RED_ARGUMENTS = {
    "fsm": {"actions": _FSM},
    "cia_c": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.DB)},
    "cia_i": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.WEB)},
    "cia_a": {"actions": _CIA, "role_weight": 10, "hunted": (Role.AUTH, Role.DB, Role.WEB)},
    "discovery": {"actions": _DISCOVERY, "state_weights": _DISCOVERY_WEIGHTS, "server_chance": 0.75},
    "aggressive": {"actions": _instead(*_SCANS[::-1])},
    "stealthy": {"actions": _instead(*_SCANS)},
    "impact": {"actions": _instead(RedAction.DEGRADE_SERVICES, RedAction.IMPACT)},
    "sleep": {"actions": {}},
}
"""Arguments of `red_policy`, by the red's name."""
REDS = tuple(RED_ARGUMENTS)


def make_params(
    red: str | RedPolicy | None = None,
    num_steps: int = 500,
    observation: str = "flat",
    game: str | GameSpec = "base",
) -> Params:
    """Parameters of an episode of a game, one of GAMES or a GameSpec of your own.

    `red` is one of REDS or a RedPolicy of your own; None is the game's. `observation` is one of OBSERVATIONS: "raw"
    adds `obs.raw` to the flat vector. Roles are drawn for a red that hunts them, on three servers in each operational
    zone, whatever the game. Raises ValueError for an unknown name, or an episode shorter than one step per phase.
    """
    check_num_steps(num_steps)
    if observation not in OBSERVATIONS:
        raise ValueError(f"unknown observation {observation!r}; known are {', '.join(OBSERVATIONS)}.")
    if isinstance(game, str) and game not in GAMES:
        raise ValueError(f"unknown game {game!r}; known are {', '.join(GAMES)}.")
    spec = GAMES[game] if isinstance(game, str) else game
    red = spec.red if red is None else red
    if isinstance(red, RedPolicy):
        policy = red
    elif isinstance(red, str) and red in RED_ARGUMENTS:
        policy = red_policy(**RED_ARGUMENTS[red])
    else:
        raise ValueError(f"unknown red {red!r}; known are {', '.join(REDS)}.")
    return Params(
        red=policy,
        operational_servers=jnp.where(policy.hunted.any(), 3, 0).astype(jnp.int32),
        num_steps=jnp.int32(num_steps),
        game=build_game(spec),
        observation=observation,
    )
