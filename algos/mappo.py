"""Multi-agent PPO (MAPPO) for the five blue agents of CAGE Challenge 4: a central critic, one shared actor.

    python algos/mappo.py --arm C11

The central critic of Yu et al. 2022 (arXiv 2103.01955); everything else is as in `ippo.py`. The critic sees the
observations of all five agents and gives one value, because the reward is the team's. Each agent still acts on its own
observation, and its actions are weighted with the team's advantage. A sample is the team in one step. Value
normalisation, value clipping and the Huber loss of the paper are left out.

The whole algorithm is in this file, written for one run: one arm with one seed. `purecc4.train` maps it over all arms
and seeds (docs/algorithms.md has that in plain JAX), and adds devices, checkpoints, progress and tables.
"""

import dataclasses
from functools import partial
from typing import ClassVar

import purecc4  # noqa: F401  # isort: skip  # handles Ctrl-C while the libraries load
import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, PyTree, ScalarLike, UInt8, UInt32

from purecc4 import minibatches
from purecc4.arms.env import Env
from purecc4.moments import RunningMeanVar, merge
from purecc4.nn import MemorylessPolicy, linear, orthogonal
from purecc4.sampling import sample
from purecc4.train import command_line, devices
from purecc4.train.runs import Algorithm, Metrics, make_env
from purecc4.train.settings import Settings, Tunable


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Hyperparameters, defaulting to the study's."""

    algorithm: ClassVar[str] = "mappo"

    precision: devices.Precision = "auto"
    """Matmul input precision; everything else is float32. auto: bfloat16 if the hardware multiplies it."""
    learning_rate: Tunable = 3e-4
    """Adam learning rate, constant."""
    adam_eps: Tunable = 1e-5
    """Adam epsilon."""
    max_grad_norm: Tunable = 0.5
    """Gradients are clipped to this global norm."""
    update_epochs: int = 4
    """Passes over the samples of an update."""
    num_minibatches: int = 16
    """Minibatches per epoch; must divide num_envs x num_steps."""
    gamma: Tunable = 0.99
    """Discount per step."""
    gae_lambda: Tunable = 0.95
    """GAE decay per step."""
    clip_eps: Tunable = 0.2
    """Clip range of the probability ratio."""
    vf_coef: Tunable = 0.5
    """Weight of the value loss, half the mean squared error."""
    ent_coef: Tunable = 0.01
    """Weight of the entropy bonus, per nat."""
    reward_clip: Tunable = 10.0
    """Normalised rewards are clipped to this magnitude."""
    hidden: int = 256
    """Units in each of the two hidden layers, of the actor and of the critic."""

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        minibatches.check(self.num_minibatches, self.steps_per_update)


class ActorCritic(MemorylessPolicy):
    """Two networks of two tanh layers: logits from one agent's observation, a value from all. All leaves are arrays."""

    actor: tuple[eqx.nn.Linear, ...]
    critic: tuple[eqx.nn.Linear, ...]
    precision: str = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        num_blue: int,
        num_obs: int,
        num_actions: int,
        hidden: int,
        precision: str = "float32",
    ):
        self.precision = precision
        key_actor, key_critic = jax.random.split(key)
        self.actor = layers(key_actor, num_obs, hidden, num_actions, 0.01)
        self.critic = layers(key_critic, num_blue * num_obs, hidden, 1, 1.0)

    def __call__(
        self, obs: UInt8[Array, "sample blue obs"], mask: Bool[Array, "sample blue action"]
    ) -> tuple[Float[Array, "sample blue action"], Float[Array, "sample"]]:
        """Action logits of every agent, with the lowest float for masked actions, and values of the team."""
        rows = obs.reshape(-1, obs.shape[-1]), mask.reshape(-1, mask.shape[-1])
        _, logits = self.logits((), *rows)
        value = forward(self.critic, obs.reshape(len(obs), -1), self.precision)[:, 0]
        return logits.reshape(mask.shape), value

    def logits(
        self, carry: tuple[()], obs: UInt8[Array, "agent obs"], mask: Bool[Array, "agent action"]
    ) -> tuple[tuple[()], Float[Array, "agent action"]]:
        """The carry, and action logits of agents on their own; masked actions have the lowest float."""
        out = forward(self.actor, obs, self.precision)
        return carry, jnp.where(mask, out, jnp.finfo(out.dtype).min)

    @property
    def init_kwargs(self) -> dict[str, int | str]:
        """Arguments of `__init__` except the key; saved in checkpoints."""
        (hidden, num_obs), num_actions = self.actor[0].weight.shape, len(self.actor[-1].bias)
        num_blue = self.critic[0].weight.shape[1] // num_obs
        sizes = {"num_blue": num_blue, "num_obs": num_obs, "num_actions": num_actions, "hidden": hidden}
        return sizes | {"precision": self.precision}


