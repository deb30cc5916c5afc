"""What blue's actions do. Sleep, Monitor and Analyse do nothing but pass the time (Q34).

The five agents own disjoint hosts, so all host actions of a step are taken at once: the five target hosts are copied
out (`at`), changed and written back (`put`). Ported from `Restore.py`, `RestoreFromBackup.py`, `Remove.py`,
`StopProcess.py`, `DecoyActions/` and `ControlTraffic.py`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt16

from .actions import BlueOrder
from .constants import (
    IS_MONITORED,
    MAX_SUSPICIOUS,
    NO_HOST,
    NUM_HOSTS,
    NUM_SUBNETS,
    BlueAction,
    Decoy,
    Service,
)
from .draws import Draws, highest, pid_step
from .routing import blue_to_hosts, blue_to_zones
from .sessions import close, largest_pid, occupied
from .state import Hosts, Sessions


def control_traffic(blocked: Bool[Array, "subnet subnet"], order: BlueOrder) -> Bool[Array, "subnet subnet"]:
    """AllowTrafficZone and BlockTrafficZone; [to, from]. Each agent edits rows of its own subnets only."""
    names = np.arange(NUM_SUBNETS - 1, dtype=np.uint8)[:, None]
    to, source, kind = (blue_to_zones(x)[:, None] for x in (order.to, order.source, order.kind))
    here = (to == names) & (source == np.arange(NUM_SUBNETS, dtype=np.uint8))
    edited = (blocked[:-1] | (here & (kind == BlueAction.BLOCK_TRAFFIC_ZONE))) & ~(
        here & (kind == BlueAction.ALLOW_TRAFFIC_ZONE)
    )
    return jnp.concatenate([edited, blocked[-1:]])


def restore(do: Bool[Array, "blue"], hosts: Hosts, sessions: Sessions) -> tuple[Hosts, Sessions]:
    """Restore: every red session, decoy and left-over process goes, services are as new; blue's notes stay (Q29)."""

    def wipe(pids):
        return jnp.where(do, 0, pids).astype(jnp.uint16)

    hosts = Hosts(
        reliability=jnp.where(do, 100, hosts.reliability).astype(jnp.uint8),
        ot_stopped=hosts.ot_stopped & ~do,
        decoy_pid=wipe(hosts.decoy_pid),
        decoy_reliability=hosts.decoy_reliability,
        orphan_pid=wipe(hosts.orphan_pid),
        suspicious_orphan_pid=wipe(hosts.suspicious_orphan_pid),
        suspicious_pid=hosts.suspicious_pid,
    )
    return hosts, close(sessions, do & occupied(sessions))


def _first_note(notes: UInt16[Array, "suspicious blue"], pids: UInt16[Array, "k blue"]) -> Int32[Array, "k blue"]:
    """Where in blue's notes a pid stands first; MAX_SUSPICIOUS if nowhere."""
    places = np.arange(MAX_SUSPICIOUS)[:, None, None]
    found = (notes[:, None] == pids) & (pids > 0)
    return jnp.where(found, places, MAX_SUSPICIOUS).min(axis=0)


def remove(
    do: Bool[Array, "blue"], hosts: Hosts, sessions: Sessions, u: Float[Array, "recreated blue"]
) -> tuple[Hosts, Sessions, Int32[Array, ""]]:
    """Remove: kill the processes of the noted pids, in the order of the notes, but not root's (Q29, Q30).

    A killed decoy comes back at once with a new pid, which the rest of the notes may hold again. Returns the number
    of decoys that came back more often than MAX_RECREATED allows, too.
    """
    notes = hosts.suspicious_pid
    session_place = jnp.where(sessions.root, MAX_SUSPICIOUS, _first_note(notes, sessions.pid))
    orphan_place = _first_note(notes, hosts.suspicious_orphan_pid)
    others = jnp.concatenate([sessions.pid, hosts.suspicious_orphan_pid, hosts.orphan_pid[None]])
    dies = jnp.concatenate([session_place, orphan_place, jnp.full_like(session_place[:1], MAX_SUSPICIOUS)])
    decoys, done = hosts.decoy_pid, jnp.full(do.shape, -1)
    for step in u:
        place, hit = _next_decoy(do, notes, decoys, done)
        alive = jnp.where(dies > place, others, 0).max(axis=0)
        largest = jnp.maximum(alive, jnp.where(hit, 0, decoys).max(axis=0))
        decoys = jnp.where(hit, largest + pid_step(step), decoys)
        done = jnp.where(hit.any(axis=0), place, done)
    left_over = _next_decoy(do, notes, decoys, done)[1].any(axis=0).sum()
    killed = (do & (orphan_place < MAX_SUSPICIOUS))
    orphans = jnp.where(killed, 0, hosts.suspicious_orphan_pid).astype(jnp.uint16)
    sessions = close(sessions, do & (session_place < MAX_SUSPICIOUS))
    return replace(hosts, decoy_pid=decoys, suspicious_orphan_pid=orphans), sessions, left_over


