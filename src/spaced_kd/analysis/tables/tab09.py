"""Tab. 9: offline KD against Spaced KD with other teachers.

Top-1 test accuracy in percent of the student at the last epoch, mean ± standard deviation over seeds (number of seeds).
Δ is the mean of the differences seed by seed, in percentage points.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import OFFLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of the student with offline KD and Spaced KD, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    keys = ("dataset", "network", "teacher")
    return layout(rows, "tab09", [OFFLINE, SPACED, Contrast(SPACED, OFFLINE)], filters, keys=keys)
