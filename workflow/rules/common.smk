# The study as the rules see it: its runs by id, and the words that describe them. Reads spaced_kd.config, no torch.

import json
import os
import re
import sys
import textwrap
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from spaced_kd.config import extras, presets, registry, run_spec, study, targets
from spaced_kd.config.paths import corrupted_path
from spaced_kd.config.sources import changes as source_changes
from spaced_kd.config.sources import check as check_sources
from spaced_kd.planning import intervals
from spaced_kd.training import provenance
from spaced_kd.utils import owner, processes, yaml_files
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json

# "Select jobs to execute..." stands before each job: a terminal keeps the lines of finished jobs, the log file has all
for handler in logger.handlers:
    if handler.name == "DefaultStreamHandler":
        handler.addFilter(lambda record: not re.match(r"Select jobs to execute|Execute \d+ jobs", str(record.msg)))

try:
    # once more, since Snakemake's reading leaves out in silence what stands there twice
    for path in workflow.configfiles if workflow.is_main_process else ():
        yaml_files.read(Path(path))
    STUDY = study.expand(config)
    CONFIGS = [Path(path) for path in workflow.configfiles]
    if workflow.is_main_process:
        targets.check(sys.argv[1:], {run.id for run in STUDY.runs})
        intervals.check(STUDY.runs, Path(STUDY.data), Path("results"))
    if workflow.is_main_process:
        extras.check({name for names in STUDY.evaluated.values() for name in names})
        owner.check(STUDY.name, CONFIGS, Path("results"))
        if told := provenance.warning():
            logger.warning(told)
    # a default that changed since is refused here, and never silently means something else; jobs look at their own run
    changed = []  # finished runs whose sources are others now
    for run in STUDY.runs if workflow.is_main_process else ():
        if (made := Path("results/runs", run.id, "run.json")).exists():
            content = read_json(made, dict)
            run_spec.compare(run, content.get("spec", {}), made.parent)
            if source_changes(run, content):
                changed.append((run, content, made.parent))
    if changed:
        try:
            check_sources(*changed[0])
        except UserError as error:
            others = f" ({len(changed) - 1} more runs are like it)" if len(changed) > 1 else ""
            raise UserError(f"{error}{others}")
    # a wrong claim is refused now, and not after training
    if workflow.is_main_process and targets.judged([*STUDY.tables, *STUDY.figures]):
        from spaced_kd.analysis.claims import load as claims_file
        from spaced_kd.analysis import reference

        claims_file.load(claims_file.PATH, reference.read_reference(presets.REFERENCE))
except UserError as error:
    raise WorkflowError(f"configuration of the study: {error}")

PARTS = {part.name: part for part in STUDY.parts}  # the study, or its experiments, each with results of its own
RUNS = {run.id: run for run in STUDY.runs}
DATA = {run.data_id: run for run in STUDY.runs}
NOTEBOOKS = registry.ROOT.parents[1] / "notebooks"  # of a checkout; a study folder has none
SHARING = ("store_teachers", "train_together")  # keys of a study: its runs end in the same bits
FORMATS = {"tables": ("csv", "md", "tex", "html"), "figures": ("pdf", "png")}


wildcard_constraints:
    study="|".join([STUDY.name, *PARTS]),
    run=r"[^/]+",  # of thousands of ids, a pattern would take seconds in each call; `targets.check` knows them
    data="|".join(DATA),
    name=r"\w+",
    images=r"\d+",
    asked="(-[0-9a-f]{8})?",


def words(run):
    """A run as key=value words, quoted for the shell by {...:q}."""
    return RUNS[run].overrides()


def evaluation_words(study, run):
    """Names and settings of a run's evaluations in a part of the study."""
    found = []
    for name in PARTS[study].evaluated[run]:
        settings = STUDY.evaluations[name]
        found += [
            name,
            *(f"{name}.{key}={json.dumps(value)}" for key, value in settings.items()),
        ]
    return found


def corrupted(study, run):
    """The corrupted test images that a run's evaluations need."""
    if "corruptions" not in study.evaluated[run]:
        return []
    settings = registry.defaults("evaluations", "corruptions") | STUDY.evaluations["corruptions"]
    path = Path("results/data", f"{RUNS[run].data_id}.safetensors")
    return [str(corrupted_path(path, **settings))]


def corruption_words(asked):
    """Corruptions and severities other than the defaults; a study has one choice of them."""
    settings = STUDY.evaluations["corruptions"] if asked else {}
    given = [(f"--{key}", *map(str, settings[key])) for key in ("names", "severities") if key in settings]
    return [word for several in given for word in several]


def sources(kind, names):
    """Files of plug-ins, as inputs: editing one makes again what it makes, and nothing else."""
    return [os.path.relpath(path) for name in names for path in registry.plugin(kind, name).sources]


