"""Statistics against values by hand, SciPy, and the printed results of the study."""

import numpy as np
import pytest
from scipy import stats

from purecc4.play.tables import STUDY_REDS
from purecc4.report.published import HEADLINE, TEXT, published, published_deltas, published_value
from purecc4.report.statistics import (
    CONFIRM_MEAN,
    CONFIRMED,
    INCONCLUSIVE,
    ONE_SEED,
    REFUTE_MEAN,
    REFUTED,
    bootstrap_iqm,
    estimate,
    factor_effects,
    interquartile_mean,
    sign_flip,
    smallest_margin,
    tost,
    verdict,
    welch,
)


def samples(n: int = 40, m: int = 25) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0.0, 1.0, n), rng.normal(0.3, 2.0, m)


def test_estimate_by_hand():
    found = estimate([1.0, 2.0, 6.0])  # mean 3, deviations -2 -1 3, variance 7
    stderr = (7 / 3) ** 0.5
    assert found.n == 3 and found.mean == 3
    assert found.stderr == pytest.approx(stderr)
    assert found.lower_bound == pytest.approx(3 - stderr)
    assert found.one_sided == pytest.approx(3 - 2.919986 * stderr, abs=1e-5)
    assert found.low == pytest.approx(3 - 4.302653 * stderr, abs=1e-5)
    assert found.high == pytest.approx(3 + 4.302653 * stderr, abs=1e-5)


def test_estimate_agrees_with_scipy():
    values, _ = samples()
    found = estimate(values)
    assert found.stderr == pytest.approx(stats.sem(values))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    one_sided = stats.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95)
    assert found.one_sided == pytest.approx(one_sided.low)


def test_one_seed_has_only_a_mean():
    found = estimate([7.0])
    assert (found.n, found.mean) == (1, 7.0)
    assert np.isnan(found[2:]).all()
    assert verdict([500.0]) == ONE_SEED


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_empty_and_non_finite_samples_are_rejected(values):
    with pytest.raises(ValueError, match="finite"):
        estimate(values)


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([200.0, 200.0, 200.0], CONFIRMED),  # the threshold itself confirms
        ([199.0, 200.0, 200.0], INCONCLUSIVE),
        ([-10.0, 400.0, 600.0], CONFIRMED),  # despite a sign flip
        ([-300.0, 400.0, 600.0], REFUTED),  # mean 233, stderr 273: not confirmed, and the signs differ
        ([50.0, 50.0, 50.0], REFUTED),  # the threshold itself refutes
        ([51.0, 51.0, 52.0], INCONCLUSIVE),
        ([-1.0, 100.0, 300.0], REFUTED),
        ([0.0, 100.0, 300.0], REFUTED),  # zero is not a positive delta
        ([-500.0, -400.0, -300.0], REFUTED),
    ],
)
def test_verdict_in_the_order_of_the_rule(deltas, expected):
    assert verdict(deltas) == expected


def test_one_factor_is_the_pooled_t_test():
    off, on = samples()
    (found,) = factor_effects(np.repeat([[0.0], [1.0]], [len(off), len(on)], axis=0), np.concatenate([off, on]))
    interval = stats.ttest_ind(on, off, equal_var=True).confidence_interval(0.95)
    assert found.n == len(off) + len(on) and found.mean == pytest.approx(on.mean() - off.mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_two_factors_by_hand():
    """Four runs: each effect is a difference of means of two runs; residuals of 0.5 give a variance of 1."""
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])
    found = factor_effects(corners, np.array([0.0, 5.0, 11.0, 18.0]))
    assert [effect.mean for effect in found] == pytest.approx([12, 6])
    assert [effect.stderr for effect in found] == pytest.approx([1, 1])


@pytest.mark.parametrize("factors", [[[0, 0], [0, 1], [1, 0]], [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]])
def test_unidentifiable_factors_are_rejected(factors):
    with pytest.raises(ValueError, match="effects of 2 factors"):
        factor_effects(np.array(factors, float), np.arange(float(len(factors))))


