"""Independent PPO with memory for the five blue agents of CAGE Challenge 4: each has a gated recurrent unit (GRU).

    python algos/ippo_rnn.py --arm C11

The environment is partially observed and an alert lasts one step: memory lets an agent use it later. Differences from
`ippo.py`: a GRU replaces the second layer, its memory zero at the start of every episode; a sample is a sequence of
steps of one agent, through which gradients flow back, and which starts from the memory that the agent had in the
rollout.

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
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, PyTree, ScalarLike, Shaped, UInt8, UInt32

from purecc4 import minibatches
from purecc4.arms.env import Env
from purecc4.envs.cc4.constants import NUM_BLUE
from purecc4.errors import UserError
from purecc4.moments import RunningMeanVar, merge
from purecc4.nn import linear, orthogonal, product
from purecc4.sampling import sample
from purecc4.train import command_line, devices
from purecc4.train.runs import Algorithm, Metrics, make_env
from purecc4.train.settings import Settings, Tunable


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Hyperparameters, defaulting to the study's."""

    algorithm: ClassVar[str] = "ippo_rnn"

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
    """Minibatches per epoch; must divide num_envs x num_steps / sequence_length x 5."""
    sequence_length: int = 25
    """Steps per sample, through which gradients flow back; must divide num_steps."""
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
    """Units in the layer before the GRU."""
    memory: int = 128
    """Units in the GRU."""

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        if self.num_steps % self.sequence_length:
            raise UserError(
                f"sequence_length = {self.sequence_length} does not divide the {self.num_steps} steps of an episode."
            )
        sequences = self.steps_per_update // self.sequence_length * NUM_BLUE
        minibatches.check(self.num_minibatches, sequences, self.sequence_length)


class ActorCritic(eqx.Module):
    """A tanh layer, a GRU, then action logits and a value. All leaves are arrays."""

    first: eqx.nn.Linear
    cell: eqx.nn.GRUCell
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear
    precision: str = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        num_obs: int,
        num_actions: int,
        hidden: int,
        memory: int,
        precision: str = "float32",
    ):
        self.precision = precision
        key_first, key_cell, key_actor, key_critic = jax.random.split(key, 4)
        self.first = orthogonal(key_first, num_obs, hidden, 2**0.5)
        self.cell = eqx.nn.GRUCell(hidden, memory, key=key_cell)
        self.actor = orthogonal(key_actor, memory, num_actions, 0.01)
        self.critic = orthogonal(key_critic, memory, 1, 1.0)

    def __call__(
        self,
        memory: Float[Array, "sample memory"],
        obs: UInt8[Array, "step sample obs"],
        mask: Bool[Array, "sample action"],
    ) -> tuple[Float[Array, "sample memory"], Float[Array, "step sample action"], Float[Array, "step sample"]]:
        """Memory after the last step; action logits of each step, with the lowest float for masked actions; values."""
        x = obs.astype(jnp.float32)
        x = jnp.tanh(linear(self.first, x, self.precision))
        from_input = product(x, self.cell.weight_ih, self.precision) + self.cell.bias

        def step(memory, from_input):
            memory = self.gru(memory, from_input)
            return memory, memory

        memory, x = jax.lax.scan(step, memory, from_input)
        # one product for both heads
        weight = jnp.concatenate([self.actor.weight, self.critic.weight])
        bias = jnp.concatenate([self.actor.bias, self.critic.bias])
        out = product(x, weight, self.precision) + bias
        return memory, jnp.where(mask, out[..., :-1], jnp.finfo(out.dtype).min), out[..., -1]

    def gru(
        self, memory: Float[Array, "sample memory"], from_input: Float[Array, "sample gates"]
    ) -> Float[Array, "sample memory"]:
        """One step of `eqx.nn.GRUCell`, with its product in the network's precision."""
        reset, keep, new = jnp.split(from_input, 3, axis=-1)
        from_memory = product(memory, self.cell.weight_hh, self.precision)
        reset_memory, keep_memory, new_memory = jnp.split(from_memory, 3, axis=-1)
        reset, keep = jax.nn.sigmoid(reset + reset_memory), jax.nn.sigmoid(keep + keep_memory)
        new = jnp.tanh(new + reset * (new_memory + self.cell.bias_n))
        return new + keep * (memory - new)

    @property
    def init_kwargs(self) -> dict[str, int | str]:
        """Arguments of `__init__` except the key; saved in checkpoints."""
        (hidden, num_obs), (num_actions, memory) = self.first.weight.shape, self.actor.weight.shape
        sizes = {"num_obs": num_obs, "num_actions": num_actions, "hidden": hidden, "memory": memory}
        return sizes | {"precision": self.precision}

    def initial_carry(self, num_agents: int) -> Float[Array, "agent memory"]:
        """Carry at the start of an episode: zero memory."""
        return jnp.zeros((num_agents, self.cell.hidden_size))

    def logits(
        self, carry: Float[Array, "blue memory"], obs: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Float[Array, "blue memory"], Float[Array, "blue action"]]:
        """The carry after one step, and its action logits."""
        carry, logits, _ = self(carry, obs[None], mask)
        return carry, logits[0]

    def update_carry(
        self, carry: Float[Array, "blue memory"], action: Int32[Array, "blue"]
    ) -> Float[Array, "blue memory"]:
        """Update the carry after acting (no-op)."""
        return carry


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
    value: Float[Array, "*step env blue"]
    reward: Float[Array, "*step env"]
    """Team reward, not normalised."""
    reward_terms: dict[str, Float[Array, "*step env"]]
    """Its terms by name, and `overflow`, the entries that the simulator's tables dropped."""


