"""Free play matches the reference in distribution, and the comparison detects a biased simulator."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purecc4.envs.cc4.actions import ACTION_TABLE, action_mask
from purecc4.envs.cc4.constants import NUM_HOSTS, NUM_OBS, BlueAction
from purecc4.envs.cc4.state import Observation
from purecc4.errors import UserError
from purecc4.parity import distribution, scripted
from purecc4.parity.holm import holm
from purecc4.parity.translation import load

GOLDEN = Path(__file__).parents[1] / "golden"
act = jax.jit(jax.vmap(scripted.act, (None, 0, None)), static_argnums=0)


@pytest.fixture(scope="module")
def free():
    return distribution.play("block", 128)


@pytest.fixture(scope="module")
def reference():
    return distribution.read_returns(distribution.RETURNS)["block"]


@pytest.mark.slow
def test_totals_of_free_episodes_agree_with_the_reference(free, reference):
    gaps = distribution.compare_totals("block", free, [reference])
    assert (holm([gap.test.p for gap in gaps]) > distribution.LEVEL).all()


@pytest.mark.slow
def test_a_biased_simulator_would_be_noticed(free, reference):
    totals = free.totals | {name: 1.3 * free.totals[name] for name in ("return", "asf")}
    gaps = distribution.compare_totals("block", free._replace(totals=totals), [reference])
    noticed = {gap.quantity for gap, p in zip(gaps, holm([g.test.p for g in gaps]), strict=True) if p <= 0.01}
    assert noticed == {"return", "asf"}


@pytest.mark.slow
def test_the_course_of_free_episodes_agrees_with_the_golden_ones(free):
    traces = [load(path) for path in sorted(GOLDEN.glob("block_*.npz"))]
    gaps = distribution.compare_course("block", free, distribution.recorded(traces))
    assert len(gaps) == 80
    assert (holm([gap.test.p for gap in gaps]) > distribution.LEVEL).all()


@pytest.mark.slow
def test_parts_add_up_to_the_return(free):
    for episodes in (free, distribution.recorded([load(GOLDEN / "random_2001.npz")])):
        parts = sum(episodes.totals[name] for name in ("lwf", "asf", "ria", "cost"))
        np.testing.assert_allclose(episodes.totals["return"], parts)
        np.testing.assert_allclose(episodes.totals["failed_work"], episodes.course["failed work"].sum(axis=1))


def test_counted_rewards_separate():
    rewards = np.array([-10.0, -10, 0, -3])
    total, count = distribution._separate(jnp.float32((128 * rewards - 1).sum()))
    assert (total, count) == (-23, 4)


@pytest.mark.parametrize(
    ("name", "alerted", "wanted"),
    [
        ("sleep", True, {"SLEEP": 1}),
        ("defend", False, {"DEPLOY_DECOY": 0.85, "MONITOR": 0.15}),
        ("defend", True, {"RESTORE": 0.35, "REMOVE": 0.21, "ANALYSE": 0.14, "DEPLOY_DECOY": 0.15, "MONITOR": 0.15}),
        (
            "block",
            False,
            {"DEPLOY_DECOY": 0.85, "ALLOW_TRAFFIC_ZONE": 0.05, "BLOCK_TRAFFIC_ZONE": 0.05, "MONITOR": 0.05},
        ),
        ("block", True, {"RESTORE": 0.105, "REMOVE": 0.455, "ANALYSE": 0.14, "DEPLOY_DECOY": 0.15}),
    ],
)
def test_scripted_policies_act_with_their_frequencies(name, alerted, wanted):
    exists = jnp.arange(NUM_HOSTS) % 16 < 12
    vector = np.zeros((5, NUM_OBS), np.uint8)
    hosts = [slot + 27 + 1 for slot in (3, 7)] if alerted else []
    vector[:, hosts] = 1
    obs = Observation(jnp.asarray(vector), action_mask(exists))
    keys = jax.random.split(jax.random.key(1), 20_000)
    actions, messages = act(name, keys, obs)
    assert not messages.any()
    for agent in range(5):
        kind, host = np.moveaxis(ACTION_TABLE[agent, actions[:, agent], :2], -1, 0)
        for action, share in wanted.items():
            assert (kind == BlueAction[action]).mean() == pytest.approx(share, abs=0.015)
        assert set(host[kind == BlueAction.DEPLOY_DECOY]) <= set(np.flatnonzero(exists).tolist())
        treated = host[np.isin(kind, (BlueAction.RESTORE, BlueAction.REMOVE, BlueAction.ANALYSE))]
        assert set(treated % 16) == ({3, 7} if alerted and name != "sleep" else set())


def test_the_random_policy_takes_every_legal_action_equally_often():
    obs = Observation(jnp.zeros((5, NUM_OBS), jnp.uint8), action_mask(jnp.arange(NUM_HOSTS) % 16 < 2))
    actions, messages = act("random", jax.random.split(jax.random.key(2), 20_000), obs)
    for agent in range(5):
        share = np.bincount(actions[:, agent], minlength=242) / len(actions)
        legal = np.asarray(obs.mask[agent])
        assert share[~legal].max() == 0
        np.testing.assert_allclose(share[legal], 1 / legal.sum(), atol=0.01)
    assert np.asarray(messages).mean() == pytest.approx(0.5, abs=0.01)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_the_command_refuses_bad_input(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        distribution.run(distribution.Config(tmp_path))
    with pytest.raises(UserError, match="--episodes"):
        distribution.run(distribution.Config(GOLDEN, episodes=1))
    with pytest.raises(UserError, match=re.escape("missing.csv")):
        distribution.run(distribution.Config(GOLDEN, returns=tmp_path / "missing.csv"))
    (tmp_path / "other.csv").write_text("policy,return\nsleep,many\n")
    with pytest.raises(UserError, match="other"):
        distribution.run(distribution.Config(GOLDEN, returns=tmp_path / "other.csv"))
