"""Parameter-exploring policy gradients (PGPE, Sehnke et al. 2010) on the numbers of rules for raw observations.

    python algos/pgpe.py --arm C00

The policy `Rules` is deterministic: each agent takes the first of eight causes that any own host has, as the script
`analyst` does (`purecc4/play/raw_scripts.py`). Learning changes the NUMBERS of each agent: when a host is restored, how
many decoys it gets, when it is analysed again. An update plays episodes in pairs with the same luck, one with the
policy's numbers plus noise, the other with these numbers minus the same noise (antithetic sampling with common random
numbers).

* Every agent has its own noise and is credited with the losses in its own zones and its own Restores. A pair of
  episodes is therefore five samples of five nearly separate problems.
* It needs no critic, discount or network. The result is a readable table.
* The agent of headquarters opens with blocks between its three zones, which no green user needs; red's one agent there
  can then attack only the zone of the session that it picked.

The whole algorithm is in this file, written for one run: one arm with one seed. `purecc4.train` maps it over all arms
and seeds (docs/algorithms.md has that in plain JAX), and adds devices, checkpoints, progress and tables.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, NamedTuple

import purecc4  # noqa: F401  # isort: skip  # handles Ctrl-C while the libraries load
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, PyTree, UInt32

from purecc4.arms import Arm
from purecc4.envs import cc4
from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import HQ, HQ_BLUE, NUM_BLUE, NUM_PHASES, BlueAction, Subnet
from purecc4.envs.cc4.history import History
from purecc4.envs.cc4.raw import Files
from purecc4.errors import UserError
from purecc4.play.raw_scripts import LAST, PHASE, Cause, RawScript, worst
from purecc4.train import command_line, runs
from purecc4.train.runs import Algorithm, Metrics
from purecc4.train.settings import Scheduled, Tunable
from purecc4.zones import credit


@dataclasses.dataclass(frozen=True)
class Config(Scheduled):
    """Hyperparameters, defaulting to those of the shipped policy."""

    algorithm: ClassVar[str] = "pgpe"

    arm: tuple[str, ...] = ("C00",)
    """Arms to train: names listed by `purecc4 arms` or defined in `--define`."""
    total_timesteps: int = 28_800_000
    num_envs: int = 480
    """Parallel environments per run, an even number: two for each pair."""
    learning_rate: Tunable = 0.1
    """Step size in units of the noise, times the noise's correlation with the score."""
    momentum: Tunable = 0.9
    """Decay of the velocity per update."""
    last_noise: Tunable = 0.3
    """Scale of the noise at the end of the schedule; it begins at 1 and decays linearly."""
    score_clip: Tunable = 10.0
    """Half differences of scores are clipped to this, in points: a few large losses must not decide."""

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        if self.num_envs % 2:
            raise UserError(f"num_envs must be even, as episodes are played in pairs: {self.num_envs}.")


class Number(NamedTuple):
    """A number that is learned."""

    start: float
    noise: float
    """Standard deviation of the noise at the start of training."""


NUMBERS = {
    **{f"user_named_{phase}": Number(2, 1) for phase in range(NUM_PHASES)},
    **{f"server_named_{phase}": Number(2, 1) for phase in range(NUM_PHASES)},
    "sources": Number(5, 1.5),
    "exploited_named": Number(3, 1),
    "quiet_sources": Number(120, 30),
    "quiet_exploited": Number(40, 20),
    "quiet_rooted": Number(15, 8),
    "user_decoys": Number(0, 1),
    "server_decoys": Number(0, 1),
    "named_bonus": Number(20, 10),
    "exploited_bonus": Number(20, 10),
    "server_delay": Number(150, 50),
    "named_weight": Number(1, 0.4),
    "target_weight": Number(1, 0.8),
    "share_weight": Number(1, 0.8),
    "stale_weight": Number(-1, 0.8),
    "fresh_weight": Number(-0.5, 0.4),
    "size_weight": Number(-0.3, 0.3),
    "restore_weight": Number(-0.4, 0.3),
    "phase_weight": Number(0, 0.5),
}
"""Numbers of an agent. `..._named_PHASE`: suspicion from which on a named user host or server is restored; `sources`:
named hosts from which on none is restored for being named; `exploited_named`: namings from which on an exploited host
is restored; `quiet_...`: steps before the end without such Restores; `..._decoys`: decoys per host; `..._bonus`: steps
by which a named or an exploited host counts as looked at earlier; `server_delay`: steps by which a server does later;
`..._weight`: the parts of `suspicion`.
"""
TYPICAL = 10
"""Hosts of a typical zone."""
NOISE = np.array([number.noise for number in NUMBERS.values()], np.float32)


def start() -> Float[np.ndarray, "blue number"]:
    """The numbers of `analyst`, and guesses where it has none."""
    table = {name: np.full(NUM_BLUE, number.start, np.float32) for name, number in NUMBERS.items()}
    for phase in range(NUM_PHASES):
        for kind in ("user", "server"):
            table[f"{kind}_named_{phase}"][HQ_BLUE] = 5
    for phase, zone in ((1, Subnet.OZA), (2, Subnet.OZB)):
        for kind in ("user", "server"):
            table[f"{kind}_named_{phase}"][zone - Subnet.RZA] = 1
    return np.stack(list(table.values()), axis=1)


