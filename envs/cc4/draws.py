"""Every random number of one step, in one named block.

All are uniforms on [0, 1). A choice by *score* takes the candidate with the highest uniform. A choice by *index* takes
candidate `floor(u * n)` of n. An event of probability p happens if `u < p`.
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
    """The uniforms of one step, named for what they decide."""

    # red and green choose
    red_state: Float[Array, "red"]
    """State to choose a host from, by weight (only policies with state weights)."""
    red_server: Float[Array, "red"]
    """Preference for servers (only policies with one)."""
    red_host: Float[Array, "red"]
    """Index among the eligible hosts."""
    red_action: Float[Array, "red"]
    """Compared with the cumulative action probabilities."""
    red_session: Float[Array, "red"]
    """Index among the known session ids, ascending."""
    red_subnet: Float[Array, "red"]
    """Index among the known subnets."""
    green_action: Float[Array, "green"]
    """Index among access, work, sleep."""
    green_outcome: Float[Array, "green"]
    """Access: index among the allowed servers. Work: fails below the share of lost reliability."""
    # green acts
    green_alarm: Float[Array, "green"]
    """A false alarm below its rate."""
    green_phishing: Float[Array, "green"]
    """A phishing mail is opened below its rate; divided by the rate, it gives the new pid."""
    sponsor: Float[Array, "zone"]
    """Red agent that gets a phished session in a subnet without red sessions."""
    # blue acts
    decoy: Float[Array, "decoy blue"]
    """Scores of the decoy kinds."""
    decoy_pid: Float[Array, "blue"]
    recreated_pid: Float[Array, "recreated blue"]
    """Pids of the decoys that Remove kills and that restart, in order."""
    # red acts
    exploit: Float[Array, "exploit red"]
    """Scores of the exploits."""
    escalate: Float[Array, "red"]
    """Index among the agent's sessions on the host, by ascending id."""
    detection: Float[Array, "red"]
    """Scan or SQL injection: an alert below the rate."""
    source_detection: Float[Array, "red"]
    """SSH brute force: the attacker's own host raises an alert below the rate. The rest of it decides about routers."""
    session_pid: Float[Array, "red"]
    primary: Float[Array, "red"]
    """New session 0: index among the agent's ids, ascending."""


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
    """Split one block of NUM_DRAWS uniforms into its named parts."""
    fields = {}
    start = 0
    for name, shape in _SHAPES.items():
        fields[name] = block[start : start + _SIZES[name]].reshape(shape)
        start += _SIZES[name]
    return Draws(**fields)


def sample(key: PRNGKeyArray) -> Draws:
    """Sample the random numbers of one step."""
    return cut(jax.random.uniform(key, (NUM_DRAWS,)))


def sample_index(u: Float[Array, "*n"], count: Integer[Array, "..."] | int) -> Int32[Array, "*n"]:
    """A uniform index below `count`: floor(u * count), or -1 if `count` is 0."""
    return jnp.minimum((u * count).astype(jnp.int32), count - 1)


def pid_step(u: Float[Array, "*n"]) -> UInt16[Array, "*n"]:
    """Increment of a new pid over the host's largest one, 1 to MAX_PID_STEP (`Host.py:create_pid`)."""
    return (1 + u * MAX_PID_STEP).astype(jnp.uint16)


def highest(candidates: Bool[Array, "k *n"], scores: Float[Array, "k *n"]) -> Bool[Array, "k *n"]:
    """A uniform choice along axis 0: marks the candidate with the highest score, or nothing without a candidate."""
    scores = jnp.where(candidates, scores, -1)
    best = candidates & (scores == scores.max(axis=0))
    taken = jnp.zeros_like(best[0])
    marks = []
    for row in best:
        marks.append(row & ~taken)
        taken = taken | row
    return jnp.stack(marks)
