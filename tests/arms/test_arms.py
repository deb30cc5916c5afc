"""Sampling frequencies of each arm against the tables of the study."""

import subprocess
import sys
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from worlds import assert_frequencies

from purecc4 import arms
from purecc4.arms import show
from purecc4.envs.cc4 import scenario as scenarios
from purecc4.envs.cc4.constants import ALLOWED, RED_DURATION, REWARDS, SLOTS, Knowledge, Subnet
from purecc4.envs.cc4.games import GameSpec
from purecc4.envs.cc4.params import make_params
from purecc4.errors import UserError

NUM_DRAWS = 2048
MISSIONS = [(1, 1, 1), (3, 3, 1), (1, 3, 3), (3, 1, 3)]
STARTS = [(0, 167, 333), (0, 100, 300), (0, 200, 400), (0, 150, 250)]
ONE, CANONICAL_STARTS = [(1, 1, 1)], [(0, 167, 334)]
FRESH = None
EXPECTED = {  # networks, missions, phase starts, reward tables, cost of Restore
    "C00": (FRESH, ONE, CANONICAL_STARTS, 1, 1),
    "C11": (16, MISSIONS, STARTS, 6, 1),
    "C11prime": (16, [(1, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5)], STARTS, 6, 1),
    "miss": (FRESH, MISSIONS, CANONICAL_STARTS, 1, 1),
    "topo": (16, ONE, CANONICAL_STARTS, 1, 1),
    "pbound": (FRESH, ONE, STARTS, 1, 1),
    "cjewel": (FRESH, ONE, CANONICAL_STARTS, 6, 1),
    "C11_notopo": (FRESH, MISSIONS, STARTS, 6, 1),
    "fixed222": (FRESH, [(2, 2, 2)], CANONICAL_STARTS, 1, 1),
    "restore_half": (FRESH, ONE, CANONICAL_STARTS, 1, 0.5),
    "miss_mean1": (FRESH, [(0.5, 0.5, 0.5), (1.5, 1.5, 0.5), (0.5, 1.5, 1.5), (1.5, 0.5, 1.5)], CANONICAL_STARTS, 1, 1),
    "topo_plain16": (16, ONE, CANONICAL_STARTS, 1, 1),
    "topo_plain256": (256, ONE, CANONICAL_STARTS, 1, 1),
}
TABLES = np.stack([arms.reward_table(change) for change in arms.REWARD_TABLES])
NAMES = tuple(EXPECTED)


@eqx.filter_jit
def draw(built, keys, params):
    """[arm, key] scenarios, the same keys for every arm."""
    return jax.vmap(lambda arm: jax.vmap(lambda key: arms.sample(key, arm, params))(keys))(built)


def keys(seed, count=NUM_DRAWS):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def built():
    return arms.build(NAMES)


@pytest.fixture(scope="module")
def drawn(built):
    scenarios = jax.tree.map(np.asarray, draw(built, keys(0), make_params()))
    return {name: jax.tree.map(lambda x, i=i: x[i], scenarios) for i, name in enumerate(NAMES)}


def networks(scenario):
    """One row of bytes per sampled network."""
    parts = (scenario.exists, scenario.services, scenario.servers, scenario.red_start, scenario.hq_start)
    return np.concatenate([part.reshape(len(part), -1).astype(np.uint8) for part in parts], axis=1)


def missions(scenario):
    """Mission triple of every draw. No table changes the first phase."""
    return scenario.rewards[:, 0, Subnet.PAZ] / REWARDS[0, Subnet.PAZ]


def tables(scenario):
    """Reward table of every draw, by index."""
    table = scenario.rewards / missions(scenario)[:, None, None]
    index = np.abs(table[:, None] - TABLES).max((2, 3, 4)).argmin(1)
    assert np.allclose(table, TABLES[index])
    return index


def assert_uniform(counts, size):
    """Check that all `size` values occur, with counts within five standard deviations of the mean."""
    counts = np.asarray(counts)
    assert len(counts) == size
    mean = counts.sum() / size
    assert np.all(np.abs(counts - mean) <= 5 * np.sqrt(mean * (1 - 1 / size))), counts


def counts(values):
    return np.unique(values, axis=0, return_counts=True)


