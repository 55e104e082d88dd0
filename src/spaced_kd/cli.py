"""The command line: a function for each command of `spaced-kd`, which `spaced-kd --help` lists."""

import argparse
import io
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TextIO

from spaced_kd import catalog, spec
from spaced_kd.errors import UserError
from spaced_kd.slices import GO_ON, Slice, Stopped, requeue
from spaced_kd.study import load_study

RUN_HELP = (
    "the run as key=value: dataset=digits network=resnet_mini method=online_kd interval=1.5 seed=0 method.alpha=0.3"
)


# as torch, cuBLAS and cuDNN say it, and DataLoader of a worker that the kernel has killed
OUT_OF_MEMORY = re.compile("allocate memory|out of memory|ALLOC_FAILED|killed by signal: (Killed|Bus error)", re.I)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends in one line and exit status 2, a stopped training in those of `slices`."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own futures
    warnings.showwarning = lambda message, *_: print(f"spaced-kd: warning: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # a terminal of ASCII shows what it can: Spaced KD's ± and σ are in tables
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a process that SIGPIPE ends
    except UserError as error:
        return _told(str(error), 2)
    except Stopped as stopped:
        return _told(f"{stopped}; {stopped.again}" if stopped.again else str(stopped), stopped.status)
    except OSError as error:  # a full disk behind standard output, a file that may not be read
        return _told(f"{error.filename or 'a file'}: {error.strerror}: mend that, and give the same command again", 2)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _told(
            "out of memory: give the job more (mem_mb in the profile, or a GPU with more), or lower batch_size, or the"
            " evaluation's images, which makes it another run or evaluation",
            2,
        )
    except KeyboardInterrupt:
        return _told("stopped; the same command goes on from the last state", 130)
    return 0


def _told(line: str, status: int) -> int:
    who = f"process {_number()}: " if _number() else ""
    print(f"spaced-kd: {who}{' '.join(line.split())}", file=sys.stderr)
    return status


def _number() -> int:
    """Of this process among those that train one run; 0 is the first, or the only one."""
    return int(os.environ.get("RANK", 0)) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


def _out_of_memory(error: Exception) -> bool:
    """Whether memory was the matter; torch says so for a GPU by a class of its own, for the host in words."""
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or bool(OUT_OF_MEMORY.search(str(error)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spaced-kd",
        description="Train, evaluate and compare networks that learn from a teacher some steps ahead (Spaced KD)."
        " Whole studies are run by Snakemake, which calls these commands: snakemake --configfile config/demo.yaml",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plan = _command(commands, "plan", _plan, "say what a study will take, before anything runs: jobs, time, disk")
    plan.add_argument("config", type=Path, help="the study: config/paper.yaml")
    plan.add_argument("--device", default="cpu", help="kind of device: h200, h100, a100, cpu, or one that was measured")
    plan.add_argument("--count", type=int, default=1, metavar="N", help="devices, each with one training at a time (1)")

    prepare = _command(commands, "prepare", _prepare, "decode a dataset once into a verified file of uint8 arrays")
    prepare.add_argument("words", nargs="+", metavar="KEY=VALUE", help="the dataset: dataset=digits dataset.split=0")
    prepare.add_argument("--source", type=Path, default=Path("data"), help="folder of the published files (data)")
    prepare.add_argument(
        "--download", action="store_true", help="first fetch the published files into that folder, where allowed"
    )
    prepare.add_argument(
        "--corrupt", type=_at_least(1), metavar="N", help="make the corrupted copies of N test images instead"
    )

    prepare.add_argument("--names", nargs="+", metavar="NAME", help="corruptions other than the paper's six")
    prepare.add_argument("--severities", nargs="+", type=int, metavar="1-5", help="other than the paper's 1, 3 and 5")
    _workers(prepare, "share the work on corrupted copies (all processors)")

    train = _command(commands, "train", _train, "train one run, or go on where it was stopped")
    train.add_argument("words", nargs="+", metavar="KEY=VALUE", help=RUN_HELP)
    train.add_argument(
        "--leave",
        nargs="*",
        default=[],
        metavar="STUDENT",
        help="leave states for students to come, each in quotes: 'method=online_kd interval=1.5'",
    )
    train.add_argument(
        "--checkpoint-every", type=_at_least(0.0), default=300, metavar="SECONDS", help="between resume states (300)"
    )
    train.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help=f"stop before this much time has passed, with a state written and exit status {GO_ON}",
    )
    train.add_argument(
        "--requeue",
        action="store_true",
        help="have Slurm run the job again then: for a job that is this training alone, as those of the workflow",
    )
    train.add_argument(
        "--margin", type=float, default=120, metavar="SECONDS", help="how long before the time limit (120)"
    )
    train.add_argument(
        "--finished",
        action="store_true",
        help="train nothing: exit status 0 if the run is finished, 2 if not",
    )
    _workers(train, "decode and augment images one by one (all processors but one)")
    _device(train)

    evaluate = _command(commands, "evaluate", _evaluate, "measure a finished run")
    evaluate.add_argument("run_id", metavar="RUN", help="id of the run: its folder's name in results/runs")
    evaluate.add_argument(
        "words", nargs="+", metavar="EVALUATION", help="names, and settings as key=value: bim bim.epsilon=1"
    )
    evaluate.add_argument("--output", type=Path, help="write the rows as JSON into this file instead of printing them")
    _device(evaluate)

    accept = _command(
        commands, "accept", _accept, "keep finished runs although a source that they come from has changed since"
    )
    accept.add_argument("runs", nargs="+", metavar="RUN", help="ids of the runs, or their folders")
    accept.add_argument("--reason", required=True, metavar="TEXT", help="why their numbers stand; kept in run.json")

    collect = _command(commands, "collect", _collect, "gather a study's rows from its finished runs into one CSV file")
    collect.add_argument("config", type=Path, help="the study: config/demo.yaml, or - for standard input")
    collect.add_argument("--output", type=Path, help="the file (results/STUDY/rows.csv); runs.json beside it")

    record = _command(commands, "record", _record, "keep a study's rows and runs beside those recorded before")
    record.add_argument("study", type=Path, metavar="FOLDER", help="of the study: results/demo")
    record.add_argument("--into", type=Path, help="folder of what is recorded (recorded/STUDY in that of all results)")

    render = _command(commands, "render", _render, "draw tables and figures from a study's rows")
    render.add_argument("names", nargs="+", metavar="NAME", help="tables and figures: tab01 fig02")
    render.add_argument("--rows", type=Path, nargs="+", default=[], help="rows.csv of one study, or of several")
    render.add_argument("--reference", type=Path, default=Path("config/reference.csv"), help="the paper's numbers")
    render.add_argument("--images", type=Path, help="corrupted images, for the figure that shows them")
    render.add_argument(
        "--output",
        type=Path,
        help="folder for tables/ and figures/ (that of the first rows; of recorded ones RESULTS/STUDY-recorded)",
    )

    judge = _command(commands, "claims", _claims, "judge the paper's claims by the rows of studies: a scorecard")
    judge.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="rows.csv of one study, or of several")
    judge.add_argument("--claims", type=Path, default=Path("config/claims.yaml"), help="the claims")
    judge.add_argument("--reference", type=Path, default=Path("config/reference.csv"), help="the paper's numbers")
    judge.add_argument("--table", action="store_true", help="one wide table in Markdown, with what is not run")
    judge.add_argument(
        "--images", action="store_true", help="add what test images alone tell: a bootstrap, and McNemar for one seed"
    )

    theory = _command(commands, "theory", _theory, "measure the proof of Theorem 4.4 on small networks, exactly")
    theory.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="seeds 0 to N - 1, trained side by side (20)"
    )
    theory.add_argument("--output", type=Path, help="the file (results/theory/rows.csv); runs.json beside it")

    check = _command(commands, "verify", _verify, "check every number of a folder of results back to the weights")
    check.add_argument("folder", nargs="?", type=Path, metavar="RESULTS", help="the folder (that of --results)")
    check.add_argument("--reevaluate", action="store_true", help="predict every test image again with every network")
    check.add_argument("--reference", type=Path, default=Path("config/reference.csv"), help="the paper's numbers")
    _device(check)

    listing = _command(
        commands, "list", _list, "what exists: datasets, networks, methods, evaluations, tables, figures"
    )
    listing.add_argument("kind", nargs="?", choices=catalog.KINDS, help="only this kind, with its settings")
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.register("action", None, _Once)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (results)")
    parser.set_defaults(run=run)
    return parser


