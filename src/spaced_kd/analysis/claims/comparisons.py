"""Comparisons, by which claims are judged: two arms, paired by seed, in every setting in which both have been run.

Both arms follow one protocol, and may share other settings of the method. Single switches, and students without one of
the losses, are not compared here: the tables `switches` and `controls` show those.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis import statistics
from spaced_kd.analysis.arms import Arm, changed
from spaced_kd.analysis.claims.model import PRIMARY, Claim, Measure, Row, Setting, Sheet, filtered
from spaced_kd.analysis.queries import where
from spaced_kd.config import presets
from spaced_kd.config.labels import TEXTBOOK, Label, Recipe
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.yaml_values import read_value
from spaced_kd.utils.errors import UserError

DETAILS = (  # settings of the measurement, which must be equal for paired seeds
    *("sigma", "draw", "corruption", "severity", "epsilon", "steps", "probes"),
    "teacher_epoch",
)


OVER_TIME = ("supervision_complexity", "theory")  # evaluations of several epochs, over which their mean is taken
PAPER = "paper"  # the reading that decides the paper's own rows
WEIGHTS = ("alpha", "beta")  # of the losses of KD


class Leg(NamedTuple):
    """One arm of a comparison: the sign of its values, and the reading, if the arm has one of its own."""

    sign: int
    arm: Arm
    reading: str = ""


class Comparison(NamedTuple):
    """A claim in one setting."""

    claim: Claim
    setting: Setting
    d: Series  # by seed, on the scale of the test
    expected: int  # number of seeds expected, from the plan if there is one
    runs: tuple[list[str], ...]  # of each leg, by seed
    unpaired: str = ""  # the seeds of each arm, as text, if no seed is common to both
    planned: bool = False  # whether the seeds were listed before the first run
    machines: tuple[str, ...] = ()  # kind of machine of each seed; "" is unknown
    apart: tuple[float, ...] = ()  # seeds left out, since their arms ran on several kinds of machines
    endpoint: str = ""  # selection: tail or last; "" if the measure has none
    states: tuple[int, ...] = ()  # number of states in the tail, of each leg
    steps: tuple[int, ...] = ()  # training steps of the student, of each leg; () if the rows lack them

    @property
    def blocks(self) -> tuple[str, ...] | None:
        """Kinds of machines as blocks; None if there is only one."""
        return self.machines if len(set(self.machines)) > 1 else None


def legs(claim: Claim) -> list[Leg]:
    """Arms of a claim: two, or the four of two differences."""
    first, second = claim.readings or ("", "")
    after, before = claim.arms
    found = [Leg(1, after, first), Leg(-1, before, second)]
    if claim.less:
        found += [Leg(-1, claim.less[0], first), Leg(1, claim.less[1], second)]
    return found


def comparable(rows: DataFrame) -> dict[str, DataFrame]:
    """Our rows of each evaluation; settings of the measurement that it lacks are -1, which equals itself."""
    return {str(name): group.fillna(dict.fromkeys(DETAILS, -1)) for name, group in rows.groupby("evaluation")}


def comparisons(claim: Claim, of_evaluations: dict[str, DataFrame]) -> Iterable[Comparison]:
    """The claim's comparison in every setting in which all of its arms have been run.

    Args:
        claim: one that has a measure.
        of_evaluations: of `comparable`.
    """
    if (rows := of_evaluations.get(claim.measured.evaluation)) is None:
        return
    rows = where(rows, metric=(claim.measured.metric, "missing"))  # a missing run still counts as expected
    # other teachers are the subject of their own claims
    across = any(row.teacher != row.network for row in claim.rows)
    rows = rows[(rows["teacher"] != rows["network"]) == across]
    asked = []
    for leg in legs(claim):
        mine = rows[rows["interval"] == leg.arm.interval]
        if mine.empty:
            return  # no setting has all arms
        shared = {method: _shared(method, leg.arm.method) for method in mine["method"].unique()}
        mine = mine.assign(shared=[shared[method] for method in mine["method"]])
        mine = mine[mine["shared"].notna()]
        groups = mine.groupby(["dataset", "network", "teacher", "recipe", "shared"], sort=False)
        asked.append({Setting(*key): group for key, group in groups})
    for setting in dict.fromkeys(setting for found in asked for setting in found):
        if not _wanted(claim, setting):
            continue
        groups = [_in(setting, leg, found) for leg, found in zip(legs(claim), asked, strict=True)]
        if all(group is not None for group in groups):
            yield _compare(claim, setting, groups)


def _wanted(claim: Claim, setting: Setting) -> bool:
    """Whether a claim is judged in a setting: one with its reading, and a recipe among those that it varies."""
    if claim.readings and setting.reading != claim.readings[0]:
        return False
    if claim.varies and Row(*setting[:3]) not in claim.rows:
        return False
    words = Recipe.read(setting.recipe).telling
    found = {key: read_value(words[key]) if key in words else getattr(RunSpec, key) for key in claim.varies}
    return all(found[key] in values for key, values in claim.varies.items())


def _in(setting: Setting, leg: Leg, found: dict[Setting, DataFrame]) -> DataFrame | None:
    """Rows of an arm in a setting, with the arm's own recipe and reading if it has them."""
    recipe = str(Recipe.read(setting.recipe).under(leg.reading)) if leg.reading else setting.recipe
    return found.get(setting._replace(recipe=changed(recipe, leg.arm.recipe)))