def test_all_arms_are_known():
    of_games = {"rates", "tempo", "sizes", "reds", "all", "all_no_rates", "all_no_tempo", "all_no_sizes", "all_no_reds"}
    assert set(arms.ARMS) == {*NAMES, *of_games}


@pytest.mark.parametrize("name", NAMES)
def test_arm_samples_its_banks_uniformly(drawn, name):
    size, triples, starts, num_tables, restore_cost = EXPECTED[name]
    values, number = counts(missions(drawn[name]))
    assert np.array_equal(values, sorted(triples))
    assert_uniform(number, len(triples))
    values, number = counts(drawn[name].phase_starts)
    assert np.array_equal(values, sorted(starts))
    assert_uniform(number, len(starts))
    values, number = counts(tables(drawn[name]))
    assert values.tolist() == list(range(num_tables))
    assert_uniform(number, num_tables)
    _, number = counts(networks(drawn[name]))
    assert_uniform(number, NUM_DRAWS if size is FRESH else size)
    assert np.all(drawn[name].restore_cost == restore_cost)
    assert np.all(drawn[name].num_steps == 500)
    assert np.all(drawn[name].roles == 255)


def test_banks_are_sampled_independently(drawn):
    scenario = drawn["C11"]
    indices = [
        np.unique(x, axis=0, return_inverse=True)[1].reshape(-1) for x in (missions(scenario), networks(scenario))
    ]
    indices += [np.unique(scenario.phase_starts, axis=0, return_inverse=True)[1].reshape(-1), tables(scenario)]
    for first in range(4):
        for second in range(first):
            size = (indices[first].max() + 1) * (indices[second].max() + 1)
            pairs = np.stack([indices[first], indices[second]], axis=1)
            assert_uniform(counts(pairs)[1], size)


def test_arms_share_the_samples_of_equal_banks(drawn):
    fresh = [name for name in NAMES if EXPECTED[name][0] is FRESH]
    for group in (fresh, ["C11", "C11prime", "topo"]):
        for name in group[1:]:
            assert np.array_equal(networks(drawn[name]), networks(drawn[group[0]]))
    for name in ("miss", "C11_notopo"):
        assert np.array_equal(missions(drawn[name]), missions(drawn["C11"]))
    assert np.array_equal(2 * missions(drawn["miss_mean1"]), missions(drawn["miss"]))
    for name in ("C11prime", "C11_notopo", "pbound"):
        assert np.array_equal(drawn[name].phase_starts, drawn["C11"].phase_starts)
    for name in ("C11prime", "C11_notopo", "cjewel"):
        assert np.array_equal(tables(drawn[name]), tables(drawn["C11"]))


def test_stacked_arms_sample_as_each_does_alone(drawn):
    for name in ("C00", "C11"):
        alone = jax.tree.map(lambda x: np.asarray(x[0]), draw(arms.build([name]), keys(0), make_params()))
        assert eqx.tree_equal(alone, drawn[name])


def test_generated_arms_follow_the_generator(drawn):
    servers = drawn["C00"].exists.reshape(-1, 8, SLOTS)[..., :6].sum(-1)
    assert_uniform(counts(servers.reshape(-1))[1], 6)
    fixed = draw(arms.build(["C00", "topo"]), keys(1, 64), make_params("cia_c", num_steps=100))
    servers = np.asarray(fixed.exists).reshape(2, -1, 8, SLOTS)[..., :6].sum(-1)[..., [Subnet.OZA, Subnet.OZB]]
    assert np.all(servers[0] == 3)
    assert {tuple(pair) for pair in servers[1].tolist()} == {(3, 3), (1, 2), (4, 5)}
    roles = np.asarray(fixed.roles)
    assert np.take_along_axis(np.asarray(fixed.exists), roles.astype(int), axis=-1).all()
    assert len({tuple(triple) for triple in roles[1].tolist()}) > 20
    assert np.all(fixed.phase_starts == np.array([0, 34, 67]))