OPENING = np.flatnonzero(
    (ACTION_TABLE[HQ_BLUE, :, 0] == BlueAction.BLOCK_TRAFFIC_ZONE) & np.isin(ACTION_TABLE[HQ_BLUE, :, 3], HQ)
)
"""Indices of the blocks between the zones of headquarters."""
NONE_HERE = "value_loss", "policy_loss", "entropy", "approx_kl", "clipfrac", "explained_variance"
"""Metrics of metrics.csv that this algorithm does not have."""
_HIGH = np.iinfo(np.int16).max


class Rules(RawScript):
    """The policy. Its only array is the table of numbers."""

    numbers: Float[Array, "blue number"]

    def __init__(self, key: PRNGKeyArray | None = None):
        self.numbers = jnp.asarray(start())

    @property
    def init_kwargs(self) -> dict[str, int]:
        """Arguments of `__init__` except the key; saved in checkpoints."""
        return {}

    def causes(self, notes: History, there: Bool[Array, "blue own_zone slot"]) -> Iterator[Cause]:
        """Reasons to act, the most urgent first."""
        of = {name: self.numbers[:, place, None, None] for place, name in enumerate(NUMBERS)}
        step, is_user = notes.step.astype(jnp.int32), jnp.asarray(history.IS_USER)
        left, phase = LAST - step, jnp.minimum(step // PHASE, NUM_PHASES - 1)
        rank, exploited, named = worst(notes), notes.unanswered > 0, notes.named > 0
        yield Cause(BlueAction.RESTORE, (notes.files >= Files.ESCALATE) & (left > of["quiet_rooted"]), rank)
        again = exploited & named & (notes.named >= of["exploited_named"])
        yield Cause(BlueAction.RESTORE, again & (left > of["quiet_exploited"]), rank)
        yield Cause(BlueAction.REMOVE, exploited, rank)
        yield Cause(BlueAction.ANALYSE, notes.removed, rank)
        yield Cause(BlueAction.RESTORE, notes.unexplained, rank)
        of_phase = [jnp.where(is_user, of[f"user_named_{k}"], of[f"server_named_{k}"]) for k in range(NUM_PHASES)]
        often = named & (suspicion(notes, there, of) >= jnp.stack(of_phase)[phase])
        few = named.sum(axis=(1, 2), keepdims=True) < of["sources"]
        yield Cause(BlueAction.RESTORE, often & few & (left > of["quiet_sources"]), rank)
        missing = notes.decoys < jnp.where(is_user, of["user_decoys"], of["server_decoys"])
        yield Cause(BlueAction.DEPLOY_DECOY, missing, _HIGH - notes.decoys.astype(jnp.int32))
        age = notes.step - notes.looked + of["named_bonus"] * named + of["exploited_bonus"] * (notes.exploits > 0)
        age = jnp.round(age - jnp.where(is_user, 0, of["server_delay"])).astype(jnp.int32) + _HIGH
        yield Cause(BlueAction.ANALYSE, age >= 0, age)

    def choose(self, notes: History, mask: Bool[Array, "blue action"]) -> Int32[Array, "blue"]:
        """Index of every agent's action."""
        block = jnp.asarray(OPENING, jnp.int32)[jnp.clip(notes.step, 0, len(OPENING) - 1)]
        opens = (np.arange(NUM_BLUE) == HQ_BLUE) & (notes.step < len(OPENING)) & ~history.is_busy(notes)
        return jnp.where(opens, block, super().choose(notes, mask))


def suspicion(
    notes: History, there: Bool[Array, "blue own_zone slot"], of: dict[str, Float[Array, "blue 1 1"]]
) -> Float[Array, "blue own_zone slot"]:
    """Weighted sum of what speaks for and against the Restore of an attacker.

    For it: namings, and the hosts that it attacked, as a number and as a share of the zone. They are what its session
    can exploit. Against it: stale hosts, which are safe, and those that it may still make stale, as nobody attacked
    them; a large zone, where red is slow; earlier Restores. The rest of the mission phase counts by the third.
    """

    def count(flags: Bool[Array, "blue own_zone slot"]) -> Float[Array, "blue own_zone 1"]:
        return flags.sum(axis=-1, keepdims=True).astype(jnp.float32)

    targets = jax.lax.population_count(notes.targets).astype(jnp.float32)
    size, restores = count(there), notes.restores.sum(axis=(1, 2), keepdims=True).astype(jnp.float32)
    parts = {
        "named": notes.named.astype(jnp.float32),
        "target": targets,
        "share": TYPICAL * targets / jnp.maximum(size, 1),
        "stale": count(notes.stale),
        "fresh": count(there & ~notes.stale & ~history.attacked(notes)),
        "size": size - TYPICAL,
        "restore": restores,
        "phase": (PHASE - notes.step % PHASE) / (PHASE / 3),
    }
    return sum(of[f"{name}_weight"] * part for name, part in parts.items())


class RunnerState(eqx.Module):
    """State of a run between updates. It holds no environment state: an update plays whole episodes."""

    network: Rules
    velocity: Float[Array, "blue number"]
    """Running sum of the gradients, in units of the noise."""
    seed: UInt32[Array, ""]
    update: Int32[Array, ""]
    """Updates done."""


class Env(NamedTuple):
    """One environment, as the algorithm plays it."""

    reset: Callable[[PRNGKeyArray, Arm], tuple[cc4.Observation, cc4.State]]
    params: cc4.Params
    arms: Arm
    """Arms to train, stacked on a leading axis."""


def make_env(config: Config) -> Env:
    """CC4 with the raw observation. Every reset samples an episode from the banks of one arm."""
    game = runs.make_env(config, "raw")
    return Env(game.reset, game.params, game.arms)


def play(
    config: Config,
    env: Env,
    numbers: Float[Array, "pair blue number"],
    arm: PyTree,
    key: PRNGKeyArray,
    see: Callable[[cc4.State, History], History] = lambda state, notes: notes,
) -> tuple[Float[Array, "pair blue"], Metrics]:
    """Play an episode with each table of numbers. Equal keys give equal luck. The rules read `see(state, history)`.

    Returns the score of each agent, its part of the team's reward, and the team's rewards by name.
    """
    pairs = len(numbers)
    key_reset, key_step = jax.random.split(key)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, pairs), arm)
    policy = jax.vmap(lambda x: eqx.tree_at(lambda rules: rules.numbers, Rules(), x))(numbers)
    notes = jax.vmap(lambda raw: history.update(history.init(), raw))(obs.raw)
    keys = jax.random.split(key_step, (config.num_steps, pairs))

    def step(policy, mask, env_state, key):
        state, notes = env_state
        action = policy.choose(see(state, notes), mask)
        obs, after, reward, _, info = cc4.step(key, state, action, env.params)
        notes = history.update(history.submit(notes, action), obs.raw)
        dropped = (after.overflow - state.overflow).astype(jnp.float32)
        sums = {"return": reward, "overflow": dropped} | vars(info.rewards)
        return (after, notes), (credit(info, state, action), sums)

    def steps(env_state, key):
        return jax.vmap(step)(policy, obs.mask, env_state, key)

    _, of_steps = jax.lax.scan(steps, (state, notes), keys)
    return jax.tree.map(lambda x: x.sum(axis=0), of_steps)


