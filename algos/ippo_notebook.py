"""Independent PPO with a notebook: small networks shared by all hosts, on what an agent can know of its own zones.

    python algos/ippo_notebook.py --arm C00

The game is partially observed: an alert lasts one step, and the observation does not say that an agent is busy. Here
every agent keeps the notebook of `envs/cc4/notebook.py`, a pure function of its own observations and actions. What is
different from `ippo.py`, and why:

* one small network reads the notes of every host and gives the logits of its actions; it is the same for all hosts of
  all zones, so what is learned of one host counts for all, and the number of hosts does not matter;
* busy agents can only sleep, and their samples leave the policy loss: nothing was decided. Analyse and Monitor are left
  out, because nothing that they find is ever observed;
* the critic sees the state of the game while training (asymmetric actor-critic, Pinto et al. 2017, arXiv 1710.06542):
  a Restore costs at once, and what it saves comes a hundred steps later; without the state the gain drowns in noise. It
  adds up a value for every host, and it is told which action is under way, or else Restores are unlearned;
* what the actor makes of a host must also tell whether red holds it, an auxiliary loss that needs no extra network;
* each agent is credited with the losses in its own zones and its own Restores, mixed with the team's reward;
* discount 0.999: an infection does its harm over hundreds of steps;
* learning rate and entropy bonus fall to 0.

Acting needs the notebook only. Everything that is learned, and from what, is in this file; `purecc4.train` only runs it
and keeps the files. All but the last part is written for one run; `make_train` maps it over all runs.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import purecc4  # noqa: F401  # isort: skip  # before the libraries, for Ctrl-C while they load
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int32, Integer, PRNGKeyArray, PyTree, Shaped, UInt8, UInt32
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
from purecc4.envs.cc4.layout import hosts_of, unpack
from purecc4.envs.cc4.notebook import AGENT_OF, NUM_WATCHED, WATCHED, Notes
from purecc4.envs.cc4.sessions import held_hosts, id_flags

from purecc4 import arms
from purecc4.errors import UserError
from purecc4.sampling import sample
from purecc4.train import command_line, definitions, devices
from purecc4.train.loop import Training
from purecc4.train.settings import Settings


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Every number that changes what is learned. The flags of `Settings` change no result."""

    algorithm: ClassVar[str] = "ippo_notebook"

    arm: tuple[str, ...] = ("C00",)
    """Arms to train, one or more of those that `purecc4 arms` prints or `--define` has."""
    seeds: tuple[int, ...] = (42, 142, 242)
    """Seeds to train each arm with. Equal seeds of different arms share their random numbers."""
    red: str = "fsm"
    """Red to train against: fsm, cia_c, cia_i, cia_a, discovery, sleep, or one of `--define`."""
    total_timesteps: int = 3_000_000
    """Env steps of each run, rounded down to whole updates. One step moves all five agents."""
    num_envs: int = 24
    """Environments of each run."""
    num_steps: int = 500
    """Env steps of an episode, and of a rollout, which is one episode."""
    learning_rate: float = 7e-4
    """Step size of Adam in the first update; it falls linearly to 0."""
    adam_eps: float = 1e-5
    """Epsilon of Adam."""
    max_grad_norm: float = 0.5
    """Gradients with a larger global norm are scaled down to it."""
    update_epochs: int = 2
    """Passes over the samples of an update."""
    num_minibatches: int = 32
    """Minibatches of each pass; must divide num_envs x num_steps."""
    gamma: float = 0.999
    """Discount per env step."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation per env step."""
    clip_eps: float = 0.2
    """Clip range of the probability ratio."""
    vf_coef: float = 0.5
    """Weight of the value loss, which is half the mean squared error."""
    ent_coef: float = 0.002
    """Weight of the entropy bonus in the first update, per nat; it falls linearly to 0."""
    belief_coef: float = 1.0
    """Weight of the cross entropy of what the actor believes of its hosts."""
    team_share: float = 0.3
    """Part of an agent's reward that is the team's; the rest is its own zones' and its own Restores'."""
    reward_scale: float = 5.0
    """Rewards are divided by this."""
    hidden: int = 32
    """Units of the layer of a host; those of a zone are twice as many."""

    def check(self) -> None:
        """Raises UserError, with one sentence, for settings that make no sense."""
        super().check()
        if self.steps_per_update % self.num_minibatches:
            raise UserError(
                f"num_minibatches = {self.num_minibatches} does not divide the {self.steps_per_update} samples of an "
                "update."
            )


