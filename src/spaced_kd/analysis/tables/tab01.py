"""Tab. 1: online KD against Spaced KD with an interval of 1.5 epochs.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. The paper states means of three repeats without deviations, and
not at which epoch; its code takes the best on test.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of w/o KD, online KD and Spaced KD, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    return layout(rows, "tab01", [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters)