def update(
    config: Config, env: Env, arm: PyTree, runner: RunnerState, play: Callable = play
) -> tuple[RunnerState, Metrics]:
    """One update of one run: play pairs of episodes by `play`, then move the numbers along the noise that paid."""
    key_noise, key_play = jax.random.split(jax.random.fold_in(jax.random.key(runner.seed), runner.update))
    done = jnp.minimum(runner.update / config.schedule_updates, 1)
    scale = 1 - (1 - config.last_noise) * done

    # play both of each pair with the same random numbers
    noise = jax.random.normal(key_noise, (config.num_envs // 2, *runner.network.numbers.shape))
    numbers = runner.network.numbers + jnp.stack([scale * NOISE * noise, -scale * NOISE * noise])
    (better, worse), sums = jax.vmap(lambda each: play(config, env, each, arm, key_play))(numbers)

    # correlate the noise with the scores, agent by agent
    score = jnp.clip((better - worse) / 2, -config.score_clip, config.score_clip)
    spread = jnp.sqrt(jnp.mean(score**2, axis=0))
    gradient = jnp.mean((score / (spread + 1e-8))[..., None] * noise, axis=0)

    # move
    velocity = config.momentum * runner.velocity + gradient
    moved = runner.network.numbers + config.learning_rate * scale * NOISE * velocity
    network = eqx.tree_at(lambda rules: rules.numbers, runner.network, moved)
    runner = dataclasses.replace(runner, network=network, velocity=velocity, update=runner.update + 1)

    # log metrics; those of critics and of stochastic policies stay 0
    metrics = dict.fromkeys(NONE_HERE, jnp.float32(0)) | {"reward_scale": jnp.float32(1)}
    metrics |= {name: x.mean() for name, x in sums.items()}
    metrics["own_zones"] = (better + worse).sum(axis=1).mean() / 2
    metrics["loss"] = -metrics["own_zones"]
    metrics["grad_norm"] = jnp.sqrt(jnp.mean(gradient**2))
    metrics["learning_rate"] = config.learning_rate * scale
    return runner, metrics


def init(config: Config, env: Env, seed: UInt32[Array, ""]) -> RunnerState:
    """State of a run before its first update."""
    network = Rules()
    return RunnerState(network, jnp.zeros_like(network.numbers), seed, jnp.int32(0))


def make_train(config: Config, env: Env | None = None) -> Algorithm:
    """`init(seed)` and `update(arm, runner)` of one run, and the environment; `env` replaces CC4."""
    env = env or make_env(config)
    return Algorithm(partial(init, config, env), partial(update, config, env), env)


if __name__ == "__main__":
    command_line.main(Config, make_train)
