"""Seed noise: the spread over seeds, and the differences that three seeds can resolve.

Top-1 test accuracy in percent, the mean over the tail or at the last step, as the endpoint says: mean ± standard
deviation over seeds (number of seeds), of an arm or of a difference taken seed by seed. Order alone and augmentation
alone are the deviation over runs of one seed in which only that was drawn anew: the noise floor. Rounding alone is the
deviation within seeds over the same runs in other precisions and with other numbers of threads, pooled over seeds
(number of runs): a seed determines a run up to that deviation. The resolution of n seeds is the smallest true
difference that a two-sided paired test of 5 % detects with a power of 80 %, at our deviation. Beside it: how many of
the paper's differences in Tab. 1 are larger; its three repeats could have resolved these if its noise were ours. The
paper states no deviations; its released code sets no seeds, so that its repeats are not even paired.
"""

from pandas import DataFrame

from spaced_kd.analysis import statistics
from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED, Arm, Contrast
from spaced_kd.analysis.cells import NOTHING, summary
from spaced_kd.analysis.effects import (
    PairedDifferences,
    PlainSetting,
    accuracies,
    difference,
    endpoint,
    plain_settings,
    reached,
    without_one_recipe,
)
from spaced_kd.analysis.queries import DRAWN, paper_changes
from spaced_kd.config.labels import Recipe
from spaced_kd.utils.errors import UserError

WHAT = (BASELINE, ONLINE, SPACED, Contrast(ONLINE, BASELINE), Contrast(SPACED, ONLINE))
COUNTS = (3, 10)
ROUNDING = ("precision", "threads")  # settings of a recipe that change only how a run rounds


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm and difference that has two seeds."""
    drawn = {word: accuracies(_drawn_anew(rows, word)) for word in DRAWN}
    found, lines = accuracies(rows), []
    for setting in plain_settings(found):
        for what in WHAT:
            arms = (what,) if isinstance(what, Arm) else tuple(what)
            selection = endpoint(found, setting, *arms)
            sample = _sample(found, setting, what, selection)
            if len(sample.values) < 2:
                continue
            name, sign = (what.name, "") if isinstance(what, Arm) else (f"{what.after.name} − {what.before.name}", "+")
            line = {"accuracy": name, "endpoint": selection}
            line["seeds"] = summary(sample.values, len(sample.seeds), sign=sign)
            for word, anew in drawn.items():
                values = _sample(anew, setting, what, selection).values
                spread = f"{values.std(ddof=1):.2f} ({len(values)})" if len(values) > 1 else NOTHING
                line[f"{word.removesuffix('_seed')} alone"] = spread
            line["rounding alone"] = _rounding(found, setting, what, selection)
            for count in COUNTS:
                line |= _resolved(what, sample, count, rows)
            lines.append(setting._asdict() | line)
    if not lines:
        raise UserError(
            "seed_noise needs runs of config/experiments/seed_noise.yaml: add them, or leave seed_noise out"
        )
    return without_one_recipe(lines)


def _sample(rows: DataFrame, setting: PlainSetting, what: Arm | Contrast, selection: str) -> PairedDifferences:
    if isinstance(what, Arm):
        return reached(rows, setting, what, selection)
    return difference(rows, setting, *what, selection)


def _rounding(rows: DataFrame, setting: PlainSetting, what: Arm | Contrast, selection: str) -> str:
    """Pooled deviation within seeds, over runs that differ only in how they round."""
    exact = str(Recipe.read(setting.recipe).without(ROUNDING))
    beside = rows[(rows["dataset"] == setting.dataset) & (rows["network"] == setting.network)]["recipe"].unique()
    found = DataFrame(
        {
            recipe: _sample(rows, setting._replace(recipe=recipe), what, selection).values
            for recipe in beside
            if str(Recipe.read(recipe).without(ROUNDING)) == exact
        }
    )
    found = found[found.count(axis=1) > 1]
    if found.empty:
        return NOTHING
    squares = found.sub(found.mean(axis=1), axis=0).pow(2).sum().sum()
    runs = found.count().sum()
    return f"{(squares / (runs - len(found))) ** 0.5:.2f} ({runs})"


def _resolved(what: Arm | Contrast, sample: PairedDifferences, count: int, rows: DataFrame) -> dict[str, str]:
    """The smallest difference that `count` seeds resolve, and how many of the paper's differences are larger."""
    heads = f"n = {count} resolves", f"paper's larger, n = {count}"
    if isinstance(what, Arm):
        return dict.fromkeys(heads, NOTHING)
    least = statistics.detectable(sample.values.std(ddof=1), count)
    changes = paper_changes(rows, what.after, what.before, "tab01")
    return dict(zip(heads, (f"{least:.2f}", f"{(changes.abs() > least).sum()} of {len(changes)}"), strict=True))


def _drawn_anew(rows: DataFrame, word: str) -> DataFrame:
    """Runs of the lowest seed that redraw only the order or the augmentation; the draw replaces the seed."""
    recipes = [Recipe.read(recipe) for recipe in rows["recipe"]]
    draws = [float(recipe.settings.get(word, "nan")) for recipe in recipes]
    rows = rows.assign(draw_of=draws, recipe=[str(recipe.without((word,))) for recipe in recipes])
    rows = rows[rows["draw_of"].notna()]
    rows = rows[rows["seed"] == rows["seed"].min()]
    return rows.assign(seed=rows["draw_of"])
