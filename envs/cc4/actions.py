"""Blue's 242 action indices, their meaning and legality, and the action queue of every agent.

Index order of the padded flat wrapper: Analyse, Monitor, Remove, Restore, Sleep, AllowTrafficZone, BlockTrafficZone,
DeployDecoy, then padding. Ported from `BlueFixedActionWrapper.py` and `SimulationController.py:step`.
"""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, UInt8

from .constants import (
    ALPHABETICAL,
    HQ,
    HQ_BLUE,
    IN_PROGRESS,
    NO_HOST,
    NUM_ACTIONS,
    NUM_BLUE,
    SLOTS,
    SUBNET_NAMES,
    BlueAction,
)
from .state import Queue


def zones_of_blue(agent: int) -> tuple[int, ...]:
    """Subnets of a blue agent, in alphabetical order."""
    return HQ if agent == HQ_BLUE else (agent + 1,)


def _table_of(agent: int) -> list[tuple[int, int, int, int]]:
    """(kind, host, to, from) of every index of one agent, unpadded."""
    zones = zones_of_blue(agent)
    hosts = [zone * SLOTS + slot for zone in zones for slot in range(SLOTS)]
    traffic = [(to, source) for to in zones for source in ALPHABETICAL if source != to]

    def on_hosts(kind):
        return [(kind, host, 0, 0) for host in hosts]

    def on_traffic(kind):
        return [(kind, NO_HOST, to, source) for to, source in traffic]

    return [
        *on_hosts(BlueAction.ANALYSE),
        (BlueAction.MONITOR, NO_HOST, 0, 0),
        *on_hosts(BlueAction.REMOVE),
        *on_hosts(BlueAction.RESTORE),
        (BlueAction.SLEEP, NO_HOST, 0, 0),
        *on_traffic(BlueAction.ALLOW_TRAFFIC_ZONE),
        *on_traffic(BlueAction.BLOCK_TRAFFIC_ZONE),
        *on_hosts(BlueAction.DEPLOY_DECOY),
    ]


def _padded_tables() -> np.ndarray:
    tables = np.zeros((NUM_BLUE, NUM_ACTIONS, 4), np.uint8)
    tables[:, :, 1] = NO_HOST
    for agent in range(NUM_BLUE):
        rows = _table_of(agent)
        tables[agent, : len(rows)] = rows
    return tables


ACTION_TABLE = _padded_tables()
"""[blue, index, (kind, host, to, from)]; padding is Sleep."""
IS_PADDING = np.arange(NUM_ACTIONS) >= np.array([len(_table_of(agent)) for agent in range(NUM_BLUE)])[:, None]
SLEEP = np.array([[kind for kind, *_ in _table_of(agent)].index(BlueAction.SLEEP) for agent in range(NUM_BLUE)])


class BlueOrder(eqx.Module):
    """Blue action indices, decoded."""

    kind: UInt8[Array, "blue"]
    host: UInt8[Array, "blue"]
    to: UInt8[Array, "blue"]
    source: UInt8[Array, "blue"]


def decode(actions: Integer[Array, "blue"]) -> BlueOrder:
    """Decode action indices within 0..241; `host` is NO_HOST for actions without a host."""
    rows = jnp.asarray(ACTION_TABLE)[np.arange(NUM_BLUE), actions]
    return BlueOrder(*(rows[:, column] for column in range(4)))


def action_mask(exists: Bool[Array, "host"]) -> Bool[Array, "blue action"]:
    """Legal indices. They are constant within an episode and do not tell if an agent is busy."""
    host = ACTION_TABLE[:, :, 1]
    legal = exists[np.where(host == NO_HOST, 0, host)]
    return jnp.where(host == NO_HOST, ~IS_PADDING, legal)


def label(agent: int, action: int) -> str:
    """CybORG-like text of a blue agent's action index, e.g. `Restore admin_network_subnet_server_host_0`."""
    kind, host, to, source = (int(x) for x in ACTION_TABLE[agent, action])
    if IS_PADDING[agent, action]:
        return "[Padding] Sleep"
    name = BlueAction(kind).name.title().replace("_", "")
    if kind in (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE):
        return f"{name} {SUBNET_NAMES[to]} <- {SUBNET_NAMES[source]}"
    return name if host == NO_HOST else f"{name} {host_name(host)}"


def host_name(host: int) -> str:
    """CybORG's name of a host index."""
    zone, slot = divmod(host, SLOTS)
    kind = f"server_host_{slot}" if slot < 6 else f"user_host_{slot - 6}"
    return f"{SUBNET_NAMES[zone]}_{kind}"


def advance(
    queue: Queue, action: UInt8[Array, "agent"], duration: UInt8[Array, "agent"]
) -> tuple[Queue, Bool[Array, "agent"], Bool[Array, "agent"]]:
    """Advance the queue by one step: idle agents start `action`, then all count down.

    Returns the queue, flags of the agents that started an action, and flags of those whose action takes effect now.
    """
    idle = queue.ticks == 0
    ticks = jnp.where(idle, duration, queue.ticks) - 1
    return Queue(jnp.where(idle, action, queue.action), ticks), idle, ticks == 0


def submit(
    queue: Queue,
    actions: Integer[Array, "blue"],
    exists: Bool[Array, "host"],
    duration: UInt8[Array, "blue_action"],
) -> tuple[Queue, BlueOrder, Integer[Array, ""]]:
    """Submit blue's actions, whose `duration` is in steps. Masked indices, and those outside 0..241, act as Sleep.

    The action of a busy agent is ignored, but a Restore is charged (Q1).

    Returns the queue, the actions that take effect in this step (IN_PROGRESS for busy agents) and the number of
    Restores charged.
    """
    asked = decode(actions)
    legal = (asked.host == NO_HOST) | exists[jnp.where(asked.host == NO_HOST, 0, asked.host)]
    legal &= actions.astype(jnp.uint32) < NUM_ACTIONS
    kind = jnp.where(legal, asked.kind, BlueAction.SLEEP)
    index = jnp.where(legal, actions, SLEEP).astype(jnp.uint8)
    queue, _, due = advance(queue, index, duration[kind])
    order = decode(queue.action.astype(jnp.int32))
    restores = (kind == BlueAction.RESTORE).sum()
    return queue, replace(order, kind=jnp.where(due, order.kind, IN_PROGRESS)), restores
