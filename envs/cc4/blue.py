"""Effects of blue's actions. Sleep, Monitor and Analyse only take time (QUIRKS.md: Q34).

The five agents own disjoint hosts, so all host actions of a step are applied at once: the five target hosts are copied
out (`at`), changed and written back (`put`). Ported from `Restore.py`, `RestoreFromBackup.py`, `Remove.py`,
`StopProcess.py`, `DecoyActions/` and `ControlTraffic.py`.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt16, UInt32

from .actions import BlueOrder
from .constants import MAX_SUSPICIOUS, NO_HOST, NUM_SUBNETS, BlueAction, Decoy, Service, Subnet
from .draws import Draws, highest, pid_step
from .hosts import at, has_orphan, no_pid, own_pids
from .layout import HOSTS, holds, hosts_of
from .routing import blue_to_zones
from .sessions import id_flags, id_set
from .sets import BitSet
from .state import Hosts, PackedNetwork, Sessions


def control_traffic(blocked: Bool[Array, "subnet subnet"], order: BlueOrder) -> Bool[Array, "subnet subnet"]:
    """AllowTrafficZone and BlockTrafficZone; [to, from]. Each agent edits rows of its own subnets only."""
    names = np.arange(Subnet.INT, dtype=np.uint8)[:, None]
    to, source, kind = (blue_to_zones(x)[:, None] for x in (order.to, order.source, order.kind))
    here = (to == names) & (source == np.arange(NUM_SUBNETS, dtype=np.uint8))
    opened, closed = (here & (kind == edit) for edit in (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE))
    return jnp.concatenate([(blocked[:-1] | closed) & ~opened, blocked[-1:]])


def put(tree, changed, target: Int32[Array, "blue"]):
    """Write back the entries of blue's target hosts. An agent with target NO_HOST writes nothing."""
    here = (blue_to_zones(target)[:, None] == HOSTS) & (HOSTS[Subnet.RZA, 0] <= HOSTS)
    return jax.tree.map(lambda old, new: jnp.where(here, blue_to_zones(new)[..., None], old), tree, changed)


def _restore(do: Bool[Array, "blue"], hosts: Hosts) -> Hosts:
    """Restore: ends decoys and orphaned processes and repairs services. Suspicious pids stay on the list (Q29)."""
    return Hosts(
        reliability=jnp.where(do, 100, hosts.reliability).astype(jnp.uint8),
        decoy_pid=no_pid(hosts.decoy_pid, do),
        decoy_reliability=hosts.decoy_reliability,
        orphan_pid=no_pid(hosts.orphan_pid, do),
        suspicious_orphan_pid=no_pid(hosts.suspicious_orphan_pid, do),
        suspicious_pid=hosts.suspicious_pid,
    )


def _first_entry(suspicious_pids: UInt16[Array, "suspicious *n"], pids: UInt16[Array, "..."]) -> UInt16[Array, "..."]:
    """Index of a pid in blue's list of suspicious pids; MAX_SUSPICIOUS if it is not there, or 0.

    Indices are as wide as pids, so that a CPU compares and selects 16 at once.
    """
    first = jnp.full(pids.shape, MAX_SUSPICIOUS, jnp.uint16)
    for index in reversed(range(MAX_SUSPICIOUS)):
        first = jnp.where(suspicious_pids[index] == pids, np.uint16(index), first)
    return jnp.where(pids > 0, first, np.uint16(MAX_SUSPICIOUS))


class Intruders(eqx.Module):
    """Sessions of red agents 1 to 5 on blue's target hosts, by id."""

    here: Bool[Array, "blue id"]
    pid: UInt16[Array, "blue id"]
    """0 if there is none."""
    root: Bool[Array, "blue id"]


def intruders(sessions: Sessions, target: Int32[Array, "blue"]) -> Intruders:
    """The sessions on the target hosts, which belong to the red agent of the same zone."""
    here = target.astype(jnp.uint8)[:, None] == sessions.host[1:]
    root = id_flags(BitSet(sessions.root.low[1:], sessions.root.high[1:]))
    return Intruders(here, no_pid(sessions.pid[1:], ~here), root)