def test_sign_flip():
    assert not sign_flip([1.0, 2.0]) and not sign_flip([-1.0, -2.0])
    assert sign_flip([1.0, -2.0]) and sign_flip([0.0, 2.0])


@pytest.mark.parametrize("red", STUDY_REDS)
def test_published_deltas_are_reproduced(red):
    """The printed deltas by seed are rounded, so mean, stderr and bound agree within one point."""
    deltas = published_deltas(red)
    found = estimate(deltas)
    rows = published()
    printed = rows[(rows["source"] == HEADLINE) & (rows["red"] == red)].set_index("metric")["value"]
    assert verdict(deltas) == printed["verdict"] == CONFIRMED
    assert not sign_flip(deltas)
    assert found.mean == pytest.approx(float(printed["paired_delta_mean"]), abs=1)
    assert found.stderr == pytest.approx(float(printed["paired_delta_stderr"]), abs=1)
    assert found.lower_bound == pytest.approx(float(printed["lower_bound_mean_minus_stderr"]), abs=1)


def test_published_deltas_under_t_bounds():
    found = [estimate(published_deltas(red)) for red in STUDY_REDS]
    assert [round(each.one_sided) for each in found] == [189, 136, 49, 52]
    assert all(each.low < 0 < each.high for each in found)


def test_thresholds_are_those_of_the_study():
    assert float(published_value(TEXT, "rule", "all", "confirm_min_delta")) == CONFIRM_MEAN
    assert float(published_value(TEXT, "rule", "all", "refute_max_delta")) == REFUTE_MEAN
    with pytest.raises(KeyError):
        published_value(TEXT, "rule", "fsm", "confirm_min_delta")


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -90.0])) == 3.5
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0  # three values are not trimmed


def test_bootstrap_resamples_seeds_jointly_for_all_reds():
    """With two seeds a resample is seed 0 twice (1/4), seed 1 twice (1/4) or both, so the interval spans both."""
    scores = np.array([[0.0, 10.0], [100.0, 110.0]])
    found = bootstrap_iqm(scores)
    assert found.value == 55.0  # middle two of 0 10 100 110
    assert (found.low, found.high) == (5.0, 105.0)  # within a seed: middle two of 0 0 10 10
    assert np.isnan(bootstrap_iqm(scores[:1])[1:]).all()


def test_bootstrap_has_the_right_width_and_is_deterministic():
    rng = np.random.default_rng(0)
    scores = rng.normal(50.0, 10.0, (60, 4))
    found = bootstrap_iqm(scores)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 10 / 240**0.5 * 1.1, rel=0.35)
    assert bootstrap_iqm(scores) == found
    assert bootstrap_iqm(scores, seed=1) != found


def test_welch_agrees_with_scipy():
    a, b = samples()
    found, expected = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.gap == pytest.approx(a.mean() - b.mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_welch_by_hand():
    found = welch([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])  # variances 1 and 4, so stderr sqrt(5/3), df 50/17
    t = -3 / (5 / 3) ** 0.5
    assert found.p == pytest.approx(2 * stats.t.cdf(t, 50 / 17))


def test_constant_samples():
    assert welch([1.0, 1.0], [1.0, 1.0]).p == 1.0
    assert welch([1.0, 1.0], [2.0, 2.0]).p == 0.0
    assert tost([1.0, 1.0], [1.0, 1.0], 0.1) == 0.0
    assert tost([1.0, 1.0], [2.0, 2.0], 0.5) == 1.0
    with pytest.raises(ValueError, match="two values"):
        welch([1.0], [1.0, 2.0])


def test_smallest_margin_has_a_tost_p_of_alpha():
    a, b = samples()
    margin = smallest_margin(a, b)
    assert tost(a, b, margin) == pytest.approx(0.05)
    assert tost(a, b, 1.01 * margin) < 0.05 < tost(a, b, 0.99 * margin)


def test_tost_by_hand():
    """Equal spread, gap 0: both one-sided tests have t = margin / stderr."""
    a = np.array([-1.0, 0.0, 1.0])
    stderr = (2 / 3) ** 0.5
    assert tost(a, a, 2.0) == pytest.approx(stats.t.sf(2 / stderr, 4))
