"""Arms of the diversity experiment as data: what may differ from one training episode to the next.

An arm is four banks (topologies, missions, phase starts, reward tables), each with probabilities over its entries, and
a price of Restore. All arms of an experiment are stacked to one pytree, so that one compiled program trains any set of
them. `python -m purecc4.arms` prints them all. An arm of your own is a few lines:

    from purecc4 import arms
    arms.ARMS["mine"] = arms.ArmSpec(missions=((1, 1, 1), (4, 1, 1)))
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, PyTree

from envs.cc4.constants import (
    ALLOWED,
    MAX_SERVERS,
    NUM_HOSTS,
    NUM_PHASES,
    NUM_ZONES,
    REWARDS,
    Subnet,
    Term,
)
from envs.cc4.params import Params
from envs.cc4.scenario import (
    ADDONS,
    Network,
    Topology,
    check_phase_starts,
    complete,
    draw_network,
    sample_uniforms,
)
from envs.cc4.state import Scenario
from purecc4 import pipes

GENERATE = "generate"
"""Entry of a topology bank: a network drawn afresh at every reset."""
THIRDS = None
"""Entry of a phase bank: three phases of equal length, 0, 167, 334 of 500 steps."""


@dataclass(frozen=True)
class Plain:
    """Entry of a topology bank: network `number` of an endless list that the generator drew once."""

    number: int


Entry = str | Plain | Topology
Triple = Sequence[int | float]
"""(LWF, ASF, RIA)"""
TableChange = Mapping[tuple[int, Subnet], Triple]
"""(phase, subnet): triple, what differs from the canonical reward table; {} is the canonical one."""


@dataclass(frozen=True)
class ArmSpec:
    """What may vary between the episodes of an arm. Raises ValueError, with one sentence, where that makes no sense."""

    topologies: Sequence[Entry] = (GENERATE,)
    missions: Sequence[Triple] = ((1, 1, 1),)
    """By which the whole reward table is multiplied."""
    phase_starts: Sequence[Sequence[int] | None] = (THIRDS,)
    """First steps of the three mission phases."""
    reward_tables: Sequence[TableChange] = ({},)
    restore_cost: int | float = 1
    """Reward lost to each submitted Restore; no bank touches it."""
    probabilities: Mapping[str, Sequence[int | float]] = field(default_factory=dict)
    """By the bank's name, of its entries; uniform where absent."""

    def __post_init__(self):
        for bank in BANKS:
            if not getattr(self, bank):
                raise ValueError(f"{bank} needs at least one entry.")
        for entry in self.topologies:
            if entry != GENERATE and not isinstance(entry, Plain | Topology):
                raise ValueError(f"a topology must be {GENERATE!r}, Plain(number) or a Topology: {entry!r}.")
        for triple in [*self.missions, *(triple for change in self.reward_tables for triple in change.values())]:
            if len(triple) != len(Term):
                raise ValueError(f"missions and rewards are triples (LWF, ASF, RIA): {tuple(triple)}.")
        for starts in self.phase_starts:
            if starts is not THIRDS:
                check_phase_starts(starts)
        for phase, subnet in (cell for change in self.reward_tables for cell in change):
            if phase not in range(NUM_PHASES) or subnet not in tuple(Subnet):
                raise ValueError(f"a reward table changes cells (phase 0..2, Subnet): {(phase, subnet)}.")
        if self.restore_cost < 0:
            raise ValueError(f"restore_cost must be at least 0: {self.restore_cost}.")
        self._check_probabilities()

    def _check_probabilities(self):
        for bank, weights in self.probabilities.items():
            if bank not in BANKS:
                raise ValueError(f"probabilities are given by bank, one of {', '.join(BANKS)}: {bank!r}.")
            count = len(getattr(self, bank))
            if len(weights) != count or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
                raise ValueError(f"{bank} needs {count} probabilities that sum to 1: {tuple(weights)}.")

    def weights(self, bank: str) -> np.ndarray:
        """Probabilities of the entries of a bank."""
        count = len(getattr(self, bank))
        return np.asarray(self.probabilities.get(bank, np.full(count, 1 / count)), np.float64)


BANKS = ("topologies", "missions", "phase_starts", "reward_tables")


def _published_topologies() -> tuple[Topology, ...]:
    """The study's 16 snapshots: 4 base networks (snapshot // 4) in 4 variants (snapshot % 4).

    Variants 1 and 2 also change links between routers. Links only decide which routers on the way raise an alert when
    SSH is forced, and nobody observes routers, so that this is left out. Variant 3 is variant 0 with CON and ADM parted
    in phase 1. The study does not list services; they are drawn once here, alike for variants 0 and 3.
    """
    parted = ALLOWED.copy()
    parted[1, Subnet.CON, Subnet.ADM] = parted[1, Subnet.ADM, Subnet.CON] = False
    zones = tuple(Subnet)[:NUM_ZONES]
    topologies = []
    with (files(__package__) / "topology_bank.csv").open() as file:
        for row in csv.DictReader(file):
            base, variant = divmod(int(row["snapshot"]), 4)
            _, kind, number = row["red0_start"].split()
            random = np.random.default_rng((base, variant % 3))
            topology = Topology(
                servers=tuple(int(row[f"{zone.name}_servers"]) for zone in zones),
                users=tuple(int(row[f"{zone.name}_users"]) for zone in zones),
                services=ADDONS[random.integers(len(ADDONS), size=NUM_HOSTS)].T,
                red_start=int(number) + (MAX_SERVERS if kind == "user" else 0),
                hq_start=Subnet[row["red5_start_subnet"]],
                allowed=parted if variant == 3 else ALLOWED,
            )
            topologies.append(topology)
    return tuple(topologies)


