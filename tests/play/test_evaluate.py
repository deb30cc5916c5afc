"""Evaluation: policies as data, reproducible episodes, and the evaluation table."""

import errno
import gzip
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from worlds import dropping

from purecc4.__main__ import main
from purecc4.algos.ippo import ActorCritic
from purecc4.arms.define import Definitions
from purecc4.envs import cc4
from purecc4.envs.cc4 import history
from purecc4.envs.cc4.actions import ACTION_TABLE, action_mask
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_HOSTS, NUM_OBS, BlueAction
from purecc4.envs.cc4.raw import ResultColumn, Success
from purecc4.errors import UserError
from purecc4.play import evaluate, nudge, policies, verify
from purecc4.play.episodes import advance, build, stack_params, start
from purecc4.play.tables import (
    ACTIONS,
    EVALUATION_CSV,
    EVALUATION_JSON,
    LATER,
    OVERFLOW,
    OWN_ZONES,
    STUDY_REDS,
    VALUES,
    Cell,
    read_evaluation,
    table_of,
)
from purecc4.report.findings import find
from purecc4.train import checkpoint, devices

STEPS, EPISODES, REDS = 12, 3, ("fsm", "discovery")
SIZES = {"num_obs": NUM_OBS, "num_actions": NUM_ACTIONS, "hidden": 32, "precision": devices.precision("auto")}


def save_network(folder: Path, arm: str, seed: int, env_steps: int) -> Path:
    """Save a checkpoint of a network with random weights."""
    random = np.random.default_rng((seed, env_steps))
    network = eqx.filter_eval_shape(ActorCritic, jax.random.key(0), **SIZES)
    network = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), network)
    path = checkpoint.path_of(folder, arm, seed, env_steps)
    checkpoint.save(path, network, {"algorithm": "ippo", "network": SIZES})
    return path


@pytest.fixture
def config(tmp_path) -> evaluate.Config:
    """Two checkpoints of one run, one of another."""
    for arm, seed, env_steps in (("C00", 42, 10), ("C00", 42, 20), ("C11", 7, 20)):
        save_network(tmp_path / "run", arm, seed, env_steps)
    return evaluate.Config(tmp_path / "run", reds=REDS, episodes=EPISODES, num_steps=STEPS)


@pytest.fixture
def observation():
    """A random observation, and a mask with few legal actions."""
    key_vector, key_mask = jax.random.split(jax.random.key(3))
    vector = jax.random.bernoulli(key_vector, 0.3, (NUM_BLUE, NUM_OBS)).astype(jnp.uint8)
    return vector, jax.random.bernoulli(key_mask, 0.1, (NUM_BLUE, NUM_ACTIONS)).at[:, 0].set(True)


def actions_of(policy, observation, count: int) -> np.ndarray:
    """[count, blue] actions for evenly spaced random numbers."""
    u = jnp.broadcast_to((jnp.arange(count)[:, None] + 0.5) / count, (count, NUM_BLUE))
    memory = policy.network.initial_carry(NUM_BLUE)
    return np.asarray(jax.vmap(lambda u: policies.act(policy, memory, *observation, u)[1])(u))


def test_sampled_actions_follow_the_networks_probabilities(tmp_path, observation):
    policy = policies.trained(save_network(tmp_path, "C00", 1, 1))
    actions = actions_of(policy, observation, 2000)
    shares = (actions[:, :, None] == np.arange(NUM_ACTIONS)).mean(axis=0)
    np.testing.assert_allclose(shares, jax.nn.softmax(policy.network(*observation)[0]), atol=2e-3)


def test_greedy_takes_the_likeliest_action(tmp_path, observation):
    policy = policies.trained(save_network(tmp_path, "C00", 1, 1), greedy=True)
    actions = actions_of(policy, observation, 20)
    assert (actions == np.asarray(policy.network(*observation)[0].argmax(axis=1))).all()


