"""The command line: `spaced-kd prepare | train | evaluate | collect | render | claims | list`."""

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spaced_kd import catalog, spec
from spaced_kd.errors import UserError

RUN_HELP = (
    "the run as key=value: dataset=digits network=resnet_mini method=online_kd interval=1.5 seed=0 method.alpha=0.3"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends in one line and exit status 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own futures
    warnings.showwarning = lambda message, *_: print(f"spaced-kd: warning: {message}", file=sys.stderr)
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"spaced-kd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spaced-kd: stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spaced-kd",
        description="Train, evaluate and compare networks that learn from a teacher some steps ahead (Spaced KD)."
        " Whole studies are run by Snakemake, which calls these commands: snakemake --configfile config/demo.yaml",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = _command(commands, "prepare", _prepare, "decode a dataset once into a verified file of uint8 arrays")
    prepare.add_argument("words", nargs="+", metavar="KEY=VALUE", help="the dataset: dataset=digits dataset.split=0")
    prepare.add_argument("--source", type=Path, default=Path("data"), help="folder of the published files (data)")
    prepare.add_argument(
        "--download", action="store_true", help="first fetch the published files into that folder, where allowed"
    )
    prepare.add_argument("--corrupt", type=int, metavar="N", help="make the corrupted copies of N test images instead")

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
        "--checkpoint-every", type=float, default=300, metavar="SECONDS", help="between resume states (300)"
    )
    train.add_argument(
        "--workers", type=int, help="processes that decode and augment images one by one (all processors but one)"
    )
    _device(train)

    evaluate = _command(commands, "evaluate", _evaluate, "measure a finished run")
    evaluate.add_argument("run_id", metavar="RUN", help="id of the run: its folder's name in results/runs")
    evaluate.add_argument(
        "words", nargs="+", metavar="EVALUATION", help="names, and settings as key=value: bim bim.epsilon=1"
    )
    evaluate.add_argument("--output", type=Path, help="write the rows as JSON into this file instead of printing them")
    _device(evaluate)

    collect = _command(commands, "collect", _collect, "gather a study's rows from its finished runs into one CSV file")
    collect.add_argument("config", type=Path, help="the study: config/demo.yaml, or - for standard input")
    collect.add_argument("--output", type=Path, help="the file (results/STUDY/rows.csv); runs.json beside it")

    render = _command(commands, "render", _render, "draw tables and figures from a study's rows")
    render.add_argument("names", nargs="+", metavar="NAME", help="tables and figures: tab01 fig02")
    render.add_argument("--rows", type=Path, nargs="+", required=True, help="rows.csv of one study, or of several")
    render.add_argument("--reference", type=Path, default=Path("config/reference.csv"), help="the paper's numbers")
    render.add_argument("--images", type=Path, help="corrupted images, for the figure that shows them")
    render.add_argument("--output", type=Path, help="folder for tables/ and figures/ (that of the rows)")

    judge = _command(commands, "claims", _claims, "judge the paper's claims by the rows of studies: a scorecard")
    judge.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="rows.csv of one study, or of several")
    judge.add_argument("--claims", type=Path, default=Path("config/claims.yaml"), help="the claims")
    judge.add_argument("--reference", type=Path, default=Path("config/reference.csv"), help="the paper's numbers")
    judge.add_argument(
        "--images", action="store_true", help="add what test images alone tell: a bootstrap, and McNemar for one seed"
    )

    listing = _command(
        commands, "list", _list, "what exists: datasets, networks, methods, evaluations, tables, figures"
    )
    listing.add_argument("kind", nargs="?", choices=catalog.KINDS, help="only this kind, with its settings")
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (results)")
    parser.set_defaults(run=run)
    return parser


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU where there is one)")


