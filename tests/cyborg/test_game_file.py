"""A game and its red as JSON for CybORG: only what differs, by CybORG's names, or a refusal."""

import json

import pytest

from purecc4.arms.define import Definitions
from purecc4.cyborg import export
from purecc4.cyborg.game_file import to_json, written
from purecc4.envs.cc4.constants import BlueAction, Knowledge, RedAction, Role
from purecc4.envs.cc4.games import BASE, GameSpec
from purecc4.envs.cc4.params import RED_ARGUMENTS, red_policy
from purecc4.errors import UserError


def against_fsm(game=BASE, **changes):
    """The JSON of a game against `fsm` with other arguments."""
    return json.loads(to_json(game, red_policy(**RED_ARGUMENTS["fsm"] | changes)))


def test_only_what_differs_is_written():
    matches = "fsm", "fsm@phishing", "stealthy@stealthy_fp", "fsm@stealthy_fp"
    base, phishing, stealthy, alarms = (json.loads(written(Definitions(), match)) for match in matches)
    assert base == {} and phishing == {"phishing": 0.75}
    assert stealthy.keys() == {"work_alarm", "visit_alarm", "red"}
    assert alarms == {"work_alarm": 0.75, "visit_alarm": 0.75}


def test_every_number_is_written():
    game = GameSpec(
        work=0.5,
        visit=0.25,
        exploit_detection=0.0,
        servers=(2, 3),
        red_durations={RedAction.EXPLOIT_REMOTE_SERVICE: 1},
        blue_durations={BlueAction.ALLOW_TRAFFIC_ZONE: 2},
        restore_cost=2.5,
    )
    found = against_fsm(game)
    durations = found.pop("durations")
    assert found == {
        "green": {"GreenLocalWork": 0.5, "GreenAccessService": 0.25, "Sleep": 0.25},
        "exploit_detection": 0,
        "servers": [2, 3],
        "restore_cost": 2.5,
    }
    assert durations["red"]["ExploitRemoteService"] == 1 and durations["red"]["PrivilegeEscalate"] == 2
    assert durations["blue"]["AllowTrafficZone"] == 2 and durations["blue"]["Restore"] == 5


def test_a_red_by_its_table():
    red = against_fsm(actions={Knowledge.K: (1 / 3, 1 / 3)}, state_weights={Knowledge.K: 2}, server_chance=0.75)["red"]
    row = red["actions"]["K"]
    assert row.keys() == {"DiscoverRemoteSystems", "AggressiveServiceDiscovery", "Sleep"}
    assert row["Sleep"] == pytest.approx(1 / 3) and abs(sum(row.values()) - 1) < 1e-12
    assert red["actions"]["R"] == {"Sleep": 1} and red["prefers_servers"]
    assert red["state_weights"] == dict.fromkeys(red["actions"], 0) | {"K": 2}
    assert against_fsm(actions={})["red"] == {"actions": {}, "state_weights": None, "prefers_servers": False}


@pytest.mark.parametrize(
    ("red", "message"),
    [
        ({"hunted": (Role.DB,), "role_weight": 2}, "no roles"),
        ({"server_chance": 0.5}, r"server_chance must be 0 or 0\.75, not 0\.5"),
        ({"actions": {Knowledge.SD: (0, 0, 0, 0, 0, 0.5)}}, "privilege_escalate in state SD"),
    ],
)
def test_reds_that_cyborg_cannot_play_are_refused(red, message):
    with pytest.raises(UserError, match=f"CybORG cannot play this red.*{message}"):
        against_fsm(**red)


def test_games_are_exported(tmp_path, capsys):
    """Beside the policy, with the command that evaluates it in each."""
    export.run(export.Config(policy="analyst", to=tmp_path / "to", games=("base", "phishing")))
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "to" / "games").iterdir()}
    assert files == {"base": {}, "phishing": {"phishing": 0.75}}
    assert f"{export.GAME} {tmp_path / 'to' / 'games' / 'phishing.json'} -m CybORG.Eval" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown game 'chess'"):
        export.run(export.Config(policy="analyst", to=tmp_path / "other", games=("chess",)))
    assert not (tmp_path / "other").exists()
