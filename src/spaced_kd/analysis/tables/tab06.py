"""Tab. 6: all intervals of Spaced KD, from online KD (s = 0) to offline KD.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). The line below
ours is the mean of the differences to online KD seed by seed, in percentage points. s is in epochs. Offline KD, with a
teacher that has finished, is compared to the paper's column "max". The paper states means of three repeats without
deviations, and not at which epoch; its code takes the best on test.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, OFFLINE, ONLINE, Arm
from spaced_kd.analysis.layout import layout
from spaced_kd.analysis.queries import present, where

INTERVALS = ("0.5", "1", "1.5", "2")  # the paper's


def table(rows: DataFrame) -> DataFrame:
    """Accuracy for each interval that the study has, and its difference to online KD."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    paper = {ONLINE, *(Arm("online_kd", interval) for interval in INTERVALS), OFFLINE}
    arms = sorted(paper | present(where(rows, source="ours", method="online_kd")), key=lambda arm: arm.epochs)
    return layout(rows, "tab06", [BASELINE, *arms], filters, below=ONLINE)
