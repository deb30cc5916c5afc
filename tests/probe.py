"""A probe environment with a known answer, for `algos/ippo.py`.

Two agents, each shown its own colour, 0 or 1. Two steps; only in the last is there a reward, the number of agents that
choose their own colour. Action 2 would pay far more but is masked. So: play the colour in the last step, and a first
observation is worth gamma times a last one. Arms differ in what they add to each reward.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from algos.ippo import Config
from purecc4.training import Env

NUM_STEPS, NUM_BLUE, NUM_ACTIONS = 2, 2, 3
CONFIG = Config(
    arm=("plain", "bonus"),
    seeds=(7, 8),
    num_envs=16,
    num_steps=NUM_STEPS,
    total_timesteps=10 * 16 * NUM_STEPS,
    num_minibatches=4,
    checkpoint_every=3,
    hidden=16,
    gamma=0.5,
    learning_rate=5e-3,
)
ARMS = {"bonus": jnp.array([0.0, 1.0])}


class Observation(NamedTuple):
    vector: UInt8[Array, "blue obs"]
    mask: Bool[Array, "blue action"]


class State(NamedTuple):
    colour: Int[Array, "blue"]
    step: Int[Array, ""]
    bonus: Float[Array, ""]


def observe(state: State) -> Observation:
    """Colour and step, one-hot; action 2 is masked."""
    step = jnp.broadcast_to(jax.nn.one_hot(state.step, NUM_STEPS), (NUM_BLUE, NUM_STEPS))
    vector = jnp.concatenate([jax.nn.one_hot(state.colour, 2), step], 1).astype(jnp.uint8)
    return Observation(vector, jnp.broadcast_to(jnp.arange(NUM_ACTIONS) < 2, (NUM_BLUE, NUM_ACTIONS)))


def reset(key, arm):
    """Draw the colours."""
    state = State(jax.random.randint(key, (NUM_BLUE,), 0, 2), jnp.int32(0), arm["bonus"])
    return observe(state), state


def step(key, state, action):
    """Draw new colours, unseen by the reward of this step."""
    right = jnp.where(action == 2, 10.0, action == state.colour).sum()
    reward = jnp.where(state.step == NUM_STEPS - 1, right, 0.0) + state.bonus
    parts = {part: jnp.where(part == "lwf", reward, 0.0) for part in ("lwf", "asf", "ria", "cost")}
    state = State(jax.random.randint(key, (NUM_BLUE,), 0, 2), state.step + 1, state.bonus)
    return observe(state), state, reward, parts


ENV = Env(reset, step)
