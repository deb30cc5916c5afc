"""Independent PPO with a notebook: small networks shared by all hosts, which read what an agent knows of its own zones.

    python algos/ippo_notebook.py --arm C00

The environment is partially observed: an alert lasts one step, and the observation does not show that an agent is busy.
Every agent therefore keeps the notebook of `envs/cc4/notebook.py`, a pure function of its own observations and actions.
Differences from `ippo.py`, and the reasons:

* One small network reads the notes on each host and gives the logits of the host's actions. All hosts of all zones
  share it, so experience with one host counts for all, and the number of hosts does not matter.
* Busy agents can only sleep, and their samples are left out of the policy loss because they decided nothing. Analyse
  and Monitor are left out of the action space because their findings never reach an observation.
* The critic reads the simulator state during training (asymmetric actor-critic, Pinto et al. 2017, arXiv 1710.06542).
  A Restore costs at once and pays off a hundred steps later; without the state that gain is lost in noise. The critic
  adds up one value per host, and is told which action is in progress, without which Restores are unlearned.
* The actor's host features must also predict whether red holds the host, an auxiliary loss without an extra network.
* Each agent is credited with the losses in its own zones and its own Restores, mixed with the team reward.
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
from purecc4.envs.cc4 import notebook
from purecc4.envs.cc4.actions import ACTION_TABLE, IS_PADDING, decode
from purecc4.envs.cc4.constants import (
    ALPHABETICAL,
    IS_SERVER,
    NO_HOST,
    NUM_BLUE,
    NUM_PHASES,
    NUM_SUBNETS,
    SLOTS,
    BlueAction,
)
from purecc4.envs.cc4.notebook import AGENT_OF, NUM_WATCHED, WATCHED, Notes
from purecc4.nn import linear, orthogonal
from purecc4.sampling import sample
from purecc4.train import command_line, runs
from purecc4.train.runs import Algorithm, Metrics
from purecc4.train.settings import Scheduled, Tunable
from purecc4.zones import NUM_OF, ZoneNetwork, in_64ths, per_agent, privileged_obs


@dataclasses.dataclass(frozen=True)
class Config(Scheduled):
    """Hyperparameters, defaulting to those of the shipped policy."""

    algorithm: ClassVar[str] = "ippo_notebook"

    arm: tuple[str, ...] = ("C00",)
    """Arms to train: names listed by `purecc4 arms` or defined in `--define`."""
    total_timesteps: int = 3_000_000
    """Environment steps per run, rounded down to whole updates. All five agents act in each step."""
    num_envs: int = 24
    """Parallel environments per run."""
    learning_rate: Tunable = 7e-4
    """Adam learning rate in the first update; it decays linearly to 0."""
    adam_eps: Tunable = 1e-5
    """Adam epsilon."""
    max_grad_norm: Tunable = 0.5
    """Gradients are clipped to this global norm."""
    update_epochs: int = 2
    """Passes over the samples of an update."""
    num_minibatches: int = 32
    """Minibatches per epoch; must divide num_envs x num_steps."""
    gamma: Tunable = 0.999
    """Discount per step."""
    gae_lambda: Tunable = 0.95
    """GAE decay per step."""
    clip_eps: Tunable = 0.2
    """Clip range of the probability ratio."""
    vf_coef: Tunable = 0.5
    """Weight of the value loss, half the mean squared error."""
    ent_coef: Tunable = 0.002
    """Weight of the entropy bonus in the first update, per nat; it decays linearly to 0."""
    belief_coef: Tunable = 1.0
    """Weight of the auxiliary loss, the cross entropy of the actor's beliefs about its hosts."""
    team_share: Tunable = 0.3
    """Weight of the team reward in an agent's reward; the rest is its own zones' losses and its own Restores."""
    reward_scale: Tunable = 5.0
    """Rewards are divided by this."""
    hidden: int = 32
    """Per-host hidden width; the zone layer is twice as wide."""

    def check(self) -> None:
        """Raises UserError for invalid settings."""
        super().check()
        minibatches.check(self.num_minibatches, self.steps_per_update, NUM_BLUE)


class EnvState(eqx.Module):
    """An environment with the notebooks of its agents."""

    obs: cc4.Observation
    state: cc4.State
    notes: Notes


