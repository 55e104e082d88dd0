"""Tab. 10: a teacher with a constant lead, never frozen, from online KD (s = 0) on.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). The line below
ours is the mean of the differences to online KD seed by seed, in percentage points. The lead s is in epochs.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import ONLINE, Arm
from spaced_kd.analysis.layout import layout
from spaced_kd.analysis.queries import present, where

LEADS = ("0.5", "1", "1.5", "2", "2.5")  # the paper's
METHOD = "constant_lead"  # shorter than the setting of online KD that it is


def table(rows: DataFrame) -> DataFrame:
    """Accuracy for each lead that the study has, and its difference to online KD."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    rows = rows.replace({"method": {"online_kd[lead=constant]": METHOD}})
    leads = {Arm(METHOD, lead) for lead in LEADS} | present(where(rows, method=METHOD))
    return layout(rows, "tab10", [ONLINE, *sorted(leads, key=lambda arm: arm.epochs)], filters, below=ONLINE)