def test_published_networks_have_the_published_sizes():
    totals = [int(topology.exists.sum()) + 9 for topology in arms.PUBLISHED_TOPOLOGIES]
    assert totals == [94, 91, 97, 94, 91, 88, 94, 91, 97, 94, 100, 97, 92, 89, 95, 92]
    users = [sum(topology.users) for topology in arms.PUBLISHED_TOPOLOGIES]
    assert users == [57] * 4 + [46] * 4 + [60] * 4 + [53] * 4
    pairs = [(t.servers[Subnet.OZA], t.servers[Subnet.OZB]) for t in arms.PUBLISHED_TOPOLOGIES]
    assert pairs == [(3, 3), (1, 2), (4, 5), (3, 3)] * 4
    assert arms.PUBLISHED_TOPOLOGIES[8].servers == (5, 4, 3, 6, 3, 1, 5, 1)  # CON RZA OZA RZB OZB ADM OFF PAZ
    assert arms.PUBLISHED_TOPOLOGIES[8].users == (10, 7, 8, 6, 6, 5, 10, 8)
    assert [t.red_start for t in arms.PUBLISHED_TOPOLOGIES] == [0] * 4 + [3] * 4 + [7] * 4 + [9] * 4
    hq = [*[Subnet.OFF] * 8, *[Subnet.PAZ] * 4, Subnet.ADM, Subnet.PAZ, Subnet.PAZ, Subnet.ADM]
    assert [t.hq_start for t in arms.PUBLISHED_TOPOLOGIES] == hq


def test_published_variants_differ_as_tabulated():
    for base in range(0, 16, 4):
        plain, fewer, more, parted = arms.PUBLISHED_TOPOLOGIES[base : base + 4]
        assert eqx.tree_equal(replace(plain, allowed=parted.allowed).network(), parted.network())
        assert (parted.allowed.sum((1, 2)) - 8).tolist() == [28, 20, 22]
        assert not parted.allowed[1, Subnet.CON, Subnet.ADM]
        for other in (plain, fewer, more):
            assert np.array_equal(other.allowed, ALLOWED)
    services = {t.network().services.tobytes() for t in map(jax.device_get, arms.PUBLISHED_TOPOLOGIES)}
    assert len(services) == 12


def test_published_services_follow_the_generator():
    exists = np.stack([t.exists for t in arms.PUBLISHED_TOPOLOGIES])
    services = np.stack([t.services for t in arms.PUBLISHED_TOPOLOGIES])
    share = (services & exists[:, None]).sum((0, 2)) / exists.sum()
    assert np.all(np.abs(share - 0.5) < 5 * 0.5 / np.sqrt(1000))


def test_reward_tables_have_the_published_sums():
    first, rest = (-41, -30, -69), [(-45, -31, -71), (-45, -31, -71), (-50, -29, -78), (-49, -32, -73)]
    assert np.array_equal(TABLES.sum((1, 2)), [first, first, *rest])
    assert np.array_equal(TABLES[0], REWARDS)
    mean = TABLES.mean(0)
    assert np.allclose(mean[1, Subnet.OZA], (-7, -1 / 3, -7))
    assert np.allclose(mean[1, Subnet.OZB], (-5.5, -0.5, -5.5))
    assert np.allclose(mean[1, Subnet.RZA], (-1.833, -1, -2.667), atol=1e-3)
    assert np.allclose(mean[1, Subnet.RZB], (-1.167, -1, -1.333), atol=1e-3)
    assert np.allclose(mean[1, Subnet.ADM], (-2.333, -1.333, -3.667), atol=1e-3)
    assert np.allclose(mean[2, Subnet.OZA], (-4, -2 / 3, -4))
    assert np.allclose(mean[2, Subnet.OZB], (-7, -1 / 3, -7))
    assert np.allclose(mean[2, Subnet.RZA], (-1.167, -2.667, -3), atol=1e-3)
    assert np.allclose(mean[2, Subnet.RZB], (-1.833, -1.333, -3), atol=1e-3)
    assert np.allclose(mean[2, Subnet.OFF], (-2.333, -1.333, -3.667), atol=1e-3)
    assert np.array_equal(mean[0], REWARDS[0])


def test_mean_missions():
    means = {name: np.mean(spec.missions, axis=0).tolist() for name, spec in arms.ARMS.items()}
    assert means["miss"] == means["C11"] == means["C11prime"] == means["fixed222"] == [2, 2, 2]
    assert means["miss_mean1"] == means["C00"] == [1, 1, 1]


def test_small_plain_bank_is_a_prefix_of_the_large_one(built):
    _, large = built.topologies.entries
    small_flags, small = arms.build(["topo_plain16"]).topologies.entries
    row = NAMES.index("topo_plain256")
    assert eqx.tree_equal(jax.tree.map(lambda x: x[row, :16], large), jax.tree.map(lambda x: x[0], small))
    assert not small_flags.any()


