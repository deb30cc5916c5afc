"""CybORG's raw dictionaries as arrays: recorded ones, those of a live CybORG, and what is refused.

The episodes of `golden/` are always translated; those of another folder by `PURECC4_TRACES_RAW=DIR pytest -m slow`.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from recorded import AGENTS, Record, is_raw

from purecc4.cyborg.export import FILES
from purecc4.cyborg.submission.policy import raw
from purecc4.cyborg.submission.policy.raw import RawObservation, RawTranslator
from purecc4.envs.cc4 import constants
from purecc4.envs.cc4 import raw as cc4_raw
from purecc4.envs.cc4.actions import host_name, zones_of_blue

HERE = Path(__file__).parent
GOLDEN = list(filter(is_raw, sorted((HERE.parent / "golden").rglob("*.npz"))))


@pytest.fixture(scope="module")
def record():
    return Record(GOLDEN[0])


def translate(record, agent):
    """All observations of an agent, [step, ...]."""
    translator = RawTranslator(AGENTS[agent])
    raw = [translator.reset(record.observation(0, agent), record.ip_map)]
    raw += [translator.step(record.observation(step, agent)) for step in record.steps[1:]]
    return RawObservation(*map(np.stack, zip(*raw, strict=True)))


def differences(path):
    """Names of the arrays that are not as recorded, by agent."""
    record, found = Record(path), []
    for agent, name in enumerate(AGENTS):
        pairs = zip(RawObservation._fields, translate(record, agent), record.arrays(agent), strict=True)
        found += [(name, field) for field, ours, theirs in pairs if not np.array_equal(ours, theirs)]
    return found


def test_recorded_dictionaries():
    assert GOLDEN
    for path in GOLDEN:
        assert differences(path) == [], path.name


@pytest.mark.slow
@pytest.mark.skipif("PURECC4_TRACES_RAW" not in os.environ, reason="needs recorded episodes: PURECC4_TRACES_RAW")
def test_recorded_dictionaries_of_a_folder():
    paths = sorted(Path(os.environ["PURECC4_TRACES_RAW"]).glob("*.npz"))
    assert paths
    for path in paths:
        assert differences(path) == [], path.name


def test_same_arrays_and_numbers_as_the_simulator(record):
    """The exported file repeats the names of `constants` and `envs/cc4/raw.py`, which it cannot import."""
    silent = cc4_raw.silent()
    for agent in range(len(AGENTS)):
        first = RawTranslator(AGENTS[agent]).reset(record.observation(0, agent), record.ip_map)
        for field, ours in first._asdict().items():
            theirs = np.asarray(getattr(silent, field)[agent])
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert raw.OWN_ZONES[AGENTS[agent]] == tuple(zones_of_blue(agent))
    assert raw.SUBNETS == constants.SUBNET_NAMES
    assert {host_name(host): host for host in range(constants.NUM_HOSTS)} == raw.HOSTS
    assert [name.lower() for name in raw.ACTIONS] == [x.name.lower().replace("_", "") for x in constants.BlueAction]
    assert list(raw.SUCCESS) == [x.name for x in cc4_raw.Success]
    assert ["_".join(files) or "NONE" for files in raw.FILES] == [
        x.name.lower().replace("cmd", "cmd.sh").replace("escalate", "escalate.sh") if x else "NONE"
        for x in cc4_raw.Files
    ]
    assert [x.name for x in cc4_raw.Alert] == ["WORK", "PROCESS", "BRUTE_FORCED", "DECOY_HIT", "SCANNED", "ATTACKS"]
    assert tuple(cc4_raw.AttackKind)[1:] == (raw.SCAN, raw.BRUTE_FORCE, raw.DECOY_HIT)
    assert tuple(cc4_raw.Visit) == (raw.BLOCKED, raw.FALSE_ALARM)


def test_new_processes_are_sorted(record):
    """By host, and by pid on a host, whatever the order of the dictionary."""
    translator = RawTranslator("blue_agent_0")
    translator.reset(record.observation(0, 0), record.ip_map)
    user, server = (f"restricted_zone_a_subnet_{kind}_host_0" for kind in ("user", "server"))
    observation = {"success": record.observation(0, 0)["success"]}
    for name, offsets in ((user, (5,)), (server, (9, 3))):
        base = translator.session_pid[name]
        observation[name] = {"Processes": [{"PID": base + offset} for offset in offsets]}
    assert translator.step(observation).pids.tolist() == [[16, 3], [16, 9], [22, 5], [0, 0], [0, 0], [0, 0]]


def test_two_attacks_out_of_one_zone_have_a_row_each(record):
    """Both name one target: the first has the row of the zone's owner, the second a free one."""
    translator = RawTranslator("blue_agent_0")
    translator.reset(record.observation(0, 0), record.ip_map)
    target = "restricted_zone_a_subnet_server_host_0"
    scan = {"local_address": record.ip_map[target], "local_port": 22, "remote_port": 50000}
    sources = [record.ip_map[f"contractor_network_subnet_{name}_host_0"] for name in ("server", "user")]
    scans = [{"Connections": [scan | {"remote_address": source}]} for source in sources]
    success = record.observation(0, 0)["success"]
    rows = translator.step({"success": success, target: {"Processes": scans}}).attacks
    assert rows[:, :4].tolist() == [[1, 16, 0, 1], [1, 16, 6, 1], *[[0] * 4] * 4]


