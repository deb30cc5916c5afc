"""CAGE Challenge 4, the blue side, as pure functions of arrays.

Q1, Q2 and so on refer to the quirks of the reference in QUIRKS.md.
"""

from .actions import action_mask, label
from .draws import Draws
from .draws import sample as sample_draws
from .env import Info, decide, mission_phase, reset, start, step, transition
from .games import GAMES, GameSpec
from .params import OBSERVATIONS, REDS, Params, RedPolicy, make_params, red_policy
from .raw import RawObservation
from .scenario import generate
from .state import Observation, Rewards, Scenario, ScriptedChoices, State
from .told import told
from .view import View, view

__all__ = [
    "GAMES",
    "OBSERVATIONS",
    "REDS",
    "Draws",
    "GameSpec",
    "Info",
    "Observation",
    "Params",
    "RawObservation",
    "RedPolicy",
    "Rewards",
    "Scenario",
    "ScriptedChoices",
    "State",
    "View",
    "action_mask",
    "decide",
    "generate",
    "label",
    "make_params",
    "mission_phase",
    "red_policy",
    "reset",
    "sample_draws",
    "start",
    "step",
    "told",
    "transition",
    "view",
]
