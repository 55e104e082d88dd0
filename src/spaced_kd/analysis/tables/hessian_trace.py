"""Flatness as in Theorem 4.4: trace of the Hessian of the training loss at the end of training.

In nats per squared unit of the weights, estimated with random probes: mean ± standard deviation over seeds (number of
seeds), which includes the error of the estimate. A smaller trace is a flatter minimum. Δ is the mean of the differences
seed by seed: the theorem expects it below zero for Spaced KD. The loss is cross-entropy and, where measured, the KD
loss with the run's own teacher held fixed, which is the theorem's loss. Batch norm uses the running statistics of
training, or statistics re-estimated on all training images. The paper measures no trace.
"""

import pandas as pd
from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SELF, SPACED, SPACED_SELF, Contrast
from spaced_kd.analysis.cells import NOTHING
from spaced_kd.analysis.layout import layout

EVALUATION = "hessian_trace"
LOSSES = {
    "trace": "cross-entropy",
    "trace_reestimated": "cross-entropy, re-estimated",
    "kd_trace": "KD",
    "kd_trace_reestimated": "KD, re-estimated",
}
COLUMNS = [BASELINE, ONLINE, SPACED, Contrast(SPACED, ONLINE), SELF, SPACED_SELF, Contrast(SPACED_SELF, SELF)]


def table(rows: DataFrame) -> DataFrame:
    """Trace for each method, and the paired differences; a column tells the loss where there is another."""
    measured = rows["evaluation"] == EVALUATION
    metrics = [metric for metric in LOSSES if (measured & (rows["metric"] == metric)).any()] or ["trace"]
    parts = []
    for metric in metrics:
        of_it = rows[~measured | rows["metric"].isin((metric, "missing"))]
        if metric.startswith("kd"):
            of_it = of_it[of_it["method"] != BASELINE.method]
        filters = {"evaluation": EVALUATION, "metric": metric}
        parts.append(layout(of_it, "hessian_trace", COLUMNS, filters, style=".4g"))
    if metrics == ["trace"]:
        return parts[0]
    for metric, part in zip(metrics, parts, strict=True):
        part.insert(0, "loss", LOSSES[metric])
    found = pd.concat(parts, ignore_index=True).fillna(NOTHING)
    found.attrs["notes"] = parts[0].attrs["notes"]
    return found
