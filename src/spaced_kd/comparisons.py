"""Two arms side by side, seed by seed, in every setting where both have been run: what a claim is judged by.

Both arms follow one protocol, and may share other settings of the method. A single switch is an experiment of its own,
and a student without one of the losses, or one that only trails its teacher, a control: the tables `switches` and
`controls` have those.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pandas import DataFrame, Series

from spaced_kd import protocol, statistics
from spaced_kd.cells import Arm, label, where
from spaced_kd.changes import changed
from spaced_kd.claims import Claim, Measure, Row, Setting, Sheet, kept, recipe_words
from spaced_kd.errors import UserError
from spaced_kd.spec import TEXTBOOK, read_value

DETAILS = (  # what seeds must have in common
    *("sigma", "draw", "corruption", "severity", "epsilon", "steps", "probes"),
    "teacher_epoch",
)


WEIGHTS = ("alpha", "beta")  # of the losses of KD


class Comparison(NamedTuple):
    """A claim in one setting."""

    claim: Claim
    setting: Setting
    d: Series  # by seed, on the scale of the test
    expected: int
    runs: tuple[list[str], list[str]]
    unpaired: str = ""  # which seeds each arm has, where none is common to both


def comparisons(claim: Claim, rows: DataFrame) -> Iterable[Comparison]:
    """The claim's comparison in every setting where both arms have been run."""
    metrics = (claim.measure.metric, "missing")  # a missing run still tells that there should be one
    rows = where(rows, evaluation=claim.measure.evaluation, metric=metrics)
    # other teachers are the subject of their own claims
    across = any(row.teacher != row.network for row in claim.rows)
    rows = rows[(rows["teacher"] != rows["network"]) == across]
    asked = []
    for arm in claim.arms:
        mine = rows[rows["interval"] == arm.interval]
        mine = mine.assign(shared=[_shared(method, arm.method) for method in mine["method"]])
        mine = mine[mine["shared"].notna()]
        groups = mine.groupby(["dataset", "network", "teacher", "recipe", "shared"], sort=False)
        asked.append({Setting(*key): group for key, group in groups})
    for setting in dict.fromkeys([*asked[0], *asked[1]]):
        after, before = (_in(setting, arm, found) for arm, found in zip(claim.arms, asked, strict=True))
        if after is not None and before is not None:
            yield _compare(claim, setting, after, before)


def _in(setting: Setting, arm: Arm, found: dict[Setting, DataFrame]) -> DataFrame | None:
    """Rows of an arm in a setting, whose recipe it may change."""
    return found.get(setting._replace(recipe=changed(setting.recipe, arm.recipe)))


def _compare(claim: Claim, setting: Setting, after: DataFrame, before: DataFrame) -> Comparison:
    names = claim.after.name, claim.before.name
    expected = statistics.shared_seeds(set(after["seed"]), set(before["seed"]))
    values, details, runs = zip(*(_values(claim.measure, group, setting) for group in (after, before)), strict=True)
    common = sorted(set(values[0].index) & set(values[1].index))
    if len({frozenset(parts[seed]) for parts in details for seed in common}) > 1:
        raise UserError(f"{claim.id} in {setting.name}: {' and '.join(names)} are measured under different settings")
    first, second = (each.loc[common] for each in values)
    if claim.unit == "%":
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = np.log(first), np.log(second)
    d = statistics.differences(first, second, names)
    unpaired = "" if common else statistics.unpaired(*values, names)
    return Comparison(claim, setting, d, len(expected), tuple([each[s] for s in common] for each in runs), unpaired)


def _values(measure: Measure, rows: DataFrame, setting: Setting) -> tuple[Series, dict, dict]:
    """Value, settings of the measurement, and run of each seed."""
    rows = where(rows, metric=measure.metric).fillna(dict.fromkeys(DETAILS, -1))
    found = kept(rows, measure.keep)
    if (twice := found.duplicated(["seed", *DETAILS], keep=False)).any():
        runs = ", ".join(dict.fromkeys(found.loc[twice, "run"]))
        raise UserError(f"{setting.name}: several values for one seed, from {runs}: leave all but one out")
    values = found.groupby("seed")["value"].mean()
    if measure.less:
        values = (values - kept(rows, measure.less).groupby("seed")["value"].mean()).dropna()
    seeds = found.groupby("seed")
    details = {seed: set(group[list(DETAILS)].itertuples(index=False, name=None)) for seed, group in seeds}
    return values, details, seeds["run"].first().to_dict()


def in_own_setting(comparison: Comparison, sheet: Sheet) -> bool:
    """Whether a comparison is made in the paper's own setting: of the claim, or of any where it has none."""
    setting = comparison.setting
    row = Row(*setting[:3])
    if setting.shared or row not in (comparison.claim.rows or sheet.rows):
        return False
    words = {key: read_value(text) for key, text in recipe_words(setting.recipe).items()}
    return words == sheet.recipes[row.teachers[0]]


def _shared(method: str, wanted: str) -> str | None:
    """Settings in a method's label beside those in the wanted one; None where it is not that method.

    It is another where it lacks a setting, has a switch of the protocols, or lacks one of the losses of KD.
    """
    (name, own), (other, needed) = map(label, (method, wanted))
    if name != other or not needed.items() <= own.items():
        return None
    further = {key: value for key, value in own.items() if key not in needed}
    switches = {key.removeprefix("method.") for key in protocol.keys(TEXTBOOK, name)}
    if switches & further.keys() or any(read_value(further.get(weight, "1")) == 0 for weight in WEIGHTS):
        return None
    return ",".join(f"{key}={value}" for key, value in further.items())
