"""A state unpacked host by host and session by session, for inspection."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped, UInt8, UInt16

from .by_host import by_host
from .constants import HQ_BLUE, NO_HOST, NUM_HOSTS, NUM_ZONES, Foreign, Knowledge, Level
from .files import found
from .hosts import own_pids
from .layout import hosts_of, unpack
from .sessions import held_hosts, id_flags
from .state import Observation, Red, State


class View(eqx.Module):
    """Hosts are numbered as in constants.py; pids are offsets from a host's largest pid at reset."""

    held: Bool[Array, "host"]
    """Red has a session."""
    rooted: Bool[Array, "host"]
    """Red has a root session."""
    knowledge: UInt8[Array, "host"]
    """State of the host for the owner of its zone (constants.Knowledge)."""
    foreign: UInt8[Array, "red zone"]
    """State of each zone's server 0 for agents that do not own it (constants.Knowledge)."""
    named: Bool[Array, "host"]
    reliability: UInt8[Array, "host"]
    """Per cent."""
    ot_stopped: Bool[Array, "host"]
    decoy_pid: UInt16[Array, "decoy host"]
    """0 if there is none."""
    decoy_reliability: UInt8[Array, "decoy host"]
    largest_pid: UInt16[Array, "host"]
    suspicious_pid: UInt16[Array, "suspicious host"]
    """Pids that blue suspects, oldest first, padded with 0."""
    session_host: UInt8[Array, "red id"]
    """NO_HOST if there is no such session."""
    session_pid: UInt16[Array, "red id"]
    session_abstract: Bool[Array, "red id"]
    session_root: Bool[Array, "red id"]
    known_ids: Bool[Array, "red id"]
    active: Bool[Array, "red"]
    blocked: Bool[Array, "subnet subnet"]
    """[to, from]"""
    files: UInt8[Array, "host"] | None
    """raw.Files that Analyse would find; None unless blue sees the raw observation."""
    told: Bool[Array, "host feature"] | None
    """The owner's information on each host from this step, by by_host.FEATURES; None without a raw observation."""
    told_pid: UInt16[Array, "host"] | None
    """Pid of a process that the host was seen to start, counted from blue's session; 0 is none."""


def view(state: State, obs: Observation | None = None) -> View:
    """Unpack the state of one environment, and the observation if it is given; `vmap` for a batch."""
    sessions = state.sessions
    root = id_flags(sessions.root)
    rooted = hosts_of(sessions.host.reshape(-1).astype(jnp.int32), root.reshape(-1))
    on_host = sessions.host == np.arange(NUM_HOSTS, dtype=np.uint8)[:, None, None]
    pids = jnp.where(on_host, sessions.pid, 0).max(axis=(1, 2))
    told = None if obs is None or obs.raw is None else [_by_owner(part) for part in by_host(obs.raw)]
    return View(
        held=_flat(unpack(held_hosts(sessions))),
        rooted=_flat(unpack(rooted)),
        knowledge=_knowledge(state.red),
        foreign=_foreign(state.red),
        named=_flat(unpack(state.red.named)),
        reliability=_flat(state.hosts.reliability),
        ot_stopped=_flat(unpack(state.ot_stopped)),
        decoy_pid=_flat(state.hosts.decoy_pid),
        decoy_reliability=_flat(state.hosts.decoy_reliability),
        largest_pid=jnp.maximum(pids, _flat(own_pids(state.hosts))),
        suspicious_pid=_flat(state.hosts.suspicious_pid),
        session_host=sessions.host,
        session_pid=sessions.pid,
        session_abstract=id_flags(sessions.abstract),
        session_root=root,
        known_ids=id_flags(state.red.known_ids),
        active=(sessions.host != NO_HOST).any(axis=1),
        blocked=state.blocked,
        files=None if state.evidence is None else found(state.evidence.files, jnp.arange(NUM_HOSTS)).astype(jnp.uint8),
        told=None if told is None else told[0],
        told_pid=None if told is None else told[1],
    )


def _flat(values: Shaped[Array, "*n 8 16"]) -> Shaped[Array, "*n 128"]:
    return values.reshape(*values.shape[:-2], NUM_HOSTS)


def _by_owner(values: Shaped[Array, "blue own_zone slot *n"]) -> Shaped[Array, "host *n"]:
    """Values of own hosts as values of all hosts; zero in the contractor network."""
    single = values[:HQ_BLUE, 0]
    by_zone = jnp.concatenate([jnp.zeros_like(single[:1]), single, values[HQ_BLUE]])
    return by_zone.reshape(NUM_HOSTS, *by_zone.shape[2:])


def _knowledge(red: Red) -> UInt8[Array, "host"]:
    levels = unpack(red.known)
    discovered = unpack(red.discovered)
    states = sum(jnp.where(levels[level], 2 * level + 1, 0) for level in Level)
    return _flat(jnp.where(states > 0, states + discovered, Knowledge.UNKNOWN).astype(jnp.uint8))


def _foreign(red: Red) -> UInt8[Array, "red zone"]:
    states = {Foreign.K: Knowledge.K, Foreign.S: Knowledge.S, Foreign.F: Knowledge.F}
    return sum(unpack(red.foreign[kind], range(NUM_ZONES)) * np.uint8(state) for kind, state in states.items())
