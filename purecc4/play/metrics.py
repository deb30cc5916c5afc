"""Operational metrics of an episode: infections, recovery, Restores, removed sessions, decoy hits and Impacts.

docs/cli.md defines the METRICS. Hosts are those of the seven zones that blue agents own. States are compared before
and after each step, so a session that starts and ends within one step does not count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16, Int32, UInt32

from purecc4.envs import cc4
from purecc4.envs.cc4.actions import decode
from purecc4.envs.cc4.constants import NUM_HOSTS, NUM_ZONES, BlueAction, Subnet
from purecc4.envs.cc4.layout import holds, unpack
from purecc4.envs.cc4.sessions import held_hosts

METRICS = (
    "clean_hosts",
    "infections",
    "recovery_steps",
    "restores_infected",
    "restores_clean",
    "removed_sessions",
    "decoy_hits",
    "impacts",
)
"""Names of the metrics, columns of the evaluation table."""
_OWN = np.where(np.arange(NUM_ZONES) == Subnet.CON, 0, 0xFFFF).astype(np.uint32)


class Tally(NamedTuple):
    """Running counts of an episode."""

    clean: Float[Array, ""]
    """Share of clean hosts, summed over the steps."""
    counts: Int32[Array, "6"]
    """The metrics that are counts, in the order of METRICS."""
    since: Int16[Array, "host"]
    """Step of the last infection of each host."""
    lasted: Int32[Array, "duration"]
    """Number of infections that have ended, by their steps."""


def begin(num_steps: int) -> Tally:
    """An empty tally of an episode of `num_steps` steps."""
    return Tally(
        clean=jnp.float32(0),
        counts=jnp.zeros(len(METRICS) - 2, jnp.int32),
        since=jnp.zeros(NUM_HOSTS, jnp.int16),
        lasted=jnp.zeros(num_steps + 1, jnp.int32),
    )


def add(tally: Tally, before: cc4.State, after: cc4.State, info: cc4.Info) -> Tally:
    """Add a step. `before` and `after` are the states around it."""
    was, now = (infected(state) for state in (before, after))
    new, target, kind = now & ~was, decode(after.blue.action.astype(jnp.int32)).host.astype(jnp.int32), info.executed
    was_infected, is_infected = (holds(hosts, target) for hosts in (was, now))
    ended = ((kind == BlueAction.REMOVE) | (kind == BlueAction.RESTORE)) & was_infected & ~is_infected
    restored = kind == BlueAction.RESTORE
    removed = jnp.where(kind == BlueAction.REMOVE, info.killed, 0)
    counts = [
        _size(new),
        (restored & was_infected).sum(),
        (restored & ~was_infected).sum(),
        removed.sum(),
        info.decoy_hits,
        info.impacts,
    ]
    step, length = after.step, len(tally.lasted)
    duration = jnp.where(ended, step - tally.since.at[target].get(mode="clip"), length)
    return Tally(
        clean=tally.clean + 1 - _size(now) / jnp.maximum(_size(before.network.exists & _OWN), 1),
        counts=tally.counts + jnp.stack(counts).astype(jnp.int32),
        since=jnp.where(unpack(new).reshape(-1), step.astype(jnp.int16), tally.since),
        lasted=tally.lasted.at[duration].add(1, mode="drop"),
    )


def summarise(tally: Tally, last: cc4.State) -> Float[Array, "metric"]:
    """METRICS of an episode that ended in the state `last`. `recovery_steps` is NaN without infections."""
    open_for = jnp.where(unpack(infected(last)).reshape(-1), last.step - tally.since, len(tally.lasted))
    median = _median(tally.lasted.at[open_for].add(1, mode="drop"))
    infections, *others = tally.counts.astype(jnp.float32)
    return jnp.stack([tally.clean / jnp.maximum(last.step, 1), infections, median, *others])


def infected(state: cc4.State) -> UInt32[Array, "zone"]:
    """The own hosts with a red session, as a set of hosts."""
    return held_hosts(state.sessions) & _OWN


def _size(hosts: UInt32[Array, "zone"]) -> Int32[Array, ""]:
    """Number of hosts in a set."""
    return jax.lax.population_count(hosts).sum(dtype=jnp.int32)


def _median(counts: Int32[Array, "duration"]) -> Float[Array, ""]:
    """Median of a histogram of durations; NaN if it is empty."""
    twice, total = 2 * counts.cumsum(), counts.sum()
    middle = (twice >= total).argmax() + (twice > total).argmax()
    return jnp.where(total > 0, middle / 2, jnp.nan).astype(jnp.float32)
