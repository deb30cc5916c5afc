"""Stopping a training after the current call of the compiled program: by Ctrl-C, SIGTERM or an output that fails."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from purecc4 import command
from purecc4.errors import Stopped
from purecc4.train.progress import print_once


class Stop:
    """Context in which a first signal is recorded in `number`; a second one ends the program at once."""

    def __init__(self):
        self.number: int | None = None
        self.unheard: OSError | None = None
        """Error of the standard output or error output, such as a full disk."""

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        return self.number is not None or self.unheard is not None

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Context for printing. An error of the output is recorded in `unheard`, so that the training saves first."""
        try:
            yield
        except OSError as error:
            self.unheard = error

    def obey(self) -> None:
        """Raises Stopped, or the error of the output. In a job, the signal may have reached another process."""
        if self.unheard is not None and self.number is None:
            raise self.unheard
        raise Stopped(self.number or signal.SIGTERM)

    def ask(self, number: int, _) -> None:
        """Signal handler."""
        self.number = number
        with self.printing():
            print_once("Stopping after this update. Press Ctrl-C again to stop at once, without saving.")
        for each in self.before:
            signal.signal(each, command.end)
