"""Independent PPO (IPPO) for the five blue agents of CAGE Challenge 4: one shared network, every arm and seed at once.

    python algos/ippo.py --arm C11

PPO of Schulman et al. 2017 (arXiv 1707.06347), as in the environment diversity study. The choices that matter:
one actor-critic for all agents; invalid actions masked; a rollout is one whole episode, its end is terminal (no
bootstrap); the team reward divided by the running deviation of its discounted return; advantages normalised in each
minibatch; value loss unclipped; constant learning rate. Samples of busy agents are samples like any other.

Everything that is learned, and from what, is in this file; `purecc4.train` only runs it and keeps the files. All but
the last part is written for one run (one arm with one seed); `make_train` maps it over all runs.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import purecc4  # noqa: F401  # isort: skip  # before the libraries, for Ctrl-C while they load
import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, PyTree, Shaped, UInt8, UInt32
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_BLUE, ONE_ZONE_ACTIONS, ONE_ZONE_OBS

from purecc4 import arms
from purecc4.errors import UserError
from purecc4.sampling import sample
from purecc4.train import command_line, definitions, devices
from purecc4.train.loop import Training
from purecc4.train.settings import Settings


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Every number that changes what is learned, as in the study. The flags of `Settings` change no result."""

    algorithm: ClassVar[str] = "ippo"

    arm: tuple[str, ...] = ("C11",)
    """Arms to train, one or more of those that `purecc4 arms` prints or `--define` has."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds to train each arm with. Equal seeds of different arms share their random numbers."""
    red: str = "fsm"
    """Red to train against: fsm, cia_c, cia_i, cia_a, discovery, sleep, or one of `--define`."""
    total_timesteps: int = 10_000_000
    """Env steps of each run, rounded down to whole updates. One step moves all five agents."""
    num_envs: int = 48
    """Environments of each run."""
    num_steps: int = 500
    """Env steps of an episode, and of a rollout, which is one episode."""
    precision: devices.Precision = "auto"
    """Of the factors of matrix products. Sums and all else are float32; auto is bfloat16 where the machine has it."""
    learning_rate: float = 3e-4
    """Step size of Adam, constant."""
    adam_eps: float = 1e-5
    """Epsilon of Adam."""
    max_grad_norm: float = 0.5
    """Gradients with a larger global norm are scaled down to it."""
    update_epochs: int = 4
    """Passes over the samples of an update."""
    num_minibatches: int = 16
    """Minibatches of each pass; must divide num_envs x num_steps x 5."""
    gamma: float = 0.99
    """Discount per env step."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation per env step."""
    clip_eps: float = 0.2
    """Clip range of the probability ratio."""
    vf_coef: float = 0.5
    """Weight of the value loss, which is half the mean squared error."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus, per nat."""
    reward_clip: float = 10.0
    """Normalised rewards are clipped to plus or minus this."""
    hidden: int = 256
    """Units of each of the two hidden layers."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        samples = self.steps_per_update * NUM_BLUE
        if samples % self.num_minibatches:
            raise UserError(
                f"num_minibatches = {self.num_minibatches} does not divide the {samples} samples of an update."
            )


class Env(NamedTuple):
    """What a run plays, written for one environment."""

    reset: Callable[..., Any]
    """(key, arm) -> (observation with .flat [blue obs] and .mask [blue action], state)"""
    step: Callable[..., Any]
    """(key, state, actions [blue]) -> (observation, state, reward, {part of the reward: its value, and `overflow`})"""
    arms: PyTree
    """Of `config.arm`, stacked on a leading axis."""
    narrow: tuple[int, int]
    """How much of an observation and of a mask all agents but the last use: what follows is 0, and forbidden."""


def make_env(config: Config) -> Env:
    """CAGE Challenge 4 against `config.red`. Every reset draws its episode from the banks of the run's arm."""
    own = definitions.load(config.define, config.folder)
    params = own.params(config.red, config.num_steps)

    def reset(key, arm):
        return cc4.start(arms.sample(key, arm, params))

    def step(key, state, action):
        obs, after, reward, _, info = cc4.step(key, state, action, params)
        dropped = (after.overflow - state.overflow).astype(jnp.float32)
        return obs, after, reward, vars(info.rewards) | {"overflow": dropped}

    return Env(reset, step, arms.build(config.arm, own.arms, config.num_steps), (ONE_ZONE_OBS, ONE_ZONE_ACTIONS))


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
    """Gradients of both factors. On a CPU in parts, as XLA folds one `x.T` into a product 1.5 times slower there."""
    x, w = factors

    def in_parts(x, gradient, parts):
        columns = jnp.array_split(x.T, parts, axis=1), jnp.array_split(gradient, parts)
        return sum(multiply(*part, (1, 0)) for part in zip(*columns, strict=True)).T

    for_w = jax.lax.platform_dependent(x, gradient, cpu=partial(in_parts, parts=5), default=partial(in_parts, parts=1))
    return multiply(gradient, w, (1, 0)).astype(x.dtype), for_w


