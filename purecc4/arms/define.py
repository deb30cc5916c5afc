"""Your own arms, reds and games from a TOML file. Omitted keys are inherited from `like`.

    [arms.calm]                                      # like C00 by default
    missions = [[1, 1, 1], [1, 4, 1]]                # factors of LWF, ASF, RIA
    probabilities = { missions = [0.9, 0.1] }
    restore_cost = 0.5

    [arms.mixed]
    like = "C11"
    phase_starts = ["thirds", [0, 100, 300]]
    reward_tables = [{}, { phase_1 = { OZA = [-1, -1, -1], OZB = [-10, 0, -10] } }]
    topologies = ["generate", { plain = 3 }, { published = 8 }]

    [[arms.small.topologies]]                        # zones in the order CON RZA OZA RZB OZB ADM OFF PAZ
    servers = [1, 1, 1, 1, 1, 1, 1, 1]
    users = [3, 3, 3, 3, 3, 3, 3, 3]
    red_start = "contractor_network_subnet_user_host_2"

    [reds.loud]                                      # like sleep by default
    like = "fsm"
    hunted = ["DB"]
    role_weight = 3
    actions.K = { aggressive_service_discovery = 0.8, sleep = 0.2 }

    [games.noisy]                                    # like base by default
    phishing = 0.05
    work_alarm = 0.1
    users = [5, 10]
    red_durations = { exploit_remote_service = 2 }
    red = "loud"

    [arms.many]
    games = ["base", "noisy"]
    reds = ["fsm", "stealthy"]

A topology also accepts `hq_start`, `services` (hosts by service) and `closed` (by phase, pairs of zones whose users do
not visit each other's servers). A red also accepts `server_chance` and `state_weights`. `ArmSpec`, `Topology`,
`red_policy` and `GameSpec` document the fields.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from purecc4.arms.banks import PUBLISHED_TOPOLOGIES, TableChange
from purecc4.arms.spec import ARMS, GENERATE, RESERVED, THIRDS, ArmSpec, Entry, Plain
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import host_name
from purecc4.envs.cc4.checks import ACTING_STATES, is_whole
from purecc4.envs.cc4.constants import (
    ALLOWED,
    NUM_HOSTS,
    NUM_PHASES,
    NUM_ZONES,
    BlueAction,
    Knowledge,
    RedAction,
    Role,
    Service,
    Subnet,
)
from purecc4.envs.cc4.params import RED_ARGUMENTS
from purecc4.envs.cc4.scenario import HQ, Topology
from purecc4.errors import UserError, user_file, user_values

HOSTS = {host_name(host): host for host in range(NUM_HOSTS)}
MAX_NUM_STEPS = 1000
"""Longest episode. The simulator's tables are sized for 500 steps; random play first overflowed one in step 1,296."""


@dataclass(frozen=True)
class Definitions:
    """Arms, reds and games of the user, in addition to the built-in ones."""

    arms: Mapping[str, ArmSpec] = field(default_factory=dict)
    reds: Mapping[str, cc4.RedPolicy] = field(default_factory=dict)
    games: Mapping[str, cc4.GameSpec] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The parsed files: tables of "arms", "reds" and "games" by name."""

    def game(self, name: str) -> cc4.GameSpec:
        """A game by name. Raises UserError for an unknown one, listing the known ones."""
        known = {**cc4.GAMES, **self.games}
        if name not in known:
            raise UserError(f"unknown game {name!r}; known are {', '.join(known)}.")
        return known[name]

    def match(self, red: str | None, game: str = "base") -> str:
        """Name of a red in a game, as tables have it: RED in the base game, RED@GAME in others.

        None is the red of the game. A red that is already the name of a match stays as it is in the base game. Raises
        UserError for an unknown game, and for a match that is to take place in another game.
        """
        own = self.game(game).red
        if red is not None and "@" in red and game != "base":
            raise UserError(f"{red} names its game already: leave out --game {game}, or give the red alone.")
        return (red or own) if game == "base" else f"{red or own}@{game}"

    def params(self, red: str | cc4.RedPolicy, num_steps: int, observation: str = "flat") -> cc4.Params:
        """Parameters of an episode against a red, given as data or by name, alone or as RED@GAME (`match`).

        Raises UserError for an unknown name, and for an episode that is too short or too long for the simulator.
        """
        policy, spec = red, self.game("base")
        if isinstance(red, str):
            name, _, game = red.partition("@")
            if name not in (*cc4.REDS, *self.reds):
                raise UserError(f"unknown red {name!r}; known are {', '.join((*cc4.REDS, *self.reds))}.")
            policy, spec = self.reds.get(name, name), self.game(game or "base")
        if is_whole(num_steps) and num_steps > MAX_NUM_STEPS:
            raise UserError(
                f"num_steps must be at most {MAX_NUM_STEPS}, the limit of the simulator's tables: {num_steps}."
            )
        with user_values():
            return cc4.make_params(policy, num_steps, observation, spec)


def read(*paths: Path) -> Definitions:
    """Read the arms, reds and games of all files.

    Raises UserError, naming the file, table and key, for an invalid file, and for a name with two different
    definitions.
    """
    documents = {path: parse(path) for path in paths}
    checked = {path: _validate(path, document) for path, document in documents.items()}

    def built(kind: str, build: Callable[[Any], Any]) -> dict[str, Any]:
        tables = [(path, name, table) for path, file in checked.items() for name, table in getattr(file, kind).items()]
        return {name: _build(path, kind, name, build, table) for path, name, table in tables}

    reds = built("reds", _red)
    games = built("games", partial(_game, reds=reds))
    return Definitions(built("arms", partial(_arm, games=games, reds=reds)), reds, games, pool(documents))


def pool(documents: Mapping[Path, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tables of all files. Raises UserError for a name with two different definitions."""
    tables: dict[str, dict[str, Any]] = {}
    origin = {}
    for path, document in documents.items():
        for kind, by_name in document.items():
            for name, table in by_name.items():
                if tables.setdefault(kind, {}).setdefault(name, table) != table:
                    raise UserError(f"{origin[kind, name]} and {path} define [{kind}.{name}] differently: rename one.")
                origin.setdefault((kind, name), path)
    return tables


