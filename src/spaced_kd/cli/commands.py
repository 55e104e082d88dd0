"""The commands of `spaced-kd`, as functions of their parsed arguments."""

import argparse
import io
import json
import shlex
import sys
from statistics import mean, stdev
from typing import Any, TextIO

from spaced_kd.config import registry, run_spec
from spaced_kd.config.study import load_study
from spaced_kd.training.preemption import GO_ON, Interrupted, StopSignal, requeue
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.processes import rank


def _standard_input() -> TextIO:
    """Standard input in UTF-8, whatever the locale."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")
    return sys.stdin


def plan_command(arguments: argparse.Namespace) -> None:
    """Prints the jobs, time and disk space that a study will take."""
    study = load_study(arguments.config)
    from spaced_kd.planning import plan

    print(plan.describe(plan.make(study, arguments.device, arguments.count, arguments.results)))


def prepare_command(arguments: argparse.Namespace) -> None:
    """Decodes a dataset into its file, or makes the corrupted copies of its test images."""
    # all overrides of a run are accepted; only those of its dataset have an effect
    flat = run_spec.parse_overrides(arguments.overrides)
    flat = {key: value for key, value in flat.items() if key.startswith("dataset")}
    described = run_spec.from_flat({"network": "resnet_mini", "method": "baseline", "seed": 0} | flat)
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.data import dataset, loading
    from spaced_kd.data.contract import Dataset, download_of

    path = ResultPaths(arguments.results).data(described)
    if arguments.corrupt:
        from spaced_kd.data import corruptions

        chosen = {key: given for key in ("names", "severities") if (given := getattr(arguments, key))}
        chosen = registry.check_settings("evaluations", "corruptions", chosen)
        print(f"wrote {corruptions.make(path, arguments.corrupt, workers=arguments.workers, **chosen)}")
        return
    if arguments.names or arguments.severities:
        raise UserError("--names and --severities are of corrupted images: add --corrupt N, or leave them out")
    module: Dataset = registry.find("datasets", described.dataset)
    if arguments.download:
        if not (download := download_of(module)):
            raise UserError(f"{described.dataset} needs no download: leave --download out")
        download(arguments.source)
    content = loading.prepare(described, path, arguments.source)
    counts = {split: len(content[f"{split}_labels"]) for split in dataset.SPLITS}
    print(f"wrote {path}: {counts['train']} training and {counts['test']} test images")


def train_command(arguments: argparse.Namespace) -> None:
    """Trains one run, or goes on with it."""
    stop = StopSignal(arguments.time_limit, arguments.margin)  # first, since the job's time is already running
    described = run_spec.from_overrides(arguments.overrides)
    overrides = [run_spec.parse_overrides(shlex.split(student)) for student in arguments.save_states_for]
    students = tuple(run_spec.from_flat(described.changed() | student) for student in overrides)
    together = tuple(run_spec.from_overrides(shlex.split(student)) for student in arguments.together)
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.training.run_folder import finished

    if arguments.finished:
        if not finished(described, ResultPaths(arguments.results)):
            raise UserError(f"{arguments.results / 'runs' / described.id} is not finished")
        print(f"{arguments.results / 'runs' / described.id} is finished: the job failed after its last file")
        return
    if described.processes == 1 and finished(described, ResultPaths(arguments.results)):
        print(f"{arguments.results / 'runs' / described.id} is finished already")
        return
    from spaced_kd.training.gpu_memory import until_it_fits  # seconds of imports, which a finished run need not pay
    from spaced_kd.training.loop import train

    options = {key: getattr(arguments, key) for key in ("checkpoint_every", "device", "workers")}
    with stop:
        try:
            options |= {"results": arguments.results, "save_states_for": students, "stop": stop}
            folder = until_it_fits(
                lambda beside: train(described, together=together if beside else (), **options),
                stop,
                together=bool(together),
            )
        except Interrupted as stopped:
            # while signals are only recorded: torchrun sends one to the first process as soon as another has ended
            if stopped.status == GO_ON and arguments.requeue and not rank():
                stopped.again = requeue()
            raise
    if rank():
        return
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    last = next(row["value"] for row in rows if row["selection"] == "last")
    print(f"wrote {folder}: accuracy {last:.2f} % after the last epoch")


def evaluate_command(arguments: argparse.Namespace) -> None:
    """Measures a finished run."""
    settings_of = run_spec.parse_overrides(each for each in arguments.evaluations if "." in each.partition("=")[0])
    wanted: dict[str, dict[str, Any]] = {each.partition(".")[0]: {} for each in arguments.evaluations}
    for key, value in settings_of.items():
        name, _, setting = key.partition(".")
        wanted[name][setting] = value
    wanted = {name: registry.check_settings("evaluations", name, settings) for name, settings in wanted.items()}
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.evaluation.evaluate import evaluate
    from spaced_kd.training.run_folder import read_spec
    from spaced_kd.utils.files import rows_digest, sha256, write_safely

    rows = evaluate(arguments.run_id, wanted, arguments.results, device=arguments.device)
    if arguments.output:
        weights = sha256(ResultPaths(arguments.results).weights(read_spec(arguments.run_id, arguments.results)))
        content = {"weights": weights, "settings": wanted, "sha256": rows_digest(rows), "rows": rows}
        write_safely(arguments.output, json.dumps(content, indent=1).encode())
        print(f"wrote {arguments.output}: {len(rows)} rows")
    else:
        for row in rows:
            print("  ".join(f"{key}={value}" for key, value in row.items()))


def collect_command(arguments: argparse.Namespace) -> None:
    """Gathers a study's rows."""
    study = load_study(_standard_input() if str(arguments.config) == "-" else arguments.config)
    from spaced_kd.analysis import collect, tidy_rows
    from spaced_kd.cli import verify
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.utils import owner
    from spaced_kd.utils.files import write_safely

    if arguments.output and len(study.parts) > 1:
        raise UserError(f"--output names one file, but {study.name} has several experiments: leave it out")
    if not any((ResultPaths(arguments.results).run(run) / "run.json").exists() for run in study.runs):
        raise UserError(
            f"none of the {len(study.runs)} runs of {study.name} is finished in {arguments.results}: train some, or"
            " name another folder with --results"
        )
    if str(arguments.config) != "-" and not arguments.output:
        owner.claim(study.name, [arguments.config], arguments.results)
    checker = verify.Checker(arguments.results)
    for part in study.parts:
        path = arguments.output or arguments.results / part.name / "rows.csv"
        rows = collect.collect_rows(part, arguments.results)
        for folder in (ResultPaths(arguments.results).run(run) for run in part.runs):
            for finding in checker.of_run(folder) if (folder / "run.json").exists() else ():
                raise UserError(f"{finding}: move {folder} away and train it again")
        tidy_rows.write(rows, path)
        runs = collect.descriptions(part, arguments.results)
        write_safely(path.with_name("runs.json"), json.dumps(runs, indent=1).encode())
        print(collect.times(runs).to_markdown(index=False, floatfmt=".1f"))
        found = rows[rows["metric"] != "missing"]
        print(f"wrote {path}: {len(found)} rows of {found['run'].nunique()} of {len(part.runs)} runs")