def _prepare(arguments: argparse.Namespace) -> None:
    # the words of a run are welcome too; only those of its dataset count
    flat = dict(spec.parse_word(word) for word in arguments.words)
    flat = {key: value for key, value in flat.items() if key.startswith("dataset")}
    described = spec.from_flat({"network": "resnet_mini", "method": "baseline", "seed": 0} | flat)
    from spaced_kd import data
    from spaced_kd.files import Places

    path = Places(arguments.results).data(described)
    if arguments.corrupt:
        from spaced_kd import corrupt

        print(f"wrote {corrupt.make(path, arguments.corrupt)}")
        return
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
    described = spec.from_words(arguments.words)
    words = [[spec.parse_word(word) for word in shlex.split(student)] for student in arguments.leave]
    leave = tuple(spec.from_flat(described.changed() | dict(student)) for student in words)
    from spaced_kd.files import Places
    from spaced_kd.keeper import finished
    from spaced_kd.train import train

    if finished(described, Places(arguments.results)):
        print(f"{arguments.results / 'runs' / described.id} is finished already")
        return
    every = arguments.checkpoint_every
    folder = train(
        described,
        arguments.results,
        leave=leave,
        checkpoint_every=every,
        device=arguments.device,
        workers=arguments.workers,
    )
    rows = json.loads((folder / "rows.json").read_text())
    last = next(row["value"] for row in rows if row["selection"] == "last")
    print(f"wrote {folder}: accuracy {last:.2f} % after the last epoch")


def _evaluate(arguments: argparse.Namespace) -> None:
    wanted: dict[str, dict[str, Any]] = {}
    for word in arguments.words:
        name, dot, rest = word.partition(".")
        settings = wanted.setdefault(name, {})
        if dot:
            settings.update([spec.parse_word(rest)])
    wanted = {name: catalog.check_settings("evaluations", name, settings) for name, settings in wanted.items()}
    from spaced_kd.evaluate import evaluate
    from spaced_kd.files import write_safely

    rows = evaluate(arguments.run_id, wanted, arguments.results, device=arguments.device)
    if arguments.output:
        write_safely(arguments.output, json.dumps(rows, indent=1).encode())
        print(f"wrote {arguments.output}: {len(rows)} rows")
    else:
        for row in rows:
            print("  ".join(f"{key}={value}" for key, value in row.items()))


def _collect(arguments: argparse.Namespace) -> None:
    study = spec.load_study(sys.stdin if str(arguments.config) == "-" else arguments.config)
    from spaced_kd import results
    from spaced_kd.files import write_safely

    path = arguments.output or arguments.results / study.name / "rows.csv"
    rows = results.collect(study, arguments.results)
    results.write(rows, path)
    runs = results.descriptions(study, arguments.results)
    write_safely(path.with_name("runs.json"), json.dumps(runs, indent=1).encode())
    print(results.times(runs).to_markdown(index=False, floatfmt=".1f"))
    found = rows[rows["metric"] != "missing"]
    print(f"wrote {path}: {len(found)} rows of {found['run'].nunique()} of {len(study.runs)} runs")


def _render(arguments: argparse.Namespace) -> None:
    from spaced_kd import arrays, render, results

    rows = results.join(*(results.read(path) for path in arguments.rows), results.reference(arguments.reference))
    images = None
    if arguments.images:
        images, _ = arrays.read(arguments.images, remedy="make it with `spaced-kd prepare --corrupt`")
    for name in arguments.names:
        for path in render.render(name, rows, arguments.output or arguments.rows[0].parent, images):
            print(f"wrote {path}")


def _claims(arguments: argparse.Namespace) -> None:
    from spaced_kd import claims, results
    from spaced_kd.tables import scorecard

    rows = results.join(*(results.read(path) for path in arguments.rows), results.reference(arguments.reference))
    sheet = claims.load(arguments.claims, rows)
    correct = results.correct_images(arguments.results) if arguments.images else None
    verdicts = claims.judge(sheet, rows, correct=correct)
    print(scorecard.lines(verdicts, rows).to_markdown(index=False, disable_numparse=True))


def _list(arguments: argparse.Namespace) -> None:
    for kind in [arguments.kind] if arguments.kind else catalog.KINDS:
        print(kind)
        for plugin in catalog.plugins(kind).values():
            print(f"  {plugin.name:16} {plugin.summary}")
            if arguments.kind:
                for key, (annotation, default) in plugin.settings.items():
                    given = "" if default is catalog.REQUIRED else f" = {default!r}"
                    print(f"  {'':16}   {key}: {annotation}{given}")
