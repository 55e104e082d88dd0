# The study as the rules see it: its runs by id, and the words that describe them. Reads spec and catalog, no torch.

import json
import os
import textwrap
from pathlib import Path

from snakemake.exceptions import WorkflowError

from spaced_kd import catalog, spec
from spaced_kd.errors import UserError
from spaced_kd.files import read_json

try:
    STUDY = spec.expand(config)
    for run in STUDY.runs:  # a default that changed since is refused here, and never silently means something else
        if (made := Path("results/runs", run.id, "run.json")).exists():
            spec.compare(run, read_json(made, dict).get("spec", {}), made.parent)
    if "scorecard" in STUDY.tables and workflow.is_main_process:  # a wrong claim is refused now, and not after training
        from spaced_kd import claims_file, results

        claims_file.load(claims_file.PATH, results.reference(Path("config/reference.csv")))
except UserError as error:
    raise WorkflowError(f"configuration of the study: {error}")

HERE = f"results/{STUDY.name}"
RUNS = {run.id: run for run in STUDY.runs}
DATA = {run.data_id: run for run in STUDY.runs}
TABLE_FORMATS = ("csv", "md", "tex", "html")
FIGURE_FORMATS = ("pdf", "png")


wildcard_constraints:
    run="|".join(RUNS),
    data="|".join(DATA),
    name=r"\w+",
    images=r"\d+",


def words(run):
    """A run as key=value words, quoted for the shell by {...:q}."""
    return RUNS[run].words()


def evaluation_words(run):
    """Names and settings of a run's evaluations."""
    found = []
    for name in STUDY.evaluated[run]:
        settings = STUDY.evaluations[name]
        found += [
            name,
            *(f"{name}.{key}={json.dumps(value)}" for key, value in settings.items()),
        ]
    return found


def corrupted(run):
    """The corrupted test images that a run's evaluations need."""
    if "corruptions" not in STUDY.evaluated[run]:
        return []
    settings = catalog.defaults("evaluations", "corruptions") | STUDY.evaluations["corruptions"]
    return [f"results/data/{RUNS[run].data_id}.corrupted-{settings['images']}.safetensors"]


def sources(kind, names):
    """Files of plug-ins, as inputs: editing one makes again what it makes, and nothing else."""
    return [os.path.relpath(catalog.plugin(kind, name).path) for name in names]


def drawn():
    """Every table and figure that the study asks for."""
    return [
        *expand(
            f"{HERE}/tables/{{name}}.{{format}}",
            name=STUDY.tables,
            format=TABLE_FORMATS,
        ),
        *expand(
            f"{HERE}/figures/{{name}}.{{format}}",
            name=STUDY.figures,
            format=FIGURE_FORMATS,
        ),
    ]


def teacher(wildcards):
    """The run that a student follows; it waits for the final weights only."""
    found = RUNS[wildcards.run].teacher_spec()
    return ancient(f"results/runs/{found.id}/weights.safetensors") if found else []


def follow(wildcards, resources):
    """The students to come, for whom a teacher leaves its states.

    Snakemake takes a parameter that asks for `resources` as derived, and derived parameters trigger no new run: adding
    an interval to a study leaves its finished teacher finished.
    """
    return STUDY.followers(wildcards.run)


def told(wildcards):
    """Rows that a table or figure shows: the study's, or those of the theory, which are the same for all studies."""
    return "results/theory/rows.csv" if wildcards.name in ("theory", "signed_sums") else f"{HERE}/rows.csv"


def time_limit(wildcards, resources):
    """The seconds that the job has, so that training stops in time; nothing where no profile gives a `runtime`.

    `margin` is a resource too: how many of them training leaves unused.
    """
    minutes = resources.get("runtime")
    if not isinstance(minutes, int):
        return ""
    return f"--time-limit {60 * minutes} --margin {resources.get('margin', 120)}"


def shown(wildcards):
    """Corrupted images, for the figure that shows them."""
    return corrupted(next(run for run in RUNS if corrupted(run))) if wildcards.name == "fig07" else []


def titled(wildcards):
    """Name and short title of a table or figure in the report, whose menu grows with it."""
    kind = "tables" if wildcards.name in catalog.names("tables") else "figures"
    summary = catalog.plugin(kind, wildcards.name).summary.rstrip(".")
    title = summary.partition(": ")[2] or summary
    return {"name": wildcards.name, "title": textwrap.shorten(title, 45, placeholder=" …")}
