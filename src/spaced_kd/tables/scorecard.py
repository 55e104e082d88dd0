"""The paper's claims, and what our runs say of each.

Ours is the difference seed by seed: mean ± standard deviation over seeds (number of seeds), and in brackets the
interval of the mean; of a ratio it is the change in percent. Intervals are paired t intervals over seeds, adjusted
after Holm over the claims of one place in the paper that are judged in one setting: their 5 % is the error of those
together, and not of the whole scorecard. A claim "greater" is supported if the interval lies above 0, and contradicted
if it lies below 0, or contains 0 and lies below the margin. A claim "equivalent" is supported if two one-sided tests
place the difference within the margin; its interval has the level of both. Resolution is the smallest difference that
so many seeds would have shown with a power of 80 %. So many seeds would settle an inconclusive claim if mean and
deviation stay. Both arms of a comparison follow one protocol. Another setting than the paper's decides none of its
rows; it stands beside them.
"""

from pandas import DataFrame

from spaced_kd.claims_file import PATH, load
from spaced_kd.verdict_text import lines, tally
from spaced_kd.verdicts import judge


def table(rows: DataFrame) -> DataFrame:
    """A line for each claim and setting with runs; the rows of the paper without any share a line."""
    judged = judge(load(PATH, rows), rows)
    found = lines(judged, rows)
    found.attrs["notes"] = [("", tally(judged))]
    return found
