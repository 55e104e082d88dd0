"""Effects: accuracies of an arm in a setting, and the paired differences between two arms."""

from typing import Any, NamedTuple

from pandas import DataFrame, Series

from spaced_kd.analysis import cells, statistics
from spaced_kd.analysis.arms import Arm, changed
from spaced_kd.analysis.cells import NOTHING, Cell
from spaced_kd.analysis.queries import by_seed, ours, plain, present, where


class PlainSetting(NamedTuple):
    """A setting in which teacher and student are one kind of network."""

    dataset: str
    network: str
    recipe: str


class PairedDifferences(NamedTuple):
    """Accuracies in percent, or differences of them, by seed."""

    values: Series
    seeds: set[float]  # expected, finished or not

    def cell(self, alpha: float = statistics.ALPHA) -> Cell | str:
        """Cell of a table, with the interval of level 1 - `alpha`; "–" if no seed is expected."""
        return cells.difference(self.values, len(self.seeds), alpha=alpha) if self.seeds else NOTHING


def accuracies(rows: DataFrame) -> DataFrame:
    """Our rows of accuracy, missing runs included."""
    return ours(rows, present(rows), "accuracy")


def plain_settings(rows: DataFrame) -> list[PlainSetting]:
    """Settings of plain runs, in order; the recipe of an arm in one may differ by the arm's own settings."""
    found = plain(rows)
    return list(dict.fromkeys(map(PlainSetting, found["dataset"], found["network"], found["recipe"])))


def reached(rows: DataFrame, setting: PlainSetting, arm: Arm, selection: str = "last") -> PairedDifferences:
    """Accuracies of an arm in a setting, at the epoch of `selection`; `rows`: of `accuracies`."""
    runs = in_setting(rows, setting, arm)
    return PairedDifferences(by_seed(where(runs, metric="accuracy", selection=selection), arm), set(runs["seed"]))


def difference(
    rows: DataFrame, setting: PlainSetting, after: Arm, before: Arm, selection: str = "last"
) -> PairedDifferences:
    """Accuracy of `after` minus that of `before`, seed by seed."""
    first, second = (reached(rows, setting, arm, selection) for arm in (after, before))
    return PairedDifferences(
        (first.values - second.values).dropna(), statistics.shared_seeds(first.seeds, second.seeds)
    )


def endpoint(rows: DataFrame, setting: PlainSetting, *arms: Arm) -> str:
    """The selection by which arms are compared: `tail` if every finished run of them has it, else `last`."""
    for arm in arms:
        ends, tails = (reached(rows, setting, arm, selection).values for selection in ("last", "tail"))
        if tails.empty or not ends.index.isin(tails.index).all():
            return "last"
    return "tail"


def family(changes: dict[Any, PairedDifferences]) -> dict[Any, tuple[Cell | str, str]]:
    """Cells of differences and their p, by the keys of `changes`; intervals and p are adjusted after Holm over all."""
    # equal differences give no estimate of their spread
    tested = [key for key, change in changes.items() if len(change.values) > 1 and change.values.std() > 0]
    found = statistics.holm([statistics.paired_test(changes[key].values) for key in tested])
    adjusted = {key: (f"{p:.2g}", level) for key, p, level in zip(tested, *found, strict=True)}
    judged = {key: adjusted.get(key, (NOTHING, statistics.ALPHA)) for key in changes}
    return {key: (changes[key].cell(level), p) for key, (p, level) in judged.items()}


def flops(rows: DataFrame, setting: PlainSetting, arm: Arm, reference: Arm) -> str:
    """Training FLOPs of an arm, teachers included, as a multiple of another's; `rows`: ours."""
    costs = where(rows, evaluation="cost", metric="training_flops_with_teacher")
    ours, theirs = (in_setting(costs, setting, each)["value"].mean() for each in (arm, reference))
    return NOTHING if (ratio := ours / theirs) != ratio else f"{ratio:.3g}"


def in_setting(rows: DataFrame, setting: PlainSetting, arm: Arm) -> DataFrame:
    """Rows of an arm in a setting."""
    own = setting._replace(recipe=changed(setting.recipe, arm.recipe))
    return where(rows, method=arm.method, interval=arm.interval, **own._asdict())


def without_one_recipe(lines: list[dict[str, Any]]) -> DataFrame:
    """Lines as a table, with the column `recipe` only if there are several recipes."""
    table = DataFrame(lines).replace({"recipe": {"": NOTHING}})
    return table if table["recipe"].nunique() > 1 else table.drop(columns="recipe")
