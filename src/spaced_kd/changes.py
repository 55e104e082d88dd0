"""What a change brings: arms from the words of a run, and the paired differences between two of them in a setting."""

from typing import Any, NamedTuple

from pandas import DataFrame, Series

from spaced_kd import statistics
from spaced_kd.cells import (
    NOTHING,
    Arm,
    by_seed,
    ours,
    plain,
    present,
    summary,
    where,
)
from spaced_kd.errors import UserError
from spaced_kd.results import labels
from spaced_kd.spec import RunSpec, from_flat

ANY = {"dataset": "digits", "network": "resnet_mini", "seed": 0}  # an arm's words are checked as those of a run are
NAMED = {*ANY, "method", "interval"}  # words of a run that are none of its settings


def arm(given: dict[str, Any]) -> Arm:
    """The arm of words such as {"method": "self_kd", "interval": 0, "epochs": "x2"}; UserError where no run has them.

    `epochs: x2` is twice the epochs of whatever setting the arm is compared in.
    """
    own = dict(given)
    times = own.pop("epochs", "x1")
    told = labels(from_flat(ANY | own))
    words = _words(told["recipe"])
    if factor(times) != 1:
        words["epochs"] = times
    return Arm(told["method"], told["interval"], " ".join(f"{key}={words[key]}" for key in sorted(words)))


def factor(times: Any) -> float:
    """2 of "x2"; UserError where it is none."""
    try:
        value = float(times.removeprefix("x")) if str(times).startswith("x") else 0
    except ValueError:
        value = 0
    if not value > 0:
        raise UserError(f"epochs is {times!r}, but must be a multiple of the setting's: x2 is twice as many")
    return value


def changed(recipe: str, words: str) -> str:
    """A setting's recipe with an arm's own words: "epochs=10 lr=0.1" and "epochs=x2" give "epochs=20 lr=0.1".

    Epochs are rounded to whole ones. Words are sorted, and the default of epochs is left out, as in the rows.
    """
    if not words:
        return recipe
    found = _words(recipe)
    epochs = int(found.get("epochs", RunSpec.epochs))
    found |= _words(words)
    if "epochs" in _words(words):
        found["epochs"] = str(round(epochs * factor(found["epochs"])))
        if found["epochs"] == str(RunSpec.epochs):
            del found["epochs"]
    return " ".join(f"{key}={found[key]}" for key in sorted(found))


class Place(NamedTuple):
    """A setting in which teacher and student are one kind of network."""

    dataset: str
    network: str
    recipe: str


class Sample(NamedTuple):
    """Accuracies in percent, or differences of them, by seed."""

    values: Series
    seeds: set[float]  # those that there should be

    def told(self, alpha: float = statistics.ALPHA) -> str:
        """A difference, e.g. "+1.00 ± 0.50 (3), [-0.24, +2.24]" with its interval of level `alpha`."""
        if not self.seeds:
            return NOTHING
        text = summary(self.values, len(self.seeds), sign="+")
        if len(self.values) < 2:
            return text
        interval = statistics.paired_interval(self.values, alpha)
        return f"{text}, [{interval.low:+.2f}, {interval.high:+.2f}]"


def accuracies(rows: DataFrame) -> DataFrame:
    """Our rows of accuracy, missing runs included."""
    return ours(rows, present(rows), "accuracy")


def places(rows: DataFrame) -> list[Place]:
    """Settings of plain runs, in order; an arm's own words change their recipe."""
    found = plain(rows)
    return list(dict.fromkeys(map(Place, found["dataset"], found["network"], found["recipe"])))


def reached(rows: DataFrame, place: Place, arm: Arm, selection: str = "last") -> Sample:
    """What an arm reaches in a setting; `rows` of `accuracies`, `selection` of the epoch."""
    runs = in_place(rows, place, arm)
    return Sample(by_seed(where(runs, metric="accuracy", selection=selection), arm), set(runs["seed"]))


def difference(rows: DataFrame, place: Place, after: Arm, before: Arm, selection: str = "last") -> Sample:
    """What `after` reaches more than `before`, seed by seed."""
    first, second = (reached(rows, place, arm, selection) for arm in (after, before))
    return Sample((first.values - second.values).dropna(), statistics.shared_seeds(first.seeds, second.seeds))


def endpoint(rows: DataFrame, place: Place, *arms: Arm) -> str:
    """The selection that arms are compared by: `tail` where every finished run of them has it, else `last`."""
    for arm in arms:
        ends, tails = (reached(rows, place, arm, selection).values for selection in ("last", "tail"))
        if tails.empty or not ends.index.isin(tails.index).all():
            return "last"
    return "tail"


def family(changes: dict[Any, Sample]) -> dict[Any, tuple[str, str]]:
    """Differences and their p as text, by the keys of `changes`; intervals and p are adjusted after Holm over all."""
    # equal differences tell nothing of their spread
    tested = [key for key, change in changes.items() if len(change.values) > 1 and change.values.std() > 0]
    found = statistics.holm([statistics.paired_test(changes[key].values) for key in tested])
    adjusted = {key: (f"{p:.2g}", level) for key, p, level in zip(tested, *found, strict=True)}
    told = {key: adjusted.get(key, (NOTHING, statistics.ALPHA)) for key in changes}
    return {key: (changes[key].told(level), p) for key, (p, level) in told.items()}


def flops(rows: DataFrame, place: Place, arm: Arm, reference: Arm) -> str:
    """Training FLOPs of an arm, teachers included, as a multiple of another's; `rows`: ours."""
    costs = where(rows, evaluation="cost", metric="training_flops_with_teacher")
    ours, theirs = (in_place(costs, place, each)["value"].mean() for each in (arm, reference))
    return NOTHING if (ratio := ours / theirs) != ratio else f"{ratio:.3g}"


def in_place(rows: DataFrame, place: Place, arm: Arm) -> DataFrame:
    """Rows of an arm in a setting."""
    setting = place._replace(recipe=changed(place.recipe, arm.recipe))._asdict()
    return where(rows, method=arm.method, interval=arm.interval, **setting)


def without_one_recipe(lines: list[dict[str, str]]) -> DataFrame:
    """Lines as a table; which recipe is told only where there are several."""
    table = DataFrame(lines).replace({"recipe": {"": NOTHING}})
    return table if table["recipe"].nunique() > 1 else table.drop(columns="recipe")


def _words(text: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in text.split())
