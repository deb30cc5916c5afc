"""Multi-agent PPO (MAPPO) for the five blue agents of CAGE Challenge 4: a shared actor and one central critic.

    python algos/mappo.py --arm C11

The central critic of Yu et al. 2022 (arXiv 2103.01955), all else as in `ippo.py`, so that the critic is the only
difference: it sees the observations of all five agents side by side and gives the team one value, as the team has one
reward. Its advantages serve all five agents. Actors still act on their own observation alone. A sample is the team in
one step. Of the paper's further habits (value normalisation, value clipping, Huber loss) none is taken over.

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
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, PyTree, UInt8, UInt32

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
    """Parts that each pass is cut into (minibatches); must divide num_envs x num_steps."""
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
    """Width of the two hidden layers of the actor and of those of the critic (units)."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        if self.steps_per_update % self.num_minibatches:
            raise UserError(
                f"num_minibatches = {self.num_minibatches} does not divide the {self.steps_per_update} samples of an "
                "update."
            )


class ActorCritic(eqx.Module):
    """Two networks of two tanh layers: logits from one agent's observation, a value from all of them."""

    actor: tuple[eqx.nn.Linear, ...]
    critic: tuple[eqx.nn.Linear, ...]

    def __init__(self, key: PRNGKeyArray, num_blue: int, num_obs: int, num_actions: int, hidden: int):
        key_actor, key_critic = jax.random.split(key)
        self.actor = layers(key_actor, num_obs, hidden, num_actions, 0.01)
        self.critic = layers(key_critic, num_blue * num_obs, hidden, 1, 1.0)

    def __call__(
        self, vector: UInt8[Array, "sample blue obs"], mask: Bool[Array, "sample blue action"]
    ) -> tuple[distrax.Categorical, Float[Array, "sample"]]:
        """Policies of all agents and value of the team, of a batch of moments."""
        logits = forward(self.actor, vector.reshape(-1, vector.shape[-1])).reshape(mask.shape)
        return masked(logits, mask), forward(self.critic, vector.reshape(len(vector), -1))[:, 0]

    @property
    def sizes(self) -> dict[str, int]:
        """What `__init__` was called with, besides the key."""
        (hidden, num_obs), num_actions = self.actor[0].weight.shape, len(self.actor[-1].bias)
        num_blue = self.critic[0].weight.shape[1] // num_obs
        return {"num_blue": num_blue, "num_obs": num_obs, "num_actions": num_actions, "hidden": hidden}

    def begin(self, num_agents: int) -> tuple[()]:
        """What the agents remember before their first step: nothing, ever."""
        return ()

    def think(
        self, memory: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Memory after a step of an episode, and the logits to act by."""
        return memory, masked(forward(self.actor, vector), mask).logits


def layers(key: PRNGKeyArray, num_in: int, hidden: int, num_out: int, scale: float) -> tuple[eqx.nn.Linear, ...]:
    """Two hidden layers and an output layer with its own scale."""
    key_first, key_second, key_last = jax.random.split(key, 3)
    first, second = orthogonal(key_first, num_in, hidden, 2**0.5), orthogonal(key_second, hidden, hidden, 2**0.5)
    return first, second, orthogonal(key_last, hidden, num_out, scale)


def forward(layers: tuple[eqx.nn.Linear, ...], vector: UInt8[Array, "row _"]) -> Float[Array, "row _"]:
    """Tanh after all layers but the last."""
    *hidden, last = layers
    x = vector.astype(jnp.float32)
    for layer in hidden:
        x = jnp.tanh(jax.vmap(layer)(x))
    return jax.vmap(last)(x)


def masked(logits: Float[Array, "*rest action"], mask: Bool[Array, "*rest action"]) -> distrax.Categorical:
    """A policy that never takes what the mask forbids."""
    return distrax.Categorical(logits=jnp.where(mask, logits, jnp.finfo(logits.dtype).min))


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
    value: Float[Array, "*step env"]
    """Of the team."""
    reward: Float[Array, "*step env"]
    """Raw team reward."""
    parts: dict[str, Float[Array, "*step env"]]
    """What it is made of."""


class Batch(eqx.Module):
    """Samples of a minibatch, or all of an update: the team in one step."""

    vector: UInt8[Array, "sample blue obs"]
    action: UInt8[Array, "sample blue"]
    log_prob: Float[Array, "sample blue"]
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
        policy, value = network(vector, mask)
        action = sample(policy.probs.reshape(-1, mask.shape[-1]), u).reshape(mask.shape[:2])
        log_prob = policy.log_prob(action)
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
    network: ActorCritic, batch: Batch, mask: Bool[Array, "sample blue action"], config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped surrogate, half the squared value error and the entropy bonus; and what is logged of them."""
    policy, value = network(batch.vector, mask)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    advantage = advantage[:, None]
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.mean((value - batch.target) ** 2)
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
    config: Config, runner: Runner, samples: Batch, masks: Bool[Array, "env blue action"], key: PRNGKeyArray
) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """Epochs of minibatches, each epoch one permutation of all samples. Sample i was seen in environment i mod env."""

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        grads, logs = jax.grad(ppo_loss, has_aux=True)(network, batch, masks[index % len(masks)], config)
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser(config).update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        return (optax.apply_updates(network, updates), opt_state), logs | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.advantage))
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), logs = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, logs)


def init(config: Config, obs: PyTree, seed: UInt32[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    network = ActorCritic(key_network, *obs.vector.shape, obs.mask.shape[-1], config.hidden)
    return Runner(network, optimiser(config).init(network), RewardStats(), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: Runner) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """One rollout and what is learned from it. If that is not finite, the runner is handed back as it was."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)
    stats, reward = normalise(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    columns = traj.vector, traj.action, traj.log_prob, advantage, target
    samples = Batch(*(x.reshape(traj.value.size, *x.shape[2:]) for x in columns))
    learned, logs = learn(config, runner, samples, mask, key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs |= {"reward_scale": jnp.sqrt(stats.var), "learning_rate": jnp.float32(config.learning_rate)}
    learned = dataclasses.replace(learned, reward_stats=stats, update=runner.update + 1)
    good = jnp.isfinite(logs["loss"]) & jnp.isfinite(logs["grad_norm"])
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


ALGORITHM = training.Algorithm("mappo", Config, init, update)

if __name__ == "__main__":
    training.main(ALGORITHM)