class Env(NamedTuple):
    """One environment, as the algorithm plays it."""

    reset: Callable[[PRNGKeyArray, Arm], EnvState]
    """(key, arm) -> env state"""
    step: Callable[..., tuple[EnvState, Array, Array, dict[str, Array]]]
    """(key, env state, actions [blue]) -> (env state, team reward, credits [blue], reward terms and `overflow`)"""
    arms: Arm
    """Arms to train, stacked on a leading axis."""


def make_env(config: Config) -> Env:
    """CC4 with notebooks. Every reset samples an episode from the banks of one arm."""
    game = runs.make_env(config)

    def reset(key, arm):
        obs, state = game.reset(key, arm)
        return EnvState(obs, state, notebook.observe(notebook.initial_notes(), obs.flat))

    def step(key, env_state, action):
        obs, state, reward, _, info = cc4.step(key, env_state.state, action, game.params)
        notes = notebook.observe(notebook.submit(env_state.notes, action), obs.flat)
        dropped = (state.overflow - env_state.state.overflow).astype(jnp.float32)
        reward_terms = vars(info.rewards) | {"overflow": dropped}
        return EnvState(obs, state, notes), reward, credit(info, env_state.state, action), reward_terms

    return Env(reset, step, game.arms)


def credit(info: cc4.Info, state: cc4.State, action: Integer[Array, "blue"]) -> Float[Array, "blue"]:
    """Each agent's part of the team reward: its zones, its Restores, a fifth of the contractor network's losses."""
    zones = info.zone_rewards.sum(axis=1)
    own = jax.ops.segment_sum(zones[WATCHED], AGENT_OF, NUM_BLUE, indices_are_sorted=True)
    restores = decode(action).kind == BlueAction.RESTORE
    return own + zones[0] / NUM_BLUE - state.scenario.restore_cost * restores


class Features(eqx.Module):
    """Network inputs in units of 1/64, as bytes: a CPU copies a whole bfloat16 trajectory at every step added to it."""

    host: UInt8[Array, "*rest zone slot feature"]
    zone: UInt8[Array, "*rest zone zone_feature"]
    traffic: UInt8[Array, "*rest zone source traffic_feature"]


def features(notes: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]) -> Features:
    """Features of one environment. Those of an agent's zones depend on its own observations and actions alone."""
    blocks = notebook.zone_blocks(vector).astype(jnp.float32)
    zone, blocked, comms = (blocks[:, i * NUM_SUBNETS :][:, :NUM_SUBNETS] for i in range(3))
    doing = decode(notes.in_progress.action.astype(jnp.int32))
    busy = notebook.is_busy(notes)
    here, long_ago = notebook.exists(mask), notes.since_restore.astype(jnp.float32)
    host = [
        here,
        jnp.asarray(IS_SERVER[:SLOTS]) & here,
        *(notebook.is_at(doing.host, busy & (doing.kind == kind)) for kind in HOST_KINDS),
        jnp.exp(-long_ago / 20),
        jnp.exp(-long_ago / 150),
        jnp.exp(-notes.since_remove / 20),
        notes.decoys / 4,
        *notebook.events(vector),
        *notes.recent[0],
        *notes.recent[1] / 2,
        *jnp.minimum(notes.counts, 4) / 2,
        *jnp.minimum(notes.unanswered, 3),
    ]
    host = jnp.stack([x.astype(jnp.float32) * here for x in host], axis=-1)
    now = [*jax.nn.one_hot(notes.phase, NUM_PHASES), notes.step / 500, jnp.exp(-notes.phase_age / 20)]
    now = jnp.broadcast_to(jnp.stack(now), (NUM_WATCHED, len(now)))
    ticks = (notes.in_progress.ticks / 5)[AGENT_OF][:, None]
    return Features(
        host=in_64ths(host),
        zone=in_64ths(jnp.concatenate([zone, now, ticks, jnp.minimum(notes.recent_activity, 3.9).T], axis=1)),
        traffic=in_64ths(jnp.stack([jnp.take_along_axis(x, SOURCES, axis=1) for x in (blocked, comms)], axis=-1)),
    )


