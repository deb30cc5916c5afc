"""Stopping a training: Ctrl-C and requests to terminate are obeyed after the running call of the program."""

import signal

from purecc4 import command
from purecc4.errors import Stopped
from purecc4.train.progress import print_once


class Stop:
    """`number` is that of the first signal, Ctrl-C or a request to terminate; a second one is obeyed at once."""

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
        """Raise Stopped if there was a signal."""
        if self.number is not None:
            raise Stopped(self.number)

    def ask(self, number: int, _) -> None:
        """Handle a signal."""
        print_once("Stopping after this call of the program; once more to stop at once, without saving.")
        self.number = number
        for each in self.before:
            signal.signal(each, command.end)