def _names(members: Iterable[Any]) -> Any:
    """Literal type of the member names of an enumeration."""
    return Literal[tuple(member.name for member in members)]


def _host(name: str) -> int:
    if name not in HOSTS:
        raise ValueError(f"there is no host {name!r}; names are like {host_name(0)} and {host_name(NUM_HOSTS - 1)}")
    return HOSTS[name]


HostName = Annotated[str, AfterValidator(_host)]
ZoneName = _names(tuple(Subnet)[:NUM_ZONES])
PhaseName = Literal[tuple(f"phase_{phase}" for phase in range(NUM_PHASES))]
StateName = _names(ACTING_STATES)
ActionName = Literal[tuple(action.name.lower() for action in RedAction)]
BlueActionName = Literal[tuple(action.name.lower() for action in BlueAction)]
Cells = dict[_names(Subnet), list[float]]


class _Table(BaseModel):
    """A table of the file. Unknown keys and type conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:
        """Keys given in the file, without `like`."""
        return {key: getattr(self, key) for key in self.model_fields_set - {"like"}}


class _Plain(_Table):
    plain: int


class _Published(_Table):
    published: Annotated[int, Field(ge=0, lt=len(PUBLISHED_TOPOLOGIES))]


class _Network(_Table):
    servers: list[int]
    users: list[int]
    red_start: HostName = 0
    hq_start: _names(HQ) = "ADM"
    services: dict[_names(Service), list[HostName]] = {}
    closed: dict[PhaseName, list[Annotated[list[ZoneName], Field(min_length=2, max_length=2)]]] = {}


def _kind_of_topology(entry: Any) -> str:
    if isinstance(entry, str):
        return "<name>"
    return next((f"<{key}>" for key in ("plain", "published") if isinstance(entry, dict) and key in entry), "<network>")


_Topology = Annotated[
    Annotated[Literal["generate"], Tag("<name>")]
    | Annotated[_Plain, Tag("<plain>")]
    | Annotated[_Published, Tag("<published>")]
    | Annotated[_Network, Tag("<network>")],
    Discriminator(_kind_of_topology),
]
_Starts = Annotated[
    Annotated[Literal["thirds"], Tag("<name>")] | Annotated[list[int], Tag("<steps>")],
    Discriminator(lambda starts: "<name>" if isinstance(starts, str) else "<steps>"),
]


class _Arm(_Table):
    like: Literal[tuple(ARMS)] = "C00"
    topologies: list[_Topology] = []
    missions: list[list[float]] = []
    phase_starts: list[_Starts] = []
    reward_tables: list[dict[PhaseName, Cells]] = []
    games: list[str] = []
    reds: list[str] = []
    restore_cost: float = 1
    probabilities: dict[str, list[float]] = {}


class _Red(_Table):
    like: Literal[tuple(RED_ARGUMENTS)] = "sleep"
    actions: dict[StateName, dict[ActionName, float]] = {}
    role_weight: float = 1
    hunted: list[_names(Role)] = []
    state_weights: dict[StateName, float] = {}
    server_chance: float = 0


class _Game(_Table):
    like: Literal[tuple(cc4.GAMES)] = "base"
    phishing: float = 0
    work_alarm: float = 0
    visit_alarm: float = 0
    work: float = 0
    visit: float = 0
    aggressive_detection: float = 0
    stealth_detection: float = 0
    exploit_detection: float = 0
    servers: list[int] = []
    users: list[int] = []
    red_durations: dict[ActionName, int] = {}
    blue_durations: dict[BlueActionName, int] = {}
    restore_cost: float = 1
    red: str = ""


class _File(_Table):
    arms: dict[str, _Arm] = {}
    reds: dict[str, _Red] = {}
    games: dict[str, _Game] = {}


def parse(path: Path) -> dict[str, Any]:
    """Content of a TOML file. Raises UserError if it cannot be read."""
    try:
        with user_file(path, streams=True):
            return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise UserError(f"{path} is not a file of definitions: it nests too deep.") from error
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {error}.") from error


def _validate(path: Path, document: dict[str, Any]) -> _File:
    """Check all types, and that names are valid and not taken."""
    try:
        checked = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [key for key in map(str, first["loc"]) if not key.startswith("<") and key != "[key]"]
        where = f"[{'.'.join(keys[:2])}] {'.'.join(keys[2:])}".rstrip()
        what = "Unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where}: {what[0].lower()}{what[1:]}.") from error
    taken_names = {"arms": (*ARMS, *RESERVED), "reds": cc4.REDS, "games": tuple(cc4.GAMES)}
    if not any(getattr(checked, kind) for kind in taken_names):
        raise UserError(f"{path} defines nothing: add a table [arms.NAME], [reds.NAME] or [games.NAME].")
    for kind, taken in taken_names.items():
        for name in getattr(checked, kind):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{,99}", name):
                raise UserError(
                    f"{path}: [{kind}.{name!r}]: a name may only contain letters, digits, '_' and '-', at most 100."
                )
            if name in taken:
                raise UserError(f"{path}: [{kind}.{name}]: this name is taken, choose another.")
    return checked


def _build(path: Path, kind: str, name: str, build: Any, table: _Table) -> Any:
    try:
        return build(table)
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: [{kind}.{name}]: {error}") from error


def _arm(table: _Arm, games: Mapping[str, cc4.GameSpec], reds: Mapping[str, cc4.RedPolicy]) -> ArmSpec:
    fields = table.given()
    convert = {
        "topologies": _topology,
        "missions": tuple,
        "phase_starts": lambda starts: THIRDS if starts == "thirds" else tuple(starts),
        "reward_tables": _table_change,
        "games": Definitions(games=games).game,
        "reds": lambda name: reds.get(name, name),
    }
    fields |= {bank: tuple(map(one, fields[bank])) for bank, one in convert.items() if bank in fields}
    return replace(ARMS[table.like], **fields)


def _topology(entry: Any) -> Entry:
    if entry == GENERATE:
        return GENERATE
    if isinstance(entry, _Plain):
        return Plain(entry.plain)
    if isinstance(entry, _Published):
        return PUBLISHED_TOPOLOGIES[entry.published]
    services, allowed = np.zeros((len(Service), NUM_HOSTS), bool), ALLOWED.copy()
    for service, hosts in entry.services.items():
        services[Service[service], hosts] = True
    for phase, pairs in entry.closed.items():
        for a, b in pairs:
            allowed[_phase(phase), Subnet[a], Subnet[b]] = allowed[_phase(phase), Subnet[b], Subnet[a]] = False
    return Topology(entry.servers, entry.users, services, entry.red_start, Subnet[entry.hq_start], allowed)


def _table_change(cells_by_phase: Mapping[str, Cells]) -> TableChange:
    return {
        (_phase(phase), Subnet[subnet]): tuple(triple)
        for phase, cells in cells_by_phase.items()
        for subnet, triple in cells.items()
    }


def _phase(name: str) -> int:
    return int(name.removeprefix("phase_"))


def _red(table: _Red) -> cc4.RedPolicy:
    given, like = table.given(), RED_ARGUMENTS[table.like]
    rows = {Knowledge[state]: _row(state, row) for state, row in table.actions.items()}
    given["actions"] = like["actions"] | rows
    if "hunted" in given:
        given["hunted"] = tuple(Role[name] for name in table.hunted)
    if "state_weights" in given:
        given["state_weights"] = {Knowledge[state]: weight for state, weight in table.state_weights.items()}
    return cc4.red_policy(**{**like, **given})


def _game(table: _Game, reds: Mapping[str, cc4.RedPolicy]) -> cc4.GameSpec:
    given, like = table.given(), cc4.GAMES[table.like]
    if "red" in given and table.red not in (*cc4.REDS, *reds):
        raise UserError(f"unknown red {table.red!r}; known are {', '.join((*cc4.REDS, *reds))}.")
    for key, kinds in (("red_durations", RedAction), ("blue_durations", BlueAction)):
        if key in given:
            given[key] = {**getattr(like, key), **{kinds[name.upper()]: steps for name, steps in given[key].items()}}
    ranges = {key: tuple(given[key]) for key in ("servers", "users") if key in given}
    return replace(like, **given | ranges)


def _row(state: str, probabilities: Mapping[str, float]) -> tuple[float, ...]:
    if not abs(sum(probabilities.values()) - 1) <= 1e-6:
        raise UserError(f"the probabilities of actions.{state} must sum to 1, sleep included: {probabilities}.")
    return tuple(probabilities.get(action.name.lower(), 0.0) for action in RedAction)
