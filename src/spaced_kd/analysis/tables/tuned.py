"""Tuned arms: each arm with the recipe that its search selected, on new seeds.

Top-1 test accuracy in percent: mean ± standard deviation over seeds (number of seeds), by the mean over the tail of the
training where all arms have it, else at the last epoch. Differences are taken seed by seed, with their paired 95 %
interval, not adjusted.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE
from spaced_kd.analysis.cells import NOTHING, difference, summary
from spaced_kd.analysis.effects import accuracies
from spaced_kd.analysis.queries import by_seed, present, where
from spaced_kd.config.labels import Recipe
from spaced_kd.utils.errors import UserError

SETTING = ["dataset", "network", "reading"]


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm of a setting in which every arm has one recipe."""
    rows = accuracies(where(rows, only_teacher=""))
    readings = [Recipe.read(recipe).reading for recipe in rows["recipe"]]
    lines = []
    for setting, group in rows.assign(reading=readings).groupby(SETTING, sort=False):
        recipes = group.groupby(["method", "interval"])["recipe"].agg(["nunique", "first"])
        if len(recipes) < 2 or (recipes["nunique"] > 1).any():
            continue
        tail = group.groupby("run")["selection"].agg(lambda selections: "tail" in set(selections)).all()
        endpoint = "tail" if tail else "last"
        values = {
            arm: by_seed(where(group, metric="accuracy", selection=endpoint), arm) for arm in sorted(present(group))
        }
        for arm, reached in values.items():
            line = {"arm": arm.name, "recipe": recipes["first"][arm.method, arm.interval], "endpoint": endpoint}
            line["accuracy"] = summary(reached, len(reached))
            for other in filter(values.__contains__, (BASELINE, ONLINE)):
                paired = (reached - values[other]).dropna()
                line[f"Δ to {other.name}"] = NOTHING if other == arm else difference(paired, len(paired))
            lines.append(dict(zip(SETTING, setting, strict=True)) | line)
    if not lines:
        raise UserError("tuned needs a setting with two arms, each of one recipe: see `spaced-kd tune`")
    return DataFrame(lines).fillna(NOTHING)