class Play(eqx.Module):
    """An environment, with the notebooks of its agents."""

    obs: cc4.Observation
    state: cc4.State
    notes: Notes


class Env(NamedTuple):
    """What a run plays, written for one environment."""

    reset: Callable[..., Any]
    """(key, arm) -> Play"""
    step: Callable[..., Any]
    """(key, Play, actions [blue]) -> (Play, reward, credits [blue], {part of the reward: its value, and `overflow`})"""
    arms: PyTree
    """Of `config.arm`, stacked on a leading axis."""


def make_env(config: Config) -> Env:
    """CAGE Challenge 4 against `config.red`. Every reset draws its episode from the banks of the run's arm."""
    own = definitions.load(config.define, config.folder)
    params = own.params(config.red, config.num_steps)

    def reset(key, arm):
        obs, state = cc4.start(arms.sample(key, arm, params))
        return Play(obs, state, notebook.observe(notebook.initial_notes(), obs.flat))

    def step(key, play, action):
        obs, state, reward, _, info = cc4.step(key, play.state, action, params)
        notes = notebook.observe(notebook.submit(play.notes, action), obs.flat)
        dropped = (state.overflow - play.state.overflow).astype(jnp.float32)
        parts = vars(info.rewards) | {"overflow": dropped}
        return Play(obs, state, notes), reward, credit(info, play.state, action), parts

    return Env(reset, step, arms.build(config.arm, own.arms, config.num_steps))


def credit(info: cc4.Info, state: cc4.State, action: Integer[Array, "blue"]) -> Float[Array, "blue"]:
    """Each agent's part of the team reward: its zones, its Restores, a fifth of the contractor network's losses."""
    zones = info.zone_rewards.sum(axis=1)
    own = jax.ops.segment_sum(zones[WATCHED], AGENT_OF, NUM_BLUE, indices_are_sorted=True)
    restores = decode(action).kind == BlueAction.RESTORE
    return own + zones[0] / NUM_BLUE - state.scenario.restore_cost * restores


class Features(eqx.Module):
    """What the networks read, in 1/64: a CPU copies a whole trajectory of bfloat16 at every step that adds to it."""

    host: UInt8[Array, "*rest zone slot feature"]
    zone: UInt8[Array, "*rest zone zone_feature"]
    traffic: UInt8[Array, "*rest zone source traffic_feature"]


def in_64ths(x: Float[Array, "*n"]) -> UInt8[Array, "*n"]:
    """Rounded; at most almost 4."""
    return jnp.clip(jnp.round(x * 64), 0, 255).astype(jnp.uint8)


def features(notes: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]) -> Features:
    """Of one environment. What an agent reads of its own zones depends on nothing that it has not seen itself."""
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


def privileged_obs(state: cc4.State) -> UInt8[Array, "zone slot feature"]:
    """What only the critic sees: red's sessions and root, what red takes the host for, its services, red's activity."""
    sessions, levels = state.sessions, unpack(state.red.known)
    rooted = hosts_of(sessions.host.reshape(-1).astype(jnp.int32), id_flags(sessions.root).reshape(-1))
    active = (sessions.host != NO_HOST).any(axis=1)[np.minimum(WATCHED, NUM_BLUE)]
    columns = [
        *(unpack(words) for words in (held_hosts(sessions), rooted)),
        *levels[1:],
        1 - state.hosts.reliability / 100,
    ]
    columns = [x[WATCHED].astype(jnp.float32) for x in columns]
    return in_64ths(jnp.stack([*columns, jnp.broadcast_to(active[:, None], (NUM_WATCHED, SLOTS))], axis=-1))


