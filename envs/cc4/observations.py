"""What the five blue agents see: 210 small integers each. Ported from `BlueFlatWrapper.py:observation_change`.

Phase; for each own subnet a block of 59: one-hot subnet, blocked sources, comms policy, process alerts and connection
alerts of the 16 host slots; messages of the four others; zero padding. Alerts are those of the last step alone.

Every value is either known from the phase or one bit of a word, so that a step needs shifts only.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8, UInt32

from .constants import ALPHABETICAL, COMMS_POLICY, NUM_BLUE, NUM_OBS, NUM_ZONES, SLOTS, Subnet
from .layout import pack

_ORDER = list(ALPHABETICAL)
_OWN = ((Subnet.RZA,), (Subnet.OZA,), (Subnet.RZB,), (Subnet.OZB,), (Subnet.ADM, Subnet.OFF, Subnet.PAZ))
_BLOCK, _SEEN, _COMMS, _ALERTS = 59, 9, 18, 27  # length of a block; where its parts begin
_OTHERS = np.array([[other for other in range(NUM_BLUE) if other != agent] for agent in range(NUM_BLUE)])
_BITS = 8  # of a message


def _known() -> UInt8[np.ndarray, "phase blue obs"]:
    """What the phase alone decides."""
    values = np.zeros((len(COMMS_POLICY), NUM_BLUE, NUM_OBS), np.uint8)
    values[:, :, 0] = np.arange(len(COMMS_POLICY))[:, None]
    for agent, zones in enumerate(_OWN):
        for k, zone in enumerate(zones):
            block = values[:, agent, 1 + k * _BLOCK :][:, :_BLOCK]
            block[:, _ORDER.index(zone)] = 1
            block[:, _COMMS:_ALERTS] = COMMS_POLICY[:, zone][:, _ORDER]
    return values


def _places() -> tuple[UInt32[np.ndarray, "word blue obs"], UInt32[np.ndarray, "word blue obs"]]:
    """How far each word of an agent is shifted, and whether its bit is shown, at every place."""
    shift, shown = (np.zeros((2 * 3 + 1, NUM_BLUE, NUM_OBS), np.uint32) for _ in range(2))

    def show(word: int, agent: int, begin: int, count: int) -> None:
        shift[word, agent, begin : begin + count] = np.arange(count)
        shown[word, agent, begin : begin + count] = 1

    for agent, zones in enumerate(_OWN):
        for k in range(len(zones)):
            show(2 * k, agent, 1 + k * _BLOCK + _SEEN, len(_ORDER))
            show(2 * k + 1, agent, 1 + k * _BLOCK + _ALERTS, 2 * SLOTS)
        show(2 * 3, agent, 1 + len(zones) * _BLOCK, _BITS * (NUM_BLUE - 1))
    return shift, shown


_KNOWN, (_SHIFT, _SHOWN) = _known(), _places()


def observe(
    phase: Int32[Array, ""],
    blocked: Bool[Array, "subnet subnet"],
    process: UInt32[Array, "zone"],
    connection: UInt32[Array, "zone"],
    messages: UInt8[Array, "blue bit"],
) -> UInt8[Array, "blue obs"]:
    """The flat observations of all blue agents; alerts as sets of hosts."""
    walls = pack(blocked[:NUM_ZONES, np.array(_ORDER)])
    alerts = process | connection << SLOTS
    heard = pack(messages[_OTHERS].reshape(NUM_BLUE, -1) > 0)
    first = Subnet.RZA  # agents own the zones from here on, one each and the last agent three
    blocks = [words[first + k :][:NUM_BLUE] for k in range(3) for words in (walls, alerts)]
    vector = jnp.asarray(_KNOWN)[phase]
    for k, word in enumerate([*blocks, heard]):
        vector |= (word[:, None] >> _SHIFT[k] & _SHOWN[k]).astype(jnp.uint8)
    return vector
