"""Verdicts of our runs on the paper's claims.

The verdict of a comparison follows from one interval (`rule.py`). In addition:

- If seeds were planned, the verdict is interim, k of n, until all of them are finished.
- One seed has no interval, and so no verdict. FLOPs are counted, not sampled: they have no test and no verdict, and are
  not tallied.

A verdict holds in its setting: dataset, network, teacher, recipe, reading, and method settings that all arms share.
The paper's own setting is a row of its table under its own recipe; only verdicts in that setting decide the row.
Verdicts in other settings are listed separately. The endpoint of accuracies is the mean over the tail of the training
if all arms have it, else the last epoch.

The error of a family is 5 %, by Holm's adjustment. A family is a question (`family` in the file of claims; the main
claims are one): all its comparisons in the paper's own settings, since they are read together; for small settings,
those of one scale (dataset, networks, epochs), whatever their reading. So adding a study of another scale does not
change these verdicts. Interim comparisons count as members that are not rejected.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame

from spaced_kd.analysis import statistics
from spaced_kd.analysis.claims import rule
from spaced_kd.analysis.claims.comparisons import Comparison, comparable, comparisons, in_own_setting
from spaced_kd.analysis.claims.model import PRIMARY, Claim, Row, Setting, Sheet, paper_difference
from spaced_kd.analysis.queries import plain, where
from spaced_kd.analysis.tidy_rows import OF_STUDY

Correct = Callable[[str], np.ndarray | None]  # id of a run -> whether it is right on each test image, (N,)


class Family(NamedTuple):
    """The family in which a comparison was adjusted."""

    name: str
    m: int  # members
    level: float  # of this comparison's own interval


Families = dict[tuple[str, Setting], tuple[float, Family]]  # (id of a claim, setting) -> adjusted p and family


@dataclass(frozen=True)
class Verdict:
    """The verdict of our runs on a claim in a setting, or `not run`. Differences are in the claim's unit."""

    claim: Claim
    verdict: str
    reason: str = ""
    setting: Setting | None = None
    own: bool = False  # the paper's own setting
    seeds: int = 0
    expected: int = 0  # number of seeds expected of all arms, from the plan if there is one
    mean: float | None = None
    sd: float | None = None  # of differences, within kinds of machines; None for ratios
    interval: statistics.Interval | None = None  # adjusted; the verdict is read from it
    raw: statistics.Interval | None = None  # 95 %, of this comparison alone
    family: Family | None = None
    p: float | None = None  # adjusted
    p_raw: float | None = None
    p_flips: float | None = None  # exact, by sign flips, not adjusted; only with few seeds
    turns_at: float | None = None  # the margin at which the verdict would change; None if no margin changes it
    detectable: float | None = None
    needed: rule.Needed | None = None
    endpoint: str = ""
    states: tuple[int, ...] = ()  # of the tail, by arm
    steps: tuple[int, ...] = ()  # training steps of the student, by arm
    machines: tuple[tuple[str, float, int], ...] = ()  # kind, mean, number of seeds, if there are several kinds
    holds: bool | None = None  # of counts: whether the claim's sentence is true
    images: statistics.Interval | None = None  # bootstrap over test images, seeds fixed: a remark
    mcnemar: float | None = None  # p between the two networks of a single seed: a remark
    paper: float | None = None
    runs: tuple[list[str], ...] = ()  # of each arm, by seed


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
        correct: provides the data of two remarks: bootstrap over test images, and McNemar's test of a single seed.
        alpha: error of a family.

    Raises:
        UserError: seeds of two arms that are not paired, or two values for one seed.
    """
    # a run that two studies share has the same rows in both
    mine = plain(where(rows, source="ours"))
    ours = comparable(mine[~mine.duplicated([column for column in mine if column not in OF_STUDY])])
    compared = {
        claim.id: [each for each in comparisons(claim, ours) if not claim.only_rows or in_own_setting(each, sheet)]
        for claim in sheet.claims
        if claim.measure
    }
    families = _families([each for found in compared.values() for each in found], sheet, alpha)
    paper = where(rows, source="paper")
    verdicts = []
    for claim in sheet.claims:
        found = compared.get(claim.id, [])
        if claim.of:
            verdicts.append(_summed(claim, compared, sheet, alpha))
            continue
        decided = [_verdict(each, families, paper, sheet, correct) for each in found]
        there = {Row(*verdict.setting[:3]) for verdict in decided if verdict.own and verdict.setting}
        verdicts += [verdict for verdict in decided if verdict.own]
        verdicts += [_not_run(claim, row, paper) for row in claim.rows if row not in there]
        verdicts += sorted(
            (verdict for verdict in decided if not verdict.own), key=lambda verdict: verdict.setting or ()
        )
        if not claim.rows and not decided:
            verdicts.append(_not_run(claim, None, paper))
    return verdicts


def _families(found: list[Comparison], sheet: Sheet, alpha: float) -> Families:
    """(claim, setting) -> adjusted p and family, of every comparison that has a test."""
    members = defaultdict(list)
    for each in found:
        if _untestable(each) is None:
            scale = None if in_own_setting(each, sheet) else each.setting.scale
            members[each.claim.family, scale].append(each)
    judged = {}
    for (name, _), group in members.items():
        raw = [1.0 if _interim(each) else rule.p_value(each.claim, each.d.to_numpy(), each.blocks) for each in group]
        family = statistics.holm(raw, alpha)
        for each, p, level in zip(group, family.p, family.levels, strict=True):
            judged[each.claim.id, each.setting] = float(p), Family(name, len(group), float(level))
    return judged


def _untestable(comparison: Comparison) -> str | None:
    """The reason why a comparison has no test; None if it has one."""
    d, claim = comparison.d, comparison.claim
    if len(d) == 0:
        return "no finished pair of runs"
    if not np.isfinite(d).all():
        return "a value is not finite, or not above 0 where a ratio is asked for"
    if claim.counted:
        return "counted, not sampled"
    if len(d) == 1:
        return "one seed has no interval"
    if len(d) == len(set(comparison.machines)):
        return "one seed of each kind of machine has no interval"
    if statistics.deviation(d, comparison.blocks)[0] == 0:
        return "all seeds have the same difference, which tells nothing of their spread"
    return None


def _interim(comparison: Comparison) -> bool:
    """Whether planned seeds are still missing."""
    return comparison.planned and len(comparison.d) < comparison.expected


def _verdict(
    comparison: Comparison, families: Families, paper: DataFrame, sheet: Sheet, correct: Correct | None
) -> Verdict:
    claim, setting, d = comparison.claim, comparison.setting, comparison.d
    own = in_own_setting(comparison, sheet)
    result = Verdict(claim, rule.NONE, setting=setting, own=own, seeds=len(d), expected=comparison.expected)
    result = replace(result, endpoint=comparison.endpoint, states=comparison.states, steps=comparison.steps)
    result = replace(result, runs=comparison.runs)
    result = replace(result, paper=paper_difference(claim, Row(*setting[:3]), paper) if own else None)
    why = _untestable(comparison)
    if len(d) == 0:
        needed = f"no finished pair of runs: {_needed(claim, setting)}"
        return replace(result, verdict=rule.NOT_RUN, reason=comparison.unpaired or _apart(comparison) or needed)
    finite = bool(np.isfinite(d).all())
    if finite:
        result = replace(result, mean=_shown(d.mean(), claim.unit), machines=_by_machine(comparison))
    if finite and claim.counted:
        ends = statistics.Interval(float(d.min()), float(d.max()))
        return replace(result, verdict=rule.COUNTED, holds=rule.decide(claim, ends) == rule.SUPPORTED, reason=why or "")
    if correct and claim.unit == "pp" and claim.measured.filters.get("selection") == PRIMARY and not claim.less:
        result = replace(result, **_remarks(comparison.runs, correct))
    if not why:
        result = _tested(result, comparison, *families[claim.id, setting])
    if finite and _interim(comparison):
        result = replace(result, needed=None, turns_at=None, p=None, p_raw=None, p_flips=None)
        return replace(result, verdict=rule.INTERIM, reason=f"{len(d)} of {comparison.expected} planned seeds")
    return replace(result, reason=why or _apart(comparison))


def _tested(result: Verdict, comparison: Comparison, p: float, family: Family) -> Verdict:
    """The verdict of a comparison that has an interval."""
    claim, d, blocks, n = comparison.claim, comparison.d.to_numpy(), comparison.blocks, len(comparison.d)
    interval, raw = (statistics.paired_interval(d, level, blocks) for level in (family.level, statistics.ALPHA))
    s, freedom = (float(each) for each in statistics.deviation(d, blocks))
    verdict, turns_at = rule.decide(claim, interval), rule.turns_at(claim, interval)
    few = n < statistics.FEW_SEEDS and claim.kind == "greater"
    return replace(
        result,
        verdict=verdict,
        sd=s if claim.unit == "pp" else None,
        interval=_limits(interval, claim.unit),
        raw=_limits(raw, claim.unit),
        family=family,
        p=p,
        p_raw=rule.p_value(claim, d, blocks),
        p_flips=statistics.sign_flip_test(d) if few else None,
        turns_at=None if turns_at is None else _shown(turns_at, claim.unit),
        detectable=_shown(statistics.detectable(s, n, family.level), claim.unit),
        needed=rule.settle(claim, float(d.mean()), s, freedom, family.level) if verdict == rule.INCONCLUSIVE else None,
    )


def _by_machine(comparison: Comparison) -> tuple[tuple[str, float, int], ...]:
    """Kind, mean and seeds of each block."""
    if not comparison.blocks:
        return ()
    groups = comparison.d.groupby(list(comparison.blocks), sort=False)
    return tuple((kind or "unknown", _shown(d.mean(), comparison.claim.unit), len(d)) for kind, d in groups)


def _apart(comparison: Comparison) -> str:
    """The seeds left out, as text."""
    if not comparison.apart:
        return ""
    seeds = f"seed{'s' * (len(comparison.apart) > 1)} {', '.join(f'{seed:g}' for seed in comparison.apart)}"
    return f"left out, since their arms ran on several kinds of machines: {seeds}"


def _remarks(runs: tuple[list[str], ...], correct: Correct) -> dict[str, Any]:
    arms = [[array for run in each if (array := correct(run)) is not None] for each in runs]
    if [len(arm) for arm in arms] != [len(each) for each in runs]:
        return {}
    after, before = (np.stack(arm) for arm in arms)
    remarks: dict[str, Any] = {"images": statistics.bootstrap_images(after, before)}
    if len(after) == 1:
        remarks["mcnemar"] = statistics.mcnemar(after[0], before[0])
    return remarks


def _summed(claim: Claim, compared: dict[str, list[Comparison]], sheet: Sheet, alpha: float) -> Verdict:
    """A statistic over the rows of other claims; it needs every row in the paper's own setting."""
    result = Verdict(claim, rule.NOT_RUN, paper=claim.stated)
    found, asked = [], [(part, row) for part in claim.of for row in part.rows]
    for part, row in asked:
        own = [each for each in compared[part.id] if Row(*each.setting[:3]) == row and in_own_setting(each, sheet)]
        found += [each for each in own if len(each.d)]
    if len(found) < len(asked):
        tables = " and ".join(dict.fromkeys(part.place for part in claim.of))
        return replace(result, reason=f"{len(found)} of the {len(asked)} rows of {tables} are there")
    together = DataFrame(dict(enumerate(each.d for each in found))).dropna()
    mean = float(getattr(together.mean(), claim.statistic)())
    expected = max(each.expected for each in found)
    result = replace(result, own=True, mean=mean, seeds=len(together), expected=expected)
    if claim.statistic != "mean":
        return replace(result, verdict=rule.NONE, reason="an extreme is chosen by the data, and has no interval here")
    if any(map(_interim, found)):
        return replace(result, verdict=rule.INTERIM, reason=f"{len(together)} of {expected} planned seeds")
    if len(together) < 2:
        return replace(result, verdict=rule.NONE, reason="one seed has no interval")
    assert claim.stated is not None, claim.id  # as the file of claims is read
    # the mean over rows is one number per seed; its family is itself
    interval = statistics.paired_interval(together.mean(axis=1).to_numpy(), alpha)
    off = statistics.Interval(interval.low - claim.stated, interval.high - claim.stated)
    result = replace(result, family=Family(claim.family, 1, alpha), raw=interval)
    return replace(result, verdict=rule.decide(claim, off), interval=interval, turns_at=rule.turns_at(claim, off))