SOURCES = np.array([[i for i, s in enumerate(ALPHABETICAL) if s != zone] for zone in WATCHED])
"""[zone source] places, in a row of nine subnets of an observation, of the subnets that traffic can be blocked from."""
HOST_KINDS = (BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
TRAFFIC_KINDS = (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE)
KINDS = (*HOST_KINDS, *TRAFFIC_KINDS, BlueAction.SLEEP)
"""What the policy chooses from. Analyse and Monitor change nothing that an agent observes or is paid for."""
USED = np.isin(ACTION_TABLE[..., 0], KINDS)


ZONE_ACTIONS = SLOTS * len(HOST_KINDS) + SOURCES.shape[1] * len(TRAFFIC_KINDS)
"""Actions in a zone: its slots x HOST_KINDS, then its sources x TRAFFIC_KINDS."""


def _places() -> Int32[np.ndarray, "blue action"]:
    """Where each action of KINDS stands: zones x ZONE_ACTIONS, then the agents' Sleep. 0 for others."""
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


NUM_OF = np.bincount(AGENT_OF)
"""[blue] zones of an agent."""
PLACES = _places()
_AGENT, _INDEX = np.array(
    [np.argwhere((place == PLACES) & USED & ~IS_PADDING)[0] for place in range(PLACES.max() + 1)]
).T
"""[place] the action that stands there: whose it is, and its index."""


class Choices(eqx.Module):
    """Something of every action of KINDS, once: a third of what a row of 242 for each agent takes."""

    zone: Shaped[Array, "*rest zone zone_action"]
    sleep: Shaped[Array, "*rest blue"]

    def by_place(self) -> Shaped[Array, "*rest place"]:
        """In the order of PLACES."""
        return jnp.concatenate([self.zone.reshape(*self.zone.shape[:-2], -1), self.sleep], axis=-1)

    def reduce(self, within: Callable, across: Callable) -> Shaped[Array, "*rest blue"]:
        """Over all actions of each agent: `within` an axis, then `across` two arrays."""
        zones = within(self.zone, axis=-1)
        last = within(zones[..., NUM_BLUE - 1 :], axis=-1)[..., None]
        return across(jnp.concatenate([zones[..., : NUM_BLUE - 1], last], axis=-1), self.sleep)


def choices(mask: Bool[Array, "*rest blue action"]) -> Choices:
    """A mask by place."""
    flat = mask[..., _AGENT, _INDEX]
    zones = flat[..., : NUM_WATCHED * ZONE_ACTIONS].reshape(*mask.shape[:-2], NUM_WATCHED, -1)
    return Choices(zones, flat[..., NUM_WATCHED * ZONE_ACTIONS :])


def by_action(logits: Choices, legal: Bool[Array, "*rest blue action"]) -> Float[Array, "*rest blue action"]:
    """Logits in the order of the actions, the lowest number for those that are illegal or not of KINDS."""
    ordered = logits.by_place()[..., PLACES]
    return jnp.where(legal & USED, ordered, jnp.finfo(ordered.dtype).min)


def log_prob_and_entropy(
    logits: Choices, mask: Choices, action: UInt8[Array, "*rest blue"]
) -> tuple[Float[Array, "*rest blue"], Float[Array, "*rest blue"]]:
    """Of each agent's action, and of its choice, in nats; one exponential for both."""
    logits = jax.tree.map(lambda x, legal: jnp.where(legal, x, jnp.finfo(x.dtype).min), logits, mask)
    most = jax.lax.stop_gradient(logits.reduce(jnp.max, jnp.maximum))
    shifted = Choices(logits.zone - most[..., AGENT_OF, None], logits.sleep - most)
    powers = jax.tree.map(jnp.exp, shifted)
    total = powers.reduce(jnp.sum, jnp.add)
    place = jnp.asarray(PLACES)[np.arange(NUM_BLUE), action]
    log_prob = jnp.take_along_axis(shifted.by_place(), place, axis=-1) - jnp.log(total)
    mean = jax.tree.map(jnp.multiply, powers, shifted).reduce(jnp.sum, jnp.add) / total
    return log_prob, jnp.log(total) - mean


def per_agent(zones: Float[Array, "*rest zone unit"]) -> Float[Array, "*rest blue unit"]:
    """Each agent's mean over its zones."""
    alone = zones[..., : NUM_BLUE - 1, :]
    return jnp.concatenate([alone, zones[..., NUM_BLUE - 1 :, :].mean(axis=-2, keepdims=True)], axis=-2)


def linear(layer: eqx.nn.Linear, x: Float[Array, "*rest in"]) -> Float[Array, "*rest out"]:
    """A layer on the last axis."""
    return x @ layer.weight.T + layer.bias


class ZoneNetwork(eqx.Module):
    """A tanh layer on what the hosts of a zone, and of all zones of its agent, have in common: sums and maxima."""

    layer: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_host: int, num_zone: int, units: int):
        self.layer = orthogonal(key, 4 * num_host + num_zone, units, 2**0.5)

    def __call__(
        self, host: Float[Array, "*rest zone slot feature"], zone: Float[Array, "*rest zone zone_feature"]
    ) -> Float[Array, "*rest zone unit"]:
        pooled = jnp.concatenate([host.sum(axis=-2) / 4, host.max(axis=-2)], axis=-1)
        of_agent = per_agent(pooled)[..., AGENT_OF, :]
        return jnp.tanh(linear(self.layer, jnp.concatenate([pooled, of_agent, zone], axis=-1)))


