"""Independent PPO on the history of raw observations, starting from the decisions of the script `analyst`.

    python algos/ippo_history.py --arm C00

Every agent keeps the history of `envs/cc4/history.py`, a pure function of its own raw observations and actions. A small
network, shared by all hosts, reads it and gives the logits of Analyse, Remove, Restore and DeployDecoy on each host.
Traffic is not blocked. Differences from `ippo.py`, and the reasons:

* The action of `analyst` (`purecc4/play/raw_scripts.py`) has a head start in the logits, so that training begins near
  a good policy and learns where to depart from it: residual policy learning (Silver et al. 2018, arXiv 1812.06298).
* Busy agents can only sleep, and their samples are left out of the policy loss because they decided nothing.
* The critic reads the simulator state during training (asymmetric actor-critic, Pinto et al. 2017, arXiv 1710.06542).
  A Restore costs at once and pays off a hundred steps later; without the state that gain is lost in noise.
* The actor's host features must also predict whether red holds the host, an auxiliary loss without an extra network.
* Each agent is credited with the losses in its own zones and its own Restores, mixed with the team's. The losses of the
  contractor network, where blue has no agent, are noise of the same size as everything else; they are left out.
* Discount 0.999: an infection does its damage over hundreds of steps.
* Learning rate and entropy bonus decay to 0 over `schedule_timesteps`.

The whole algorithm is in this file, written for one run: one arm with one seed. `purecc4.train` maps it over all arms
and seeds (docs/algorithms.md has that in plain JAX), and adds devices, checkpoints, progress and tables.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import purecc4  # noqa: F401  # isort: skip  # handles Ctrl-C while the libraries load
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int32, Integer, PRNGKeyArray, PyTree, ScalarLike, Shaped, UInt8, UInt32

from purecc4 import minibatches
from purecc4.arms import Arm
from purecc4.envs import cc4
from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import ACTION_TABLE, SLEEP, decode
from purecc4.envs.cc4.by_host import ACTION_INDEX, HOST_KINDS, OWN_HOSTS, exists
from purecc4.envs.cc4.constants import IS_SERVER, NO_HOST, NUM_ACTIONS, NUM_BLUE, NUM_PHASES, SLOTS
from purecc4.envs.cc4.history import History
from purecc4.envs.cc4.notebook import AGENT_OF, WATCHED
from purecc4.envs.cc4.raw import AttackKind, Files
from purecc4.history_policy import HistoryPolicy
from purecc4.nn import linear, orthogonal
from purecc4.play.raw_scripts import PHASE, Analyst, overdue
from purecc4.sampling import sample
from purecc4.train import command_line, runs
from purecc4.train.runs import Algorithm, Metrics
from purecc4.train.settings import Scheduled, Tunable
from purecc4.zones import NUM_OF, ZoneNetwork, credit, in_64ths, per_agent, privileged_obs


@dataclasses.dataclass(frozen=True)
class Config(Scheduled):
    """Hyperparameters, defaulting to those of the shipped policy."""

    algorithm: ClassVar[str] = "ippo_history"

    arm: tuple[str, ...] = ("C00",)
    """Arms to train: names listed by `purecc4 arms` or defined in `--define`."""
    total_timesteps: int = 3_000_000
    num_envs: int = 24
    """Parallel environments per run."""
    learning_rate: Tunable = 1e-3
    """Adam learning rate in the first update; it decays linearly to 0."""
    adam_eps: Tunable = 1e-5
    """Adam epsilon."""
    max_grad_norm: Tunable = 0.5
    """Gradients are clipped to this global norm."""
    update_epochs: int = 2
    """Passes over the samples of an update."""
    num_minibatches: int = 16
    """Minibatches per epoch; must divide num_envs x num_steps."""
    gamma: Tunable = 0.999
    """Discount per step."""
    gae_lambda: Tunable = 0.95
    """GAE decay per step."""
    clip_eps: Tunable = 0.2
    """Clip range of the probability ratio."""
    vf_coef: Tunable = 0.5
    """Weight of the value loss, half the mean squared error."""
    ent_coef: Tunable = 0.0
    """Weight of the entropy bonus in the first update, per nat; it decays linearly to 0."""
    belief_coef: Tunable = 0.5
    """Weight of the auxiliary loss, the cross entropy of the actor's beliefs about its hosts."""
    team_share: Tunable = 0.3
    """Weight of the team's losses in an agent's reward; the rest is its own zones' losses and its own Restores."""
    reward_scale: Tunable = 2.0
    """Rewards are divided by this."""
    critic_warmup: int = 8
    """Updates in which only the critic and the beliefs learn, before the first one of the policy."""
    hidden: int = 32
    """Per-host hidden width; the zone layer is twice as wide."""

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        minibatches.check(self.num_minibatches, self.steps_per_update, NUM_BLUE)