def remove(
    do: Bool[Array, "blue"], hosts: Hosts, red: Intruders, u: Float[Array, "recreated blue"]
) -> tuple[Hosts, Bool[Array, "blue id"], Int32[Array, ""]]:
    """Remove: kill the processes with the host's suspicious pids, in the order of the list (Q29, Q30).

    For each pid of the list, oldest first:
        a red session with this pid dies, unless it is root;
        a Vsftpd process without a service dies;
        a decoy dies and restarts at once with a pid above the host's largest, which may be on the rest of the list.

    Only restarts depend on what came before, so each pass of the loop jumps to the next pid of a decoy. `u` are the
    uniforms of the new pids, one row per pass. Returns the killed sessions and the number of decoys that restarted
    more often than MAX_RECREATED allows, too.
    """
    suspicious_pids = hosts.suspicious_pid
    session_dies_at = jnp.where(red.root, np.uint16(MAX_SUSPICIOUS), _first_entry(suspicious_pids[:, :, None], red.pid))
    orphan_dies_at = _first_entry(suspicious_pids, hosts.suspicious_orphan_pid)
    decoys = hosts.decoy_pid
    last = jnp.full(do.shape, -1, jnp.int32)  # the latest entry of the list that was a decoy
    for u_pid in u:
        entry, hit = _next_decoy(do, suspicious_pids, decoys, last)
        # the largest pid among the processes that the entries up to this one have left
        orphans = no_pid(hosts.suspicious_orphan_pid, orphan_dies_at < entry)
        left = replace(hosts, decoy_pid=no_pid(decoys, hit), suspicious_orphan_pid=orphans)
        sessions_left = no_pid(red.pid, session_dies_at <= entry[:, None])
        largest = jnp.maximum(own_pids(left), sessions_left.max(axis=1))
        decoys = jnp.where(hit, largest + pid_step(u_pid), decoys)
        last = jnp.where(hit.any(axis=0), entry, last)
    too_many = _next_decoy(do, suspicious_pids, decoys, last)[1].any(axis=0).sum()
    orphans = no_pid(hosts.suspicious_orphan_pid, do & (orphan_dies_at < MAX_SUSPICIOUS))
    killed = do[:, None] & (session_dies_at < MAX_SUSPICIOUS)
    return replace(hosts, decoy_pid=decoys, suspicious_orphan_pid=orphans), killed, too_many


def _next_decoy(
    do: Bool[Array, "blue"],
    suspicious_pids: UInt16[Array, "suspicious blue"],
    decoys: UInt16[Array, "decoy blue"],
    last: Integer[Array, "blue"],
) -> tuple[UInt16[Array, "blue"], Bool[Array, "decoy blue"]]:
    """The first entry of the list after `last` with the pid of a decoy, and a flag for that decoy."""
    later = no_pid(suspicious_pids, np.arange(MAX_SUSPICIOUS)[:, None] <= last)
    entries = _first_entry(later, decoys)
    first = entries.min(axis=0)
    return first, do & (entries == first) & (first < MAX_SUSPICIOUS)


class Deployed(eqx.Module):
    """Decoys that DeployDecoy created."""

    kind: Bool[Array, "decoy blue"]
    pid: UInt16[Array, "blue"]
    """Means nothing where nothing was deployed."""
    orphaned: Bool[Array, "blue"]
    """A Vsftpd process lost its service, and Remove will not meet it."""