def refusal(call, *args):
    """The one sentence with which something is refused."""
    with pytest.raises(ValueError, match=r"^this |^no host|^unknown agent") as error:
        call(*args)
    return str(error.value)


def test_other_dictionaries_are_refused(record):
    translator = RawTranslator("blue_agent_0")
    first, later = record.observation(0, 0), record.observation(1, 0)
    assert "translate it with reset" in refusal(translator.step, later)
    assert "translate it with step" in refusal(translator.reset, later, record.ip_map)
    translator.reset(first, record.ip_map)
    assert "translate it with reset" in refusal(translator.step, first)
    for other in (np.zeros(210), {"message": []}, {"success": 1}, None):
        assert "take the dictionary of CybORG's BlueFixedActionWrapper" in refusal(translator.step, other)
    assert "an entry of restricted_zone_b_subnet" in refusal(translator.reset, record.observation(0, 2), record.ip_map)
    assert "known are blue_agent_0, blue_agent_1" in refusal(RawTranslator, "red_agent_0")


@pytest.mark.parametrize(
    ("kind", "host"),
    [("InvalidAction", "restricted_zone_a_subnet_user_host_0"), ("Restore", "restricted_zone_a_subnet_router")],
)
def test_results_of_other_actions_are_refused(record, kind, host):
    """CybORG also takes action objects, which may be invalid or aim at a router."""
    translator = RawTranslator("blue_agent_0")
    first = record.observation(0, 0)
    translator.reset(first, record.ip_map)
    action = type(kind, (), {"hostname": host, "__str__": lambda self: f"{kind} {host}"})()
    says = refusal(translator.step, {"success": first["success"], "action": action, "message": []})
    assert f"{kind} {host}, which is none of the wrapper's numbered actions" in says


def test_observations_asked_for_twice_and_foreign_addresses_are_refused(record):
    brute_forced = [record.arrays(agent).alerts[:, :, raw.BRUTE_FORCED].any(axis=1) for agent in range(len(AGENTS))]
    agent, step = np.argwhere(brute_forced)[0]
    translator, observation = RawTranslator(AGENTS[agent]), record.observation(step, agent)
    translator.reset(record.observation(0, agent), record.ip_map)
    translator.step(observation)
    for entry in observation.values():
        if isinstance(entry, dict):
            entry["Processes"] = entry.get("Processes", []) * 2
    assert "ask CybORG for it once in a step" in refusal(translator.step, observation)
    translator.reset(record.observation(0, agent), {})
    assert "give reset the ip_map of the current episode" in refusal(translator.step, record.observation(step, agent))


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
def test_live_dictionaries_agree_with_the_state_of_cyborg():
    """Three episodes. A translated observation tells of actions, attackers, files and processes that there are."""
    path = os.pathsep.join([os.environ["CYBORG_PATH"], str(FILES)])
    command = [os.environ.get("CYBORG_PYTHON", "python3"), str(HERE / "live_raw.py"), "500", "1", "2", "3"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert not report["failed"] and min(report["made"].values()) > 50
    assert len(report["made"]) == 11
