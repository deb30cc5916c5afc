"""Green users: one on every user host, who works on it, visits servers, and opens phishing mails.

All act at once; only the ids of phished sessions follow an order, which `sessions.phish` settles. Ported from
`EnterpriseGreenAgent.py`, `GreenLocalWork.py`, `GreenAccessService.py` and `PhishingEmail.py`; quirks Q3 to Q5, Q17.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt8, UInt16

from .constants import (
    FALSE_ALARM_RATE,
    HOST_SUBNET,
    IS_OPERATIONAL,
    IS_SERVER,
    MAX_SERVERS,
    MAX_USERS,
    NUM_HOSTS,
    NUM_ZONES,
    PHISHING_RATE,
    SLOTS,
    GreenAction,
)
from .draws import Draws, pid_step, place
from .routing import by_zone
from .sessions import largest_pid, occupied
from .sets import Set
from .state import Choices, Hosts, Scenario, Sessions

_SERVER_INDEX = np.where(IS_SERVER, HOST_SUBNET * MAX_SERVERS + np.arange(NUM_HOSTS) % SLOTS, 255)


class Done(eqx.Module):
    """What green did in a step."""

    work_failed: Bool[Array, "green"]
    access_failed: Bool[Array, "green"]
    connection: Bool[Array, "host"]
    process: Bool[Array, "host"]
    phished: Bool[Array, "host"]
    phished_pid: UInt16[Array, "host"]


def users(values: Shaped[Array, "*n 128"]) -> Shaped[Array, "*n 80"]:
    """Values of the hosts that green users sit on."""
    return by_zone(values)[..., MAX_SERVERS:].reshape(*values.shape[:-1], NUM_ZONES * MAX_USERS)


def _to_hosts(values: Shaped[Array, "80"]) -> Shaped[Array, "128"]:
    """The values of green users at their hosts; zero at servers."""
    values = values.reshape(NUM_ZONES, MAX_USERS)
    return jnp.pad(values, ((0, 0), (MAX_SERVERS, 0))).reshape(NUM_HOSTS)


def _of_zone(values: Shaped[Array, "*n 8"]) -> Shaped[Array, "*n 80"]:
    spread = jnp.broadcast_to(values[..., None], (*values.shape, MAX_USERS))
    return spread.reshape(*values.shape[:-1], NUM_ZONES * MAX_USERS)


def choose(
    scenario: Scenario, phase: Int32[Array, ""], draws: Draws
) -> tuple[UInt8[Array, "green"], UInt8[Array, "green"]]:
    """What each green user does, one of three with equal chances, and the server it would visit, uniformly."""
    action = place(draws.green_action, jnp.int32(len(GreenAction)))
    stops = _of_zone(scenario.servers[phase].T.astype(jnp.int32))
    index = place(draws.green_outcome, stops[-1])
    passed = stops <= index
    zone = passed.sum(axis=0)
    start = jnp.where(passed, stops, 0).max(axis=0)
    return action.astype(jnp.uint8), (zone * SLOTS + index - start).astype(jnp.uint8)


def _failure_rate(hosts: Hosts, scenario: Scenario) -> Float[Array, "green"]:
    """Share of lost reliability over the host's active services: one of them is picked uniformly."""
    services = 1 + scenario.services.sum(axis=0) + (IS_OPERATIONAL & ~hosts.ot_stopped)
    decoyed = hosts.decoy_pid > 0
    lost = services * (100 - hosts.reliability.astype(jnp.int32))
    lost += jnp.where(decoyed, 100 - hosts.decoy_reliability.astype(jnp.int32), 0).sum(axis=0)
    return users(lost / (100 * (services + decoyed.sum(axis=0))))


def _access(
    blocked: Bool[Array, "subnet subnet"], do: Bool[Array, "green"], choices: Choices, draws: Draws
) -> tuple[Bool[Array, "green"], Bool[Array, "host"]]:
    """GreenAccessService: fails where either direction is blocked, and is then seen on the server visited."""
    zone, slot = choices.green_server // SLOTS, choices.green_server % SLOTS
    either = (blocked | blocked.T)[:NUM_ZONES, :NUM_ZONES]
    bits = jnp.where(either, 1 << np.arange(NUM_ZONES, dtype=np.uint8), 0).sum(axis=1, dtype=jnp.uint8)
    failed = do & ((_of_zone(bits) >> zone) % 2 == 1)
    alarm = failed | (do & (draws.green_alarm < FALSE_ALARM_RATE))
    seen = Set.single(zone * MAX_SERVERS + slot).where(alarm)
    low, high = (jax.lax.reduce(x, np.uint32(0), jax.lax.bitwise_or, (0,)) for x in (seen.low, seen.high))
    return failed, Set(low, high).has(_SERVER_INDEX)


def act(
    hosts: Hosts,
    sessions: Sessions,
    blocked: Bool[Array, "subnet subnet"],
    scenario: Scenario,
    choices: Choices,
    draws: Draws,
) -> Done:
    """All green actions of a step, on the world that blue has left."""
    present = users(scenario.exists)
    work = present & (choices.green_action == GreenAction.LOCAL_WORK)
    access = present & (choices.green_action == GreenAction.ACCESS_SERVICE)
    work_failed = work & (draws.green_outcome < _failure_rate(hosts, scenario))
    worked = work & ~work_failed
    access_failed, connection = _access(blocked, access, choices, draws)
    phished = worked & (draws.green_phishing < PHISHING_RATE) & ~users(occupied(sessions).any(axis=0))
    pid = largest_pid(hosts, sessions) + _to_hosts(pid_step(draws.green_phishing / PHISHING_RATE))
    return Done(
        work_failed=work_failed,
        access_failed=access_failed,
        connection=connection,
        process=_to_hosts(worked & (draws.green_alarm < FALSE_ALARM_RATE)),
        phished=_to_hosts(phished),
        phished_pid=pid,
    )