def layers(key: PRNGKeyArray, num_in: int, hidden: int, num_out: int, scale: float) -> tuple[eqx.nn.Linear, ...]:
    """Two hidden layers, and an output layer of gain `scale`."""
    key_first, key_second, key_last = jax.random.split(key, 3)
    first = orthogonal(key_first, num_in, hidden, 2**0.5)
    second = orthogonal(key_second, hidden, hidden, 2**0.5)
    return first, second, orthogonal(key_last, hidden, num_out, scale)


def forward(layers: tuple[eqx.nn.Linear, ...], obs: UInt8[Array, "row in"], precision: str) -> Float[Array, "row out"]:
    """Apply layers, with tanh after all but the last."""
    *hidden, last = layers
    x = obs.astype(jnp.float32)
    for layer in hidden:
        x = jnp.tanh(linear(layer, x, precision))
    return linear(last, x, precision)


class RunnerState(eqx.Module):
    """State of a run between updates. It holds no environment state: an update plays whole episodes."""

    network: ActorCritic
    opt_state: PyTree
    reward_stats: RunningMeanVar
    seed: UInt32[Array, ""]
    update: Int32[Array, ""]
    """Updates done."""


class Transition(eqx.Module):
    """One step of a rollout. Small dtypes: the observations of an update take 25 MB."""

    obs: UInt8[Array, "*step env blue obs"]
    action: UInt8[Array, "*step env blue"]
    log_prob: Float[Array, "*step env blue"]
    value: Float[Array, "*step env"]
    """Value of the team."""
    reward: Float[Array, "*step env"]
    """Team reward, not normalised."""
    reward_terms: dict[str, Float[Array, "*step env"]]
    """Its terms by name, and `overflow`, the entries that the simulator's tables dropped."""


