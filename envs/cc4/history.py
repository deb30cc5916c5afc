"""A history for each blue agent: its raw observations of an episode, summed up host by host.

Agent b's part follows from entry b of `obs.raw` and from its own actions, and reads neither the simulator's state nor
the observations of other agents. Nothing in it is random.

An episode starts with `init`. Call `update` with each raw observation, also with the one after the reset, and `submit`
with the actions that follow.

Hosts are [blue own_zone slot], as in `by_host.OWN_HOSTS`; slots without a host stay empty. "Since the last Restore"
means since the start of the episode if there was none.
"""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8, Int16, Integer, UInt, UInt16, UInt32

from . import actions
from .by_host import OWN_HOSTS
from .constants import BLUE_DURATION, IS_SERVER, MAX_PID_STEP, NO_HOST, NUM_BLUE, BlueAction
from .layout import bit, pack, slot_of, unpack, zone_of
from .raw import AttackColumn, AttackKind, Files, RawObservation, ResultColumn, Success
from .state import Queue

IS_USER = (OWN_HOSTS != NO_HOST) & ~np.asarray(IS_SERVER)[np.where(OWN_HOSTS == NO_HOST, 0, OWN_HOSTS)]
"""[blue own_zone slot] slots of user hosts."""
_USED = OWN_HOSTS != NO_HOST


class History(eqx.Module):
    """Contents of the histories. Counts are since the last Restore of the host unless stated."""

    step: Int16[Array, ""]
    """Steps observed; 0 after the reset."""
    in_progress: Queue
    """[blue] own action; busy while ticks are left."""
    exploits: Int16[Array, "blue own_zone slot"]
    """Exploits of the host that were shown by a pid."""
    unanswered: Int16[Array, "blue own_zone slot"]
    """The same since the last Remove or Restore."""
    named: Int16[Array, "blue own_zone slot"]
    """Noticed attacks of any kind from the host."""
    brute_forces: Int16[Array, "blue own_zone slot"]
    """Noticed SSH brute forces from the host."""
    exploited_at: Int16[Array, "blue own_zone slot"]
    """Step of the last shown exploit of the host; 0 is none."""
    named_at: Int16[Array, "blue own_zone slot"]
    """Step of the last noticed attack from the host; 0 is none."""
    met: Int16[Array, "attack_kind blue own_zone slot"]
    """Noticed attacks on the host by raw.AttackKind; the entry of NONE is 0."""
    files: Int8[Array, "blue own_zone slot"]
    """Files found by the last Analyse, by raw.Files; NONE since a Restore."""
    looked: Int16[Array, "blue own_zone slot"]
    """Step of the last Analyse or Restore, 0 at first: the age of `files` is `step - looked`."""
    removed: Bool[Array, "blue own_zone slot"]
    """A Remove took effect since the last Analyse or Restore."""
    explained: Bool[Array, "blue own_zone slot"]
    """A Remove took effect after an exploit was shown, which explains a cmd.sh that is left."""
    unexplained: Bool[Array, "blue own_zone slot"]
    """The last Analyse found a cmd.sh that no Remove and no unanswered exploit explains; false since a Remove."""
    decoys: Int16[Array, "blue own_zone slot"]
    """Own decoys deployed."""
    pid: UInt16[Array, "blue own_zone slot"]
    """Last pid shown, of an exploit or an own decoy; 0 is none."""
    gaps: Int16[Array, "blue own_zone slot"]
    """Pids too large for the processes shown: another process was started unseen (QR14)."""
    targets: UInt32[Array, "blue own_zone slot"]
    """Hosts of its zone that the host was seen to attack, bit by slot, without those removed or restored since."""
    stale: Bool[Array, "blue own_zone slot"]
    """Its last attacker within the zone was restored since. Red does not scan such a host again, and only the session
    that scanned it can exploit it (Q10)."""
    restores: Int16[Array, "blue own_zone slot"]
    """Restores of the host in this episode."""


def init() -> History:
    """An empty history, before the first observation of an episode."""

    def none(*axes, dtype=jnp.int16):
        return jnp.zeros((*axes, *OWN_HOSTS.shape), dtype)

    idle = jnp.zeros(NUM_BLUE, jnp.uint8)
    return History(
        step=jnp.int16(-1),
        in_progress=Queue(idle, idle),
        exploits=none(),
        unanswered=none(),
        named=none(),
        brute_forces=none(),
        exploited_at=none(),
        named_at=none(),
        met=none(len(AttackKind)),
        files=none(dtype=jnp.int8),
        looked=none(),
        removed=none(dtype=bool),
        explained=none(dtype=bool),
        unexplained=none(dtype=bool),
        decoys=none(),
        pid=none(dtype=jnp.uint16),
        gaps=none(),
        targets=none(dtype=jnp.uint32),
        stale=none(dtype=bool),
        restores=none(),
    )


def submit(history: History, action: Integer[Array, "blue"]) -> History:
    """Add the submitted actions, which must be legal. A busy agent's action is ignored, as in the game."""
    duration = jnp.asarray(BLUE_DURATION)[actions.decode(action).kind]
    return replace(history, in_progress=actions.advance(history.in_progress, action.astype(jnp.uint8), duration)[0])


def update(history: History, raw: RawObservation) -> History:
    """Add a raw observation. Blue acts first in a step, so alerts count as later than the effect of an own action."""
    queue = history.in_progress
    # a game may have other durations than the challenge
    busy = raw.result[:, ResultColumn.SUCCESS] == Success.IN_PROGRESS
    queue = replace(queue, ticks=jnp.where(busy, jnp.maximum(queue.ticks, 1), 0).astype(jnp.uint8))
    return _alerts(_effects(replace(history, step=history.step + 1, in_progress=queue), raw), raw)


