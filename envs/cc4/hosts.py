"""Helpers for hosts: table entries, largest pids, orphaned processes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, UInt16

from .state import Hosts


def at(tree, host: Integer[Array, "n"]):
    """Gather the entries of n hosts from a tree of arrays that end in [zone, slot]; these axes become [n].

    Indices beyond the last host read the last one.
    """
    return jax.tree.map(lambda x: x.reshape(*x.shape[:-2], -1).at[..., host].get(mode="clip"), tree)


def no_pid(pids: UInt16[Array, "..."], gone: Bool[Array, "..."]) -> UInt16[Array, "..."]:
    """Pids, with 0 for those that are gone."""
    return jnp.where(gone, 0, pids).astype(jnp.uint16)


def own_pids(hosts: Hosts) -> UInt16[Array, "*n"]:
    """The largest pid among a host's decoys and orphans; 0 if it has none."""
    pids = jnp.maximum(hosts.decoy_pid.max(axis=0), hosts.suspicious_orphan_pid.max(axis=0))
    return jnp.maximum(pids, hosts.orphan_pid)


def has_orphan(hosts: Hosts) -> Bool[Array, "*n"]:
    """True if an orphaned Vsftpd process still listens on port 80."""
    return (hosts.orphan_pid > 0) | (hosts.suspicious_orphan_pid > 0).any(axis=0)
