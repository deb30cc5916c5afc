"""All results of a report, computed once from the tables."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from purecc4.play.tables import Evaluation, read_evaluation, table_of
from purecc4.report.logit_bias import bias_table, gap_table, read_biases
from purecc4.report.published import side_by_side
from purecc4.report.study import (
    Study,
    action_table,
    baseline_table,
    by_mode,
    curve_table,
    delta_table,
    effect_table,
    effects_by_seed,
    factor_table,
    make_studies,
    middle_table,
    mode_table,
    return_table,
    unpaired_table,
)
from purecc4.train.metrics import Curve, read_metrics

PAGE = "report.md"


class Findings(NamedTuple):
    """The pooled evaluation and all tables computed from it."""

    evaluation: Evaluation
    studies: dict[str, Study]
    """Studies by mode. The page shows the first."""
    means: pd.DataFrame
    """Means of VALUES by tables.CELL."""
    effects: pd.DataFrame
    """Paired deltas of the first study by (name, red) and seed."""
    tables: dict[str, pd.DataFrame]
    """CSV tables by name."""
    curves: dict[tuple[str, int], Curve]
    """Training curves by arm and seed."""

    @property
    def study(self) -> Study:
        return next(iter(self.studies.values()))

    def of(self, name: str) -> pd.DataFrame:
        """The table of that name, restricted to the mode of the page."""
        table = self.tables[name]
        return table[table["mode"] == self.study.mode] if "mode" in table else table


def action_file(red: str) -> str:
    """Figure name for the actions against a red, with characters that are safe in file names."""
    return "actions_" + re.sub(r"[^\w-]", "_", red)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Drop files and report folders from the paths, so that `results/study/*` selects the runs of a study."""
    return [
        path for path in paths if not path.is_file() and not ((path / PAGE).exists() and not table_of(path).exists())
    ]


def find(runs: Sequence[Path], control: str = "C00", env_steps: int | str = "last") -> Findings:
    """Read the tables of run folders and compute all results. Raises UserError for invalid input."""
    evaluation = read_evaluation(runs).faithful()
    means, studies = make_studies(evaluation, control, env_steps)
    by_seed = {mode: effects_by_seed(study) for mode, study in studies.items()}
    first = next(iter(studies.values()))
    shifts = read_biases(runs, first)
    tables = {
        "cells": by_mode(studies, lambda study: study.means.reset_index()),
        "returns": by_mode(studies, return_table),
        "baselines": by_mode(studies, baseline_table),
        "deltas": by_mode(studies, lambda study: delta_table(study, by_seed[study.mode])),
        "effects": by_mode(studies, lambda study: effect_table(study, by_seed[study.mode])),
        "unpaired": by_mode(studies, unpaired_table),
        "factors": by_mode(studies, factor_table),
        "actions": by_mode(studies, action_table),
        "modes": mode_table(studies),
        "checkpoints": curve_table(means),
        "middle": middle_table(means),
        "logit_bias": bias_table(first, shifts),
        "gaps": gap_table(first, shifts),
    }
    found = Findings(evaluation, studies, means, next(iter(by_seed.values())), tables, read_metrics(runs))
    tables["published"] = side_by_side(found.study, found.of("returns"), found.of("effects"))
    return found