def is_busy(history: History) -> Bool[Array, "blue"]:
    """Agents whose next submission will be ignored."""
    return history.in_progress.ticks > 0


def attacked(history: History) -> Bool[Array, "blue own_zone slot"]:
    """Hosts that an attacker of their zone was seen to attack since the last Remove or Restore of either."""
    return _met_in(history.targets)


def _effects(history: History, raw: RawObservation) -> History:
    """The own Analyse, Remove or Restore that took effect."""
    restored, removed, analysed = (
        _acted(raw, kind) for kind in (BlueAction.RESTORE, BlueAction.REMOVE, BlueAction.ANALYSE)
    )
    kept = ~restored
    explained = kept & (history.explained | (removed & (history.exploits > 0)))
    unanswered = history.unanswered * (kept & ~removed)
    found = raw.result[:, ResultColumn.FILES, None, None]
    cmd = (found == Files.CMD) | (found >= Files.CMD_ESCALATE)
    lost = _met_in(history.targets * restored)
    cleared = pack(restored | removed)
    return replace(
        history,
        exploits=history.exploits * kept,
        unanswered=unanswered,
        named=history.named * kept,
        brute_forces=history.brute_forces * kept,
        exploited_at=history.exploited_at * kept,
        named_at=history.named_at * kept,
        met=history.met * kept,
        files=jnp.where(analysed, found, history.files * kept).astype(jnp.int8),
        looked=jnp.where(analysed | restored, history.step, history.looked),
        removed=removed | (history.removed & kept & ~analysed),
        explained=explained,
        unexplained=jnp.where(analysed, cmd & ~explained & (unanswered == 0), history.unexplained & kept & ~removed),
        decoys=history.decoys * kept,
        pid=history.pid * kept,
        gaps=history.gaps * kept,
        targets=history.targets * kept & ~cleared[..., None],
        stale=(history.stale | lost) & kept & ~removed,
        restores=history.restores + restored,
    )


def _alerts(history: History, raw: RawObservation) -> History:
    """Exploits, attacks and new pids."""
    kind, target, source = (
        raw.attacks[..., column] for column in (AttackColumn.KIND, AttackColumn.TARGET, AttackColumn.SOURCE)
    )
    exploits = _count(raw.pids[..., 0], raw.pids[..., 1] > 0)
    named = _count(source, kind > 0)
    targets = _targets(target, source, kind > 0)
    decoys = _acted(raw, BlueAction.DEPLOY_DECOY)
    pid = jnp.where(decoys, raw.result[:, ResultColumn.PID, None, None], _largest_pid(raw)).astype(jnp.uint16)
    # Every process adds at most MAX_PID_STEP to the largest pid, and so does the green user's session of a user host.
    steps = exploits + decoys + (IS_USER & (history.pid == 0))
    gap = pid.astype(jnp.int32) - history.pid > MAX_PID_STEP * steps
    return replace(
        history,
        exploits=history.exploits + exploits,
        unanswered=history.unanswered + exploits,
        named=history.named + named,
        brute_forces=history.brute_forces + _count(source, kind == AttackKind.BRUTE_FORCE),
        exploited_at=jnp.where(exploits > 0, history.step, history.exploited_at),
        named_at=jnp.where(named > 0, history.step, history.named_at),
        met=history.met + jnp.stack([_count(target, (kind == k) & (k > 0)) for k in AttackKind]),
        decoys=history.decoys + decoys,
        pid=jnp.where(pid > 0, pid, history.pid),
        gaps=history.gaps + ((pid > 0) & gap),
        targets=history.targets | targets,
        stale=history.stale & ~_met_in(targets),
    )


def _acted(raw: RawObservation, kind: BlueAction) -> Bool[Array, "blue own_zone slot"]:
    """True at the host on which an own action of a kind took effect."""
    done = raw.result[:, ResultColumn.ACTION, None, None] == kind
    return done & (raw.result[:, ResultColumn.HOST, None, None] == OWN_HOSTS) & _USED


def _count(host: UInt[Array, "blue red"], valid: Bool[Array, "blue red"]) -> Int16[Array, "blue own_zone slot"]:
    """Number of valid rows that name each own host."""
    here = (host[:, None, None, :] == OWN_HOSTS[..., None]) & valid[:, None, None, :] & _USED[..., None]
    return here.sum(axis=-1, dtype=jnp.int16)


def _met_in(targets: UInt32[Array, "blue own_zone slot"]) -> Bool[Array, "blue own_zone slot"]:
    """Hosts that any host of their zone has among its targets."""
    return unpack(jnp.bitwise_or.reduce(targets, axis=-1))


def _targets(
    target: UInt[Array, "blue red"], source: UInt[Array, "blue red"], valid: Bool[Array, "blue red"]
) -> UInt32[Array, "blue own_zone slot"]:
    """Hosts of its zone that each own host attacks in valid rows, bit by slot."""
    valid &= zone_of(target) == zone_of(source)
    here = (source[:, None, None, :] == OWN_HOSTS[..., None]) & valid[:, None, None, :] & _USED[..., None]
    words = jnp.where(here, bit(slot_of(target))[:, None, None, :], np.uint32(0))
    return jnp.bitwise_or.reduce(words, axis=-1)


def _largest_pid(raw: RawObservation) -> UInt16[Array, "blue own_zone slot"]:
    """The largest pid of an exploit on each host in this step; 0 is none."""
    here = (raw.pids[:, None, None, :, 0] == OWN_HOSTS[..., None]) & _USED[..., None]
    return jnp.where(here, raw.pids[:, None, None, :, 1], 0).max(axis=-1)
