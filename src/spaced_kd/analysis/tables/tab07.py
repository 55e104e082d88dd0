"""Tab. 7: online KD against Spaced KD on ImageNet-1K.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. The paper's table is of DeiT-Tiny; its text states a gain of up
to 5.08 points for ResNet-18 and transformers together.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of w/o KD, online KD and Spaced KD, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    return layout(rows, "tab07", [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters)