bfloat16_product.defvjp(product_forward, product_backward)


def product(x: Shaped[Array, "*row in"], w: Float[Array, "out in"], precision: str) -> Float[Array, "*row out"]:
    """x @ w.T with its factors in a precision."""
    if precision == "bfloat16":
        return bfloat16_product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], len(w))
    return x @ w.T


class ActorCritic(eqx.Module):
    """Two tanh layers, then the logits of the actions and the value. All leaves are arrays."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    actor: eqx.nn.Linear
    critic: eqx.nn.Linear
    precision: str = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, num_obs: int, num_actions: int, hidden: int, precision: str = "float32"):
        self.precision = precision
        key_first, key_second, key_actor, key_critic = jax.random.split(key, 4)
        self.first = orthogonal(key_first, num_obs, hidden, 2**0.5)
        self.second = orthogonal(key_second, hidden, hidden, 2**0.5)
        self.actor = orthogonal(key_actor, hidden, num_actions, 0.01)
        self.critic = orthogonal(key_critic, hidden, 1, 1.0)

    def __call__(
        self, vector: UInt8[Array, "sample obs"], mask: Bool[Array, "sample action"]
    ) -> tuple[Float[Array, "sample action"], Float[Array, "sample"]]:
        """Logits of the actions, the lowest number for those that the mask forbids, and values of observations.

        Both may be shorter than those that the network is made for: what is left out is 0, or forbidden.
        """
        x = vector.astype(jnp.float32)
        first = self.first.weight[:, : x.shape[1]]
        for weight, bias in ((first, self.first.bias), (self.second.weight, self.second.bias)):
            x = jnp.tanh(product(x, weight, self.precision) + bias)
        heads = (self.actor.weight, self.critic.weight), (self.actor.bias, self.critic.bias)
        weight, bias = (jnp.concatenate([actor[: mask.shape[1]], critic]) for actor, critic in heads)
        out = product(x, weight, self.precision) + bias
        logits = jnp.where(mask, out[:, :-1], jnp.finfo(out.dtype).min)
        return logits, out[:, -1]

    @property
    def init_kwargs(self) -> dict[str, int | str]:
        """Arguments of `__init__` besides the key, kept in every checkpoint."""
        (hidden, num_obs), num_actions = self.first.weight.shape, len(self.actor.bias)
        return {"num_obs": num_obs, "num_actions": num_actions, "hidden": hidden, "precision": self.precision}

    def initial_carry(self, num_agents: int) -> tuple[()]:
        """What the agents remember at the start of an episode: nothing."""
        return ()

    def logits(
        self, carry: tuple[()], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[tuple[()], Float[Array, "blue action"]]:
        """For evaluation: the carry after a step of an episode, and the logits of its actions."""
        return carry, self(vector, mask)[0]

    def remember(self, carry: tuple[()], action: Int32[Array, "blue"]) -> tuple[()]:
        """For evaluation: the carry with the actions that were taken, of which nothing is kept."""
        return carry


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
    """What it is made of, and `overflow`, what the tables of the simulator had to drop."""


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
        return (obs.flat, state), Transition(vector, action.astype(jnp.uint8), log_prob, value, reward, parts)

    _, traj = jax.lax.scan(step, (obs.flat, state), (u, keys_env))
    return traj, mask


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


def judge(
    network: ActorCritic, batch: Batch, mask: Bool[Array, "sample action"]
) -> tuple[Float[Array, "sample"], Float[Array, "sample"], Float[Array, "sample"]]:
    """Of each sample the log-probability of its action and the entropy, in nats, and the value."""
    logits, value = network(batch.vector, mask)
    policy = distrax.Categorical(logits=logits)
    entropy = -jnp.sum(jnp.exp(policy.logits) * policy.logits, axis=-1)
    return policy.log_prob(batch.action), entropy, value


def ppo_loss(
    network: ActorCritic, groups: Sequence[tuple[Batch, Bool[Array, "_ _"]]], config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped surrogate, half the squared value error and the entropy bonus of a minibatch; and what is logged of them.

    The minibatch is all groups together, each with observations and masks of one length.
    """
    judged = [(*judge(network, batch, mask), batch.log_prob, batch.advantage, batch.target) for batch, mask in groups]
    log_prob, entropy, value, old, advantage, target = map(jnp.concatenate, zip(*judged, strict=True))
    log_ratio = log_prob - old
    ratio = jnp.exp(log_ratio)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.mean((value - target) ** 2)
    entropy = entropy.mean()
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