def record_command(arguments: argparse.Namespace) -> None:
    """Keeps a study's rows beside those recorded before."""
    from spaced_kd.analysis import recorded

    into = arguments.into or arguments.results / "recorded" / arguments.study.name
    found = recorded.record(arguments.study, into)
    message = f"recorded: {into} has {found.runs} runs now"
    if found.again:
        message += f"; of {found.again} that were trained again, {found.same} came out the same to the bit"
    if len(found.apart) > 1:
        message += f", the others' accuracy {mean(found.apart):+.2f} ± {stdev(found.apart):.2f} points apart"
    print(message)


def render_command(arguments: argparse.Namespace) -> None:
    """Draws tables and figures."""
    from spaced_kd.analysis import render, tidy_rows
    from spaced_kd.analysis.reference import read_reference
    from spaced_kd.utils import array_file

    if not arguments.rows and not arguments.images:
        raise UserError("--rows is not given: name rows.csv of a study")
    folder = arguments.output or (arguments.rows or [arguments.images])[0].parent
    if not arguments.output and folder.resolve().parent.name == "recorded":  # a folder of the repository
        folder = arguments.results / f"{folder.resolve().name}-recorded"
    for path in arguments.rows:
        if not path.exists():
            raise UserError(f"{path} does not exist: {render.remedy(arguments.names[0])}")
    rows = tidy_rows.beside(tidy_rows.read(*arguments.rows), read_reference(arguments.reference))
    images = None
    if arguments.images:
        images, _ = array_file.read(arguments.images, remedy="make it with `spaced-kd prepare --corrupt`")
    for name in arguments.names:
        for path in render.render(name, rows, folder, images):
            print(f"wrote {path}")


