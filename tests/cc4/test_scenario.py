"""The generator against `EnterpriseScenarioGenerator.py`, by frequency; and scenarios given as data."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purecc4.envs.cc4 import scenario as scenarios
from purecc4.envs.cc4.constants import ALLOWED, IS_SERVER, NO_HOST, NUM_ZONES, REWARDS, SLOTS, Role, Subnet
from purecc4.envs.cc4.params import make_params

NUM_DRAWS = 8192
ZONES = tuple(Subnet)[:NUM_ZONES]
OPERATIONAL = [Subnet.OZA, Subnet.OZB]


@eqx.filter_jit
def draw(key, params, count):
    return jax.vmap(lambda key: scenarios.generate(key, params))(jax.random.split(key, count))


def generated(operational_servers, seed):
    params = replace(make_params(), operational_servers=jnp.int32(operational_servers))
    drawn = draw(jax.random.key(seed), params, NUM_DRAWS)
    return jax.tree.map(np.asarray, drawn)


@pytest.fixture(scope="module")
def stock():
    return generated(0, seed=0)


@pytest.fixture(scope="module")
def with_roles():
    return generated(3, seed=1)


def count_servers(scenario):
    return scenario.exists.reshape(-1, NUM_ZONES, SLOTS)[..., : scenarios.MAX_SERVERS].sum(-1)


def count_users(scenario):
    return scenario.exists.reshape(-1, NUM_ZONES, SLOTS)[..., scenarios.MAX_SERVERS :].sum(-1)


def assert_frequencies(observed, expected):
    """Counts within five standard deviations of what the probabilities say (about 1 in a million by chance)."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    total = observed.sum()
    deviation = np.sqrt(total * expected * (1 - expected))
    assert np.all(np.abs(observed - total * expected) <= 5 * deviation + 1e-9), (observed / total, expected)


@pytest.mark.parametrize(("count", "least", "most"), [(count_servers, 1, 6), (count_users, 3, 10)])
def test_host_counts_are_uniform_in_every_zone(stock, count, least, most):
    values = np.arange(least, most + 1)
    for column in count(stock).T:
        assert_frequencies([(column == value).sum() for value in values], np.full(len(values), 1 / len(values)))


def test_host_counts_are_independent(stock):
    counts = np.concatenate([count_servers(stock), count_users(stock)], axis=1)
    correlation = np.corrcoef(counts.T) - np.eye(2 * NUM_ZONES)
    assert np.abs(correlation).max() < 5 / np.sqrt(NUM_DRAWS)


def test_hosts_fill_the_first_slots(stock):
    slots = stock.exists.reshape(-1, NUM_ZONES, SLOTS)
    for part in (slots[..., : scenarios.MAX_SERVERS], slots[..., scenarios.MAX_SERVERS :]):
        assert np.array_equal(part, np.sort(part, axis=-1)[..., ::-1])


def test_services_are_up_to_three_without_replacement(stock):
    assert not stock.services[~np.broadcast_to(stock.exists[:, None], stock.services.shape)].any()
    subset = (stock.services * np.array([1, 2, 4])[:, None]).sum(1)
    expected = np.full(8, 1 / 12)
    expected[[0, 7]] = 1 / 4
    assert_frequencies(np.bincount(subset[stock.exists], minlength=8), expected)
    for host in (0, 6, 32, 127):
        assert_frequencies(np.bincount(subset[stock.exists[:, host], host], minlength=8), expected)
    number = stock.services.sum(1)
    both = stock.exists[:, 0] & stock.exists[:, 16]
    assert abs(np.corrcoef(number[both, 0], number[both, 16])[0, 1]) < 5 / np.sqrt(both.sum())


def test_red_starts_on_any_contractor_host(stock):
    contractors = stock.exists[:, :SLOTS]
    assert contractors[np.arange(NUM_DRAWS), stock.red_start].all()
    probability = contractors / contractors.sum(1, keepdims=True)
    observed = np.bincount(stock.red_start, minlength=SLOTS)
    deviation = np.sqrt((probability * (1 - probability)).sum(0))
    assert np.all(np.abs(observed - probability.sum(0)) <= 5 * deviation)


def test_red_5_knows_one_headquarters_subnet(stock):
    assert_frequencies([(stock.hq_start == subnet).sum() for subnet in scenarios.HQ], np.full(3, 1 / 3))


def test_stock_game_has_no_roles(stock):
    assert np.all(stock.roles == NO_HOST)


def test_operational_servers_are_set_exactly(with_roles):
    assert np.all(count_servers(with_roles)[:, OPERATIONAL] == 3)
    others = [zone for zone in ZONES if zone not in OPERATIONAL]
    for column in count_servers(with_roles)[:, others].T:
        assert_frequencies(np.bincount(column, minlength=7)[1:], np.full(6, 1 / 6))
    assert count_users(with_roles)[:, OPERATIONAL].min() == 3
    assert count_users(with_roles)[:, OPERATIONAL].max() == 10


