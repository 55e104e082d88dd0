"""Tuning: the best of equal trials for each arm, and what fewer trials would have found.

Mean accuracy in percent, over the seeds of the search, on training images that were held out; no test image takes part.
Every arm has the same trials. The best of k trials is its expectation over all choices of k of the trials made, without
bias. The order of two arms may depend on k: the arm that is ahead after few trials needs less tuning.
"""

from pandas import DataFrame

from spaced_kd.analysis.tuning import PLACE, expected_best, searches


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm of each search."""
    lines = []
    for search in searches(rows):
        scores = [*search.scores.values()]
        budgets = [2**power for power in range(len(scores).bit_length()) if 2**power < len(scores)]
        lines.append(
            dict(zip(PLACE, search.place, strict=True))
            | {"arm": search.arm.name, "trials": len(scores), "seeds": search.seeds, "best trial": search.best}
            | {f"best of {k}": f"{expected_best(scores, k):.2f}" for k in (*budgets, len(scores))}
        )
    return DataFrame(lines).fillna("–")
