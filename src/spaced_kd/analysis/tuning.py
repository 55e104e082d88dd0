"""Results of a search with equal trials: each arm's best trial, and the expected best of fewer trials.

A trial is one recipe; its score is the accuracy on held-out training images, averaged over the seeds of the search. No
test image takes part.
"""

from math import comb
from typing import NamedTuple

from pandas import DataFrame, Series

from spaced_kd.analysis.arms import Arm
from spaced_kd.analysis.queries import where
from spaced_kd.config.labels import Recipe
from spaced_kd.utils.errors import UserError

METRIC = "held_out_accuracy"
SETTING = ["dataset", "network", "reading"]


class Search(NamedTuple):
    """The trials of one arm in one setting; `values`: trial -> accuracy on held-out images in percent, by seed."""

    setting: tuple[str, ...]
    arm: Arm
    values: dict[str, Series]

    @property
    def scores(self) -> dict[str, float]:
        """Trial -> mean over the seeds."""
        return {trial: float(values.mean()) for trial, values in self.values.items()}

    @property
    def best(self) -> str:
        """The trial of the highest score, the first of several."""
        return max(self.scores, key=lambda trial: self.scores[trial])


def searches(rows: DataFrame) -> list[Search]:
    """All searches in the rows; UserError if there are none, or if two arms differ in their trials."""
    kept = where(rows, source="ours", metric=METRIC, selection="tail")
    kept = kept.assign(reading=[Recipe.read(recipe).reading for recipe in kept["recipe"]])
    found: list[Search] = []
    for setting, group in kept.groupby(SETTING, sort=False):
        recipes = {recipe: Recipe.read(recipe).settings for recipe in group["recipe"].unique()}
        if len(recipes) < 2:
            continue
        alike = set.intersection(*({*words.items()} for words in recipes.values()))
        named = {recipe: str(Recipe(dict(words.items() - alike))) or "defaults" for recipe, words in recipes.items()}
        arms = [
            Search(
                setting,
                Arm(method, interval),
                {named[str(recipe)]: each["value"] for recipe, each in own.groupby("recipe", sort=False)},
            )
            for (method, interval), own in group.groupby(["method", "interval"], sort=False)
        ]
        for other in arms[1:]:
            if lacking := arms[0].scores.keys() ^ other.scores.keys():
                raise UserError(
                    f"{other.arm.name} and {arms[0].arm.name} do not have the same trials: one lacks {min(lacking)}, so"
                    " their tuning is not equal. Finish the search"
                )
        found += arms
    if not found:
        raise UserError(
            f"there is no search: it needs rows of {METRIC} and selection tail with two recipes; see the key tune"
        )
    return found


def expected_best(scores: list[float], trials: int) -> float:
    """Expected best score of so many trials, drawn without replacement from those that were made.

    The estimate has no bias. Source: Tang et al. 2020, "Showing Your Work Doesn't Always Work".

    >>> expected_best([1.0, 2.0, 3.0], 1), expected_best([1.0, 2.0, 3.0], 3)
    (2.0, 3.0)
    """
    if not 1 <= trials <= len(scores):
        raise ValueError(f"{trials} of {len(scores)} trials")
    weights = [comb(rank, trials - 1) for rank in range(len(scores))]
    return sum(w * score for w, score in zip(weights, sorted(scores), strict=True)) / comb(len(scores), trials)
