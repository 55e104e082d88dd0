import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from spaced_kd.analysis import statistics
from spaced_kd.analysis.statistics import Interval
from spaced_kd.utils.errors import UserError

MANY = 10_000
# Student (1908): additional hours of sleep of ten patients under two drugs
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def covers(interval, value=0.0):
    return (interval.low <= value) & (value <= interval.high)


def test_paired_t_of_students_own_data():
    low, high = statistics.paired_interval(SLEEP)
    assert (low, high) == pytest.approx((0.7001, 2.4599), abs=5e-5)
    assert statistics.paired_test(SLEEP) == pytest.approx(0.002833, abs=5e-7)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_paired_interval_covers_as_it_says(n):
    # arms share what their seed decides: order, teacher
    shared, after, before = 5 * draw(MANY, n, seed=1), draw(MANY, n, seed=2), draw(MANY, n, seed=3)
    d = (0.7 + shared + after) - (shared + before)
    assert 0.93 < covers(statistics.paired_interval(d), 0.7).mean() < 0.97


def test_other_intervals_would_be_found_out():
    d = draw(MANY, 3)
    mean, s = d.mean(1), d.std(1, ddof=1)
    normal = Interval(mean - 1.96 * s / 3**0.5, mean + 1.96 * s / 3**0.5)
    assert covers(normal).mean() < 0.9
    resampled = np.sort([d[:, list(chosen)].mean(1) for chosen in itertools.product(range(3), repeat=3)], axis=0)
    assert 0.7 < covers(Interval(resampled[0], resampled[-1])).mean() < 0.8  # why seeds are never resampled


def test_pairs_are_narrower_than_two_samples():
    shared = 5 * draw(5)
    after, before = shared + 1 + 0.1 * draw(5, seed=1), shared
    assert statistics.paired_test(after - before) < 0.01 < stats.ttest_ind(after, before).pvalue


def test_holm_of_a_textbook():
    family = statistics.holm([0.01, 0.04, 0.03, 0.005])
    assert family.p == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert family.levels == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 4, 0.05 / 4])
    assert statistics.holm([0.04]).levels == pytest.approx([0.05])


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(0).random((5, 8)) ** 3
    twins = [multipletests(values, method="holm")[1] for values in p]
    assert statistics.holm(p).p == pytest.approx(np.array(twins))


def test_power_is_that_of_statsmodels():
    for n, effect in ((3, 1.0), (10, 0.5)):
        assert statistics.power(effect, 1, n, 0.05, sides=1) == pytest.approx(
            TTestPower().power(effect, n, 0.05, alternative="larger")
        )


def families(true, n=5, count=MANY):
    """Differences of families of 8 claims that share an arm, `true` of which are of no difference: (count, 8, n)."""
    effects = np.where(np.arange(8) < true, 0, 3.0)
    return effects[None, :, None] + draw(count, 8, n) - draw(count, 1, n, seed=1)


@pytest.mark.parametrize("true", [8, 4, 1])
def test_holms_family_wise_error_is_kept(true):
    d = families(true)
    p = statistics.paired_test(d)
    family = statistics.holm(p)
    interval = statistics.paired_interval(d, family.levels)
    assert np.array_equal(~covers(interval), family.p <= 0.05)  # the interval says what the test says
    wrong = (~covers(interval))[:, :true].any(1)
    outside = (covers(interval) & ~covers(interval, np.where(np.arange(8) < true, 0, 3.0))).any(1)
    limit = 0.05 + 2 * (0.05 * 0.95 / len(d)) ** 0.5
    assert wrong.mean() <= limit
    assert outside.mean() <= limit  # intervals that contain 0 bound the size, all together
    if true == 8:
        assert (p.min(1) < 0.05).mean() > limit  # so this can fail: it does without an adjustment


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equivalence_has_its_size(n):
    d = 0.5 + 0.1 * draw(MANY, n)  # on the margin, so not within
    error = (statistics.equivalence_test(d, 0.5) <= 0.05).mean()
    assert error == pytest.approx(0.05, abs=2.5 * (0.05 * 0.95 / MANY) ** 0.5)


def test_equivalence_is_the_interval_of_twice_the_level_within_the_margin():
    d = 0.2 + 0.3 * draw(1000, 4)
    low, high = statistics.paired_interval(d, 2 * 0.05)
    within = (low >= -0.5) & (high <= 0.5)
    assert 0 < within.mean() < 1
    assert np.array_equal(statistics.equivalence_test(d, 0.5) <= 0.05, within)


@pytest.mark.parametrize(("n", "alpha", "delta"), [(3, 0.05, 2.5), (5, 0.05, 1.5), (10, 0.01, 1.2)])
def test_power_is_that_of_simulated_seeds(n, alpha, delta):
    low, _ = statistics.paired_interval(delta + draw(MANY, n), alpha)
    assert statistics.power(delta, 1, n, alpha) == pytest.approx((low > 0).mean(), abs=0.015)


def test_seeds_that_are_needed():
    assert statistics.needed(0.5, 1) == 34  # Cohen (1988), a medium effect
    assert statistics.needed(0.5, 1, sides=1) == 27
    assert statistics.power(0.5, 1, 34) > 0.8 > statistics.power(0.5, 1, 33)
    assert statistics.needed(1, 2) == statistics.needed(0.5, 1)
    assert statistics.needed(0, 1) is None
    assert statistics.needed(1e-4, 1) is None
    assert statistics.needed(1, 0) == 2


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 60])
def test_detectable_difference_is_where_the_power_is(n, alpha):
    delta = statistics.detectable(1.5, n, alpha)
    assert statistics.power(delta, 1.5, n, alpha) == pytest.approx(0.8, abs=1e-6)
    assert n >= 10 or statistics.needed(delta * 1.0001, 1.5, alpha) == n


