"""Overview: the paper's main claims beside ours, each difference with its setting.

Differences are in percentage points of top-1 test accuracy at the last epoch, but for the Hessian trace, which is a
ratio. Ours are taken seed by seed: mean ± standard deviation over seeds (number of seeds). The paper's are the range
over its rows, which have no deviations. Another setting than the paper's decides none of its rows; it stands beside
them.
"""

from collections.abc import Iterator

from pandas import DataFrame

from spaced_kd.cells import ONLINE, SPACED, Arm, by_seed, ours, paper_changes, summary, where
from spaced_kd.changes import MAIN_CLAIMS, accuracies, difference, in_place, names, places
from spaced_kd.errors import UserError

FLATTER = "Spaced KD ends in a flatter minimum: ratio of the Hessian's traces to online KD below 1 (Theorem 4.4)"


def table(rows: DataFrame) -> DataFrame:
    """A line for each claim and each of our settings that has the runs for it."""
    lines, found = [], accuracies(rows)
    settings = names(places(found))
    for sentence, after, before, place in MAIN_CLAIMS:
        paper = _paper(rows, after, before, place)
        for setting, name in settings.items():
            values, seeds = difference(found, setting, after, before)
            if len(values):
                mine = summary(values, len(seeds), sign="+")
                lines.append({"claim": sentence, "paper": paper, "ours": mine, "our setting": name})
    for name, ratios in _traces(rows):
        lines.append({"claim": FLATTER, "paper": "not measured", "ours": ratios, "our setting": name})
    if not lines:
        raise UserError("overview needs runs of online_kd with interval 0 and 1.5: add them to the study")
    return DataFrame(lines)


def _traces(rows: DataFrame) -> Iterator[tuple[str, str]]:
    """Our settings, and the trace of Spaced KD as a multiple of online KD's, seed by seed."""
    asked = ours(rows, (SPACED, ONLINE), "hessian_trace")
    for place, name in names(places(asked)).items():
        first, second = ((arm, in_place(asked, place, arm)) for arm in (SPACED, ONLINE))
        after, before = (by_seed(where(runs, metric="trace"), arm) for arm, runs in (first, second))
        if len(ratios := (after / before).dropna()):
            yield name, summary(ratios, len(set(first[1]["seed"]) & set(second[1]["seed"])))


def _paper(rows: DataFrame, after: Arm, before: Arm, place: str) -> str:
    """Range and number of the paper's differences."""
    if not place:
        return "not compared"
    changes = paper_changes(rows, after, before, place)
    return f"{changes.min():+.2f} to {changes.max():+.2f} ({len(changes)} rows of {place.replace('tab0', 'Tab. ')})"
