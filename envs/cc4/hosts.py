"""What several rooms ask of hosts: their entries in the tables, their largest pid, what listens on port 80."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, UInt16

from .state import Hosts


def at(tree, host: Integer[Array, "n"]):
    """The entries of n hosts, out of a tree of arrays that end in [zone, slot]; these two axes become [n].

    Host indices beyond the last host read the last one.
    """
    return jax.tree.map(lambda x: x.reshape(*x.shape[:-2], -1).at[..., host].get(mode="clip"), tree)


def no_pid(pids: UInt16[Array, "..."], gone: Bool[Array, "..."]) -> UInt16[Array, "..."]:
    """Pids with 0 in place of those that are gone."""
    return jnp.where(gone, 0, pids).astype(jnp.uint16)


def own_pids(hosts: Hosts) -> UInt16[Array, "*n"]:
    """The largest pid among a host's decoys and orphans; 0 if it has none."""
    pids = jnp.maximum(hosts.decoy_pid.max(axis=0), hosts.suspicious_orphan_pid.max(axis=0))
    return jnp.maximum(pids, hosts.orphan_pid)


def has_orphan(hosts: Hosts) -> Bool[Array, "*n"]:
    """Whether a Vsftpd process without a service still listens on port 80."""
    return (hosts.orphan_pid > 0) | (hosts.suspicious_orphan_pid > 0).any(axis=0)
