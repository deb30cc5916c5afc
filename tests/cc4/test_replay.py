"""Recorded episodes of the reference simulator replay without a difference, and the comparison detects changes.

The episodes of `golden/raw` are always replayed; slow tests replay those of `golden` and of `PURECC4_TRACES=DIR`.
"""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from purecc4.envs.cc4.constants import HOST_SUBNET, IS_SERVER, Subnet
from purecc4.errors import UserError
from purecc4.parity import replay
from purecc4.parity.translation import load, translate

HERE = Path(__file__).parents[1]
GOLDEN = sorted((HERE / "golden").glob("*.npz"))
RAW = sorted((HERE / "golden/raw").glob("*.npz"))
HOST = "contractor_network_subnet_server_host_0"


def _differences(paths, choose=True):
    return {result.name: result.difference for result in replay.replay(paths, choose) if result.difference}


@pytest.mark.slow
def test_golden_episodes_replay_without_a_difference():
    """The policies of red and green choose, and make the recorded choices."""
    assert len(GOLDEN) == 8
    assert _differences(GOLDEN) == {}


def test_golden_episodes_with_the_raw_observation_replay_without_a_difference():
    assert len(RAW) == 4
    assert _differences(RAW) == {}


@pytest.mark.slow
@pytest.mark.skipif("PURECC4_TRACES" not in os.environ, reason="needs recorded episodes: PURECC4_TRACES")
@pytest.mark.parametrize("choose", [False, True], ids=["recorded choices", "own choices"])
def test_all_recorded_episodes_replay_without_a_difference(choose):
    paths = sorted(Path(os.environ["PURECC4_TRACES"]).glob("*.npz"))
    assert paths and _differences(paths, choose) == {}


@pytest.fixture(scope="module")
def played():
    path = HERE / "golden/raw/random-d_60013.npz"
    (result,) = replay.replay([path], True)
    ((view, mask),) = replay.play([result.translation], True)
    return load(path), result.translation, view, mask


def _changed(trace, name, index, change):
    values = trace.raw[name].copy()
    values[index] = change(values[index])
    return replay.Trace(trace.name, trace.raw | {name: values})


@pytest.mark.parametrize(
    ("name", "index", "change", "field"),
    [
        ("obs", (300, 4, 10), lambda x: x ^ 1, "observation"),
        ("phase", 300, lambda x: 0, "observation"),
        ("mask", (2, 5), lambda x: 1 - x, "mask"),
        ("reward", 299, lambda x: x - 1, "reward"),
        ("cost", 299, lambda x: x - 1, "cost"),
        ("blocks", (300, 7, 2), lambda x: 1 - x, "blocked"),
        ("red_active", (300, 0), lambda x: 1 - x, "red active"),
        ("fsm", (301, 0, HOST), lambda x: (x + 1) % 9, "knowledge"),
        ("reliability", (300, HOST, 0), lambda x: x ^ 4, "reliability"),
        ("service_active", (300, HOST, 0), lambda x: 1 - x, "activity"),
        ("service_present", (300, HOST, 6), lambda x: 1 - x, "presence"),
        ("max_pid", (300, HOST), lambda x: x + 1, "largest pid"),
        ("blue_busy", (299, 1), lambda x: x + 1, "steps to go"),
        ("red_exec", (299, 0, 4), lambda x: x + 1, "steps to go"),
        *[("sessions", column, lambda x: x + 1, "sessions") for column in (2, 4)],
        *[("sessions", column, lambda x: 1 - x, "sessions") for column in (5, 6)],
        ("sus_pids", 3, lambda x: x + 1, "suspicious"),
    ],
)
def test_a_changed_record_is_noticed_at_its_step(played, name, index, change, field):
    trace, translation, view, mask = played
    assert replay.compare(trace, translation, view, mask) is None
    if name in ("sessions", "sus_pids"):
        index = int(np.flatnonzero(trace.raw[name][:, 0] == 300)[0]), index
    elif HOST in np.atleast_1d(index):
        index = tuple(list(trace.raw["hosts"]).index(HOST) if i == HOST else i for i in index)
    difference = replay.compare(_changed(trace, name, index, change), translation, view, mask)
    assert field in difference.field
    assert difference.step == (0 if name == "mask" else 300)