class ActorCritic(eqx.Module):
    """Logits from the notebook; values from the notebook and the state. All leaves are arrays."""

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

    def read(self, seen: Features) -> tuple[Float[Array, "*rest zone unit"], Float[Array, "*rest zone slot host_unit"]]:
        """What the actor makes of the zones and of their hosts."""
        host = seen.host.astype(jnp.float32) / 64
        zone = self.zone(host, seen.zone.astype(jnp.float32) / 64)
        return zone, jnp.tanh(linear(self.host_in, host) + linear(self.host_from_zone, zone)[..., None, :])

    def __call__(self, seen: Features) -> tuple[Choices, Float[Array, "*rest zone slot belief"]]:
        """Logits, of illegal actions, too; and log-odds that red holds a session on a host, and that it has root there.

        What it believes is used in training only.
        """
        zone, hosts = self.read(seen)
        traffic, rest = seen.traffic.astype(jnp.float32) / 64, zone.shape[:-2]
        names = jnp.broadcast_to(jax.nn.one_hot(SOURCES, NUM_SUBNETS), (*rest, *SOURCES.shape, NUM_SUBNETS))
        traffic = linear(self.traffic_in, jnp.concatenate([traffic, names], axis=-1))
        traffic = jnp.tanh(traffic + linear(self.traffic_from_zone, zone)[..., None, :])
        parts = linear(self.host_out, hosts), linear(self.traffic_out, traffic) + TRAFFIC_BIAS
        zones = jnp.concatenate([x.reshape(*rest, NUM_WATCHED, -1) for x in parts], axis=-1)
        return Choices(zones, linear(self.sleep_out, per_agent(zone))[..., 0]), linear(self.belief_out, hosts)

    def value(self, seen: Features, secret: UInt8[Array, "*rest zone slot secret"]) -> Float[Array, "*rest blue"]:
        """What each agent will be credited with."""
        host, zone = (x.astype(jnp.float32) / 64 for x in (jnp.concatenate([seen.host, secret], axis=-1), seen.zone))
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
        """Arguments of `__init__` besides the key, kept in every checkpoint."""
        hidden, num_host = self.host_in.weight.shape
        num_zone = self.zone.layer.weight.shape[1] - 4 * num_host
        num_secret = self.critic_host_in.weight.shape[1] - num_host
        return {"num_host": num_host, "num_zone": num_zone, "num_secret": num_secret, "hidden": hidden}

    def initial_carry(self, num_agents: int) -> Notes:
        """What the agents remember at the start of an episode."""
        return notebook.initial_notes()

    def logits(
        self, carry: Notes, vector: UInt8[Array, "blue obs"], mask: Bool[Array, "blue action"]
    ) -> tuple[Notes, Float[Array, "blue action"]]:
        """For evaluation: the logits of a step of an episode."""
        notes = notebook.observe(carry, vector)
        return notes, by_action(self(features(notes, vector, mask))[0], notebook.legal(notes, mask))

    def remember(self, carry: Notes, action: Int32[Array, "blue"]) -> Notes:
        """For evaluation: the carry with the actions that were taken."""
        return notebook.submit(carry, action)


NUM_BELIEFS = 2
"""Number of leading privileged features that are binary."""
TRAFFIC_BIAS = -3.0
"""Of the logits of Allow and Block at the start: a Block at random costs more than anything else."""


def orthogonal(key: PRNGKeyArray, num_in: int, num_out: int, scale: float) -> eqx.nn.Linear:
    """Linear layer with an orthogonal weight matrix and no bias at the start."""
    key_layer, key_weight = jax.random.split(key)
    layer = eqx.nn.Linear(num_in, num_out, key=key_layer)
    weight = jax.nn.initializers.orthogonal(scale)(key_weight, (num_out, num_in))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight, jnp.zeros(num_out)))


