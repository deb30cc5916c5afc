"""Send the metrics of a run folder to Weights & Biases or trackio: one run per arm, swept values and seed.

    pip install -e '.[track]'
    WANDB_MODE=offline purecc4 track runs/first

A training with `--track` sends each update as it is written. This command sends what is missing at the service: a
training without `--track`, or the updates that a service could not receive. Only `metrics.csv` and the settings are
sent. The service knows a run by an id that the run folder holds, so it can be sent again after the folder is renamed.
"""

import contextvars
import dataclasses
import hashlib
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import ModuleType
from typing import Annotated, Any

import tyro

from purecc4 import files
from purecc4.errors import UserError
from purecc4.train import checkpoint
from purecc4.train.metrics import METRICS_COLUMNS, read_metrics
from purecc4.train.progress import print_once
from purecc4.train.run_reader import METRICS_CSV, number_in, read_config, read_id, read_rows, read_variants, whole_in
from purecc4.train.settings import Service

EXTRAS = {"wandb": "track", "trackio": "trackio"}
PROJECT = "purecc4"
SENT = ".trackio.json"
"""File in the run folder with the env steps that trackio has of each run. wandb reports them itself."""
MAX_NAME = 128
"""Characters of a name that wandb accepts."""
RETRY_SECONDS = 30.0
"""Pause after a failed attempt to send."""
LAST_SECONDS = 120.0
"""Longest wait for a service at the end of a training."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Send the metrics of a run folder to a service."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    to: Service = "wandb"
    """Service. It reads its own settings, such as WANDB_MODE."""
    project: str = PROJECT
    """Project at the service."""


def run(config: Config) -> None:
    """Send the metrics of a run folder."""
    count = send(config.run, config.to, config.project)
    print(f"Sent {count} new rows of {config.run} to {config.to}.")


def find(service: Service) -> ModuleType:
    """Import the service's library. Raises UserError, with the command that installs it, if it is missing."""
    try:
        return importlib.import_module(service)
    except ImportError as error:
        raise UserError(f"{service} is not installed:  pip install -e '.[{EXTRAS[service]}]'") from error


def send(folder: Path, service: Service, project: str = PROJECT) -> int:
    """Send the rows of a folder that the service does not have yet, with env steps as the step. Returns their number.

    Raises UserError, before anything is sent, if the folder has no metrics, a row is damaged, missing or duplicated, or
    the library is not installed; and if the service refuses a row.
    """
    find(service)
    if not (folder / METRICS_CSV).exists() or not (folder / checkpoint.CONFIG).exists():
        raise UserError(f"{folder} has no {METRICS_CSV} and {checkpoint.CONFIG}: give a folder that was trained in.")
    read_metrics([folder])
    rows = list(read_table(folder))
    stream = Stream(folder, service, project)
    try:
        count = stream.send(rows)
        stream.finish()
    except Exception as error:  # the libraries raise errors of many kinds
        raise UserError(f"{service} failed ({error}): {again(folder, service)}.") from error
    return count


def again(folder: Path, service: Service) -> str:
    return f"nothing is lost, send the rest by  purecc4 track {folder} --to {service}"


