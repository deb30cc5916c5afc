"""What blue's actions do. Sleep, Monitor and Analyse do nothing but pass the time (QUIRKS.md: Q34).

The five agents own disjoint hosts, so all host actions of a step are taken at once: the five target hosts are copied
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
    """Write the entries of blue's target hosts back; an agent whose target is NO_HOST writes nothing."""
    here = (blue_to_zones(target)[:, None] == HOSTS) & (HOSTS[Subnet.RZA, 0] <= HOSTS)
    return jax.tree.map(lambda old, new: jnp.where(here, blue_to_zones(new)[..., None], old), tree, changed)


def _restore(do: Bool[Array, "blue"], hosts: Hosts) -> Hosts:
    """Restore: decoys and left-over processes go, services are as new; blue's notes stay (Q29)."""
    return Hosts(
        reliability=jnp.where(do, 100, hosts.reliability).astype(jnp.uint8),
        decoy_pid=no_pid(hosts.decoy_pid, do),
        decoy_reliability=hosts.decoy_reliability,
        orphan_pid=no_pid(hosts.orphan_pid, do),
        suspicious_orphan_pid=no_pid(hosts.suspicious_orphan_pid, do),
        suspicious_pid=hosts.suspicious_pid,
    )


def _first_entry(suspicious_pids: UInt16[Array, "suspicious *n"], pids: UInt16[Array, "..."]) -> UInt16[Array, "..."]:
    """Where in blue's notes a pid stands first; MAX_SUSPICIOUS if nowhere, and for pid 0.

    Places are as wide as pids, so that a CPU compares and selects 16 at once.
    """
    first = jnp.full(pids.shape, MAX_SUSPICIOUS, jnp.uint16)
    for place in reversed(range(MAX_SUSPICIOUS)):
        first = jnp.where(suspicious_pids[place] == pids, np.uint16(place), first)
    return jnp.where(pids > 0, first, np.uint16(MAX_SUSPICIOUS))


class Intruders(eqx.Module):
    """Sessions of red agents 1 to 5 on blue's target hosts, by id."""

    here: Bool[Array, "blue id"]
    pid: UInt16[Array, "blue id"]
    """0 where there is none."""
    root: Bool[Array, "blue id"]


def intruders(sessions: Sessions, target: Int32[Array, "blue"]) -> Intruders:
    """The sessions on the target hosts, which belong to the red agent of the same zone."""
    here = target.astype(jnp.uint8)[:, None] == sessions.host[1:]
    root = id_flags(BitSet(sessions.root.low[1:], sessions.root.high[1:]))
    return Intruders(here, no_pid(sessions.pid[1:], ~here), root)


def remove(
    do: Bool[Array, "blue"], hosts: Hosts, red: Intruders, u: Float[Array, "recreated blue"]
) -> tuple[Hosts, Bool[Array, "blue id"], Int32[Array, ""]]:
    """Remove: kill the processes of the noted pids, in the order of the notes, but not root's (Q29, Q30).

    A killed decoy comes back at once with a new pid, which the rest of the notes may hold again. Returns the sessions
    killed and the number of decoys that came back more often than MAX_RECREATED allows, too.
    """
    suspicious_pids = hosts.suspicious_pid
    session_dies_at = jnp.where(red.root, np.uint16(MAX_SUSPICIOUS), _first_entry(suspicious_pids[:, :, None], red.pid))
    orphan_dies_at = _first_entry(suspicious_pids, hosts.suspicious_orphan_pid)
    decoys, done = hosts.decoy_pid, jnp.full(do.shape, -1, jnp.int32)  # the place of the last note acted on
    for step in u:
        place, hit = _next_decoy(do, suspicious_pids, decoys, done)
        orphans = no_pid(hosts.suspicious_orphan_pid, orphan_dies_at < place)
        left = replace(hosts, decoy_pid=no_pid(decoys, hit), suspicious_orphan_pid=orphans)
        sessions_left = no_pid(red.pid, session_dies_at <= place[:, None])
        largest = jnp.maximum(own_pids(left), sessions_left.max(axis=1))
        decoys = jnp.where(hit, largest + pid_step(step), decoys)
        done = jnp.where(hit.any(axis=0), place, done)
    too_many = _next_decoy(do, suspicious_pids, decoys, done)[1].any(axis=0).sum()
    orphans = no_pid(hosts.suspicious_orphan_pid, do & (orphan_dies_at < MAX_SUSPICIOUS))
    killed = do[:, None] & (session_dies_at < MAX_SUSPICIOUS)
    return replace(hosts, decoy_pid=decoys, suspicious_orphan_pid=orphans), killed, too_many


