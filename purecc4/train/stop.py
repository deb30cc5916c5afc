"""Stopping a training: Ctrl-C and requests to terminate are obeyed after the running call of the program."""

import signal

from purecc4.train.progress import print_once


class Stop:
    """`asked` becomes true at the first Ctrl-C or request to terminate; the second one is obeyed at once."""

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, *_) -> None:
        """Handle a signal."""
        print_once("Stopping after this call of the program; once more to stop at once, without saving.")
        self.asked = True
        self.__exit__()