def read_table(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the metrics table as numbers; empty fields are left out."""
    path = folder / METRICS_CSV
    for line, row in read_rows(path, METRICS_COLUMNS):
        about = {"arm": row.pop("arm"), "seed": whole_in(row, "seed", path, line)}
        del row["seed"]
        yield about | {name: number_in(row, name, path, line) for name in row if row[name] != ""}


class Stream:
    """The runs of a folder at a service. Each is opened with its first row, and all stay open until `finish`."""

    def __init__(self, folder: Path, service: Service, project: str):
        self.folder, self.service, self.project = folder, service, project
        self.library = find(service)
        self.runs: dict[str, Any] = {}
        self.sent = self._read_sent()
        """Env steps of the last row that the service has, by run."""

    def send(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Send the rows that the service does not have, in order. Returns how many those are."""
        # trackio only queues a row, so those of this call are recorded later: a kill may repeat rows, and loses none
        self._write_sent()
        count = 0
        for row in rows:
            key = f"{row['arm']}-{row['seed']}"
            if key not in self.runs:
                self.runs[key] = self._open(row["arm"], row["seed"], key)
            if row["env_steps"] <= self.sent.get(key, 0):
                continue
            values = {name: value for name, value in row.items() if name not in ("arm", "seed")}
            self.runs[key].log(values, step=int(row["env_steps"]))
            self.sent[key] = row["env_steps"]
            count += 1
        return count

    def finish(self) -> None:
        """Close all runs, which waits until the service has received them."""
        for key in list(self.runs):
            self.runs.pop(key).finish()
        self._write_sent()

    def drop(self) -> None:
        """Close all runs, and ignore those that cannot be closed."""
        for run in self.runs.values():
            with suppress(Exception):
                run.finish()
        self.runs.clear()

    def _open(self, arm: str, seed: int, key: str) -> Any:
        """Create or resume a run. Services keep one current run per context; here, each run has its own context."""
        folder, id = self.folder.resolve().name, read_id(self.folder)
        about = read_config(self.folder)[1] | {"arm": arm, "seed": seed, "folder": folder}
        about |= read_variants(self.folder).get(arm, {})
        if self.service == "wandb":
            digest = hashlib.sha256(f"{id}-{key}".encode()).hexdigest()[:16]
            same = {"name": f"{folder}-{key}"[-MAX_NAME:], "id": digest, "reinit": "create_new"}
        else:
            same = {"name": f"{key}-{id}"}  # trackio resumes by name
        arguments = {"project": self.project, "group": arm[-MAX_NAME:], "config": about, "resume": "allow"}
        run = contextvars.Context().run(lambda: self.library.init(**arguments, **same))
        if self.service == "wandb":
            self.sent[key] = run.step - 1 if run.step else 0
        return run

    def _read_sent(self) -> dict[str, float]:
        return dict(self._known().get(self.project, {})) if self.service == "trackio" else {}

    def _write_sent(self) -> None:
        if self.service == "trackio":
            files.write_json(self.folder / SENT, self._known() | {self.project: self.sent})

    def _known(self) -> dict[str, dict[str, float]]:
        """Content of SENT. Raises UserError if it is damaged."""
        path = self.folder / SENT
        known = files.read_json(path) if path.exists() else {}
        if not isinstance(known, dict) or not all(isinstance(sent, dict) for sent in known.values()):
            raise UserError(f"{path} is damaged: remove it, and all rows are sent again.")
        return known


class Live:
    """Sends the rows of a training in a thread of its own, so that a slow service delays nothing.

    After an error, all rows that the service lacks are read from the metrics table and sent `RETRY_SECONDS` later.
    """

    def __init__(self, stream: Stream):
        self.stream = stream
        self.queue: SimpleQueue[tuple[int, Sequence[Mapping[str, Any]] | None]] = SimpleQueue()
        self.attempt = self.failed = 0
        """Number of the current and of the last failed attempt. Each attempt begins with the whole table."""
        self.retry_at = 0.0
        self.error: Exception | None = None
        self.thread = Thread(target=self._work, daemon=True)
        self.thread.start()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queue rows that were just written to the table."""
        if self.failed == self.attempt:
            if time.monotonic() < self.retry_at:
                return
            rows = list(read_table(self.stream.folder))
            self.attempt += 1
        self.queue.put((self.attempt, rows))

    def close(self) -> bool:
        """Send what is left. Returns False if the service has not received all rows within `LAST_SECONDS`."""
        self.retry_at = 0.0
        try:
            if (self.stream.folder / METRICS_CSV).exists():
                self.add(())
        except UserError as error:  # the table of a training that stopped at a number that is not finite
            self.error = error
        self.queue.put((self.attempt, None))
        self.thread.join(LAST_SECONDS)
        return not self.thread.is_alive() and self.error is None

    def _work(self) -> None:
        rows = ()
        while rows is not None:
            attempt, rows = self.queue.get()
            if attempt == self.failed:
                continue  # the next attempt sends these rows, too
            try:
                self.stream.finish() if rows is None else self.stream.send(rows)
                self.error = None
            except Exception as error:  # the libraries raise errors of many kinds
                self.stream.drop()
                self.error, self.retry_at, self.failed = error, time.monotonic() + RETRY_SECONDS, attempt


@contextmanager
def live(folder: Path, service: Service | None) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yields a function that sends new rows of a training, or does nothing without a service.

    Rows that an interrupted training could not send go first. A message says so if some are not sent by the end.
    """
    if service is None:
        yield lambda rows: None
        return
    sender = Live(Stream(folder, service, PROJECT))
    try:
        yield sender.add
    finally:
        if not sender.close():
            reason = sender.error or "no answer"
            print_once(f"{service} has not received all metrics ({reason}): {again(folder, service)}.")