def _next_decoy(
    do: Bool[Array, "blue"],
    suspicious_pids: UInt16[Array, "suspicious blue"],
    decoys: UInt16[Array, "decoy blue"],
    done: Integer[Array, "blue"],
) -> tuple[UInt16[Array, "blue"], Bool[Array, "decoy blue"]]:
    """The first note after `done` that names a decoy's process, and which decoy."""
    later = no_pid(suspicious_pids, np.arange(MAX_SUSPICIOUS)[:, None] <= done)
    places = _first_entry(later, decoys)
    first = places.min(axis=0)
    return first, do & (places == first) & (first < MAX_SUSPICIOUS)


def deploy_decoy(
    do: Bool[Array, "blue"], hosts: Hosts, red: Intruders, services: Bool[Array, "service blue"], draws: Draws
) -> tuple[Hosts, Int32[Array, ""]]:
    """DeployDecoy: one of the compatible kinds, uniformly; Vsftpd always is (Q15).

    A Vsftpd that is deployed again leaves its old process behind: it still listens on port 80, and blue's notes may
    name it. Returns the number of such processes that found no room, too.
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
    hosts, overflow = _orphan(hosts, no_pid(hosts.decoy_pid[Decoy.VSFTPD], ~chosen[Decoy.VSFTPD]))
    return replace(
        hosts,
        decoy_pid=jnp.where(chosen, pid, hosts.decoy_pid),
        decoy_reliability=jnp.where(chosen, 100, hosts.decoy_reliability).astype(jnp.uint8),
    ), overflow


def _orphan(hosts: Hosts, pid: UInt16[Array, "blue"]) -> tuple[Hosts, Int32[Array, ""]]:
    """A process (0 for none) loses its service.

    Pids noted later are larger than those of living processes, so whether Remove can ever meet it is known now. One
    that finds no room among the noted is kept with the others, and counted.
    """
    noted = (hosts.suspicious_pid == pid).any(axis=0) & (pid > 0)
    slots, added = [], ~noted
    for slot in hosts.suspicious_orphan_pid:
        fits = ~added & (slot == 0)
        slots.append(jnp.where(fits, pid, slot))
        added = added | fits
    plain = jnp.where(noted & added, hosts.orphan_pid, jnp.maximum(hosts.orphan_pid, pid))
    return replace(hosts, orphan_pid=plain, suspicious_orphan_pid=jnp.stack(slots)), (~added).sum()


class BlueStep(eqx.Module):
    """What blue's host actions leave."""

    hosts: Hosts
    sessions: Sessions
    killed: BitSet
    """[red] ids of the sessions that ended."""
    restored: UInt32[Array, "zone"]
    overflow: Int32[Array, ""]


def act(hosts: Hosts, sessions: Sessions, network: PackedNetwork, order: BlueOrder, draws: Draws) -> BlueStep:
    """All host actions that take effect in this step."""
    target = order.host.astype(jnp.int32)
    do_remove, do_restore, do_decoy = (
        order.kind == kind for kind in (BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
    )
    changed, red = at(hosts, target), intruders(sessions, target)
    changed, killed, lost = remove(do_remove, changed, red, draws.recreated_pid)
    changed, lost_orphans = deploy_decoy(do_decoy, changed, red, holds(network.services, target), draws)
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
        overflow=lost + lost_orphans,
    )