def test_a_custom_arm(monkeypatch):
    mine = arms.ArmSpec(
        topologies=(arms.GENERATE, arms.Plain(3), scenarios.Topology((1,) * 8, (3,) * 8)),
        missions=((1, 1, 1), (4, 1, 1)),
        phase_starts=(arms.THIRDS, (0, 1, 2)),
        reward_tables=({}, {(0, Subnet.INT): (0, 0, -9)}),
        probabilities={"missions": (0.9, 0.1), "topologies": (0.5, 0.0, 0.5)},
    )
    monkeypatch.setitem(arms.ARMS, "mine", mine)
    both = draw(arms.build(["mine", mine]), keys(2), make_params())
    assert eqx.tree_equal(*(jax.tree.map(lambda x, i=i: x[i], both) for i in range(2)))
    scenario = jax.tree.map(lambda x: np.asarray(x[0]), both)
    assert abs((missions(scenario)[:, 0] == 4).mean() - 0.1) < 5 * np.sqrt(0.09 / NUM_DRAWS)
    smallest = scenario.exists.sum(1) == 32
    assert abs(smallest.mean() - 0.5) < 5 * 0.5 / np.sqrt(NUM_DRAWS)
    assert len(counts(networks(scenario))[1]) == (~smallest).sum() + 1
    assert {tuple(starts) for starts in scenario.phase_starts.tolist()} == {(0, 167, 334), (0, 1, 2)}
    assert abs((scenario.rewards[:, 0, Subnet.INT, 2] == -9).mean() - 0.5) < 5 * 0.5 / np.sqrt(NUM_DRAWS)


