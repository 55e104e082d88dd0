"""Overview: the paper's main claims beside ours, each difference with its setting.

Differences are in percentage points of top-1 test accuracy at the last epoch, but for the Hessian trace, which is a
ratio. Ours are taken seed by seed: mean ± standard deviation over seeds (number of seeds). The paper's are the range
over its rows, which have no deviations. A small setting never decides a row of the paper; it stands beside it.
"""

from pandas import DataFrame, Series

from spaced_kd.cells import ONLINE, SPACED, Arm, by_seed, ours, paper_changes, plain, summary, where
from spaced_kd.changes import MAIN_CLAIMS, Place, accuracies, difference, places
from spaced_kd.errors import UserError


def table(rows: DataFrame) -> DataFrame:
    """A line for each claim and each of our settings that has the runs for it."""
    lines, found = [], accuracies(rows)
    for sentence, after, before, place in MAIN_CLAIMS:
        paper = _paper(rows, after, before, place)
        for setting in places(found):
            if len(changes := difference(found, setting, after, before).values):
                ours_is = summary(changes, len(changes), sign="+")
                lines.append({"claim": sentence, "paper": paper, "ours": ours_is, "our setting": setting.name})
    for setting, ratios in _traces(rows).items():
        sentence = (
            "Spaced KD ends in a flatter minimum: ratio of the Hessian's traces to online KD below 1 (Theorem 4.4)"
        )
        lines.append(
            {"claim": sentence, "paper": "not measured", "ours": summary(ratios, len(ratios)), "our setting": setting}
        )
    if not lines:
        raise UserError("overview needs runs of online_kd with interval 0 and 1.5: add them to the study")
    return DataFrame(lines)


def _traces(rows: DataFrame) -> dict[str, Series]:
    """Our settings -> trace of Spaced KD as a multiple of online KD's, seed by seed."""
    found = where(plain(ours(rows, (SPACED, ONLINE), "hessian_trace")), metric="trace")
    ratios = {}
    for place, group in found.groupby(["dataset", "network", "recipe"], sort=False):
        values = (by_seed(group, SPACED) / by_seed(group, ONLINE)).dropna()
        if len(values):
            ratios[Place(*place).name] = values
    return ratios


def _paper(rows: DataFrame, after: Arm, before: Arm, place: str) -> str:
    """Range and number of the paper's differences."""
    changes = paper_changes(rows, after, before, place)
    return f"{changes.min():+.2f} to {changes.max():+.2f} ({len(changes)} rows of {place.replace('tab0', 'Tab. ')})"
