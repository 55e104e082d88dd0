"""Tuning: the best of equal trials for each arm, and the expected best of fewer trials.

Accuracy in percent on training images that were held out, of the best trial: mean ± standard deviation over seeds
(number of seeds). No test image takes part. Every arm has the same trials. The best of k trials is its expectation over
all choices of k of the trials made, without bias. The order of two arms may depend on k: the arm that is ahead after
few trials needs less tuning.
"""

from pandas import DataFrame

from spaced_kd.analysis.cells import summary
from spaced_kd.analysis.tuning import SETTING, expected_best, searches


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm of each search."""
    lines = []
    for search in searches(rows):
        scores, best = [*search.scores.values()], search.values[search.best]
        budgets = [2**power for power in range(len(scores).bit_length()) if 2**power < len(scores)]
        lines.append(
            dict(zip(SETTING, search.setting, strict=True))
            | {
                "arm": search.arm.name,
                "trials": len(scores),
                "best trial": search.best,
                "held out": summary(best, len(best)),
            }
            | {f"best of {k}": f"{expected_best(scores, k):.2f}" for k in (*budgets, len(scores))}
        )
    return DataFrame(lines).fillna("–")
