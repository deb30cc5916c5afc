"""Print arms: the entries of their banks and the sampling probabilities; and games."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from purecc4.arms.define import Definitions, read
from purecc4.arms.sampling import find, networks_of, reward_table
from purecc4.arms.spec import ARMS, BANKS, GAME_BANKS, GENERATE, THIRDS, ArmSpec, Entry, Plain
from purecc4.envs import cc4
from purecc4.envs.cc4.checks import ACTING_STATES
from purecc4.envs.cc4.constants import (
    ALLOWED,
    MAX_SERVERS,
    NUM_ZONES,
    RedAction,
    Role,
    Subnet,
)
from purecc4.envs.cc4.scenario import Network, Topology


@dataclass(frozen=True)
class Config:
    """Print arms and their banks, and games."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Arms to print (default: all)."""
    define: Path | None = None
    """TOML file with your own arms, reds and games, which are printed as well."""


def run(config: Config) -> None:
    """Print a line per arm, then the contents of the banks, the reds of the file, and games unless arms are named."""
    own = read(config.define) if config.define else Definitions()
    specs = {name: find(name, own.arms) for name in config.names or (*ARMS, *own.arms)}
    networks = networks_of([entry for spec in specs.values() for entry in spec.topologies])
    print(_overview(specs, networks))
    for bank in (*BANKS, *GAME_BANKS):
        contents: dict[str, list[str]] = {}
        for name, spec in specs.items():
            if not getattr(spec, bank):
                continue
            lines = _describe(bank, spec, networks)
            contents.setdefault(lines, []).append(name)
        for lines, names in contents.items():
            print(f"\n{bank} of {', '.join(names)}\n{lines}")
    for name, red in own.reds.items():
        print(f"\nred {name}\n{_red(red)}")
    if not config.names:
        lines = [f"  {name:<14}{_game(game)}" for name, game in {**cc4.GAMES, **own.games}.items()]
        print("\n".join(["\ngames", *lines]))


def _overview(specs: Mapping[str, ArmSpec], networks: Mapping[Entry, Network]) -> str:
    rows = [("arm", "networks", "hosts", "missions", "mean", "phase starts", "mean", "tables", "mean sum", "Restore")]
    for name, spec in specs.items():
        fresh = set(spec.topologies) == {GENERATE}
        starts = None if THIRDS in spec.phase_starts else _mean(spec, "phase_starts", np.asarray)
        rows.append(
            (
                name,
                "fresh" if fresh else str(len(spec.topologies)),
                _numbers(_mean(spec, "topologies", lambda entry: _num_hosts(entry, networks))),
                str(len(spec.missions)),
                _numbers(_mean(spec, "missions", np.asarray)),
                str(len(spec.phase_starts)),
                "thirds" if starts is None else _numbers(starts),
                str(len(spec.reward_tables)),
                _numbers(_mean(spec, "reward_tables", lambda entry: reward_table(entry).sum((0, 1)))),
                _numbers(-spec.restore_cost),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _describe(bank: str, spec: ArmSpec, networks: Mapping[Entry, Network], most: int = 16) -> str:
    """Format a bank: probability and content, one line per entry."""
    entries = getattr(spec, bank)
    lines = [
        f"  {weight:<8.4g}{_entry(bank, entry, networks)}"
        for weight, entry in zip(spec.weights(bank)[:most], entries[:most], strict=True)
    ]
    if len(entries) > most:
        lines.append(f"  ... and {len(entries) - most} more")
    if bank == "topologies" and any(entry != GENERATE for entry in entries):
        zones = " ".join(f"{zone.name:5}" for zone in tuple(Subnet)[:NUM_ZONES])
        lines.insert(0, f"  {'p':8}hosts  {zones} (servers/users)  red 0 starts at, red 5 knows")
    return "\n".join(lines)


def _entry(bank: str, entry, networks: Mapping[Entry, Network]) -> str:
    if bank == "topologies":
        return (
            "generated at every reset: 1-6 servers and 3-10 users per zone"
            if entry == GENERATE
            else _topology(entry, networks)
        )
    if bank == "games":
        return _game(entry)
    if bank == "reds":
        return entry if isinstance(entry, str) else "a red of your own"
    if bank == "reward_tables":
        cells = [f"phase {phase} {subnet.name} {_numbers(triple)}" for (phase, subnet), triple in entry.items()]
        return "canonical" if not cells else "; ".join(cells)
    return "thirds of the episode" if entry is THIRDS else _numbers(entry)


def _game(game: cc4.GameSpec) -> str:
    """List the numbers that differ from the challenge."""

    def text(name: str, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"{name} {', '.join(f'{action.name.lower()} {steps}' for action, steps in value.items())}"
        return f"{name} {'-'.join(map(str, value))}" if isinstance(value, tuple) else f"{name} {value:.3g}"

    changes = [text(name, value) for name, value in game.changes().items() if name != "red"]
    changes += [f"red {game.red}"] * (game.red != "fsm")
    return "; ".join(changes) or "the challenge's"


def _topology(entry: Plain | Topology, networks: Mapping[Entry, Network]) -> str:
    exists = np.asarray(networks[entry].exists).reshape(NUM_ZONES, -1)
    counts = [f"{row[:MAX_SERVERS].sum()}/{row[MAX_SERVERS:].sum()}" for row in exists]
    slot = int(networks[entry].red_start)
    start = f"server {slot}" if slot < MAX_SERVERS else f"user {slot - MAX_SERVERS}"
    closed = np.argwhere(np.triu(ALLOWED & ~entry.allowed)) if isinstance(entry, Topology) else ()
    changes = [f", no {Subnet(a).name}-{Subnet(b).name} in phase {phase}" for phase, a, b in closed]
    zones = " ".join(f"{count:5}" for count in counts)
    total = int(_num_hosts(entry, networks))
    return f"{total:5}  {zones} {'':17}{start}, {Subnet(int(networks[entry].hq_start)).name}{''.join(changes)}"


def _num_hosts(entry: Entry, networks: Mapping[Entry, Network]) -> float:
    """Number of hosts including routers and the internet host. The expectation if networks are generated."""
    hosts = NUM_ZONES * (3.5 + 6.5) if entry == GENERATE else np.sum(networks[entry].exists)
    return float(hosts + NUM_ZONES + 1)


def _mean(spec: ArmSpec, bank: str, value):
    return np.average([value(entry) for entry in getattr(spec, bank)], axis=0, weights=spec.weights(bank))


def _numbers(values) -> str:
    return ",".join(f"{value:.4g}" for value in np.atleast_1d(values))


def _red(red: cc4.RedPolicy) -> str:
    """Format a red: weight (if states are weighted) and action probabilities, one line per host state."""
    lines = []
    for state, row in zip(ACTING_STATES, np.diff(red.action_cdf, prepend=0)[list(ACTING_STATES)], strict=True):
        weight = f"weight {red.state_weights[state]:<6.4g}" if red.by_state else ""
        actions = [f"{action.name.lower()} {p:.4g}" for action, p in zip(RedAction, row, strict=True) if p > 1e-6]
        lines.append(f"  {state.name:4}{weight}{', '.join(actions)}")
    if red.hunted.any():
        roles = [role.name for role in Role if red.hunted[role]]
        lines.append(f"  hosts with the roles {', '.join(roles)} weigh {red.role_weight:.4g}, others 1")
    if red.server_chance > 0:
        lines.append(f"  picks among known servers with probability {red.server_chance:.4g}")
    return "\n".join(lines)
