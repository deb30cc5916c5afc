"""A raw observation in words."""

import jax
import numpy as np
import pytest

from purecc4.envs.cc4 import raw, told
from purecc4.envs.cc4.actions import host_name
from purecc4.envs.cc4.constants import NUM_HOSTS, BlueAction, Decoy, Subnet
from purecc4.envs.cc4.raw import Alert, AttackKind, Files, OpenPort, Success, Visit
from purecc4.play import watch

NAMES = [watch.short(host_name(host)) for host in range(NUM_HOSTS)]
RZA_SERVER, RZA_USER, CON_USER, OFF_USER = (
    NAMES.index(f"{name} 0") for name in ("RZA server", "RZA user", "CON user", "OFF user")
)
BLUE_4 = 4


@pytest.fixture
def seen():
    """A silent observation, to be changed."""
    return jax.tree.map(np.array, raw.silent())


def test_silence_is_no_sentence(seen):
    assert [told(seen, blue, NAMES) for blue in range(5)] == [[]] * 5


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ((Success.IN_PROGRESS, -1), []),
        ((Success.UNKNOWN, BlueAction.SLEEP), []),
        ((Success.TRUE, BlueAction.REMOVE, RZA_USER), ["Remove RZA user 0: done"]),
        ((Success.TRUE, BlueAction.ANALYSE, RZA_USER, -1, -1, Files.NONE), ["Analyse RZA user 0: no files"]),
        (
            (Success.TRUE, BlueAction.ANALYSE, RZA_USER, -1, -1, Files.ESCALATE_CMD),
            ["Analyse RZA user 0: escalate.sh, then cmd.sh"],
        ),
        (
            (Success.TRUE, BlueAction.DEPLOY_DECOY, RZA_SERVER, -1, -1, -1, Decoy.TOMCAT, 12),
            ["DeployDecoy RZA server 0: tomcat, PID +12"],
        ),
        (
            (Success.TRUE, BlueAction.BLOCK_TRAFFIC_ZONE, -1, Subnet.RZA, Subnet.CON),
            ["BlockTrafficZone RZA \u2190 CON"],
        ),
        (
            (Success.FALSE, BlueAction.ALLOW_TRAFFIC_ZONE, -1, Subnet.RZA, Subnet.CON),
            ["AllowTrafficZone RZA \u2190 CON: no change"],
        ),
    ],
)
def test_own_action(seen, result, says):
    seen.result[0, : len(result)] = result
    assert told(seen, 0, NAMES) == says


def test_attacks(seen):
    ports = 1 << OpenPort.SSH | 1 << OpenPort.HTTP
    seen.attacks[0, 0] = AttackKind.SCAN, RZA_SERVER, CON_USER, ports, 2, 0, 0
    seen.attacks[0, 1] = AttackKind.DECOY_HIT, RZA_USER, RZA_SERVER, 1 << OpenPort.HTTPS, 0, 0, 0
    routers = 1 << Subnet.OFF | 1 << Subnet.PAZ
    seen.attacks[BLUE_4, 0] = AttackKind.BRUTE_FORCE, RZA_USER, OFF_USER, 0, 0, 1, routers
    seen.attacks[BLUE_4, 5] = AttackKind.BRUTE_FORCE, OFF_USER, OFF_USER, 0, 0, 0, 0
    assert told(seen, 0, NAMES) == [
        "CON user 0 scans RZA server 0 (open ports: 22, 80; 2 processes on port 80)",
        "RZA server 0 attacks a decoy of RZA user 0 (port 443)",
    ]
    assert told(seen, BLUE_4, NAMES) == [
        "OFF user 0 brute-forces RZA user 0 (reported by source, OFF router, PAZ router)",
        "OFF user 0 brute-forces OFF user 0 (reported by target)",
    ]


def test_processes_and_green_users(seen):
    seen.pids[0, 0] = RZA_USER, 7
    seen.alerts[0, 0, Alert.WORK] = 1 << 6 | 1 << 15
    seen.visits[0, 0, Visit.BLOCKED, Subnet.CON] = 0b101
    seen.visits[BLUE_4, 2, Visit.FALSE_ALARM, Subnet.OFF] = 0b1
    assert told(seen, 0, NAMES) == [
        "new process on RZA user 0: PID +7",
        "false alarm: work on RZA user 0",
        "false alarm: work on RZA user 9",
        "blocked visit from CON to RZA server 0, RZA server 2",
    ]
    assert told(seen, BLUE_4, NAMES) == ["false alarm: visit from OFF to PAZ server 0"]
