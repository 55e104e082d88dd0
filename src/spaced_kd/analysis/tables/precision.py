"""Precision: whether coarser rounding costs accuracy.

Top-1 test accuracy at the last epoch of runs in bf16 or TF32 minus that of the same runs in float32, in percentage
points, paired by seed: mean ± standard deviation over seeds (number of seeds), and the lower limit of its one-sided 95
% interval. The coarser precision is not inferior where that limit lies above -0.20, inferior where the upper limit lies
below it, and undecided otherwise; then the table gives the number of seeds that would decide it at this mean and
deviation.
"""

from typing import Any

from numpy.typing import NDArray
from pandas import DataFrame

from spaced_kd.analysis import statistics
from spaced_kd.analysis.arms import Arm
from spaced_kd.analysis.cells import NOTHING, summary
from spaced_kd.analysis.effects import accuracies, difference, plain_settings
from spaced_kd.analysis.queries import MissingRunsError
from spaced_kd.config.labels import Recipe

MARGIN = 0.2  # percentage points
COARSER = ("tf32", "bf16")


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm that was run in float32 and in a coarser precision."""
    found, lines = accuracies(rows), []
    arms = [Arm(*each) for each in found[["method", "interval"]].drop_duplicates().itertuples(index=False)]
    for setting in plain_settings(found):
        for arm in arms:
            for precision in COARSER:
                if "precision" in Recipe.read(setting.recipe).settings:
                    continue
                d = difference(found, setting, arm._replace(recipe=f"precision={precision}"), arm)
                if not d.seeds:
                    continue
                lines.append(
                    {
                        "dataset": setting.dataset,
                        "network": setting.network,
                        "recipe": setting.recipe or NOTHING,
                        "method": " ".join(filter(None, [arm.method, arm.interval])),
                        "precision": precision,
                        "less float32": summary(d.values, len(d.seeds), sign="+"),
                        **_test(d.values.to_numpy()),
                    }
                )
    if not lines:
        raise MissingRunsError(
            "precision needs runs of config/experiments/precision.yaml, the same in fp32 and in bf16 or tf32"
        )
    return DataFrame(lines)


def _test(d: NDArray[Any]) -> dict[str, str]:
    """The lower limit, and what follows from it; nothing for a single seed."""
    if len(d) < 2:
        return {"at least": NOTHING, "not inferior": NOTHING}
    low, high = statistics.paired_interval(d, 2 * statistics.ALPHA)
    verdict = "yes" if low > -MARGIN else "no" if high < -MARGIN else "undecided"
    if verdict == "undecided" and (n := statistics.needed(abs(d.mean() + MARGIN), d.std(ddof=1), sides=1)):
        verdict += f", {n} seeds would tell"
    return {"at least": f"{low:+.2f}", "not inferior": verdict}