class Batch(eqx.Module):
    """Samples of an update or of a minibatch; a sample is the team in one step."""

    obs: UInt8[Array, "sample blue obs"]
    action: UInt8[Array, "sample blue"]
    log_prob: Float[Array, "sample blue"]
    advantage: Float[Array, "sample"]
    target: Float[Array, "sample"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Bool[Array, "env blue action"]]:
    """Play one episode in every environment. Returns its steps and the action masks, constant in an episode."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, mask.shape[0] * mask.shape[1]))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(carry, now):
        obs, state = carry
        u, keys = now
        # select actions
        logits, value = network(obs, mask)
        action, log_prob = sample(logits.reshape(-1, mask.shape[-1]), u)
        action, log_prob = action.reshape(mask.shape[:2]), log_prob.reshape(mask.shape[:2])
        # step environments
        after, state, reward, _, terms = jax.vmap(env.step)(keys, state, action)
        return (after.flat, state), Transition(obs, action.astype(jnp.uint8), log_prob, value, reward, terms)

    _, traj = jax.lax.scan(step, (obs.flat, state), (u, keys_env))
    return traj, mask


def normalise_rewards(
    stats: RunningMeanVar, reward: Float[Array, "step env"], gamma: ScalarLike, clip: ScalarLike
) -> tuple[RunningMeanVar, Float[Array, "step env"]]:
    """Divide rewards by the running deviation of the discounted return, current step included; keep their mean."""

    def step(carry, reward):
        stats, discounted = carry
        discounted = gamma * discounted + reward
        stats = merge(stats, discounted)
        return (stats, discounted), jnp.clip(reward / (jnp.sqrt(stats.var) + 1e-8), -clip, clip)

    (stats, _), scaled = jax.lax.scan(step, (stats, jnp.zeros_like(reward[0])), reward)
    return stats, scaled


def gae(
    reward: Float[Array, "step *rest"], value: Float[Array, "step *rest"], gamma: ScalarLike, lam: ScalarLike
) -> Float[Array, "step *rest"]:
    """Generalised advantage estimates (Schulman et al. 2016) of whole episodes: the value after the last step is 0."""

    def step(carry, now):
        advantage, next_value = carry
        reward, value = now
        advantage = reward + gamma * next_value - value + gamma * lam * advantage
        return (advantage, value), advantage

    end = jnp.zeros_like(value[0])
    return jax.lax.scan(step, (end, end), (reward, value), reverse=True)[1]


def ppo_loss(
    network: ActorCritic, batch: Batch, mask: Bool[Array, "sample blue action"], config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """PPO loss of a minibatch."""
    # rerun network
    logits, value = network(batch.obs, mask)
    policy = distrax.Categorical(logits=logits)

    # policy loss
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    advantage = advantage[:, None]
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()

    # value loss
    value_loss = 0.5 * jnp.mean((value - batch.target) ** 2)

    entropy = -jnp.sum(jnp.exp(policy.logits) * policy.logits, axis=-1).mean()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    metrics = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    metrics |= {"approx_kl": jnp.mean(ratio - 1 - log_ratio)}
    return loss, metrics | {"clipfrac": jnp.mean(jnp.abs(ratio - 1) > config.clip_eps)}


def learn(
    config: Config, runner: RunnerState, samples: Batch, mask: Bool[Array, "env blue action"], key: PRNGKeyArray
) -> tuple[RunnerState, Metrics]:
    """Update the network in epochs of minibatches. Sample i is of environment i mod env."""
    optimiser = make_optimiser(config)

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        grads, metrics = jax.grad(ppo_loss, has_aux=True)(network, batch, mask[index % len(mask)], config)
        # clip by global norm
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser.update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        return (optax.apply_updates(network, updates), opt_state), metrics | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.action))
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), metrics = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, metrics)


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """Adam."""
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def init(config: Config, env: Env, seed: UInt32[Array, ""]) -> RunnerState:
    """State of a run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    obs, _ = jax.eval_shape(env.reset, key_network, jax.tree.map(lambda x: x[0], env.arms))
    precision = devices.precision(config.precision)
    network = ActorCritic(key_network, *obs.flat.shape, obs.mask.shape[-1], config.hidden, precision)
    return RunnerState(network, make_optimiser(config).init(network), RunningMeanVar(), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: RunnerState) -> tuple[RunnerState, Metrics]:
    """One update of one run: play an episode in every environment, then learn from it."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))

    # collect trajectories
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)

    # normalise rewards
    stats, reward = normalise_rewards(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)

    # calculate advantages
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    # update network
    columns = traj.obs, traj.action, traj.log_prob, advantage, target
    samples = Batch(*(x.reshape(traj.value.size, *x.shape[2:]) for x in columns))
    runner, metrics = learn(config, runner, samples, mask, key_learn)
    runner = dataclasses.replace(runner, reward_stats=stats, update=runner.update + 1)

    # log metrics
    metrics |= {name: x.sum(0).mean() for name, x in ({"return": traj.reward} | traj.reward_terms).items()}
    metrics["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    metrics |= {"reward_scale": jnp.sqrt(stats.var), "learning_rate": jnp.float32(config.learning_rate)}
    return runner, metrics


def make_train(config: Config, env: Env | None = None) -> Algorithm:
    """`init(seed)` and `update(arm, runner)` of one run, and the environment; `env` replaces CC4."""
    env = env or make_env(config)
    return Algorithm(partial(init, config, env), partial(update, config, env), env)


if __name__ == "__main__":
    command_line.main(Config, make_train)