def _next_decoy(do, notes, decoys, done) -> tuple[Int32[Array, "blue"], Bool[Array, "decoy blue"]]:
    """The first note after `done` that names a decoy's process, and which decoy."""
    later = jnp.where(np.arange(MAX_SUSPICIOUS)[:, None] > done, notes, 0)
    places = _first_note(later, decoys)
    first = places.min(axis=0)
    return first, do & (places == first) & (first < MAX_SUSPICIOUS)


def deploy_decoy(
    do: Bool[Array, "blue"], hosts: Hosts, sessions: Sessions, services: Bool[Array, "service blue"], draws: Draws
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
    pid = largest_pid(hosts, sessions) + pid_step(draws.decoy_pid)
    hosts, overflow = _orphan(hosts, jnp.where(chosen[Decoy.VSFTPD], hosts.decoy_pid[Decoy.VSFTPD], 0))
    return replace(
        hosts,
        decoy_pid=jnp.where(chosen, pid, hosts.decoy_pid),
        decoy_reliability=jnp.where(chosen, 100, hosts.decoy_reliability).astype(jnp.uint8),
    ), overflow


def has_orphan(hosts: Hosts) -> Bool[Array, "*host"]:
    """A Vsftpd process without a service still listens on port 80."""
    return (hosts.orphan_pid > 0) | (hosts.suspicious_orphan_pid > 0).any(axis=0)


def _orphan(hosts: Hosts, pid: UInt16[Array, "blue"]) -> tuple[Hosts, Int32[Array, ""]]:
    """A process (0 for none) loses its service.

    Pids noted later are larger than those of living processes, so whether Remove can ever meet it is known now.
    """
    noted = (hosts.suspicious_pid == pid).any(axis=0) & (pid > 0)
    slots, added = [], ~noted
    for slot in hosts.suspicious_orphan_pid:
        put = ~added & (slot == 0)
        slots.append(jnp.where(put, pid, slot))
        added = added | put
    plain = jnp.where(noted, hosts.orphan_pid, jnp.maximum(hosts.orphan_pid, pid))
    return replace(hosts, orphan_pid=plain, suspicious_orphan_pid=jnp.stack(slots)), (~added).sum()


def at(tree, host: Int32[Array, "agent"]):
    """The entries of some hosts, out of a tree of arrays with the host axis last."""
    return jax.tree.map(lambda x: x.at[..., host].get(mode="clip"), tree)


def put(tree, changed, target: Int32[Array, "blue"]):
    """Write the entries of blue's target hosts back; NO_HOST writes nothing."""
    here = (blue_to_hosts(target) == np.arange(NUM_HOSTS)) & IS_MONITORED
    return jax.tree.map(lambda old, new: jnp.where(here, blue_to_hosts(new), old), tree, changed)


def act(
    hosts: Hosts, sessions: Sessions, services: Bool[Array, "service host"], order: BlueOrder, draws: Draws
) -> tuple[Hosts, Sessions, Int32[Array, ""]]:
    """All host actions that take effect in this step. Returns hosts, sessions and the number of overflows."""
    target = order.host.astype(jnp.int32)
    own_hosts, own_sessions, own_services = at((hosts, sessions, services), target)
    do_remove, do_restore, do_decoy = (
        order.kind == kind for kind in (BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY)
    )
    changed, left, lost = remove(do_remove, own_hosts, own_sessions, draws.recreated_pid)
    changed, left = restore(do_restore, changed, left)
    changed, lost_orphans = deploy_decoy(do_decoy, changed, left, own_services, draws)
    written = jnp.where(do_remove | do_restore | do_decoy, target, NO_HOST)
    return put(hosts, changed, written), put(sessions, left, written), lost + lost_orphans
