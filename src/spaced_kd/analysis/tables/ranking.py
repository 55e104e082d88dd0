"""Ranking: all methods of a setting by accuracy, each paired with Spaced KD.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). The rank
orders the means. Δ is the mean of the differences to Spaced KD, s = 1.5, seed by seed, in percentage points; its
intervals and p are adjusted after Holm over the methods of a setting. An interval that contains 0 does not decide which
of the two ranks higher. Students whose teacher is another kind of network are left out.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import SPACED
from spaced_kd.analysis.cells import NOTHING, summary
from spaced_kd.analysis.effects import accuracies, difference, family, plain_settings, reached, without_one_recipe
from spaced_kd.analysis.queries import present, where
from spaced_kd.utils.errors import UserError


def table(rows: DataFrame) -> DataFrame:
    """A line for each method of each setting that has Spaced KD."""
    rows, lines = accuracies(rows), []
    for setting in plain_settings(rows):
        arms = present(where(rows, **setting._asdict()))
        if SPACED not in arms:
            continue
        values = {arm: reached(rows, setting, arm) for arm in arms}
        changes = {arm: difference(rows, setting, arm, SPACED) for arm in sorted(arms - {SPACED})}
        compared = {SPACED: (NOTHING, NOTHING)} | family(changes)
        means = {arm: found.values.mean() for arm, found in values.items() if len(found.values)}
        for arm in sorted(arms, key=lambda arm: (-means.get(arm, float("-inf")), arm)):
            rank = 1 + sum(mean > means[arm] for mean in means.values()) if arm in means else NOTHING
            line = {"rank": str(rank), "method": arm.name}
            line |= {"accuracy": summary(values[arm].values, len(values[arm].seeds))}
            lines.append(setting._asdict() | line | dict(zip((f"Δ to {SPACED.name}", "p"), compared[arm], strict=True)))
    if not lines:
        raise UserError("ranking needs runs of online_kd with interval 1.5: add them, or leave ranking out")
    return without_one_recipe(lines)
