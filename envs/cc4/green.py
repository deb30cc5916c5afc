"""Green users, one on every user host: they work, access servers and open phishing mails.

All act at once. Only the ids of phished sessions depend on an order, which `sessions.phish` resolves. Ported from
`EnterpriseGreenAgent.py`, `GreenLocalWork.py`, `GreenAccessService.py` and `PhishingEmail.py`; QUIRKS.md: Q3 to Q5,
Q17.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt8, UInt32

from .constants import (
    MAX_SERVERS,
    MAX_USERS,
    NUM_ZONES,
    SLOTS,
    GreenAction,
    Subnet,
)
from .draws import Draws, sample_index
from .games import Game
from .layout import USER_SLOTS, bit, pack, pack_users, unpack, zone_of
from .state import Hosts, PackedNetwork, Scenario, ScriptedChoices

FALSE_ALARM = 8
"""A word of `visited` has room for two sets of servers."""
_OPERATIONAL = np.isin(np.arange(NUM_ZONES), (Subnet.OZA, Subnet.OZB))[:, None]


class Visits(eqx.Module):
    """Visits of servers that raise an alert."""

    server: UInt8[Array, "zone user"]
    """The server that a user would visit."""
    blocked: Bool[Array, "zone user"]
    false_alarm: Bool[Array, "zone user"]


class GreenStep(eqx.Module):
    """Results of green's actions in a step."""

    work_failed: Int32[Array, "zone"]
    """Number of users."""
    access_failed: Int32[Array, "zone"]
    connection: UInt32[Array, "zone"]
    process: UInt32[Array, "zone"]
    phished: UInt32[Array, "zone"]
    visits: Visits


def _by_zone(values: Shaped[Array, "80"]) -> Shaped[Array, "8 10"]:
    return values.reshape(NUM_ZONES, MAX_USERS)


def choose(
    scenario: Scenario, phase: Int32[Array, ""], draws: Draws
) -> tuple[UInt8[Array, "green"], UInt8[Array, "green"]]:
    """Sample each user's action by the game's shares, and uniformly the server of an access."""
    action = sum((draws.green_action >= stop).astype(jnp.uint8) for stop in scenario.game.green_cdf)
    stops = scenario.servers[phase].T.astype(jnp.int32)[:, :, None]
    index = sample_index(_by_zone(draws.green_outcome), stops[-1])
    passed = stops <= index
    zone = passed.sum(axis=0)
    start = jnp.where(passed, stops, 0).max(axis=0)
    return action, (zone * SLOTS + index - start).astype(jnp.uint8).reshape(-1)


def _failure_rate(hosts: Hosts, network: PackedNetwork, ot_stopped: UInt32[Array, "zone"]) -> Float[Array, "zone user"]:
    """Probability that work fails: the mean lost reliability of the host's active services."""

    def users(values):
        return values[..., MAX_SERVERS:].astype(jnp.int32)

    added = unpack(network.services, USER_SLOTS).sum(axis=0)
    services = 1 + added + (_OPERATIONAL & ~unpack(ot_stopped, USER_SLOTS))
    decoyed = users(hosts.decoy_pid) > 0
    worn = 100 - users(hosts.decoy_reliability)
    lost = services * (100 - users(hosts.reliability))
    lost += jnp.where(decoyed, worn, 0).sum(axis=0)
    return lost / (100 * (services + decoyed.sum(axis=0)))


def _access(
    blocked: Bool[Array, "subnet subnet"],
    do: Bool[Array, "zone user"],
    game: Game,
    choices: ScriptedChoices,
    draws: Draws,
) -> Visits:
    """GreenAccessService: fails if either direction is blocked, which raises an alert on the server."""
    server = _by_zone(choices.green_server)
    unreachable = pack((blocked | blocked.T)[:NUM_ZONES, :NUM_ZONES])  # [zone] sets of zones
    failed = do & ((unreachable[:, None] >> zone_of(server).astype(jnp.uint32)) & 1 == 1)
    return Visits(server, failed, do & ~failed & (_by_zone(draws.green_alarm) < game.visit_alarm))


def visited(visits: Visits) -> UInt32[Array, "zone zone"]:
    """[zone of the users, zone] servers with a blocked visit as bits; with a false alarm, FALSE_ALARM bits higher.

    Two zones share a word while the users are combined: the lower half of word k is zone 2 k, the upper one 2 k + 1.
    A step takes 2 % less CPU time than with a word per zone.
    """
    bits = bit(visits.server % (2 * SLOTS))
    blocked, alarm = (jnp.where(flags, bits, np.uint32(0)) for flags in (visits.blocked, visits.false_alarm))
    in_pair = visits.server // (2 * SLOTS) == np.arange(NUM_ZONES // 2, dtype=np.uint8)[:, None, None]
    words = jnp.where(in_pair, blocked | alarm << FALSE_ALARM, np.uint32(0))
    pairs = jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (2,))
    return jnp.stack([pairs & (1 << SLOTS) - 1, pairs >> SLOTS], axis=1).reshape(NUM_ZONES, NUM_ZONES).T


def _servers_with_alert(seen: UInt32[Array, "zone zone"]) -> UInt32[Array, "zone"]:
    """Servers with an alert of either kind by the users of any zone, as a set of hosts. `seen` is from `visited`."""
    either = jax.lax.reduce(seen, np.uint32(0), jax.lax.bitwise_or, (0,))
    return (either | either >> FALSE_ALARM) & (1 << FALSE_ALARM) - 1


def act(
    hosts: Hosts,
    ot_stopped: UInt32[Array, "zone"],
    held: UInt32[Array, "zone"],
    blocked: Bool[Array, "subnet subnet"],
    network: PackedNetwork,
    game: Game,
    choices: ScriptedChoices,
    draws: Draws,
) -> GreenStep:
    """All green actions of a step, after blue's. `held` are the hosts with red sessions."""
    present = unpack(network.exists, USER_SLOTS)
    action = _by_zone(choices.green_action)
    work = present & (action == GreenAction.LOCAL_WORK)
    access = present & (action == GreenAction.ACCESS_SERVICE)
    work_failed = work & (_by_zone(draws.green_outcome) < _failure_rate(hosts, network, ot_stopped))
    worked = work & ~work_failed
    visits = _access(blocked, access, game, choices, draws)
    return GreenStep(
        work_failed=work_failed.sum(axis=1),
        access_failed=visits.blocked.sum(axis=1),
        connection=_servers_with_alert(visited(visits)),
        process=pack_users(worked & (_by_zone(draws.green_alarm) < game.work_alarm)),
        phished=pack_users(worked & (_by_zone(draws.green_phishing) < game.phishing)) & ~held,
        visits=visits,
    )
