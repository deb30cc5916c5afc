"""Settings: ranges, names of run folders, damaged settings of a run folder."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import probe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purecc4 import files
from purecc4.algos import ippo
from purecc4.errors import UserError
from purecc4.train.settings import MAX_NUM_STEPS

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)

FLOATS = list(ippo.Config().tunables)

INTS = [field.name for field in dataclasses.fields(ippo.Config) if field.type is int]


@pytest.mark.parametrize(
    ("game", "red", "trained_against"),
    [
        ("base", None, "fsm"),
        ("stealthy", None, "stealthy"),
        ("stealthy", "impact", "impact"),
        ("base", "cia_c", "cia_c"),
    ],
)
def test_the_red_of_a_training_is_that_of_its_game_unless_given(game, red, trained_against):
    config = dataclasses.replace(ippo.Config(), game=game, red=red).resolved()
    assert (config.game, config.red) == (game, trained_against)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -float("inf"), 1e39, -0.2])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be"):
        dataclasses.replace(ippo.Config(), **{name: value}).check()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FLOATS), st.floats())
def test_any_float_is_refused_or_valid(name, value):
    try:
        dataclasses.replace(ippo.Config(), **{name: value}).check()
    except UserError as error:
        assert str(error).startswith(f"{name} must be") and "\n" not in str(error)
    else:
        assert np.isfinite(np.float32(value)) and np.float32(value) >= 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(INTS), st.integers())
def test_any_integer_is_refused_or_valid(name, value):
    try:
        dataclasses.replace(ippo.Config(), **{name: value}).check()
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert value >= 1 and (name != "num_steps" or value <= MAX_NUM_STEPS)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_name_is_refused_or_a_folder_in_runs(name):
    config = dataclasses.replace(ippo.Config(), name=name)
    try:
        config.check()
    except UserError as error:
        assert "name must be" in str(error) and "\n" not in str(error)
    else:
        assert config.folder.resolve().parent == Path("runs").resolve()


@pytest.mark.parametrize("name", ["", "..", ".", "a\nb", "a/b", ".hidden", "x" * 260, "é" * 150])
def test_names_that_are_not_folder_names_are_refused(name):
    with pytest.raises(UserError, match="name must be"):
        dataclasses.replace(ippo.Config(), name=name).check()


@settings(max_examples=40, deadline=None)
@given(key=st.sampled_from([field.name for field in dataclasses.fields(ippo.Config)]), value=JSON)
def test_damaged_settings_are_refused_in_one_line(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("run")
    resolved = json.loads(json.dumps(dataclasses.asdict(ippo.Config())))
    files.write_json(folder / "config.json", {"algorithm": "ippo", "resolved": resolved | {key: value}})
    try:
        found = probe.command_line.saved_config(ippo.Config, folder)
        found.check()
    except UserError as error:
        assert "\n" not in str(error)
    else:
        wanted = str(Path(value)) if key == "define" and isinstance(value, str) else value
        assert json.loads(json.dumps(getattr(found, key), default=str)) == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_envs": 100_000_000}, "num_envs times num_steps must be at most"),
        ({"total_timesteps": 10**20}, "total_timesteps must be .* below 2"),
        ({"update_epochs": 2**31 - 1}, "update_epochs must be from 1 to 1000"),
        ({"arm": ("x" * 90, "y" * 90, "z" * 90)}, "name must be"),
        ({"learning_rate": 1e-40}, "learning_rate must be"),
    ],
)
def test_numbers_beyond_what_arrays_and_folders_hold_are_refused(changes, says):
    with pytest.raises(UserError, match=says) as refused:
        dataclasses.replace(ippo.Config(), **changes).check()
    assert len(str(refused.value)) < 400
