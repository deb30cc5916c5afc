"""Networks that read the seven watched zones alike: inputs in bytes, what the critic alone reads, and pooling.

Zones are constants.Subnet 1 to 7; `AGENT_OF` gives the agent of each.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from purecc4.envs import cc4
from purecc4.envs.cc4.actions import decode
from purecc4.envs.cc4.constants import NO_HOST, NUM_BLUE, SLOTS, BlueAction
from purecc4.envs.cc4.layout import hosts_of, unpack
from purecc4.envs.cc4.notebook import AGENT_OF, NUM_WATCHED, WATCHED
from purecc4.envs.cc4.sessions import held_hosts, id_flags
from purecc4.nn import linear, orthogonal

NUM_OF = np.bincount(AGENT_OF)
"""[blue] number of zones."""


def in_64ths(x: Float[Array, "*n"]) -> UInt8[Array, "*n"]:
    """Round to multiples of 1/64 between 0 and 255/64."""
    return jnp.clip(jnp.round(x * 64), 0, 255).astype(jnp.uint8)


def privileged_obs(state: cc4.State) -> UInt8[Array, "zone slot feature"]:
    """Inputs of the critic alone: red's sessions, root access and knowledge by host, worn services, red's activity."""
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


def credit(info: cc4.Info, state: cc4.State, action: Integer[Array, "blue"]) -> Float[Array, "blue"]:
    """Each agent's part of the team reward: the losses in its zones and its Restores."""
    own = jax.ops.segment_sum(info.zone_rewards.sum(axis=1)[WATCHED], AGENT_OF, NUM_BLUE, indices_are_sorted=True)
    return own - state.scenario.restore_cost * (decode(action).kind == BlueAction.RESTORE)


def per_agent(zones: Float[Array, "*rest zone unit"]) -> Float[Array, "*rest blue unit"]:
    """Mean over the zones of each agent."""
    alone = zones[..., : NUM_BLUE - 1, :]
    return jnp.concatenate([alone, zones[..., NUM_BLUE - 1 :, :].mean(axis=-2, keepdims=True)], axis=-2)


class ZoneNetwork(eqx.Module):
    """A tanh layer on sums and maxima over the hosts of a zone, and over those of all zones of its agent."""

    layer: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, num_host: int, num_zone: int, units: int):
        self.layer = orthogonal(key, 4 * num_host + num_zone, units, 2**0.5)

    def __call__(
        self, host: Float[Array, "*rest zone slot feature"], zone: Float[Array, "*rest zone zone_feature"]
    ) -> Float[Array, "*rest zone unit"]:
        pooled = jnp.concatenate([host.sum(axis=-2) / 4, host.max(axis=-2)], axis=-1)
        of_agent = per_agent(pooled)[..., AGENT_OF, :]
        return jnp.tanh(linear(self.layer, jnp.concatenate([pooled, of_agent, zone], axis=-1)))