class Runner(eqx.Module):
    """All that a run carries from one update to the next. No environment lives on: an update is a whole episode."""

    network: ActorCritic
    opt_state: PyTree
    seed: UInt32[Array, ""]
    update: Int32[Array, ""]
    """Updates done."""


class Transition(eqx.Module):
    """What a rollout records."""

    seen: Features
    secret: UInt8[Array, "*step env zone slot secret"]
    idle: Bool[Array, "*step env blue"]
    """Whose action was a decision."""
    action: UInt8[Array, "*step env blue"]
    log_prob: Float[Array, "*step env blue"]
    value: Float[Array, "*step env blue"]
    credit: Float[Array, "*step env blue"]
    """Raw, before any is shared."""
    reward: Float[Array, "*step env"]
    """Raw team reward."""
    parts: dict[str, Float[Array, "*step env"]]
    """What it is made of, and `overflow`, what the tables of the simulator had to drop."""


class Batch(eqx.Module):
    """Samples of a minibatch, or all of an update; a sample is the team in one step."""

    seen: Features
    secret: UInt8[Array, "sample zone slot secret"]
    idle: Bool[Array, "sample blue"]
    action: UInt8[Array, "sample blue"]
    log_prob: Float[Array, "sample blue"]
    advantage: Float[Array, "sample blue"]
    target: Float[Array, "sample blue"]


def rollout(
    config: Config, env: Env, network: ActorCritic, arm: PyTree, key: PRNGKeyArray
) -> tuple[Transition, Bool[Array, "env blue action"]]:
    """One episode in every environment, and its action masks, which are constant in an episode."""
    key_reset, key_act, key_env = jax.random.split(key, 3)
    play = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.num_envs), arm)
    mask = play.obs.mask
    u = jax.random.uniform(key_act, (config.num_steps, config.num_envs, NUM_BLUE))
    keys_env = jax.random.split(key_env, (config.num_steps, config.num_envs))

    def step(play, now):
        u, keys = now
        seen = jax.vmap(features)(play.notes, play.obs.flat, mask)
        secret = jax.vmap(privileged_obs)(play.state)
        logits = by_action(network(seen)[0], jax.vmap(notebook.legal)(play.notes, mask))
        action, log_prob = jax.vmap(sample)(logits, u)
        idle = ~jax.vmap(notebook.is_busy)(play.notes)
        play, reward, credit, parts = jax.vmap(env.step)(keys, play, action)
        value = network.value(seen, secret)
        small = action.astype(jnp.uint8)
        return play, Transition(seen, secret, idle, small, log_prob, value, credit, reward, parts)

    _, traj = jax.lax.scan(step, play, (u, keys_env))
    return traj, mask


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
    network: ActorCritic, batch: Batch, mask: Choices, ent_coef: Float[Array, ""], config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped surrogate and entropy bonus of decisions, half the squared value error; and what is logged of them."""
    weight = batch.idle / batch.idle.sum()

    def mean(x):
        return (x * weight).sum()

    logits, beliefs = network(batch.seen)
    log_prob, entropy = log_prob_and_entropy(logits, mask, batch.action)
    log_ratio = jnp.where(batch.idle, log_prob - batch.log_prob, 0)
    ratio = jnp.exp(log_ratio)
    advantage = batch.advantage - mean(batch.advantage)
    advantage = advantage / (jnp.sqrt(mean(advantage**2)) + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_eps, 1 + config.clip_eps)
    policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))
    value_loss = 0.5 * jnp.mean((network.value(batch.seen, batch.secret) - batch.target) ** 2)
    entropy = mean(entropy)
    here = batch.seen.host[..., 0] > 0
    truth = batch.secret[..., :NUM_BELIEFS] > 0
    surprise = optax.losses.sigmoid_binary_cross_entropy(beliefs, truth).sum(axis=-1)
    belief_loss = jnp.mean(surprise, where=here)
    loss = policy_loss + config.vf_coef * value_loss - ent_coef * entropy + config.belief_coef * belief_loss
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": mean(ratio - 1 - log_ratio),
        "clipfrac": mean(jnp.abs(ratio - 1) > config.clip_eps),
    }


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam; the gradient is clipped in `learn`."""
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def learn(
    config: Config, runner: Runner, samples: Batch, masks: Choices, key: PRNGKeyArray
) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """Epochs of minibatches, each epoch one permutation of all samples. Sample i was seen in env i mod num_envs.

    Steps and the entropy bonus are scaled by what is left of the training.
    """
    left = 1 - runner.update / config.num_updates

    def minibatch(carry, index):
        network, opt_state = carry
        batch = jax.tree.map(lambda x: x[index], samples)
        mask = jax.tree.map(lambda x: x[index % config.num_envs], masks)
        grads, logs = jax.grad(ppo_loss, has_aux=True)(network, batch, mask, config.ent_coef * left, config)
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1, config.max_grad_norm / (norm + 1e-8))
        updates, opt_state = optimiser(config).update(jax.tree.map(lambda g: g * scale, grads), opt_state)
        network = optax.apply_updates(network, jax.tree.map(lambda step: step * left, updates))
        return (network, opt_state), logs | {"grad_norm": norm}

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), len(samples.action))
        return jax.lax.scan(minibatch, carry, order.reshape(config.num_minibatches, -1))

    carry = runner.network, runner.opt_state
    (network, opt_state), logs = jax.lax.scan(epoch, carry, jnp.arange(config.update_epochs))
    runner = dataclasses.replace(runner, network=network, opt_state=opt_state)
    return runner, jax.tree.map(jnp.mean, logs) | {"learning_rate": config.learning_rate * left}


