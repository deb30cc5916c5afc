"""Benchmarks of training and evaluation."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from purecc4 import minibatches
from purecc4.algos import ippo
from purecc4.arms.env import ArmEnv
from purecc4.bench import minibatch
from purecc4.bench.measure import Bench, bytes_of
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_OBS
from purecc4.play import episodes, policies
from purecc4.sampling import sample
from purecc4.train import devices, runs


class TrainingSetup:
    """`num_runs` runs of arm C11 by `algos/ippo.py`, on the devices that training uses."""

    def __init__(self, num_runs: int):
        self.config = ippo.Config(seeds=tuple(range(num_runs)))
        self.env = runs.make_env(self.config)
        on_cpu = jax.default_backend() == "cpu"
        self.sharding = devices.run_sharding(devices.runs_at_a_time(num_runs) if on_cpu else None)
        self.training = runs.map_over_runs(self.config, ippo.make_train, self.env)
        task, runner = self.training.start()
        self.task, self.runner = devices.shard_runs(task, self.sharding), devices.shard_runs(runner, self.sharding)
        self.steps = num_runs * self.config.steps_per_update

    def over_runs(self, function: Callable) -> Callable:
        """Map a function of one run over all runs."""
        return runs.over_runs(function, self.sharding)


def run_counts(bench: Bench) -> tuple[int, ...]:
    """Numbers of concurrent runs to benchmark."""
    if bench.quick:
        return (1,)
    return (1, 3, 27) if bench.on_gpu else (1, 3)


def learning(bench: Bench) -> None:
    """Measure training steps per second, and the time of each part of an update."""
    for num_runs in run_counts(bench):
        setup = TrainingSetup(num_runs)
        program = setup.over_runs(setup.training.update)
        update = bench.compile("training update", program, setup.task, setup.runner, runs=num_runs)
        seconds = bench.time(update, setup.task, setup.runner)
        bench.report_rate("train_steps", setup.steps, seconds, runs=num_runs, arm="C11")
        bench.report("update_s", seconds.wall, "s", part="all", runs=num_runs)
        parts_of_update(bench, setup, num_runs, seconds.wall)


def parts_of_update(bench: Bench, setup: TrainingSetup, num_runs: int, whole: float) -> None:
    """Time the parts of an update, each compiled as a separate program."""
    config, env = setup.config, setup.env
    key = jax.random.key(0)

    def rollout(arm, runner):
        return ippo.rollout(config, env, runner.network, arm, key)

    def prepare(traj, runner):
        _, reward = ippo.normalise_rewards(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
        return ippo.gae(jnp.broadcast_to(reward[..., None], traj.value.shape), traj.value, config.gamma, 0.95)

    def learn(runner, traj, mask, advantage):
        columns = traj.obs, traj.action, traj.log_prob, advantage, advantage + traj.value
        samples = ippo.Batch(*(x.reshape(traj.action.size, *x.shape[3:]) for x in columns))
        return ippo.learn(config, env, runner, samples, mask, key)

    play = jax.jit(setup.over_runs(rollout))
    seconds = {"rollout": bench.time(play, setup.task.arm, setup.runner).wall}
    traj, mask = play(setup.task.arm, setup.runner)
    bench.report("trajectory_bytes", bytes_of(traj) / len(traj.action), "bytes/run", runs=num_runs)
    steps = jax.jit(setup.over_runs(partial(env_alone, config, env, key)))
    seconds["step"] = bench.time(steps, setup.task.arm, traj).wall
    policy = jax.jit(setup.over_runs(partial(policy_alone, key)))
    seconds["policy"] = bench.time(policy, setup.runner, traj, mask).wall
    estimate = jax.jit(setup.over_runs(prepare))
    seconds["advantages"] = bench.time(estimate, traj, setup.runner).wall
    advantage = estimate(traj, setup.runner)
    fit = jax.jit(setup.over_runs(learn))
    seconds["minibatches"] = bench.time(fit, setup.runner, traj, mask, advantage).wall
    for part, value in seconds.items():
        bench.report("update_s", value, "s", part=part, runs=num_runs)
    minibatch.parts(bench, setup, num_runs, traj, mask, advantage)
    bench.report("update_to_minibatches", whole / seconds["minibatches"], "ratio", runs=num_runs)
    samples = num_runs * config.steps_per_update * NUM_BLUE * config.update_epochs
    rate = samples * flops_per_sample(config, env) / seconds["minibatches"]
    bench.report_share("minibatch_arithmetic", rate, "matmul_flops_per_s", runs=num_runs)


def flops_per_sample(config: ippo.Config, env: ArmEnv) -> float:
    """FLOPs of matrix products per sample of a minibatch, forward and backward. Observations need no gradient."""

    def flops(num_obs, num_actions):
        return 2 * config.hidden * (2 * num_obs + 3 * config.hidden + 3 * (num_actions + 1))

    rows = config.steps_per_update * NUM_BLUE // config.num_minibatches
    long = minibatches.long_rows(rows, NUM_BLUE) / rows
    return long * flops(NUM_OBS, NUM_ACTIONS) + (1 - long) * flops(*env.one_zone)


def env_alone(config: ippo.Config, env: ArmEnv, key: jax.Array, arm: PyTree, traj: ippo.Transition) -> PyTree:
    """Replay the episodes of a rollout with given actions."""
    key_reset, key_env = jax.random.split(key)
    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)

    def step(state, now):
        obs, state, reward, _, info = jax.vmap(env.step)(now[0], state, now[1].astype(jnp.int32))
        return state, (obs.flat, reward, info)

    keys = jax.random.split(key_env, (config.num_steps, config.num_envs))
    return jax.lax.scan(step, state, (keys, traj.action))[1]


def policy_alone(key: jax.Array, runner: ippo.RunnerState, traj: ippo.Transition, mask: jax.Array) -> PyTree:
    """Recompute the actions of a rollout from given observations."""
    rows = traj.obs.reshape(len(traj.obs), -1, traj.obs.shape[-1])
    mask = mask.reshape(-1, mask.shape[-1])

    def step(_, now):
        logits, value = runner.network(now[0], mask)
        return None, (sample(logits, now[1]), value)

    return jax.lax.scan(step, None, (rows, jax.random.uniform(key, rows.shape[:2])))[1]


def evaluation(bench: Bench) -> None:
    """Measure evaluation steps per second of a network against four reds."""
    reds, num_episodes = ("fsm", "cia_c", "cia_i", "cia_a"), 4 if bench.quick else 90
    network = ippo.ActorCritic(jax.random.key(0), NUM_OBS, NUM_ACTIONS, ippo.Config().hidden, devices.precision("auto"))
    policy, params = policies.Policy(network, jnp.float32(1)), episodes.stack_params(reds, 500)
    seed, numbers = jnp.uint32(1000), jnp.arange(num_episodes)
    seconds = bench.time(episodes.build(500), policy, params, seed, numbers, repeats=1)
    steps = len(reds) * num_episodes * 500
    bench.report_rate("evaluation_steps", steps, seconds, reds=len(reds), episodes=num_episodes)