SOURCES = np.array([[i for i, s in enumerate(ALPHABETICAL) if s != zone] for zone in WATCHED])
"""[zone source]: columns, among the nine subnets of an observation, from which traffic can be blocked."""
HOST_KINDS = (BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
TRAFFIC_KINDS = (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE)
KINDS = (*HOST_KINDS, *TRAFFIC_KINDS, BlueAction.SLEEP)
"""Action types of the policy. Analyse and Monitor affect neither observations nor rewards."""
USED = np.isin(ACTION_TABLE[..., 0], KINDS)


ZONE_ACTIONS = SLOTS * len(HOST_KINDS) + SOURCES.shape[1] * len(TRAFFIC_KINDS)
"""Actions per zone: slots x HOST_KINDS, then sources x TRAFFIC_KINDS."""


def _places() -> Int32[np.ndarray, "blue action"]:
    """Place of each action of KINDS in a flat list: zones x ZONE_ACTIONS, then each agent's Sleep. 0 for others."""
    places = np.zeros(ACTION_TABLE.shape[:2], np.int32)
    for agent, index in np.argwhere(USED):
        kind, host, to, source = ACTION_TABLE[agent, index].astype(int)
        if host != NO_HOST:
            zone, slot = divmod(host - WATCHED[0] * SLOTS, SLOTS)
            place = zone * ZONE_ACTIONS + slot * len(HOST_KINDS) + HOST_KINDS.index(kind)
        elif kind in TRAFFIC_KINDS:
            zone = to - WATCHED[0]
            column = list(SOURCES[zone]).index(ALPHABETICAL.index(source))
            place = zone * ZONE_ACTIONS + SLOTS * len(HOST_KINDS) + column * len(TRAFFIC_KINDS)
            place += TRAFFIC_KINDS.index(kind)
        else:
            place = NUM_WATCHED * ZONE_ACTIONS + agent
        places[agent, index] = place
    return places


PLACES = _places()
_AGENT, _INDEX = np.array(
    [np.argwhere((place == PLACES) & USED & ~IS_PADDING)[0] for place in range(PLACES.max() + 1)]
).T
"""[place]: agent and index of the action at each place."""


class PerAction(eqx.Module):
    """One value per action in KINDS, unpadded: a third the size of 242 per agent."""

    zone: Shaped[Array, "*rest zone zone_action"]
    sleep: Shaped[Array, "*rest blue"]

    def by_place(self) -> Shaped[Array, "*rest place"]:
        """Values in the order of PLACES."""
        return jnp.concatenate([self.zone.reshape(*self.zone.shape[:-2], -1), self.sleep], axis=-1)

    def reduce(self, within: Callable, across: Callable) -> Shaped[Array, "*rest blue"]:
        """Reduce over the actions of each agent: `within` reduces an axis, `across` combines two arrays."""
        zones = within(self.zone, axis=-1)
        last = within(zones[..., NUM_BLUE - 1 :], axis=-1)[..., None]
        return across(jnp.concatenate([zones[..., : NUM_BLUE - 1], last], axis=-1), self.sleep)


def per_action(mask: Bool[Array, "*rest blue action"]) -> PerAction:
    """The entries of a mask for the actions in KINDS."""
    flat = mask[..., _AGENT, _INDEX]
    zones = flat[..., : NUM_WATCHED * ZONE_ACTIONS].reshape(*mask.shape[:-2], NUM_WATCHED, -1)
    return PerAction(zones, flat[..., NUM_WATCHED * ZONE_ACTIONS :])


def by_action(logits: PerAction, legal: Bool[Array, "*rest blue action"]) -> Float[Array, "*rest blue action"]:
    """Logits in the order of the actions, with the lowest float for those that are illegal or not in KINDS."""
    ordered = logits.by_place()[..., PLACES]
    return jnp.where(legal & USED, ordered, jnp.finfo(ordered.dtype).min)


def log_prob_and_entropy(
    logits: PerAction, mask: PerAction, action: UInt8[Array, "*rest blue"]
) -> tuple[Float[Array, "*rest blue"], Float[Array, "*rest blue"]]:
    """Log-probability of each agent's action, and entropy of its policy, in nats; both from one exponential."""
    logits = jax.tree.map(lambda x, legal: jnp.where(legal, x, jnp.finfo(x.dtype).min), logits, mask)
    most = jax.lax.stop_gradient(logits.reduce(jnp.max, jnp.maximum))
    shifted = PerAction(logits.zone - most[..., AGENT_OF, None], logits.sleep - most)
    powers = jax.tree.map(jnp.exp, shifted)
    total = powers.reduce(jnp.sum, jnp.add)
    place = jnp.asarray(PLACES)[np.arange(NUM_BLUE), action]
    log_prob = jnp.take_along_axis(shifted.by_place(), place, axis=-1) - jnp.log(total)
    mean = jax.tree.map(jnp.multiply, powers, shifted).reduce(jnp.sum, jnp.add) / total
    return log_prob, jnp.log(total) - mean


class ActorCritic(eqx.Module):
    """Logits from the notebook; values from the notebook and the simulator state. All leaves are arrays."""

    zone: ZoneNetwork
    host_in: eqx.nn.Linear
    host_from_zone: eqx.nn.Linear
    host_out: eqx.nn.Linear
    belief_out: eqx.nn.Linear
    traffic_in: eqx.nn.Linear
    traffic_from_zone: eqx.nn.Linear
    traffic_out: eqx.nn.Linear
    sleep_out: eqx.nn.Linear
    critic_zone: ZoneNetwork
    critic_host_in: eqx.nn.Linear
    critic_host_from_zone: eqx.nn.Linear
    critic_host_out: eqx.nn.Linear
    critic_in: eqx.nn.Linear
    critic_out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_host: int, num_zone: int, num_secret: int, hidden: int):
        keys = iter(jax.random.split(key, 15))
        units = 2 * hidden
        self.zone = ZoneNetwork(next(keys), num_host, num_zone, units)
        self.host_in = orthogonal(next(keys), num_host, hidden, 2**0.5)
        self.host_from_zone = orthogonal(next(keys), units, hidden, 2**0.5)
        self.host_out = orthogonal(next(keys), hidden, len(HOST_KINDS), 0.01)
        self.belief_out = orthogonal(next(keys), hidden, NUM_BELIEFS, 0.01)
        self.traffic_in = orthogonal(next(keys), 2 + NUM_SUBNETS, hidden, 2**0.5)
        self.traffic_from_zone = orthogonal(next(keys), units, hidden, 2**0.5)
        self.traffic_out = orthogonal(next(keys), hidden, len(TRAFFIC_KINDS), 0.01)
        self.sleep_out = orthogonal(next(keys), units, 1, 0.01)
        self.critic_zone = ZoneNetwork(next(keys), num_host + num_secret, num_zone, units)
        self.critic_host_in = orthogonal(next(keys), num_host + num_secret, hidden, 2**0.5)
        self.critic_host_from_zone = orthogonal(next(keys), units, hidden, 2**0.5)
        self.critic_host_out = orthogonal(next(keys), hidden, 2, 0.01)
        self.critic_in = orthogonal(next(keys), 2 * units, units, 2**0.5)
        self.critic_out = orthogonal(next(keys), units, 1, 1.0)

    def read(self, obs: Features) -> tuple[Float[Array, "*rest zone unit"], Float[Array, "*rest zone slot host_unit"]]:
        """The actor's hidden features of zones and of hosts."""
        host = obs.host.astype(jnp.float32) / 64
        zone = self.zone(host, obs.zone.astype(jnp.float32) / 64)
        return zone, jnp.tanh(linear(self.host_in, host) + linear(self.host_from_zone, zone)[..., None, :])

    def __call__(self, obs: Features) -> tuple[PerAction, Float[Array, "*rest zone slot belief"]]:
        """Unmasked logits, and beliefs: log-odds that red has a session on a host, and that it has root there.

        The beliefs are used in training only.
        """
        zone, hosts = self.read(obs)
        traffic, rest = obs.traffic.astype(jnp.float32) / 64, zone.shape[:-2]
        names = jnp.broadcast_to(jax.nn.one_hot(SOURCES, NUM_SUBNETS), (*rest, *SOURCES.shape, NUM_SUBNETS))
        traffic = linear(self.traffic_in, jnp.concatenate([traffic, names], axis=-1))
        traffic = jnp.tanh(traffic + linear(self.traffic_from_zone, zone)[..., None, :])
        parts = linear(self.host_out, hosts), linear(self.traffic_out, traffic) + TRAFFIC_BIAS
        zones = jnp.concatenate([x.reshape(*rest, NUM_WATCHED, -1) for x in parts], axis=-1)
        return PerAction(zones, linear(self.sleep_out, per_agent(zone))[..., 0]), linear(self.belief_out, hosts)

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

    def initial_carry(self, num_agents: int) -> Notes:
        """Carry at the start of an episode: empty notebooks."""
        return notebook.initial_notes()

    def logits(
        self, carry: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Notes, Float[Array, "blue action"]]:
        """The notebooks with the observation, and masked action logits."""
        notes = notebook.observe(carry, vector)
        return notes, by_action(self(features(notes, vector, mask))[0], notebook.legal(notes, mask))

    def update_carry(self, carry: Notes, action: Int32[Array, "blue"]) -> Notes:
        """Write the submitted actions into the notebooks."""
        return notebook.submit(carry, action)


