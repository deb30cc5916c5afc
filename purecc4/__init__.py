"""The experiment around the environment: arms, evaluation, statistics, report, checkpoints, bench.

Imported first by a script of `algos/` that runs, it lets Ctrl-C end that at once while the libraries load. For anybody
else, signals stay as they are.
"""

import signal
import sys
from pathlib import Path

from purecc4 import command

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parents[1] / "algos":
    signal.signal(signal.SIGINT, command.leave)
