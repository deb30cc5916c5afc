"""Episodes of a game: one at a time, or all reds and episodes in one compiled program.

The policy is an argument of the program. The randomness of an episode depends only on the evaluation seed and the
episode number, so all policies and reds face the same networks and the same random events.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int32, Integer, PRNGKeyArray, PyTree, UInt8

from purecc4.arms.define import Definitions
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import decode
from purecc4.envs.cc4.constants import NO_HOST, NUM_BLUE, BlueAction, Subnet
from purecc4.errors import UserError
from purecc4.history_policy import HistoryPolicy
from purecc4.play import metrics
from purecc4.play.policies import Policy, act
from purecc4.play.scripts import Oracle
from purecc4.train import devices
from purecc4.train.run_reader import REWARD_TERMS

MAX_EPISODES = 1_000_000
"""Most episodes of a policy against a red, which are played as one batch."""


def stack_params(
    reds: Sequence[str], num_steps: int, own: Definitions | None = None, observation: str = "flat"
) -> cc4.Params:
    """Stack the parameters of several reds, built in or defined in `own`, on a leading axis.

    `reds` may name their game, as RED@GAME. `observation` is one of cc4.OBSERVATIONS; what happens is the same.
    Raises UserError for an unknown red or game (listing the known ones) and for an episode length out of range.
    """
    own = own or Definitions()
    params = [own.params(red, num_steps, observation) for red in reds]
    return jax.tree.map(lambda *x: jnp.stack(x), *params)


def check_numbers(episodes: int, eval_seed: int, least: int = 1) -> None:
    """Raise UserError for too few or too many episodes or an evaluation seed out of range."""
    if not least <= episodes <= MAX_EPISODES or not 0 <= eval_seed < 2**32:
        raise UserError(
            f"--episodes must be at least {least} and at most {MAX_EPISODES}, and --eval-seed from 0 to 4294967295."
        )


class EpisodeState(NamedTuple):
    """State of an episode between two steps."""

    obs: cc4.Observation
    state: cc4.State
    carry: PyTree
    """Memory of the policy's network."""


def start(
    policy: Policy, params: cc4.Params, seed: Integer[Array, ""], episode: Integer[Array, ""]
) -> tuple[EpisodeState, PRNGKeyArray]:
    """Start an episode. Returns its state and the key of its steps."""
    key_reset, key_steps = jax.random.split(jax.random.fold_in(jax.random.key(seed), episode))
    return EpisodeState(*cc4.reset(key_reset, params), policy.network.initial_carry(NUM_BLUE)), key_steps


def advance(
    policy: Policy, params: cc4.Params, now: EpisodeState, key_steps: PRNGKeyArray
) -> tuple[EpisodeState, cc4.Info, Int32[Array, "blue"]]:
    """Advance one step. Returns the new state, the environment's info and the submitted actions."""
    key_act, key_env = jax.random.split(jax.random.fold_in(key_steps, now.state.step))
    u = jax.random.uniform(key_act, (NUM_BLUE,))
    carry, actions = act(policy, read(policy.network, now), now.obs.flat, now.obs.mask, u)
    obs, state, _, _, info = cc4.step(key_env, now.state, actions, params)
    return EpisodeState(obs, state, carry), info, actions


def read(network: eqx.Module, now: EpisodeState) -> PyTree:
    """The memory of a policy before it acts, with what it reads apart from the flat observation."""
    if isinstance(network, Oracle):
        return network.look(now.carry, now.state)
    return network.read(now.carry, now.obs.raw) if isinstance(network, HistoryPolicy) else now.carry


def count_kinds(kind: UInt8[Array, "blue"]) -> Int32[Array, "action_kind"]:
    """Number of agents per constants.BlueAction."""
    return (kind[:, None] == np.arange(len(BlueAction))).sum(axis=0)


class Sums(NamedTuple):
    """Sums over the steps of an episode."""

    parts: Float[Array, "part"]
    """Reward terms, in the order of REWARD_TERMS."""
    submitted: Int32[Array, "action_kind"]
    executed: Int32[Array, "action_kind"]
    contractors: Float[Array, ""]
    """Reward terms of the contractor network."""


def play(
    num_steps: int,
    policy: Policy,
    params: cc4.Params,
    seed: Integer[Array, ""],
    episodes: Integer[Array, "env"],
) -> Float[Array, "red env term"]:
    """Play episodes against each of the stacked reds. Returns tables.VALUES.

    This is a scan over a vmapped step, not a vmap over a scan: the latter makes JAX trace a step several times.
    """

    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def begin(params, episode):
        now, key_steps = start(policy, params, seed, episode)
        none = jnp.zeros(len(BlueAction), jnp.int32)
        sums = Sums(jnp.zeros(len(REWARD_TERMS)), none, none, jnp.float32(0))
        return (now, sums, metrics.begin(num_steps)), key_steps

    @jax.vmap
    @partial(jax.vmap, in_axes=(None, 0, 0))
    def step(params, carry, key_steps):
        now, sums, tally = carry
        before = now.state
        now, info, actions = advance(policy, params, now, key_steps)
        parts = jnp.stack([getattr(info.rewards, part) for part in REWARD_TERMS])
        kinds = count_kinds(decode(actions).kind), count_kinds(info.executed)
        sums = add(sums, Sums(parts, *kinds, info.zone_rewards[Subnet.CON].sum()))
        return now, sums, metrics.add(tally, before, now.state, info)

    carry, keys = begin(params, episodes)
    (now, *sums), _ = jax.lax.scan(lambda carry, _: (step(params, carry, keys), None), carry, length=num_steps)
    return jax.vmap(jax.vmap(totals))(now.state, *sums)


def totals(state: cc4.State, sums: Sums, tally: metrics.Tally) -> Float[Array, "term"]:
    """Compute tables.VALUES of an episode from its final state and its sums."""
    last, total = cc4.view(state), sums.parts.sum()
    counts = sums.parts, sums.submitted, sums.executed
    end = (last.session_host != NO_HOST).sum(), last.rooted.sum(), state.overflow, total - sums.contractors
    return jnp.concatenate([total[None], *counts, jnp.stack(end), metrics.summarise(tally, state)])


def add(first, second):
    """Add two pytrees of arrays."""
    return jax.tree.map(jnp.add, first, second)


@cache
def build(num_steps: int = 500) -> Callable[..., Float[Array, "red env term"]]:
    """Build the program (policy, params [red], seed, episodes [env]) -> results of `play`, by red and episode.

    It compiles once per number of reds, number of episodes and network size. Episodes are sharded over the devices.
    """
    sharding = devices.run_sharding()

    share = jax.shard_map(
        partial(play, num_steps),
        mesh=sharding.mesh,
        in_specs=(P(), P(), P(), P("run")),
        out_specs=P(None, "run"),
        check_vma=False,
    )

    @jax.jit
    def evaluate(policy, params, seed, episodes):
        filled = jnp.pad(episodes, (0, -len(episodes) % sharding.num_devices), mode="edge")
        return share(policy, params, seed, filled)[:, : len(episodes)]

    return evaluate
