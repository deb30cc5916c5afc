"""The raw observation host by host: flags for a network that reads all own hosts with the same weights."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8, UInt16

from .actions import ACTION_TABLE, zones_of_blue
from .constants import NO_HOST, NUM_BLUE, NUM_ZONES, SLOTS, BlueAction, Decoy
from .layout import bit, union, unpack, zone_of
from .raw import OWN_ZONES, Alert, Files, OpenPort, RawObservation, ResultColumn

FEATURES = {
    "alert": len(Alert),
    "port": len(OpenPort),
    "attacked from": NUM_ZONES,
    "attacks": NUM_ZONES,
    "files": 4,
    "decoy": len(Decoy),
    "action": 2,
    "blocked visit": NUM_ZONES,
    "false alarm": NUM_ZONES,
}
"""Features of a host in the order of `by_host`, and how many of each: Alert; OpenPort; zones of those who attack the
host, and that the host attacks; analysed, cmd.sh, escalate.sh, cmd.sh is the newer one; constants.Decoy deployed;
removed, restored; zones of users."""
NUM_FEATURES = sum(FEATURES.values())


def _own_hosts() -> UInt8[np.ndarray, "blue own_zone slot"]:
    """Numbers of the own hosts; NO_HOST for zones that an agent does not have."""
    hosts = np.full((NUM_BLUE, OWN_ZONES, SLOTS), NO_HOST, np.uint8)
    for agent in range(NUM_BLUE):
        zones = np.array(zones_of_blue(agent))
        hosts[agent, : len(zones)] = zones[:, None] * SLOTS + np.arange(SLOTS)
    return hosts


OWN_HOSTS = _own_hosts()
HOST_KINDS = (BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
"""Action types that have a target host."""


def _action_index(kind: BlueAction) -> Int32[np.ndarray, "blue own_zone slot"]:
    on = (ACTION_TABLE[:, :, 0] == kind)[:, None, None] & (ACTION_TABLE[:, :, 1][:, None, None] == OWN_HOSTS[..., None])
    return np.where(OWN_HOSTS == NO_HOST, 0, on.argmax(axis=-1)).astype(np.int32)


ACTION_INDEX = {kind: _action_index(kind) for kind in HOST_KINDS}
"""Index of each action of HOST_KINDS on each own host; 0 for zones that an agent does not have."""


def exists(mask: Bool[Array, "blue action"]) -> Bool[Array, "blue own_zone slot"]:
    """Own hosts that exist, inferred from the legal Restores."""
    return mask[np.arange(NUM_BLUE)[:, None, None], ACTION_INDEX[BlueAction.RESTORE]] & (OWN_HOSTS != NO_HOST)


def by_host(
    raw: RawObservation,
) -> tuple[Bool[Array, "blue own_zone slot feature"], UInt16[Array, "blue own_zone slot"]]:
    """The raw observation host by host, for networks that read hosts alike.

    Returns the FEATURES as flags, and the largest pid of a process that the host has started in this step: an
    exploit's or the decoy's; 0 is none. Left out is what no single own host can hold: which host of its zone attacks,
    attacks on other agents' hosts that own routers report, success, and traffic actions.
    """
    here = [_of_attacks(raw), _of_actions(raw)]
    visits = jnp.moveaxis(unpack(raw.visits.astype(jnp.uint32)), -1, 2)  # [blue, own_zone, slot, visit, zone]
    flags = [
        jnp.moveaxis(unpack(raw.alerts.astype(jnp.uint32)), -1, 2),
        *here,
        visits.reshape(*visits.shape[:3], -1),
    ]
    started = raw.pids[:, None, None, :, 0] == OWN_HOSTS[..., None]
    pids = jnp.where(started, raw.pids[:, None, None, :, 1], 0).max(axis=-1)
    deployed = _on_host(raw, raw.result[:, ResultColumn.PID] >= 0)
    decoy = jnp.where(deployed, raw.result[:, ResultColumn.PID, None, None], 0).astype(jnp.uint16)
    return jnp.concatenate(flags, axis=-1), jnp.maximum(pids, decoy)


def _of_attacks(raw: RawObservation) -> Bool[Array, "blue own_zone slot 22"]:
    """Ports, zones of attackers, zones attacked."""
    kind, target, source, ports = (raw.attacks[:, None, None, :, column] for column in range(4))
    ports = ports.astype(jnp.uint32) | bit(zone_of(source)) << len(OpenPort)
    hosts, used = OWN_HOSTS[..., None], kind > 0
    aimed = union(jnp.where(used & (target == hosts), ports, np.uint32(0)), 3)
    acts = union(jnp.where(used & (source == hosts), bit(zone_of(target)), np.uint32(0)), 3)
    return jnp.concatenate([unpack(aimed, range(len(OpenPort) + NUM_ZONES)), unpack(acts, range(NUM_ZONES))], axis=-1)


_ACTION = ResultColumn.ACTION, ResultColumn.FILES, ResultColumn.DECOY


def _of_actions(raw: RawObservation) -> Bool[Array, "blue own_zone slot 10"]:
    """Files found, decoys deployed, Remove and Restore."""
    kind, files, decoy = (
        raw.result[:, column] for column in (ResultColumn.ACTION, ResultColumn.FILES, ResultColumn.DECOY)
    )
    both = files >= Files.CMD_ESCALATE
    flags = [
        files >= 0,
        (files == Files.CMD) | both,
        (files == Files.ESCALATE) | both,
        files == Files.ESCALATE_CMD,
        *[decoy == which for which in Decoy],
        kind == BlueAction.REMOVE,
        kind == BlueAction.RESTORE,
    ]
    return jnp.stack([_on_host(raw, flag) for flag in flags], axis=-1)


def _on_host(raw: RawObservation, flag: Bool[Array, "blue"]) -> Bool[Array, "blue own_zone slot"]:
    """A flag of the own action, on the host that it acted on."""
    return flag[:, None, None] & (raw.result[:, ResultColumn.HOST, None, None] == OWN_HOSTS)