def test_seeds_that_show_equivalence():
    n = statistics.needed_equivalent(0.1, 1, 0.5)
    found = statistics.equivalence_test(0.1 + draw(MANY // 5, n), 0.5) <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert statistics.needed_equivalent(0.5, 1, 0.5) is None


def test_differences_follow_the_seed_and_not_the_place():
    after, before = pd.Series({2: 7.0, 0: 5.0}), pd.Series({0: 1.0, 2: 4.0})
    assert statistics.differences(after, before).to_dict() == {0: 4.0, 2: 3.0}


def test_unpaired_seeds_are_refused_by_name():
    after, before = pd.Series({0: 1.0, 1: 1.0, 4: 1.0}), pd.Series({0: 1.0, 1: 1.0})
    with pytest.raises(UserError, match="not paired: spaced has seed 4, which online lacks"):
        statistics.differences(after, before, ("spaced", "online"))
    with pytest.raises(UserError, match="not paired: online has seed 4, which spaced lacks"):
        statistics.differences(before, after, ("spaced", "online"))
    with pytest.raises(UserError, match="after has seed 1 twice"):
        statistics.differences(pd.Series([1.0, 2.0], index=[1, 1]), pd.Series({1: 1.0}))


def test_one_seed_has_no_interval():
    with pytest.raises(UserError, match="one seed"):
        statistics.paired_interval([1.0])


def test_without_spread_the_interval_is_a_point():
    assert statistics.paired_interval([2.0, 2.0]) == (2, 2)
    assert statistics.paired_test([2.0, 2.0]) == 0
    assert statistics.paired_test([0.0, 0.0]) == 1
    assert statistics.detectable(0, 3) == 0


def test_mcnemar_counts_only_where_one_is_right():
    after, before = np.array([1] * 9 + [0] + [1] * 50), np.array([0] * 9 + [1] + [1] * 50)
    assert statistics.mcnemar(after, before) == pytest.approx(2 * (1 + 10) / 2**10)
    assert statistics.mcnemar(before, before) == 1


def test_bootstrap_over_images_is_that_of_drawing_images():
    rng = np.random.default_rng(1)
    after, before = rng.random((3, 400)) < 0.8, rng.random((3, 400)) < 0.7
    interval = statistics.bootstrap_images(after, before)
    D = (after.astype(float) - before).mean(0)  # noqa: N806
    means = [100 * D[rng.integers(400, size=400)].mean() for _ in range(4000)]
    assert interval == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.3)
    assert interval == statistics.bootstrap_images(after, before)


def test_networks_on_different_images_are_refused():
    with pytest.raises(UserError, match="same seeds and images"):
        statistics.mcnemar(np.ones(3), np.ones(4))


def test_blocks_are_those_of_a_regression_on_their_indicators():
    d, blocks = np.array([1.0, 1.4, 0.7, 3.2, 2.6, 2.9, 2.2]), list("aaabbbb")
    s, freedom = statistics.deviation(d, blocks)
    indicators = np.array([[block == name for name in "ab"] for block in blocks], float)
    residual = d - indicators @ np.linalg.lstsq(indicators, d)[0]
    assert (s, freedom) == (pytest.approx(np.sqrt(residual @ residual / 5)), 5)
    interval = statistics.paired_interval(d, 0.1, blocks)
    half = stats.t.ppf(0.95, 5) * s / np.sqrt(7)
    assert interval == pytest.approx((d.mean() - half, d.mean() + half))
    assert statistics.paired_test(d, blocks) == pytest.approx(2 * stats.t.sf(d.mean() / (s / np.sqrt(7)), 5))
    one = statistics.paired_interval(d, 0.1, ["a"] * 7)
    assert one == pytest.approx(statistics.paired_interval(d, 0.1))
    with pytest.raises(UserError, match="one seed of each kind of machine has no spread"):
        statistics.deviation([1.0, 2.0], "ab")


def test_sign_flips_are_exact():
    assert statistics.sign_flip_test([1.0, 2.0, 3.0]) == 0.25  # the least that three seeds can have
    assert statistics.sign_flip_test([1.0, 2.0, 3.0, 4.0, 5.0]) == 0.0625
    assert statistics.sign_flip_test([1.0, -1.0]) == 1
    # of the sums ±3 ±1 ±1 six are at least as far from 0 as 3: ±5, ±3 twice; two of eight are ±1
    assert statistics.sign_flip_test([3.0, 1.0, -1.0]) == 6 / 8
    assert statistics.sign_flip_test([0.1, 0.2, -0.3]) == 1


def test_interval_of_a_deviation_is_that_of_chi_square():
    low, high = statistics.deviation_interval(2.0, 4)
    assert stats.chi2.sf(4 * 2.0**2 / low**2, 4) == pytest.approx(0.025)
    assert stats.chi2.cdf(4 * 2.0**2 / high**2, 4) == pytest.approx(0.025)
    assert low < 2 < high


def test_below_is_one_side_of_equivalence():
    d = [0.1, 0.3, -0.2, 0.2]
    assert statistics.below_test(d, 0.5) == pytest.approx(stats.ttest_1samp(d, 0.5, alternative="less").pvalue)
    assert statistics.equivalence_test(d, 0.5) == pytest.approx(
        max(statistics.below_test(d, 0.5), stats.ttest_1samp(d, -0.5, alternative="greater").pvalue)
    )
