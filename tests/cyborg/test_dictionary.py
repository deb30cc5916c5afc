"""Dictionaries written out of arrays: recorded ones, those of a live CybORG, and their own arrays again.

The episodes of `golden/` are always written; those of another folder by `PURECC4_TRACES_RAW=DIR pytest -m slow`.
"""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from random import Random

import numpy as np
import pytest
from comparable import comparable
from recorded import AGENTS, Record, is_raw

from purecc4.cyborg import objects
from purecc4.cyborg.dictionary import GENERATED, DictionaryWriter, Network, draw
from purecc4.cyborg.export import FILES
from purecc4.cyborg.submission.policy.raw import (
    ACTIONS,
    HOSTS,
    OWN_ZONES,
    ROUTERS,
    SUCCESS,
    ZONE_OF,
    RawObservation,
    RawTranslator,
)
from purecc4.envs.cc4.constants import BLUE_DURATION, GENERATION_ORDER

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = list(filter(is_raw, sorted((HERE.parent / "golden").rglob("*.npz"))))
EXISTS = np.arange(len(HOSTS)) % 16 % 6 < 4


def network_of(record):
    """The network of a recorded episode."""
    of = record.of
    own = [i for i, agent in enumerate(of["blue_owner"]) if agent >= 0]
    return Network(
        addresses={name: address for name, address in record.ip_map.items() if "internet" not in name},
        kali=frozenset(np.array(record.hosts)[of["kali"] > 0].tolist()),
        session_pids={record.hosts[i]: int(of["blue_pid"][i]) for i in own},
        parents={AGENTS[of["blue_owner"][i]]: record.hosts[i] for i in own if of["blue_session"][i] == 0},
    )


def told(found, names):
    """The parts of a dictionary that recordings hold: systems, interfaces and details of files are missing."""
    kept = {}
    for name, entry in comparable(found, names):
        files = [file["File Name"] for file in found[name].get("Files", ())] if "host" in name else []
        kept[name] = (dict(entry).get("Processes"), files) if "host" in name or "router" in name else entry
    return kept


def differences(path, last=None):
    """(agent, step, what) of dictionaries that are not as recorded, or whose arrays are not those they were made of."""
    record = Record(path)
    network, found = network_of(record), []
    names = {str(address): name for name, address in record.ip_map.items()}
    for i, agent in enumerate(AGENTS):
        writer, translator, arrays = DictionaryWriter(agent, network, Random(i)), RawTranslator(agent), record.arrays(i)
        first = translator.reset(writer.reset(), network.addresses)
        if not all(map(np.array_equal, first, (array[0] for array in arrays))):
            found.append((agent, 0, "arrays"))
        for step in record.steps[1:last]:
            theirs, raw = record.observation(step, i), RawObservation(*(array[step] for array in arrays))
            ours = writer.step(raw, np.delete(record.of["messages"][step - 1], i, axis=0))
            if not all(map(np.array_equal, translator.step(ours), raw)):
                found.append((agent, step, "arrays"))
            if told(ours, names) != told(theirs, names):
                found.append((agent, step, "dictionary"))
    return found


def test_recorded_dictionaries_are_written():
    """An episode of random actions, with traffic, decoys and Analyses; the slow test reads all episodes."""
    assert differences(GOLDEN[-1], last=80) == []


@pytest.mark.slow
def test_recorded_dictionaries_of_a_folder_are_written():
    paths = (
        sorted(Path(os.environ["PURECC4_TRACES_RAW"]).glob("*.npz")) if "PURECC4_TRACES_RAW" in os.environ else GOLDEN
    )
    assert paths
    for path in paths:
        assert differences(path) == [], path.name


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
def test_dictionaries_of_cyborg_are_written():
    """Key for key and in order, but for what the arrays leave out."""
    python, path = (
        os.environ.get("CYBORG_PYTHON", sys.executable),
        os.pathsep.join(map(str, [Path(os.environ["CYBORG_PATH"]).resolve(), ROOT, FILES])),
    )
    command = [python, str(HERE / "live_dictionary.py"), "200", "71", "72"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["made"] == 2 * 200 * len(AGENTS) and not found["differing"], found["first"]


def test_a_network_is_drawn_as_cyborg_draws_it():
    network = draw(EXISTS, Random(3))
    assert tuple(map(int, GENERATION_ORDER)) == GENERATED
    assert set(network.addresses) - set(ROUTERS) == {name for name, host in HOSTS.items() if EXISTS[host]}
    assert len(set(network.addresses.values())) == len(network.addresses)
    for agent, zones in OWN_ZONES.items():
        first = DictionaryWriter(agent, network, Random(3)).reset()
        RawTranslator(agent).reset(first, network.addresses)
        ids = [entry["Sessions"][0]["session_id"] for entry in first.values() if isinstance(entry, dict)]
        assert sorted(ids) == list(range(len(ids))) and ZONE_OF[network.parents[agent]] in zones
        subnets = {entry["Interface"][0]["Subnet"] for entry in first.values() if isinstance(entry, dict)}
        assert len(subnets) == len(zones)
    assert 0 < len(network.kali) < len(network.addresses)


def test_the_stand_ins_have_the_numbers_of_the_simulator():
    assert [action.__name__ for action in objects.ACTIONS] == list(ACTIONS)
    assert [action.duration for action in objects.ACTIONS] == BLUE_DURATION.tolist()
    assert {success.name for success in objects.TernaryEnum} == set(SUCCESS)
    assert str(objects.Restore(session=0, agent="blue_agent_0", hostname="x")) == "Restore x"
    assert str(objects.BlockTrafficZone(0, "blue_agent_0", "x", "y")) == "BlockTrafficZone"
    success = objects.TernaryEnum.TRUE
    assert success == True and success != False and success != objects.TernaryEnum.UNKNOWN  # noqa: E712


def test_classes_of_an_imported_cyborg_are_used(monkeypatch):
    theirs = types.ModuleType("CybORG.Simulator.Actions")
    theirs.Sleep = type("Sleep", (), {})
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    assert objects.known_as(objects.Sleep) is theirs.Sleep
    assert objects.known_as(objects.Restore) is objects.Restore