def init(config: Config, env: Env, arm: PyTree, seed: UInt32[Array, ""]) -> Runner:
    """A run before its first update."""
    key_network, key_shapes = jax.random.split(jax.random.key(seed))
    play = jax.eval_shape(env.reset, key_shapes, arm)
    seen = jax.eval_shape(features, play.notes, play.obs.flat, play.obs.mask)
    sizes = (x.shape[-1] for x in (seen.host, seen.zone, jax.eval_shape(privileged_obs, play.state)))
    network = ActorCritic(key_network, *sizes, config.hidden)
    return Runner(network, optimiser(config).init(network), seed, jnp.int32(0))


def update(config: Config, env: Env, arm: PyTree, runner: Runner) -> tuple[Runner, dict[str, Float[Array, ""]]]:
    """One rollout and what is learned from it. If that is not finite, the runner is handed back as it was."""
    _, key_updates = jax.random.split(jax.random.key(runner.seed))
    key_rollout, key_learn = jax.random.split(jax.random.fold_in(key_updates, runner.update))
    traj, mask = rollout(config, env, runner.network, arm, key_rollout)
    team = traj.credit.sum(axis=-1, keepdims=True)
    reward = (config.team_share * team + (1 - config.team_share) * traj.credit) / config.reward_scale
    advantage = gae(reward, traj.value, config.gamma, config.gae_lambda)
    target = advantage + traj.value

    columns = traj.seen, traj.secret, traj.idle, traj.action, traj.log_prob, advantage, target
    samples = Batch(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), columns))
    learned, logs = learn(config, runner, samples, choices(mask), key_learn)
    logs |= {name: value.sum(0).mean() for name, value in ({"return": traj.reward} | traj.parts).items()}
    logs["explained_variance"] = 1 - jnp.var(advantage) / jnp.var(target)
    logs["reward_scale"] = jnp.float32(config.reward_scale)
    learned = dataclasses.replace(learned, update=runner.update + 1)
    finite = [jnp.isfinite(x).all() for x in (logs["loss"], logs["grad_norm"], *jax.tree.leaves(learned))]
    good = jnp.stack(finite).all()
    return jax.tree.map(partial(jnp.where, good), learned, runner), logs


def make_train(config: Config, env: Env | None = None) -> Training:
    """All runs before their first update, and the compiled program that trains them. `env` replaces the game."""
    env = env or make_env(config)

    def start() -> tuple[PyTree, Runner]:
        arm = jax.tree.map(lambda x: jnp.repeat(x, len(config.seeds), 0), env.arms)
        seed = jnp.tile(jnp.array(config.seeds, jnp.uint32), len(config.arm))
        first = jax.tree.map(lambda x: x[0], env.arms)
        return arm, jax.jit(partial(jax.lax.map, partial(init, config, env, first)))(seed)

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