def _reward_tables() -> tuple[TableChange, ...]:
    rza, rzb, oza, ozb = Subnet.RZA, Subnet.RZB, Subnet.OZA, Subnet.OZB
    low, jewel, hq = (-1, -1, -1), (-10, 0, -10), (-5, -2, -5)
    rotated = {(1, oza): low, (1, ozb): jewel, (2, oza): jewel, (2, ozb): low}
    swapped = {(1, rza): low, (1, rzb): (-2, -1, -3), (2, rza): (-2, -1, -3), (2, rzb): (-1, -3, -3)}
    admin, office = {(1, Subnet.ADM): hq}, {(2, Subnet.OFF): hq}
    return {}, rotated | swapped, admin, office, {(1, ozb): jewel}, rotated | admin | office


PUBLISHED_TOPOLOGIES = _published_topologies()
MISSIONS = ((1, 1, 1), (3, 3, 1), (1, 3, 3), (3, 1, 3))
PHASE_STARTS = ((0, 167, 333), (0, 100, 300), (0, 200, 400), (0, 150, 250))
REWARD_TABLES = _reward_tables()

_C11 = ArmSpec(PUBLISHED_TOPOLOGIES, MISSIONS, PHASE_STARTS, REWARD_TABLES)
ARMS: dict[str, ArmSpec] = {
    "C00": ArmSpec(),
    "C11": _C11,
    "C11prime": replace(_C11, missions=((1, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5))),
    "miss": ArmSpec(missions=MISSIONS),
    "topo": ArmSpec(topologies=PUBLISHED_TOPOLOGIES),
    "pbound": ArmSpec(phase_starts=PHASE_STARTS),
    "cjewel": ArmSpec(reward_tables=REWARD_TABLES),
    "C11_notopo": replace(_C11, topologies=(GENERATE,)),
    "fixed222": ArmSpec(missions=((2, 2, 2),)),
    "restore_half": ArmSpec(restore_cost=0.5),
    "miss_mean1": ArmSpec(missions=tuple(tuple(factor / 2 for factor in triple) for triple in MISSIONS)),
    "topo_plain16": ArmSpec(topologies=tuple(map(Plain, range(16)))),
    "topo_plain256": ArmSpec(topologies=tuple(map(Plain, range(256)))),
}


class Bank(eqx.Module):
    entries: PyTree[Array]
    """Arrays with a leading axis of entries."""
    cumulative: Float[Array, "*arm entry"]
    """Running sum of the probabilities; 1 from the last entry of an arm on, so that padding is never drawn."""

    def pick(self, u: Float[Array, ""]) -> PyTree[Array]:
        """The entry that a uniform number stands for."""
        index = jnp.sum(self.cumulative <= u)
        return jax.tree.map(lambda entries: entries[index], self.entries)


class Arm(eqx.Module):
    """One arm, or with a leading axis several, as arrays; what `ArmSpec` says in words."""

    topologies: Bank
    """Of pairs (draw a network afresh?, Network)."""
    missions: Bank
    phase_starts: Bank
    """Negative for thirds of the episode."""
    reward_tables: Bank
    restore_cost: Float[Array, "*arm"]


def build(names: Sequence[str | ArmSpec]) -> Arm:
    """Stack arms, by name or given as data, on a leading axis; banks are padded to the largest of them.

    Raises ValueError, listing the known names, for an unknown one.
    """
    specs = [_spec(name) for name in names]
    networks = _networks([entry for spec in specs for entry in spec.topologies])
    arrays = {
        "topologies": lambda entry: (np.array(entry == GENERATE), networks[entry]),
        "missions": lambda entry: np.array(entry, np.float32),
        "phase_starts": lambda entry: np.array((-1,) * NUM_PHASES if entry is THIRDS else entry, np.int32),
        "reward_tables": reward_table,
    }
    banks = {
        bank: _bank([([array(entry) for entry in getattr(spec, bank)], spec.weights(bank)) for spec in specs])
        for bank, array in arrays.items()
    }
    return Arm(
        **banks,
        restore_cost=jnp.array([spec.restore_cost for spec in specs], jnp.float32),
    )


