"""Statistics over seeds: paired differences, their intervals and tests, families of tests, numbers of seeds.

All arms of a study share their seeds: seed i has the same order of images and, in KD, the same teacher in each of them.
So the sample is d_i = after_i − before_i, i = 1..n, with mean d̄ and standard deviation s (ddof 1), and the tests are
those of one sample of d: t = d̄ / (s / √n) with n − 1 degrees of freedom (Student 1908). They assume that d is normal.

Seeds are never resampled: with three seeds a nominal 95 % bootstrap interval covers about 75 %.
Samples lie along the last axis, so that arrays of many of them are judged at once. If all d are the same, s = 0 and the
interval is a point.

Seeds of several kinds of machines are pooled with the kind as a block: d = δ + (effect of the block) + noise. The mean
is that of all d, s the deviation within blocks, and each block costs one degree of freedom.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy  # whose parts are imported where they are first used: stats alone costs a second
from numpy.typing import ArrayLike, NDArray
from pandas import Series

from spaced_kd.utils.errors import UserError

ALPHA = 0.05  # error of a family of statements
POWER = 0.8  # probability of detecting a true difference; Cohen (1988)
MOST_SEEDS = 10_000  # larger numbers of seeds are not practical
FEW_SEEDS = 10  # below this an exact test without the assumption of normality accompanies the t test


class Interval(NamedTuple):
    """Lower and upper limit."""

    low: float
    high: float


def shared_seeds(after: set[float], before: set[float]) -> set[float]:
    """Seeds expected of a difference of two arms.

    One arm may have more seeds; if each arm has seeds that the other lacks, the study is unfinished.

    >>> shared_seeds({0, 1, 2}, {0, 1}), shared_seeds({0, 1}, {1, 2})
    ({0, 1}, {0, 1, 2})
    """
    nested = after <= before or before <= after
    return after & before if nested else after | before


def unpaired(after: Series, before: Series, names: tuple[str, str]) -> str:
    """The seeds of each of two arms, as text; empty if one has none."""
    if after.empty or before.empty:
        return ""
    message = " and ".join(
        f"{name} has {_numbers(arm.index)}" for name, arm in zip(names, (after, before), strict=True)
    )
    return f"seeds are not paired: {message}: run both with the same"


def differences(after: Series, before: Series, names: tuple[str, str] = ("after", "before")) -> Series:
    """d_i = after_i − before_i, indexed by seed; UserError names the seeds without a partner."""
    for own, other, (name, partner) in ((after, before, names), (before, after, names[::-1])):
        if alone := sorted(set(own.index) - set(other.index)):
            raise UserError(
                f"seeds are not paired: {name} has {_numbers(alone)}, which {partner} lacks: run it, or leave it out"
            )
        if own.index.has_duplicates:
            raise UserError(f"seeds are not paired: {name} has {_numbers(own.index[own.index.duplicated()])} twice")
    return (after - before).sort_index()


Blocks = Sequence[Hashable] | None  # the block of each seed, in their order; None: all are of one


def deviation(d: ArrayLike, blocks: Blocks = None) -> tuple[NDArray[Any], int]:
    """Standard deviation s within blocks, and its degrees of freedom: n less the number of blocks."""
    d = _sample(d)
    n = d.shape[-1]
    names = list(dict.fromkeys(blocks)) if blocks is not None else [None]
    members = [
        np.array([block == name for block in blocks]) if blocks is not None else np.full(n, True) for name in names
    ]
    if n <= len(names):
        raise UserError("one seed of each kind of machine has no spread, and so no interval: run two of one kind")
    squares = [((d[..., own] - d[..., own].mean(-1, keepdims=True)) ** 2).sum(-1) for own in members]
    return np.sqrt(sum(squares) / (n - len(names))), n - len(names)


def deviation_interval(s: float, freedom: int, alpha: float = ALPHA) -> Interval:
    """Interval of a standard deviation: s √(ν / χ²(1 − α/2; ν)) to s √(ν / χ²(α/2; ν)), ν degrees of freedom."""
    return Interval(
        *(float(s * np.sqrt(freedom / scipy.stats.chi2.ppf(q, freedom))) for q in (1 - alpha / 2, alpha / 2))
    )


def paired_interval(d: ArrayLike, alpha: float = ALPHA, blocks: Blocks = None) -> Interval:
    """Interval of the mean difference: d̄ ± t(1 − α/2; ν) s / √n, ν = n − 1, or n less the number of blocks."""
    d = _sample(d)
    s, freedom = deviation(d, blocks)
    half = scipy.stats.t.ppf(1 - alpha / 2, freedom) * s / np.sqrt(d.shape[-1])
    return Interval(d.mean(-1) - half, d.mean(-1) + half)


def paired_test(d: ArrayLike, blocks: Blocks = None) -> NDArray[Any]:
    """Two-sided p of the hypothesis that the mean difference is 0: P(|T| ≥ |t|)."""
    t, freedom = _t(d, 0, blocks)
    return 2 * scipy.stats.t.sf(np.abs(t), freedom)


def equivalence_test(d: ArrayLike, margin: float, blocks: Blocks = None) -> NDArray[Any]:
    """P of the hypothesis that the mean difference lies outside of ±Δ, Δ being the margin.

    Two one-sided tests (Schuirmann 1987): the larger of P(T ≥ (d̄ + Δ) √n / s) and P(T ≤ (d̄ − Δ) √n / s). It is at most
    α exactly where `paired_interval(d, 2 α)` lies within ±Δ.
    """
    (low, freedom), (high, _) = _t(d, -margin, blocks), _t(d, margin, blocks)
    return np.maximum(scipy.stats.t.sf(low, freedom), scipy.stats.t.cdf(high, freedom))


def below_test(d: ArrayLike, margin: float, blocks: Blocks = None) -> NDArray[Any]:
    """P of the hypothesis that the mean difference is at least Δ, one-sided: P(T ≤ (d̄ − Δ) √n / s)."""
    t, freedom = _t(d, margin, blocks)
    return scipy.stats.t.cdf(t, freedom)


def sign_flip_test(d: ArrayLike) -> float:
    """Exact two-sided p of the hypothesis that each d_i is as likely as −d_i (Fisher 1935), for few seeds.

    The share of the 2ⁿ choices of signs whose mean is at least as far from 0 as the one found. It needs no normal
    distribution, and cannot be below 2 / 2ⁿ: 0.25 with three seeds, 0.0625 with five.
    """
    d = _sample(d)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    # sums that are equal but for rounding count as equal
    return float((np.abs(signs @ d) >= np.abs(d.sum()) - 1e-9 * np.abs(d).sum()).mean())


class Family(NamedTuple):
    """Hypotheses that are tested together."""

    p: NDArray[Any]  # adjusted: rejected where at most alpha
    levels: NDArray[Any]  # of each hypothesis's own interval


def holm(p: ArrayLike, alpha: float = ALPHA) -> Family:
    """Holm's adjustment (1979), and the levels of intervals that agree with its tests.

    The m hypotheses in order of p, k = 1..m: the first is rejected if p ≤ α / m, and if so the second if
    p ≤ α / (m − 1), and so on; the first that is not ends it. The adjusted p of the k-th is the largest
    (m − j + 1) p_j, j ≤ k, at most 1. However they depend on each other, the probability that any true one is rejected
    is at most α.

    The interval of the k-th has level α / (m − k + 1) if it is rejected, and α / m if not. So it excludes 0 exactly
    where Holm rejects. The intervals that contain 0 simultaneously cover their true values with a probability of 1 − α
    (Bonferroni), so they bound the size of a difference. Intervals of rejected hypotheses show that there is a
    difference, but are not simultaneous bounds of its size: those would be Bonferroni's, which are wider.

    >>> holm([0.5, 0.01, 0.02]).p.tolist()
    [0.5, 0.03, 0.04]
    """
    p = np.asarray(p, float)
    m = p.shape[-1]
    order = np.argsort(p, -1, kind="stable")
    rank = np.argsort(order, -1, kind="stable")  # k - 1
    steps = (m - np.arange(m)) * np.take_along_axis(p, order, -1)
    adjusted = np.take_along_axis(np.minimum(np.maximum.accumulate(steps, -1), 1), rank, -1)
    return Family(adjusted, alpha / np.where(adjusted <= alpha, m - rank, m))


def power(delta: float, s: float, n: int, alpha: float = ALPHA, sides: int = 2) -> float:
    """Probability that the paired t test with n seeds finds a true difference δ > 0, and finds it positive.

    P(T' > t(1 − α / sides; n − 1)), T' being noncentral t with n − 1 degrees of freedom and noncentrality δ √n / s. A
    rejection with the wrong sign does not count; leaving it out also avoids a tail that scipy cannot compute.
    """
    if s == 0:
        return float(delta > 0)
    freedom = n - 1
    return float(scipy.stats.nct.sf(scipy.stats.t.ppf(1 - alpha / sides, freedom), freedom, delta * np.sqrt(n) / s))


def detectable(s: float, n: int, alpha: float = ALPHA) -> float:
    """The smallest true difference that n seeds with standard deviation s find with a power of 80 %."""
    return s * _detectable_effect(n, alpha)


@cache  # many comparisons have the same number of seeds and level
def _detectable_effect(n: int, alpha: float) -> float:
    """The same in units of s."""
    beyond = 4 * (scipy.stats.t.ppf(1 - alpha / 2, n - 1) + 1) / np.sqrt(n)  # any detectable effect
    return float(scipy.optimize.brentq(lambda effect: power(effect, 1, n, alpha) - POWER, 0, beyond, xtol=1e-9))


def needed(delta: float, s: float, alpha: float = ALPHA, sides: int = 2) -> int | None:
    """The smallest number of seeds that finds a true difference δ > 0 with a power of 80 %; None beyond 10,000."""
    return _smallest(lambda n: power(delta, s, n, alpha, sides)) if delta > 0 else None


def needed_equivalent(mean: float, s: float, margin: float, alpha: float = ALPHA) -> int | None:
    """The smallest number of seeds that finds a true difference to lie within ±Δ with a power of 80 %.

    Both one-sided tests must reject, with probability at least π₁ + π₂ − 1, π being the power of each. None beyond
    10,000 seeds, or where the difference does not lie within.
    """
    near, far = margin - abs(mean), margin + abs(mean)
    if near <= 0:
        return None
    return _smallest(lambda n: power(near, s, n, alpha, 1) + power(far, s, n, alpha, 1) - 1)


def mcnemar(after: ArrayLike, before: ArrayLike) -> float:
    """Exact p of McNemar's test (1947) between two networks on the same N test images: a remark for a single seed.

    Of the b + c images on which one network alone is right, b belong to `after`: b ~ Binomial(b + c, 1/2) if both are
    right equally often. It compares these two networks, not two methods: another seed gives another network.

    Args:
        after: whether each image is classified rightly, (N,).
        before: the same of the other network.
    """
    after, before = _correct(after, before)
    b, c = int((after & ~before).sum()), int((before & ~after).sum())
    return float(scipy.stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def bootstrap_images(
    after: ArrayLike, before: ArrayLike, alpha: float = ALPHA, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over test images with fixed seeds: the variation of the difference over test images.

    In percentage points. Image j has the difference D_j = mean over seeds of after_ij − before_ij; N images are drawn
    with replacement and averaged, `draws` times (Efron 1979). It does not cover the variation over seeds, so it decides
    no claim.

    Args:
        after: whether each image is classified rightly, (seeds, N) or (N,).
        before: the same of the other arm, seeds in the same order.
        alpha: share of draws outside.
        draws: number of resampled test sets.
        seed: of the resampling.
    """
    after, before = (np.atleast_2d(each) for each in _correct(after, before))
    D = (after.astype(float) - before).mean(0)  # noqa: N806 (letter of the formula)
    # few values occur, so that drawing how often each comes is drawing images, and cheaper
    values, counts = np.unique(D, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(D), counts / len(D), size=draws)
    low, high = np.quantile(drawn @ values / len(D), [alpha / 2, 1 - alpha / 2])
    return Interval(100 * float(low), 100 * float(high))


def _sample(d: ArrayLike) -> NDArray[Any]:
    d = np.asarray(d, float)
    if d.shape[-1] < 2:
        raise UserError("one seed has no spread, and so no interval: run at least two")
    return d


def _t(d: ArrayLike, center: float, blocks: Blocks) -> tuple[NDArray[Any], int]:
    """(d̄ − center) √n / s and its degrees of freedom; without spread 0 at the center and infinite elsewhere."""
    d = _sample(d)
    s, freedom = deviation(d, blocks)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (d.mean(-1) - center) / (s / np.sqrt(d.shape[-1]))
    return np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf), freedom


def _smallest(power_of: Callable[[int], float]) -> int | None:
    """The smallest n from 2 on whose power is at least 80 %; power grows with n."""
    if power_of(MOST_SEEDS) < POWER:
        return None
    low, high = 1, 2
    while power_of(high) < POWER:
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle, high)
    return high


def _correct(after: ArrayLike, before: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    after, before = np.asarray(after, bool), np.asarray(before, bool)
    if after.shape != before.shape:
        raise UserError(
            f"two arms are compared on the same seeds and images, but have {after.shape} and {before.shape}"
        )
    return after, before


def _numbers(seeds: Iterable[float]) -> str:
    seeds = [f"{seed:g}" for seed in seeds]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
