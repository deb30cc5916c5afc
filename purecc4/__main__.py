"""All commands except training: `purecc4 COMMAND`, or `python -m purecc4 COMMAND`.

A command's module is imported only when the command runs, so `purecc4 --help` does not initialise JAX. Only the
standard library is imported before the signal handlers are set.
"""

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Annotated, Any, Union

from purecc4 import command
from purecc4.command import refuse_repeated

COMMANDS = {
    "evaluate": ("purecc4.play.evaluate", "Evaluate checkpoints against every red: a table with a row per episode."),
    "verify": ("purecc4.play.verify", "Replay episodes of an evaluation table and compare the returns."),
    "nudge": ("purecc4.play.nudge", "Sweep a logit bias on one action type to test for local optimality."),
    "report": ("purecc4.report.report", "Verdicts, intervals, figures and tables from evaluated run folders."),
    "compare": ("purecc4.report.compare", "Compare run folders of any algorithms at equal env steps."),
    "watch": ("purecc4.play.watch", "Write one episode as an HTML page with its network and events."),
    "arms": ("purecc4.arms.show", "Print every arm with the contents of its banks."),
    "export": ("purecc4.cyborg.export", "Export a policy to NumPy, as a submission to the challenge."),
    "transfer": ("purecc4.cyborg.transfer", "Test whether a policy scores the same in CybORG and here."),
    "leaderboard": ("purecc4.cyborg.leaderboard", "Play every policy of the leaderboard in CybORG."),
    "track": ("purecc4.train.track", "Send the metrics of a run folder to Weights & Biases or trackio."),
    "replay": ("purecc4.parity.replay", "Replay recorded CybORG episodes and compare every step."),
    "distribution": ("purecc4.parity.distribution", "Compare free play with recorded CybORG episodes, statistically."),
    "one-step": ("purecc4.parity.one_step", "Compare single recorded CybORG steps with sampled ones, statistically."),
    "bench": ("purecc4.bench.bench", "Measure speed and size, on this machine or compiled for a GPU you do not have."),
}
"""By name: the module, which defines `Config` and `run(config)`, and a summary of the command."""


def main() -> None:
    """Run the command that the command line names."""
    command.run(" ".join(["purecc4", *sys.argv[1:2]]), run)


def run() -> None:
    """Import the command's module, parse its settings and run it."""
    name = next(iter(sys.argv[1:]), "")
    with command.handled_by(command.leave):
        module = importlib.import_module(COMMANDS[name][0]) if name in COMMANDS else None
        devices = importlib.import_module("purecc4.train.devices") if module else None
    config = parse(sys.argv[1:], name, module)
    devices.fix_options()
    module.run(config)


def parse(args: list[str], asked: str, module: ModuleType | None) -> Any:
    """Parse the settings of the command `asked`, defined in `module`. Other commands only appear by name."""
    import tyro

    refuse_repeated(args)
    kinds = []
    for name, (_, summary) in COMMANDS.items():
        config = module.Config if name == asked else dataclasses.make_dataclass(name, [])
        about = f"{summary}\n\n{module.__doc__ or ''}" if name == asked else summary
        kinds.append(Annotated[config, tyro.conf.subcommand(name, description=about)])
    return tyro.cli(Union[tuple(kinds)], prog="purecc4", description=(__doc__ or "\n").splitlines()[0], args=args)  # noqa: UP007


if __name__ == "__main__":
    main()