NUM_BELIEFS = 2
"""Number of beliefs; their truth is the first columns of `privileged_obs`."""
TRAFFIC_BIAS = -3.0
"""Initial logits of Allow and Block: a random Block costs more than any other action."""


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
    action: UInt8[Array, "*step env blue"]
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
    action: UInt8[Array, "sample blue"]
    log_prob: Float[Array, "sample blue"]
    advantage: Float[Array, "sample blue"]
    target: Float[Array, "sample blue"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Bool[Array, "env blue action"]]:
    """Play one episode in every environment. Returns its steps and the action masks, constant in an episode."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    env_state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = env_state.obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, config.num_envs, NUM_BLUE))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(env_state, now):
        u, keys = now
        # read notebooks and state
        obs = jax.vmap(features)(env_state.notes, env_state.obs.flat, mask)
        privileged = jax.vmap(privileged_obs)(env_state.state)
        idle = ~jax.vmap(notebook.is_busy)(env_state.notes)
        # select actions
        logits = by_action(network(obs)[0], jax.vmap(notebook.legal)(env_state.notes, mask))
        action, log_prob = jax.vmap(sample)(logits, u)
        value = network.value(obs, privileged)
        # step environments
        env_state, reward, credit, terms = jax.vmap(env.step)(keys, env_state, action)
        action = action.astype(jnp.uint8)
        return env_state, Transition(obs, privileged, idle, action, log_prob, value, credit, reward, terms)

    _, traj = jax.lax.scan(step, env_state, (u, keys_env))
    return traj, mask


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
    network: ActorCritic, batch: Batch, mask: PerAction, ent_coef: Float[Array, ""], config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """PPO loss of a minibatch. Decisions alone count in the policy loss and the entropy bonus."""
    weight = batch.idle / jnp.maximum(batch.idle.sum(), 1)

    def mean(x):
        return (x * weight).sum()

    logits, beliefs = network(batch.obs)
    log_prob, entropy = log_prob_and_entropy(logits, mask, batch.action)

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
    exists = batch.obs.host[..., 0] > 0
    truth = batch.privileged_obs[..., :NUM_BELIEFS] > 0
    cross_entropy = optax.losses.sigmoid_binary_cross_entropy(beliefs, truth).sum(axis=-1)
    belief_loss = jnp.mean(cross_entropy, where=exists)

    entropy = mean(entropy)
    loss = policy_loss + config.vf_coef * value_loss - ent_coef * entropy + config.belief_coef * belief_loss
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": mean(ratio - 1 - log_ratio),
        "clipfrac": mean(jnp.abs(ratio - 1) > config.clip_eps),
    }


def learn(
    config: Config, runner: RunnerState, samples: Batch, masks: PerAction, key: PRNGKeyArray
) -> tuple[RunnerState, Metrics]:
    """Update the network in epochs of minibatches. Sample i is of environment i mod env.

    Parameter updates and the entropy bonus are scaled by what is left of the schedule.
    """
    optimiser = make_optimiser(config)
    left = 1 - runner.update / config.schedule_updates

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        mask = jax.tree.map(lambda x: x[index % config.num_envs], masks)
        grads, metrics = jax.grad(ppo_loss, has_aux=True)(network, batch, mask, config.ent_coef * left, config)
        # clip by global norm
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser.update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        # decay the learning rate
        network = optax.apply_updates(network, jax.tree.map(lambda step: step * left, updates))
        return (network, opt_state), metrics | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.action))
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
    obs = jax.eval_shape(features, env_state.notes, env_state.obs.flat, env_state.obs.mask)
    sizes = (x.shape[-1] for x in (obs.host, obs.zone, jax.eval_shape(privileged_obs, env_state.state)))
    network = ActorCritic(key_network, *sizes, config.hidden)
    return RunnerState(network, make_optimiser(config).init(network), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: RunnerState) -> tuple[RunnerState, Metrics]:
    """One update of one run: play an episode in every environment, then learn from it."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))

    # collect trajectories
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)

    # mix each agent's credit with the team reward
    team = traj.credit.sum(axis=-1, keepdims=True)
    reward = (config.team_share * team + (1 - config.team_share) * traj.credit) / config.reward_scale

    # calculate advantages
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    # update network
    columns = traj.obs, traj.privileged_obs, traj.idle, traj.action, traj.log_prob, advantage, target
    samples = Batch(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), columns))
    runner, metrics = learn(config, runner, samples, per_action(mask), key_learn)
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