def test_scripted_policies_sleep_and_pick_any_legal_action(observation):
    vector, mask = observation[0], action_mask(jnp.ones(NUM_HOSTS, bool))
    asleep = actions_of(policies.scripted("sleep"), (vector, mask), 20)
    assert (ACTION_TABLE[np.arange(NUM_BLUE), asleep, 0] == BlueAction.SLEEP).all()
    assert np.asarray(mask)[np.arange(NUM_BLUE), asleep].all()
    actions = actions_of(policies.scripted("random"), observation, 5000)
    for blue, legal in enumerate(np.asarray(observation[1])):
        assert set(actions[:, blue]) == set(np.flatnonzero(legal))


@pytest.mark.slow
def test_episodes_are_independent_of_the_batch(config):
    """An episode depends only on its seed and number. Another policy needs no compilation."""
    seed, episodes = jnp.uint32(1000), jnp.arange(EPISODES)
    first, second = (policies.trained(save_network(config.run, "x", seed, 1)) for seed in (1, 2))
    program = build(STEPS).lower(first, stack_params(REDS, STEPS), seed, episodes).compile()
    values = program(first, stack_params(REDS, STEPS), seed, episodes)
    turned = program(first, stack_params(REDS[::-1], STEPS), seed, episodes[::-1])
    later = program(first, stack_params(REDS, STEPS), seed, episodes + 2)
    other = program(second, stack_params(REDS, STEPS), seed, episodes)
    assert not values[..., VALUES.index(OVERFLOW)].any()
    np.testing.assert_array_equal(values, turned[::-1, ::-1])
    np.testing.assert_array_equal(values[:, 2], later[:, 0])
    assert (values != other).any() and (values[:, 0] != later[:, 0]).any()


@pytest.mark.slow
def test_a_table_has_every_cell_with_consistent_sums(config):
    table = evaluate.evaluate(replace(config, policies=("sleep", "random"), env_steps=("all",)))
    read = read_evaluation([config.run])
    runs = [("sleep", -1, 0), ("random", -1, 0), ("C00", 42, 10), ("C00", 42, 20), ("C11", 7, 20)]
    assert set(read.cells) == {Cell(*run, red, "sampled") for run in runs for red in REDS} == set(table.cells)
    pd.testing.assert_frame_equal(read.rows, table.rows, check_dtype=False, rtol=1e-7)
    for row in read.cells.values():
        np.testing.assert_array_equal(row["return"], row["lwf"] + row["asf"] + row["ria"] + row["cost"])
        assert (sum(row[f"submitted_{action}"] for action in ACTIONS) == NUM_BLUE * STEPS).all()
        assert (row["cost"] == -row["submitted_restore"]).all()
        assert all((row[f"executed_{action}"] <= row[f"submitted_{action}"]).all() for action in ACTIONS)
        assert (row["root_hosts"] <= row["red_sessions"]).all() and (row["red_sessions"] >= 1).any()
        assert (row["return"] <= row["own_zones"]).all() and (row["own_zones"] <= row["cost"]).all()
        assert (row["restores_infected"] + row["restores_clean"] == row["executed_restore"]).all()
    asleep = read.cells[Cell("sleep", -1, 0, "fsm", "sampled")]
    assert (asleep["executed_sleep"] == NUM_BLUE * STEPS).all()


