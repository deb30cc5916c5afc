"""Compare free play with recorded episodes of the reference simulator: returns, reward parts and episode courses.

The four scripted blue policies of the recordings play in this simulator, all randomness sampled. Prints Welch tests,
Holm-corrected over all comparisons at 1 %, and for episode totals the smallest margin within which the two simulators
are equivalent (TOST, 5 %). Exits 1 if a gap is significant.
"""

import csv
import functools
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Key, PRNGKeyArray
from scipy import stats

from purecc4.envs import cc4
from purecc4.envs.cc4.constants import (
    GREEN_HOST,
    HOST_SUBNET,
    IS_MONITORED,
    IS_OPERATIONAL,
    IS_SERVER,
    NO_HOST,
    NUM_RED,
    REWARDS,
    GreenAction,
    RedAction,
    RewardTerm,
)
from purecc4.errors import UserError, user_file
from purecc4.parity import scripted
from purecc4.parity.holm import holm
from purecc4.parity.translation import NONE, Trace, find, load
from purecc4.report import statistics
from purecc4.train import devices

POLICIES = ("sleep", "random", "defend", "block")
STEPS, WINDOW = 499, 50
LEVEL = 0.01
TOTALS = ("return", "lwf", "asf", "ria", "cost", "failed_work", "failed_access", "impacts", "hosts", "users")
RETURNS = Path(__file__).parent / "reference_returns.csv"
_COUNTED = 128  # rewards are multiplied by it and lowered by 1, so that a sum also encodes its number of terms


@dataclass(frozen=True)
class Config:
    """Compare free play with recorded episodes of CybORG."""

    dir: Annotated[Path, tyro.conf.Positional]
    """Folder of recorded episodes (.npz) of all four scripted policies."""
    episodes: int = 1024
    """Free episodes of each policy."""
    returns: Path = RETURNS
    """Totals of further reference episodes (.csv)."""


class Episodes(NamedTuple):
    """Episodes of one policy."""

    totals: dict[str, np.ndarray]
    """[episode] by TOTALS."""
    course: dict[str, np.ndarray]
    """[episode, step]"""


# This simulator


def _separate(sums: Array) -> tuple[Array, Array]:
    """Reward and number of terms from a sum of counted rewards."""
    count = jnp.mod(-sums, _COUNTED)
    return (sums + count) / _COUNTED, count


def _decisions(state: cc4.State) -> dict[str, Array]:
    """Agents that decide in the next step, and the session ids that they choose from."""
    seen = cc4.view(state)
    decides = (state.red.queue.ticks == 0) & seen.active
    return {"known ids": (decides[:, None] & seen.known_ids).sum(), "decisions": decides.sum()}


def _aftermath(obs: cc4.Observation, state: cc4.State) -> dict[str, Array]:
    """Counts after a step."""
    seen, scenario = cc4.view(state), state.scenario
    services = scenario.exists * (1 + scenario.services.sum(axis=0) + (IS_OPERATIONAL & ~seen.ot_stopped))
    degraded = jnp.where(seen.reliability < 100, services, 0).sum()
    degraded += ((seen.decoy_pid > 0) & (seen.decoy_reliability < 100)).sum()
    return {
        "red sessions": (seen.session_host != NO_HOST).sum(),
        "root sessions": seen.session_root.sum(),
        "active red agents": seen.active.sum(),
        "alerts": sum(bits.sum() for bits in scripted.alert_bits(obs.flat)),
        "degraded services": degraded,
    }


def _episode(name: str, key: PRNGKeyArray) -> tuple[dict[str, Array], dict[str, Array]]:
    """Play one free episode. Returns its totals and its course [step]."""
    params = cc4.make_params("fsm")
    key_scenario, key_steps = jax.random.split(key)
    scenario = cc4.generate(key_scenario, params)
    scenario = eqx.tree_at(lambda s: s.rewards, scenario, _COUNTED * scenario.rewards - 1)

    def step(carry, _):
        obs, state, key = carry
        key, key_act, key_env = jax.random.split(key, 3)
        before = _decisions(state)
        actions, messages = scripted.act(name, key_act, obs)
        obs, state, _, _, info = cc4.step(key_env, state, actions, params, messages)
        terms = {term: _separate(getattr(info.rewards, term)) for term in ("lwf", "asf", "ria")}
        course = before | _aftermath(obs, state) | {"failed work": terms["lwf"][1], "blocked access": terms["asf"][1]}
        rewards = {term: value for term, (value, _) in terms.items()}
        return (obs, state, key), (course, rewards | {"cost": info.rewards.cost, "impacts": terms["ria"][1]})

    (_, state, _), (course, sums) = jax.lax.scan(step, (*cc4.start(scenario), key_steps), length=STEPS)
    totals = jax.tree.map(lambda x: x.sum(), sums)
    totals |= {"return": sum(totals[part] for part in ("lwf", "asf", "ria", "cost")), "overflow": state.overflow}
    totals |= {"failed_work": course["failed work"].sum(), "failed_access": course["blocked access"].sum()}
    totals |= {"hosts": scenario.exists.sum() + 9, "users": (scenario.exists & ~IS_SERVER).sum()}
    return totals, course


