"""What our runs say of the paper's claims.

- `greater` is supported if the interval of the difference lies above 0; contradicted if it lies below 0, or contains 0
  and lies below the margin: then there may be a gain, but none of the size that would count.
- `equivalent` is supported if both one-sided tests say that the difference lies within the margin, which is where the
  interval of twice the level does; contradicted if the interval of the level lies beyond.
- Otherwise the claim is inconclusive, and we say how many seeds would settle it if mean and deviation stay.
- One seed has no interval, and so no verdict. FLOPs are counted, not sampled: one run decides.

A verdict holds in its setting: dataset, network, teacher, recipe, protocol, and method settings that both arms share.
The paper's own setting is a row of its table under its own recipe and protocol; only that decides the row. Any other
stands beside it.

Holm's adjustment is over a family: all comparisons of one table of the paper that are made in the paper's own settings,
for they are read together; and, of small settings, all comparisons of one table in one setting. So a study joined later
does not change the verdicts of another.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pandas import DataFrame

from spaced_kd import statistics
from spaced_kd.cells import plain, where
from spaced_kd.claims import Claim, Row, Setting, Sheet, paper_difference
from spaced_kd.comparisons import Comparison, comparisons, in_own_setting

COUNTED = ("training_flops", "training_flops_with_teacher")

Correct = Callable[[str], np.ndarray | None]  # id of a run -> whether it is right on each test image, (N,)


@dataclass(frozen=True)
class Verdict:
    """What our runs say of a claim in a setting, or that there are none. Differences are in the claim's unit."""

    claim: Claim
    verdict: str  # supported, contradicted, inconclusive, no verdict, not run
    reason: str = ""
    setting: Setting | None = None
    own: bool = False  # the paper's own setting
    seeds: int = 0
    expected: int = 0  # seeds that both arms should have
    mean: float | None = None
    sd: float | None = None  # of differences, None for ratios
    interval: statistics.Interval | None = None
    p: float | None = None  # adjusted
    detectable: float | None = None
    needed: int | None = None  # seeds that would settle it; None also where no practical number would
    images: statistics.Interval | None = None  # bootstrap over test images, seeds fixed: a remark
    mcnemar: float | None = None  # p between the two networks of a single seed: a remark
    paper: float | None = None


def judge(
    sheet: Sheet,
    rows: DataFrame,
    *,
    correct: Correct | None = None,
    alpha: float = statistics.ALPHA,
) -> list[Verdict]:
    """Verdicts in order of the claims: the paper's rows, one each, then other settings in alphabetical order.

    Args:
        sheet: of `load`.
        rows: tidy rows, ours of one or several studies and the paper's.
        correct: gives what the remarks need: bootstrap over test images, and McNemar's test of a single seed.
        alpha: error of a family.

    Raises:
        UserError: seeds of two arms that are not paired, or two values for one seed.
    """
    # a run that two studies share has the same rows in both
    mine = plain(where(rows, source="ours")).drop(columns="study").drop_duplicates()
    compared = {
        claim.id: [each for each in comparisons(claim, mine) if not claim.only_rows or in_own_setting(each, sheet)]
        for claim in sheet.claims
        if claim.measure
    }
    families = defaultdict(list)
    for comparison in (each for found in compared.values() for each in found):
        if _testable(comparison) is None:
            own = in_own_setting(comparison, sheet)
            families[comparison.claim.place, None if own else comparison.setting].append(comparison)
    levels = {}
    for members in families.values():
        family = statistics.holm([_p(each) for each in members], alpha)
        for each, p, level in zip(members, family.p, family.levels, strict=True):
            levels[each.claim.id, each.setting] = float(p), float(level)
    verdicts = []
    for claim in sheet.claims:
        found = compared.get(claim.id, [])
        if claim.of:
            verdicts.append(_summed(claim, compared, rows, sheet))
            continue
        decided = [_verdict(each, levels, rows, sheet, correct) for each in found]
        there = {Row(*verdict.setting[:3]) for verdict in decided if verdict.own}
        verdicts += [verdict for verdict in decided if verdict.own]
        verdicts += [_not_run(claim, row, rows) for row in claim.rows if row not in there]
        verdicts += sorted((verdict for verdict in decided if not verdict.own), key=lambda verdict: verdict.setting)
        if not claim.rows and not decided:
            verdicts.append(_not_run(claim, None, rows))
    return verdicts


def _testable(comparison: Comparison) -> str | None:
    """Why a comparison has no test; None where it has one."""
    d, claim = comparison.d, comparison.claim
    if len(d) == 0:
        return "no finished pair of runs"
    if not np.isfinite(d).all():
        return "a value is not finite, or not above 0 where a ratio is asked for"
    if claim.measure.metric in COUNTED:
        return "counted, not sampled"
    if len(d) == 1:
        return "one seed has no interval"
    if d.std(ddof=1) == 0:
        return "all seeds have the same difference, which tells nothing of their spread"
    return None


def _p(comparison: Comparison) -> float:
    claim, d = comparison.claim, comparison.d.to_numpy()
    if claim.kind == "greater":
        return float(statistics.paired_test(d))
    return float(statistics.equivalence_test(d, claim.scaled_margin))