def wide_rows(rows: int, num_blue: int) -> int:
    """Rows of a minibatch that are as long as the last agent's samples need it.

    How many of its samples a minibatch has is chance: the mean and eight deviations, which one in 1e15 exceeds.
    """
    return min(rows, math.ceil(rows / num_blue + 8 * (rows * (num_blue - 1)) ** 0.5 / num_blue))


def shuffle(
    key: PRNGKeyArray, epochs: int, minibatches: int, size: int, num_blue: int
) -> Int32[Array, "minibatch row"]:
    """The samples of every minibatch, the last agent's first. Each epoch is one permutation of all."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(epochs))
    order = jax.vmap(jax.random.permutation, (0, None))(keys, size).reshape(epochs * minibatches, -1)
    return jnp.sort(jnp.where(order % num_blue == num_blue - 1, order, order + size)) % size


def learn(
    config: Config, env: Env, runner: Runner, samples: Batch, mask: Bool[Array, "env blue action"], key: PRNGKeyArray
) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """Epochs of minibatches. Sample i was seen at place i mod env x blue.

    The rows after those that the last agent needs are cut to the length of the others' samples. That saves three
    tenths of all products, and the gradient, a sum over the samples of the minibatch, is the same.
    """
    weights, unravel = ravel_pytree(runner.network)
    size, (_, num_blue, num_actions) = samples.action.size, mask.shape
    mask = mask.reshape(-1, num_actions)
    order = shuffle(key, config.update_epochs, config.num_minibatches, size, num_blue)
    wide = wide_rows(order.shape[1], num_blue)

    def group(index, num_obs, num_actions):
        batch = jax.tree.map(lambda x: x[index], dataclasses.replace(samples, vector=samples.vector[:, :num_obs]))
        return batch, mask[index % len(mask), :num_actions]

    def minibatch(carry, index):
        weights, opt_state = carry
        groups = group(index[:wide], None, None), group(index[wide:], *env.narrow)
        grads, logs = jax.grad(lambda w: ppo_loss(unravel(w), groups, config), has_aux=True)(weights)
        norm = jnp.linalg.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser(config).update(grads * scale, opt_state)
        return (weights + updates, opt_state), logs | {"grad_norm": norm}

    (weights, opt_state), logs = jax.lax.scan(minibatch, (weights, runner.opt_state), order)
    runner = dataclasses.replace(runner, network=unravel(weights), opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, logs)


def init(config: Config, obs: PyTree, seed: UInt32[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    num_obs, num_actions = obs.flat.shape[-1], obs.mask.shape[-1]
    network = ActorCritic(key_network, num_obs, num_actions, config.hidden, devices.precision(config.precision))
    return Runner(network, optimiser(config).init(ravel_pytree(network)[0]), RewardStats(), seed, jnp.int32(0))


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
    learned, logs = learn(config, env, runner, samples, mask, key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs |= {"reward_scale": jnp.sqrt(stats.var), "learning_rate": jnp.float32(config.learning_rate)}
    learned = dataclasses.replace(learned, reward_stats=stats, update=runner.update + 1)
    finite = [jnp.isfinite(x).all() for x in (logs["loss"], logs["grad_norm"], *jax.tree.leaves(learned))]
    good = jnp.stack(finite).all()
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


def make_train(config: Config, env: Env | None = None) -> Training:
    """All runs before their first update, and the compiled program that trains them. `env` replaces the game."""
    env = env or make_env(config)

    def start() -> tuple[PyTree, Runner]:
        arm = jax.tree.map(lambda x: jnp.repeat(x, len(config.seeds), 0), env.arms)
        seed = jnp.tile(jnp.array(config.seeds, jnp.uint32), len(config.arm))
        obs, _ = jax.eval_shape(env.reset, jax.random.key(0), jax.tree.map(lambda x: x[0], env.arms))
        return arm, jax.jit(partial(jax.lax.map, partial(init, config, obs)))(seed)

    @partial(jax.jit, static_argnames="num_updates", donate_argnames="runner")
    def train(arm: PyTree, runner: Runner, num_updates: int) -> tuple[Runner, dict[str, Float[Array, "run update"]]]:
        def one_run(arm, runner):
            return jax.lax.scan(lambda runner, _: update(config, env, arm, runner), runner, length=num_updates)

        return over_runs(one_run, devices.run_sharding())(arm, runner)

    return Training(start, train)


def over_runs(function: Callable, sharding: NamedSharding) -> Callable:
    """A function of one run for all runs. The devices share the runs and exchange nothing.

    An accelerator takes its runs side by side. A CPU takes them in turn, which is no slower there, needs the memory of
    one run, and makes each run equal to the same run alone to the last bit; a batched matrix product does not.
    """

    def in_turn(*args):
        return jax.lax.map(lambda one: function(*one), args)

    many = in_turn if jax.default_backend() == "cpu" else jax.vmap(function)
    return jax.shard_map(many, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False)


if __name__ == "__main__":
    command_line.main(Config, make_train)