@pytest.mark.slow
def test_the_table_is_reproducible_and_depends_on_the_seed(config, tmp_path):
    texts = []
    for name, seed in (("a", 1000), ("b", 1000), ("c", 1001)):
        save_network(tmp_path / name, "C00", 42, 10)
        evaluate.evaluate(replace(config, run=tmp_path / name, eval_seed=seed))
        texts.append((tmp_path / name / EVALUATION_CSV).read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.slow
def test_more_checkpoints_and_reds_join_the_table(config, monkeypatch):
    evaluate.evaluate(replace(config, env_steps=(20,), reds=REDS[::-1]))
    before = (config.run / EVALUATION_CSV).read_text()
    evaluate.evaluate(replace(config, env_steps=("all",), policies=("sleep",)))
    after = (config.run / EVALUATION_CSV).read_text()
    assert after.startswith(before) and after.count("sleep,-1") == len(REDS) * EPISODES
    monkeypatch.setattr(evaluate, "play_all", lambda *_: pytest.fail("played again"))
    evaluate.evaluate(config)
    assert (config.run / EVALUATION_CSV).read_text() == after


@pytest.mark.slow
def test_games_join_the_table_under_their_names(config):
    table = evaluate.evaluate(replace(config, games=("base", "phishing"), env_steps=("none",), policies=("random",)))
    returns = {cell.red: episodes["return"].tolist() for cell, episodes in table.cells.items()}
    assert list(returns) == [*REDS, "fsm@phishing", "discovery@phishing"]
    assert returns["fsm"] != returns["fsm@phishing"]


def test_without_reds_the_base_game_has_those_of_the_study_and_others_their_own(config):
    asked = replace(config, reds=(), games=("stealthy", "base", "stealthy"))
    assert evaluate.matches_of(asked, Definitions()) == ["stealthy@stealthy", *STUDY_REDS]
    with pytest.raises(UserError, match="unknown game 'fishing'"):
        evaluate.matches_of(replace(config, games=("fishing",)), Definitions())


def test_modes_share_a_table_and_scripts_are_played_once(config):
    for mode in ("sampled", "greedy"):
        table = evaluate.evaluate(replace(config, mode=mode, policies=("sleep",), arm=("C11",)))
    cells = [("sleep", -1, "sampled"), ("C11", 7, "sampled"), ("C11", 7, "greedy")]
    assert [(*cell[:2], cell.red, cell.mode) for cell in table.cells] == [
        (*cell[:2], red, cell[2]) for cell in cells for red in REDS
    ]
    sampled, greedy = (table.cells[Cell("C11", 7, 20, "fsm", mode)] for mode in ("sampled", "greedy"))
    assert (sampled["return"].to_numpy() != greedy["return"].to_numpy()).any()


def test_a_compressed_table_is_read_and_extended_as_plain_text(config):
    evaluate.evaluate(replace(config, arm=("C00",)))
    plain = config.run / EVALUATION_CSV
    before = plain.read_bytes()
    (config.run / f"{EVALUATION_CSV}.gz").write_bytes(gzip.compress(before))
    plain.unlink()
    assert table_of(config.run).suffix == ".gz" and len(read_evaluation([config.run]).cells) == len(REDS)
    evaluate.evaluate(config)
    assert plain.read_bytes().startswith(before) and table_of(config.run) == plain
    plain.unlink()
    (config.run / f"{EVALUATION_CSV}.gz").write_bytes(gzip.compress(before)[:-20])
    with pytest.raises(UserError, match=r"evaluation\.csv\.gz is damaged"):
        evaluate.evaluate(config)


def test_a_table_without_a_protocol_is_rejected_unchanged(config):
    evaluate.evaluate(config)
    before = (config.run / EVALUATION_CSV).read_text()
    (config.run / EVALUATION_JSON).unlink()
    with pytest.raises(UserError, match=r"evaluation\.json.* is missing"):
        evaluate.evaluate(replace(config, policies=("sleep",)))
    assert (config.run / EVALUATION_CSV).read_text() == before


def test_an_overflow_is_saved_and_announced_and_blocks_the_report(config, monkeypatch, capsys):
    monkeypatch.setattr(cc4, "step", dropping(cc4.step))
    monkeypatch.setattr(evaluate, "build", build.__wrapped__)
    config = replace(config, arm=("C11",), episodes=1)
    evaluate.run(config)
    sentence = r"2 episodes .*C11 seed 7 at 20 env steps against fsm\) overflowed"
    assert re.search(sentence, capsys.readouterr().err)
    assert (read_evaluation([config.run]).rows[OVERFLOW] == STEPS).all()
    with pytest.raises(UserError, match=sentence):
        find([config.run])


def test_an_older_table_is_read_and_extended(config):
    """It lacks `overflow`, which is 0 then, and the columns of LATER, which are missing then."""
    table = evaluate.evaluate(replace(config, arm=("C11",)))
    path = table_of(config.run)
    table.rows.drop(columns=[OVERFLOW, *LATER]).to_csv(path, index=False)
    read = read_evaluation([config.run]).rows
    assert not read[OVERFLOW].any() and read[list(LATER)].isna().all(axis=None)
    assert len(verify.verify(verify.Config(config.run))) == 1
    evaluate.evaluate(config)
    read = read_evaluation([config.run]).cells
    missing = {cell.arm: rows[OWN_ZONES].isna().all() for cell, rows in read.items()}
    assert missing == {"C00": False, "C11": True}


def test_other_values_of_a_later_column_are_refused(config):
    evaluate.evaluate(replace(config, arm=("C11",)))
    path = table_of(config.run)
    table = pd.read_csv(path).astype({OWN_ZONES: object})
    table.loc[0, OWN_ZONES] = "inf"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match="has 'inf' for own_zones, which is not a finite number"):
        read_evaluation([config.run])


