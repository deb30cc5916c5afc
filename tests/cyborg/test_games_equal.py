"""Episodes of the built-in games recorded in CybORG, against episodes here: are the games the same in distribution?"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from purecc4.arms.define import Definitions
from purecc4.envs.cc4.games import GAMES
from purecc4.parity.distribution import LEVEL
from purecc4.parity.holm import holm
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import scripted
from purecc4.play.tables import VALUES
from purecc4.report.statistics import welch

pytestmark = pytest.mark.slow
RECORDED = Path(__file__).parents[2] / "results" / "games" / "cyborg.csv.gz"
POLICIES = ("sleep", "random", "analyst")
QUANTITIES = ["return", "own_zones", "lwf", "asf", "ria", "cost", "red_sessions", "root_hosts"]


@pytest.fixture(scope="module")
def recorded():
    return pd.read_csv(RECORDED).set_index(["game", "policy"])


@pytest.fixture(scope="module")
def ours():
    """[game, policy] tables of 300 episodes, 499 steps each as in CybORG."""
    tables = {}
    for name in POLICIES:
        policy = scripted(name)
        params = stack_params([Definitions().match(None, game) for game in GAMES], 500, observation=policy.observation)
        values = build(499)(policy, params, np.uint32(1000), np.arange(300))
        for game, episodes in zip(GAMES, np.asarray(values, float), strict=True):
            tables[game, name] = pd.DataFrame(episodes, columns=VALUES)
    return tables


def p_values(ours, theirs):
    """P-values of Welch tests, one for each quantity that varies."""
    varied = [name for name in QUANTITIES if ours[name].std() > 0 or theirs[name].std() > 0]
    return [welch(ours[name].to_numpy(), theirs[name].to_numpy()).p for name in varied]


def test_every_game_has_sixty_episodes_of_every_policy(recorded):
    assert recorded.groupby(level=["game", "policy"]).size().to_dict() == {
        (game, policy): 60 for game in GAMES for policy in POLICIES
    }


def test_games_are_those_of_the_reference(ours, recorded):
    found = [p for cell, table in ours.items() for p in p_values(table, recorded.loc[cell])]
    assert len(found) > 120 and (holm(found) > LEVEL).all()


@pytest.mark.parametrize(("game", "other"), [("phishing", "base"), ("base", "constant_size"), ("base", "aggressive")])
def test_another_game_would_be_noticed(ours, recorded, game, other):
    for policy in ("sleep", "analyst"):
        assert (holm(p_values(ours[game, policy], recorded.loc[other, policy])) < 0.001).any()
