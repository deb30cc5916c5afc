"""Send the metrics table of a run folder to Weights & Biases or trackio: one run per arm and seed, grouped by arm.

    pip install -e '.[track]'
    WANDB_MODE=offline purecc4 track runs/first

Nothing is installed unless asked for, and nothing is sent but `metrics.csv` and the settings. Sending a folder again,
while it trains or later, goes on with the same runs.
"""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro

from purecc4.errors import UserError
from purecc4.train import checkpoint
from purecc4.train.metrics import METRICS_COLUMNS, read_metrics
from purecc4.train.run_reader import METRICS_CSV, number_in, read_config, read_rows, whole_in

Service = Literal["wandb", "trackio"]
EXTRAS = {"wandb": "track", "trackio": "trackio"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Send the metrics of a run folder to a service."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    to: Service = "wandb"
    """Service. It keeps its own settings, such as WANDB_MODE."""
    project: str = "purecc4"
    """Project at the service."""


def run(config: Config) -> None:
    """Send the metrics of a run folder."""
    count = send(config.run, config.to, config.project)
    print(f"Sent {count} runs of {config.run} to {config.to}.")


def find(service: Service) -> ModuleType:
    """The service's library. UserError, with the command that installs it, if it is not there."""
    try:
        return importlib.import_module(service)
    except ImportError as error:
        raise UserError(f"{service} is not installed:  pip install -e '.[{EXTRAS[service]}]'") from error


def send(folder: Path, service: Service, project: str = "purecc4") -> int:
    """Send all runs of a folder, one after another, with env steps as the step. Returns how many.

    Raises UserError, with one sentence, if the folder has no metrics, a row is damaged, missing or there twice, or the
    library is not installed. Then nothing is sent.
    """
    library = find(service)
    if not (folder / METRICS_CSV).exists() or not (folder / checkpoint.CONFIG).exists():
        raise UserError(f"{folder} has no {METRICS_CSV} and {checkpoint.CONFIG}: give a folder that was trained in.")
    _, settings = read_config(folder)
    runs: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in read_metrics([folder])}
    path = folder / METRICS_CSV
    for line, row in read_rows(path, METRICS_COLUMNS):
        run = row.pop("arm"), whole_in(row, "seed", path, line)
        del row["seed"]
        values = {name: number_in(row, name, path, line) for name in row if row[name] != ""}
        runs[run].append(values)
    for (arm, seed), rows in runs.items():
        name = f"{folder.name}-{arm}-{seed}"
        same = {"id": name} if service == "wandb" else {}
        about = settings | {"arm": arm, "seed": seed}
        run = library.init(project=project, name=name, group=arm, config=about, resume="allow", **same)
        for row in rows:
            run.log(row, step=int(row["env_steps"]))
        run.finish()
    return len(runs)
