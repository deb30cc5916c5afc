"""Recorded steps match sampled steps from the same states in expectation."""

from pathlib import Path

import numpy as np
import pytest

from purecc4.errors import UserError
from purecc4.parity import one_step, replay
from purecc4.parity.holm import holm

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.npz"))


@pytest.mark.slow
def test_recorded_steps_look_like_free_ones():
    groups = one_step.by_policy(replay.replay(GOLDEN, choose=False), GOLDEN)
    found = [gap for policy, results in groups.items() for gap in one_step.compare(policy, one_step.gaps(results))]
    assert len(found) > 300
    assert (holm([gap.p for gap in found]) > one_step.LEVEL).all()


def test_a_small_bias_in_every_step_is_significant_and_chance_is_not():
    fair = np.random.default_rng(0).choice([-1.0, 1.0], (8, 499))
    unbiased, biased, nothing = (
        one_step.compare("any", {"measure": values}) for values in (fair, fair + 0.1, np.zeros((8, 499)))
    )
    assert unbiased[0].p > 0.01 and nothing == []
    assert biased[0].p < 1e-6 and biased[0].mean == pytest.approx(49.9 + fair.sum() / 8)


def test_episodes_that_do_not_replay_are_refused():
    result = replay.Result("x", 1, replay.Difference(1, "reward", "", 0, -1), None)
    with pytest.raises(UserError, match="x does not replay"):
        one_step.gaps([result])
