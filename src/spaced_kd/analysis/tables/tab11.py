"""Tab. 11: online KD against Spaced KD on corrupted test images, severity 3 and 5.

Top-1 accuracy in percent of the networks at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ
is the mean of the differences seed by seed, in percentage points. The paper states no deviations.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout

EVALUATION = "corruptions"


def table(rows: DataFrame) -> DataFrame:
    """Accuracy under the six corruptions, and the paired difference."""
    filters = {"evaluation": EVALUATION, "metric": "accuracy", "severity": (3, 5)}
    keys = ("dataset", "corruption", "severity", "network")
    return layout(rows, "tab11", [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters, keys=keys)
