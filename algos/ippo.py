"""Independent PPO (IPPO) for the five blue agents of CAGE Challenge 4: one shared network, every arm and seed at once.

    python algos/ippo.py --arm C11

PPO of Schulman et al. 2017 (arXiv 1707.06347), as in the environment diversity study. The choices that matter:
one actor-critic for all agents; invalid actions masked; a rollout is one whole episode, its end is terminal (no
bootstrap); the team reward divided by the running deviation of its discounted return; advantages normalised in each
minibatch; value loss unclipped; constant learning rate. Samples of busy agents are samples like any other.

Everything up to `advance` is written for one run (one arm with one seed); `main` puts the runs on a mapped axis.
"""

import csv
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PRNGKeyArray, PyTree, UInt8, UInt32
from tqdm import tqdm

from envs import cc4
from envs.cc4.constants import NUM_BLUE
from purecc4 import arms, checkpoint, devices, metrics
from purecc4 import track as tracking
from purecc4.tables import METRICS_CSV, PARTS


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings; the defaults are those of the study."""

    arm: tuple[str, ...] = ("C11",)
    """Arms to train, any number of them (names; `python -m purecc4.arms` lists them)."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds to train each arm with; equal seeds of different arms share their random numbers (integers)."""
    total_timesteps: int = 10_000_000
    """Length of each run (env steps; one step moves all five agents). Rounded down to whole updates."""
    name: str | None = None
    """Folder under runs/ for the results (a name; default: the arms joined by '-')."""
    resume: bool = False
    """Go on from the last saved state of the run folder; its settings are taken over (flag)."""
    checkpoint_every: int = 50
    """Distance of the checkpoints (updates; one more is written at the end)."""
    updates_per_call: int = 1
    """Updates in one call of the compiled program, between two looks at the progress; changes no result (updates)."""
    track: tracking.Service | None = None
    """Send the metrics there when training is done, one run per arm and seed (word)."""
    num_envs: int = 48
    """Environments of each run (envs)."""
    num_steps: int = 500
    """Length of an episode and of a rollout (env steps)."""
    learning_rate: float = 3e-4
    """Adam's step size, constant (per optimiser step)."""
    adam_eps: float = 1e-5
    """Adam's epsilon (gradient units)."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm (gradient units)."""
    update_epochs: int = 4
    """Passes over the samples of an update (epochs)."""
    num_minibatches: int = 16
    """Parts that each pass is cut into (minibatches); must divide num_envs x num_steps x 5."""
    gamma: float = 0.99
    """Discount (factor per env step)."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation (factor per env step)."""
    clip_eps: float = 0.2
    """Clip range of the probability ratio (ratio)."""
    vf_coef: float = 0.5
    """Weight of the value loss, which is half the mean squared error (factor)."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus (factor per nat)."""
    reward_clip: float = 10.0
    """Normalised rewards are clipped to plus or minus this (standard deviations of the discounted return)."""
    hidden: int = 256
    """Width of the two hidden layers (units)."""

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_timesteps // self.steps_per_update

    @property
    def folder(self) -> Path:
        return Path("runs") / (self.name or "-".join(self.arm))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of each run, all seeds of the first arm first."""
        return [(arm, seed) for arm in self.arm for seed in self.seeds]


class Env(NamedTuple):
    """What the algorithm needs to know of an environment, each function for one environment."""

    reset: Callable[..., Any]
    """(key, arm) -> (observation with .vector [blue obs] and .mask [blue action], state)"""
    step: Callable[..., Any]
    """(key, state, actions [blue]) -> (observation, state, reward, {part of the reward: its value})"""


class ActorCritic(eqx.Module):
    """Two tanh layers, then the logits of the actions and the value. All leaves are arrays."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_obs: int, num_actions: int, hidden: int):
        key_first, key_second, key_actor, key_critic = jax.random.split(key, 4)
        self.first = orthogonal(key_first, num_obs, hidden, 2**0.5)
        self.second = orthogonal(key_second, hidden, hidden, 2**0.5)
        self.actor = orthogonal(key_actor, hidden, num_actions, 0.01)
        self.critic = orthogonal(key_critic, hidden, 1, 1.0)

    def __call__(
        self, vector: UInt8[Array, "sample obs"], mask: Bool[Array, "sample action"]
    ) -> tuple[distrax.Categorical, Float[Array, "sample"]]:
        """Policy and value of a batch of observations."""
        x = vector.astype(jnp.float32)
        for layer in (self.first, self.second):
            x = jnp.tanh(jax.vmap(layer)(x))
        logits = jax.vmap(self.actor)(x)
        policy = distrax.Categorical(logits=jnp.where(mask, logits, jnp.finfo(logits.dtype).min))
        return policy, jax.vmap(self.critic)(x)[:, 0]


