"""The leaderboard: its rows, their seeds and the printed table."""

import sys
from pathlib import Path

import numpy as np
import pytest

from purecc4.cyborg import leaderboard, transfer
from purecc4.errors import UserError
from purecc4.play.tables import OWN_ZONES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Settings of a leaderboard whose episodes are made up: a policy's return is -10 times the place of its row."""
    (tmp_path / "CybORG").mkdir()
    (tmp_path / "CybORG" / "version.txt").write_text("4.0\n")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(transfer, "check_python", lambda settings: None)
    played = []

    def play(settings):
        played.append(settings)
        values = -10.0 * len(played) + np.array([-1.0, 1.0])
        table = {"return": values, OWN_ZONES: values / 2}
        return table, table

    monkeypatch.setattr(transfer, "play", play)
    return leaderboard.Config(cyborg=tmp_path, cyborg_python=sys.executable, to=tmp_path / "board"), played


def test_all_rows_play_the_same_seeds_into_files_of_their_own(config, capsys):
    config, played = config
    leaderboard.run(config)
    assert {(each.eval_seed, each.episodes, each.fast) for each in played} == {(20001, 100, False)}
    assert len({each.to for each in played}) == len(leaderboard.ENTRIES) == len(played)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == list(leaderboard.ENTRIES)[::-1]  # the worst first
    assert rows[-1] == ["sleep", "nothing", "-10.0 ± 1.0", "-5.0 ± 0.5", "-5.0 ± 0.5", "-10.0 ± 1.0", "2"]


@pytest.mark.parametrize(
    ("policies", "message"),
    [(("pgpe", "nobody"), "'nobody' is not on the leaderboard: .*sleep"), ((), "at least one name")],
)
def test_unknown_policies_are_refused(config, policies, message):
    with pytest.raises(UserError, match=message):
        leaderboard.run(leaderboard.Config(cyborg=config[0].cyborg, policies=policies))
