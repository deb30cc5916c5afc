"""Stopping a training by Ctrl-C or SIGTERM, after the current call of the compiled program."""

import signal

from purecc4 import command
from purecc4.errors import Stopped
from purecc4.train.progress import print_once


class Stop:
    """Context in which a first signal is recorded in `number`; a second one ends the program at once."""

    def __init__(self):
        self.number: int | None = None

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        return self.number is not None

    def obey(self) -> None:
        """Raises Stopped if a signal has arrived."""
        if self.number is not None:
            raise Stopped(self.number)

    def ask(self, number: int, _) -> None:
        """Signal handler."""
        print_once("Stopping after this update. Press Ctrl-C again to stop at once, without saving.")
        self.number = number
        for each in self.before:
            signal.signal(each, command.end)
