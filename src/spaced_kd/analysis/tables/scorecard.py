"""Scorecard: the verdict of our runs on each of the paper's claims.

Ours is the difference seed by seed: mean ± standard deviation over seeds (number of seeds); of a ratio it is the change
in percent. Intervals are paired t intervals over seeds. The adjusted one is of 95 % for a family together (name, number
of members m) after Holm; the raw one of 95 % for that comparison alone. Every word is read from the adjusted interval.
A claim "greater" is supported if it lies above 0; the opposite is shown if it lies below 0; a gain of at least the
margin is excluded if it contains 0 and lies below the margin. "Equivalent" is supported if it lies within the margin,
the opposite shown if it lies beyond. "Not greater" is supported if it lies below the margin, the opposite shown if it
lies above. Before all planned seeds are complete, the verdict is interim. Where the verdict depends on the margin, the
remark states the margin at which it changes. p are two-sided; by sign flips it is exact, and cannot be below 2 / 2ⁿ.
Resolution is the smallest difference that this number of seeds detects with a power of 80 %. Numbers of operations are
counted, not sampled: they have no test and no verdict. All arms of a comparison follow one reading (protocol). The
endpoint is the mean over the tail of the training where all arms have it, else the last epoch; steps are those of the
student. Results in other settings than the paper's are not evidence for or against its rows.
"""

from pandas import DataFrame

from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import lines, tally
from spaced_kd.analysis.claims.verdicts import judge


def table(rows: DataFrame) -> DataFrame:
    """A line for each claim and setting with runs; the rows of the paper without any share a line."""
    judged = judge(load(PATH, rows), rows)
    found = lines(judged, rows)
    found.attrs["notes"] = [("", tally(judged))]
    return found
