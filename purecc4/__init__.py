"""CAGE Challenge 4 in JAX: the environment, algorithms, and an experiment on training diversity.

A script of `algos/` imports this package first, which lets Ctrl-C end the script at once while libraries load. Other
programs that import it keep their signal handlers.
"""

import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
if not (Path(__file__).parent / "envs").exists():
    # in a checkout, `purecc4.envs` and `purecc4.algos` are top-level folders; a wheel has them inside
    __path__.append(str(_ROOT))

from purecc4 import command  # noqa: E402

if Path(sys.argv[0]).resolve().parent in (_ROOT / "algos", Path(__file__).resolve().parent / "algos"):
    signal.signal(signal.SIGINT, command.leave)
    if sys.flags.optimize > 1:
        sys.exit("python -OO removes texts that libraries of the algorithms need: use python or python -O.")