class EnvState(eqx.Module):
    """An environment with the histories of its agents."""

    obs: cc4.Observation
    state: cc4.State
    notes: History


class Env(NamedTuple):
    """One environment, as the algorithm plays it."""

    reset: Callable[[PRNGKeyArray, Arm], EnvState]
    """(key, arm) -> env state"""
    step: Callable[..., tuple[EnvState, Array, Array, dict[str, Array]]]
    """(key, env state, actions [blue]) -> (env state, team reward, credits [blue], reward terms and `overflow`)"""
    arms: Arm
    """Arms to train, stacked on a leading axis."""


def make_env(config: Config) -> Env:
    """CC4 with histories. Every reset samples an episode from the banks of one arm."""
    game = runs.make_env(config, "raw")

    def reset(key, arm):
        obs, state = game.reset(key, arm)
        return EnvState(obs, state, history.update(history.init(), obs.raw))

    def step(key, env_state, action):
        obs, state, reward, _, info = cc4.step(key, env_state.state, action, game.params)
        notes = history.update(history.submit(env_state.notes, action), obs.raw)
        dropped = (state.overflow - env_state.state.overflow).astype(jnp.float32)
        reward_terms = vars(info.rewards) | {"overflow": dropped}
        return EnvState(obs, state, notes), reward, credit(info, env_state.state, action), reward_terms

    return Env(reset, step, game.arms)


def by_zone(x: Shaped[Array, "*rest blue own_zone slot"]) -> Shaped[Array, "*rest zone slot"]:
    """The zones that exist: one for each agent but the last, which has three."""
    alone = x[..., : NUM_BLUE - 1, 0, :]
    return jnp.concatenate([alone, x[..., NUM_BLUE - 1, :, :]], axis=-2)


ZONE_ACTIONS = SLOTS * len(HOST_KINDS)
NUM_PLACES = OWN_HOSTS.shape[1] * ZONE_ACTIONS + 1
"""Actions of an agent in the network's order: own zones x slots x HOST_KINDS, then Sleep."""


def _order() -> tuple[Int32[np.ndarray, "blue place"], Int32[np.ndarray, "blue action"]]:
    """Action index of each place, and place of each action; the last place for what the network does not offer."""
    index = np.stack([ACTION_INDEX[kind] for kind in HOST_KINDS], axis=-1).reshape(NUM_BLUE, -1)
    index = np.concatenate([index, np.asarray(SLEEP)[:, None]], axis=1)
    place = np.full((NUM_BLUE, NUM_ACTIONS), NUM_PLACES - 1)
    for agent in range(NUM_BLUE):
        used = np.append((OWN_HOSTS[agent] != NO_HOST).ravel().repeat(len(HOST_KINDS)), True)
        place[agent, index[agent, used]] = np.flatnonzero(used)
    return index.astype(np.int32), place.astype(np.int32)


INDEX, PLACE = _order()
OFFERED = np.isin(ACTION_TABLE[..., 0], HOST_KINDS)
OFFERED[np.arange(NUM_BLUE), SLEEP] = True


class Features(eqx.Module):
    """Network inputs in units of 1/64, as bytes: a CPU copies a whole trajectory at every step added to it."""

    host: UInt8[Array, "*rest zone slot feature"]
    zone: UInt8[Array, "*rest zone zone_feature"]


def on_offer(notes: History, here: Bool[Array, "blue own_zone slot"]) -> list[Bool[Array, "blue own_zone slot"]]:
    """Hosts on which each action of HOST_KINDS is worth a try: there is evidence, or it is their turn for Analyse."""
    rank = jnp.where(here & history.IS_USER, overdue(notes), -1).reshape(NUM_BLUE, -1)
    turn = (np.arange(rank.shape[1]) == rank.argmax(axis=1)[:, None]).reshape(here.shape)
    accused = (notes.named > 0) | (notes.exploits > 0)
    evidence = accused | (notes.files > 0) | (notes.gaps > 0)
    return [turn | accused | notes.removed, notes.exploits > 0, evidence, here]