class Batch(eqx.Module):
    """Samples of an update or of a minibatch; a sample is a sequence of steps of one agent."""

    memory: Float[Array, "sample memory"]
    """Memory before the first step, as in the rollout."""
    obs: UInt8[Array, "sample step obs"]
    action: UInt8[Array, "sample step"]
    log_prob: Float[Array, "sample step"]
    advantage: Float[Array, "sample step"]
    target: Float[Array, "sample step"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Float[Array, "sequence agent memory"], Bool[Array, "env blue action"]]:
    """Play one episode in every environment.

    Returns its steps, the memory at the start of each sequence (the axis `agent` is env x blue), and the action masks,
    which are constant in an episode.
    """
    key_reset, key_act, key_env = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, mask.shape[0] * mask.shape[1]))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(carry, now):
        memory, obs, state = carry
        u, keys = now
        # select actions
        rows = obs.reshape(1, -1, obs.shape[-1])
        memory, logits, value = network(memory, rows, mask.reshape(-1, mask.shape[-1]))
        action, log_prob = sample(logits[0], u)
        action, log_prob, value = (x.reshape(mask.shape[:2]) for x in (action, log_prob, value))
        # step environments
        after, state, reward, _, terms = jax.vmap(env.step)(keys, state, action)
        transition = Transition(obs, action.astype(jnp.uint8), log_prob, value, reward, terms)
        return (memory, after.flat, state), transition

    def sequence(carry, now):
        after, traj = jax.lax.scan(step, carry, now)
        return after, (traj, carry[0])

    random = jax.tree.map(lambda x: x.reshape(-1, config.sequence_length, *x.shape[1:]), (u, keys_env))
    first = network.initial_carry(u.shape[1]), obs.flat, state
    _, (traj, memory) = jax.lax.scan(sequence, first, random)
    return jax.tree.map(lambda x: x.reshape(config.num_steps, *x.shape[2:]), traj), memory, mask


def sequences(x: Shaped[Array, "step env blue *rest"], length: int) -> Shaped[Array, "sample {length} *rest"]:
    """Cut episodes into sequences of `length` steps: the first sequence of every agent, then the second, and so on."""
    num_steps, num_envs, num_blue, *rest = x.shape
    x = x.reshape(num_steps // length, length, num_envs * num_blue, *rest)
    return jnp.moveaxis(x, 1, 2).reshape(-1, length, *rest)


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
    network: ActorCritic, batch: Batch, mask: Bool[Array, "sample action"], config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """PPO loss of a minibatch."""
    # rerun network
    _, logits, value = network(batch.memory, jnp.moveaxis(batch.obs, 1, 0), mask)
    policy = distrax.Categorical(logits=logits)

    # policy loss
    log_ratio = policy.log_prob(batch.action.T) - batch.log_prob.T
    ratio = jnp.exp(log_ratio)
    advantage = ((batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)).T
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()

    # value loss
    value_loss = 0.5 * jnp.mean((value - batch.target.T) ** 2)

    entropy = -jnp.sum(jnp.exp(policy.logits) * policy.logits, axis=-1).mean()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    metrics = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    metrics |= {"approx_kl": jnp.mean(ratio - 1 - log_ratio)}
    return loss, metrics | {"clipfrac": jnp.mean(jnp.abs(ratio - 1) > config.clip_eps)}


def learn(
    config: Config, runner: RunnerState, samples: Batch, mask: Bool[Array, "env blue action"], key: PRNGKeyArray
) -> tuple[RunnerState, Metrics]:
    """Update the network in epochs of minibatches. Sample i is of agent i mod (env x blue)."""
    optimiser = make_optimiser(config)
    mask = mask.reshape(-1, mask.shape[-1])

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
    num_obs, num_actions = obs.flat.shape[-1], obs.mask.shape[-1]
    precision = devices.precision(config.precision)
    network = ActorCritic(key_network, num_obs, num_actions, config.hidden, config.memory, precision)
    return RunnerState(network, make_optimiser(config).init(network), RunningMeanVar(), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: RunnerState) -> tuple[RunnerState, Metrics]:
    """One update of one run: play an episode in every environment, then learn from it."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))

    # collect trajectories
    traj, memory, mask = rollout(config, env, runner.network, arm, key_rollout)

    # normalise rewards
    stats, reward = normalise_rewards(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
    reward = jnp.broadcast_to(reward[..., None], traj.value.shape)

    # calculate advantages
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    # update network
    columns = traj.obs, traj.action, traj.log_prob, advantage, target
    columns = (sequences(x, config.sequence_length) for x in columns)
    samples = Batch(memory.reshape(-1, memory.shape[-1]), *columns)
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
