"""Supervision complexity: is the spaced teacher a simpler teacher, at equal accuracy?

Supervision complexity C measures how hard a target is for the student's own neural tangent kernel (defined in
`evaluations/supervision_complexity.py`): the product of the residual's size and its alignment with the kernel's small
eigenvalues; C of the target starts from the uniform prediction. Cells are mean ± standard deviation over seeds (number
of seeds); a seed's value is the mean over the epochs at which its student was measured. A teacher "as it comes" is the
spaced teacher at the time when the student's own schedule has it teach, so that both students have the same teachers
with the same accuracy; the line below has the paired differences with 95 % intervals. The paper measures none of this.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import ONLINE, SPACED
from spaced_kd.analysis.cells import NOTHING, difference, summary
from spaced_kd.analysis.queries import by_seed, ours, require, where

SETTING = ["dataset", "network", "recipe"]
TARGETS = {  # target -> its name here
    "hard": "labels",
    "random": "labels, permuted",
    "online": "online teacher, at t",
    "spaced": "spaced teacher, at k(t)",
    "offline": "offline teacher, at the end",
    "received": "spaced teacher, as it comes",
}
EVALUATION = "supervision_complexity"
METRICS = {  # metric -> column, style
    "complexity": ("C", ".3f"),
    "residual": ("size of residual", ".3f"),
    "alignment": ("alignment", ".2f"),
    "complexity_of_target": ("C of the target", ".3f"),
    "target_accuracy": ("target's accuracy (%)", ".1f"),
    "agreement": ("agreement (%)", ".1f"),
    "divergence": ("KL (nats)", ".3f"),
    "margin": ("margin (logits)", ".2f"),
    "similarity": ("kernels' cosine", ".3f"),
}


def table(rows: DataFrame) -> DataFrame:
    """A line for each student, target and temperature, and for the difference of both students."""
    arms = [ONLINE, SPACED]
    asked = ours(rows, arms, EVALUATION)
    require(asked, "supervision_complexity", arms, {"evaluation": EVALUATION})
    lines = []
    for setting, group in asked.groupby(SETTING, sort=False):
        head = dict(zip(SETTING, setting, strict=True))
        expected = {arm: set(where(group, method=arm.method, interval=arm.interval)["seed"]) for arm in arms}
        for temperature, target in _targets(group):
            found = _by_seed(where(group, target=target, temperature=temperature))
            about = head | {"target": TARGETS[target], "T": f"{temperature:g}"}
            measured = {metric: METRICS[metric] for metric in METRICS if metric in set(found["metric"])}
            values = {metric: [by_seed(where(found, metric=metric), arm) for arm in arms] for metric in measured}
            for number, arm in enumerate(arms):
                cells = {
                    name: summary(values[metric][number], len(expected[arm]), style)
                    for metric, (name, style) in measured.items()
                }
                lines.append(about | {"student": arm.name} | cells)
            if target == "received":
                both = len(set.intersection(*expected.values()))
                changes = {
                    name: difference((values[metric][1] - values[metric][0]).dropna(), both, style)
                    for metric, (name, style) in measured.items()
                }
                lines.append(about | {"student": f"{SPACED.name} − {ONLINE.name}"} | changes)
    names = [name for name, _ in METRICS.values()]
    table = DataFrame(lines, columns=[*SETTING, "target", "T", "student", *names]).fillna(NOTHING).replace("", NOTHING)
    return table if table["recipe"].nunique() > 1 else table.drop(columns="recipe")


def _targets(rows: DataFrame) -> list[tuple[float, str]]:
    """Temperatures and targets that the rows have, in the order of `TARGETS`."""
    found = rows[rows["target"] != ""]
    pairs = set(zip(found["temperature"], found["target"], strict=True))
    return sorted(pairs, key=lambda pair: (list(TARGETS).index(pair[1]), pair[0]))


def _by_seed(rows: DataFrame) -> DataFrame:
    """The mean over epochs of each metric of each run."""
    keys = ["method", "interval", "seed", "run", "metric"]
    return rows.groupby(keys, sort=False)["value"].mean().reset_index()