def collected(study):
    """The rows of a part of the study; of the whole study, those of all its parts, in an order that its files tell."""
    return [f"results/{name}/rows.csv" for name in ([study] if study in PARTS else sorted(PARTS))]


def files(kind, name):
    """A table's or figure's files, in the folder of the experiment that lists it, or of the study."""
    return expand(f"results/{STUDY.drawn_by(kind, name).name}/{kind}/{name}.{{format}}", format=FORMATS[kind])


def drawn():
    """Every table and figure that the study and its experiments ask for."""
    parts = (STUDY, *STUDY.experiments)
    kinds = [(kind, name) for part in parts for kind in FORMATS for name in getattr(part, kind)]
    return [path for kind, name in kinds for path in files(kind, name)]


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


def companions(wildcards, resources):
    """The students that may train in a teacher's job, if the study asks for that; no trigger either."""
    return STUDY.companions(wildcards.run)


def told(wildcards):
    """Rows that a table or figure shows: those collected, or those of the theory, which are the same for all studies."""
    if wildcards.name in ("theory", "signed_sums"):
        return "results/theory/rows.csv"
    return [] if wildcards.name == "fig07" else collected(wildcards.study)  # which shows images


def start(wildcards, resources):
    """What starts a training: its processes on this machine, or where a profile gives `mpi`, on `tasks` machines."""
    count, machines = RUNS[wildcards.run].processes, resources.get("tasks", 1)
    if count == 1:
        return "spaced-kd"
    if "mpi" not in resources.keys():
        return f"torchrun --standalone --nproc-per-node {count} -m spaced_kd"
    if count % machines:
        raise WorkflowError(f"{wildcards.run} has {count} processes, which {machines} tasks cannot share: change tasks")
    meet = "--rdzv-backend c10d --rdzv-id $SLURM_JOB_ID --rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 10000))"
    return (
        f"{resources.mpi} --ntasks {machines} torchrun --nnodes {machines} --nproc-per-node {count // machines} {meet}"
        " -m spaced_kd"
    )


def time_limit(wildcards, resources):
    """The seconds that the job has, so that training stops in time; nothing where no profile gives a `runtime`.

    `margin` is a resource too: how many of them training leaves unused.
    """
    minutes = resources.get("runtime")
    if not isinstance(minutes, int):
        return ""
    # a job that this workflow has submitted is the training alone; another may be the driver's
    again = " --requeue" if workflow.remote_exec else ""
    return f"--time-limit {60 * minutes} --margin {resources.get('margin', 120)}{again}"


def workers(wildcards, resources):
    """How many processes may decode and augment images for a training: trainings side by side share this machine.

    A Slurm job that this workflow has submitted has its own processors, and takes what it finds.
    """
    if workflow.remote_exec or not workflow.cores:
        return ""
    return f"--workers {max(1, processes.processors() // workflow.cores)}"


def judging(wildcards):
    """The files of the paper's claims, for what is made from them."""
    found = (presets.CLAIMS, presets.RECIPES / "paper.yaml") if wildcards.name in targets.JUDGE else ()
    return [os.path.relpath(path) for path in found]


def shown(wildcards):
    """Corrupted images, for the figure that shows them and needs no rows."""
    part = PARTS.get(wildcards.study, STUDY)
    paths = (path for run in part.evaluated for path in corrupted(part, run))
    if wildcards.name != "fig07" or not (path := next(paths, None)):
        return []
    count = (registry.defaults("evaluations", "corruptions") | STUDY.evaluations["corruptions"])["images"]
    return str(corrupted_path(Path(path.partition(".corrupted-")[0] + ".safetensors"), count))


def described(wildcards):
    """The configuration of a part of the study, for `spaced-kd collect`, without what does not matter to rows."""
    only = {"experiments": [wildcards.study.partition("/")[2]]} if STUDY.experiments else {}
    kept = {key: value for key, value in config.items() if key not in (*FORMATS, *SHARING)} | only
    return json.dumps(kept, sort_keys=True)


def titled(wildcards):
    """Number, title and name of a table or figure in the report, which sorts by the first: verdicts, then the paper's."""
    kind = "tables" if wildcards.name in registry.names("tables") else "figures"
    order = sorted(registry.names(kind), key=lambda name: (name not in targets.JUDGE, not re.search(r"\d", name), name))
    title = registry.plugin(kind, wildcards.name).summary.rstrip(".")
    title = textwrap.shorten(title, 60, placeholder=" …")  # the report's menu grows with it
    return {"no": f"{order.index(wildcards.name) + 1:02}", "title": title, "name": wildcards.name}


def page():
    """The page of results, of a study that asks for verdicts."""
    return f"results/{STUDY.name}/results.html" if targets.judged([*STUDY.tables, *STUDY.figures]) else []