def at_target(action: Int32[Array, "blue"], true: Bool[Array, "blue"]) -> list[Bool[Array, "blue own_zone slot"]]:
    """Targets of the actions by HOST_KINDS, for the agents with `true`."""
    order = decode(action)
    return [(order.host[:, None, None] == OWN_HOSTS) & (true & (order.kind == k))[:, None, None] for k in HOST_KINDS]


def recency(
    at: Integer[Array, "blue own_zone slot"], step: Float[Array, ""], *scales: int
) -> list[Float[Array, "blue own_zone slot"]]:
    """Exponential decay since the step `at`, by time scale in steps; 0 for what never happened."""
    return [jnp.where(at > 0, jnp.exp((at - step) / scale), 0) for scale in scales]


def features(notes: History, mask: Bool[Array, "blue action"]) -> Features:
    """Features of one environment. Those of an agent's zones depend on its own observations and actions alone."""
    here, step = exists(mask), notes.step.astype(jnp.float32)
    busy = history.is_busy(notes)
    cmd = (notes.files == Files.CMD) | (notes.files >= Files.CMD_ESCALATE)
    host = [
        *on_offer(notes, here),
        *at_target(Analyst().choose(notes, mask), ~busy),
        jnp.asarray(IS_SERVER)[np.where(OWN_HOSTS == NO_HOST, 0, OWN_HOSTS)],
        *at_target(notes.in_progress.action.astype(jnp.int32), busy),
        *(jnp.log1p(x) for x in (notes.exploits, notes.unanswered, notes.named, notes.brute_forces, notes.gaps)),
        notes.decoys / 4,
        *(jnp.log1p(notes.met[kind]) for kind in list(AttackKind)[1:]),
        *(jnp.minimum(x, 1) for x in (notes.exploits, notes.unanswered, notes.named)),
        *(notes.named >= often for often in (2, 3, 4, 5)),
        *(cmd, notes.files >= Files.ESCALATE, notes.removed, notes.explained, notes.unexplained),
        *recency(notes.named_at, step, 10, 60),
        *recency(notes.exploited_at, step, 10, 60),
        *recency(notes.looked, step, 10, 50),
        (step - notes.looked) / 64,
    ]
    host = jnp.stack([by_zone(x.astype(jnp.float32) * here) for x in host], axis=-1)
    phase = jax.nn.one_hot(jnp.minimum(notes.step // PHASE, NUM_PHASES - 1), NUM_PHASES)
    left = (step - 500) / np.array([20, 80], np.float32)
    now = jnp.concatenate([phase, step[None] / 128, jnp.exp(left)])
    now = jnp.broadcast_to(now, (len(WATCHED), len(now)))
    ticks = (notes.in_progress.ticks / 5)[AGENT_OF][:, None]
    return Features(in_64ths(host), in_64ths(jnp.concatenate([jnp.eye(len(WATCHED)), now, ticks], axis=1)))


OFFER, SCRIPT = slice(0, len(HOST_KINDS)), slice(len(HOST_KINDS), 2 * len(HOST_KINDS))
"""Host features: the actions of HOST_KINDS on offer, and the action of `analyst`."""
HERE = len(HOST_KINDS) - 1
"""Host feature of existence; decoys are on offer everywhere."""


def by_place(
    zones: Shaped[Array, "*rest zone zone_action"], sleep: Shaped[Array, "*rest blue"], fill: float | bool
) -> Shaped[Array, "*rest blue place"]:
    """Values of host actions by zone and of Sleep in the order of places."""
    alone = zones[..., : NUM_BLUE - 1, :]
    alone = jnp.pad(alone, [(0, 0)] * (alone.ndim - 1) + [(0, 2 * ZONE_ACTIONS)], constant_values=fill)
    last = zones[..., NUM_BLUE - 1 :, :].reshape(*zones.shape[:-2], 1, -1)
    return jnp.concatenate([jnp.concatenate([alone, last], axis=-2), sleep[..., None]], axis=-1)


def legal_places(obs: Features) -> Bool[Array, "*rest blue place"]:
    """The actions on offer to idle agents, and Sleep."""
    offered = obs.host[..., OFFER] > 0
    hosts = offered.reshape(*offered.shape[:-2], -1)
    return by_place(hosts, jnp.ones((*hosts.shape[:-2], NUM_BLUE), bool), False)


class ActorCritic(HistoryPolicy):
    """Logits from the history; values from the history and the simulator state. All leaves are arrays."""

    zone: ZoneNetwork
    host_in: eqx.nn.Linear
    host_from_zone: eqx.nn.Linear
    host_mid: eqx.nn.Linear
    host_out: eqx.nn.Linear
    belief_out: eqx.nn.Linear
    sleep_out: eqx.nn.Linear
    critic_zone: ZoneNetwork
    critic_host_in: eqx.nn.Linear
    critic_host_from_zone: eqx.nn.Linear
    critic_host_out: eqx.nn.Linear
    critic_in: eqx.nn.Linear
    critic_out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_host: int, num_zone: int, num_secret: int, hidden: int):
        keys = iter(jax.random.split(key, 13))
        units = 2 * hidden
        self.zone = ZoneNetwork(next(keys), num_host, num_zone, units)
        self.host_in = orthogonal(next(keys), num_host, hidden, 2**0.5)
        self.host_from_zone = orthogonal(next(keys), units, hidden, 2**0.5)
        self.host_mid = orthogonal(next(keys), hidden, hidden, 2**0.5)
        self.host_out = orthogonal(next(keys), hidden, len(HOST_KINDS), 0.01)
        self.belief_out = orthogonal(next(keys), hidden, NUM_BELIEFS, 0.01)
        self.sleep_out = orthogonal(next(keys), units, 1, 0.01)
        self.critic_zone = ZoneNetwork(next(keys), num_host + num_secret, num_zone, units)
        self.critic_host_in = orthogonal(next(keys), num_host + num_secret, hidden, 2**0.5)
        self.critic_host_from_zone = orthogonal(next(keys), units, hidden, 2**0.5)
        self.critic_host_out = orthogonal(next(keys), hidden, 2, 0.01)
        self.critic_in = orthogonal(next(keys), 2 * units, units, 2**0.5)
        self.critic_out = orthogonal(next(keys), units, 1, 1.0)

    def __call__(
        self, obs: Features
    ) -> tuple[Float[Array, "*rest blue place"], Float[Array, "*rest zone slot belief"]]:
        """Logits, with the lowest float for illegal places, and beliefs used in training only.

        Beliefs are log-odds that red has a session on a host, and that it has root there.
        """
        host = obs.host.astype(jnp.float32) / 64
        zone = self.zone(host, obs.zone.astype(jnp.float32) / 64)
        hidden = jnp.tanh(linear(self.host_in, host) + linear(self.host_from_zone, zone)[..., None, :])
        hidden = jnp.tanh(linear(self.host_mid, hidden))
        logits = linear(self.host_out, hidden) + jnp.where(host[..., SCRIPT] > 0, HEAD_START, KIND_BIAS)
        logits = logits.reshape(*logits.shape[:-2], -1)
        sleep = linear(self.sleep_out, per_agent(zone))[..., 0] + SLEEP_BIAS
        logits = by_place(logits, sleep, 0.0)
        return jnp.where(legal_places(obs), logits, jnp.finfo(logits.dtype).min), linear(self.belief_out, hidden)

    def value(self, obs: Features, privileged: UInt8[Array, "*rest zone slot secret"]) -> Float[Array, "*rest blue"]:
        """Expected discounted reward of each agent."""
        host, zone = (x.astype(jnp.float32) / 64 for x in (jnp.concatenate([obs.host, privileged], axis=-1), obs.zone))
        zones = self.critic_zone(host, zone)
        own = per_agent(zones)
        everywhere = jnp.broadcast_to(zones.mean(axis=-2, keepdims=True), own.shape)
        common = jnp.tanh(linear(self.critic_in, jnp.concatenate([own, everywhere], axis=-1)))
        hosts = jnp.tanh(linear(self.critic_host_in, host) + linear(self.critic_host_from_zone, zones)[..., None, :])
        of_hosts = linear(self.critic_host_out, hosts.sum(axis=-2))
        mine, of_all = per_agent(of_hosts[..., :1])[..., 0] * NUM_OF, of_hosts[..., 1].sum(axis=-1, keepdims=True)
        return linear(self.critic_out, common)[..., 0] + mine + of_all

    @property
    def init_kwargs(self) -> dict[str, int]:
        """Arguments of `__init__` except the key; saved in checkpoints."""
        hidden, num_host = self.host_in.weight.shape
        num_zone = self.zone.layer.weight.shape[1] - 4 * num_host
        num_secret = self.critic_host_in.weight.shape[1] - num_host
        return {"num_host": num_host, "num_zone": num_zone, "num_secret": num_secret, "hidden": hidden}

    def logits(
        self, carry: History, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[History, Float[Array, "blue action"]]:
        """The history, and masked action logits."""
        logits = self(features(carry, mask))[0]
        return carry, by_action(logits, history.is_busy(carry), mask)


def by_action(
    logits: Float[Array, "blue place"], busy: Bool[Array, "blue"], mask: Bool[Array, "blue action"]
) -> Float[Array, "blue action"]:
    """Logits in the order of the actions, with the lowest float for illegal ones; busy agents can only sleep."""
    offered = OFFERED & mask & (~busy[:, None] | (np.arange(NUM_ACTIONS) == SLEEP[:, None]))
    return jnp.where(offered, jnp.take_along_axis(logits, jnp.asarray(PLACE), axis=-1), jnp.finfo(logits.dtype).min)


KIND_BIAS = np.array([0.0, -1.0, -2.5, -4.0], np.float32)
SLEEP_BIAS = -3.0
HEAD_START = 3.0
"""Constants of the logits: of HOST_KINDS, of Sleep, and of the action of `analyst`."""
NUM_BELIEFS = 2
"""Number of beliefs; their truth is the first columns of `privileged_obs`."""


class RunnerState(eqx.Module):
    """State of a run between updates. It holds no environment state: an update plays whole episodes."""

    network: ActorCritic
    opt_state: PyTree
    seed: UInt32[Array, ""]
    update: Int32[Array, ""]
    """Updates done."""


class Transition(eqx.Module):
    """One step of a rollout."""

    obs: Features
    privileged_obs: UInt8[Array, "*step env zone slot secret"]
    idle: Bool[Array, "*step env blue"]
    """True for agents whose action was a decision."""
    place: UInt8[Array, "*step env blue"]
    """The action, in the network's order."""
    log_prob: Float[Array, "*step env blue"]
    value: Float[Array, "*step env blue"]
    credit: Float[Array, "*step env blue"]
    """Each agent's part of the team reward, before mixing."""
    reward: Float[Array, "*step env"]
    """Team reward."""
    reward_terms: dict[str, Float[Array, "*step env"]]
    """Its terms by name, and `overflow`, the entries that the simulator's tables dropped."""


class Batch(eqx.Module):
    """Samples of an update or of a minibatch; a sample is the team in one step."""

    obs: Features
    privileged_obs: UInt8[Array, "sample zone slot secret"]
    idle: Bool[Array, "sample blue"]
    place: UInt8[Array, "sample blue"]
    log_prob: Float[Array, "sample blue"]
    advantage: Float[Array, "sample blue"]
    target: Float[Array, "sample blue"]


def rollout(config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray) -> Transition:
    """Play one episode in every environment. Returns its steps."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    env_state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = env_state.obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, config.num_envs, NUM_BLUE))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(env_state, now):
        u, keys = now
        # read histories and state
        obs = jax.vmap(features)(env_state.notes, mask)
        privileged = jax.vmap(privileged_obs)(env_state.state)
        idle = ~jax.vmap(history.is_busy)(env_state.notes)
        # select actions
        place, log_prob = jax.vmap(sample)(network(obs)[0], u)
        action = jnp.where(idle, jnp.asarray(INDEX)[np.arange(NUM_BLUE), place], SLEEP)
        value = network.value(obs, privileged)
        # step environments
        env_state, reward, credit, terms = jax.vmap(env.step)(keys, env_state, action)
        place = place.astype(jnp.uint8)
        return env_state, Transition(obs, privileged, idle, place, log_prob, value, credit, reward, terms)

    return jax.lax.scan(step, env_state, (u, keys_env))[1]


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
    network: ActorCritic, batch: Batch, ent_coef: Float[Array, ""], warm: Bool[Array, ""], config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """PPO loss of a minibatch. Decisions alone count in the policy loss and the entropy bonus."""
    weight = batch.idle / jnp.maximum(batch.idle.sum(), 1)

    def mean(x):
        return (x * weight).sum()

    logits, beliefs = network(batch.obs)
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    log_prob = jnp.take_along_axis(log_probs, batch.place[..., None].astype(jnp.int32), axis=-1)[..., 0]

    # policy loss
    log_ratio = jnp.where(batch.idle, log_prob - batch.log_prob, 0)
    ratio = jnp.exp(log_ratio)
    advantage = batch.advantage - mean(batch.advantage)
    advantage = advantage / (jnp.sqrt(mean(advantage**2)) + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))

    # value loss
    value_loss = 0.5 * jnp.mean((network.value(batch.obs, batch.privileged_obs) - batch.target) ** 2)

    # belief loss, over hosts that exist
    here = batch.obs.host[..., HERE] > 0
    truth = batch.privileged_obs[..., :NUM_BELIEFS] > 0
    cross_entropy = optax.losses.sigmoid_binary_cross_entropy(beliefs, truth).sum(axis=-1)
    belief_loss = jnp.mean(cross_entropy, where=here)

    entropy = mean(entropy)
    of_policy = policy_loss - ent_coef * entropy
    loss = warm * of_policy + config.vf_coef * value_loss + config.belief_coef * belief_loss
    metrics = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    metrics |= {"approx_kl": mean(ratio - 1 - log_ratio)}
    return loss, metrics | {"clipfrac": mean(jnp.abs(ratio - 1) > config.clip_eps)}


def learn(config: Config, runner: RunnerState, samples: Batch, key: PRNGKeyArray) -> tuple[RunnerState, Metrics]:
    """Update the network in epochs of minibatches.

    Parameter updates and the entropy bonus are scaled by what is left of the schedule.
    """
    optimiser = make_optimiser(config)
    left = 1 - runner.update / config.schedule_updates
    warm = runner.update >= config.critic_warmup

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        grads, metrics = jax.grad(ppo_loss, has_aux=True)(network, batch, config.ent_coef * left, warm, config)
        # clip by global norm
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser.update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        # decay the learning rate
        network = optax.apply_updates(network, jax.tree.map(lambda step: step * left, updates))
        return (network, opt_state), metrics | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.place))
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), metrics = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, metrics) | {"learning_rate": config.learning_rate * left}


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """Adam."""
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def init(config: Config, env: Env, seed: UInt32[Array, ""]) -> RunnerState:
    """State of a run before its first update."""
    key_network, _ = jax.random.split(jax.random.key(seed))
    env_state = jax.eval_shape(env.reset, key_network, jax.tree.map(lambda x: x[0], env.arms))
    obs = jax.eval_shape(features, env_state.notes, env_state.obs.mask)
    sizes = (x.shape[-1] for x in (obs.host, obs.zone, jax.eval_shape(privileged_obs, env_state.state)))
    network = ActorCritic(key_network, *sizes, config.hidden)
    return RunnerState(network, make_optimiser(config).init(network), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: RunnerState) -> tuple[RunnerState, Metrics]:
    """One update of one run: play an episode in every environment, then learn from it."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))

    # collect trajectories
    traj = rollout(config, env, runner.network, arm, key_rollout)

    # mix each agent's credit with the team's
    team = traj.credit.sum(axis=-1, keepdims=True)
    reward = (config.team_share * team + (1 - config.team_share) * traj.credit) / config.reward_scale

    # calculate advantages
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    # update network
    columns = traj.obs, traj.privileged_obs, traj.idle, traj.place, traj.log_prob, advantage, target
    samples = Batch(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), columns))
    runner, metrics = learn(config, runner, samples, key_learn)
    runner = dataclasses.replace(runner, update=runner.update + 1)

    # log metrics
    metrics |= {name: x.sum(0).mean() for name, x in ({"return": traj.reward} | traj.reward_terms).items()}
    metrics["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    metrics["reward_scale"] = jnp.float32(config.reward_scale)
    return runner, metrics


def make_train(config: Config, env: Env | None = None) -> Algorithm:
    """`init(seed)` and `update(arm, runner)` of one run, and the environment; `env` replaces CC4."""
    env = env or make_env(config)
    return Algorithm(partial(init, config, env), partial(update, config, env), env)


if __name__ == "__main__":
    command_line.main(Config, make_train)