def orthogonal(key: PRNGKeyArray, num_in: int, num_out: int, scale: float) -> eqx.nn.Linear:
    """Linear layer with an orthogonal weight matrix and no bias at the start."""
    key_layer, key_weight = jax.random.split(key)
    layer = eqx.nn.Linear(num_in, num_out, key=key_layer)
    weight = jax.nn.initializers.orthogonal(scale)(key_weight, (num_out, num_in))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight, jnp.zeros(num_out)))


class RewardStats(eqx.Module):
    """Running moments of the discounted return; the start is that of the study."""

    mean: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(0))
    var: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(1))
    count: Float32[Array, ""] = eqx.field(default_factory=lambda: jnp.float32(1e-4))


class Runner(eqx.Module):
    """All that a run carries from one update to the next. No environment lives on: an update is a whole episode."""

    network: ActorCritic
    opt_state: PyTree
    reward_stats: RewardStats
    seed: UInt32[Array, ""]
    update: Int32[Array, ""]
    """Updates done."""


class Transition(eqx.Module):
    """What a rollout records. Small types: a run's observations are 25 MB an update."""

    vector: UInt8[Array, "*step env blue obs"]
    action: UInt8[Array, "*step env blue"]
    log_prob: Float[Array, "*step env blue"]
    value: Float[Array, "*step env blue"]
    reward: Float[Array, "*step env"]
    """Raw team reward."""
    parts: dict[str, Float[Array, "*step env"]]
    """What it is made of."""