def _verdict(comparison: Comparison, levels: dict, rows: DataFrame, sheet: Sheet, correct: Correct | None) -> Verdict:
    claim, setting, d, expected, runs, _ = comparison
    own = in_own_setting(comparison, sheet)
    result = Verdict(claim, "no verdict", setting=setting, own=own, seeds=len(d), expected=expected)
    result = replace(result, paper=paper_difference(claim, Row(*setting[:3]), rows) if own else None)
    why = _testable(comparison)
    if len(d) and np.isfinite(d).all():
        result = replace(result, mean=_shown(d.mean(), claim.unit))
    if why == "counted, not sampled":
        point = statistics.Interval(d.min(), d.max())
        return replace(result, verdict=_decide(claim, point, point) or "inconclusive", reason=why)
    if len(d) == 0:
        return replace(result, verdict="not run", reason=comparison.unpaired or f"{why}: {_needed(claim, setting)}")
    if correct and claim.unit == "pp" and claim.measure.keep.get("selection") == "last":
        result = replace(result, **_remarks(runs, correct))
    if why:
        return replace(result, reason=why)
    p, level = levels[claim.id, setting]
    n, mean, s = len(d), float(d.mean()), float(d.std(ddof=1))
    wide = statistics.paired_interval(d.to_numpy(), level)
    interval = wide if claim.kind == "greater" else statistics.paired_interval(d.to_numpy(), 2 * level)
    verdict = _decide(claim, interval, wide) or "inconclusive"
    return replace(
        result,
        verdict=verdict,
        sd=s if claim.unit == "pp" else None,
        interval=statistics.Interval(*(_shown(float(limit), claim.unit) for limit in interval)),
        p=p,
        detectable=_shown(statistics.detectable(s, n, level), claim.unit),
        needed=_settle(claim, mean, s, level) if verdict == "inconclusive" else None,
    )


def _decide(claim: Claim, interval: statistics.Interval, wide: statistics.Interval) -> str | None:
    """Supported or contradicted, as the interval tells; None if it tells neither.

    Of `equivalent`, the interval of both one-sided tests supports; to contradict it takes the wider two-sided one.
    """
    low, high, margin = *interval, claim.scaled_margin
    if claim.kind == "greater":
        return "supported" if low > 0 else "contradicted" if high < margin else None
    if wide.low > margin or wide.high < -margin:
        return "contradicted"
    return "supported" if -margin <= low and high <= margin else None


def _settle(claim: Claim, mean: float, s: float, level: float) -> int | None:
    """Seeds that would decide the claim, either way, with a power of 80 % if mean and deviation stay as they are."""
    margin = claim.scaled_margin
    if claim.kind == "greater":
        ways = [statistics.needed(abs(mean), s, level), statistics.needed(margin - mean, s, level)]
    else:
        ways = [
            statistics.needed_equivalent(mean, s, margin, level),
            statistics.needed(abs(mean) - margin, s, level),
        ]
    return min((n for n in ways if n), default=None)


def _remarks(runs: tuple[list[str], list[str]], correct: Correct) -> dict[str, Any]:
    arms = [[correct(run) for run in each] for each in runs]
    if any(array is None for arm in arms for array in arm):
        return {}
    after, before = (np.stack(arm) for arm in arms)
    remarks: dict[str, Any] = {"images": statistics.bootstrap_images(after, before)}
    if len(after) == 1:
        remarks["mcnemar"] = statistics.mcnemar(after[0], before[0])
    return remarks


def _summed(claim: Claim, compared: dict[str, list[Comparison]], rows: DataFrame, sheet: Sheet) -> Verdict:
    """A statistic over the rows of other claims; it needs every row in the paper's own setting."""
    result = Verdict(claim, "not run", paper=claim.stated)
    found, asked = [], [(part, row) for part in claim.of for row in part.rows]
    for part, row in asked:
        own = [each for each in compared[part.id] if Row(*each.setting[:3]) == row and in_own_setting(each, sheet)]
        found += [each.d for each in own if len(each.d)]
    if len(found) < len(asked):
        tables = " and ".join(dict.fromkeys(part.place for part in claim.of))
        return replace(result, reason=f"{len(found)} of the {len(asked)} rows of {tables} are there")
    together = DataFrame(dict(enumerate(found))).dropna()
    mean = float(getattr(together.mean(), claim.statistic)())
    result = replace(result, own=True, mean=mean, seeds=len(together), expected=max(map(len, found)))
    if claim.statistic != "mean":
        return replace(
            result, verdict="no verdict", reason="an extreme is chosen by the data, and has no interval here"
        )
    if len(together) < 2:
        return replace(result, verdict="no verdict", reason="one seed has no interval")
    # the mean over rows is one number per seed; its family is itself
    d = together.mean(axis=1).to_numpy()
    interval, wide = (statistics.paired_interval(d, level) for level in (2 * statistics.ALPHA, statistics.ALPHA))
    off = (statistics.Interval(low - claim.stated, high - claim.stated) for low, high in (interval, wide))
    return replace(result, verdict=_decide(claim, *off) or "inconclusive", interval=interval)


def _not_run(claim: Claim, row: Row | None, rows: DataFrame) -> Verdict:
    reason = claim.needs or _needed(claim, row)
    setting = Setting(*row) if row else None
    paper = paper_difference(claim, row, rows) if row else None
    return Verdict(claim, "not run", reason, setting, own=bool(row), paper=paper)


def _needed(claim: Claim, place: Row | Setting | None) -> str:
    """Which runs would be needed, in words."""
    arms = " and ".join(" ".join(filter(None, arm)) for arm in claim.arms)
    measure = claim.measure.evaluation
    extra = f", evaluated by {measure}" if measure not in ("accuracy", "cost") else ""
    on = f" on {place.dataset} with {place.network}" if place else ""
    teacher = f" from {place.teacher}" if place and place.teacher != place.network else ""
    return f"run {arms}{on}{teacher}{extra}"


def _shown(difference: float, unit: str) -> float:
    """A difference in the claim's unit: ln(after / before) becomes a change in percent."""
    return 100 * math.expm1(difference) if unit == "%" and abs(difference) < 100 else float(difference)
