"""Batch norm: accuracy with running statistics of training, and with statistics re-estimated.

Top-1 test accuracy in percent of the networks at the last epoch, mean ± standard deviation over seeds (number of
seeds). Re-estimated statistics are averages over all training images under the final weights. Δ is the mean of the
differences seed by seed, in percentage points, with its paired 95 % interval: the accuracy that the lag of running
statistics costs. A network without batch norm has no lag. The paper measures none of this.
"""

from pandas import DataFrame

from spaced_kd.analysis.cells import NOTHING, difference, summary
from spaced_kd.analysis.queries import by_seed, ours, present, require, seeds, where

EVALUATION = "batch_norm_reestimated"
SETTING = ["dataset", "network", "recipe"]


def table(rows: DataFrame) -> DataFrame:
    """A line for each method of each setting that has the evaluation."""
    asked = ours(rows, present(rows), EVALUATION)
    require(asked, "batch_norm", present(rows), {"evaluation": EVALUATION})
    lines = []
    for setting, group in asked.groupby(SETTING, sort=False):
        for arm in sorted(present(group), key=lambda arm: (arm.method, arm.epochs)):
            planned = len(seeds(group, arm))
            trained, anew = (by_seed(where(group, metric=m), arm) for m in ("accuracy_as_trained", "accuracy"))
            cells = {
                "as trained": summary(trained, planned),
                "re-estimated": summary(anew, planned),
                "Δ": difference((anew - trained).dropna(), planned),
            }
            lines.append(dict(zip(SETTING, setting, strict=True)) | {"arm": arm.name} | cells)
    return DataFrame(lines).replace({"recipe": {"": NOTHING}})
