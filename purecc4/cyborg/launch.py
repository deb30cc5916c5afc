"""Common start of `fast.py` and `game.py`: importing this lets CybORG load without Ray, and `run` starts a program."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path

if importlib.util.find_spec("ray") is None:  # CybORG takes only a base class from Ray and uses nothing of it
    stand_in = types.ModuleType("ray.rllib.env.multi_agent_env")
    stand_in.MultiAgentEnv = type("MultiAgentEnv", (), {})
    sys.modules.setdefault(stand_in.__name__, stand_in)


def run(program: Sequence[str]) -> None:
    """Run a script, or a module after -m, with its arguments."""
    first, *arguments = program
    if first == "-m":
        sys.argv, sys.path[0] = arguments, ""
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *arguments], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")
