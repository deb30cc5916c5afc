"""A policy in two simulators: rejected settings, worker processes, the cache and the printed comparison."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from purecc4.__main__ import main
from purecc4.cyborg import transfer
from purecc4.cyborg.cache import COLUMNS, EpisodeCache
from purecc4.errors import UserError
from purecc4.play.metrics import METRICS
from purecc4.play.policies import scripted
from purecc4.play.tables import BASELINE_SEED, EXECUTED, OVERFLOW, OWN_ZONES, SUBMITTED, VALUES, Cell, read_numbers
from purecc4.train.run_reader import REWARD_TERMS

CONFIG = transfer.Config(
    policy="sleep", cyborg_python=sys.executable, episodes=4, episodes_here=4, num_steps=30, workers=2
)
CELL = Cell("sleep", BASELINE_SEED, 0, "fsm", "sampled")
needs_cyborg = pytest.mark.skipif(
    "CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON"
)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the version file of CybORG 4.0."""
    (tmp_path / "CybORG").mkdir()
    (tmp_path / "CybORG" / "version.txt").write_text("4.0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "either a run folder"),
        ({"run": Path("runs/first")}, "either a run folder"),
        ({"run": Path("runs/first"), "policy": None, "arm": "C11"}, "--arm and --seed"),
        ({"episodes": 1}, "at least 2"),
        ({"eval_seed": -1}, "--eval-seed must be"),
        ({"num_steps": 2}, "num_steps must be"),
        ({"margin": float("nan")}, "--margin must be a float32 number above 0"),
        ({"run": Path("none_here"), "policy": None, "arm": "C11", "seed": 1}, "run folder none_here"),
        ({"cyborg_python": "no-such-python"}, "interpreter no-such-python"),
        ({"cyborg_python": "/bin/true"}, "/bin/true .*--cyborg-python"),
        ({"cyborg_python": "/bin/false"}, "without a message.*--cyborg-python"),
        ({"cyborg_python": "/bin/echo"}, "printed '.*game.py .*--cyborg-python"),
        ({"game": "chess"}, "unknown game 'chess'; known are base, "),
        ({"red": "nobody"}, "unknown red 'nobody'; known are fsm, "),
        ({"red": "cia_c"}, "CybORG cannot play this red"),
    ],
)
def test_invalid_settings_are_rejected(checkout, changes, message):
    with pytest.raises(UserError, match=message):
        transfer.check(replace(CONFIG, cyborg=checkout, **changes))


def test_a_wrong_cyborg_is_rejected(checkout):
    with pytest.raises(UserError, match="no CybORG checkout"):
        transfer.check(replace(CONFIG, cyborg=checkout / "CybORG"))
    (checkout / "CybORG" / "version.txt").write_text("3.1\n")
    with pytest.raises(UserError, match=r"CybORG 3\.1.* 4\.0"):
        transfer.check(replace(CONFIG, cyborg=checkout))


def test_interpreter_without_cyborg_gets_the_install_command(checkout):
    with pytest.raises(UserError, match=r"No module named 'CybORG\.Agents'.*pip install \"numpy<2\""):
        transfer.check(replace(CONFIG, cyborg=checkout))


WORKER = """
import json, sys
game, _, policy, num_steps, *seeds = sys.argv[1:]
worth = json.load(open(game)).get("restore_cost", 1)
if not seeds:
    print('{"ready": true}')
for seed in map(int, seeds):
    played = {"crash": "KeyError"} if seed == 1001 else {"return": -seed * worth, "submitted_sleep": 145}
    sys.stdout.write(json.dumps({"episode": seed, **played}) + "\\n")
    sys.stdout.flush()
if policy == "broken":
    sys.exit("the last word")
"""


@pytest.fixture
def workers(checkout, monkeypatch):
    """Workers with made-up episodes."""
    (checkout / "worker.py").write_text(WORKER)
    monkeypatch.setattr(transfer, "GAME", checkout / "worker.py")
    monkeypatch.setattr(transfer, "simulate", lambda config, policy: table(0, 0))
    return replace(CONFIG, cyborg=checkout)


@pytest.fixture
def cache(tmp_path):
    """Opens the cache of episodes of `sleep`."""
    return lambda red="fsm": EpisodeCache(tmp_path / "cyborg.csv", CELL._replace(red=red), CONFIG.num_steps)


