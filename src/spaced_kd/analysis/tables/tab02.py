"""Tab. 2: self KD against spaced self KD with an interval of 4 epochs.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. The paper states means of three repeats without deviations, and
not at which epoch; its code takes the best on test.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, SELF, SPACED_SELF, Contrast
from spaced_kd.analysis.layout import layout


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of w/o KD, self KD and spaced self KD, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    return layout(rows, "tab02", [BASELINE, SELF, SPACED_SELF, Contrast(SPACED_SELF, SELF)], filters)