class Batch(eqx.Module):
    """Samples of a minibatch, or all of an update."""

    vector: UInt8[Array, "sample obs"]
    action: UInt8[Array, "sample"]
    log_prob: Float[Array, "sample"]
    advantage: Float[Array, "sample"]
    target: Float[Array, "sample"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Bool[Array, "env blue action"]]:
    """One episode in every environment, and its action masks, which are constant in an episode."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, mask.shape[0] * mask.shape[1]))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(carry, now):
        vector, state = carry
        u, keys = now
        policy, value = network(vector.reshape(-1, vector.shape[-1]), mask.reshape(-1, mask.shape[-1]))
        action = sample(policy.probs, u)
        log_prob = policy.log_prob(action)
        action, log_prob, value = (x.reshape(mask.shape[:2]) for x in (action, log_prob, value))
        obs, state, reward, parts = jax.vmap(env.step)(keys, state, action)
        return (obs.vector, state), Transition(vector, action.astype(jnp.uint8), log_prob, value, reward, parts)

    _, traj = jax.lax.scan(step, (obs.vector, state), (u, keys_env))
    return traj, mask


def sample(weights: Float[Array, "sample action"], u: Float[Array, "sample"]) -> Int32[Array, "sample"]:
    """An action for each row of weights, never one without weight, by inversion of one uniform number on [0, 1).

    `distrax.Categorical.sample` draws a number for each of the 242 actions, which takes longer than a step of the game.
    """
    stops = jnp.cumsum(weights, axis=-1)
    return jnp.argmax((weights > 0) & (stops > u[:, None] * stops[:, -1:]), axis=-1)


def normalise(
    stats: RewardStats, reward: Float[Array, "step env"], gamma: float, clip: float
) -> tuple[RewardStats, Float[Array, "step env"]]:
    """Rewards over the deviation of the discounted return so far, the current step included; no mean is subtracted."""

    def step(carry, reward):
        stats, discounted = carry
        discounted = gamma * discounted + reward
        stats = merge(stats, discounted)
        return (stats, discounted), jnp.clip(reward / (jnp.sqrt(stats.var) + 1e-8), -clip, clip)

    (stats, _), scaled = jax.lax.scan(step, (stats, jnp.zeros_like(reward[0])), reward)
    return stats, scaled


def merge(stats: RewardStats, values: Float[Array, "env"]) -> RewardStats:
    """Moments of all values so far (parallel variance, Chan et al. 1979)."""
    count = stats.count + values.size
    delta = values.mean() - stats.mean
    squares = stats.var * stats.count + values.var() * values.size + delta**2 * stats.count * values.size / count
    return RewardStats(stats.mean + delta * values.size / count, squares / count, count)


def gae(
    reward: Float[Array, "step *rest"], value: Float[Array, "step *rest"], gamma: float, lam: float
) -> Float[Array, "step *rest"]:
    """Generalised advantages (Schulman et al. 2016) of whole episodes: after the last step there is no value."""

    def step(carry, now):
        advantage, next_value = carry
        reward, value = now
        advantage = reward + gamma * next_value - value + gamma * lam * advantage
        return (advantage, value), advantage

    end = jnp.zeros_like(value[0])
    return jax.lax.scan(step, (end, end), (reward, value), reverse=True)[1]


def ppo_loss(
    network: ActorCritic, batch: Batch, mask: Bool[Array, "sample action"], config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped surrogate, half the squared value error and the entropy bonus; and what is logged of them."""
    policy, value = network(batch.vector, mask)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.mean((value - batch.target) ** 2)
    entropy = policy.entropy().mean()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": jnp.mean(ratio - 1 - log_ratio),
        "clipfrac": jnp.mean(jnp.abs(ratio - 1) > config.clip_eps),
    }


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam; the gradient is clipped in `learn`."""
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def learn(
    config: Config, runner: Runner, samples: Batch, masks: Bool[Array, "place action"], key: PRNGKeyArray
) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """Epochs of minibatches, each epoch one permutation of all samples. Sample i was seen at place i mod env x blue."""

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        grads, logs = jax.grad(ppo_loss, has_aux=True)(network, batch, masks[index % len(masks)], config)
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser(config).update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        return (optax.apply_updates(network, updates), opt_state), logs | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), samples.action.size)
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), logs = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, logs)


def init(config: Config, num_obs: int, num_actions: int, seed: Int[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    network = ActorCritic(key_network, num_obs, num_actions, config.hidden)
    return Runner(network, optimiser(config).init(network), RewardStats(), seed.astype(jnp.uint32), jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: Runner) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """One rollout and what is learned from it. If that is not finite, the runner is handed back as it was."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)
    stats, reward = normalise(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
    reward = jnp.broadcast_to(reward[..., None], traj.value.shape)
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    samples = Batch(traj.vector, traj.action, traj.log_prob, advantage, target)
    samples = jax.tree.map(lambda x: x.reshape(traj.action.size, *x.shape[3:]), samples)
    learned, logs = learn(config, runner, samples, mask.reshape(-1, mask.shape[-1]), key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs["reward_scale"] = jnp.sqrt(stats.var)
    learned = dataclasses.replace(learned, reward_stats=stats, update=runner.update + 1)
    good = jnp.isfinite(logs["loss"]) & jnp.isfinite(logs["grad_norm"])
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


def advance(
    config: Config, env: Env, num_updates: int, arm: PyTree, runner: Runner
) -> tuple[Runner, dict[str, Float[Array, "update"]]]:
    """Several updates of one run."""
    return jax.lax.scan(lambda runner, _: update(config, env, arm, runner), runner, length=num_updates)


# ---------------------------------------------------------------------------------------------------------------------
# From here on: files, devices, the loop that watches. Nothing below changes what is learned.

LOGS = (
    *("return", *PARTS, "value_loss", "policy_loss", "loss", "entropy", "approx_kl", "clipfrac"),
    *("explained_variance", "grad_norm", "reward_scale"),
)
"""Order of the columns of metrics.csv; algos/README.md says what each is."""
FREE_TO_CHANGE = ("name", "resume", "total_timesteps", "checkpoint_every", "updates_per_call", "track")
"""Settings that a resumed run may have otherwise than it started with."""


def main() -> None:
    """Command line."""
    devices.use_compile_cache()
    try:
        config = parse(sys.argv[1:])
        train(config, cc4_env(config.num_steps), arms.build(config.arm))
    except (ValueError, OSError) as error:
        sys.exit(f"ippo.py: {error}")


def cc4_env(num_steps: int) -> Env:
    """CAGE Challenge 4 against the finite state red, episodes drawn by the arm."""
    params = cc4.make_params("fsm", num_steps=num_steps)

    def step(key, state, action):
        obs, state, reward, _, info = cc4.step(key, state, action, params)
        return obs, state, reward, {part: getattr(info.rewards, part) for part in PARTS}

    return Env(lambda key, arm: cc4.start(arms.sample(key, arm, params)), step)


def parse(args: list[str]) -> Config:
    """Settings from the command line; with --resume, what the run was started with fills the gaps.

    Raises ValueError, with one sentence, for settings that make no sense or that a resumed run cannot change.
    """
    config = tyro.cli(Config, args=args)
    if config.resume:
        saved = saved_config(config.folder)
        default = dataclasses.replace(saved, name=config.name, resume=True)
        config = tyro.cli(Config, args=args, default=default)
        for field in dataclasses.fields(Config):
            now, then = getattr(config, field.name), getattr(saved, field.name)
            if field.name not in FREE_TO_CHANGE and now != then:
                raise ValueError(f"{config.folder} was started with {field.name} = {then}; leave it out to resume.")
    check(config)
    return config


def check(config: Config) -> None:
    """Raises ValueError, with one sentence, for sizes that make no sense."""
    for name in (
        "num_envs",
        "num_steps",
        "update_epochs",
        "num_minibatches",
        "hidden",
        "checkpoint_every",
        "updates_per_call",
    ):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1.")
    if not config.num_updates:
        raise ValueError(f"total_timesteps must be at least {config.steps_per_update}, the env steps of one update.")
    samples = config.steps_per_update * NUM_BLUE
    if samples % config.num_minibatches:
        raise ValueError(
            f"num_minibatches = {config.num_minibatches} does not divide the {samples} samples of an update."
        )
    for name, values in (("arm", config.arm), ("seeds", config.seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} needs one or more values, each once.")
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise ValueError("seeds must be from 0 to 4294967295.")
    if config.folder.parent != Path("runs"):
        raise ValueError(f"name must be the name of a folder, without a path: {config.name!r}.")


def saved_config(folder: Path) -> Config:
    """Settings that a run folder was started with. ValueError if it is none of this version."""
    path = folder / checkpoint.CONFIG
    if not path.exists():
        raise ValueError(f"there is nothing to resume in {folder}: start it without --resume.")
    fields = json.loads(path.read_text())["resolved"]
    if set(fields) != {field.name for field in dataclasses.fields(Config)}:
        raise ValueError(f"{folder} was started by another version of ippo.py, which alone can resume it.")
    return Config(**{name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()})


def train(config: Config, env: Env, arm: PyTree) -> None:
    """Train all runs, with the arms stacked in `arm`, and leave everything in the run folder.

    Raises ValueError if the folder is taken, the runs do not fit in memory, a loss is not finite, or the library to
    track with is not installed.
    """
    if config.track:
        tracking.find(config.track)
    claim_folder(config)
    print(f"{jax.default_backend().upper()}, {len(jax.devices())} device(s)", end=": ")
    print(f"{len(config.runs)} runs of {config.num_updates} updates, {config.steps_per_update:,} env steps each.")
    if jax.default_backend() == "cpu":
        print("*** NO GPU: training on the CPU, which is slow. How long it will take is said after one update. ***")
    arm = jax.tree.map(lambda x: jnp.repeat(x, len(config.seeds), 0), arm)
    runner = start(config, env, arm)
    sharding = devices.run_sharding()
    arm, runner = devices.spread(arm, sharding), devices.spread(runner, sharding)
    with Stop() as stop:
        done = loop(config, env, sharding, arm, runner, stop)
    if done < config.num_updates:
        print(f"Stopped and saved. Go on with:  python {sys.argv[0]} --resume --name {config.folder.name}")
    else:
        print_summary(config)
        if config.track:
            tracking.send(config.folder, config.track)


def claim_folder(config: Config) -> None:
    """Make the run folder. ValueError if there is something in it already, OSError if it cannot be made."""
    if not config.resume and config.folder.exists() and any(config.folder.iterdir()):
        raise ValueError(f"{config.folder} exists already: choose another --name, or go on with it by --resume.")
    config.folder.mkdir(parents=True, exist_ok=True)


def open_folder(config: Config, runner: Runner) -> None:
    """Write the settings and the state that training starts from; drop the metrics beyond it."""
    versions = {package: version(package) for package in ("jax", "equinox", "optax", "distrax", "purecc4")}
    content = {
        "written": sys.argv,
        "resolved": dataclasses.asdict(config) | {"name": config.folder.name, "resume": False},
        "derived": {
            "num_updates": config.num_updates,
            "steps_per_update": config.steps_per_update,
            "runs": config.runs,
        },
        "where": {"backend": jax.default_backend(), "devices": list(map(str, jax.devices())), "versions": versions},
    }
    checkpoint.write_json(config.folder / checkpoint.CONFIG, content)
    metrics.drop_after(config.folder / METRICS_CSV, int(runner.update[0]))
    save_state(config, runner)


def start(config: Config, env: Env, arm: PyTree) -> Runner:
    """All runs before their first update or, with `resume`, as they were saved last."""
    one = jax.tree.map(lambda x: x[0], arm)
    obs, _ = jax.eval_shape(env.reset, jax.random.key(0), one)
    seeds = jnp.array([seed for _, seed in config.runs], jnp.uint32)
    init_one = partial(init, config, obs.vector.shape[-1], obs.mask.shape[-1])
    runner = jax.jit(partial(jax.lax.map, init_one))(seeds)
    return checkpoint.load(config.folder / checkpoint.STATE, runner) if config.resume else runner


def compile_updates(config: Config, env: Env, sharding: NamedSharding, arm: PyTree, runner: Runner, num_updates: int):
    """The compiled program (arm, runner) -> (runner, logs) of several updates of all runs; the runner is donated.

    Raises ValueError if it does not fit in memory.
    """
    began = time.perf_counter()
    program = devices.over_runs(partial(advance, config, env, num_updates), sharding)
    compiled = jax.jit(program, donate_argnums=1).lower(arm, runner).compile()
    tqdm.write(f"Compiled {num_updates} update(s) per call in {time.perf_counter() - began:.1f} s.")
    needed, available = devices.bytes_needed(compiled), devices.bytes_available()
    if needed > available:
        runs = len(runner.update) // sharding.num_devices
        most = available * runs // needed * sharding.num_devices
        raise ValueError(
            f"{len(config.runs)} runs need {needed / 1e9:.1f} GB on each device, {available / 1e9:.1f} GB are free: "
            f"at most {most} runs fit at once."
        )
    return compiled


def loop(config: Config, env: Env, sharding: NamedSharding, arm: PyTree, runner: Runner, stop: "Stop") -> int:
    """Update until all is done or a stop is asked for; show, log and save. Returns the updates done."""
    programs = {}
    done = int(runner.update[0])
    with tqdm(total=config.num_updates, initial=done, unit="update", dynamic_ncols=True) as bar:
        while done < config.num_updates and not stop:
            to_save = config.checkpoint_every - done % config.checkpoint_every
            count = min(config.updates_per_call, to_save, config.num_updates - done)
            if count not in programs:
                compiled = compile_updates(config, env, sharding, arm, runner, count)
                if not programs:
                    open_folder(config, runner)
                programs[count] = compiled
                bar.unpause()
            began = time.perf_counter()
            runner, logs = programs[count](arm, runner)
            logs = {name: np.asarray(x)[: len(config.runs)] for name, x in logs.items()}
            seconds = time.perf_counter() - began
            if jax.default_backend() == "cpu" and not bar.n > bar.initial:
                hours = seconds / count * (config.num_updates - done) / 3600
                tqdm.write(f"*** ON THE CPU this takes about {hours:.2f} hours. ***")
            write_metrics(config, done, logs, seconds)
            refuse_non_finite(config, done, logs, runner)
            done += count
            bar.set_postfix_str(progress(config, logs, seconds), refresh=False)
            bar.update(count)
            if done % config.checkpoint_every == 0 or done == config.num_updates or stop:
                save_networks(config, runner)
                save_state(config, runner)
    return done


def write_metrics(config: Config, done: int, logs: dict[str, np.ndarray], seconds: float) -> None:
    """Append a row per run and update."""
    num_updates = len(next(iter(logs.values()))[0])
    constant = {
        "learning_rate": config.learning_rate,
        "sps": len(config.runs) * num_updates * config.steps_per_update / seconds,
    }
    rows = []
    for i in range(num_updates):
        for run, (arm, seed) in enumerate(config.runs):
            update = done + i + 1
            place = {"arm": arm, "seed": seed, "update": update, "env_steps": update * config.steps_per_update}
            values = {name: float(logs[name][run, i]) for name in LOGS}
            rows.append(place | values | constant)
    metrics.append(config.folder / METRICS_CSV, rows)


def refuse_non_finite(config: Config, done: int, logs: dict[str, np.ndarray], runner: Runner) -> None:
    """If a loss or gradient is not finite, save the networks from before and raise ValueError."""
    bad = ~np.isfinite(logs["loss"] + logs["grad_norm"])
    if not bad.any():
        return
    run, at = np.argwhere(bad)[np.argmin(np.argwhere(bad)[:, 1])]
    save_networks(config, runner)
    arm, seed = config.runs[run]
    raise ValueError(
        f"the loss of arm {arm} with seed {seed} is not finite in update {done + at + 1}: training has stopped, "
        f"the last good networks are in {config.folder / 'checkpoints'}; try a smaller --learning-rate."
    )


def progress(config: Config, logs: dict[str, np.ndarray], seconds: float) -> str:
    """Steps per second over all runs, and the mean return of each arm, bank multipliers included."""
    steps = logs["return"].size * config.steps_per_update / seconds
    returns = logs["return"][:, -1].reshape(len(config.arm), -1).mean(1)
    return ", ".join([f"{steps:,.0f} steps/s", *(f"{arm} {x:.0f}" for arm, x in zip(config.arm, returns, strict=True))])


def save_networks(config: Config, runner: Runner) -> None:
    """Write the network of each run, loadable alone by `load_network`."""
    runner = jax.device_get(runner)
    for run, (arm, seed) in enumerate(config.runs):
        network = jax.tree.map(lambda x, run=run: x[run], runner.network)
        env_steps = int(runner.update[run]) * config.steps_per_update
        sizes = {
            "num_obs": network.first.weight.shape[1],
            "num_actions": len(network.actor.bias),
            "hidden": config.hidden,
        }
        about = {"arm": arm, "seed": seed, "env_steps": env_steps, "num_steps": config.num_steps, "network": sizes}
        checkpoint.save(checkpoint.path_of(config.folder, arm, seed, env_steps), network, about)


def load_network(path: Path) -> ActorCritic:
    """The network of a checkpoint. ValueError, with one sentence, if the file holds none."""
    about = checkpoint.read_about(path)
    if "network" not in about:
        raise ValueError(f"{path} holds no single network: take a file under checkpoints/.")
    like = eqx.filter_eval_shape(ActorCritic, jax.random.key(0), **about["network"])
    return checkpoint.load(path, like)


def save_state(config: Config, runner: Runner) -> None:
    """Write what `resume` needs, without the runs that only fill the devices."""
    runner = jax.tree.map(lambda x: np.asarray(x)[: len(config.runs)], runner)
    checkpoint.save(config.folder / checkpoint.STATE, runner, {"runs": config.runs})


class Stop:
    """Becomes true when Ctrl-C or a termination is asked for the first time; the second time it is obeyed at once."""

    def __init__(self):
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, *_) -> None:
        """Handle a signal."""
        tqdm.write("Stopping after this call of the program; once more to stop at once, without saving.")
        self.asked = True
        self.__exit__()


def print_summary(config: Config) -> None:
    """A line per arm: mean over its seeds of the training episodes' return, first and last update, and its parts."""
    with (config.folder / METRICS_CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    updates = "1", str(config.num_updates)
    print(f"{'arm':<14}{'update':>7}{'return':>10}" + "".join(f"{part.upper():>10}" for part in PARTS))
    for arm in config.arm:
        for update in updates:
            chosen = [row for row in rows if row["arm"] == arm and row["update"] == update]
            means = [np.mean([float(row[name]) for row in chosen]) for name in ("return", *PARTS)]
            print(f"{arm:<14}{update:>7}" + "".join(f"{x:>10.1f}" for x in means))
    print("Mean over seeds; returns contain the multipliers of the arm's banks, so compare arms by evaluation only.")


if __name__ == "__main__":
    main()
