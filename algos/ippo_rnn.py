"""Independent PPO with memory for the five blue agents of CAGE Challenge 4: each has a gated recurrent unit (GRU).

    python algos/ippo_rnn.py --arm C11

The game is partially observed and an alert lasts one step: here an agent can remember it. As `ippo.py` in all but the
network and the samples. A GRU stands where the second layer was, and begins every episode empty. A sample is a piece of
an agent's episode, through which the gradient flows back; a piece begins with what the agent remembered in the rollout.

Everything is written for one run (one arm with one seed); `purecc4.training`, which changes nothing of what is learned,
puts the runs on a mapped axis, talks to the user and keeps the files.
"""

import dataclasses
from functools import partial

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, PyTree, Shaped, UInt8, UInt32

from envs.cc4.constants import NUM_BLUE
from purecc4.errors import UserError
from purecc4.train import training
from purecc4.train.training import Env


@dataclasses.dataclass(frozen=True)
class Config(training.Settings):
    """What is optimised, with the study's numbers; a run is 48 envs of 500 steps an update (`training.Settings`)."""

    learning_rate: float = 3e-4
    """Adam's step size, constant (per optimiser step)."""
    adam_eps: float = 1e-5
    """Adam's epsilon (gradient units)."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm (gradient units)."""
    update_epochs: int = 4
    """Passes over the samples of an update (epochs)."""
    num_minibatches: int = 16
    """Parts that each pass is cut into (minibatches); must divide num_envs x num_steps / piece x 5."""
    piece: int = 25
    """Length of a sample, through which the gradient flows back; must divide num_steps (env steps)."""
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
    """Width of the layer before the memory (units)."""
    memory: int = 128
    """Width of the memory (units)."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        if self.num_steps % self.piece:
            raise UserError(f"piece = {self.piece} does not divide the {self.num_steps} steps of an episode.")
        samples = self.steps_per_update // self.piece * NUM_BLUE
        if samples % self.num_minibatches:
            raise UserError(
                f"num_minibatches = {self.num_minibatches} does not divide the {samples} samples of an update."
            )


class ActorCritic(eqx.Module):
    """A tanh layer, a GRU, then the logits of the actions and the value. All leaves are arrays."""

    first: eqx.nn.Linear
    cell: eqx.nn.GRUCell
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_obs: int, num_actions: int, hidden: int, memory: int):
        key_first, key_cell, key_actor, key_critic = jax.random.split(key, 4)
        self.first = orthogonal(key_first, num_obs, hidden, 2**0.5)
        self.cell = eqx.nn.GRUCell(hidden, memory, key=key_cell)
        self.actor = orthogonal(key_actor, memory, num_actions, 0.01)
        self.critic = orthogonal(key_critic, memory, 1, 1.0)

    def __call__(
        self,
        memory: Float[Array, "sample memory"],
        vector: UInt8[Array, "step sample obs"],
        mask: Bool[Array, "sample action"],
    ) -> tuple[Float[Array, "sample memory"], distrax.Categorical, Float[Array, "step sample"]]:
        """Memory after some steps of a batch of agents, and their policy and value in each step."""
        x = jnp.tanh(over(self.first, vector.astype(jnp.float32)))

        def step(memory, x):
            memory = jax.vmap(self.cell)(x, memory)
            return memory, memory

        memory, remembered = jax.lax.scan(step, memory, x)
        logits = over(self.actor, remembered)
        policy = distrax.Categorical(logits=jnp.where(mask, logits, jnp.finfo(logits.dtype).min))
        return memory, policy, over(self.critic, remembered)[..., 0]

    @property
    def sizes(self) -> dict[str, int]:
        """What `__init__` was called with, besides the key."""
        (hidden, num_obs), (num_actions, memory) = self.first.weight.shape, self.actor.weight.shape
        return {"num_obs": num_obs, "num_actions": num_actions, "hidden": hidden, "memory": memory}

    def begin(self, num_agents: int) -> Float[Array, "blue memory"]:
        """What the agents remember before their first step: zeros."""
        return jnp.zeros((num_agents, self.cell.hidden_size))

    def think(
        self, memory: Float[Array, "blue memory"], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Float[Array, "blue memory"], Float[Array, "blue action"]]:
        """Memory after a step of an episode, and the logits to act by."""
        memory, policy, _ = self(memory, vector[None], mask)
        return memory, policy.logits[0]


def over(layer: eqx.nn.Linear, x: Float[Array, "step sample _"]) -> Float[Array, "step sample _"]:
    """A layer for all samples of all steps."""
    return jax.vmap(jax.vmap(layer))(x)


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
    """Samples of a minibatch, or all of an update: pieces of agents' episodes."""

    memory: Float[Array, "sample memory"]
    """At the beginning of the piece."""
    vector: UInt8[Array, "sample step obs"]
    action: UInt8[Array, "sample step"]
    log_prob: Float[Array, "sample step"]
    advantage: Float[Array, "sample step"]
    target: Float[Array, "sample step"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Float[Array, "piece agent memory"], Bool[Array, "env blue action"]]:
    """One episode in every environment, what was remembered at the beginning of each piece of it, and the action masks,
    which are constant in an episode. An agent is one of one environment."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, mask.shape[0] * mask.shape[1]))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(carry, now):
        memory, vector, state = carry
        u, keys = now
        rows = vector.reshape(1, -1, vector.shape[-1])
        memory, policy, value = network(memory, rows, mask.reshape(-1, mask.shape[-1]))
        action = sample(policy.probs[0], u)
        log_prob = policy.log_prob(action[None])
        action, log_prob, value = (x.reshape(mask.shape[:2]) for x in (action, log_prob, value))
        obs, state, reward, parts = jax.vmap(env.step)(keys, state, action)
        return (memory, obs.vector, state), Transition(vector, action.astype(jnp.uint8), log_prob, value, reward, parts)

    def piece(carry, now):
        after, traj = jax.lax.scan(step, carry, now)
        return after, (traj, carry[0])

    chance = jax.tree.map(lambda x: x.reshape(-1, config.piece, *x.shape[1:]), (u, keys_env))
    _, (traj, memory) = jax.lax.scan(piece, (network.begin(u.shape[1]), obs.vector, state), chance)
    return jax.tree.map(lambda x: x.reshape(config.num_steps, *x.shape[2:]), traj), memory, mask


def cut(x: Shaped[Array, "step env blue *rest"], piece: int) -> Shaped[Array, "sample piece *rest"]:
    """Pieces of all agents' episodes: the first of every agent, then the second, and so on."""
    num_steps, num_envs, num_blue, *rest = x.shape
    x = x.reshape(num_steps // piece, piece, num_envs * num_blue, *rest)
    return jnp.moveaxis(x, 1, 2).reshape(-1, piece, *rest)


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
    _, policy, value = network(batch.memory, jnp.moveaxis(batch.vector, 1, 0), mask)
    log_ratio = policy.log_prob(batch.action.T) - batch.log_prob.T
    ratio = jnp.exp(log_ratio)
    advantage = ((batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)).T
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.mean((value - batch.target.T) ** 2)
    entropy = -jnp.sum(jnp.exp(policy.logits) * policy.logits, axis=-1).mean()
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
    config: Config, runner: Runner, samples: Batch, masks: Bool[Array, "agent action"], key: PRNGKeyArray
) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """Epochs of minibatches, each epoch one permutation of all samples. Sample i is of agent i mod env x blue."""

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        grads, logs = jax.grad(ppo_loss, has_aux=True)(network, batch, masks[index % len(masks)], config)
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser(config).update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        return (optax.apply_updates(network, updates), opt_state), logs | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.action))
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), logs = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, logs)