def sample(key: PRNGKeyArray, arm: Arm, params: Params) -> Scenario:
    """Draw an episode of one arm (no leading axis): network, then reward table, times mission, then phase starts.

    The key is split alike in all arms, one sub-key for each bank and one for the generator, so that arms given the same
    key draw the same entries of equal banks, and the same network where they draw one afresh. `params` are the
    environment's; networks of a bank keep their own number of operational servers, and `phase_starts` count steps
    whatever the length of the episode.
    """
    keys = jax.random.split(key, len(BANKS) + 1)
    of_topology, of_mission, of_starts, of_table = jax.vmap(jax.random.uniform)(keys[1:])
    uniforms = sample_uniforms(keys[0])
    drawn = draw_network(uniforms, params.operational_servers)
    fresh, kept = arm.topologies.pick(of_topology)
    network = jax.tree.map(lambda drawn, kept: jnp.where(fresh, drawn, kept), drawn, kept)
    scenario = complete(network, uniforms.roles, params)
    starts = arm.phase_starts.pick(of_starts)
    return replace(
        scenario,
        rewards=arm.reward_tables.pick(of_table) * arm.missions.pick(of_mission),
        phase_starts=jnp.where(starts < 0, scenario.phase_starts, starts),
        restore_cost=arm.restore_cost,
    )


def reward_table(change: TableChange) -> Float[np.ndarray, "phase subnet term"]:
    """The canonical reward table with some cells changed."""
    table = REWARDS.copy()
    for (phase, subnet), triple in change.items():
        table[phase, subnet] = triple
    return table


def _spec(name: str | ArmSpec) -> ArmSpec:
    if isinstance(name, ArmSpec):
        return name
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; known are {', '.join(ARMS)}.")
    return ARMS[name]


def _networks(entries: Sequence[Entry]) -> dict[Entry, Network]:
    """The network of every entry; of GENERATE a stand-in that is not used."""
    numbers = sorted({entry.number for entry in entries if isinstance(entry, Plain)})
    networks = {entry: entry.network() for entry in entries if isinstance(entry, Topology)}
    networks[GENERATE] = PUBLISHED_TOPOLOGIES[0].network()
    if numbers:
        plain = jax.device_get(_draw_plain(jnp.array(numbers)))
        networks |= {Plain(number): jax.tree.map(lambda x, i=i: x[i], plain) for i, number in enumerate(numbers)}
    return networks


def _bank(entries: Sequence[tuple[Sequence[PyTree], np.ndarray]]) -> Bank:
    """Stack the (entries, probabilities) of several arms."""
    largest = max(len(weights) for _, weights in entries)
    padded = [[*arm, *[arm[-1]] * (largest - len(arm))] for arm, _ in entries]
    cumulative = np.ones((len(entries), largest))
    for row, (_, weights) in zip(cumulative, entries, strict=True):
        running = np.cumsum(weights)
        row[: len(weights)] = running / running[-1]
    rows = [jax.tree.map(lambda *leaves: np.stack(leaves), *arm) for arm in padded]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
    return Bank(stacked, jnp.asarray(cumulative, jnp.float32))


@jax.jit
@jax.vmap
def _draw_plain(number: Int32[Array, ""]) -> Network:
    key_plain = jax.random.fold_in(jax.random.key(16), number)
    return draw_network(sample_uniforms(key_plain), jnp.int32(0))


def main() -> None:
    """Print every arm, then what is in each of their banks."""
    networks = _networks([entry for spec in ARMS.values() for entry in spec.topologies])
    print(_overview(networks))
    for bank in BANKS:
        contents: dict[str, list[str]] = {}
        for name, spec in ARMS.items():
            lines = _describe(bank, spec, networks)
            contents.setdefault(lines, []).append(name)
        for lines, names in contents.items():
            print(f"\n{bank} of {', '.join(names)}\n{lines}")


def _overview(networks: Mapping[Entry, Network]) -> str:
    rows = [("arm", "networks", "hosts", "missions", "mean", "phase starts", "mean", "tables", "mean sum", "Restore")]
    for name, spec in ARMS.items():
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
    """A line per entry: probability, content."""
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
            "drawn at every reset: 1..6 servers and 3..10 users a zone"
            if entry == GENERATE
            else _topology(entry, networks)
        )
    if bank == "reward_tables":
        cells = [f"phase {phase} {subnet.name} {_numbers(triple)}" for (phase, subnet), triple in entry.items()]
        return "canonical" if not cells else "; ".join(cells)
    return "thirds of the episode" if entry is THIRDS else _numbers(entry)


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
    """Hosts with the routers and the internet's; the expectation where they are drawn afresh."""
    hosts = NUM_ZONES * (3.5 + 6.5) if entry == GENERATE else np.sum(networks[entry].exists)
    return float(hosts + NUM_ZONES + 1)


def _mean(spec: ArmSpec, bank: str, value):
    return np.average([value(entry) for entry in getattr(spec, bank)], axis=0, weights=spec.weights(bank))


def _numbers(values) -> str:
    return ",".join(f"{value:.4g}" for value in np.atleast_1d(values))


if __name__ == "__main__":
    pipes.run(main)
