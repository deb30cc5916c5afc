"""Independent PPO with memory for the five blue agents of CAGE Challenge 4: each has a gated recurrent unit (GRU).

    python algos/ippo_rnn.py --arm C11

The game is partially observed and an alert lasts one step: here an agent can remember it. As `ippo.py` in all but the
network and the samples. A GRU replaces the second layer; its memory is zero at the start of every episode. A sample is
a sequence of steps of one agent, through which the gradient flows back. It starts from the agent's memory in the
rollout.

Everything that is learned, and from what, is in this file; `purecc4.train` only runs it and keeps the files. All but
the last part is written for one run (one arm with one seed); `make_train` maps it over all runs.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import purecc4  # noqa: F401  # isort: skip  # before the libraries, for Ctrl-C while they load
import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, PyTree, Shaped, UInt8, UInt32
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_BLUE

from purecc4 import arms
from purecc4.errors import UserError
from purecc4.sampling import sample
from purecc4.train import command_line, definitions, devices
from purecc4.train.loop import Training
from purecc4.train.settings import Settings


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Every number that changes what is learned, as in the study. The flags of `Settings` change no result."""

    algorithm: ClassVar[str] = "ippo_rnn"

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
    """Minibatches of each pass; must divide num_envs x num_steps / sequence_length x 5."""
    sequence_length: int = 25
    """Env steps of a sample, through which the gradient flows back; must divide num_steps."""
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
    """Units of the layer before the memory."""
    memory: int = 128
    """Units of the memory."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        if self.num_steps % self.sequence_length:
            raise UserError(
                f"sequence_length = {self.sequence_length} does not divide the {self.num_steps} steps of an episode."
            )
        samples = self.steps_per_update // self.sequence_length * NUM_BLUE
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

    return Env(reset, step, arms.build(config.arm, own.arms, config.num_steps))


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
    """A tanh layer, a GRU, then the logits of the actions and the value. All leaves are arrays."""

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
        vector: UInt8[Array, "step sample obs"],
        mask: Bool[Array, "sample action"],
    ) -> tuple[Float[Array, "sample memory"], Float[Array, "step sample action"], Float[Array, "step sample"]]:
        """Memory after some steps of some agents; logits and values of each step, masked as in `ippo.py`."""
        x = vector.astype(jnp.float32)
        x = jnp.tanh(product(x, self.first.weight, self.precision) + self.first.bias)
        from_input = product(x, self.cell.weight_ih, self.precision) + self.cell.bias

        def step(memory, from_input):
            memory = self.gru(memory, from_input)
            return memory, memory

        memory, x = jax.lax.scan(step, memory, from_input)
        heads = self.actor, self.critic
        weight, bias = (jnp.concatenate([getattr(head, name) for head in heads]) for name in ("weight", "bias"))
        out = product(x, weight, self.precision) + bias
        logits = jnp.where(mask, out[..., :-1], jnp.finfo(out.dtype).min)
        return memory, logits, out[..., -1]

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
        """Arguments of `__init__` besides the key, kept in every checkpoint."""
        (hidden, num_obs), (num_actions, memory) = self.first.weight.shape, self.actor.weight.shape
        sizes = {"num_obs": num_obs, "num_actions": num_actions, "hidden": hidden, "memory": memory}
        return sizes | {"precision": self.precision}

    def initial_carry(self, num_agents: int) -> Float[Array, "agent memory"]:
        """What the agents remember at the start of an episode: zeros."""
        return jnp.zeros((num_agents, self.cell.hidden_size))

    def logits(
        self, carry: Float[Array, "blue memory"], vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Float[Array, "blue memory"], Float[Array, "blue action"]]:
        """For evaluation: the carry after a step of an episode, and the logits of its actions."""
        carry, logits, _ = self(carry, vector[None], mask)
        return carry, logits[0]

    def remember(self, carry: Float[Array, "blue memory"], action: Int32[Array, "blue"]) -> Float[Array, "blue memory"]:
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
    """Samples of a minibatch, or all of an update: sequences of steps of one agent."""

    memory: Float[Array, "sample memory"]
    """At the start of the sequence."""
    vector: UInt8[Array, "sample step obs"]
    action: UInt8[Array, "sample step"]
    log_prob: Float[Array, "sample step"]
    advantage: Float[Array, "sample step"]
    target: Float[Array, "sample step"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Float[Array, "sequence agent memory"], Bool[Array, "env blue action"]]:
    """One episode in every environment, the memory at the start of each of its sequences, and its action masks, which
    are constant in an episode. The axis `agent` is env x blue."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, mask.shape[0] * mask.shape[1]))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(carry, now):
        memory, vector, state = carry
        u, keys = now
        rows = vector.reshape(1, -1, vector.shape[-1])
        memory, logits, value = network(memory, rows, mask.reshape(-1, mask.shape[-1]))
        action, log_prob = sample(logits[0], u)
        action, log_prob, value = (x.reshape(mask.shape[:2]) for x in (action, log_prob, value))
        obs, state, reward, parts = jax.vmap(env.step)(keys, state, action)
        return (memory, obs.flat, state), Transition(vector, action.astype(jnp.uint8), log_prob, value, reward, parts)

    def sequence(carry, now):
        after, traj = jax.lax.scan(step, carry, now)
        return after, (traj, carry[0])

    random = jax.tree.map(lambda x: x.reshape(-1, config.sequence_length, *x.shape[1:]), (u, keys_env))
    first = network.initial_carry(u.shape[1]), obs.flat, state
    _, (traj, memory) = jax.lax.scan(sequence, first, random)
    return jax.tree.map(lambda x: x.reshape(config.num_steps, *x.shape[2:]), traj), memory, mask


def sequences(x: Shaped[Array, "step env blue *rest"], length: int) -> Shaped[Array, "sample {length} *rest"]:
    """Cut all episodes into sequences of some steps: the first of every agent, then the second, and so on."""
    num_steps, num_envs, num_blue, *rest = x.shape
    x = x.reshape(num_steps // length, length, num_envs * num_blue, *rest)
    return jnp.moveaxis(x, 1, 2).reshape(-1, length, *rest)


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
    _, logits, value = network(batch.memory, jnp.moveaxis(batch.vector, 1, 0), mask)
    policy = distrax.Categorical(logits=logits)
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
    num_obs, num_actions = obs.flat.shape[-1], obs.mask.shape[-1]
    precision = devices.precision(config.precision)
    network = ActorCritic(key_network, num_obs, num_actions, config.hidden, config.memory, precision)
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

    columns = traj.vector, traj.action, traj.log_prob, advantage, target
    samples = Batch(memory.reshape(-1, memory.shape[-1]), *(sequences(x, config.sequence_length) for x in columns))
    learned, logs = learn(config, runner, samples, mask.reshape(-1, mask.shape[-1]), key_learn)
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
