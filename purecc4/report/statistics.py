"""Estimates over training seeds, the study's pre-registered verdict, and tests between two samples.

The verdict is the study's rule in the order of its code. The t-intervals and the bootstrap add the uncertainty that the
rule ignores. Samples of `estimate`, `verdict` and `bootstrap_iqm` have one value per training seed, because the seed is
what was resampled. Samples of `welch` and `tost` have one value per episode.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

Sample = Sequence[float] | np.ndarray | pd.Series

CONFIRM_MEAN, REFUTE_MEAN = 200.0, 50.0  # points of return per episode, from the study's pre-registration
CONFIRMED, REFUTED, INCONCLUSIVE, ONE_SEED = "CONFIRMED", "REFUTED", "INCONCLUSIVE", "ONE SEED"


class Estimate(NamedTuple):
    """Mean over `n` seeds with its uncertainty. With one seed all fields after `mean` are NaN.

    `lower_bound` is the study's mean - stderr, `one_sided` the one-sided 95 % lower t-bound. `low` and `high` are the
    two-sided 95 % t-interval.
    """

    n: int
    mean: float
    stderr: float
    lower_bound: float
    one_sided: float
    low: float
    high: float


class Interval(NamedTuple):
    """A value with a 95 % interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Gap between two means (first minus second), its interval, and the two-sided p-value of no difference."""

    gap: float
    low: float
    high: float
    p: float


def _sample(values: Sample) -> Float[np.ndarray, "run"]:
    sample = np.asarray(values, float).ravel()
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"a statistic needs at least one value, all finite: {sample.tolist()}.")
    return sample


def estimate(values: Sample) -> Estimate:
    """Mean over seeds, standard error (sample standard deviation / sqrt n) and t-bounds.

    Raises ValueError for no values or a non-finite one.
    """
    sample = _sample(values)
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return Estimate(1, mean, *[float("nan")] * 5)
    return _bounds(n, mean, stats.sem(sample), n - 1)


def _bounds(n: int, mean: float, stderr: float, freedom: int) -> Estimate:
    one_sided, half = stats.t.ppf([0.95, 0.975], freedom) * stderr
    return Estimate(n, *map(float, (mean, stderr, mean - stderr, mean - one_sided, mean - half, mean + half)))


def factor_effects(factors: Float[np.ndarray, "run factor"], values: Float[np.ndarray, "run"]) -> list[Estimate]:
    """Additive effect of each factor (0 or 1 per run) by ordinary least squares, with all runs independent.

    The model has no interactions. The t-bounds have runs - factors - 1 degrees of freedom. Raises ValueError if that is
    less than 1, or if the factors are not identifiable.
    """
    design = np.column_stack([np.ones(len(values)), factors])
    runs, columns = design.shape
    if runs <= columns or np.linalg.matrix_rank(design) < columns:
        raise ValueError(f"{runs} runs do not identify the effects of {columns - 1} factors.")
    means, squares, *_ = np.linalg.lstsq(design, values, rcond=None)
    variance = squares[0] / (runs - columns) * np.diag(np.linalg.inv(design.T @ design))
    return [
        _bounds(runs, mean, stderr, runs - columns) for mean, stderr in zip(means[1:], variance[1:] ** 0.5, strict=True)
    ]


def sign_flip(deltas: Sample) -> bool:
    """Return True unless all paired deltas are positive or all are negative."""
    return len(set(np.sign(_sample(deltas)))) > 1


def verdict(deltas: Sample) -> str:
    """The pre-registered verdict on the paired deltas by training seed, in the order of the study's code.

    Mean >= 200 and mean - stderr > 0 is CONFIRMED, even with a sign flip. Otherwise mean <= 50 or a sign flip is
    REFUTED, and anything else INCONCLUSIVE. A single seed has no standard error and gets no verdict.
    """
    found = estimate(deltas)
    if found.n == 1:
        return ONE_SEED
    if found.mean >= CONFIRM_MEAN and found.lower_bound > 0:
        return CONFIRMED
    return REFUTED if found.mean <= REFUTE_MEAN or sign_flip(deltas) else INCONCLUSIVE


def interquartile_mean(scores: np.ndarray, axis: int | None = None) -> np.ndarray | float:
    """Mean after trimming a quarter (rounded down) from each end: rliable's IQM (Agarwal et al. 2021)."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def bootstrap_iqm(scores: Float[np.ndarray, "run red"], draws: int = 10_000, seed: int = 0) -> Interval:
    """Interquartile mean over all seeds and reds, with its 95 % stratified percentile bootstrap interval.

    The reds are the strata: every resample has each red equally often. One policy plays all reds, so a resample draws
    seeds jointly for all reds. Resampling within each red, which is correct if every task is trained separately, would
    count the luck of one seed four times. Few seeds have few distinct resamples: below five seeds the interval is
    coarse, and with one seed it is NaN.
    """
    if len(scores) == 1:
        return Interval(float(interquartile_mean(scores)), float("nan"), float("nan"))
    picks = np.random.default_rng(seed).integers(len(scores), size=(draws, len(scores)))
    means = interquartile_mean(scores[picks].reshape(draws, -1), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(interquartile_mean(scores)), float(low), float(high))


def welch(first: Sample, second: Sample, confidence=0.95) -> Comparison:
    """Welch's t-test of two samples with unequal variances. Raises ValueError below two values per sample.

    Two constant samples are equal (p = 1) or different (p = 0), with an interval of width 0.
    """
    a, b = _sample(first), _sample(second)
    if min(a.size, b.size) < 2:
        raise ValueError("a comparison of two means needs at least two values per sample.")
    gap = float(a.mean() - b.mean())
    if np.ptp(a) == np.ptp(b) == 0:
        return Comparison(gap, gap, gap, float(gap == 0))
    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = result.confidence_interval(confidence)
    return Comparison(gap, float(low), float(high), float(result.pvalue))


def tost(first: Sample, second: Sample, margin: float) -> float:
    """p-value of the two one-sided Welch tests for a difference smaller than `margin` (> 0)."""
    a, b = _sample(first), _sample(second)
    if np.ptp(a) == np.ptp(b) == 0:
        return float(abs(a.mean() - b.mean()) >= margin)
    above = stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    return float(max(above, below))


def smallest_margin(first: Sample, second: Sample, alpha=0.05) -> float:
    """Smallest margin at which TOST at level `alpha` finds the two means equivalent.

    It is the far end of the (1 - 2 alpha) interval of their difference.
    """
    found = welch(first, second, 1 - 2 * alpha)
    return max(abs(found.low), abs(found.high))