def test_roles_are_drawn_without_replacement(with_roles):
    hosts = np.array([32, 33, 34, 64, 65, 66])
    triples, counts = np.unique(with_roles.roles, axis=0, return_counts=True)
    assert np.isin(triples, hosts).all()
    assert all(len(set(triple)) == 3 for triple in triples.tolist())
    assert len(triples) == 6 * 5 * 4
    assert_frequencies(counts, np.full(120, 1 / 120))


def test_roles_that_find_no_server_stay_empty():
    roles = generated(1, seed=2).roles
    assert np.all(roles[:, Role.WEB] == NO_HOST)
    assert_frequencies([(roles[:, Role.AUTH] == 32).sum(), (roles[:, Role.AUTH] == 64).sum()], [0.5, 0.5])
    assert np.all(roles[:, Role.AUTH].astype(int) + roles[:, Role.DB] == 32 + 64)


def test_reachable_servers_are_running_counts(stock):
    servers = count_servers(stock)[:50]
    for scenario_servers, table in zip(servers, stock.servers[:50], strict=True):
        for phase, origin, last in np.ndindex(table.shape):
            reachable = [scenario_servers[zone] for zone in range(last + 1) if ALLOWED[phase, origin, zone]]
            assert table[phase, origin, last] == sum(reachable)


def test_every_green_agent_can_reach_a_server(stock):
    assert stock.servers[..., -1].min() >= 1


def test_tables_are_canonical(stock):
    assert np.all(stock.rewards == REWARDS)
    assert np.all(stock.restore_cost == 1)
    assert np.all(stock.phase_starts == (0, 167, 334))


def test_phases_are_thirds_of_any_length_longer_ones_first():
    lengths = np.arange(3, 100)
    starts = np.asarray(jax.jit(jax.vmap(scenarios._thirds))(lengths))
    third, rest = lengths // 3, lengths % 3
    assert np.array_equal(starts.T, [0 * third, third + (rest > 0), 2 * third + (rest > 0) + (rest > 1)])


def test_episode_length_is_data():
    short = draw(jax.random.key(3), make_params(num_steps=100), 4)
    assert np.all(short.phase_starts == np.array([0, 34, 67]))
    assert np.all(short.num_steps == 100)


def test_data_reproduce_a_generated_scenario(stock):
    drawn = jax.tree.map(lambda x: x[7], stock)
    topology = scenarios.Topology(
        servers=count_servers(stock)[7],
        users=count_users(stock)[7],
        services=drawn.services,
        red_start=int(drawn.red_start),
        hq_start=Subnet(int(drawn.hq_start)),
    )
    assert eqx.tree_equal(jax.tree.map(jnp.asarray, drawn), scenarios.from_data(topology))


def test_data_are_taken_as_given():
    allowed = np.ones_like(ALLOWED)
    topology = scenarios.Topology([1] * 8, [0] * 8, np.ones((3, 128)), allowed=allowed)
    given = scenarios.from_data(topology, 90, (0, 10, 20), 2 * REWARDS, 0.5, roles=(32, 64, NO_HOST))
    assert np.flatnonzero(given.exists).tolist() == list(range(0, 128, 16))
    assert np.array_equal(given.services, np.broadcast_to(given.exists, (3, 128)))
    assert np.all(given.servers == np.arange(1, 9))
    assert np.array_equal(given.rewards, 2 * REWARDS)
    assert (float(given.restore_cost), int(given.num_steps)) == (0.5, 90)
    assert given.phase_starts.tolist() == [0, 10, 20]
    assert given.roles.tolist() == [32, 64, NO_HOST]
    assert IS_SERVER[given.roles[:2]].all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"servers": (7, 1, 1, 1, 1, 1, 1, 1)}, "servers"),
        ({"servers": (0, 1, 1, 1, 1, 1, 1, 1)}, "servers"),
        ({"users": (3,) * 9}, "users"),
        ({"users": (11,) * 8}, "users"),
        ({"red_start": 1}, "red_start"),
        ({"red_start": 32}, "red_start"),
        ({"hq_start": Subnet.RZA}, "hq_start"),
        ({"services": np.zeros((128, 3))}, r"services.*\(3, 128\)"),
        ({"allowed": np.zeros((8, 8))}, r"allowed.*\(3, 8, 8\)"),
    ],
)
def test_impossible_networks_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        scenarios.Topology(**{"servers": (1,) * 8, "users": (3,) * 8} | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"phase_starts": (0, 20, 10)}, "increasing"),
        ({"phase_starts": (1, 2, 3)}, "increasing"),
        ({"rewards": np.zeros((9, 3))}, r"rewards.*\(3, 9, 3\)"),
        ({"roles": (32, 33, NO_HOST)}, "roles"),
        ({"roles": (32, 64)}, "roles"),
    ],
)
def test_impossible_episodes_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        scenarios.from_data(scenarios.Topology((1,) * 8, (3,) * 8), **change)