def init(config: Config, obs: PyTree, seed: UInt32[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    num_obs, num_actions = obs.vector.shape[-1], obs.mask.shape[-1]
    network = ActorCritic(key_network, num_obs, num_actions, config.hidden, config.memory)
    return Runner(network, optimiser(config).init(network), RewardStats(), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: Runner) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """One rollout and what is learned from it. If that is not finite, the runner is handed back as it was."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))
    traj, memory, mask = rollout(config, env, runner.network, arm, key_rollout)
    stats, reward = normalise(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
    reward = jnp.broadcast_to(reward[..., None], traj.value.shape)
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    pieces = (cut(x, config.piece) for x in (traj.vector, traj.action, traj.log_prob, advantage, target))
    samples = Batch(memory.reshape(-1, memory.shape[-1]), *pieces)
    learned, logs = learn(config, runner, samples, mask.reshape(-1, mask.shape[-1]), key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs |= {"reward_scale": jnp.sqrt(stats.var), "learning_rate": jnp.float32(config.learning_rate)}
    learned = dataclasses.replace(learned, reward_stats=stats, update=runner.update + 1)
    good = jnp.isfinite(logs["loss"]) & jnp.isfinite(logs["grad_norm"])
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


ALGORITHM = training.Algorithm("ippo_rnn", Config, init, update)

if __name__ == "__main__":
    training.main(ALGORITHM)
