"""Reading the settings and tables of a run folder; `run_writer.py` writes them."""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purecc4.errors import UserError, user_file
from purecc4.files import read_json
from purecc4.train.checkpoint import CONFIG

REWARD_TERMS = ("lwf", "asf", "ria", "cost")
METRICS_CSV = "metrics.csv"
VARIANTS = "variants"
"""Key of the derived settings of a sweep, see `read_variants`."""
ID_DIGITS = 16
"""Hexadecimal digits of the id of a run folder."""
FREE_TO_CHANGE = (
    *("name", "define", "resume", "distributed", "total_timesteps", "checkpoint_every", "updates_per_call", "track"),
)
"""Training settings that leave the results at a given number of env steps unchanged."""
SINCE_ALWAYS = {"game": "base", "red": "fsm", "precision": "float32", "define": None, "zip": False}
"""Values of settings that older run folders do not hold."""
MAY_DIFFER = ("arm", "seeds", *FREE_TO_CHANGE)
"""Training settings in which pooled runs may differ."""


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """Algorithm and settings of a run folder. Raises UserError if they are damaged or not those of a training."""
    content = read_json(folder / CONFIG)
    resolved = content.get("resolved") if isinstance(content, dict) else None
    if not isinstance(resolved, dict):
        raise UserError(f"{folder / CONFIG} holds no training settings: it is damaged or not a file of purecc4.")
    algorithm = content.get("algorithm", "ippo")
    if not isinstance(algorithm, str):
        raise UserError(f"{folder / CONFIG} has the algorithm {algorithm!r}: it is damaged or not a file of purecc4.")
    if algorithm == "ippo_notebook":  # older folders: the schedule was as long as the training
        resolved = {"schedule_timesteps": resolved.get("total_timesteps")} | resolved
    return algorithm, SINCE_ALWAYS | resolved


def read_variants(folder: Path) -> dict[str, dict[str, Any]]:
    """`arm` and the swept values of every label of a sweep, in the order of training. Empty without a sweep.

    Raises UserError as `read_config` does, and for variants that no training wrote.
    """
    read_config(folder)
    derived = read_json(folder / CONFIG).get("derived")
    found = derived.get(VARIANTS, {}) if isinstance(derived, dict) else {}
    if not isinstance(found, dict) or not all(map(_is_variant, found.values())):
        raise UserError(f"{folder / CONFIG} is damaged: its {VARIANTS} are not those of a sweep.")
    return found


def _is_variant(about: Any) -> bool:
    """True for an arm with numbers by name."""
    if not isinstance(about, dict) or not isinstance(about.get("arm"), str):
        return False
    return all(isinstance(value, int | float) for name, value in about.items() if name != "arm")


def read_id(folder: Path) -> str:
    """Id of a run folder, written when its training started and kept when the folder is renamed.

    A folder of an older version has none; its id is a digest of its settings. Raises UserError as `read_config` does.
    """
    read_config(folder)
    content = read_json(folder / CONFIG)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return str(content.get("id", digest[:ID_DIGITS]))


def refuse_unlike(how: str, settings: dict[Path, dict[str, Any]]) -> None:
    """Raises UserError, naming the first difference, unless all folders have the same settings."""
    if not settings:
        return
    first, expected = next(iter(settings.items()))
    for folder, found in settings.items():
        for key in (*expected, *found):
            if expected.get(key) != found.get(key):
                raise UserError(
                    f"{first} and {folder} were {how} differently and are not pooled: "
                    f"{key} is {expected.get(key)} in the first and {found.get(key)} in the second."
                )


def read_rows(path: Path, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Yields line numbers and rows of a table. Raises UserError if it lacks one of `columns` or is damaged."""
    with user_file(path), path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise UserError(f"{path} lacks the column {lacking[0]}.")
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num} is damaged: {error}.") from error


def number_in(row: dict[str, str], name: str, path: Path, line: int) -> float:
    """A finite number of a table. Raises UserError for any other field."""
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{path} line {line} has {row[name]!r} for {name}, which is not a finite number.")
    return value


def whole_in(row: dict[str, str], name: str, path: Path, line: int) -> int:
    """A whole number of a table. Raises UserError for any other field."""
    value = number_in(row, name, path, line)
    if value != int(value):
        raise UserError(f"{path} line {line} has {row[name]!r} for {name}, which is not a whole number.")
    return int(value)