def test_episodes_of_all_workers_are_collected(workers, cache):
    config = replace(workers, workers=9)  # more than episodes, so some workers have no seed
    theirs, ours = transfer.play_both(config, scripted("sleep"), "sleep", cache())
    assert set(ours) == set(VALUES) and set(theirs) == set(VALUES) - {OVERFLOW, *METRICS}
    assert sorted(theirs["return"]) == [-1003, -1002, -1000]
    assert not theirs["lwf"].any() and (theirs["submitted_sleep"] == 145).all()


def test_a_failed_worker_is_quoted_and_its_episodes_are_cached(workers, cache):
    with pytest.raises(UserError, match="CybORG failed: the last word"):
        transfer.play_both(workers, scripted("sleep"), "broken", cache())
    assert set(cache().own["episode"]) == {1000, 1002, 1003}


def test_only_missing_episodes_are_played(workers, cache):
    for red, seed, returns in (("fsm", 1000, 7), ("fsm", 999, 8), ("discovery", 1002, 9)):
        cache(red).add({"episode": seed, "return": returns})
    theirs, _ = transfer.play_both(workers, scripted("sleep"), "sleep", cache())
    assert sorted(theirs["return"]) == [-1003, -1002, 7]
    assert len(cache().own) == 4 and list(cache("discovery").own["return"]) == [9]


@pytest.fixture
def defined(tmp_path):
    """Writes a file with a game and a red of one's own."""

    def write(cost):
        path = tmp_path / "own.toml"
        path.write_text(f"[games.dear]\nrestore_cost = {cost}\nred = 'loud'\n\n[reds.loud]\nlike = 'aggressive'\n")
        return path

    return write


def test_games_and_reds_are_cached_apart(workers, defined, tmp_path):
    """An own game that has been changed since, too."""
    to = tmp_path / "cyborg.csv"
    for game, red, cost, returns in (
        ("base", None, 2, -2002),
        ("stealthy", None, 2, -2002),
        ("base", "stealthy", 2, -2002),
        ("dear", None, 2, -4004),
        ("dear", None, 3, -6006),
        ("dear", "fsm", 3, -6006),
        ("base", "loud", 3, -2002),
    ):
        config = replace(workers, game=game, red=red, to=to, episodes=3, define=defined(cost))
        transfer.match.cache_clear()  # another process
        theirs, _ = transfer.play(config)
        assert theirs["return"].sum() == returns
    rows = read_numbers(to, COLUMNS)
    assert len(rows.groupby(list(Cell._fields))) == 7 and len(rows) == 14


def test_a_file_that_is_no_cache_is_rejected_unchanged(tmp_path, cache):
    path = tmp_path / "cyborg.csv"
    letters = ",".join(COLUMNS) + "\n" + ",".join("a" for _ in COLUMNS) + "\n"
    for content, why in (("", "is damaged"), ("arm,seed\nC00,1\n", "lacks"), (letters, "line 2 has 'a' for seed")):
        path.write_text(content)
        with pytest.raises(UserError, match=f"{why}.* --to needs"):
            cache()
        assert path.read_text() == content


def test_episodes_of_an_older_cache_lack_the_own_zones(workers, cache, tmp_path):
    """So the comparison leaves them out."""
    theirs, ours = transfer.play_both(workers, scripted("sleep"), "sleep", cache())
    assert "\nown_zones " in transfer.report("t", workers, theirs, ours)
    pd.read_csv(tmp_path / "cyborg.csv").drop(columns=OWN_ZONES).to_csv(tmp_path / "cyborg.csv", index=False)
    theirs, ours = transfer.play_both(replace(workers, episodes=5), scripted("sleep"), "sleep", cache())
    assert "own_zones" not in transfer.report("t", workers, theirs, ours)


def test_the_command_line_caches_episodes(workers, tmp_path, capsys, monkeypatch):
    """With all episodes cached no progress bar is shown."""
    path = tmp_path / "cyborg.csv"
    arguments = ["--policy", "sleep", "--cyborg", str(workers.cyborg), "--cyborg-python", sys.executable]
    arguments += ["--num-steps", "30", "--workers", "2", "--to", str(path)]
    for episodes, played in ((4, 3), (6, 5)):  # 1001 crashes each time
        monkeypatch.setattr(sys, "argv", ["purecc4", "transfer", *arguments, "--episodes", str(episodes)])
        main()
        printed = capsys.readouterr()
        assert f"sleep against fsm: {played} episodes in CybORG" in printed.out and "CybORG:" in printed.err
    rows = read_numbers(path, COLUMNS)
    assert list(rows["return"]) == [-seed for seed in rows["episode"]]
    assert sorted(rows["episode"]) == [1000, 1002, 1003, 1004, 1005]

    monkeypatch.setattr(sys, "argv", ["purecc4", "transfer", *arguments, "--eval-seed", "1002", "--episodes", "2"])
    main()
    printed = capsys.readouterr()
    assert "2 episodes in CybORG" in printed.out and "CybORG:" not in printed.err


