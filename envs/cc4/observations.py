"""What the five blue agents see: 210 small integers each. Ported from `BlueFlatWrapper.py:observation_change`.

Phase; for each own subnet a block of 59: one-hot subnet, blocked sources, comms policy, process alerts and connection
alerts of the 16 host slots; messages of the four others; zero padding. Alerts are those of the last step alone.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8, UInt32

from .constants import ALPHABETICAL, COMMS_POLICY, NUM_BLUE, NUM_OBS, Subnet
from .routing import unpack

_ORDER = list(ALPHABETICAL)
_ONE_HOT = (np.array(_ORDER) == np.arange(Subnet.RZA, Subnet.INT)[:, None]).astype(np.uint8)
_COMMS = COMMS_POLICY[:, Subnet.RZA : Subnet.INT][:, :, _ORDER]
_OTHERS = np.array([[other for other in range(NUM_BLUE) if other != agent] for agent in range(NUM_BLUE)])


def observe(
    phase: Int32[Array, ""],
    blocked: Bool[Array, "subnet subnet"],
    process: UInt32[Array, "zone"],
    connection: UInt32[Array, "zone"],
    messages: UInt8[Array, "blue bit"],
) -> UInt8[Array, "blue obs"]:
    """The flat observations of all blue agents; alerts as sets of hosts."""
    blocks = jnp.concatenate(
        [
            jnp.asarray(_ONE_HOT),
            blocked[Subnet.RZA : Subnet.INT][:, np.array(_ORDER)].astype(jnp.uint8),
            jnp.asarray(_COMMS)[phase],
            unpack(process[Subnet.RZA :]).astype(jnp.uint8),
            unpack(connection[Subnet.RZA :]).astype(jnp.uint8),
        ],
        axis=1,
    )
    heard = messages[_OTHERS].reshape(NUM_BLUE, -1)
    first = jnp.broadcast_to(phase.astype(jnp.uint8), (NUM_BLUE - 1, 1))
    single = jnp.concatenate([first, blocks[: NUM_BLUE - 1], heard[:-1]], axis=1)
    hq = jnp.concatenate([first[0], blocks[NUM_BLUE - 1 :].reshape(-1), heard[-1]])
    padded = jnp.pad(single, ((0, 0), (0, NUM_OBS - single.shape[1])))
    return jnp.concatenate([padded, hq[None]])
