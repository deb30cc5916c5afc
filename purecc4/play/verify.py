"""Do the networks of a folder still give its returns? `purecc4 verify FOLDER` plays episodes of its table again.

An episode is known by the evaluation seed and its number, so on the machine that played it the return is the same. On
another machine products may be rounded otherwise, and once in a while another action is drawn: from there on that
episode goes its own way, for better as often as for worse. So single episodes may differ, but the mean of a policy may
not differ by more than chance allows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float

from purecc4.errors import UserError
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import saved
from purecc4.play.tables import BASELINE_SEED, MODES, Cell, Evaluation, read_evaluation
from purecc4.train import definitions, devices

MOST_ERRORS = 4
"""Standard errors by which a mean may differ; by chance one policy in 16,000 does so."""
EQUAL = 1e-3
"""Returns that differ by less are equal."""


@dataclass(frozen=True)
class Config:
    """Play episodes of an evaluation table again with the networks beside it, and compare the returns."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder with an evaluation table and networks."""
    arm: tuple[str, ...] = ()
    """Arms and scripts to check; default: all."""
    seeds: tuple[int, ...] = ()
    """Seeds that the arms were trained with; default: all."""
    episodes: int = 10
    """How many episodes of each policy against each red, the first of the table."""


def find_policies(config: Config, table: Evaluation) -> dict[Cell, Policy]:
    """The policies of the table, without a red, whose network the folder has, and its scripts. UserError if none."""
    networks = {each[:3]: each.path for each in saved(config.run)}
    found = {}
    for cell in dict.fromkeys(cell._replace(red="") for cell in table.cells):
        if (config.arm and cell.arm not in config.arm) or (config.seeds and cell.seed not in config.seeds):
            continue
        if cell.seed == BASELINE_SEED:
            found[cell] = scripted(cell.arm)
        elif cell[:3] in networks:
            found[cell] = trained(networks[cell[:3]], cell.mode == MODES[1])
    if not found:
        raise UserError(f"the table of {config.run} has no episodes of a network that is there and was asked for.")
    return found


def differences(config: Config, table: Evaluation, cell: Cell, policy: Policy) -> Float[np.ndarray, "red env"]:
    """Returns now less those of the table, of the first episodes of one policy."""
    settings = table.settings
    returns = {key.red: rows["return"].to_numpy() for key, rows in table.cells.items() if key._replace(red="") == cell}
    params = stack_params(list(returns), settings["num_steps"], definitions.load(None, config.run))
    numbers = jnp.arange(min(config.episodes, settings["episodes"]))
    values = build(settings["num_steps"])(policy, params, jnp.uint32(settings["eval_seed"]), numbers)
    return np.asarray(values)[:, :, 0] - np.stack(list(returns.values()))[:, : len(numbers)]


def verify(config: Config) -> list[str]:
    """One line for each policy that gives its returns again. UserError for the first that does not."""
    if config.episodes < 2:
        raise UserError("--episodes must be at least 2.")
    table, lines = read_evaluation([config.run]), []
    for cell, policy in find_policies(config, table).items():
        apart = differences(config, table, cell, policy).ravel()
        equal, mean, error = (np.abs(apart) < EQUAL).mean(), apart.mean(), apart.std() / len(apart) ** 0.5
        name = str(cell).replace(" against ", "")
        found = f"{name}: {equal:.0%} of {len(apart)} episodes are equal"
        if equal < 1:
            found += f", they differ by {mean:+.2f} in the mean"
            if abs(mean) > MOST_ERRORS * error:
                raise UserError(f"{found}, over {MOST_ERRORS} standard errors of {error:.2f}: this is another policy.")
        lines.append(found)
        print(found, flush=True)
    return lines


def run(config: Config) -> None:
    """Check all policies that were asked for."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    lines = verify(config)
    print(f"{len(lines)} policies give their returns again.")