def table(shift, seed):
    """Episodes with a mean return of -1000 + shift."""
    random = np.random.default_rng(seed)
    values = dict.fromkeys(VALUES, np.zeros(50)) | {part: random.normal(-250, 10, 50) for part in REWARD_TERMS}
    values |= dict.fromkeys((*SUBMITTED, *EXECUTED), np.full(50, 10.0))
    values["asf"] = values["asf"] + shift
    return values | {"return": sum(values[part] for part in REWARD_TERMS)}


def test_the_comparison_separates_equal_from_different():
    equal = transfer.report("t", CONFIG, table(0, 0), table(0, 1)).splitlines()
    apart = transfer.report("t", CONFIG, table(0, 0), table(300, 1)).splitlines()
    assert equal[0] == "t: 50 episodes in CybORG, 50 here, 29 steps each."
    (row,) = (line.split() for line in equal if line.startswith("return"))
    assert float(row[-1]) < 0.01 and float(row[-2]) < 30
    (row,) = (line.split() for line in apart if line.startswith("return"))
    assert float(row[-1]) > 0.99 and float(row[-3]) < 0.01 and 280 < float(row[3]) < 320
    (row,) = (line.split() for line in apart if line.startswith("analyse"))
    assert row[1:] == ["12.50", "12.50", "+0.00", "10.0", "10.0", "+0.0"]


@pytest.mark.slow
def test_simulated_episodes_add_up():
    values = transfer.simulate(replace(CONFIG, policy="random"), scripted("random"))
    np.testing.assert_allclose(values["return"], sum(values[part] for part in REWARD_TERMS))
    assert (sum(values[name] for name in SUBMITTED) == 5 * 29).all()


@needs_cyborg
@pytest.mark.parametrize("flags", [[], ["--fast"], ["--policy", "analyst", "--game", "stealthy", "--fast"]])
def test_cyborg_plays(flags, capfd, monkeypatch):
    """A few short episodes in both simulators, from the command line."""
    python = os.environ.get("CYBORG_PYTHON", "python3")
    arguments = [
        *(["--policy", "random"] * ("--policy" not in flags)),
        "--cyborg",
        os.environ["CYBORG_PATH"],
        "--cyborg-python",
        python,
    ]
    arguments += ["--episodes", "3", "--episodes-here", "4", "--num-steps", "20", "--workers", "2"]
    monkeypatch.setattr(sys, "argv", ["purecc4", "transfer", *arguments, *flags])
    main()
    lines = capfd.readouterr().out.splitlines()
    match = "analyst against stealthy@stealthy" if "analyst" in flags else "random against fsm"
    assert lines[0] == f"{match}: 3 episodes in CybORG, 4 here, 19 steps each."
    means = {line.split()[0]: float(line.split()[1]) for line in lines[3:9]}
    assert abs(means["return"] - sum(means[part] for part in REWARD_TERMS)) < 0.3
    assert means["return"] <= means["own_zones"] <= means["cost"]
    shares = [float(line.split()[1]) for line in lines[-8:]]
    assert abs(sum(shares) - 100) < 0.1


def test_repeated_episodes_in_the_cache_are_refused(cache, tmp_path):
    cache().add({"episode": 1000, "return": -1.0})
    cache().add({"episode": 1001, "return": -2.0})
    path = tmp_path / "cyborg.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(UserError, match=r"cyborg\.csv line 4 repeats episode 1000"):
        cache()


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60; true"])
def test_an_interpreter_that_hangs_is_given_up(script, checkout, monkeypatch):
    """Itself, or the process that it waits for."""
    hanging = checkout / "python"
    hanging.write_text(f"#!/bin/sh\n{script}\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(transfer, "START_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"did not start in 0\.2 seconds.*--cyborg-python"):
        transfer.check(replace(CONFIG, cyborg=checkout, cyborg_python=str(hanging)))
