"""Accuracy against cost: what each method takes to train, and what it reaches.

Top-1 test accuracy in percent at the last epoch and seconds: mean ± standard deviation over seeds (number of seeds).
FLOPs are floating-point operations of training, counted, in units of 10¹²; their ratio is to the cheapest training
without KD of that network. Seconds and energy depend on the machine: the energy of its GPU, and that of all processors
together, with whatever else ran on them. A student's cost includes the training of its teacher, also where the student
read stored states of a teacher that was trained once for several students; so the sum over students exceeds the cost of
a study. "Not measured" is not 0. Compare seconds only between runs of one machine and one load.
"""

from typing import Any

from pandas import DataFrame, concat

from spaced_kd.analysis.arms import BASELINE, Arm
from spaced_kd.analysis.cells import NOTHING, summary
from spaced_kd.analysis.queries import by_seed, ours, present, seeds, several_recipes, where
from spaced_kd.utils.errors import UserError

SETTING = ["dataset", "network", "recipe"]
FLOPS = "training_flops_with_teacher"
MEASURED = {
    "wall seconds": ("wall_seconds_with_teacher", 1),
    "CPU seconds": ("cpu_seconds_with_teacher", 1),
    "energy (kJ)": ("energy_joules_with_teacher", 1e3),
    "processors' energy, shared (kJ)": ("package_energy_joules_with_teacher", 1e3),
}


def table(rows: DataFrame) -> DataFrame:
    """A line for each dataset, network and method, and for each teacher and recipe where there are several."""
    rows, arms = where(rows, source="ours"), present(where(rows, source="ours"))
    costs, accuracies = (
        concat([ours(rows, arms, name), ours(rows, arms, name, other_teachers=True)]) for name in ("cost", "accuracy")
    )
    if costs.empty:
        raise UserError("cost needs rows of what runs cost: collect the study again with `spaced-kd collect`")
    lines = []
    for key, group in accuracies.groupby(SETTING, sort=False):
        cell = dict(zip(SETTING, key, strict=True))
        cost = where(costs, **cell)
        without = _cheapest(where(costs, dataset=cell["dataset"], network=cell["network"], metric=FLOPS))
        for teacher, asked in group.groupby("teacher", sort=False):
            taught = where(cost, teacher=teacher)
            for arm in sorted(present(asked), key=lambda arm: (arm != BASELINE, arm.method, arm.epochs)):
                lines.append(cell | {"teacher": teacher} | _line(arm, asked, taught, without))
    table = DataFrame(lines).replace({"recipe": {"": NOTHING}})
    same = [] if several_recipes(accuracies) else ["recipe"]
    return table.drop(columns=[*same, *(["teacher"] if (table["teacher"] == table["network"]).all() else [])])


def _line(arm: Arm, asked: DataFrame, cost: DataFrame, without: float) -> dict[str, Any]:
    """What an arm reaches and takes; `without`: FLOPs of the training without KD."""
    expected = len(seeds(asked, arm))
    flops = by_seed(where(cost, metric=FLOPS), arm).mean()
    accuracy = by_seed(where(asked, metric="accuracy", selection="last"), arm)
    line = {"method": arm.name, "accuracy": summary(accuracy, expected)}
    line |= {"training FLOPs (10¹²)": _counted(flops / 1e12), "ratio": _counted(flops / without)}
    for name, (metric, unit) in MEASURED.items():
        values = by_seed(where(cost, metric=metric), arm) / unit
        line[name] = summary(values, expected, ".1f") if len(values) else "not measured"
    return line


def _cheapest(costs: DataFrame) -> float:
    """FLOPs of training a network without KD, by the recipe that takes the fewest; NaN where there is none."""
    return where(costs, method=BASELINE.method)["value"].min()


def _counted(value: float) -> str:
    return NOTHING if value != value else f"{value:.4g}"
