"""The four scripted blue policies of the recorded episodes, written against observation and mask."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, PRNGKeyArray, UInt8

from purecc4.envs.cc4 import Observation
from purecc4.envs.cc4.actions import ACTION_TABLE, zones_of_blue
from purecc4.envs.cc4.constants import MESSAGE_BITS, NO_HOST, NUM_BLUE, SLOTS, BlueAction

OWN = 3 * SLOTS  # most hosts of one agent
ALERT_MIX = {"defend": (0.5, 0.3), "block": (0.15, 0.65)}  # Restore, Remove; the rest is Analyse
_BLOCK, _PROCESS, _CONNECTION = 59, 27, 43  # length of a subnet's block, and where its alerts are


def _indices(kind: BlueAction) -> np.ndarray:
    """[blue, own host] the action's index; that of the first host where there is no such host."""
    table = np.zeros((NUM_BLUE, OWN), int)
    for agent in range(NUM_BLUE):
        of_kind = (ACTION_TABLE[agent, :, 0] == kind) & (ACTION_TABLE[agent, :, 1] != NO_HOST)
        indices = np.flatnonzero(of_kind)
        table[agent] = np.append(indices, np.full(OWN - len(indices), indices[0]))
    return table


ANALYSE, REMOVE, RESTORE, DEPLOY = map(
    _indices, (BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
)
_MINE = np.arange(OWN) < SLOTS * np.array([len(zones_of_blue(agent)) for agent in range(NUM_BLUE)])[:, None]
_ALERT = 1 + _BLOCK * (np.arange(OWN) // SLOTS) + np.arange(OWN) % SLOTS
MONITOR = (ACTION_TABLE[:, :, 0] == BlueAction.MONITOR).argmax(axis=1)
SLEEP = ((ACTION_TABLE[:, :, 0] == BlueAction.SLEEP) & (np.arange(242) > 0)).argmax(axis=1)
TRAFFIC = np.isin(ACTION_TABLE[:, :, 0], (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE))


def alert_bits(vector: UInt8[Array, "blue obs"]) -> tuple[Bool[Array, "blue own"], Bool[Array, "blue own"]]:
    """Process and connection alerts of own hosts."""
    last = vector.shape[1] - 1
    return tuple((vector[:, np.minimum(_ALERT + offset, last)] > 0) & _MINE for offset in (_PROCESS, _CONNECTION))


def _any_of(key: PRNGKeyArray, candidates: Bool[Array, "blue n"]) -> Int32[Array, "blue"]:
    """A uniform choice among each agent's candidates."""
    return jnp.argmax(jnp.where(candidates, jax.random.uniform(key, candidates.shape), -1), axis=1)


def act(name: str, key: PRNGKeyArray, obs: Observation) -> tuple[Int32[Array, "blue"], UInt8[Array, "blue bit"]]:
    """Actions and messages of one of `sleep`, `random`, `defend`, `block`."""
    key_act, key_messages = jax.random.split(key)
    silent = jnp.zeros((NUM_BLUE, MESSAGE_BITS), jnp.uint8)
    if name == "sleep":
        return jnp.asarray(SLEEP, jnp.int32), silent
    if name == "random":
        return _any_of(key_act, obs.mask), jax.random.bernoulli(key_messages, shape=silent.shape).astype(jnp.uint8)
    return _guard(key_act, obs, *ALERT_MIX[name], traffic=0.1 * (name == "block")), silent


def _guard(key, obs: Observation, restore: float, remove: float, traffic: float) -> Int32[Array, "blue"]:
    """Answer an alert with 0.7, else up to 0.85 deploy a decoy, else edit traffic, else monitor."""
    key_branch, key_alert, key_answer, key_decoy, key_traffic = jax.random.split(key, 5)
    agents = np.arange(NUM_BLUE)
    process, connection = alert_bits(obs.flat)
    alerted = process | connection
    exists = obs.mask[agents[:, None], ANALYSE] & _MINE
    u, v = jax.random.uniform(key_branch, NUM_BLUE), jax.random.uniform(key_answer, NUM_BLUE)
    host = _any_of(key_alert, alerted)
    mend, kill, look = (table[agents, host] for table in map(jnp.asarray, (RESTORE, REMOVE, ANALYSE)))
    answer = jnp.where(v < restore, mend, jnp.where(v < restore + remove, kill, look))
    decoy = jnp.asarray(DEPLOY)[agents, _any_of(key_decoy, exists)]
    other = jnp.where(u < 0.85 + traffic, _any_of(key_traffic, jnp.asarray(TRAFFIC)), MONITOR)
    other = jnp.where(u < 0.85, decoy, other)
    return jnp.where(alerted.any(axis=1) & (u < 0.7), answer, other).astype(jnp.int32)
