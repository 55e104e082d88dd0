"""Accuracy against cost: what each method takes to train, and what it reaches.

Top-1 test accuracy in percent at the last epoch and seconds: mean ± standard deviation over seeds (number of seeds).
FLOPs are floating-point operations of training, counted, in units of 10¹²; a student's include its teacher's training,
also where it read stored states of a teacher that was trained once for several students. Their ratio is to the training
without KD. Seconds and energy are a run's own, and depend on the machine: the energy of its GPU, and that of all
processors together, with whatever else ran on them. What no run has measured is not measured, and not 0.
"""

from pandas import DataFrame

from spaced_kd.cells import NOTHING, WITHOUT, by_seed, ours, present, seeds, several_recipes, summary, where
from spaced_kd.errors import UserError

FLOPS = "training_flops_with_teacher"
MEASURED = {
    "wall seconds": ("wall_seconds", 1),
    "CPU seconds": ("cpu_seconds", 1),
    "energy (kJ)": ("energy_joules", 1e3),
    "processors' energy, shared (kJ)": ("package_energy_joules", 1e3),
}


def table(rows: DataFrame) -> DataFrame:
    """A line for each dataset, network and method, and for each recipe where there are several."""
    arms = present(where(rows, source="ours"))
    costs, accuracies = ours(rows, arms, "cost"), ours(rows, arms, "accuracy")
    if costs.empty:
        raise UserError("cost needs rows of what runs cost: collect the study again with `spaced-kd collect`")
    place = ["dataset", "network", "recipe"]
    lines = []
    for key, asked in accuracies.groupby(place, sort=False):
        cell = dict(zip(place, key, strict=True))
        cost, accuracy = where(costs, **cell), where(asked, metric="accuracy", selection="last")
        plain = by_seed(where(cost, metric=FLOPS), WITHOUT).mean()
        for arm in sorted(present(asked), key=lambda arm: (arm != WITHOUT, arm.method, arm.epochs)):
            expected = len(seeds(asked, arm))
            flops = by_seed(where(cost, metric=FLOPS), arm).mean()
            line = cell | {"method": arm.name, "accuracy": summary(by_seed(accuracy, arm), expected)}
            line["training FLOPs (10¹²)"] = _counted(flops / 1e12)
            line["ratio"] = _counted(flops / plain)
            for name, (metric, unit) in MEASURED.items():
                values = by_seed(where(cost, metric=metric), arm) / unit
                line[name] = summary(values, expected, ".1f") if len(values) else "not measured"
            lines.append(line)
    table = DataFrame(lines).replace({"recipe": {"": NOTHING}})
    return table if several_recipes(accuracies) else table.drop(columns="recipe")


def _counted(value: float) -> str:
    return NOTHING if value != value else f"{value:.4g}"