def _not_run(claim: Claim, row: Row | None, paper: DataFrame) -> Verdict:
    reason = claim.needs or _needed(claim, row)
    setting = Setting(*row) if row else None
    stated = paper_difference(claim, row, paper) if row else None
    return Verdict(claim, rule.NOT_RUN, reason, setting, own=bool(row), paper=stated)


def _needed(claim: Claim, place: Row | Setting | None) -> str:
    """The runs that are missing, as text."""
    arms = " and ".join(" ".join(filter(None, arm)) for arm in dict.fromkeys([*claim.arms, *(claim.less or ())]))
    measure = claim.measured.evaluation
    extra = f", evaluated by {measure}" if measure not in ("accuracy", "cost") else ""
    on = f" on {place.dataset} with {place.network}" if place else ""
    teacher = f" from {place.teacher}" if place and place.teacher != place.network else ""
    return f"run {arms}{on}{teacher}{extra}"


def _limits(interval: statistics.Interval, unit: str) -> statistics.Interval:
    """An interval in the claim's unit."""
    return statistics.Interval(*(_shown(float(limit), unit) for limit in interval))


def _shown(difference: float, unit: str) -> float:
    """A difference in the claim's unit: ln(after / before) becomes a change in percent."""
    return 100 * math.expm1(difference) if unit == "%" and abs(difference) < 100 else float(difference)
