"""CybORG with the numbers of another game. Needs a checkout of CybORG and minutes of time."""

import json

import pytest
from test_fast import EQUAL_SEEDS, SUBMISSION, needs_cyborg, run

from purecc4.cyborg import transfer
from purecc4.cyborg.game_file import numbers, to_json
from purecc4.envs.cc4.constants import BLUE_DURATION, RED_DURATION, BlueAction, Knowledge, RedAction
from purecc4.envs.cc4.games import BASE, GAMES, GameSpec
from purecc4.envs.cc4.params import RED_ARGUMENTS, red_policy

pytestmark = [pytest.mark.slow, needs_cyborg]
LIVE_GAME = EQUAL_SEEDS.with_name("live_game.py")
OTHER = GameSpec(
    phishing=0.5,
    work_alarm=0.25,
    visit_alarm=0.125,
    work=0.5,
    visit=0.25,
    aggressive_detection=0.5,
    stealth_detection=0.125,
    exploit_detection=0.25,
    servers=(2, 3),
    users=(4, 5),
    red_durations={RedAction.DISCOVER_REMOTE_SYSTEMS: 3, RedAction.EXPLOIT_REMOTE_SERVICE: 2, RedAction.SLEEP: 4},
    blue_durations={BlueAction.RESTORE: 1, BlueAction.BLOCK_TRAFFIC_ZONE: 2, BlueAction.SLEEP: 3},
    restore_cost=2.5,
)
"""A game in which every number is another one."""
SLEEPY = red_policy(RED_ARGUMENTS["fsm"]["actions"] | {Knowledge.K: (0.25, 0.25, 0.25)})
NUM_STEPS = 200


def red(name):
    """A published red as data."""
    return red_policy(**RED_ARGUMENTS[name])


@pytest.fixture
def game_file(tmp_path):
    """Writes the file of a game and its red. Returns its path."""

    def write(text):
        path = tmp_path / "game.json"
        path.write_text(text)
        return path

    return write


def lines(*runs):
    """Wait for scripts that run, and return the lines that each printed."""
    outputs = [each.communicate() for each in runs]
    assert [each.returncode for each in runs] == [0] * len(runs), "".join(errors for _, errors in outputs)
    return [output.splitlines() for output, _ in outputs]


@pytest.mark.parametrize("name", [*GAMES, "other"])
def test_fast_plays_the_same(name, game_file):
    """In every game equal seeds give equal steps with CybORG's slow functions replaced."""
    game = GAMES.get(name, OTHER)
    path = game_file(to_json(game, SLEEPY if name == "other" else red(game.red)))
    program = transfer.GAME, path, EQUAL_SEEDS, NUM_STEPS
    reference, fast = lines(run(*program), run(transfer.FAST, *program))
    assert len(reference) == 5 * (NUM_STEPS + 1) and fast == reference


def test_the_challenges_own_numbers_change_nothing(game_file):
    """All but the shares of green, whose draw is another one."""
    given = {name: x for name, x in numbers(BASE, red("fsm")).items() if name != "green"}
    program = transfer.GAME, game_file(json.dumps(given)), EQUAL_SEEDS, NUM_STEPS
    untouched, same = lines(run(EQUAL_SEEDS, NUM_STEPS), run(*program))
    assert len(untouched) == 5 * (NUM_STEPS + 1) and same == untouched


@pytest.mark.parametrize(("name", "agent"), [("discovery", "DiscoveryFSRed"), ("sleep", "SleepAgent")])
def test_a_red_of_cyborg_as_data(name, agent, game_file):
    """It plays the same steps as CybORG's own class."""
    program = transfer.GAME, game_file(to_json(BASE, red(name))), EQUAL_SEEDS, NUM_STEPS, "FiniteStateRedAgent"
    own, data = lines(run(EQUAL_SEEDS, NUM_STEPS, agent), run(*program))
    assert len(own) == 5 * (NUM_STEPS + 1) and data == own


def test_every_number_is_that_of_the_game(game_file):
    """As one episode shows. The number of blue's actions does not change."""
    ((line,),) = lines(run(transfer.FAST, transfer.GAME, game_file(to_json(OTHER, SLEEPY)), LIVE_GAME, 400))
    found = json.loads(line)
    assert found.pop("actions") == [242] and found.pop("cost of Restore") == [-2.5]
    assert set(found.pop("servers")) == {2, 3} and set(found.pop("users")) == {4, 5}
    assert found.pop("GreenLocalWork phishing_error_rate") == [0.5]
    assert found.pop("GreenLocalWork fp_detection_rate") == [0.25]
    assert found.pop("GreenAccessService fp_detection_rate") == [0.125]
    assert found.pop("AggressiveServiceDiscovery detection_rate") == [0.5]
    assert found.pop("StealthServiceDiscovery detection_rate") == [0.125]
    assert found.pop("ExploitRemoteService detection_rate") == [0.25]
    assert found.pop("DiscoverDeception detection_rate") == [0.5]  # CybORG's own
    assert [found.pop(f"green {kind}") for kind in ("GreenLocalWork", "GreenAccessService", "Sleep")] == [[1]] * 3
    for team, kinds, steps in (("red", RedAction, RED_DURATION), ("blue", BlueAction, BLUE_DURATION)):
        changes = getattr(OTHER, f"{team}_durations")
        for kind, usual in zip(kinds, steps.tolist(), strict=True):
            name = f"{team} {kind.name.title().replace('_', '')}"
            assert found.pop(name, None) in (None, [changes.get(kind, usual)]), name
    assert not found


def test_the_challenge_evaluates_in_a_game(tmp_path, game_file):
    """The scores of an exported policy differ from those of another game."""
    (tmp_path / "submission.py").write_text(SUBMISSION)
    arguments = ["-m", "CybORG.Evaluation.evaluation", "--max-eps", 2, "--seed", 1, tmp_path]
    in_game = transfer.GAME, game_file(to_json(GAMES["phishing"], red("fsm")))
    programs = (*arguments, tmp_path / "usual"), (*in_game, *arguments, tmp_path / "other")
    outputs = lines(*(run(transfer.FAST, *program) for program in programs))
    usual, other = (next(line for line in output if "Average reward" in line) for output in outputs)
    assert usual != other
