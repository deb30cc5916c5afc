"""Sizes, enumerations, durations and tables of CAGE Challenge 4.

Ported facts: `EnterpriseScenarioGenerator.py`, `BlueRewardMachine.py`, `FiniteStateRedAgent.py`, `BlueFlatWrapper.py`
and `BlueFixedActionWrapper.py` of CybORG. Everything here is NumPy, so importing it touches no device.

Subnets are numbered so that the red agent of a subnet is `min(subnet, 5)` and the blue agent is `min(subnet - 1, 4)`.
Host `16 * subnet + slot` is server `slot` for slots 0..5 and user `slot - 6` for slots 6..15. Routers and the internet
host take no part in any rule.
"""

from enum import IntEnum

import numpy as np


class Subnet(IntEnum):
    CON, RZA, OZA, RZB, OZB, ADM, OFF, PAZ, INT = range(9)


HQ = (Subnet.ADM, Subnet.OFF, Subnet.PAZ)
"""The three zones that one blue agent and one red agent own together."""
SUBNET_NAMES = (
    "contractor_network_subnet",
    "restricted_zone_a_subnet",
    "operational_zone_a_subnet",
    "restricted_zone_b_subnet",
    "operational_zone_b_subnet",
    "admin_network_subnet",
    "office_network_subnet",
    "public_access_zone_subnet",
    "internet_subnet",
)
NUM_BLUE, NUM_RED, NUM_SUBNETS, NUM_ZONES = 5, 6, 9, 8  # zones: the subnets with hosts, i.e. all but the internet
HQ_BLUE, HQ_RED = NUM_BLUE - 1, NUM_RED - 1  # the agents that own HQ
MAX_SERVERS, MAX_USERS = 6, 10
MIN_USERS = 3  # of a generated zone
SLOTS = MAX_SERVERS + MAX_USERS
NUM_HOSTS = NUM_ZONES * SLOTS
NUM_GREEN = NUM_ZONES * MAX_USERS
NUM_PHASES = 3
OWN_TARGETS = 3 * SLOTS  # a red target is an own host (offset from the zone's first host) or OWN_TARGETS + subnet
MESSAGE_BITS = 8
NUM_OBS, NUM_ACTIONS = 210, 242
ONE_ZONE_OBS, ONE_ZONE_ACTIONS = 92, 82  # prefix used by agents that own one zone; the rest is padding

MAX_IDS = 64  # session ids of one red agent; the largest seen in the reference is 33
MAX_SUSPICIOUS = 16  # suspicious pids remembered per host; the most seen in the reference is 9
MAX_REPEATED = 12  # of these, with repetitions
MAX_SUSPICIOUS_ORPHANS = 4
MAX_RECREATED = 6  # decoys re-created within one Remove; 4 were seen in one of 384 episodes of the `block` policy
NO_HOST = 255
IN_PROGRESS = 255  # instead of an action's kind while the agent is busy

HOST_SUBNET = np.arange(NUM_HOSTS) // SLOTS
IS_SERVER = np.arange(NUM_HOSTS) % SLOTS < MAX_SERVERS
GREEN_SUBNET = np.arange(NUM_GREEN) // MAX_USERS
GREEN_HOST = GREEN_SUBNET * SLOTS + MAX_SERVERS + np.arange(NUM_GREEN) % MAX_USERS
IS_OPERATIONAL = np.isin(HOST_SUBNET, (Subnet.OZA, Subnet.OZB))
IS_MONITORED = HOST_SUBNET != Subnet.CON
ZONE_START = np.arange(NUM_RED) * SLOTS  # first host of a red agent's zone

GENERATION_ORDER = (Subnet.RZA, Subnet.OZA, Subnet.RZB, Subnet.OZB, Subnet.CON, Subnet.PAZ, Subnet.ADM, Subnet.OFF)
ALPHABETICAL = (5, 0, 8, 6, 2, 4, 7, 1, 3)  # ADM CON INT OFF OZA OZB PAZ RZA RZB


class Service(IntEnum):
    """Services that only some hosts have; sshd runs everywhere and OTService in both operational zones."""

    APACHE, MYSQL, SMTP = range(3)


class Decoy(IntEnum):
    APACHE, TOMCAT, HARAKA, VSFTPD = range(4)


class Role(IntEnum):
    AUTH, DB, WEB = range(3)


class RewardTerm(IntEnum):
    LWF, ASF, RIA = range(3)


class BlueAction(IntEnum):
    SLEEP, MONITOR, ANALYSE, REMOVE, RESTORE, DEPLOY_DECOY, ALLOW_TRAFFIC_ZONE, BLOCK_TRAFFIC_ZONE = range(8)


class GreenAction(IntEnum):
    ACCESS_SERVICE, LOCAL_WORK, SLEEP = range(3)


class RedAction(IntEnum):
    (
        DISCOVER_REMOTE_SYSTEMS,
        AGGRESSIVE_SERVICE_DISCOVERY,
        STEALTH_SERVICE_DISCOVERY,
        DISCOVER_DECEPTION,
        EXPLOIT_REMOTE_SERVICE,
        PRIVILEGE_ESCALATE,
        IMPACT,
        DEGRADE_SERVICES,
        WITHDRAW,
        SLEEP,
    ) = range(10)


class Exploit(IntEnum):
    """The exploits that can be selected, by ascending weight; the heaviest candidate is never taken."""

    SSH_BRUTE_FORCE, HTTP_RFI, HTTPS_RFI, SQL_INJECTION = range(4)


class Port(IntEnum):
    """Facts that a scan stores: that the host was scanned, and the open ports of decoys."""

    SCANNED, HTTP, HTTPS, SMTP = range(4)