@pytest.mark.parametrize(
    ("name", "index", "change", "field"),
    [
        ("raw_own", (300, 1, 1), lambda x: x ^ 1, "result of blue agent 1 column 1"),
        ("raw_alarm", (300, 4, 2), lambda x: x ^ 4, "alerts of blue agent 1 own_zone 0 alert 4"),
        ("raw_attack", (300, 5), lambda x: np.array([2, 90, 85, 0, 0, 16, 1, 32], x.dtype), "attacks of blue agent 4"),
        ("raw_pid", (300, 0), lambda x: x + 90, "pids of blue agent 4"),
        ("raw_green", (300, 1, 40), lambda x: x ^ 8, "visits of blue agent 4 own_zone 1 visit 1"),
        ("files", (300, 30, 0), lambda x: (x + 1) % 5, "files on"),
        ("listen", (300, 30, 2), lambda x: x + 1, "processes listening on"),
        ("sus_list", None, lambda x: x + 1, "suspicious pids in order on"),
    ],
)
def test_a_changed_raw_observation_is_noticed_at_its_step(played, name, index, change, field):
    trace, translation, view, mask = played
    if name == "sus_list":
        index = int(np.flatnonzero(trace.raw[name][:, 0] == 300)[-1]), 4
    difference = replay.compare(_changed(trace, name, index, change), translation, view, mask)
    assert field in f"{difference.field} {difference.where}" and difference.step == 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw.pop("raw_green"), "it lacks raw_green of the raw observation"),
        (
            lambda raw: raw.update(raw_pid=raw["raw_pid"][1:]),
            "raw_pid must have the shape 500 x 6 x 2, not 499",
        ),
        (lambda raw: raw.update(red_draws=raw["red_draws"][:, :3]), "red_draws must have the shape * x 4"),
        (lambda raw: raw.update(raw_own=raw["raw_own"].ravel()), "raw_own must have the shape 500 x 5 x 8, not 20000"),
    ],
)
def test_a_recording_without_all_of_its_raw_observation_is_refused(tmp_path, change, says):
    raw = dict(np.load(RAW[0]))
    change(raw)
    np.savez(tmp_path / "x.npz", **raw)
    with pytest.raises(UserError, match=re.escape(says)):
        load(tmp_path / "x.npz")


def test_an_alert_without_any_cause_is_not_explained_away(played):
    trace, *_ = played
    quiet = (trace.to_hosts(trace.raw["events"])[1:] == 0).all(axis=-1) & trace.exists
    step, host = np.argwhere(quiet & IS_SERVER & (HOST_SUBNET == Subnet.ADM))[-1]  # no user works on a server
    events = trace.raw["events"].copy()
    events[step + 1, np.flatnonzero(trace.hosts == host)[0], 3] = 1
    changed = replay.Trace(trace.name, trace.raw | {"events": events})
    before, after = translate(trace).play.draws, translate(changed).play.draws
    for name in ("green_alarm", "detection"):
        np.testing.assert_array_equal(before[name], after[name])


def test_a_choice_that_red_cannot_make_is_a_difference(played):
    trace, translation, *_ = played
    step, agent = np.argwhere(translation.play.asked)[40]
    session = translation.play.choices["red_session"].copy()
    session[step, agent] = 63
    choices = translation.play.choices | {"red_session": session}
    broken = replace(translation, play=replace(translation.play, choices=choices))
    ((view, mask),) = replay.play([broken], True)
    chosen = trace.raw["red_choice"].copy()
    chosen[step, agent, 2] = 63
    changed = replay.Trace(trace.name, trace.raw | {"red_choice": chosen})
    difference = replay.compare(changed, broken, view, mask)
    assert "choice" in difference.field and difference.step == step + 1


@pytest.mark.slow
def test_the_command_compares_a_folder(tmp_path, capsys):
    path = HERE / "golden" / "block_4020.npz"
    shutil.copy(path, tmp_path)
    replay.run(replay.Config(tmp_path))
    assert "block_4020: 499 steps, no difference" in capsys.readouterr().out
    raw = dict(np.load(path))
    raw["reward"][299] -= 1
    np.savez(tmp_path / "changed.npz", **raw)
    with pytest.raises(UserError, match="1 of 2"):
        replay.run(replay.Config(tmp_path, choose=True))
    assert "changed: 499 steps, step 300: reward" in capsys.readouterr().out


def test_the_command_refuses_a_folder_without_traces(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            replay.run(replay.Config(folder))
    with pytest.raises(UserError, match="--first"):
        replay.run(replay.Config(tmp_path, first=0))
    file = tmp_path / "x.npz"
    for content in (b"nothing", b"", b"PK\x03\x04 cut short"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(str(file))):
            replay.run(replay.Config(tmp_path))