def _standard_input() -> TextIO:
    """In UTF-8, whatever the locale."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")
    return sys.stdin


class _Once(argparse.Action):
    """Keeps an option's value; argparse itself would drop all but the last where it is given twice."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = vars(namespace).setdefault("given", set())
        if option_string and self.dest in given:
            raise argparse.ArgumentError(self, "is given twice: leave one of them out")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def _workers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--workers", type=_at_least(0), metavar="N", help=f"processes that {what}")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU where there is one)")


def _at_least(least: float) -> Callable[[str], float]:
    """Reads a number of the kind of `least` that is no smaller."""

    def read(text: str) -> float:
        value = type(least)(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    read.__name__ = "whole number" if isinstance(least, int) else "number"  # in argparse's own messages
    return read


def _plan(arguments: argparse.Namespace) -> None:
    study = load_study(arguments.config)
    from spaced_kd import plan

    print(plan.describe(plan.make(study, arguments.device, arguments.count, arguments.results)))


def _prepare(arguments: argparse.Namespace) -> None:
    # the words of a run are welcome too; only those of its dataset count
    flat = spec.parse_words(arguments.words)
    flat = {key: value for key, value in flat.items() if key.startswith("dataset")}
    described = spec.from_flat({"network": "resnet_mini", "method": "baseline", "seed": 0} | flat)
    from spaced_kd import data
    from spaced_kd.files import Places

    path = Places(arguments.results).data(described)
    if arguments.corrupt:
        from spaced_kd import corrupt

        chosen = {key: given for key in ("names", "severities") if (given := getattr(arguments, key))}
        chosen = catalog.check_settings("evaluations", "corruptions", chosen)
        print(f"wrote {corrupt.make(path, arguments.corrupt, workers=arguments.workers, **chosen)}")
        return
    if arguments.names or arguments.severities:
        raise UserError("--names and --severities are of corrupted images: add --corrupt N, or leave them out")
    module = catalog.find("datasets", described.dataset)
    if arguments.download:
        if not hasattr(module, "download"):
            raise UserError(f"{described.dataset} needs no download: leave --download out")
        module.download(arguments.source)
    content = module.prepare(arguments.source, **described.settings.get("dataset", {}))
    data.check(content)
    about = {"dataset": described.dataset, "settings": described.resolved()["settings"]["dataset"]}
    if data.is_index(content):
        about["source"] = str(arguments.source.resolve())
    data.save(path, content, **about)
    counts = {split: len(content[f"{split}_labels"]) for split in data.SPLITS}
    print(f"wrote {path}: {counts['train']} training and {counts['test']} test images")


def _train(arguments: argparse.Namespace) -> None:
    part = Slice(arguments.time_limit, arguments.margin)  # first, since the job's time runs already
    described = spec.from_words(arguments.words)
    words = [spec.parse_words(shlex.split(student)) for student in arguments.leave]
    leave = tuple(spec.from_flat(described.changed() | student) for student in words)
    from spaced_kd.files import Places
    from spaced_kd.keeper import finished
    from spaced_kd.train import train

    if arguments.finished:
        if not finished(described, Places(arguments.results)):
            raise UserError(f"{arguments.results / 'runs' / described.id} is not finished")
        print(f"{arguments.results / 'runs' / described.id} is finished: the job failed after its last file")
        return
    if described.processes == 1 and finished(described, Places(arguments.results)):
        print(f"{arguments.results / 'runs' / described.id} is finished already")
        return
    options = {"checkpoint_every": arguments.checkpoint_every, "workers": arguments.workers}
    with part:
        try:
            folder = train(described, arguments.results, leave=leave, device=arguments.device, part=part, **options)
        except Stopped as stopped:
            # while signals are only heard: torchrun sends one to the first process as soon as another has ended
            if stopped.status == GO_ON and arguments.requeue and not _number():
                stopped.again = requeue()
            raise
    if _number():
        return
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    last = next(row["value"] for row in rows if row["selection"] == "last")
    print(f"wrote {folder}: accuracy {last:.2f} % after the last epoch")


def _evaluate(arguments: argparse.Namespace) -> None:
    given = spec.parse_words(word for word in arguments.words if "." in word.partition("=")[0])
    wanted: dict[str, dict[str, Any]] = {word.partition(".")[0]: {} for word in arguments.words}
    for key, value in given.items():
        name, _, setting = key.partition(".")
        wanted[name][setting] = value
    wanted = {name: catalog.check_settings("evaluations", name, settings) for name, settings in wanted.items()}
    from spaced_kd.evaluate import evaluate, read_spec
    from spaced_kd.files import Places, rows_digest, sha256, write_safely

    rows = evaluate(arguments.run_id, wanted, arguments.results, device=arguments.device)
    if arguments.output:
        weights = sha256(Places(arguments.results).weights(read_spec(arguments.run_id, arguments.results)))
        content = {"weights": weights, "settings": wanted, "sha256": rows_digest(rows), "rows": rows}
        write_safely(arguments.output, json.dumps(content, indent=1).encode())
        print(f"wrote {arguments.output}: {len(rows)} rows")
    else:
        for row in rows:
            print("  ".join(f"{key}={value}" for key, value in row.items()))


def _accept(arguments: argparse.Namespace) -> None:
    from spaced_kd.accept import accept

    for run in arguments.runs:
        changed = accept(run, arguments.reason, arguments.results)
        print(
            f"{Path(run).name}: {'accepted after ' + ' and '.join(changed) + ' changed' if changed else 'is current'}"
        )


def _collect(arguments: argparse.Namespace) -> None:
    study = load_study(_standard_input() if str(arguments.config) == "-" else arguments.config)
    from spaced_kd import owner, results, verify
    from spaced_kd.files import Places, write_safely

    if arguments.output and len(study.parts) > 1:
        raise UserError(f"--output names one file, but {study.name} has several experiments: leave it out")
    if not any((Places(arguments.results).run(run) / "run.json").exists() for run in study.runs):
        raise UserError(
            f"none of the {len(study.runs)} runs of {study.name} is finished in {arguments.results}: train some, or"
            " name another folder with --results"
        )
    if str(arguments.config) != "-" and not arguments.output:
        owner.claim(study.name, [arguments.config], arguments.results)
    checker = verify.Checker(arguments.results)
    for part in study.parts:
        path = arguments.output or arguments.results / part.name / "rows.csv"
        rows = results.collect(part, arguments.results)
        for folder in (Places(arguments.results).run(run) for run in part.runs):
            for finding in checker.of_run(folder) if (folder / "run.json").exists() else ():
                raise UserError(f"{finding}: move {folder} away and train it again")
        results.write(rows, path)
        runs = results.descriptions(part, arguments.results)
        write_safely(path.with_name("runs.json"), json.dumps(runs, indent=1).encode())
        print(results.times(runs).to_markdown(index=False, floatfmt=".1f"))
        found = rows[rows["metric"] != "missing"]
        print(f"wrote {path}: {len(found)} rows of {found['run'].nunique()} of {len(part.runs)} runs")


def _record(arguments: argparse.Namespace) -> None:
    from spaced_kd import results

    into = arguments.into or arguments.results / "recorded" / arguments.study.name
    found = results.record(arguments.study, into)
    told = f"recorded: {into} has {found.runs} runs now"
    if found.again:
        told += f"; of {found.again} that were trained again, {found.same} came out the same to the bit"
    if len(found.apart) > 1:
        told += f", the others' accuracy {mean(found.apart):+.2f} ± {stdev(found.apart):.2f} points apart"
    print(told)


def _render(arguments: argparse.Namespace) -> None:
    from spaced_kd import arrays, render, results

    if not arguments.rows and not arguments.images:
        raise UserError("--rows is not given: name rows.csv of a study")
    folder = arguments.output or (arguments.rows or [arguments.images])[0].parent
    if not arguments.output and folder.resolve().parent.name == "recorded":  # which the repository keeps
        folder = arguments.results / f"{folder.resolve().name}-recorded"
    for path in arguments.rows:
        if not path.exists():
            raise UserError(f"{path} does not exist: {render.remedy(arguments.names[0])}")
    rows = results.beside(results.read(*arguments.rows), results.reference(arguments.reference))
    images = None
    if arguments.images:
        images, _ = arrays.read(arguments.images, remedy="make it with `spaced-kd prepare --corrupt`")
    for name in arguments.names:
        for path in render.render(name, rows, folder, images):
            print(f"wrote {path}")


def _claims(arguments: argparse.Namespace) -> None:
    from spaced_kd import claims_file, results, verdict_text, verdicts

    rows = results.beside(results.read(*arguments.rows), results.reference(arguments.reference))
    sheet = claims_file.load(arguments.claims, rows)
    correct = results.correct_images(arguments.results) if arguments.images else None
    judged = verdicts.judge(sheet, rows, correct=correct)
    if arguments.table:
        print(verdict_text.lines(judged, rows).to_markdown(index=False, disable_numparse=True))
    else:
        print(verdict_text.listing(judged, rows))


def _theory(arguments: argparse.Namespace) -> None:
    if arguments.seeds < 2:
        raise UserError(f"--seeds is {arguments.seeds}, but an interval needs at least 2")
    from dataclasses import asdict

    from pandas import DataFrame

    from spaced_kd import provenance, results, theory
    from spaced_kd.files import write_safely

    path = arguments.output or arguments.results / "theory" / "rows.csv"
    setting, about = theory.Setting(), provenance.describe()
    rows = DataFrame(theory.measure(arguments.seeds, setting))
    commit = about["commit"] + ("-dirty" if about["dirty"] else "")
    results.write(results.join(rows.assign(source="ours", study="theory", commit=commit)), path)
    described = [{"setting": asdict(setting), "seeds": arguments.seeds, "provenance": about}]
    write_safely(path.with_name("runs.json"), json.dumps(described, indent=1).encode())
    print(f"wrote {path}: {len(rows)} rows")


def _verify(arguments: argparse.Namespace) -> None:
    from spaced_kd import results, verify

    folder = arguments.folder or arguments.results
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: name a folder of results")
    reference = results.reference(arguments.reference)
    checker = verify.Checker(folder, reference, reevaluate=arguments.reevaluate, device=arguments.device)
    found = 0
    for line in checker.findings():
        found += 1
        print(line, flush=True)
    if not any(checker.counts.values()):
        raise UserError(f"{folder} has nothing to check: neither runs nor rows.csv of a study")
    told = f"{folder}: {found} findings in {checker.summary()}"
    if found:
        raise UserError(told)
    print(told)


def _list(arguments: argparse.Namespace) -> None:
    for kind in [arguments.kind] if arguments.kind else catalog.KINDS:
        print(kind)
        for plugin in catalog.plugins(kind).values():
            print(f"  {plugin.name:16} {plugin.summary}" + (f" ({plugin.package})" if plugin.package else ""))
            if arguments.kind:
                for key, (annotation, default) in plugin.settings.items():
                    given = "" if default is catalog.REQUIRED else f" = {default!r}"
                    print(f"  {'':16}   {key}: {annotation}{given}{_range(plugin, key)}")


def _range(plugin: catalog.Plugin, key: str) -> str:
    allowed = plugin.constants.get("RANGES", {}).get(key)
    if allowed is None:
        return ""
    return f", in {allowed}" if isinstance(allowed, str) else f", of {', '.join(map(str, allowed))}"
