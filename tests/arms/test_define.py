"""Arms and reds from a TOML file: parsing, storage in run folders, and messages for invalid files."""

import textwrap

import equinox as eqx
import jax
import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from purecc4 import arms
from purecc4.arms import define, spec
from purecc4.envs import cc4
from purecc4.envs.cc4 import checks
from purecc4.envs.cc4.constants import ALLOWED, Knowledge, RedAction, Role, Service, Subnet
from purecc4.envs.cc4.scenario import HQ
from purecc4.errors import UserError
from purecc4.play.scripts import SCRIPTS
from purecc4.train.definitions import DEFINITIONS, keep, load, refuse_unlike_matches

EXAMPLE = textwrap.dedent(
    define.__doc__[define.__doc__.index("    [arms.calm]") : define.__doc__.index("A topology also")]
)


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of definitions."""

    def write(text, name="mine.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_example_of_the_docstring(write):
    found = define.read(write(EXAMPLE))
    calm, mixed, small = (found.arms[name] for name in ("calm", "mixed", "small"))
    missions = ((1, 1, 1), (1, 4, 1))
    assert calm == arms.ArmSpec(missions=missions, probabilities={"missions": [0.9, 0.1]}, restore_cost=0.5)
    assert mixed.missions == arms.ARMS["C11"].missions and mixed.phase_starts == (arms.THIRDS, (0, 100, 300))
    assert mixed.topologies == (arms.GENERATE, arms.Plain(3), arms.PUBLISHED_TOPOLOGIES[8])
    assert mixed.reward_tables == ({}, {(1, Subnet.OZA): (-1, -1, -1), (1, Subnet.OZB): (-10, 0, -10)})
    assert small.topologies[0].red_start == 8 and small.topologies[0].exists.sum() == 32
    row = (0, 0.8, 0, 0, 0, 0, 0, 0, 0, 0.2)
    actions = cc4.params.RED_ARGUMENTS["fsm"]["actions"] | {Knowledge.K: row}
    assert eqx.tree_equal(found.reds["loud"], cc4.red_policy(actions, role_weight=3, hunted=(Role.DB,)))


def test_a_network_with_all_its_fields(write):
    path = write("""
        [[arms.mine.topologies]]
        servers = [2, 2, 2, 2, 2, 2, 2, 2]
        users = [3, 3, 3, 3, 3, 3, 3, 3]
        hq_start = "PAZ"
        services = { MYSQL = ["restricted_zone_a_subnet_server_host_1"] }
        closed = { phase_1 = [["CON", "ADM"]] }
    """)
    (topology,) = define.read(path).arms["mine"].topologies
    assert topology.hq_start == Subnet.PAZ and topology.hq_start in HQ and topology.red_start == 0
    assert np.argwhere(topology.services).tolist() == [[Service.MYSQL, 17]]
    assert np.argwhere(topology.allowed != ALLOWED).tolist() == [[1, 0, 5], [1, 5, 0]]


@pytest.mark.parametrize("name", cc4.REDS)
def test_a_red_like_another_without_changes_equals_it(write, name):
    found = define.read(write(f'[reds.mine]\nlike = "{name}"'))
    assert eqx.tree_equal(found.params("mine", 500), cc4.make_params(name))


def test_weights_of_states_and_servers(write):
    found = define.read(write("[reds.mine]\nactions.U.impact = 1\nstate_weights = { U = 2 }\nserver_chance = 0.5"))
    expected = cc4.red_policy({Knowledge.U: (0,) * RedAction.IMPACT + (1,)}, 1, (), {Knowledge.U: 2}, 0.5)
    assert eqx.tree_equal(found.reds["mine"], expected)


def test_custom_names_extend_the_published_ones(write):
    found = define.read(write(EXAMPLE))
    arm = arms.build(["C00", "calm"], found.arms)
    assert np.allclose(arm.missions.cumulative, [[1, 1], [0.9, 1]]) and arm.restore_cost.tolist() == [1, 0.5]
    assert int(found.params("loud", 30).operational_servers) == 3
    with pytest.raises(UserError, match=r"'calmer'.* C00, .*all_no_reds, calm, mixed, small, many"):
        arms.build(["calmer"], found.arms)
    with pytest.raises(UserError, match=r"'louder'.* fsm, .*sleep, loud"):
        found.params("louder", 30)
    with pytest.raises(UserError, match="num_steps must be"):
        found.params("loud", 2)


def test_games_of_a_file(write):
    found = define.read(write(EXAMPLE + "[games.noisier]\nlike = 'aggressive'\nred_durations = { impact = 4 }\n"))
    noisy = found.game("noisy")
    assert (noisy.phishing, noisy.users, noisy.red) == (0.05, (5, 10), "loud")
    assert found.game("noisier").red_durations == cc4.GAMES["aggressive"].red_durations | {RedAction.IMPACT: 4}
    assert [game.phishing for game in found.arms["many"].games] == [0.01, 0.05]
    assert found.params("fsm@noisy", 30).game.phishing == np.float32(0.05)


def test_a_red_in_a_game_has_a_name(write):
    found = define.read(write(EXAMPLE))
    assert found.match(None) == found.match("fsm") == "fsm" and found.match("fsm@noisy") == "fsm@noisy"
    assert found.match(None, "noisy") == "loud@noisy" and found.match("fsm", "noisy") == "fsm@noisy"
    with pytest.raises(UserError, match="fsm@noisy names its game already: leave out --game phishing"):
        found.match("fsm@noisy", "phishing")
    for name in ("fsm@silent", "fsm@noisy@noisy"):
        with pytest.raises(UserError, match=r"unknown game .*; known are base, .*noisy"):
            found.params(name, 30)


def test_phases_beyond_the_episode(write):
    found = define.read(write(EXAMPLE))
    with pytest.raises(UserError, match=r"\(0, 100, 300\) .* 300 steps"):
        arms.build(["mixed"], found.arms, num_steps=300)
    arms.build(["mixed", "C11"], found.arms, num_steps=301)


def test_names_of_policies_are_reserved():
    assert tuple(SCRIPTS) == spec.RESERVED


def test_a_run_folder_stores_the_definitions(write, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    found = load(write(EXAMPLE))
    keep(run, found)
    keep(other, define.Definitions())
    assert load(None, other) == define.Definitions() and not other.exists()
    assert eqx.tree_equal(load(None, run).reds, found.reds) and load(None, run).tables == found.tables
    more = load(write("[reds.more]\nlike = 'fsm'", "more.toml"), run)
    keep(run, more)
    assert set(load(None, run).reds) == {"loud", "more"} and set(load(None, run, other).arms) == set(found.arms)
    clash = write("[arms.calm]\nrestore_cost = 2", "clash.toml")
    with pytest.raises(UserError, match=rf"clash.toml and .*{DEFINITIONS} define \[arms.calm\] differently"):
        load(clash, run)


WRONG = {
    "": "defines nothing",
    "[arms.mine": "is not TOML: Expected ']'",
    "[armz.mine]": r"\[armz\]: unknown key",
    "arms = 3": r"\[arms\]: input should be a valid dictionary",
    "[arms.C11]": r"\[arms.C11\]: this name is taken",
    "[arms.random]": r"\[arms.random\]: this name is taken",
    "[reds.fsm]": r"\[reds.fsm\]: this name is taken",
    "[arms.'../x']": "letters, digits",
    "[arms.mine]\nmission = []": r"\[arms.mine\] mission: unknown key",
    "[arms.mine]\nlike = 'C12'": r"\[arms.mine\] like: input should be 'C00', 'C11'",
    "[arms.mine]\nmissions = []": r"\[arms.mine\]: missions needs at least one entry",
    "[arms.mine]\nmissions = [[1, 1]]": r"\[arms.mine\]: a mission is three float32 numbers",
    "[arms.mine]\nmissions = [[1, 1, nan]]": r"\[arms.mine\]: a mission is three float32 numbers",
    "[arms.mine]\nmissions = [[1, 1, '1']]": r"\[arms.mine\] missions.0.2: input should be a valid number",
    "[arms.mine]\nphase_starts = [[0, 1.5, 3]]": r"\[arms.mine\] phase_starts.0.1: input should be a valid integer",
    "[arms.mine]\nphase_starts = ['third']": r"\[arms.mine\] phase_starts.0: input should be 'thirds'",
    "[arms.mine]\nphase_starts = [[0, 3, 2]]": r"\[arms.mine\]: phase starts must be three increasing steps",
    "[arms.mine]\ntopologies = ['fresh']": r"\[arms.mine\] topologies.0: input should be 'generate'",
    "[arms.mine]\ntopologies = [{ plain = -1 }]": r"\[arms.mine\]: the number of a Plain network",
    "[arms.mine]\ntopologies = [{ published = 16 }]": r"topologies.0.published: input should be less than 16",
    "[arms.mine]\ntopologies = [{ servers = [1], users = [3] }]": r"\[arms.mine\]: servers must be 8 counts",
    "[arms.mine]\ntopologies = [{ servers = [1] }]": r"topologies.0.users: field required",
    "[arms.mine]\ntopologies = [{ servers = [1], users = [3], red_start = 'x' }]": "red_start: there is no host 'x'",
    "[arms.mine]\nreward_tables = [{ phase_3 = {} }]": r"reward_tables.0.phase_3: input should be 'phase_0'",
    "[arms.mine]\nreward_tables = [{ phase_1 = { OZA = [1, 0, 0] } }]": "phase 1 in OZA is three float32 numbers",
    "[arms.mine]\nrestore_cost = nan": r"\[arms.mine\]: restore_cost must be a float32 number of at least 0",
    "[arms.mine]\nprobabilities = { missions = [0.9] }": "missions needs 1 probability",
    "[arms.mine]\nprobabilities = { missions = [nan] }": "missions needs 1 probability",
    "[reds.mine]\nactions.K = { impact = 0.9 }": r"\[reds.mine\]: the probabilities of actions.K must sum to 1",
    "[reds.mine]\nactions.K = { impact = nan }": r"\[reds.mine\]: the probabilities of actions.K must sum to 1",
    "[reds.mine]\nactions.K = { impact = 2, sleep = -1 }": r"\[reds.mine\]: action probabilities",
    "[reds.mine]\nactions.K = { impakt = 1 }": r"\[reds.mine\] actions.K.impakt: input should be 'discover",
    "[reds.mine]\nactions.F = { sleep = 1 }": r"\[reds.mine\] actions.F: input should be 'K'",
    "[reds.mine]\nhunted = ['MAIL']": r"\[reds.mine\] hunted.0: input should be 'AUTH', 'DB' or 'WEB'",
    "[reds.mine]\nhunted = ['DB']": r"\[reds.mine\]: hunted and role_weight above 1 only work together",
    "[games.base]": r"\[games.base\]: this name is taken",
    "[games.mine]\nphising = 0.1": r"\[games.mine\] phising: unknown key",
    "[games.mine]\nphishing = 2": r"\[games.mine\]: phishing must be a probability, from 0 to 1: 2.0",
    "[games.mine]\nservers = [3]": r"\[games.mine\]: servers must be the least and the most, within 1 to 6",
    "[games.mine]\nred_durations = { impakt = 1 }": r"\[games.mine\] red_durations.impakt: input should be 'discover",
    "[games.mine]\nblue_durations = { restore = 0 }": r"\[games.mine\]: RESTORE must last from 1 to 100 steps: 0",
    "[games.mine]\nred = 'fms'": r"\[games.mine\]: unknown red 'fms'; known are fsm",
    "[games.mine]\nlike = 'phising'": r"\[games.mine\] like: input should be 'base', 'constant_size'",
    "[arms.mine]\ngames = ['phising']": r"\[arms.mine\]: unknown game 'phising'; known are base",
    "[arms.mine]\nreds = ['cia_c']": r"\[arms.mine\]: a bank of reds takes none that hunts roles",
    "[reds.mine]\nserver_chance = 1.5": r"\[reds.mine\]: server_chance must be a probability",
    "[reds.mine]\nstate_weights = { K = 0 }": r"\[reds.mine\]: state_weights must be float32 numbers of at least 0",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_invalid_file_is_rejected_in_one_line(write, text):
    path = write(text)
    with pytest.raises(UserError, match=WRONG[text]) as caught:
        define.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_an_unreadable_file_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"cannot read or write .*nothing.toml"):
        define.read(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UserError, match=r"latin\.toml.*UTF-8"):
        define.read(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"actions": {-1: (1,)}}, "actions of a red are given by Knowledge, one of K, KD, .*: -1"),
        ({"actions": {Knowledge.F: (1,)}}, "actions of a red are given by Knowledge"),
        ({"actions": {"K": (1,)}}, "actions of a red are given by Knowledge"),
        ({"actions": {Knowledge.K: (float("nan"),)}}, "at least 0 and sum to at most 1: state K has"),
        ({"actions": {Knowledge.K: (0,) * 11}}, "10 actions, but state K gives 11"),
        ({"role_weight": float("nan"), "hunted": (Role.DB,)}, "role_weight, .* float32 number of at least 1: nan"),
        ({"role_weight": 3}, "only work together: hunted is"),
        ({"role_weight": 3, "hunted": ("DB",)}, "hunted takes roles, any of Role.AUTH.*: 'DB'"),
        ({"role_weight": 3, "hunted": (7,)}, "hunted takes roles"),
        ({"state_weights": {}}, "one of them above 0"),
        ({"state_weights": {Knowledge.K: float("inf")}}, "state_weights must be float32 numbers of at least 0"),
        ({"state_weights": {0: 1}}, "state_weights of a red are given by Knowledge"),
        ({"server_chance": float("nan")}, "server_chance must be a probability, from 0 to 1: nan"),
    ],
)
def test_invalid_reds_are_rejected(arguments, sentence):
    fields = {"actions": {}, "role_weight": 1, "hunted": (), "state_weights": None, "server_chance": 0}
    with pytest.raises(ValueError, match=sentence):
        checks.check_red(**fields | arguments)


@pytest.mark.parametrize("num_steps", [2, 500.5, float("nan"), True, "500"])
def test_invalid_lengths_are_rejected(num_steps):
    with pytest.raises(ValueError, match="num_steps must be a whole number of at least 3"):
        checks.check_num_steps(num_steps)


def test_hosts_have_roles_for_a_red_that_hunts():
    red = cc4.red_policy({Knowledge.K: (0, 1)}, role_weight=3, hunted=(Role.DB,))
    scenario = jax.jit(cc4.generate)(jax.random.key(0), cc4.make_params(red))
    assert (np.asarray(scenario.roles) < 128).all()


numbers = st.integers(-2, 9) | st.floats() | st.booleans() | st.text(max_size=3)
values = st.recursive(numbers, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text("KSD", max_size=2), x))
keys = st.sampled_from(["like", "missions", "phase_starts", "topologies", "reward_tables", "probabilities", "hunted"])


@settings(max_examples=200, deadline=None)
@given(
    document=st.dictionaries(
        st.sampled_from(["arms", "reds"]), st.dictionaries(st.just("x"), st.dictionaries(keys, values))
    )
)
def test_arbitrary_files_are_read_or_rejected(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(tomli_w.dumps(document))
    try:
        found = define.read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert set(found.arms) | set(found.reds) == {"x"}


@pytest.mark.parametrize("number", ["1e39", "-1e39", "1e300", "1e-40", "inf", "nan"])
@pytest.mark.parametrize(
    "line",
    [
        "[arms.mine]\nrestore_cost = {}",
        "[arms.mine]\nmissions = [[1, {}, 1]]",
        "[arms.mine]\nreward_tables = [{{ phase_1 = {{ OZA = [0, -1, -{}] }} }}]",
        "[arms.mine]\nmissions = [[1, 1, 1], [2, 2, 2]]\nprobabilities = {{ missions = [1, {}] }}",
        "[reds.mine]\nhunted = ['DB']\nrole_weight = {}",
        "[reds.mine]\nlike = 'discovery'\nstate_weights = {{ K = {} }}",
        "[reds.mine]\nserver_chance = {}",
        "[reds.mine]\nactions.K = {{ aggressive_service_discovery = {}, sleep = 1 }}",
    ],
)
def test_numbers_that_float32_cannot_hold_are_refused(number, line, write):
    """They would be 0 or infinite in the compiled program: another game."""
    with pytest.raises(UserError, match="mine"):
        define.read(write(line.format(number).replace("--", "")))


@pytest.mark.parametrize(
    "bank",
    [
        "missions = [[1, 1, 3e38]]",
        "missions = [[1e-30, 1, 1]]\nreward_tables = [{ phase_1 = { OZA = [-1e-30, 0, 0] } }]",
    ],
)
def test_products_that_float32_cannot_hold_are_refused(bank, write):
    with pytest.raises(UserError, match="missions times reward_tables"):
        define.read(write(f"[arms.mine]\n{bank}"))


@pytest.mark.parametrize("weights", ["{ K = 3e38, S = 3e38 }", "{ K = 2e38, S = 2e38, U = 1 }"])
def test_weights_whose_sum_is_infinite_are_refused(weights, write):
    with pytest.raises(UserError, match="state_weights"):
        define.read(write(f"[reds.mine]\nlike = 'discovery'\nstate_weights = {weights}"))


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 3000 + "]" * 3000,
        "[arms.mine]\nrestore_cost = " + "1" * 5000,
        f"[arms.{'x' * 260}]\nrestore_cost = 2",
        f"[reds.{'x' * 300}]\nlike = 'fsm'",
    ],
)
def test_oversized_files_are_refused_in_one_line(text, write):
    with pytest.raises(UserError, match=r"mine\.toml") as refused:
        define.read(write(text))
    assert "\n" not in str(refused.value)


def test_a_byte_order_mark_is_read_over(write):
    assert define.read(write("\ufeff[arms.mine]\nrestore_cost = 2")).arms["mine"].restore_cost == 2


def test_folders_that_define_a_name_differently_are_not_pooled(write, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, cost in ((first, 2), (second, 3)):
        folder.mkdir()
        write(f"[arms.mine]\nrestore_cost = {cost}\n[reds.mine]\nlike = 'fsm'\n", folder / DEFINITIONS)
    with pytest.raises(UserError, match=r"\[arms\.mine\] differently"):
        load(None, first, second)
    refuse_unlike_matches([first, second])
    write("[reds.mine]\nlike = 'discovery'\n", second / DEFINITIONS)
    with pytest.raises(UserError, match=r"\[reds\.mine\] differently"):
        refuse_unlike_matches([first, second])
