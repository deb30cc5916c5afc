"""The raw observation as arrays: what CybORG tells an analyst in one step, without what no policy can use.

`obs.raw` belongs to five agents; entry b of every array is all that blue agent b is told, and says nothing else. Pids
are counted from the pid of the own session of the host. Messages, blocks and the phase are in `obs.flat`.
Ported from `Monitor.py`, `Analyse.py`, `DecoyAction.py` and `SimulationController.py`.
"""

from enum import IntEnum

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int16, UInt8, UInt16

from .constants import NUM_BLUE, NUM_RED, NUM_ZONES

OWN_ZONES = 3
"""Agents 0 to 3 use the first of three own zones; agent 4 has ADM, OFF, PAZ."""


class ResultColumn(IntEnum):
    """Columns of `RawObservation.result`; -1 is none, except in SUCCESS."""

    SUCCESS = 0
    """constants of Success."""
    ACTION = 1
    """constants.BlueAction that took effect; -1 while busy, and after a reset."""
    HOST = 2
    TO = 3
    """Destination zone of a traffic action."""
    SOURCE = 4
    """A Subnet."""
    FILES = 5
    """Files found by Analyse."""
    DECOY = 6
    """constants.Decoy deployed."""
    PID = 7
    """Pid of the deployed decoy."""


class Success(IntEnum):
    FALSE, TRUE, UNKNOWN, IN_PROGRESS = range(4)


class Files(IntEnum):
    """cmd.sh is left by exploits, escalate.sh by escalations; the last one is the newest."""

    NONE, CMD, ESCALATE, CMD_ESCALATE, ESCALATE_CMD = range(5)


class Alert(IntEnum):
    """Words of `RawObservation.alerts`."""

    WORK = 0
    """False alarm of a green user's work."""
    PROCESS = 1
    """New process: an exploit succeeded."""
    BRUTE_FORCED = 2
    DECOY_HIT = 3
    """HTTP or HTTPS file inclusion met a decoy."""
    SCANNED = 4
    ATTACKS = 5
    """The host itself is the source of a brute force."""


class AttackKind(IntEnum):
    """Kinds of attacks."""

    NONE, SCAN, BRUTE_FORCE, DECOY_HIT = range(4)


class AttackColumn(IntEnum):
    """Columns of `RawObservation.attacks`."""

    KIND = 0
    """AttackKind."""
    TARGET = 1
    """Host."""
    SOURCE = 2
    """Host of the acting red session, in any zone."""
    PORTS = 3
    """Ports that a scan or a decoy hit shows: bits by OpenPort."""
    PORT_80 = 4
    """Processes that the scan met on port 80."""
    REPORTED = 5
    """1 if the source is an own host and reported the brute force."""
    ROUTERS = 6
    """Own zones (bits) whose routers reported the brute force."""


class OpenPort(IntEnum):
    """Bits of AttackColumn.PORTS: ports 22, 1, 80, 443, 3390, 25."""

    SSH, OT, HTTP, HTTPS, MYSQL, SMTP = range(6)


class Visit(IntEnum):
    """Kinds of alerts that green visits raise, in `RawObservation.visits`."""

    BLOCKED, FALSE_ALARM = range(2)


class RawObservation(eqx.Module):
    """Raw observations of the five blue agents. Own zones count from 0 to 2."""

    result: Int16[Array, "blue 8"]
    """Own action, by ResultColumn."""
    alerts: UInt16[Array, "blue own_zone 6"]
    """Sets of hosts of an own zone (bit = slot), by Alert."""
    attacks: UInt8[Array, "blue red 7"]
    """Noticed scans, brute forces and decoy hits, by AttackColumn. The row is the red agent that owns the source's
    zone; an unused row is zero."""
    pids: UInt16[Array, "blue red 2"]
    """(host, pid) of new processes, by ascending host and pid; the rest is zero."""
    visits: UInt8[Array, "blue own_zone 2 zone"]
    """Servers (bit = slot) with an alert by Visit, for the users of each zone."""


def silent() -> RawObservation:
    """The observation after a reset."""
    result = np.full((NUM_BLUE, len(ResultColumn)), -1, np.int16)
    result[:, ResultColumn.SUCCESS] = Success.UNKNOWN
    return RawObservation(
        result=jnp.asarray(result),
        alerts=jnp.zeros((NUM_BLUE, OWN_ZONES, len(Alert)), jnp.uint16),
        attacks=jnp.zeros((NUM_BLUE, NUM_RED, len(AttackColumn)), jnp.uint8),
        pids=jnp.zeros((NUM_BLUE, NUM_RED, 2), jnp.uint16),
        visits=jnp.zeros((NUM_BLUE, OWN_ZONES, len(Visit), NUM_ZONES), jnp.uint8),
    )