class Knowledge(IntEnum):
    """States of the red finite state machine; the odd ones of K to RD say 'subnet discovered'."""

    UNKNOWN, K, KD, S, SD, U, UD, R, RD, F = range(10)


class Level(IntEnum):
    """The undiscovered states of Knowledge, as sets of own hosts; discovered hosts are also in `discovered`."""

    K, S, U, R = range(4)


class Foreign(IntEnum):
    """The states that server 0 of a foreign zone can have, as sets of zones."""

    K, S, F = range(3)


NUM_DECOYS, NUM_RED_ACTIONS, NUM_STATES = len(Decoy), len(RedAction), len(Knowledge)

BLUE_DURATION = np.array([1, 1, 2, 3, 5, 2, 1, 1], np.uint8)  # steps, by BlueAction
RED_DURATION = np.array([1, 1, 3, 2, 4, 2, 2, 2, 1, 1], np.uint8)  # steps, by RedAction

SCAN_DETECTION = {RedAction.AGGRESSIVE_SERVICE_DISCOVERY: 0.75, RedAction.STEALTH_SERVICE_DISCOVERY: 0.25}
EXPLOIT_DETECTION = 0.95
FALSE_ALARM_RATE = 0.01
PHISHING_RATE = 0.01
DEGRADATION = 20  # per cent of reliability lost to one DegradeServices
MAX_PID_STEP = 9  # a new process gets the largest pid of its host plus 1..9

_HQ_REWARD = (-1, -1, -3)
_REWARDS = {
    Subnet.CON: ((0, -5, -5), (0, 0, 0), (0, 0, 0)),
    Subnet.RZA: ((-1, -3, -1), (-2, -1, -3), (-1, -3, -3)),
    Subnet.OZA: ((-1, -1, -1), (-10, 0, -10), (-1, -1, -1)),
    Subnet.RZB: ((-1, -3, -1), (-1, -1, -1), (-2, -1, -3)),
    Subnet.OZB: ((-1, -1, -1), (-1, -1, -1), (-10, 0, -10)),
    **dict.fromkeys(HQ, (_HQ_REWARD,) * NUM_PHASES),
    Subnet.INT: ((0, 0, -1), (0, 0, 0), (0, 0, 0)),
}
REWARDS = np.array([[_REWARDS[s][phase] for s in Subnet] for phase in range(NUM_PHASES)], np.float32)

_PAIRS_ALWAYS = [(hq, s) for hq in HQ for s in (Subnet.CON, Subnet.RZA, Subnet.RZB)]
_PAIRS = (
    [
        (Subnet.RZA, Subnet.CON),
        (Subnet.RZB, Subnet.CON),
        (Subnet.RZA, Subnet.RZB),
        (Subnet.OZA, Subnet.RZA),
        (Subnet.OZB, Subnet.RZB),
    ],
    [(Subnet.RZB, Subnet.CON), (Subnet.OZB, Subnet.RZB)],
    [(Subnet.RZA, Subnet.CON), (Subnet.OZA, Subnet.RZA)],
)


def _symmetric(pairs, size: int) -> np.ndarray:
    table = np.eye(size, dtype=bool)
    for a, b in pairs:
        table[a, b] = table[b, a] = True
    return table


ALLOWED = np.stack([_symmetric(_PAIRS_ALWAYS + extra, NUM_ZONES) for extra in _PAIRS])
"""[phase, from, to]: whose servers green users of a subnet visit (`_set_allowed_subnets_per_mission_phase`)."""


def _comms_policy() -> np.ndarray:
    """[phase, subnet, subnet]: 1 where the comms policy forbids traffic; a table of its own, unlike ALLOWED."""
    core = [s for s in Subnet if s not in (Subnet.OZA, Subnet.OZB)]
    edges = {frozenset((a, b)) for a in core for b in core if a != b}
    edges |= {frozenset((Subnet.RZA, Subnet.OZA)), frozenset((Subnet.RZB, Subnet.OZB))}
    cut_a = {frozenset((Subnet.RZA, s)) for s in (Subnet.OZA, Subnet.CON, Subnet.RZB, Subnet.INT)}
    cut_b = {frozenset((Subnet.RZB, s)) for s in (Subnet.OZB, Subnet.CON, Subnet.RZA, Subnet.INT)}
    policy = np.ones((NUM_PHASES, NUM_SUBNETS, NUM_SUBNETS), np.uint8)
    for phase, cut in enumerate((set(), cut_a, cut_b)):
        for edge in edges - cut:
            a, b = edge
            policy[phase, a, b] = policy[phase, b, a] = 0
    return policy


COMMS_POLICY = _comms_policy()

LINKS = np.zeros((NUM_ZONES, NUM_ZONES), bool)
"""[of, to]: rooting server 0 of one subnet reveals server 0 of the other (`_between_subnet_links`)."""
for _of, _to in (
    (Subnet.CON, (Subnet.RZA, Subnet.RZB, Subnet.PAZ)),
    (Subnet.RZA, (Subnet.OZA, Subnet.CON)),
    (Subnet.OZA, (Subnet.RZA,)),
    (Subnet.RZB, (Subnet.OZB, Subnet.CON)),
    (Subnet.OZB, (Subnet.RZB,)),
    (Subnet.PAZ, (Subnet.ADM, Subnet.OFF, Subnet.CON)),
    (Subnet.ADM, (Subnet.PAZ,)),
    (Subnet.OFF, (Subnet.PAZ,)),
):
    LINKS[_of, list(_to)] = True
