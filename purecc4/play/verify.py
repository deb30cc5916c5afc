"""Check that the networks of a folder reproduce its evaluation table: `purecc4 verify FOLDER`.

Episodes of the table are replayed from the evaluation seed and their number. On the same machine the returns are equal.
Another machine may round matrix products differently, so now and then another action is sampled and that episode
diverges, with equal chances of a better or worse return. The check is therefore on the means of each policy: none may
differ by more than chance allows. Not only the return is compared but every value of the table, above all the numbers
of actions by type, as policies of different seeds have similar returns.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float
from scipy import stats

from purecc4.errors import UserError
from purecc4.play.episodes import build, check_numbers, stack_params
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import saved
from purecc4.play.tables import BASELINE_SEED, MODES, VALUES, Cell, Evaluation, read_evaluation
from purecc4.train import definitions, devices

MOST_ERRORS = 4
"""Largest accepted difference of a mean return, in standard errors. By chance one policy in 16,000 exceeds it."""
LEVEL = 1e-4
"""Significance level of the test of all values of a policy together."""
LEAST_DEVIATION = 0.5
"""Smallest standard deviation of a difference that the test assumes."""
DIFFERENT = "this is a different policy"
EQUAL = 1e-3
"""Tolerance below which two returns are equal."""


@dataclass(frozen=True)
class Config:
    """Replay episodes of an evaluation table with the networks of its folder and compare the returns."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder with an evaluation table and networks."""
    arm: tuple[str, ...] = ()
    """Arms and scripts to check (default: all)."""
    seeds: tuple[int, ...] = ()
    """Training seeds to check (default: all)."""
    episodes: int = 10
    """Episodes per policy and red, from the start of the table."""


def find_policies(config: Config, table: Evaluation) -> dict[Cell, Policy]:
    """Find the scripts of the table, and its policies whose network exists, by cell without red.

    Raises UserError if there are none.
    """
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
        raise UserError(f"the table of {config.run} has no episodes of the selected networks: check --arm and --seeds.")
    return found


def differences(config: Config, table: Evaluation, cell: Cell, policy: Policy) -> Float[np.ndarray, "episode term"]:
    """Replayed values minus those in the table (tables.VALUES), for the first episodes of one policy.

    0 where a value is missing, as in older tables.
    """
    settings = table.settings
    known = {key.red: rows[list(VALUES)] for key, rows in table.cells.items() if key._replace(red="") == cell}
    params = stack_params(list(known), settings["num_steps"], definitions.load(None, config.run), policy.observation)
    numbers = jnp.arange(min(config.episodes, settings["episodes"]))
    values = build(settings["num_steps"])(policy, params, jnp.uint32(settings["eval_seed"]), numbers)
    apart = np.asarray(values, float) - np.stack([rows[: len(numbers)] for rows in known.values()])
    return np.nan_to_num(apart).reshape(-1, len(VALUES))


def refuse_different(found: str, apart: Float[np.ndarray, "episode term"]) -> None:
    """Raises UserError if a mean differs by more than chance allows.

    The mean return has a limit in standard errors. All values together have a t-test, Bonferroni-corrected.
    """
    mean, errors = apart.mean(axis=0), stats.sem(apart, ddof=0)
    if abs(mean[0]) > MOST_ERRORS * errors[0]:
        raise UserError(f"{found}, more than {MOST_ERRORS} standard errors of {errors[0]:.2f}: {DIFFERENT}.")
    # most values are counts: in a few episodes all may differ by the same small number
    errors = np.maximum(stats.sem(apart), LEAST_DEVIATION / len(apart) ** 0.5)
    p = 2 * len(VALUES) * stats.t.sf(np.abs(mean) / errors, len(apart) - 1)
    worst = int(p.argmin())
    if p[worst] < LEVEL:
        raise UserError(f"{found}, and of {VALUES[worst]} {mean[worst]:+.2f}: {DIFFERENT}.")


def verify(config: Config) -> list[str]:
    """Check all selected policies. Returns a line per policy. Raises UserError for the first that fails."""
    check_numbers(config.episodes, eval_seed=0, least=2)
    table, lines = read_evaluation([config.run]), []
    for cell, policy in find_policies(config, table).items():
        apart = differences(config, table, cell, policy)
        name = str(cell).replace(" against ", "")
        found = f"{name}: {(np.abs(apart[:, 0]) < EQUAL).mean():.0%} of {len(apart)} episodes are equal"
        if not (np.abs(apart) < EQUAL).all():
            found += f", mean difference {apart[:, 0].mean():+.2f}"
            refuse_different(found, apart)
        lines.append(found)
        print(found, flush=True)
    return lines


def run(config: Config) -> None:
    """Check the selected policies."""
    devices.use_compile_cache()
    devices.use_cores(config.episodes)
    lines = verify(config)
    print(f"Policies verified: {len(lines)}.")
