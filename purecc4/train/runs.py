"""Runs of one algorithm: `init` and `update` of one run, mapped over arms, tunables and seeds in one program."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, PyTree

from purecc4.arms import build
from purecc4.arms.env import ArmEnv
from purecc4.train import definitions, devices
from purecc4.train.settings import Settings

Metrics = dict[str, Float[Array, "*axes"]]


class Algorithm(NamedTuple):
    """One run of an algorithm, a run being one arm with one seed: the result of `make_train` of a file in `algos/`."""

    init: Callable[[Any], Any]
    """(seed, a uint32) -> runner before the first update. A runner has `network`, `seed` and `update`, the number of
    updates done."""
    update: Callable[[PyTree, Any], tuple[Any, Metrics]]
    """(arm, runner) -> (runner, metrics): one update. The metrics are those of `run_writer.LOGS`."""
    env: Any
    """The environment; `env.arms` are the arms to train, stacked on a leading axis."""


MakeTrain = Callable[..., Algorithm]
"""(config, env) -> Algorithm: `make_train` of a file in `algos/`. Without `env` it makes one."""


class Task(NamedTuple):
    """The data of a run, besides its seed."""

    arm: PyTree
    swept: dict[str, Float[Array, "*run"]]
    """Values of the swept tunables by name."""


class Training(NamedTuple):
    """All runs of an algorithm, in the order of `Settings.runs`."""

    start: Callable[[], tuple[Task, Any]]
    """() -> tasks [run] and runners [run] before the first update."""
    update: Callable[[Task, Any], tuple[Any, Metrics]]
    """(task, runner) -> (runner, metrics): one update of one run."""
    train: jax.stages.Wrapped
    """(tasks [run], runners [run], num_updates) -> runners [run], metrics [run, update]. Jitted; donates runners."""


def make_env(config: Settings, observation: str = "flat") -> ArmEnv:
    """The game `config.game` against `config.red` with the arms `config.arm`, built in or of `--define` or the folder.

    `observation` is one of cc4.OBSERVATIONS.
    """
    own = definitions.load_to_train(config.define, config.folder)
    params = own.params(own.match(config.red, config.game), config.num_steps, observation)
    return ArmEnv(params, build(config.arm, own.arms, config.num_steps))


def map_over_runs(config: Settings, make_train: MakeTrain, env: Any = None) -> Training:
    """Train every variant with every seed in one program; `env` replaces CC4.

    Swept tunables are data. The others are constants of the program, which is then that of a training without a sweep.
    """
    env = make_train(config, env).env

    def with_tunables(swept: dict[str, Float[Array, ""]]) -> Algorithm:
        return make_train(config.with_tunables(swept), env)

    def start() -> tuple[Task, Any]:
        times = len(config.seeds)
        values = [variant.tunables for variant in config.variants]
        swept = {name: jnp.repeat(jnp.float32([x[name] for x in values]), times) for name in config.swept}
        arm = jax.tree.map(lambda x: jnp.repeat(x, len(config.runs) // len(config.arm), 0), env.arms)
        seed = jnp.tile(jnp.array(config.seeds, jnp.uint32), len(values))
        init = partial(jax.lax.map, lambda run: with_tunables(run[0]).init(run[1]))
        return Task(arm, swept), jax.jit(init)((swept, seed))

    def update(task: Task, runner: Any) -> tuple[Any, Metrics]:
        return keep_finite(with_tunables(task.swept).update)(task.arm, runner)

    @partial(jax.jit, static_argnames="num_updates", donate_argnames="runner")
    def train(task: Task, runner: Any, num_updates: int) -> tuple[Any, Metrics]:
        def one_run(task, runner):
            return jax.lax.scan(lambda runner, _: update(task, runner), runner, length=num_updates)

        return over_runs(one_run, devices.run_sharding())(task, runner)

    return Training(start, update, train)


def keep_finite(update: Callable) -> Callable:
    """An update that returns the runner unchanged if its loss, gradient norm or any of its arrays is non-finite."""

    def finite_update(arm, runner):
        learned, metrics = update(arm, runner)
        finite = [jnp.isfinite(x).all() for x in (metrics["loss"], metrics["grad_norm"], *jax.tree.leaves(learned))]
        good = jnp.stack(finite).all()
        return jax.tree.map(partial(jnp.where, good), learned, runner), metrics

    return finite_update


def over_runs(function: Callable, sharding: NamedSharding) -> Callable:
    """Map a function of one run over all runs. Devices share the runs and exchange no data.

    An accelerator computes its runs as a batch (`jax.vmap`). A CPU computes them one after another (`jax.lax.map`):
    that is as fast, needs the memory of one run, and is bitwise identical to a solo run, as batched matrix products are
    not.
    """

    def in_turn(*args):
        return jax.lax.map(lambda one: function(*one), args)

    many = in_turn if jax.default_backend() == "cpu" else jax.vmap(function)
    return jax.shard_map(many, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False)
