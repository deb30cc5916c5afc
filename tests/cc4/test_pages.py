"""The pages of envs/cc4: LAYOUT.md and README.md show what the code does, QUIRKS.md and PARITY.md name what exists."""

import ast
import os
import re
from functools import cache
from itertools import groupby
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import World, decide_batch, repeat, sample_batch, server, stack

from purecc4.envs import cc4
from purecc4.envs.cc4 import observations
from purecc4.envs.cc4.actions import host_name, zones_of_blue
from purecc4.envs.cc4.by_host import FEATURES
from purecc4.envs.cc4.constants import (
    ALPHABETICAL,
    COMMS_POLICY,
    MESSAGE_BITS,
    NUM_ACTIONS,
    NUM_BLUE,
    NUM_HOSTS,
    NUM_OBS,
    NUM_RED,
    NUM_SUBNETS,
    NUM_ZONES,
    RED_DURATION,
    SLOTS,
    Knowledge,
    RedAction,
    Subnet,
)
from purecc4.envs.cc4.raw import Alert, AttackColumn, OpenPort, ResultColumn, Visit, silent
from purecc4.envs.cc4.routing import OWNER

ROOT = Path(__file__).parents[2]
CC4 = ROOT / "envs/cc4"
LAYOUT, QUIRKS, PARITY, README = (
    (CC4 / f"{name}.md").read_text("utf-8") for name in ("LAYOUT", "QUIRKS", "PARITY", "README")
)


# LAYOUT.md, and the tables of README.md


def span(start: int, length: int) -> str:
    return f"{start}..{start + length - 1}" if length > 1 else str(start)


def runs(labels) -> dict[str, str]:
    """The range of each label in a row; equal labels must be adjacent."""
    found = {}
    for label, run in groupby(range(len(labels)), key=lambda place: str(labels[place])):
        start, *others = run
        assert label not in found
        found[label] = span(start, 1 + len(others))
    return found


def assert_pictured(*rows) -> None:
    """LAYOUT.md has a block with these rows; cells are separated by two spaces or more."""
    pictures = re.findall(r"^```\n(.*?)^```$", LAYOUT, re.M | re.S)
    found = [[re.split(r"  +", line.strip()) for line in picture.splitlines()] for picture in pictures]
    rows = [[str(cell) for cell in row if cell != ""] for row in rows]
    assert rows in found, f"envs/cc4/LAYOUT.md must show {rows}"


def short_name(slot: int) -> str:
    """s3 is server_host_3, u4 user_host_4."""
    *_, kind, _, index = host_name(slot).split("_")
    return f"{kind[0]}{index}"


def test_zones_and_their_hosts():
    blue = {zone: agent for agent in range(NUM_BLUE) for zone in zones_of_blue(agent)}
    zones = range(NUM_ZONES)
    assert_pictured(
        ["zone", *zones],
        ["name", *[Subnet(zone).name for zone in zones]],
        ["hosts", *[span(server(zone), SLOTS) for zone in zones]],
        ["red agent", *OWNER],
        ["blue agent", *[blue.get(zone, "none") for zone in zones]],
    )


def test_slots_are_the_bits_of_a_zones_word():
    slots = range(SLOTS - 1, -1, -1)
    assert_pictured(["bit", "31..16", *slots], ["host", "none", *map(short_name, slots)])
    for servers, users, word in ((1, 3, 0b0000000111000001), (6, 10, 0xFFFF)):
        assert World(servers, users).state.network.exists.tolist() == [word] * NUM_ZONES