def deploy_decoy(
    do: Bool[Array, "blue"], hosts: Hosts, red: Intruders, services: Bool[Array, "service blue"], draws: Draws
) -> tuple[Hosts, Deployed, Int32[Array, ""]]:
    """DeployDecoy: one of the compatible kinds, uniformly; Vsftpd always is (Q15).

    Redeploying Vsftpd orphans the old process. That still listens on port 80, and blue may suspect its pid. Also
    returns the number of orphans for which there was no room.
    """
    present = hosts.decoy_pid > 0
    listens_80 = services[Service.APACHE] | present[Decoy.APACHE] | present[Decoy.VSFTPD] | has_orphan(hosts)
    compatible = jnp.stack(
        [
            ~listens_80,
            ~present[Decoy.TOMCAT],
            ~(services[Service.SMTP] | present[Decoy.HARAKA]),
            jnp.ones_like(listens_80),
        ]
    )
    chosen = do & highest(compatible, draws.decoy)
    pid = jnp.maximum(own_pids(hosts), red.pid.max(axis=1)) + pid_step(draws.decoy_pid)
    hosts, orphaned, overflow = _orphan(hosts, no_pid(hosts.decoy_pid[Decoy.VSFTPD], ~chosen[Decoy.VSFTPD]))
    hosts = replace(
        hosts,
        decoy_pid=jnp.where(chosen, pid, hosts.decoy_pid),
        decoy_reliability=jnp.where(chosen, 100, hosts.decoy_reliability).astype(jnp.uint8),
    )
    return hosts, Deployed(chosen, pid, orphaned), overflow


def _orphan(hosts: Hosts, pid: UInt16[Array, "blue"]) -> tuple[Hosts, Bool[Array, "blue"], Int32[Array, ""]]:
    """Orphan a process: it loses its service. Pid 0 is none.

    Pids that become suspicious later are larger than those of running processes, so it is known now if Remove can ever
    kill this one. If the table of those that it can kill is full, the process joins the others and is counted.
    """
    suspicious = (hosts.suspicious_pid == pid).any(axis=0) & (pid > 0)
    slots = []
    added = ~suspicious
    for slot in hosts.suspicious_orphan_pid:
        fits = ~added & (slot == 0)
        slots.append(jnp.where(fits, pid, slot))
        added = added | fits
    is_plain = ~(suspicious & added)
    plain = jnp.where(is_plain, jnp.maximum(hosts.orphan_pid, pid), hosts.orphan_pid)
    hosts = replace(hosts, orphan_pid=plain, suspicious_orphan_pid=jnp.stack(slots))
    return hosts, is_plain & (pid > 0), (~added).sum()


class BlueStep(eqx.Module):
    """Results of blue's host actions."""

    hosts: Hosts
    sessions: Sessions
    killed: BitSet
    """[red] ids of the sessions that ended."""
    restored: UInt32[Array, "zone"]
    deployed: Deployed
    overflow: Int32[Array, ""]


def act(hosts: Hosts, sessions: Sessions, network: PackedNetwork, order: BlueOrder, draws: Draws) -> BlueStep:
    """Apply all host actions that take effect in this step."""
    target = order.host.astype(jnp.int32)
    do_remove, do_restore, do_decoy = (
        order.kind == kind for kind in (BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
    )
    changed = at(hosts, target)
    red = intruders(sessions, target)
    changed, killed, lost = remove(do_remove, changed, red, draws.recreated_pid)
    changed, deployed, lost_orphans = deploy_decoy(do_decoy, changed, red, holds(network.services, target), draws)
    changed = _restore(do_restore, changed)
    killed = jnp.pad(killed | (do_restore[:, None] & red.here), ((1, 0), (0, 0)))  # red agent 0 has no blue opponent
    dead = id_set(killed)
    return BlueStep(
        hosts=put(hosts, changed, jnp.where(do_remove | do_restore | do_decoy, target, NO_HOST)),
        sessions=Sessions(
            host=jnp.where(killed, NO_HOST, sessions.host).astype(jnp.uint8),
            pid=no_pid(sessions.pid, killed),
            abstract=sessions.abstract & ~dead,
            root=sessions.root & ~dead,
        ),
        killed=dead,
        restored=hosts_of(target, do_restore),
        deployed=deployed,
        overflow=lost + lost_orphans,
    )