def test_unknown_arm_is_rejected_with_the_known_ones():
    with pytest.raises(UserError, match=r"'C12'.* C00, C11, C11prime, .*topo_plain256"):
        arms.build(["C00", "C12"])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"missions": ((1, 1),)}, "a mission is three float32 numbers"),
        ({"missions": ((1, 1, float("nan")),)}, "a mission is three float32 numbers"),
        ({"missions": ((1, 1, -1),)}, "a mission .* at least 0"),
        ({"missions": ()}, "missions .* at least one"),
        ({"reward_tables": ({(1, Subnet.OZA): (-1, -1)},)}, "phase 1 in OZA"),
        ({"reward_tables": ({(1, Subnet.OZA): (-1, -1, 1)},)}, "at most 0"),
        ({"reward_tables": ({(-1, Subnet.OZA): (-1, -1, -1)},)}, "reward table"),
        ({"reward_tables": ({(3, Subnet.OZA): (-1, -1, -1)},)}, "reward table"),
        ({"phase_starts": ((0, 200, 100),)}, "three increasing steps"),
        ({"phase_starts": ((0, 200),)}, "three increasing steps"),
        ({"phase_starts": ((0, 100.5, 200),)}, "three increasing steps"),
        ({"topologies": (arms.Plain(-1),)}, "Plain network"),
        ({"topologies": ("generated",)}, "a topology must be 'generate'"),
        ({"restore_cost": 1e39}, "restore_cost must be a float32 number of at least 0"),
        ({"missions": ((1, 1, 1e39),)}, "a mission is three float32 numbers"),
        ({"restore_cost": -1.0}, "restore_cost must be a float32 number of at least 0"),
        ({"restore_cost": float("nan")}, "restore_cost must be a float32 number of at least 0"),
        ({"probabilities": {"missions": (float("nan"),)}}, "1 probability"),
        ({"missions": ((1, 1, 1),) * 2, "probabilities": {"missions": (0.5, 0.4)}}, "2 probabilities"),
        ({"missions": ((1, 1, 1),) * 2, "probabilities": {"missions": (1.0,)}}, "2 probabilities"),
        ({"missions": ((1, 1, 1),) * 2, "probabilities": {"missions": (1.5, -0.5)}}, "2 probabilities"),
        ({"probabilities": {"mission": (1.0,)}}, "'mission'.* topologies, missions"),
    ],
)
def test_invalid_arms_are_rejected(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        arms.ArmSpec(**fields)


def test_every_arm_is_printed(capsys):
    show.run(show.Config())
    printed = capsys.readouterr().out
    for name in NAMES:
        assert printed.count(name) >= 5
    for line in (
        "C11            16        93.5   4         2,2,2",
        "100  5/10  4/7   4/8   6/6   5/6   1/5   5/10  1/8",
        "no CON-ADM in phase 1",
        "0.25    1.5,0.5,1.5",
        "0.1667  phase 2 OFF -5,-2,-5",
    ):
        assert line in printed


def test_selected_arms_and_those_of_a_file_are_printed(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[arms.dear]\nrestore_cost = 2\n[reds.mine]\nlike = 'discovery'\nactions.R.impact = 1")
    show.run(show.Config(("C00", "dear"), path))
    printed = capsys.readouterr().out
    assert "C11" not in printed and "topologies of C00, dear" in printed and "  -2\n" in printed
    assert "red mine\n  K   weight 20" in printed and "impact 1" in printed and "probability 0.75" in printed
    with pytest.raises(UserError, match=r"'foo'.* C00, .*, dear"):
        show.run(show.Config(("foo",), path))


def test_a_closed_pipe_is_not_an_error():
    command = [sys.executable, "-m", "purecc4", "arms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as table:
        table.stdout.close()
        assert table.stderr.read() == b""
    assert table.returncode == 1


# games and reds


def test_games_and_reds_of_a_bank_are_drawn_alike_and_independently():
    games = tuple(GameSpec(phishing=phishing) for phishing in (0.1, 0.2))
    arm = arms.build([arms.ArmSpec(games=games, reds=("stealthy", "sleep"))])
    scenarios = draw(arm, keys(5, 800), make_params())
    phishing = np.asarray(scenarios.game.phishing[0]) > 0.15
    sleeps = np.asarray(scenarios.red.action_cdf[0, :, Knowledge.K, 0]) == 0
    cells = [np.sum((phishing == a) & (sleeps == b)) for a in (False, True) for b in (False, True)]
    assert_frequencies(cells, np.full(4, 1 / 4))


def test_an_arm_without_games_beside_one_that_has_them_keeps_the_game_and_the_red_of_the_training():
    built = arms.build(["C00", "all"])
    params = make_params("discovery", game="phishing")
    scenarios = jax.tree.map(np.asarray, draw(built, keys(6, 50), params))
    assert (scenarios.game.phishing[0] == np.float32(0.75)).all() and scenarios.game.phishing[1].max() <= 0.1
    assert (scenarios.red.action_cdf[0] == np.asarray(params.red.action_cdf)).all()
    assert len(np.unique(scenarios.red.action_cdf[1], axis=0)) == 5


def test_a_bank_of_games_leaves_the_other_banks_as_they_are():
    """The network differs by the sizes of the game alone."""
    plain, rates = (draw(arms.build([name]), keys(7, 20), make_params()) for name in ("C00", "rates"))
    same = [name for name in vars(plain) if name not in ("game", "red")]
    assert all(jax.tree.all(jax.tree.map(np.array_equal, getattr(plain, x), getattr(rates, x))) for x in same)


@pytest.mark.parametrize(
    ("axis", "held"),
    [
        ("rates", lambda game: max(game.phishing, game.work_alarm, game.visit_alarm) <= 0.1),
        ("tempo", lambda game: all(steps <= 2 * RED_DURATION[kind] for kind, steps in game.red_durations.items())),
        ("sizes", lambda game: 1 <= game.servers[0] <= game.servers[1] <= 6 and game.users[0] >= 3),
    ],
)
def test_an_axis_varies_its_own_numbers_within_bounds_and_alike_in_every_arm(axis, held):
    games = arms.ARMS[axis].games
    mine = {name for game in games for name in game.changes()}
    assert len({str(game) for game in games}) > 10 and all(map(held, games))
    for one, many, without in zip(games, arms.ARMS["all"].games, arms.ARMS[f"all_no_{axis}"].games, strict=True):
        assert {name: getattr(many, name) for name in mine} == {name: getattr(one, name) for name in mine}
        assert not mine & set(without.changes())


@pytest.mark.parametrize(("red", "says"), [("cia_c", "takes none that hunts roles"), ("fms", "unknown red 'fms'")])
def test_reds_that_no_bank_can_have_are_refused(red, says):
    with pytest.raises(UserError, match=says):
        arms.ArmSpec(reds=(red,))