def chosen_targets() -> list[dict[int, int]]:
    """The host of each target of each red agent: in every world an agent knows one host alone, and chooses it."""
    zones = range(NUM_ZONES)
    own = [[host for host in range(NUM_HOSTS) if OWNER[host // SLOTS] == agent] for agent in range(NUM_RED)]
    hosts = [own[agent] + [server(zone) for zone in zones if OWNER[zone] != agent] for agent in range(NUM_RED)]
    worlds = [World() for _ in range(max(map(len, hosts)))]
    for i, world in enumerate(worlds):
        world.learn(0, world.red_start, Knowledge.UNKNOWN)
        for agent in range(NUM_RED):
            world.learn(agent, hosts[agent][i % len(hosts[agent])], Knowledge.K)
    policies, draws = repeat(cc4.make_params("fsm").red), sample_batch()(jax.random.key(0))
    target = np.asarray(decide_batch()(stack([world.state for world in worlds]), policies, draws).red_target)
    return [{int(target[i, agent]): host for i, host in enumerate(hosts[agent])} for agent in range(NUM_RED)]


def test_targets_of_a_red_agent():
    parts = [range(0, 16), range(16, 32), range(32, 48), range(48, 56), range(56, 64)]
    rows = []
    for agent, host_of in enumerate(chosen_targets()):
        row = []
        for part in parts:
            hosts = {target: host_of[target] for target in part if target in host_of}
            start = min(hosts.values(), default=0)
            if hosts == dict(zip(part, range(start, start + SLOTS), strict=False)):
                row.append(Subnet(start // SLOTS).name if agent == 5 else "own zone")
            else:
                assert all(host == server(target - part.start) for target, host in hosts.items())
                row.append("server 0 of a foreign zone" if hosts else "unused")
        rows.append(row)
    assert rows[:5] == rows[:1] * 5
    places = [span(part.start, len(part)) for part in parts]
    assert_pictured(["target", *places], ["agents 0..4", *rows[0]], ["agent 5", *rows[5]])


def observed(phase=0, blocked=False, process=0, connection=0, messages=0):
    """The observations where everything is blocked, alerted or sent, or nothing is."""
    process, connection = (jnp.full(NUM_ZONES, hosts, jnp.uint32) for hosts in (process, connection))
    blocked = jnp.full((NUM_SUBNETS, NUM_SUBNETS), blocked)
    messages = jnp.full((NUM_BLUE, MESSAGE_BITS), messages, jnp.uint8)
    return np.asarray(observations.observe(jnp.int32(phase), blocked, process, connection, messages))


def test_the_values_of_an_observation():
    block = np.repeat(["subnet", "blocked", "forbidden", "process", "connection"], [9, 9, 9, SLOTS, SLOTS])
    parts, whole = (np.full((NUM_BLUE, NUM_OBS), "zeros", object) for _ in range(2))
    for agent in range(NUM_BLUE):
        zones = [Subnet(zone).name if agent == 4 else "own zone" for zone in zones_of_blue(agent)]
        messages = ["messages"] * MESSAGE_BITS * (NUM_BLUE - 1)
        for labels, blocks in ((parts, np.tile(block, len(zones))), (whole, np.repeat(zones, len(block)))):
            values = ["phase", *blocks, *messages]
            labels[agent, : len(values)] = values
    check_parts(parts)
    assert_pictured(["part of a block", *runs(block)], ["offset", *runs(block).values()])
    assert_pictured(["agents 0..3", *runs(whole[0])], ["", *runs(whole[0]).values()])
    assert_pictured(["agent 4", *runs(whole[4])], ["", *runs(whole[4]).values()])
    assert_pictured(["offset", *range(9)], ["subnet", *[Subnet(subnet).name for subnet in ALPHABETICAL]])
    assert_pictured(["offset", *range(SLOTS)], ["host", *map(short_name, range(SLOTS))])
    rows = [line for line in README.splitlines() if re.match(r"\| \d", line)]
    assert [row.split(" | ")[0][2:] for row in rows if "one-hot" in row or "alert on" in row] == [
        runs(block)[part] for part in ("subnet", "process", "connection")
    ]


def check_parts(parts) -> None:
    """A value is what it depends on; subnet and comms policy, which depend on nothing else, are compared."""
    quiet = observed()
    causes = {"blocked": True, "process": (1 << SLOTS) - 1, "connection": (1 << SLOTS) - 1, "messages": 1}
    for name, everything in causes.items():
        assert ((observed(**{name: everything}) != quiet) == (parts == name)).all(), name
    assert (observed(phase=2)[:, 0] == 2).all() and not quiet[parts == "zeros"].any()
    for agent in range(NUM_BLUE):
        zones, order = list(zones_of_blue(agent)), list(ALPHABETICAL)
        subnet, forbidden = (quiet[agent, parts[agent] == name].reshape(-1, 9) for name in ("subnet", "forbidden"))
        assert (subnet == np.equal.outer(zones, order)).all()
        assert (forbidden == COMMS_POLICY[0][zones][:, order]).all()


def test_the_raw_observation():
    tables = {"result": ResultColumn, "alerts": Alert, "attacks": AttackColumn, "bit": OpenPort, "visits": Visit}
    for name, members in tables.items():
        assert_pictured([name, *[member.name for member in members]], ["index", *map(int, members)])
    starts = np.cumsum([0, *FEATURES.values()])
    assert_pictured(
        ["features", *FEATURES],
        ["index", *[span(int(start), length) for start, length in zip(starts, FEATURES.values(), strict=False)]],
    )
    shapes = {"result": (5, 8), "alerts": (5, 3, 6), "attacks": (5, 6, 7), "pids": (5, 6, 2), "visits": (5, 3, 2, 8)}
    for name, array in vars(silent()).items():
        assert array.shape == shapes[name]
        assert f"| `{name}` | {' x '.join(map(str, array.shape))}, {array.dtype} |" in README


def test_the_indices_of_the_actions():
    kinds = [[cc4.label(agent, index).split()[0] for index in range(NUM_ACTIONS)] for agent in range(NUM_BLUE)]
    assert kinds[:4] == kinds[:1] * 4
    few, many = runs(kinds[0]), runs(kinds[4])
    assert_pictured(["agents 0..3", *few], ["", *few.values()])
    assert_pictured(["agent 4", *many], ["", *many.values()])
    for kind, places in many.items():
        assert re.search(rf"^\| {kind}\b.* \| \d \| {few[kind]} \| {places} \|", README, re.M), kind


def test_durations_of_red():
    rows = dict(re.findall(r"^\| (\w+) \| (\d) \| .* \| .* \|$", README, re.M))
    kinds = [kind for kind in RedAction if kind not in (RedAction.WITHDRAW, RedAction.SLEEP)]
    assert {kind.name.title().replace("_", ""): str(RED_DURATION[kind]) for kind in kinds}.items() <= rows.items()


# QUIRKS.md and PARITY.md

ENTRIES = dict(re.findall(r"^### Q(R?\d+): (.*?)(?=^### |\Z)", QUIRKS, re.M | re.S))
"""By number, `12` of Q12 and `R8` of QR8."""
TEST = re.compile(r"`(tests/\w+/\w+\.py)::(test_\w+)`")
FUNCTION = re.compile(r"`([\w/]+\.py):([\w.]+)`")


@cache
def functions_of(path: Path) -> set[str]:
    """Names of the functions in a file; those of classes also as Class.function."""
    found = set()
    for outer in ast.walk(ast.parse(path.read_text("utf-8"))):
        prefix = f"{outer.name}." if isinstance(outer, ast.ClassDef) else ""
        names = [node.name for node in ast.iter_child_nodes(outer) if isinstance(node, ast.FunctionDef)]
        found.update(names, [prefix + name for name in names])
    return found


def line_of(entry: str, name: str) -> str:
    """The text after a name in the list of an entry; empty if it is missing."""
    found = re.search(rf"^\* {name}: (.*)$", entry, re.M)
    return found[1] if found else ""


def test_every_quirk_that_is_cited_has_an_entry():
    pages = [*CC4.glob("*.py"), CC4 / "README.md", CC4 / "PARITY.md", *(ROOT / "tests").rglob("*.py")]
    texts = [page.read_text("utf-8") for page in pages]
    cited = {q.upper() for text in texts for q in re.findall(r"(?:\bQ|_q)([Rr]?\d+)(?![a-zA-Z0-9%])", text)}
    assert len(cited) > 40 and cited <= set(ENTRIES)
    listed = {q for row in re.findall(r"^\|.*\|$", QUIRKS, re.M) for q in re.findall(r"\bQ(R?\d+)", row)}
    assert list(ENTRIES) == sorted(listed, key=lambda q: (q[0] == "R", int(q.strip("R"))))


@pytest.mark.parametrize("number", ENTRIES)
def test_an_entry_names_its_source_its_function_and_its_tests(number):
    entry = ENTRIES[number]
    assert FUNCTION.search(line_of(entry, "CybORG"))
    harmless = re.search(r"^\* Cannot (occur|have an effect) in CC4: \w", entry, re.M)
    assert harmless or (FUNCTION.search(line_of(entry, "Here")) and TEST.search(line_of(entry, "Tests")))
    for file, name in FUNCTION.findall(line_of(entry, "Here")):
        assert name in functions_of(CC4 / file), f"{file} has no function {name}"


@pytest.mark.parametrize("page", [QUIRKS, PARITY], ids=["QUIRKS.md", "PARITY.md"])
def test_tests_that_a_page_names_exist(page):
    named = TEST.findall(page)
    assert named and [test for test in named if test[1] not in functions_of(ROOT / test[0])] == []


@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH")
def test_functions_of_cyborg_exist():
    cyborg = Path(os.environ["CYBORG_PATH"]) / "CybORG"
    named = [source for entry in ENTRIES.values() for source in FUNCTION.findall(line_of(entry, "CybORG"))]
    assert [(file, name) for file, name in named if name not in functions_of(cyborg / file)] == []


def test_links_of_the_pages():
    for page in (LAYOUT, QUIRKS, PARITY, README):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page)
        assert links and all((CC4 / link).exists() for link in links)
