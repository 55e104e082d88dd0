"""Flatness as in Theorem 4.4: trace of the Hessian of the training loss where training ended.

In nats per squared unit of the weights, estimated with random probes: mean ± standard deviation over seeds (number of
seeds), which includes the error of the estimate. A smaller trace is a flatter minimum. Δ is the mean of the differences
seed by seed: the theorem expects it below zero for Spaced KD. The paper measures no trace.
"""

from pandas import DataFrame

from spaced_kd.cells import ONLINE, SELF, SPACED, SPACED_SELF, WITHOUT, Change, layout


def table(rows: DataFrame) -> DataFrame:
    """Trace for each method, and the paired differences."""
    keep = {"evaluation": "hessian_trace", "metric": "trace"}
    pairs = [SELF, SPACED_SELF, Change(SPACED_SELF, SELF)]
    return layout(rows, "hessian_trace", [WITHOUT, ONLINE, SPACED, Change(SPACED, ONLINE), *pairs], keep, style=".4g")