def claims_command(arguments: argparse.Namespace) -> None:
    """Judges the paper's claims."""
    from spaced_kd.analysis import collect, human_names, tidy_rows
    from spaced_kd.analysis.claims import load as claims_file
    from spaced_kd.analysis.claims import text as verdict_text
    from spaced_kd.analysis.claims import verdicts
    from spaced_kd.analysis.reference import read_reference

    rows = tidy_rows.beside(tidy_rows.read(*arguments.rows), read_reference(arguments.reference))
    sheet = claims_file.load(arguments.claims, rows)
    correct = collect.correct_images(arguments.results) if arguments.images else None
    judged = verdicts.judge(sheet, rows, correct=correct)
    if arguments.table:
        print(human_names.of_table(verdict_text.lines(judged, rows)).to_markdown(index=False, disable_numparse=True))
    else:
        print(verdict_text.listing(judged, rows))


def site_command(arguments: argparse.Namespace) -> None:
    """Writes the results page."""
    from spaced_kd.analysis import results_page, tidy_rows
    from spaced_kd.analysis.claims import load as claims_file
    from spaced_kd.analysis.claims import summary, verdicts
    from spaced_kd.analysis.reference import read_reference
    from spaced_kd.utils.files import write_safely

    folders = [path.resolve().parent for path in arguments.rows]
    kept = folders[0].parent.name == "recorded"  # in the repository, beside which nothing is written
    alone = folders[0] if len(folders) == 1 and not kept else arguments.results
    rows = tidy_rows.beside(tidy_rows.read(*arguments.rows), read_reference(arguments.reference))
    judged = verdicts.judge(claims_file.load(arguments.claims, rows), rows)
    title = arguments.title or (folders[0].name if len(folders) == 1 else f"{len(folders)} studies")
    path = arguments.output or alone / "results.html"
    write_safely(path, results_page.page(judged, rows, results_page.descriptions(arguments.rows), title))
    if arguments.summary:
        write_safely(arguments.summary, summary.summary(judged, rows, title).encode())
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")


def theory_command(arguments: argparse.Namespace) -> None:
    """Measures the proof of Theorem 4.4."""
    if arguments.seeds < 2:
        raise UserError(f"--seeds is {arguments.seeds}, but an interval needs at least 2")
    from dataclasses import asdict

    from pandas import DataFrame

    from spaced_kd.analysis import tidy_rows
    from spaced_kd.evaluation import theorem_4_4
    from spaced_kd.training import provenance
    from spaced_kd.utils.files import write_safely

    path = arguments.output or arguments.results / "theory" / "rows.csv"
    setting, about = theorem_4_4.Setting(), provenance.describe()
    rows = DataFrame(theorem_4_4.measure(arguments.seeds, setting))
    commit = about["commit"] + ("-dirty" if about["dirty"] else "")
    tidy_rows.write(tidy_rows.join(rows.assign(source="ours", study="theory", commit=commit)), path)
    described = [{"setting": asdict(setting), "seeds": arguments.seeds, "provenance": about}]
    write_safely(path.with_name("runs.json"), json.dumps(described, indent=1).encode())
    print(f"wrote {path}: {len(rows)} rows")


def verify_command(arguments: argparse.Namespace) -> None:
    """Checks a folder of results."""
    from spaced_kd.analysis.reference import read_reference
    from spaced_kd.cli import verify

    folder = arguments.folder or arguments.results
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: name a folder of results")
    reference = read_reference(arguments.reference)
    checker = verify.Checker(folder, reference, reevaluate=arguments.reevaluate, device=arguments.device)
    found = 0
    for line in checker.findings():
        found += 1
        print(line, flush=True)
    if not any(checker.counts.values()):
        raise UserError(f"{folder} has nothing to check: neither runs nor rows.csv of a study")
    message = f"{folder}: {found} findings in {checker.summary()}"
    if found:
        raise UserError(message)
    print(message)


def list_command(arguments: argparse.Namespace) -> None:
    """Lists the plug-ins."""
    for kind in [arguments.kind] if arguments.kind else registry.KINDS:
        print(kind)
        for plugin in registry.plugins(kind).values():
            print(f"  {plugin.name:16} {plugin.summary}" + (f" ({plugin.package})" if plugin.package else ""))
            if arguments.kind:
                for key, (annotation, default) in plugin.settings.items():
                    given = "" if default is registry.REQUIRED else f" = {default!r}"
                    print(f"  {'':16}   {key}: {annotation}{given}{_range(plugin, key)}")


def _range(plugin: registry.Plugin, key: str) -> str:
    allowed = plugin.constants.get("RANGES", {}).get(key)
    if allowed is None:
        return ""
    return f", in {allowed}" if isinstance(allowed, str) else f", of {', '.join(map(str, allowed))}"
