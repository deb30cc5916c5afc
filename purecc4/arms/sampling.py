"""Arms as arrays: building stacked arms, and sampling an episode of an arm inside a compiled program."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, PRNGKeyArray, PyTree

from purecc4.arms.banks import PUBLISHED_TOPOLOGIES, TableChange
from purecc4.arms.spec import ARMS, BANKS, GENERATE, THIRDS, ArmSpec, Entry, Plain
from purecc4.envs.cc4.constants import NUM_PHASES, REWARDS
from purecc4.envs.cc4.games import BASE, build_game
from purecc4.envs.cc4.params import Params, RedPolicy, make_params
from purecc4.envs.cc4.scenario import Network, Topology, add_pid_gaps, complete, draw_network, sample_uniforms
from purecc4.envs.cc4.state import Scenario
from purecc4.errors import UserError

_MATCH = int.from_bytes(b"game", "big") >> 1
"""Folded into a key for game and red."""


class Bank(eqx.Module):
    """A categorical distribution over entries."""

    entries: PyTree[Array]
    """Arrays with a leading axis of entries."""
    cumulative: Float[Array, "*arm entry"]
    """Cumulative probabilities. They are 1 from the last entry of an arm onwards, so padding is never sampled."""

    def pick(self, u: Float[Array, ""]) -> PyTree[Array]:
        """Sample an entry by inversion of a uniform number in [0, 1)."""
        index = jnp.sum(self.cumulative <= u)
        return jax.tree.map(lambda entries: entries[index], self.entries)


class Arm(eqx.Module):
    """An `ArmSpec` as arrays, or several with a leading axis."""

    topologies: Bank
    """Bank of pairs (bool: generate a network, Network)."""
    missions: Bank
    phase_starts: Bank
    """Bank of phase starts in steps. Negative entries mean thirds of the episode."""
    reward_tables: Bank
    restore_cost: Float[Array, "*arm"]
    games: Bank | None = None
    """Bank of pairs (bool: the game of the training, Game); None if no arm of the stack has games."""
    reds: Bank | None = None
    """Likewise with red policies."""


def build(
    names: Sequence[str | ArmSpec], own: Mapping[str, ArmSpec] | None = None, num_steps: int | None = None
) -> Arm:
    """Stack arms, given by name or as data, on a leading axis. Banks are padded to the largest one.

    `own` maps further names to arms, such as `Definitions.arms`. Raises UserError for an unknown name (listing the
    known ones), for no arms, and if a phase of an unpublished arm starts after `num_steps`.
    """
    if not names:
        raise UserError("give at least one arm.")
    specs = [find(name, own or {}) for name in names]
    for spec in specs:
        if num_steps is not None and not any(spec is published for published in ARMS.values()):
            spec.check_fits(num_steps)
    networks = networks_of([entry for spec in specs for entry in spec.topologies])
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
        games=_bank_or_none([(list(map(build_game, spec.games)), spec.weights("games")) for spec in specs]),
        reds=_bank_or_none([([make_params(red).red for red in spec.reds], spec.weights("reds")) for spec in specs]),
    )


def sample(key: PRNGKeyArray, arm: Arm, params: Params) -> Scenario:
    """Sample an episode of one arm (no leading axis): network, reward table times mission, phase starts, Restore cost.

    All arms split the key in the same way: one sub-key per bank and one for the generator. Two arms with the same key
    therefore sample the same entries of equal banks and generate the same network if their game has the same sizes.
    `params` are those of the environment; game and red are theirs unless the arm has banks of them. Networks of a bank
    keep their own number of operational servers. `phase_starts` are in steps, independent of the episode length.
    """
    red, params = _sample_match(key, arm, params)
    keys = jax.random.split(key, len(BANKS) + 1)
    of_topology, of_mission, of_starts, of_table = jax.vmap(jax.random.uniform)(keys[1:])
    key_network = keys[0]
    uniforms = sample_uniforms(key_network)
    drawn = draw_network(uniforms, params.operational_servers, params.game)
    fresh, kept = arm.topologies.pick(of_topology)
    network = jax.tree.map(lambda drawn, kept: jnp.where(fresh, drawn, kept), drawn, kept)
    scenario = add_pid_gaps(key_network, complete(network, uniforms.roles, params), params)
    starts = arm.phase_starts.pick(of_starts)
    return replace(
        scenario,
        rewards=arm.reward_tables.pick(of_table) * arm.missions.pick(of_mission),
        phase_starts=jnp.where(starts < 0, scenario.phase_starts, starts),
        restore_cost=arm.restore_cost * params.game.restore_cost,
        red=red,
    )


def _sample_match(key: PRNGKeyArray, arm: Arm, params: Params) -> tuple[RedPolicy | None, Params]:
    """Sample red and game from the banks of an arm. The red is None without a bank."""
    of_game, of_red = jax.random.uniform(jax.random.fold_in(key, _MATCH), (2,))

    def pick(bank: Bank, u: Float[Array, ""], own: PyTree) -> PyTree:
        same, drawn = bank.pick(u)
        return jax.tree.map(lambda own, drawn: jnp.where(same, own, drawn), own, drawn)

    red = None if arm.reds is None else pick(arm.reds, of_red, params.red)
    return red, params if arm.games is None else replace(params, game=pick(arm.games, of_game, params.game))


def reward_table(change: TableChange) -> Float[np.ndarray, "phase subnet term"]:
    """Apply changes to the canonical reward table."""
    table = REWARDS.copy()
    for (phase, subnet), triple in change.items():
        table[phase, subnet] = triple
    return table


def find(name: str | ArmSpec, own: Mapping[str, ArmSpec]) -> ArmSpec:
    """Look up an arm, published or in `own`. Raises UserError for an unknown name, listing the known ones."""
    if isinstance(name, ArmSpec):
        return name
    known = {**ARMS, **own}
    if name not in known:
        raise UserError(f"unknown arm {name!r}; known are {', '.join(known)}.")
    return known[name]


def networks_of(entries: Sequence[Entry]) -> dict[Entry, Network]:
    """Build the network of every entry. GENERATE gets an unused placeholder."""
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


def _bank_or_none(entries: Sequence[tuple[Sequence[PyTree], np.ndarray]]) -> Bank | None:
    """Stack banks with a flag before every entry; an arm without entries gets one with the flag set."""
    given = [entry for arm, _ in entries for entry in arm]
    if not given:
        return None
    of_training = (np.array(True), jax.device_get(given[0]))
    flagged = [[(np.array(False), jax.device_get(entry)) for entry in arm] for arm, _ in entries]
    weights = [of_arm if arm else np.ones(1) for arm, of_arm in entries]
    return _bank([(arm or [of_training], of_arm) for arm, of_arm in zip(flagged, weights, strict=True)])


@jax.jit
@jax.vmap
def _draw_plain(number: Int32[Array, ""]) -> Network:
    key_plain = jax.random.fold_in(jax.random.key(16), number)
    return draw_network(sample_uniforms(key_plain), jnp.int32(0), build_game(BASE))
