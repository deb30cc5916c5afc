"""All commands except training: `purecc4 COMMAND`, or `python -m purecc4 COMMAND`.

The module of a command is only imported on use, so `purecc4 --help` does not start JAX. Nothing but the standard
library is imported before the signal handlers are installed.
"""

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Annotated, Any, Union

from purecc4 import command

COMMANDS = {
    "evaluate": (
        "purecc4.play.evaluate",
        "Play checkpoints against every red, with a table row per episode.",
    ),
    "verify": ("purecc4.play.verify", "Replay episodes of an evaluation table and compare the returns."),
    "nudge": ("purecc4.play.nudge", "Sweep a logit bias on one action type to test for local optimality."),
    "report": ("purecc4.report.report", "Report verdicts, intervals, figures and tables of evaluated run folders."),
    "compare": ("purecc4.report.compare", "Compare run folders of any algorithms at equal env steps."),
    "watch": ("purecc4.play.watch", "Write one episode as a page for the browser."),
    "arms": ("purecc4.arms.show", "Print every arm and the entries of its banks."),
    "export": ("purecc4.cyborg.export", "Export a policy to NumPy, as a submission to the challenge."),
    "transfer": ("purecc4.cyborg.transfer", "Compare a policy in CybORG and here, with an equivalence test."),
    "track": ("purecc4.train.track", "Send the metrics of a run folder to Weights & Biases or trackio."),
    "replay": ("purecc4.parity.replay", "Replay recorded CybORG episodes and compare every step."),
    "distribution": ("purecc4.parity.distribution", "Compare free play with recorded CybORG episodes, statistically."),
    "one-step": ("purecc4.parity.one_step", "Compare single recorded CybORG steps with sampled ones, statistically."),
    "bench": ("purecc4.bench.bench", "Benchmark speed and size on this machine, or compile for another GPU."),
}
"""Module and summary of each command. The module has the settings `Config` and a function `run` that takes them."""


def main() -> None:
    """Run the command of the command line, with its exit status."""
    command.run(" ".join(["purecc4", *sys.argv[1:2]]), run)


def run() -> None:
    """Import the module of the command, parse its settings and run it."""
    name = next(iter(sys.argv[1:]), "")
    with command.handled_by(command.leave):
        module = importlib.import_module(COMMANDS[name][0]) if name in COMMANDS else None
    config = parse(sys.argv[1:], name, module)
    module.run(config)


def parse(args: list[str], asked: str, module: ModuleType | None) -> Any:
    """Parse the settings of the command `asked` in `module`. All other commands are only listed."""
    import tyro

    kinds = []
    for name, (_, summary) in COMMANDS.items():
        config = module.Config if name == asked else dataclasses.make_dataclass(name, [])
        about = f"{summary}\n\n{module.__doc__}" if name == asked else summary
        kinds.append(Annotated[config, tyro.conf.subcommand(name, description=about)])
    return tyro.cli(Union[tuple(kinds)], prog="purecc4", description=__doc__.splitlines()[0], args=args)  # noqa: UP007


if __name__ == "__main__":
    main()
