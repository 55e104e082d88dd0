"""The rule of verdicts: the verdict that follows from an interval, for positive and for null statements.

- `greater`: supported if the interval lies above 0; opposite shown if it lies below 0; gain of at least the margin
  excluded if it contains 0 and lies below the margin.
- `equivalent`: supported if it lies within ±margin; opposite shown if it lies beyond.
- `not_greater`: supported if it lies below the margin; opposite shown if it lies above.
- Otherwise inconclusive, with the number of seeds that would decide it at the same mean and deviation, and that number
  at both ends of the 95 % interval of the deviation.

A verdict that depends on the margin states the margin at which it would change.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spaced_kd.analysis import statistics
from spaced_kd.analysis.claims.model import Claim

SUPPORTED, OPPOSITE, EXCLUDED = "supported", "opposite shown", "gain of at least the margin excluded"
INCONCLUSIVE, INTERIM, COUNTED = "inconclusive", "interim", "counted"
NONE, NOT_RUN = "no verdict", "not run"


class Needed(NamedTuple):
    """Number of seeds that would decide a comparison at the same mean and deviation; None: no practical number."""

    seeds: int | None
    low: int | None  # at both ends of the 95 % interval of the deviation
    high: int | None
    shows: str  # the statement that so many seeds would show


def p_value(claim: Claim, d: np.ndarray, blocks: statistics.Blocks) -> float:
    """Raw p of the differences `d`, two-sided for each kind: at most α exactly where the interval of level α supports.

    For `equivalent` and `not_greater` the one-sided p is doubled, so that p agrees with an interval of the same level.
    """
    if claim.kind == "greater":
        return float(statistics.paired_test(d, blocks))
    test = statistics.equivalence_test if claim.kind == "equivalent" else statistics.below_test
    return min(1.0, 2 * float(test(d, claim.scaled_margin, blocks)))


def decide(claim: Claim, interval: statistics.Interval) -> str:
    """The verdict that follows from an interval."""
    low, high, margin = *interval, claim.scaled_margin
    if claim.kind == "greater":
        return SUPPORTED if low > 0 else OPPOSITE if high < 0 else EXCLUDED if high < margin else INCONCLUSIVE
    if claim.kind == "not_greater":
        return SUPPORTED if high < margin else OPPOSITE if low > margin else INCONCLUSIVE
    if low > margin or high < -margin:
        return OPPOSITE
    return SUPPORTED if -margin <= low and high <= margin else INCONCLUSIVE


def turns_at(claim: Claim, interval: statistics.Interval) -> float | None:
    """The margin at which the verdict changes; None if the verdict does not depend on the margin."""
    low, high = (float(limit) for limit in interval)
    if claim.kind == "equivalent":
        return max(0.0, low, -high) if decide(claim, interval) == OPPOSITE else max(abs(low), abs(high))
    if claim.kind == "not_greater":
        return max(low, 0.0) if low > claim.scaled_margin else max(high, 0.0)
    return high if low <= 0 <= high else None


def settle(claim: Claim, mean: float, s: float, freedom: float, level: float) -> Needed:
    """Seeds that would decide the claim, either way, with a power of 80 % at the same mean and deviation."""
    margin, of = claim.scaled_margin, f"{claim.margin:g} {claim.unit}"
    either = "a gain" if mean > 0 else "the opposite"
    ways: list[tuple[str, Callable[[float], int | None]]]
    if claim.kind == "equivalent":
        within = (f"a difference within {of}", lambda sd: statistics.needed_equivalent(mean, sd, margin, level / 2))
        ways = [within, (f"a difference beyond {of}", lambda sd: statistics.needed(abs(mean) - margin, sd, level))]
    else:
        ways = [(f"a gain of less than {of}", lambda sd: statistics.needed(margin - mean, sd, level))]
        least = abs(mean) if claim.kind == "greater" else mean - margin
        ways.append((either, lambda sd: statistics.needed(least, sd, level)))
    found = [(n, shows, way) for shows, way in ways if (n := way(s))]
    if not found:
        return Needed(None, None, None, "")
    n, shows, way = min(found, key=lambda each: each[0])
    low, high = (way(sd) for sd in statistics.deviation_interval(s, int(freedom)))
    return Needed(n, low, high, shows)
