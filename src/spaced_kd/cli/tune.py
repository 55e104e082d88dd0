"""`spaced-kd tune`: the best trial of each arm of a finished search, and the study that compares them on new seeds."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd.cli.options import command
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import Study, load_study
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import write_safely


class Choice(NamedTuple):
    """The best trial of an arm.

    overrides: of its run, without seed and trial; edges: keys whose smallest or largest value it has.
    """

    overrides: dict[str, Any]
    trial: dict[str, Any]
    score: float
    edges: list[str]


def add_tune(commands: Any) -> None:
    """The command among those of `spaced-kd`."""
    tune = command(
        commands, "tune", tune_command, "choose each arm's best trial, and write the study that compares them"
    )
    tune.add_argument("config", type=Path, help="the study of the search, whose grid has the key tune")
    tune.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="SEED", help="of the comparison (0 1 2 3 4)"
    )
    tune.add_argument("--output", type=Path, help="the study file (STUDY_final.yaml beside that of the search)")


def tune_command(arguments: argparse.Namespace) -> None:
    """Prints each arm's best trial, and writes the study of the comparison."""
    from spaced_kd.analysis.tidy_rows import read

    study = load_study(arguments.config)
    if not study.tuned:
        raise UserError(f"{arguments.config} has no grid with tune: add the values that all arms try")
    path = arguments.results / study.name / "rows.csv"
    found = choices(study, read(path))
    for choice in found:
        arm = " ".join(
            f"{key}={value}" for key, value in choice.overrides.items() if key.startswith(("method", "interval"))
        )
        trial = " ".join(f"{key}={value}" for key, value in choice.trial.items())
        print(f"{arm}: {trial} ({choice.score:.2f} % on held-out images)")
    if edges := sorted({edge for choice in found for edge in choice.edges}):
        raise UserError(
            f"the best {edges[0]} of an arm lies at the edge of its values: add values beyond it to tune.{edges[0]},"
            " for all arms, and go on with the search; nothing was written"
        )
    if clash := {run.seed for run in study.runs} & set(arguments.seeds):
        raise UserError(f"seed {min(clash)} is one of the search: compare on seeds that chose nothing")
    output = arguments.output or arguments.config.with_name(f"{arguments.config.stem}_final.yaml")
    if output.exists():
        raise UserError(f"{output} exists: move it away, or name another file by --output")
    write_safely(output, final(study, found, arguments.seeds).encode())
    print(
        f"wrote {output}: `snakemake --configfile {output}` compares them on seeds"
        f" {', '.join(map(str, arguments.seeds))}"
    )


def choices(study: Study, rows: Any) -> list[Choice]:
    """The best trial of each arm, by mean accuracy on held-out images; UserError if a run is not finished."""
    from spaced_kd.analysis.tuning import METRIC  # with pandas, which other commands need not import

    scores = rows[(rows["metric"] == METRIC) & (rows["selection"] == "tail")].groupby("run")["value"].mean()
    trials: dict[str, list[tuple[RunSpec, float]]] = {}
    for run in study.runs:
        if run.id in study.tuned:
            if run.id not in scores.index:
                raise UserError(
                    f"{run.id} has no row of {METRIC} in the tail: finish the search, with tail_evaluations"
                )
            trials.setdefault(str(_arm(run, study)), []).append((run, float(scores[run.id])))
    tried: dict[str, list[Any]] = {}
    for run in study.runs:
        for key in study.tuned.get(run.id, ()):
            if run.value(key) not in tried.setdefault(key, []):
                tried[key].append(run.value(key))
    return [_best(runs, study, tried) for runs in trials.values()]


def _arm(run: RunSpec, study: Study) -> dict[str, Any]:
    return {key: value for key, value in run.changed().items() if key not in ("seed", *study.tuned[run.id])}


def _best(runs: list[tuple[RunSpec, float]], study: Study, tried: dict[str, list[Any]]) -> Choice:
    """An arm's trial with the highest mean over seeds; of equal ones the first."""
    by_trial: dict[str, list[tuple[RunSpec, float]]] = {}
    for run, score in runs:
        by_trial.setdefault(str([run.value(key) for key in study.tuned[run.id]]), []).append((run, score))
    best = max(by_trial.values(), key=lambda own: sum(score for _, score in own) / len(own))
    run = best[0][0]
    trial = {key: run.value(key) for key in study.tuned[run.id]}
    numbers = {key: values for key, values in tried.items() if all(isinstance(value, int | float) for value in values)}
    edges = [key for key, values in numbers.items() if len(values) > 2 and trial[key] in (min(values), max(values))]
    return Choice(_arm(run, study), trial, sum(score for _, score in best) / len(best), edges)


def final(study: Study, chosen: list[Choice], seeds: list[int]) -> str:
    """The study of the comparison as YAML: every arm with its trial, on the given seeds."""
    grids = [choice.overrides | choice.trial | {"seed": seeds} for choice in chosen]
    content = {
        "study": f"{study.name}_final",
        "planned_seeds": seeds,
        "grids": grids,
        "tables": ["tuned"],
    }
    head = (
        f"# The best trial of each arm of {study.name}, on seeds that chose nothing; written by `spaced-kd tune`.\n\n"
    )
    return head + yaml_files.text(content)
