"""The experiment around the environment: arms, evaluation, statistics, report, checkpoints, bench.

Imported first by a script of `algos/` that runs, it lets Ctrl-C end that at once while the libraries load. For anybody
else, signals stay as they are.
"""

import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
if not (Path(__file__).parent / "envs").exists():
    # a checkout: `purecc4.envs` and `purecc4.algos` are its top-level folders; a wheel has them inside
    __path__.append(str(_ROOT))

from purecc4 import command  # noqa: E402

if Path(sys.argv[0]).resolve().parent in (_ROOT / "algos", Path(__file__).resolve().parent / "algos"):
    signal.signal(signal.SIGINT, command.leave)