def test_metrics_are_printed_on_request(config, capsys):
    config = replace(config, env_steps=("none",), policies=("sleep",))
    evaluate.run(config)
    first = capsys.readouterr().out
    evaluate.run(replace(config, metrics=True))
    printed = capsys.readouterr().out
    assert "clean hosts" not in first and re.search(r"fsm -\d+\.\d ± \S+ \(-\d+\.\d ± \d", first)
    lines = [line.split() for line in printed.splitlines() if line.startswith("sleep ")]
    assert [line[1] for line in lines] == list(REDS) and all(0 < float(line[2]) <= 1 for line in lines)


@pytest.mark.parametrize("change", [{"eval_seed": 1}, {"episodes": 4}, {"num_steps": 13}])
def test_different_settings_are_rejected(config, change):
    evaluate.evaluate(config)
    before = (config.run / EVALUATION_CSV).read_text(), (config.run / EVALUATION_JSON).read_text()
    with pytest.raises(UserError, match="cannot join"):
        evaluate.evaluate(replace(config, **change))
    assert before == ((config.run / EVALUATION_CSV).read_text(), (config.run / EVALUATION_JSON).read_text())
    assert json.loads(before[1])["eval_seed"] == 1000


@pytest.mark.parametrize(
    "change, says",
    [
        ({"run": Path("nowhere")}, "run folder nowhere"),
        ({"run": Path("tests")}, "has no checkpoints"),
        ({"reds": ("fsm", "pink")}, "unknown red 'pink'; known are fsm, "),
        ({"policies": ("dance",)}, "unknown policy 'dance'; .*sleep"),
        ({"env_steps": (10,)}, "arm C11 with seed 7 at 10 env steps, only at 20"),
        ({"env_steps": ("last", 10)}, "--env-steps .*last"),
        ({"env_steps": ("none",)}, "nothing to play"),
        ({"arm": ("C00", "../C11")}, r"arm \.\./C11; .*C00, C11"),
        ({"seeds": (42, 8)}, "with seed 8"),
        ({"arm": ("C00",), "seeds": (7,)}, "of arm C00 with seed 7"),
        ({"games": ()}, "nothing to play"),
        ({"episodes": 0}, "at least 1"),
        ({"episodes": 10**12}, "at most 1000000"),
        ({"eval_seed": -1}, "--eval-seed from 0 to"),
        ({"num_steps": 2}, "num_steps .*at least 3"),
        ({"num_steps": 1001}, "num_steps .*at most 1000.* 1001"),
    ],
)
def test_invalid_settings_are_rejected_and_write_nothing(config, change, says):
    with pytest.raises(UserError, match=says) as caught:
        evaluate.evaluate(replace(config, **change))
    assert "\n" not in str(caught.value)
    assert not (config.run / EVALUATION_CSV).exists() and not Path("nowhere").exists()


