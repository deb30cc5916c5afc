"""The page of one episode: same episode as in the evaluation, complete, and self-contained."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import dropping

from purecc4.envs import cc4
from purecc4.envs.cc4 import raw
from purecc4.envs.cc4.constants import HOST_SUBNET, IS_MONITORED, NUM_BLUE, NUM_HOSTS, NUM_SUBNETS, SLOTS
from purecc4.envs.cc4.layout import pack
from purecc4.envs.cc4.observations import observe
from purecc4.errors import UserError
from purecc4.play import watch
from purecc4.play.episodes import build, stack_params
from purecc4.play.policies import scripted
from purecc4.play.tables import VALUES

STEPS = 12
CONFIG = watch.Config(policy="random", red="discovery", eval_seed=1000, episode=2, num_steps=STEPS)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    to = tmp_path_factory.mktemp("watch") / "page.html"
    return watch.watch(replace(CONFIG, to=to)).read_text(encoding="utf-8")


@pytest.fixture
def episode(page) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="episode">(.*)</script>', page)[1])


@pytest.mark.slow
def test_the_episode_is_that_of_the_evaluation(episode):
    """A single episode equals the same one in a batch."""
    params = stack_params(("fsm", "discovery"), STEPS)
    values = build(STEPS)(scripted("random"), params, jnp.uint32(1000), jnp.arange(3))
    row = dict(zip(VALUES, values[1, 2].tolist(), strict=True))
    steps = episode["steps"]
    assert dict(zip(episode["parts"], np.sum(steps["rewards"], axis=0), strict=True)) == {
        part: row[part] for part in episode["parts"]
    }
    assert steps["access_level"][-1].count("4") == row["root_hosts"]


@pytest.mark.slow
def test_the_page_is_complete(episode):
    hosts = len(episode["hosts"])
    for name, values in episode["steps"].items():
        assert len(values) == STEPS
        if name in watch.HOST_FIELDS:
            assert all(re.fullmatch(f"[0-5]{{{hosts}}}", row) for row in values)
    assert episode["steps"]["access_level"][0].count("3") + episode["steps"]["access_level"][0].count("4") >= 1
    assert len(episode["blue_labels"]) == NUM_BLUE and len(episode["steps"]["blocked"][0]) == NUM_SUBNETS**2
    assert episode["policy"] == "random" and episode["red"] == "discovery"
    assert all(len(agents) == NUM_BLUE for agents in episode["steps"]["told"])


def test_attacks_have_a_kind_both_ends_and_who_noticed_them():
    steps = jax.tree.map(lambda x: np.stack([x, x]), raw.silent())
    scan, brute_force = (raw.AttackKind.SCAN, 40, 20, 1, 0, 0, 0), (raw.AttackKind.BRUTE_FORCE, 70, 70, 0, 0, 1, 0)
    steps.attacks[1, 1, 1], steps.attacks[1, 3, 4] = scan, brute_force
    assert watch.attacks_of(steps) == [[], [[1, 40, 20, 1], [2, 70, 70, 3]]]
    first, second = watch.told_of(steps)
    assert first == [[]] * NUM_BLUE and [len(sentences) for sentences in second] == [0, 1, 0, 1, 0]


@pytest.mark.slow
def test_the_page_loads_nothing(page):
    assert "__EPISODE__" not in page and page.count("</script>") == 2
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(src|href)\s*=|@import|url\((?!#)", page)


def test_alerts_of_the_observations():
    random = np.random.default_rng(0).random((2, NUM_HOSTS)) < 0.4
    process, connection = random & IS_MONITORED
    sets = (pack(jnp.asarray(flags.reshape(-1, SLOTS))) for flags in random)
    blocked, silent = jnp.zeros((NUM_SUBNETS, NUM_SUBNETS), bool), jnp.zeros((NUM_BLUE, 8), jnp.uint8)
    vector = observe(jnp.int32(1), blocked, *sets, silent)
    assert (watch.alerts(vector, watch.PROCESS) == process).all()
    assert (watch.alerts(vector, watch.CONNECTION) == connection).all()


def test_names_are_short():
    assert watch.short(cc4.label(1, 0)) == "Analyse OZA server 0"
    assert "subnet" not in "".join(watch.short(cc4.label(4, i)) for i in range(242))
    assert len({watch.short(watch.host_name(host)) for host in range(NUM_HOSTS)}) == len(HOST_SUBNET)


@pytest.mark.slow
def test_an_overflow_is_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cc4, "step", dropping(cc4.step))
    watch.watch(replace(CONFIG, to=tmp_path / "page.html", num_steps=STEPS + 1))
    assert capsys.readouterr().err.startswith("1 episode overflowed")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"policy": None}, "--arm and --seed"),
        ({"policy": None, "run": Path("nowhere"), "arm": "C11"}, "--arm and --seed"),
        ({"policy": None, "run": Path("nowhere"), "arm": "C11", "seed": 42}, "run folder nowhere"),
        ({"run": Path("nowhere")}, "not both"),
        ({"env_steps": 0}, "not both"),
        ({"mode": "greedy"}, "not both"),
        ({"policy": "dance"}, "unknown policy 'dance'"),
        ({"red": "pink"}, "unknown red 'pink'"),
        ({"game": "fishing"}, "unknown game 'fishing'; known are base"),
        ({"red": "fsm@phishing", "game": "stealthy"}, "names its game already"),
        ({"episode": -1}, "--episode must be from 0"),
        ({"episode": 2**31}, "--episode must be from 0"),
        ({"num_steps": 1}, "num_steps .*at least 3"),
        ({"num_steps": 1001}, "num_steps .*at most 1000"),
    ],
)
def test_invalid_settings_are_rejected_and_write_nothing(tmp_path, change, says):
    with pytest.raises(UserError, match=says) as caught:
        watch.watch(replace(CONFIG, to=tmp_path / "page.html", **change))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
