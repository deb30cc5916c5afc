"""A game and its red as JSON for `game.py`, which sets them in CybORG.

    {
        "phishing": 0.75,                                                rates and `restore_cost`, as in `GameSpec`
        "green": {"GreenAccessService": 0.2, "GreenLocalWork": 0.3, "Sleep": 0.5},
        "servers": [6, 6], "users": [10, 10],                            least and most in a subnet
        "durations": {"red": {"ExploitRemoteService": 1}, "blue": {}},   steps
        "red": {"actions": {"K": {"DiscoverRemoteSystems": 1}}, "state_weights": null, "prefers_servers": false}
    }

Only what differs from CAGE Challenge 4 is in it. Actions go by the names of CybORG's classes.
"""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from purecc4.envs.cc4.checks import ACTING_STATES
from purecc4.envs.cc4.constants import Knowledge, RedAction
from purecc4.envs.cc4.games import RATES, GameSpec
from purecc4.envs.cc4.params import RED_ARGUMENTS, RedPolicy, red_policy
from purecc4.errors import UserError

SERVER_CHANCE = 0.75
"""The only preference for servers that CybORG has (`FiniteStateRedAgent._choose_host`)."""
_SHARES = ("work", "visit")
_PLAIN = (*(name for name in RATES if name not in _SHARES), "restore_cost")
_BY_NAME = {RedAction.PRIVILEGE_ESCALATE, RedAction.IMPACT, RedAction.DEGRADE_SERVICES, RedAction.WITHDRAW}
"""Actions on a host's name, which red may not know before it has a session there."""
_UNENTERED = {Knowledge.K, Knowledge.KD, Knowledge.S, Knowledge.SD}


def to_json(game: GameSpec, red: RedPolicy) -> str:
    """Serialise a game, played by this red. Raises UserError for a red that CybORG cannot play."""
    changes = game.changes()
    found = {name: changes[name] for name in _PLAIN if name in changes}
    found |= {name: list(changes[name]) for name in ("servers", "users") if name in changes}
    if changes.keys() & set(_SHARES):
        found["green"] = _shares(game)
    durations = {team: changes[f"{team}_durations"] for team in ("red", "blue") if f"{team}_durations" in changes}
    if durations:
        found["durations"] = {team: _by_class(steps) for team, steps in durations.items()}
    if (own := _red(red)) != _red(red_policy(**RED_ARGUMENTS["fsm"])):
        found["red"] = own
    return json.dumps(found, indent=4)


def _shares(game: GameSpec) -> dict[str, float]:
    shares = {"GreenAccessService": game.visit, "GreenLocalWork": game.work}
    shares["Sleep"] = max(0.0, 1 - game.visit - game.work)
    return _normalised(shares)


def _red(red: RedPolicy) -> dict[str, Any]:
    """Arguments of `game.set_red`."""
    if red.hunted.any():
        raise UserError("CybORG cannot play this red: its hosts have no roles that a red could hunt.")
    if (chance := float(red.server_chance)) not in (0, SERVER_CHANCE):
        raise UserError(f"CybORG cannot play this red: its server_chance must be 0 or {SERVER_CHANCE}, not {chance:g}.")
    # a cumulative sum in float32, which choice() of NumPy takes for probabilities only if they sum to 1 in float64
    table = np.diff(np.asarray(red.action_cdf, float), axis=1, prepend=0).clip(0)
    actions = {}
    for state in ACTING_STATES:
        row = {action: float(p) for action, p in zip(RedAction, table[state], strict=True) if p > 0}
        if state in _UNENTERED and (wrong := _BY_NAME & row.keys()):
            raise UserError(
                f"CybORG cannot play this red: it would {min(wrong).name.lower()} in state {state.name}, "
                "where it may not know the host's name."
            )
        actions[state.name] = _normalised(_by_class(row))
    sleeps = all(row.keys() == {"Sleep"} for row in actions.values())
    weights = {state.name: float(red.state_weights[state]) for state in ACTING_STATES} if red.by_state else None
    return {"actions": {} if sleeps else actions, "state_weights": weights, "prefers_servers": chance > 0}


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _by_class(values: Mapping[IntEnum, Any]) -> dict[str, Any]:
    """By the name of the class of CybORG: deploy_decoy is DeployDecoy."""
    return {action.name.title().replace("_", ""): value for action, value in values.items()}