def _compare(claim: Claim, setting: Setting, groups: list[DataFrame]) -> Comparison:
    parts = legs(claim)
    names = [f"{leg.arm.name}{leg.reading and ', ' + leg.reading}" for leg in parts]
    measures = [claim.measured, claim.measure_before or claim.measured, *(claim.measured for _ in parts[2:])]
    endpoint = ""
    if claim.measured.evaluation == "accuracy":
        endpoint = claim.measured.filters.get("selection", "")
        if endpoint == PRIMARY:
            endpoint = _endpoint(groups)
            measures = [each._replace(filters=each.filters | {"selection": endpoint}) for each in measures]
    # two measures are of one student at the same times, and of teachers at different ones
    same = tuple("epoch" if claim.measure_before and each == "teacher_epoch" else each for each in DETAILS)
    values, details, runs = zip(
        *(_values(measure, group, setting, same) for measure, group in zip(measures, groups, strict=True)), strict=True
    )
    shared = set.intersection(*(set(each.index) for each in values))
    machines: dict[float, set[str]] = {seed: set() for seed in shared}  # known kinds
    for each in groups:
        for seed, kind in set(zip(each["seed"], each["machine"], strict=True)):
            if kind and seed in machines:
                machines[seed].add(kind)
    apart = tuple(sorted(seed for seed in shared if len(machines[seed]) > 1))
    common = sorted(shared - set(apart))
    if len({frozenset(parts[seed]) for parts in details for seed in common}) > 1:
        raise UserError(f"{claim.id} in {setting.name}: {' and '.join(names)} are measured under different settings")
    arms = [each.loc[common] for each in values]
    if claim.unit == "%":
        with np.errstate(divide="ignore", invalid="ignore"):
            arms = [np.log(each) for each in arms]
    d = sum((leg.sign * each for leg, each in zip(parts[2:], arms[2:], strict=True)), arms[0] - arms[1])
    plans = [_planned(group) for group in groups]
    planned = any(plans)
    seeds = [plan if planned and plan else set(group["seed"]) for plan, group in zip(plans, groups, strict=True)]
    return Comparison(
        *(claim, setting, d, len(reduce(statistics.shared_seeds, seeds))),
        runs=tuple([each[seed] for seed in common] for each in runs),
        unpaired="" if common or apart else statistics.unpaired(values[0], values[1], (names[0], names[1])),
        planned=planned,
        machines=tuple(next(iter(machines[seed]), "") for seed in common),
        apart=apart,
        endpoint=endpoint,
        states=_same(groups, "states") if endpoint == "tail" else (),
        steps=_same(groups, "student_steps"),
    )


def _endpoint(groups: list[DataFrame]) -> str:
    """`tail` if every finished run of all arms has it, else `last`: the same for all arms."""
    found = [[set(where(group, selection=name)["run"]) for name in ("last", "tail")] for group in groups]
    return "tail" if all(last <= tail and tail for last, tail in found) else "last"


def _planned(rows: DataFrame) -> set[float]:
    """Seeds that were listed before the first run."""
    return {float(word) for text in set(rows["planned"]) for word in text.split()}


def _same(groups: list[DataFrame], column: str) -> tuple[int, ...]:
    """A number of each arm's trainings; () if an arm lacks it or has several."""
    found = [set(group[column].dropna()) for group in groups]
    return tuple(int(next(iter(numbers))) for numbers in found) if all(len(each) == 1 for each in found) else ()


def _values(
    measure: Measure, rows: DataFrame, setting: Setting, same: tuple[str, ...]
) -> tuple[Series, dict[float, set[Any]], dict[float, str]]:
    """Value, settings of the measurement (in the columns `same`), and run of each seed."""
    rows = where(rows, metric=measure.metric)
    found = filtered(rows, measure.filters)
    several = [*DETAILS, "epoch"] if measure.evaluation in OVER_TIME else DETAILS
    if (twice := found.duplicated(["seed", *several], keep=False)).any():
        runs = ", ".join(dict.fromkeys(found.loc[twice, "run"]))
        raise UserError(f"{setting.name}: several values for one seed, from {runs}: leave all but one out")
    values = found.groupby("seed")["value"].mean()
    if measure.less:
        values = (values - filtered(rows, measure.less).groupby("seed")["value"].mean()).dropna()
    details: dict[float, set[Any]] = {}
    for seed, *settings in found[["seed", *same]].itertuples(index=False, name=None):
        details.setdefault(seed, set()).add(tuple(settings))
    return values, details, found.groupby("seed")["run"].first().to_dict()


def in_own_setting(comparison: Comparison, sheet: Sheet) -> bool:
    """Whether a comparison is made in the paper's own setting: a row of the claim, or any row if it lists none.

    Its reading is that of the paper's text; the released code's reading decides none of the rows.
    """
    setting = comparison.setting
    row = Row(*setting[:3])
    if setting.reading != PAPER or setting.shared or row not in (comparison.claim.rows or sheet.rows):
        return False
    recipe = Recipe.read(setting.recipe).without(("protocol",))
    words = {key: read_value(text) for key, text in recipe.telling.items()}
    return words == sheet.recipes[row.teachers[0]]


def _shared(method: str, wanted: str) -> str | None:
    """Further settings of a method's label beside those of the wanted one; None if it is another method.

    It is another method if it lacks a setting, has a switch of the protocols, or lacks one of the losses of KD.
    """
    own, needed = Label.read(method), Label.read(wanted)
    if own.name != needed.name or not needed.settings.items() <= own.settings.items():
        return None
    further = {key: value for key, value in own.settings.items() if key not in needed.settings}
    switches = {key.removeprefix("method.") for key in presets.keys(TEXTBOOK, own.name)}
    if switches & further.keys() or any(read_value(further.get(weight, "1")) == 0 for weight in WEIGHTS):
        return None
    return ",".join(f"{key}={value}" for key, value in further.items())