@functools.partial(jax.jit, static_argnums=0)
def _episodes(name: str, keys: Key[Array, " episode"]) -> tuple[dict[str, Array], dict[str, Array]]:
    return jax.vmap(functools.partial(_episode, name))(keys)


def play(name: str, episodes: int, seed: int = 0, batch: int = 128) -> Episodes:
    """Play free episodes of a policy. Raises ValueError if a bounded table of the simulator overflowed."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), POLICIES.index(name)), episodes)
    parts = [jax.device_get(_episodes(name, keys[i : i + batch])) for i in range(0, episodes, batch)]
    totals, course = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    if totals.pop("overflow").any():
        raise ValueError("A table of the simulator overflowed: raise its size in envs/cc4/constants.py.")
    return Episodes(totals, course)


# Recordings


def recorded(traces: list[Trace]) -> Episodes:
    """Totals and courses of recorded episodes."""
    totals, course = zip(*map(_recorded, traces), strict=True)
    return Episodes(*({name: np.array([row[name] for row in rows]) for name in rows[0]} for rows in (totals, course)))


def _recorded(trace: Trace) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    action, _, success = np.moveaxis(trace.green_done, -1, 0)
    zone, phase = HOST_SUBNET[GREEN_HOST], trace.raw["phase"][1:]
    kinds = {RewardTerm.LWF: GreenAction.LOCAL_WORK, RewardTerm.ASF: GreenAction.ACCESS_SERVICE}
    failed = {term: (action == kind) & (success == 0) for term, kind in kinds.items()}
    lwf, asf = (
        float((REWARDS[phase][:, zone, term] * failed[term]).sum()) for term in (RewardTerm.LWF, RewardTerm.ASF)
    )
    machine, cost = float(trace.raw["reward"].sum()), float(trace.raw["cost"].sum())
    degraded = (trace.raw["service_active"] > 0) & (trace.raw["reliability"] < 100)
    due = trace.red_codes[trace.raw["red_exec"][..., 0]] == RedAction.IMPACT
    totals = {
        "return": machine + cost,
        "lwf": lwf,
        "asf": asf,
        "ria": machine - lwf - asf,
        "cost": cost,
        "failed_work": failed[RewardTerm.LWF].sum(),
        "failed_access": failed[RewardTerm.ASF].sum(),
        "impacts": (due & (trace.raw["red_active"][1:] > 0)).sum(),
        "hosts": len(trace.raw["hosts"]),
        "users": len(trace.raw["green_host"]),
    }
    course = _recorded_sessions(trace) | {
        "alerts": (trace.to_hosts(trace.raw["events"])[1:, IS_MONITORED][..., [1, 3]] > 0).sum(axis=(1, 2)),
        "failed work": failed[RewardTerm.LWF].sum(axis=1),
        "blocked access": failed[RewardTerm.ASF].sum(axis=1),
        "active red agents": (trace.raw["red_active"][1:] > 0).sum(axis=1),
        "degraded services": degraded[1:].sum(axis=(1, 2)),
    }
    return totals, course


def _recorded_sessions(trace: Trace) -> dict[str, np.ndarray]:
    rows, states = trace.session_rows, trace.num_steps + 1
    count = np.bincount(rows[:, 0], minlength=states)
    roots = np.bincount(rows[rows[:, 5] > 0, 0], minlength=states)
    first = np.full((NUM_RED, rows[:, 2].max() + 1), states)
    abstract = rows[rows[:, 6] > 0]
    np.minimum.at(first, (abstract[:, 1], abstract[:, 2]), abstract[:, 0])
    known = (first <= np.arange(states)[:, None, None]).sum(axis=-1)[:-1]
    decides = trace.red_chosen[..., 0] != NONE
    return {
        "red sessions": count[1:],
        "root sessions": roots[1:],
        "known ids": (known * decides).sum(axis=1),
        "decisions": decides.sum(axis=1),
    }


def read_returns(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Totals of further reference episodes, by policy. Raises UserError if the file is no such table."""
    with user_file(path), path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            policy: {name: np.array([float(row[name]) for row in rows if row["policy"] == policy]) for name in TOTALS}
            for policy in POLICIES
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} must have the columns policy, {', '.join(TOTALS)}, all but the first numbers."
        ) from error


