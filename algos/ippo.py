"""Independent PPO (IPPO) for the five blue agents of CAGE Challenge 4: one shared network, every arm and seed at once.

    python algos/ippo.py --arm C11

PPO of Schulman et al. 2017 (arXiv 1707.06347), as in the environment diversity study. The choices that matter:
one actor-critic for all agents; invalid actions masked; a rollout is one whole episode, its end is terminal (no
bootstrap); the team reward divided by the running deviation of its discounted return; advantages normalised in each
minibatch; value loss unclipped; constant learning rate. Samples of busy agents are samples like any other.

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

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        samples = self.steps_per_update * NUM_BLUE
        if samples % self.num_minibatches:
            raise UserError(
                f"num_minibatches = {self.num_minibatches} does not divide the {samples} samples of an update."
            )


@jax.custom_vjp
def bfloat16_product(x: Shaped[Array, "row in"], w: Float32[Array, "out in"]) -> Float32[Array, "row out"]:
    """x @ w.T with factors rounded to bfloat16 and sums in float32, forward and backward."""
    return multiply(x, w, (1, 1))


def multiply(a: Shaped[Array, "a b"], b: Shaped[Array, "c d"], axes: tuple[int, int]) -> Float32[Array, "e f"]:
    """Sum over one axis of each factor."""
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=jnp.float32)


def product_forward(x, w):
    return bfloat16_product(x, w), (x, w)


def product_backward(factors, gradient):
    """Gradients of both factors. In parts, as XLA folds one `x.T` into a product 1.5 times slower on a CPU."""
    x, w = factors
    parts = 5 if jax.default_backend() == "cpu" else 1
    columns = jnp.array_split(x.T, parts, axis=1), jnp.array_split(gradient, parts)
    for_w = sum(multiply(*part, (1, 0)) for part in zip(*columns, strict=True)).T
    return multiply(gradient, w, (1, 0)).astype(x.dtype), for_w


bfloat16_product.defvjp(product_forward, product_backward)


class ActorCritic(eqx.Module):
    """Two tanh layers, then the logits of the actions and the value. All leaves are arrays."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear
    precision: str = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, num_obs: int, num_actions: int, hidden: int, precision: str):
        self.precision = precision
        key_first, key_second, key_actor, key_critic = jax.random.split(key, 4)
        self.first = orthogonal(key_first, num_obs, hidden, 2**0.5)
        self.second = orthogonal(key_second, hidden, hidden, 2**0.5)
        self.actor = orthogonal(key_actor, hidden, num_actions, 0.01)
        self.critic = orthogonal(key_critic, hidden, 1, 1.0)

    def __call__(
        self, vector: UInt8[Array, "sample obs"], mask: Bool[Array, "sample action"]
    ) -> tuple[Float[Array, "sample action"], Float[Array, "sample"]]:
        """Logits of the actions, the lowest number for those that the mask forbids, and values of observations."""
        x = vector.astype(jnp.float32)
        for layer in (self.first, self.second):
            x = jnp.tanh(self.product(x, layer.weight) + layer.bias)
        heads = self.actor, self.critic
        weight, bias = (jnp.concatenate([getattr(head, name) for head in heads]) for name in ("weight", "bias"))
        out = self.product(x, weight) + bias
        logits = jnp.where(mask, out[:, :-1], jnp.finfo(out.dtype).min)
        return logits, out[:, -1]

    def product(self, x: Float[Array, "sample in"], weight: Float[Array, "out in"]) -> Float[Array, "sample out"]:
        """A matrix product in the network's precision."""
        return bfloat16_product(x, weight) if self.precision == "bfloat16" else x @ weight.T

    @property
    def sizes(self) -> dict[str, int | str]:
        """What `__init__` was called with, besides the key."""
        (hidden, num_obs), num_actions = self.first.weight.shape, len(self.actor.bias)
        return {"num_obs": num_obs, "num_actions": num_actions, "hidden": hidden, "precision": self.precision}

    def begin(self, num_agents: int) -> tuple[()]:
        """What the agents remember before their first step: nothing, ever."""
        return ()

    def think(
        self, memory: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """Memory after a step of an episode, and the logits to act by."""
        return memory, self(vector, mask)[0]


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
        logits, value = network(vector.reshape(-1, vector.shape[-1]), mask.reshape(-1, mask.shape[-1]))
        action, log_prob = sample(logits, u)
        action, log_prob, value = (x.reshape(mask.shape[:2]) for x in (action, log_prob, value))
        obs, state, reward, parts = jax.vmap(env.step)(keys, state, action)
        return (obs.vector, state), Transition(vector, action.astype(jnp.uint8), log_prob, value, reward, parts)

    _, traj = jax.lax.scan(step, (obs.vector, state), (u, keys_env))
    return traj, mask


def sample(
    logits: Float[Array, "sample action"], u: Float[Array, "sample"]
) -> tuple[Int32[Array, "sample"], Float[Array, "sample"]]:
    """An action for each row of logits and its log-probability, by inversion of one uniform number on [0, 1).

    An action whose weight rounds to zero is never taken. `distrax.Categorical.sample` draws a number for each of the
    242 actions and normalises the logits again, which takes longer than a step of the game.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    stops = jnp.cumsum(jnp.exp(shifted), axis=-1)
    total = stops[:, -1]
    action = (stops <= (u * total)[:, None]).sum(axis=-1, dtype=jnp.int32)
    return action, jnp.take_along_axis(shifted, action[:, None], axis=-1)[:, 0] - jnp.log(total)


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
    logits, value = network(batch.vector, mask)
    policy = distrax.Categorical(logits=logits)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
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


def init(config: Config, obs: PyTree, seed: UInt32[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    network = ActorCritic(key_network, obs.vector.shape[-1], obs.mask.shape[-1], config.hidden, config.precision)
    return Runner(network, optimiser(config).init(network), RewardStats(), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: Runner) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """One rollout and what is learned from it. If that is not finite, the runner is handed back as it was."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)
    stats, reward = normalise(runner.reward_stats, traj.reward, config.gamma, config.reward_clip)
    reward = jnp.broadcast_to(reward[..., None], traj.value.shape)
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    columns = traj.vector, traj.action, traj.log_prob, advantage, target
    samples = Batch(*(x.reshape(traj.action.size, *x.shape[3:]) for x in columns))
    learned, logs = learn(config, runner, samples, mask.reshape(-1, mask.shape[-1]), key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs |= {"reward_scale": jnp.sqrt(stats.var), "learning_rate": jnp.float32(config.learning_rate)}
    learned = dataclasses.replace(learned, reward_stats=stats, update=runner.update + 1)
    good = jnp.isfinite(logs["loss"]) & jnp.isfinite(logs["grad_norm"])
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


ALGORITHM = training.Algorithm("ippo", Config, init, update)

if __name__ == "__main__":
    training.main(ALGORITHM)
