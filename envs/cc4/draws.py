"""Every random number of one step, in one named block.

All are uniforms on [0, 1). Who chooses among candidates by *score* takes the candidate with the highest one; who
chooses by *place* takes candidate `floor(u * n)` of n; an event of probability p happens if `u < p`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Integer, PRNGKeyArray, UInt16

from .constants import (
    MAX_PID_STEP,
    MAX_RECREATED,
    NUM_BLUE,
    NUM_DECOYS,
    NUM_GREEN,
    NUM_RED,
    NUM_ZONES,
    Exploit,
)


class Draws(eqx.Module):
    """The uniforms of one step, by what they decide."""

    # red and green choose
    red_state: Float[Array, "red"]
    """Which state to pick a host from (only policies with state weights), in proportion to the weights."""
    red_server: Float[Array, "red"]
    """Whether to prefer servers (only policies that do)."""
    red_host: Float[Array, "red"]
    """Place among the eligible hosts."""
    red_action: Float[Array, "red"]
    """Against the running sum of the action probabilities."""
    red_session: Float[Array, "red"]
    """Place among the known session ids, ascending."""
    red_subnet: Float[Array, "red"]
    """Place among the known subnets."""
    green_action: Float[Array, "green"]
    """Place among access, work, sleep."""
    green_outcome: Float[Array, "green"]
    """Access: place among the allowed servers. Work: fails below the share of lost reliability."""
    # green acts
    green_alarm: Float[Array, "green"]
    """A false alarm below its rate."""
    green_phishing: Float[Array, "green"]
    """A phishing mail is opened below its rate; where below the rate gives the new pid."""
    sponsor: Float[Array, "zone"]
    """Which red agent gets a phished session in a subnet that red does not hold."""
    # blue acts
    decoy: Float[Array, "decoy blue"]
    """Scores of the decoy kinds."""
    decoy_pid: Float[Array, "blue"]
    recreated_pid: Float[Array, "recreated blue"]
    """Pids of the decoys that Remove kills and that come back, in order."""
    # red acts
    exploit: Float[Array, "exploit red"]
    """Scores of the exploits."""
    escalate: Float[Array, "red"]
    """Place among the agent's sessions on the host, by ascending id."""
    detection: Float[Array, "red"]
    """Scan or SQL injection: an alert below the rate."""
    source_detection: Float[Array, "red"]
    """SSH brute force: an alert on the attacker's own host below the rate."""
    session_pid: Float[Array, "red"]
    primary: Float[Array, "red"]
    """New session 0: place among the agent's ids, ascending."""


_SHAPES = {
    **dict.fromkeys(("red_state", "red_server", "red_host", "red_action", "red_session", "red_subnet"), (NUM_RED,)),
    **dict.fromkeys(("green_action", "green_outcome", "green_alarm", "green_phishing"), (NUM_GREEN,)),
    "sponsor": (NUM_ZONES,),
    "decoy": (NUM_DECOYS, NUM_BLUE),
    "decoy_pid": (NUM_BLUE,),
    "recreated_pid": (MAX_RECREATED, NUM_BLUE),
    "exploit": (len(Exploit), NUM_RED),
    **dict.fromkeys(("escalate", "detection", "source_detection", "session_pid", "primary"), (NUM_RED,)),
}
_SIZES = {name: math.prod(shape) for name, shape in _SHAPES.items()}
NUM_DRAWS = sum(_SIZES.values())


def cut(block: Float[Array, " draws"]) -> Draws:
    """Name the parts of one block of NUM_DRAWS uniforms."""
    fields, start = {}, 0
    for name, shape in _SHAPES.items():
        fields[name] = block[start : start + _SIZES[name]].reshape(shape)
        start += _SIZES[name]
    return Draws(**fields)


def sample(key: PRNGKeyArray) -> Draws:
    """Draw everything that one step needs, as one block."""
    return cut(jax.random.uniform(key, (NUM_DRAWS,)))


def sample_index(u: Float[Array, "*n"], count: Integer[Array, "..."] | int) -> Int32[Array, "*n"]:
    """A uniform choice among `count` places, floor(u * count); -1 if there are none."""
    return jnp.minimum((u * count).astype(jnp.int32), count - 1)


def pid_step(u: Float[Array, "*n"]) -> UInt16[Array, "*n"]:
    """How far a new pid lies above the host's largest one (`Host.py:create_pid`)."""
    return (1 + u * MAX_PID_STEP).astype(jnp.uint16)


def highest(candidates: Bool[Array, "k *n"], scores: Float[Array, "k *n"]) -> Bool[Array, "k *n"]:
    """A uniform choice among the candidates of axis 0: marks the one with the highest score, none if there is none."""
    scores = jnp.where(candidates, scores, -1)
    best = candidates & (scores == scores.max(axis=0))
    taken, marks = jnp.zeros_like(best[0]), []
    for row in best:
        marks.append(row & ~taken)
        taken = taken | row
    return jnp.stack(marks)
