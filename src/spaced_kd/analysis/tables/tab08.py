"""Tab. 8: online KD against Spaced KD with other teachers: wider, deeper, of another family.

Top-1 test accuracy in percent of the student at the last epoch, mean ± standard deviation over seeds (number of seeds);
w/o KD is the teacher trained alone. Δ is the mean of the differences seed by seed, in percentage points. The paper does
not define its column Baseline.
"""

from pandas import DataFrame, concat

from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout
from spaced_kd.analysis.queries import where


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of the teacher, and of its student with online KD and Spaced KD, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    keys = ("dataset", "network", "teacher")
    shown = concat([rows, _teachers(rows)])
    return layout(shown, "tab08", [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters, keys=keys)


def _teachers(rows: DataFrame) -> DataFrame:
    """Rows of the teachers trained alone, as w/o KD of their students."""
    students = where(rows, source="ours")
    students = students[students["teacher"] != students["network"]]
    pairs = students[["dataset", "recipe", "network", "teacher"]].drop_duplicates()
    alone = where(rows, source="ours", method=BASELINE.method).drop(columns="teacher")
    return alone.rename(columns={"network": "teacher"}).merge(pairs, on=["dataset", "recipe", "teacher"])
