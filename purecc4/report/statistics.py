"""Estimates over training seeds, the study's pre-registered verdict, and tests between two samples.

The verdict is the study's rule in the order of its code. The t-intervals and the bootstrap add what the rule lacks.
The samples of `estimate`, `verdict` and `bootstrap_iqm` are one number per training seed, because the seed is what was
drawn anew; the samples of `welch` and `tost` are one number per episode.
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
    """A mean over `n` seeds and how sure it is. With one seed every field after `mean` is NaN.

    `lower_bound` is the study's mean - stderr, `one_sided` the 95 % one-sided lower t-bound, `low` and `high` the
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
    """Difference of two means (first minus second), its interval, and the two-sided p-value of no difference."""

    gap: float
    low: float
    high: float
    p: float


def _sample(values: Sample) -> Float[np.ndarray, "run"]:
    sample = np.asarray(values, float).ravel()
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"A statistic needs at least one value and only finite ones, got {sample.tolist()}.")
    return sample


def estimate(values: Sample) -> Estimate:
    """Mean over seeds, its standard error (sample standard deviation / sqrt n) and its t-bounds.

    Raises ValueError on no values or on one that is not finite.
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
    """What each factor (0 or 1 in every run) adds to the mean, by ordinary least squares, all runs independent.

    The effects add up: no interactions. The t-bounds have runs - factors - 1 degrees of freedom. Raises ValueError
    where that is less than 1, or where the factors cannot be told apart.
    """
    design = np.column_stack([np.ones(len(values)), factors])
    runs, columns = design.shape
    if runs <= columns or np.linalg.matrix_rank(design) < columns:
        raise ValueError(f"{runs} runs do not tell the effects of {columns - 1} factors apart.")
    means, squares, *_ = np.linalg.lstsq(design, values, rcond=None)
    variance = squares[0] / (runs - columns) * np.diag(np.linalg.inv(design.T @ design))
    return [
        _bounds(runs, mean, stderr, runs - columns) for mean, stderr in zip(means[1:], variance[1:] ** 0.5, strict=True)
    ]


def sign_flip(deltas: Sample) -> bool:
    """Whether the paired deltas are not all positive and not all negative."""
    return len(set(np.sign(_sample(deltas)))) > 1


def verdict(deltas: Sample) -> str:
    """The pre-registered verdict on one paired delta per training seed, in the order of the study's code.

    Mean >= 200 and mean - stderr > 0 is CONFIRMED, so a sign flip does not stop it; otherwise mean <= 50 or a sign flip
    is REFUTED; otherwise INCONCLUSIVE. One seed has no standard error and gets no verdict.
    """
    found = estimate(deltas)
    if found.n == 1:
        return ONE_SEED
    if found.mean >= CONFIRM_MEAN and found.lower_bound > 0:
        return CONFIRMED
    return REFUTED if found.mean <= REFUTE_MEAN or sign_flip(deltas) else INCONCLUSIVE


def interquartile_mean(scores: np.ndarray, axis: int | None = None) -> np.ndarray | float:
    """Mean of what is left when a quarter (rounded down) is cut from each end: rliable's IQM (Agarwal et al. 2021)."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def bootstrap_iqm(scores: Float[np.ndarray, "run red"], draws: int = 10_000, seed: int = 0) -> Interval:
    """Interquartile mean over all seeds and reds, with its 95 % stratified percentile bootstrap interval.

    The reds are the strata: every resample holds each red equally often. One policy plays all reds, so a resample
    draws seeds once for all reds; drawing anew within each red, right where every task is trained for itself, would
    treat one seed's luck as four. Few seeds have few distinct resamples: below five seeds the interval is coarse, and
    one seed has none (NaN).
    """
    if len(scores) == 1:
        return Interval(float(interquartile_mean(scores)), float("nan"), float("nan"))
    picks = np.random.default_rng(seed).integers(len(scores), size=(draws, len(scores)))
    means = interquartile_mean(scores[picks].reshape(draws, -1), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(interquartile_mean(scores)), float(low), float(high))


def welch(first: Sample, second: Sample, confidence=0.95) -> Comparison:
    """Welch's t-test of two samples of unequal variance, at least two values each.

    Two constant samples are equal (p = 1) or different (p = 0); the interval then has no width.
    """
    a, b = _sample(first), _sample(second)
    if min(a.size, b.size) < 2:
        raise ValueError("A comparison of two means needs at least two values on each side.")
    gap = float(a.mean() - b.mean())
    if np.ptp(a) == np.ptp(b) == 0:
        return Comparison(gap, gap, gap, float(gap == 0))
    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = result.confidence_interval(confidence)
    return Comparison(gap, float(low), float(high), float(result.pvalue))


def tost(first: Sample, second: Sample, margin: float) -> float:
    """p-value of the two one-sided Welch tests that the means differ by less than `margin` (> 0)."""
    a, b = _sample(first), _sample(second)
    if np.ptp(a) == np.ptp(b) == 0:
        return float(abs(a.mean() - b.mean()) >= margin)
    above = stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    return float(max(above, below))


def smallest_margin(first: Sample, second: Sample, alpha=0.05) -> float:
    """Smallest margin within which TOST at level `alpha` calls the two means equivalent.

    It is the far end of the (1 - 2 alpha) interval of their difference.
    """
    found = welch(first, second, 1 - 2 * alpha)
    return max(abs(found.low), abs(found.high))
