"""A game and its red as JSON for `game.py`, which sets them in CybORG.

    {
        "phishing": 0.75,                                                rates and `restore_cost`, as in `GameSpec`
        "green": {"GreenAccessService": 0.2, "GreenLocalWork": 0.3, "Sleep": 0.5},
        "servers": [6, 6], "users": [10, 10],                            least and most in a subnet
        "durations": {"red": {"ExploitRemoteService": 1}, "blue": {}},   steps, by team
        "red": {"actions": {"K": {"DiscoverRemoteSystems": 1}}, "state_weights": null, "prefers_servers": false}
    }

Only what differs from CAGE Challenge 4 is in it. Actions go by the names of CybORG's classes.
"""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from purecc4.arms.define import MAX_NUM_STEPS, Definitions
from purecc4.envs.cc4.checks import ACTING_STATES
from purecc4.envs.cc4.constants import BLUE_DURATION, RED_DURATION, BlueAction, Knowledge, RedAction
from purecc4.envs.cc4.games import BASE, RATES, GameSpec
from purecc4.envs.cc4.params import RED_ARGUMENTS, RedPolicy, red_policy
from purecc4.errors import UserError

SERVER_CHANCE = 0.75
"""The only preference for servers that CybORG has (`FiniteStateRedAgent._choose_host`)."""
_BY_NAME = {RedAction.PRIVILEGE_ESCALATE, RedAction.IMPACT, RedAction.DEGRADE_SERVICES, RedAction.WITHDRAW}
"""Actions on a host's name, which red may not know before it has a session there."""
_UNENTERED = {Knowledge.K, Knowledge.KD, Knowledge.S, Knowledge.SD}


def written(own: Definitions, match: str) -> str:
    """A red in a game, named as by `Definitions.match`. Raises UserError as `Definitions.params` and `to_json` do."""
    _, _, game = match.partition("@")
    return to_json(own.game(game or "base"), own.params(match, MAX_NUM_STEPS).red)


def to_json(game: GameSpec, red: RedPolicy) -> str:
    """Serialise a game, played by this red. Raises UserError for a red that CybORG cannot play."""
    challenge = numbers(BASE, red_policy(**RED_ARGUMENTS[BASE.red]))
    return json.dumps({name: x for name, x in numbers(game, red).items() if x != challenge[name]}, indent=4)


def numbers(game: GameSpec, red: RedPolicy) -> dict[str, Any]:
    """All keys of the file. Raises UserError as `to_json`."""
    shares = {"GreenAccessService": game.visit, "GreenLocalWork": game.work}
    return {
        **{name: getattr(game, name) for name in (*RATES, "restore_cost") if name not in ("work", "visit")},
        "green": _normalised({**shares, "Sleep": max(0.0, 1 - sum(shares.values()))}),
        "servers": list(game.servers),
        "users": list(game.users),
        "durations": {
            "red": _by_class(dict(zip(RedAction, RED_DURATION.tolist(), strict=True)) | dict(game.red_durations)),
            "blue": _by_class(dict(zip(BlueAction, BLUE_DURATION.tolist(), strict=True)) | dict(game.blue_durations)),
        },
        "red": _red(red),
    }


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
