"""Overview: the paper's main claims beside ours, each difference with its setting.

Differences are in percentage points of top-1 test accuracy at the last epoch, but for the Hessian trace, which is a
ratio. Ours are taken seed by seed: mean ± standard deviation over seeds (number of seeds). The paper's are the range
over its rows, which have no deviations. A small setting never decides a row of the paper; it stands beside it.
"""

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.cells import (
    OFFLINE,
    ONLINE,
    SELF,
    SPACED,
    SPACED_SELF,
    WITHOUT,
    Arm,
    by_seed,
    ours,
    paper_changes,
    plain,
    summary,
    where,
)
from spaced_kd.errors import UserError

ACCURACY = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
CLAIMS = (  # sentence, after, before, table of the paper's numbers
    ("Online KD beats training without KD", ONLINE, WITHOUT, "tab01"),
    ("Spaced KD (s = 1.5) beats online KD", SPACED, ONLINE, "tab01"),
    ("Spaced KD (s = 1.5) beats offline KD on the same batches", SPACED, OFFLINE, "tab06"),
    ("Spaced self KD (s = 4) beats self KD", SPACED_SELF, SELF, "tab02"),
)


def table(rows: DataFrame) -> DataFrame:
    """A line for each claim and each of our settings that has the runs for it."""
    lines = []
    for sentence, after, before, place in CLAIMS:
        paper = _paper(rows, after, before, place)
        for setting, changes in _changes(rows, after, before, ACCURACY, np.subtract).items():
            lines.append(
                {
                    "claim": sentence,
                    "paper": paper,
                    "ours": summary(changes, len(changes), sign="+"),
                    "our setting": setting,
                }
            )
    trace = {"evaluation": "hessian_trace", "metric": "trace"}
    for setting, ratios in _changes(rows, SPACED, ONLINE, trace, np.divide).items():
        sentence = (
            "Spaced KD ends in a flatter minimum: ratio of the Hessian's traces to online KD below 1 (Theorem 4.4)"
        )
        lines.append(
            {"claim": sentence, "paper": "not measured", "ours": summary(ratios, len(ratios)), "our setting": setting}
        )
    if not lines:
        raise UserError("overview needs runs of online_kd with interval 0 and 1.5: add them to the study")
    return DataFrame(lines)


def _changes(rows: DataFrame, after: Arm, before: Arm, keep: dict[str, str], change: np.ufunc) -> dict[str, Series]:
    """Our settings -> change from `before` to `after`, seed by seed."""
    found = where(plain(ours(rows, (after, before), keep["evaluation"])), **keep)
    changes = {}
    for (dataset, network, recipe), group in found.groupby(["dataset", "network", "recipe"], sort=False):
        values = change(by_seed(group, after), by_seed(group, before)).dropna()
        if len(values):
            epochs = next((word for word in recipe.split() if word.startswith("epochs=")), "epochs=80")
            changes[f"{dataset}, {network}, {epochs}"] = values
    return changes


def _paper(rows: DataFrame, after: Arm, before: Arm, place: str) -> str:
    """Range and number of the paper's differences."""
    changes = paper_changes(rows, after, before, place)
    return f"{changes.min():+.2f} to {changes.max():+.2f} ({len(changes)} rows of {place.replace('tab0', 'Tab. ')})"