# Comparing


class Gap(NamedTuple):
    """One comparison, ours minus the reference's."""

    policy: str
    quantity: str
    ours: np.ndarray
    reference: np.ndarray
    test: statistics.Comparison

    def row(self, adjusted: float) -> str:
        """A line of the table."""
        ours, reference, test = self.ours, self.reference, self.test
        return (
            f"{self.policy:7} {self.quantity:32} {reference.mean():10.2f} {ours.mean():10.2f} {test.gap:9.2f}   "
            f"[{test.low:8.2f}, {test.high:8.2f}] {adjusted:8.3f}"
        )


HEADER = (
    f"{'policy':7} {'quantity':32} {'reference':>10} {'ours':>10} {'gap':>9}   {'95 % interval':20} {'p (Holm)':>8}"
)


def windows(course: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[episode] means per step over windows of WINDOW steps; session ids per decision."""
    starts = np.arange(0, STEPS, WINDOW)
    lengths = np.diff(np.append(starts, STEPS))
    sums = {name: np.add.reduceat(values.astype(float), starts, axis=1) for name, values in course.items()}
    known, decisions = sums.pop("known ids"), sums.pop("decisions")
    means = {name: values / lengths for name, values in sums.items()}
    means["known ids per decision"] = known / np.maximum(decisions, 1)
    return {f"{name}, steps {start}+": values[:, i] for name, values in means.items() for i, start in enumerate(starts)}


def gap(policy: str, quantity: str, ours: np.ndarray, reference: np.ndarray) -> Gap:
    """Compare one quantity by Welch's test.

    A small sample can miss a rare event and then has too little variance. The p-value is therefore at least that of
    Student's test, which pools the variance.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of samples that are nearly constant
        test = statistics.welch(ours, reference)
        if np.ptp(ours) > 0:
            test = test._replace(p=max(test.p, float(stats.ttest_ind(ours, reference).pvalue)))
    return Gap(policy, quantity, ours, reference, test)


def compare_totals(policy: str, ours: Episodes, references: list[dict[str, np.ndarray]]) -> list[Gap]:
    """Episode totals against all reference episodes of a policy, pooled."""
    pooled = {name: np.concatenate([reference[name] for reference in references]) for name in TOTALS}
    return [gap(policy, name, ours.totals[name], pooled[name]) for name in TOTALS]


def compare_course(policy: str, ours: Episodes, reference: Episodes) -> list[Gap]:
    """Courses of episodes, window by window."""
    theirs = windows(reference.course)
    return [gap(policy, name, values, theirs[name]) for name, values in windows(ours.course).items()]


def report(totals: list[Gap], course: list[Gap]) -> int:
    """Print the comparison. Returns the number of significant gaps at 1 % after Holm's correction over all."""
    adjusted = holm([entry.test.p for entry in totals + course])
    print(f"{HEADER} {'TOST 5 %: within':>16}")
    for entry, p in zip(totals, adjusted, strict=False):
        print(f"{entry.row(p)} {statistics.smallest_margin(entry.ours, entry.reference):16.2f}")
    if course:
        print(f"\n{len(course)} comparisons of windows, the ten with the smallest p:\n{HEADER}")
        ranked = sorted(zip(course, adjusted[len(totals) :], strict=True), key=lambda pair: pair[0].test.p)
        print("\n".join(entry.row(p) for entry, p in ranked[:10]))
    return int((adjusted <= LEVEL).sum())


def run(config: Config) -> None:
    """Play, compare and print the tables. Raises UserError if a gap is significant."""
    if config.episodes < 2:
        raise UserError("--episodes must be at least 2.")
    devices.use_compile_cache()
    start, traces = time.perf_counter(), [load(path) for path in find(config.dir)]
    further = read_returns(config.returns)
    totals, course = [], []
    for policy in POLICIES:
        ours = play(policy, config.episodes)
        reference = recorded([trace for trace in traces if trace.raw["policy"] == policy])
        totals += compare_totals(policy, ours, [further[policy], reference.totals])
        course += compare_course(policy, ours, reference)
    significant = report(totals, course)
    played, others = config.episodes * len(POLICIES), sum(len(rows["return"]) for rows in further.values())
    print(
        f"\n{played:,} free episodes against {len(traces)} recorded and {others} further ones: "
        f"{len(totals) + len(course)} comparisons, {significant} significant at {LEVEL:.0%} after Holm, "
        f"{time.perf_counter() - start:.0f} s"
    )
    if significant:
        raise UserError(f"{significant} comparisons with CybORG are significant.")
