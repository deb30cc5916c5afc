"""Probe environments with known solutions, and configurations of the algorithms for them.

Two agents each see their own colour, 0 or 1, resampled every step. The reward, in the last step only, is the number of
agents that choose their own colour. Action 2 would pay far more but is masked. The optimal policy plays the colour in
the last step, and a first observation is worth gamma times a last one. Arms differ in a bonus added to each reward.
"""

import csv
import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Int, UInt8

from purecc4.algos import ippo, ippo_rnn, mappo
from purecc4.play import selection
from purecc4.train import command_line, loop, runs
from purecc4.train.settings import Settings

NUM_STEPS, NUM_BLUE, NUM_ACTIONS = 2, 2, 3
ALGORITHMS = ippo, ippo_rnn, mappo
CONFIG = ippo.Config(
    arm=("plain", "bonus"),
    seeds=(7, 8),
    num_envs=16,
    num_steps=NUM_STEPS,
    total_timesteps=10 * 16 * NUM_STEPS,
    num_minibatches=4,
    checkpoint_every=3,
    hidden=16,
    precision="float32",
    gamma=0.5,
    learning_rate=2e-3,
)
CONFIGS = {
    ippo: CONFIG,
    ippo_rnn: ippo_rnn.Config(**dataclasses.asdict(CONFIG), memory=16, sequence_length=1),
    mappo: mappo.Config(**dataclasses.asdict(CONFIG)),
}
EVERY = pytest.mark.parametrize(
    "algorithm",
    [ippo, *(pytest.param(other, marks=pytest.mark.slow) for other in (ippo_rnn, mappo))],
    ids=[algorithm.Config.algorithm for algorithm in ALGORITHMS],
    indirect=True,
)
ARMS = {"bonus": jnp.array([0.0, 1.0])}


class Observation(NamedTuple):
    flat: UInt8[Array, "blue obs"]
    mask: Bool[Array, "blue action"]


class State(NamedTuple):
    colour: Int[Array, "blue"]
    step: Int[Array, ""]
    bonus: Float[Array, ""]


class Env(NamedTuple):
    """As `purecc4.arms.env.Env`."""

    reset: Callable
    step: Callable
    one_zone: tuple[int, int]
    arms: dict[str, Float[Array, "arm"]] = ARMS


def make(num_steps: int = NUM_STEPS, shown_once: bool = False) -> Env:
    """The probe; with `shown_once` the colours of the first step stay, but are not shown again."""

    def observe(state):
        """Colour and step, one-hot; action 2 is masked."""
        step = jnp.broadcast_to(jax.nn.one_hot(state.step, num_steps), (NUM_BLUE, num_steps))
        colour = jax.nn.one_hot(state.colour, 2) * ((state.step == 0) | (not shown_once))
        vector = jnp.concatenate([colour, step], 1).astype(jnp.uint8)
        return Observation(vector, jnp.broadcast_to(jnp.arange(NUM_ACTIONS) < 2, (NUM_BLUE, NUM_ACTIONS)))

    def reset(key, arm):
        """Draw the colours."""
        state = State(jax.random.randint(key, (NUM_BLUE,), 0, 2), jnp.int32(0), arm["bonus"])
        return observe(state), state

    def step(key, state, action):
        """Draw new colours, unseen by the reward of this step."""
        right = jnp.where(action == 2, 10.0, action == state.colour).sum()
        reward = jnp.where(state.step == num_steps - 1, right, 0.0) + state.bonus
        parts = {part: jnp.where(part == "lwf", reward, 0.0) for part in ("lwf", "asf", "ria", "cost", "overflow")}
        colour = state.colour if shown_once else jax.random.randint(key, (NUM_BLUE,), 0, 2)
        state = State(colour, state.step + 1, state.bonus)
        return observe(state), state, reward, state.step == num_steps, parts

    return Env(reset, step, (2 + num_steps, NUM_ACTIONS))


ENV = make()


def start(algorithm, config: Settings, env: Env = ENV) -> tuple:
    """(arms, runners) of all runs before their first update."""
    return runs.map_over_runs(config, algorithm.make_train, env).start()


def filled(function: Callable, *args, scale: float = 0.5, **kw):
    """The shapes that `function` returns, with normal numbers of this scale for floats and zeros for the rest.

    It compiles nothing, and a network's outputs depend on all of its inputs.
    """
    random = np.random.default_rng(0)

    def fill(like):
        floats = jnp.issubdtype(like.dtype, jnp.floating)
        return jnp.asarray(scale * random.normal(size=like.shape) if floats else np.zeros(like.shape), like.dtype)

    return jax.tree.map(fill, eqx.filter_eval_shape(function, *args, **kw))


def network(algorithm, scale: float = 0.5, **sizes):
    """A network of an algorithm's, with random weights."""
    return filled(algorithm.ActorCritic, jax.random.key(0), scale=scale, **sizes)


def one_run(algorithm, config: Settings, env: Env) -> tuple:
    """(arm without bonus, runner with random weights) of one run before its first update."""
    arm = {"bonus": jnp.float32(0)}
    runner = filled(partial(algorithm.init, config, env), jnp.uint32(0))
    optimiser = jax.tree.map(jnp.zeros_like, runner.opt_state)
    return arm, dataclasses.replace(runner, opt_state=optimiser, reward_stats=algorithm.RunningMeanVar())


def train(name: str, env: Env = ENV, algorithm=ippo, **changes) -> Path:
    """Train the probe runs in the current folder and return the run folder."""
    config = dataclasses.replace(CONFIGS[algorithm], name=name, **changes)
    loop.train(config, algorithm.make_train, env)
    return config.folder


SMALL = "--num-envs 2 --num-steps 20 --num-minibatches 4 --hidden 32"
TINY = f"{SMALL} --total-timesteps 120"
"""A run of CC4 in seconds."""


def script(algorithm, *args: str) -> str | int | None:
    """Run an algorithm's script in this process. Returns its message when it refuses, else None."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{algorithm.Config.algorithm}.py", *" ".join(args).split()])
        try:
            command_line.main(algorithm.Config, algorithm.make_train)
        except SystemExit as refusal:
            return refusal.code


def loss_by_hand(ratio, advantage, value, target, entropy) -> np.floating:
    """PPO's loss with clip range 0.2, half the squared error times 0.5 and entropy times 0.01."""
    normal = (advantage - np.mean(advantage)) / np.std(advantage)
    surrogate = np.minimum(ratio * normal, np.clip(ratio, 0.8, 1.2) * normal).mean()
    return -surrogate + 0.25 * np.mean((np.asarray(value) - target) ** 2) - 0.01 * np.mean(entropy)


def shaken(network):
    """The network with larger weights, so that it has preferences of its own."""
    leaves, tree = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.2 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)])


def rows(folder: Path) -> list[dict[str, str]]:
    """The metrics table without the column that tells time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: x for name, x in row.items() if name != "sps"} for row in csv.DictReader(file)]


def env_steps_saved(folder: Path, arm: str, seed: int) -> list[int]:
    """Env steps of the checkpoints of a run, ascending."""
    return [saved.env_steps for saved in selection.choose(folder, (arm,), (seed,), ("all",))]


def assert_equal(first, second):
    """Both trees have the same arrays, bit by bit."""
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)
