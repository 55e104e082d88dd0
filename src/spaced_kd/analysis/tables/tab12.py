"""Tab. 12: online KD against Spaced KD under the attack BIM.

Top-1 accuracy in percent on attacked test images, of the networks at the last epoch: mean ± standard deviation over
seeds (number of seeds). Epsilon is the largest change of a pixel, in 255ths; 0 is without attack. Δ is the mean of the
differences seed by seed, in percentage points. The paper states neither epsilon nor the number of steps, and no
deviations.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout

EVALUATION = "bim"


def table(rows: DataFrame) -> DataFrame:
    """Robust accuracy for each budget, and the paired difference."""
    filters = {"evaluation": EVALUATION, "metric": "accuracy"}
    keys = ("dataset", "network", "epsilon")
    return layout(rows, "tab12", [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters, keys=keys)
