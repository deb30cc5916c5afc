"""Every command but training: `purecc4 COMMAND`, or `python -m purecc4 COMMAND`.

A command's module is imported only when that command is asked for, so that `purecc4 --help` starts no JAX. Nothing but
the standard library is imported before signals are taken care of.
"""

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Annotated, Any, Union

from purecc4 import command

COMMANDS = {
    "evaluate": ("purecc4.play.evaluate", "Play checkpoints against every red: a table with a row per episode."),
    "verify": ("purecc4.play.verify", "Play episodes of a table again: do the networks still give its returns?"),
    "nudge": ("purecc4.play.nudge", "Is a policy at its best? Play it with one kind of action likelier or rarer."),
    "report": ("purecc4.report.report", "Verdicts, intervals, figures and tables from evaluated run folders."),
    "compare": ("purecc4.report.compare", "Run folders of any algorithms side by side at equal env steps."),
    "watch": ("purecc4.play.watch", "One episode as a page for the browser."),
    "arms": ("purecc4.arms.show", "Print every arm: what its banks hold."),
    "export": ("purecc4.cyborg.export", "A policy as NumPy, and as a submission to the challenge."),
    "transfer": ("purecc4.cyborg.transfer", "The same policy in CybORG and here, with an equivalence test."),
    "track": ("purecc4.train.track", "Send the metrics of a run folder to Weights & Biases or trackio."),
    "replay": ("purecc4.parity.replay", "Replay recorded CybORG episodes and compare every step."),
    "distribution": ("purecc4.parity.distribution", "Compare free play with recorded CybORG episodes, statistically."),
    "one-step": ("purecc4.parity.one_step", "Compare single recorded CybORG steps with sampled ones, statistically."),
    "bench": ("purecc4.bench.bench", "Every figure of speed and size, on this machine or for a card."),
}
"""By name: the module, with its settings `Config` and a function `run` of them, and what the command does."""


def main() -> None:
    """Run the command that the command line asks for."""
    command.run(" ".join(["purecc4", *sys.argv[1:2]]), run)


def run() -> None:
    """Import the command's module, read its settings and do it."""
    name = next(iter(sys.argv[1:]), "")
    with command.handled_by(command.leave):
        module = importlib.import_module(COMMANDS[name][0]) if name in COMMANDS else None
    config = parse(sys.argv[1:], name, module)
    module.run(config)


def parse(args: list[str], asked: str, module: ModuleType | None) -> Any:
    """Settings of the command `asked`, which lies in `module`; of all others no more than their names is known."""
    import tyro

    kinds = []
    for name, (_, summary) in COMMANDS.items():
        config = module.Config if name == asked else dataclasses.make_dataclass(name, [])
        about = f"{summary}\n\n{module.__doc__}" if name == asked else summary
        kinds.append(Annotated[config, tyro.conf.subcommand(name, description=about)])
    return tyro.cli(Union[tuple(kinds)], prog="purecc4", description=__doc__.splitlines()[0], args=args)  # noqa: UP007


if __name__ == "__main__":
    main()
