"""Files that red leaves on hosts, for Analyse to find: three sets of hosts, as words.

Exploits create cmd.sh, escalations to root escalate.sh; only Restore removes them (QR4). A set beyond the two says
on which hosts cmd.sh was created last. Ported from `ExploitAction.py`, `EscalateAction.py`, `Host.py:restore` and
`Analyse.py`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int32, Integer, UInt32

from .constants import NUM_ZONES
from .layout import AGENTS, holds, sets_of, zone_of
from .red import RedStep
from .routing import owner_of

CMD, ESCALATE, CMD_IS_NEWEST = range(3)


def none() -> UInt32[Array, "3 zone"]:
    """No files."""
    return jnp.zeros((3, NUM_ZONES), jnp.uint32)


def update(files: UInt32[Array, "3 zone"], restored: UInt32[Array, "zone"], did: RedStep) -> UInt32[Array, "3 zone"]:
    """Files after a step: blue restores, then red's agents act one after the other.

    Only the owner of a zone escalates there, so an exploit is the newer one if its agent has the higher number.
    """
    files = files & ~restored
    done = did.opened.done
    later = owner_of(zone_of(did.target.host)) < AGENTS
    exploited, escalated, last = sets_of(did.target.host, jnp.stack([done, did.raised, done & later]))
    newest = ((files[CMD_IS_NEWEST] | exploited) & ~escalated) | last
    return jnp.stack([files[CMD] | exploited, files[ESCALATE] | escalated, newest])


def found(files: UInt32[Array, "3 zone"], host: Integer[Array, "n"]) -> Int32[Array, "n"]:
    """Result of Analyse on each host, as codes of raw.Files."""
    cmd, escalate, cmd_is_newest = (held.astype(jnp.int32) for held in holds(files, host))
    return cmd + 2 * escalate + (cmd & escalate & cmd_is_newest)
