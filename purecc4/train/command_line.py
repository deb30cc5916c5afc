"""Command line of a file in `algos/`: flags from its Config; with --resume, defaults from the run folder."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import tyro
from pydantic import TypeAdapter, ValidationError

from purecc4 import command
from purecc4.errors import UserError
from purecc4.train import checkpoint, devices, loop
from purecc4.train.run_reader import FREE_TO_CHANGE, SINCE_ALWAYS, read_config
from purecc4.train.runs import MakeTrain
from purecc4.train.settings import Settings


def main(config_class: type[Settings], make_train: MakeTrain) -> None:
    """Train with the settings of the command line."""
    command.run(f"{config_class.algorithm}.py", partial(run, config_class, make_train))


def run(config_class: type[Settings], make_train: MakeTrain) -> None:
    """Read the settings, choose devices, and train."""
    devices.fix_options()
    devices.use_compile_cache()
    config = parse(config_class, sys.argv[1:])
    if config.distributed:
        with devices.job():
            start(config, make_train)
    else:
        devices.use_cores(len(config.runs))
        start(config, make_train)


def start(config: Settings, make_train: MakeTrain) -> None:
    """Choose the precision and train."""
    if hasattr(config, "precision"):
        config = dataclasses.replace(config, precision=devices.precision(config.precision))
    loop.train(config, make_train)


def parse(config_class: type[Settings], args: list[str]) -> Settings:
    """Settings from the command line; with --resume, omitted ones are those of the started run.

    Raises UserError for invalid settings, and for settings that a resumed run cannot change.
    """
    command.refuse_repeated(args)
    config = tyro.cli(config_class, args=args)
    if config.resume:
        saved = saved_config(config_class, config.folder)
        default = dataclasses.replace(saved, name=config.name, resume=True)
        config = tyro.cli(config_class, args=args, default=default)
        for field in dataclasses.fields(config):
            now, then = getattr(config, field.name), getattr(saved, field.name)
            if field.name not in FREE_TO_CHANGE and now != then:
                raise UserError(f"{config.folder} was started with {field.name} = {then}; leave it out to resume.")
    config = config.resolved()
    config.check()
    return config


def saved_config(config_class: type[Settings], folder: Path) -> Settings:
    """Settings that a run was started with. Raises UserError unless this version of the algorithm started it."""
    if not (folder / checkpoint.CONFIG).exists():
        if (folder / checkpoint.STATE).exists():
            raise UserError(f"{folder} cannot be resumed: {folder / checkpoint.CONFIG} is missing.")
        raise UserError(f"there is nothing to resume in {folder}: start without --resume.")
    started, saved = read_config(folder)
    names = {field.name for field in dataclasses.fields(config_class)}
    fields = {name: x for name, x in saved.items() if name in names or name not in SINCE_ALWAYS}
    if started != config_class.algorithm or set(fields) != names:
        raise UserError(f"{folder} was started by {started}.py, possibly of another version: resume it with the same.")
    try:
        config = TypeAdapter(config_class).validate_json(json.dumps(fields), strict=True)
        config.check()
        return config
    except UserError as error:
        raise UserError(f"{folder / checkpoint.CONFIG} is damaged: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"]
        raise UserError(f"{folder / checkpoint.CONFIG} is damaged: {where}: {what[0].lower()}{what[1:]}.") from error
