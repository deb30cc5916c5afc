"""Smallest and largest values of one agent's raw observation. The adapters make their spaces from them."""

import jax
import numpy as np

from purecc4.envs.cc4 import raw
from purecc4.envs.cc4.constants import MAX_SERVERS, NUM_HOSTS, NUM_ZONES, BlueAction, Decoy, Subnet
from purecc4.envs.cc4.raw import AttackColumn, AttackKind, Files, OpenPort, RawObservation, ResultColumn, Success

_RESULT = {
    ResultColumn.SUCCESS: max(Success),
    ResultColumn.ACTION: max(BlueAction),
    ResultColumn.HOST: NUM_HOSTS - 1,
    ResultColumn.TO: NUM_ZONES - 1,
    ResultColumn.SOURCE: max(Subnet),
    ResultColumn.FILES: max(Files),
    ResultColumn.DECOY: max(Decoy),
    ResultColumn.PID: np.iinfo(np.int16).max,
}
_ATTACK = {
    AttackColumn.KIND: max(AttackKind),
    AttackColumn.TARGET: NUM_HOSTS - 1,
    AttackColumn.SOURCE: NUM_HOSTS - 1,
    AttackColumn.PORTS: 2 ** len(OpenPort) - 1,
    AttackColumn.PORT_80: np.iinfo(np.uint8).max,
    AttackColumn.REPORTED: 1,
    AttackColumn.ROUTERS: 2**NUM_ZONES - 1,
}
_HIGH = {
    "result": [_RESULT[column] for column in ResultColumn],
    "alerts": np.iinfo(np.uint16).max,
    "attacks": [_ATTACK[column] for column in AttackColumn],
    "pids": [NUM_HOSTS - 1, np.iinfo(np.uint16).max],
    "visits": 2**MAX_SERVERS - 1,
}


def raw_bounds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lowest and highest value of each entry, by field of `RawObservation`, without the axis of agents."""
    shapes = jax.eval_shape(raw.silent)
    return {field: _bounds(field, getattr(shapes, field)) for field in RawObservation.__dataclass_fields__}


def _bounds(field: str, like: jax.ShapeDtypeStruct) -> tuple[np.ndarray, np.ndarray]:
    shape, lowest = like.shape[1:], -1 if field == "result" else 0
    low = np.full(shape, lowest, like.dtype)
    return low, np.broadcast_to(np.array(_HIGH[field], like.dtype), shape)
