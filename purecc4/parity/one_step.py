"""Compare each recorded step of the reference simulator with several sampled steps from the same state.

An episode is replayed. From each of its states the next step is also sampled freely. If both simulators sample from the
same distributions, the recorded value of any measure minus the mean of the sampled ones has expectation zero. Diverging
episodes add no noise, since every step starts from a recorded state. Prints the gap of each reward part per episode,
and the most significant of some hundred measures: z-tests, Holm-corrected over all at 1 %. Exits 1 if a gap is
significant.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, PRNGKeyArray
from scipy import stats

from purecc4.envs import cc4
from purecc4.envs.cc4.constants import (
    GREEN_HOST,
    HOST_SUBNET,
    NO_HOST,
    NUM_RED,
    NUM_ZONES,
    OWN_TARGETS,
    SLOTS,
    SUBNET_NAMES,
    Decoy,
    Foreign,
    GreenAction,
    Knowledge,
    RedAction,
    Subnet,
)
from purecc4.envs.cc4.draws import sample
from purecc4.envs.cc4.state import ScriptedChoices, State
from purecc4.errors import UserError
from purecc4.parity import replay, scripted
from purecc4.parity import translation as tr
from purecc4.parity.holm import holm
from purecc4.train import devices

FREE = 8  # free steps from every state
LEVEL = 0.01
REWARDS = ("reward lwf", "reward asf", "reward ria")


@dataclass(frozen=True)
class Config:
    """Compare recorded steps of CybORG with sampled steps from the same states."""

    dir: Annotated[Path, tyro.conf.Positional]
    """Folder of recorded episodes (.npz)."""
    first: int | None = None
    """Use the first N episodes only."""


# Measures of a step


def measures(
    before: State, choices: ScriptedChoices, obs: cc4.Observation, after: State, info: cc4.Info
) -> dict[str, Array]:
    """All measures, by name."""
    was, now = cc4.view(before), cc4.view(after)
    return {
        **{f"reward {term}": getattr(info.rewards, term) for term in ("lwf", "asf", "ria")},
        **_red_choices(before, was, choices),
        **_green_choices(before, choices),
        **_alerts(obs),
        **_sessions(now),
        **_hosts(now),
        **_knowledge(now),
    }


def _red_choices(before: State, was: cc4.View, choices: ScriptedChoices) -> dict[str, Array]:
    """Choices of the agents that decide, and their rank among the options."""
    agents = np.arange(NUM_RED)
    asked = (before.red.queue.ticks == 0) & was.active
    sweeps = choices.red_action == RedAction.DISCOVER_REMOTE_SYSTEMS
    aims = asked & ~sweeps  # the recording does not have the target host of a sweep
    known = replay.known_targets(was)
    eligible = (known != Knowledge.UNKNOWN) & (known != Knowledge.F)
    target = jnp.minimum(choices.red_target, OWN_TARGETS + NUM_ZONES - 1)
    state = known[agents, target]
    session = choices.red_session
    swept = asked & sweeps & (agents == NUM_RED - 1)
    return {
        **{f"red chooses {kind.name}": (asked & (choices.red_action == kind)).sum() for kind in RedAction},
        **{f"red aims at {kind.name}": (aims & (state == kind)).sum() for kind in Knowledge},
        "red aims abroad": (aims & (target >= OWN_TARGETS)).sum(),
        "place of red's target": _places(eligible, target, aims),
        "place of red's session": _places(was.known_ids, session, asked),
        "red's session is gone": (asked & (was.session_host[agents, session] == NO_HOST)).sum(),
        "red's session is abstract": (asked & was.session_abstract[agents, session]).sum(),
        **{f"red 5 sweeps {SUBNET_NAMES[s]}": (swept & (choices.red_subnet == s)).sum() for s in range(Subnet.ADM, 8)},
    }


def _places(members: Array, chosen: Array, counts: Array) -> Array:
    """Sum over agents of the rank of their choice among the members, scaled to 0..1."""
    below = (members & (np.arange(members.shape[1]) < chosen[:, None])).sum(axis=1)
    return jnp.where(counts, (below + 0.5) / jnp.maximum(members.sum(axis=1), 1), 0).sum()


def _green_choices(before: State, choices: ScriptedChoices) -> dict[str, Array]:
    users = before.scenario.exists[GREEN_HOST]
    visits = users & (choices.green_action == GreenAction.ACCESS_SERVICE)
    zone, slot = choices.green_server // SLOTS, choices.green_server % SLOTS
    return {
        **{f"green chooses {kind.name}": (users & (choices.green_action == kind)).sum() for kind in GreenAction},
        **{f"visits to {SUBNET_NAMES[z]}": (visits & (zone == z)).sum() for z in range(NUM_ZONES)},
        "visits to server 0": (visits & (slot == 0)).sum(),
    }


def _alerts(obs: cc4.Observation) -> dict[str, Array]:
    server = np.arange(scripted.OWN) % SLOTS < 6
    bits = zip(("process", "connection"), scripted.alert_bits(obs.flat), strict=True)
    sums = {name: (alert & server, alert & ~server) for name, alert in bits}
    return {
        f"{name} alerts on {where}": alert.sum()
        for name, pair in sums.items()
        for where, alert in zip(("servers", "users"), pair, strict=True)
    }


def _sessions(now: cc4.View) -> dict[str, Array]:
    live = now.session_host != NO_HOST
    zone = now.session_host // SLOTS
    first = live[:, 0]
    return {
        **{f"sessions in {SUBNET_NAMES[z]}": (live & (zone == z)).sum() for z in range(NUM_ZONES)},
        "abstract sessions": (live & now.session_abstract).sum(),
        "root sessions": now.session_root.sum(),
        "sum of session ids": jnp.where(live, np.arange(live.shape[1]), 0).sum(),
        "sum of session pids": jnp.where(live, now.session_pid, 0).sum(dtype=jnp.int32),
        "first sessions that are abstract": (first & now.session_abstract[:, 0]).sum(),
        "slots of first sessions": jnp.where(first, now.session_host[:, 0] % SLOTS, 0).sum(),
        "known ids": now.known_ids.sum(),
        "active red agents": now.active.sum(),
    }


def _hosts(now: cc4.View) -> dict[str, Array]:
    decoys = now.decoy_pid > 0
    return {
        **{f"decoys {kind.name}": decoys[kind].sum() for kind in Decoy},
        "sum of largest pids": now.largest_pid.sum(dtype=jnp.int32),
        "sum of decoy pids": now.decoy_pid.sum(dtype=jnp.int32),
        "noted pids": (now.suspicious_pid > 0).sum(),
        "reliability": now.reliability.sum(dtype=jnp.int32),
        "reliability of decoys": jnp.where(decoys, now.decoy_reliability, 0).sum(dtype=jnp.int32),
        "stopped OTServices": now.ot_stopped.sum(),
    }


def _knowledge(now: cc4.View) -> dict[str, Array]:
    foreign = {f"foreign hosts in {kind.name}": (now.foreign == Knowledge[kind.name]).sum() for kind in Foreign}
    own = {f"hosts in {kind.name}": (now.knowledge == kind).sum() for kind in Knowledge}
    hq = (HOST_SUBNET >= Subnet.ADM) & (now.knowledge != Knowledge.UNKNOWN)
    return own | foreign | {"known hosts of the headquarters": hq.sum()}


# Playing


def _gaps(scenario: cc4.Scenario, play: tr.Play, policy: cc4.RedPolicy, key: PRNGKeyArray) -> dict[str, Array]:
    """[step] recorded minus mean free measures."""

    def step(carry, now: tr.Play):
        state, key = carry
        key, key_free = jax.random.split(key)

        def measured(choices, draws):
            obs, after, _, _, info = cc4.transition(state, now.actions, now.messages, choices, draws)
            return after, measures(state, choices, obs, after, info)

        def free(key):
            draws = sample(key)
            return measured(cc4.decide(state, policy, draws), draws)[1]

        after, recorded = measured(*replay.recorded_chances(state, now))
        drawn = jax.vmap(free)(jax.random.split(key_free, FREE))
        return (after, key), jax.tree.map(lambda x, y: x - jnp.mean(y.astype(jnp.float32), axis=0), recorded, drawn)

    return jax.lax.scan(step, (cc4.start(scenario)[1], key), play)[1]


_gaps_of_batch = eqx.filter_jit(jax.vmap(_gaps, in_axes=(0, 0, None, 0)))


def gaps(results: list[replay.Result], seed: int = 0) -> dict[str, np.ndarray]:
    """[episode, step] recorded minus mean free measures of replayed episodes of equal length.

    Raises UserError if one of them does not replay.
    """
    for result in results:
        if result.difference:
            raise UserError(f"{result.name} does not replay ({result.difference}): run purecc4 replay first.")
    policy, parts = cc4.make_params("fsm").red, []
    for start in range(0, len(results), replay.BATCH):
        batch = [result.translation for result in results[start : start + replay.BATCH]]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), start), replay.BATCH)
        found = jax.device_get(_gaps_of_batch(*replay.stack(batch), policy, keys))
        parts.append({name: values[: len(batch)] for name, values in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Comparing


class Gap(NamedTuple):
    """Mean gap of a measure in an episode, its standard error, and the p-value of no gap."""

    policy: str
    measure: str
    mean: float
    error: float
    p: float

    def __str__(self) -> str:
        low, high = self.mean - 1.96 * self.error, self.mean + 1.96 * self.error
        return f"{self.policy:8} {self.measure:42} {self.mean:10.3f}   [{low:9.3f}, {high:9.3f}]"


def compare(policy: str, found: dict[str, np.ndarray]) -> list[Gap]:
    """z-tests of all random measures; the gaps of different steps are uncorrelated."""
    out = []
    for name, values in found.items():
        error = np.sqrt((values.astype(float) ** 2).sum()) / len(values)
        if error > 0:
            mean = values.sum(dtype=float) / len(values)
            out.append(Gap(policy, name, mean, error, float(2 * stats.norm.sf(abs(mean) / error))))
    return out


def by_policy(results: Iterable[replay.Result], paths: list[Path]) -> dict[str, list[replay.Result]]:
    """Group results by blue policy, which is the prefix of the file name."""
    names = {path.stem: path.stem.rpartition("_")[0] for path in paths}
    groups: dict[str, list[replay.Result]] = {}
    for result in results:
        groups.setdefault(names[result.name], []).append(result)
    return groups


def report(found: list[Gap]) -> int:
    """Print the comparison. Returns the number of significant gaps."""
    adjusted = holm([gap.p for gap in found])
    heading = f"{'policy':8} {'recorded minus free, per episode':42} {'gap':>10}   {'95 % interval':22} p (Holm)"
    print(heading)
    for gap, p in zip(found, adjusted, strict=True):
        if gap.measure in REWARDS:
            print(f"{gap} {p:8.3f}")
    print(f"\nThe ten measures with the smallest p:\n{heading}")
    for gap, p in sorted(zip(found, adjusted, strict=True), key=lambda pair: pair[0].p)[:10]:
        print(f"{gap} {p:8.3f}")
    return int((adjusted <= LEVEL).sum())


def run(config: Config) -> None:
    """Replay, compare and print the tables. Raises UserError if a gap is significant."""
    devices.use_compile_cache()
    start, paths = time.perf_counter(), tr.find(config.dir, config.first)
    groups = by_policy(replay.replay(paths, choose=False), paths)
    found = [gap for policy, results in groups.items() for gap in compare(policy, gaps(results))]
    significant = report(found)
    print(
        f"\n{len(paths)} episodes, {FREE} free steps from each state: {len(found)} comparisons, "
        f"{significant} significant at {LEVEL:.0%} after Holm, {time.perf_counter() - start:.0f} s"
    )
    if significant:
        raise UserError(f"{significant} comparisons with CybORG are significant.")