def test_a_folder_that_cannot_be_read_is_named(config, monkeypatch):
    """It is not taken for one without checkpoints."""
    scandir = os.scandir

    def denied(folder):
        if Path(folder).name == "checkpoints":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"checkpoints: Permission denied"):
        evaluate.evaluate(config)


def test_a_damaged_checkpoint_is_rejected_by_name(config):
    path = checkpoint.path_of(config.run, "C11", 7, 20)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"20\.eqx is damaged"):
        evaluate.evaluate(config)


def test_the_episodes_and_the_time_left_are_announced(config, capsys):
    """The time left only makes sense if a further policy follows the first."""
    evaluate.evaluate(config)
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 2" in lines[0] and "0 to 2 of evaluation seed 1000" in lines[1] and "fsm, discovery" in lines[1]
    assert [line.split()[0] for line in lines if " left." in line] == ["The"] and " left." in lines[3]
    evaluate.evaluate(replace(config, policies=("sleep",)))
    more = capsys.readouterr().out
    assert "1 of 3" in more and " left." not in more
    evaluate.evaluate(config)
    assert "0 of 2" in capsys.readouterr().out


def test_an_error_is_one_line_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["purecc4", "evaluate", str(tmp_path / "gone")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert str(caught.value).startswith("purecc4 evaluate: ") and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_script_on_the_raw_observation_joins_the_table_and_is_replayed(config):
    """The raw observation changes nothing in the game: `sleep` returns the same with it."""
    config = replace(config, env_steps=("none",), policies=("sleep", "analyst"))
    table = evaluate.evaluate(config)
    acted = table.cells[Cell("analyst", -1, 0, "fsm", "sampled")]
    assert (acted["executed_analyse"] > 0).all() and (acted["submitted_monitor"] == 0).all()
    assert len(verify.verify(verify.Config(config.run))) == 2
    params = stack_params(config.reds, STEPS, None, "raw")
    values = build(STEPS)(policies.scripted("sleep"), params, jnp.uint32(config.eval_seed), jnp.arange(EPISODES))
    asleep = [table.cells[Cell("sleep", -1, 0, red, "sampled")]["return"] for red in REDS]
    np.testing.assert_array_equal(values[:, :, VALUES.index("return")], np.stack(asleep))


@pytest.mark.slow
def test_a_busy_agent_is_told_so():
    """The history knows from the own actions alone what the raw observation says of being busy."""
    policy, params = policies.scripted("analyst"), cc4.make_params("fsm", observation="raw")

    @jax.jit
    def play(episode):
        now, key_steps = start(policy, params, jnp.uint32(0), episode)

        def step(now, _):
            now, *_ = advance(policy, params, now, key_steps)
            return now, (history.is_busy(now.carry), now.obs.raw.result[:, ResultColumn.SUCCESS])

        return jax.lax.scan(step, now, length=40)[1]

    busy, success = play(jnp.int32(0))
    np.testing.assert_array_equal(busy, success == Success.IN_PROGRESS)
    assert busy.any(axis=0).all() and not busy.all(axis=0).any()


@pytest.fixture
def verified(config) -> verify.Config:
    """A folder with a table of both modes and a script. One of the networks is gone."""
    for mode in ("sampled", "greedy"):
        evaluate.evaluate(replace(config, mode=mode, env_steps=("all",), policies=("sleep",)))
    checkpoint.path_of(config.run, "C00", 42, 10).unlink()
    return verify.Config(config.run)


def test_verify_replays_all_existing_policies(verified):
    lines = verify.verify(verified)
    assert [line.split(":")[0] for line in lines] == [
        "sleep",
        *(f"{run} at 20 env steps{mode}" for mode in ("", ", greedy") for run in ("C00 seed 42", "C11 seed 7")),
    ]
    assert all("100% of 6 episodes are equal" in line for line in lines)


def test_verify_rejects_returns_of_another_policy(verified):
    path = verified.run / EVALUATION_CSV
    table = pd.read_csv(path)
    table["return"] += np.where(table["arm"] == "C11", np.resize([0.9, 1, 1.1], len(table)), 0)
    table.to_csv(path, index=False)
    assert len(verify.verify(replace(verified, arm=("C00", "sleep")))) == 3
    with pytest.raises(UserError, match=r"C11 seed 7 at 20 .* -1\.00.* different policy"):
        verify.verify(verified)


def test_verify_rejects_another_policy_with_the_same_mean_return():
    """Two seeds of an arm score alike, but choose other actions; `differences` between them have no mean return."""
    random = np.random.default_rng(0)
    apart = np.round(random.normal(0, 20, (50, len(VALUES))))
    verify.refuse_different("C00", apart)
    apart[:, VALUES.index("submitted_restore")] += 30
    with pytest.raises(UserError, match=r"submitted_restore \+\d.*different policy"):
        verify.refuse_different("C00", apart)


def test_verify_accepts_few_episodes_that_differ_by_one_action():
    """As on another machine: both episodes have one more Restore."""
    apart = np.zeros((2, len(VALUES)))
    apart[:, VALUES.index("submitted_restore")] = 1
    verify.refuse_different("C00", apart)


@pytest.mark.parametrize("change, says", [({"arm": ("C12",)}, "no episodes"), ({"episodes": 1}, "at least 2")])
def test_verify_rejects_what_it_cannot_check(verified, change, says):
    with pytest.raises(UserError, match=says):
        verify.verify(replace(verified, **change))


@pytest.fixture
def biased(config) -> nudge.Config:
    """Both extremes and the middle: never Restore, the network itself, only Restore."""
    shared = {name: getattr(config, name) for name in ("run", "reds", "episodes", "num_steps")}
    return nudge.Config(**shared, by=(-1e9, 0.0, 1e9), arm=("C00",))


@pytest.mark.slow
def test_a_logit_bias_of_0_changes_nothing_and_a_strong_one_leaves_only_or_no_restores(config, biased):
    played = evaluate.evaluate(replace(config, arm=("C00",))).rows.groupby("red")[list(VALUES)].mean()
    table = nudge.nudge(biased).set_index(["by", "red"])
    for red in biased.reds:
        np.testing.assert_allclose(table.loc[(0, red), list(VALUES)].astype(float), played.loc[red], rtol=1e-6)
        assert (
            table.loc[(1e9, red), "submitted_restore"]
            == table.loc[(1e9, red), "cost"] * -1
            == NUM_BLUE * biased.num_steps
        )
        assert table.loc[(-1e9, red), "submitted_restore"] == 0
    assert played["submitted_restore"].min() > 0


def test_nudge_announces_overflows(biased, monkeypatch, capsys):
    values = np.zeros((len(biased.reds), biased.episodes, len(VALUES)))
    values[0, 1, VALUES.index(OVERFLOW)] = 3
    monkeypatch.setattr(nudge, "build", lambda num_steps: lambda *args: values)
    nudge.nudge(replace(biased, by=(0.0,)))
    assert "1 episode overflowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, says",
    [
        ({"by": (float("nan"),)}, "float32 numbers after --by"),
        ({"by": (0.0, 1e39)}, "float32 numbers after --by"),
        ({"by": ()}, "nothing to play"),
        ({"reds": ("pink",)}, "unknown red 'pink'"),
        ({"episodes": 1}, "at least 2"),
        ({"arm": ("C12",)}, "of arm C12"),
    ],
)
def test_invalid_nudge_settings_are_rejected_and_write_nothing(biased, change, says):
    with pytest.raises(UserError, match=says):
        nudge.run(replace(biased, **change))
    assert not (biased.run / nudge.NUDGE_CSV).exists()
