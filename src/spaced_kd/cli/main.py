"""The command line: a function for each command of `spaced-kd`, which `spaced-kd --help` lists."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spaced_kd
from spaced_kd.cli.commands import (
    claims_command,
    collect_command,
    evaluate_command,
    list_command,
    plan_command,
    prepare_command,
    record_command,
    render_command,
    site_command,
    theory_command,
    train_command,
    verify_command,
)
from spaced_kd.cli.options import at_least, command, device, workers
from spaced_kd.cli.run_study import add_run
from spaced_kd.cli.shared import add_check_submission, add_get, add_share, add_submit
from spaced_kd.cli.status import add_status
from spaced_kd.cli.study_folder import init_command
from spaced_kd.cli.tensorboard import add_tensorboard
from spaced_kd.cli.tune import add_tune
from spaced_kd.config import extras, presets, registry
from spaced_kd.training.preemption import GO_ON, Interrupted
from spaced_kd.utils.errors import UserError, out_of_memory
from spaced_kd.utils.processes import rank

RUN_HELP = (
    "the run as key=value: dataset=digits network=resnet_mini method=online_kd interval=1.5 seed=0 method.alpha=0.3"
)


# in messages of torch, cuBLAS and cuDNN, and of DataLoader when the kernel has killed a worker


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a UserError prints one line and ends in status 2, a stopped training as `preemption` lists."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries' own futures
    warnings.showwarning = lambda message, *_: print(f"spaced-kd: warning: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # tables contain ± and σ, which an ASCII terminal shows as ?
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a process that SIGPIPE ends
    except UserError as error:
        return _report(str(error), 2)
    except Interrupted as stopped:
        return _report(f"{stopped}; {stopped.again}" if stopped.again else str(stopped), stopped.status)
    except OSError as error:  # a full disk behind standard output, a file that may not be read
        return _report(f"{error.filename or 'a file'}: {error.strerror}: mend that, and give the same command again", 2)
    except ModuleNotFoundError as error:
        if not (remedy := extras.remedy(error.name or "")):
            raise
        return _report(remedy, 2)
    except (MemoryError, RuntimeError) as error:
        if "operator torchvision::" in str(error):
            line = f"{error}: install torch and torchvision from one index, in versions made for each other"
            return _report(line, 2)
        if not out_of_memory(error):
            raise
        return _report(
            "out of memory: give the job more (mem_mb in the profile, or a GPU with more), or lower batch_size, or the"
            " evaluation's images, which makes it another run or evaluation",
            2,
        )
    except KeyboardInterrupt:
        return _report("stopped; the same command goes on from the last state", 130)
    return 0


def _report(line: str, status: int) -> int:
    process = f"process {rank()}: " if rank() else ""
    print(f"spaced-kd: {process}{' '.join(line.split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spaced-kd",
        description="Train, evaluate and compare networks that learn from a teacher some steps ahead (Spaced KD)."
        " Whole studies are run by Snakemake, which calls these commands:"
        " snakemake --configfile config/studies/demo.yaml",
    )
    parser.add_argument("--version", action="version", version=f"spaced-kd {spaced_kd.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        *(_add_init, add_run, _add_plan, add_status, add_tensorboard, _add_prepare, _add_train),
        *(_add_evaluate, _add_accept),
        *(_add_collect, _add_record, _add_render, _add_claims, add_tune, _add_site, _add_theory, _add_verify),
        *(add_share, add_get, add_submit, add_check_submission, _add_list),
    ):
        add(commands)
    return parser


def _add_init(commands: Any) -> None:
    init = command(commands, "init", init_command, "write a folder in which `snakemake` runs a study, anywhere")
    init.add_argument("folder", type=Path, metavar="FOLDER", help="the new folder")
    init.add_argument(
        "--from",
        dest="study",
        default="demo",
        metavar="NAME",
        help="study or experiment of the package that it starts with: demo, ci, paper, tab01 (demo)",
    )


def _add_plan(commands: Any) -> None:
    plan = command(commands, "plan", plan_command, "say what a study will take, before anything runs: jobs, time, disk")
    plan.add_argument("config", type=Path, help="the study: config/studies/paper.yaml")
    plan.add_argument("--device", default="cpu", help="kind of device: h200, h100, a100, cpu, or one that was measured")
    plan.add_argument("--count", type=int, default=1, metavar="N", help="devices, each with one training at a time (1)")


def _add_prepare(commands: Any) -> None:
    prepare = command(
        commands, "prepare", prepare_command, "decode a dataset once into a verified file of uint8 arrays"
    )
    prepare.add_argument(
        "overrides", nargs="+", metavar="KEY=VALUE", help="the dataset: dataset=digits dataset.split=0"
    )
    prepare.add_argument("--source", type=Path, default=Path("data"), help="folder of the published files (data)")
    prepare.add_argument(
        "--download", action="store_true", help="first fetch the published files into that folder, where allowed"
    )
    prepare.add_argument(
        "--corrupt", type=at_least(1), metavar="N", help="make the corrupted copies of N test images instead"
    )
    prepare.add_argument("--names", nargs="+", metavar="NAME", help="corruptions other than the paper's six")
    prepare.add_argument("--severities", nargs="+", type=int, metavar="1-5", help="other than the paper's 1, 3 and 5")
    workers(prepare, "share the work on corrupted copies (all processors)")


def _add_train(commands: Any) -> None:
    train = command(commands, "train", train_command, "train one run, or go on where it was stopped")
    train.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help=RUN_HELP)
    train.add_argument(
        "--save-states-for",
        "--leave",
        nargs="*",
        default=[],
        metavar="STUDENT",
        help="save the teacher's states for students to come, each in quotes: 'method=online_kd interval=1.5'"
        " (--leave until version 0.3)",
    )
    beside = "train these students of the teacher beside it, if they need it after every batch; each in quotes"
    train.add_argument("--together", nargs="*", default=[], metavar="STUDENT", help=beside)
    train.add_argument(
        "--checkpoint-every", type=at_least(0.0), default=300, metavar="SECONDS", help="between resume states (300)"
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
    workers(train, "decode and augment images one by one (all processors but one)")
    device(train)


def _add_evaluate(commands: Any) -> None:
    evaluate = command(commands, "evaluate", evaluate_command, "measure a finished run")
    evaluate.add_argument("run_id", metavar="RUN", help="id of the run: its folder's name in results/runs")
    evaluate.add_argument(
        "evaluations", nargs="+", metavar="EVALUATION", help="names, and settings as key=value: bim bim.epsilon=1"
    )
    evaluate.add_argument("--output", type=Path, help="write the rows as JSON into this file instead of printing them")
    device(evaluate)


def _add_accept(commands: Any) -> None:
    accept = command(
        commands, "accept", _accept, "keep finished runs although a source that they come from has changed since"
    )
    accept.add_argument("runs", nargs="+", metavar="RUN", help="ids of the runs, or their folders")
    accept.add_argument("--reason", required=True, metavar="TEXT", help="why their numbers stand; kept in run.json")


def _add_collect(commands: Any) -> None:
    collect = command(
        commands, "collect", collect_command, "gather a study's rows from its finished runs into one CSV file"
    )
    collect.add_argument("config", type=Path, help="the study: config/studies/demo.yaml, or - for standard input")
    collect.add_argument("--output", type=Path, help="the file (results/STUDY/rows.csv); runs.json beside it")


def _add_record(commands: Any) -> None:
    record = command(commands, "record", record_command, "keep a study's rows and runs beside those recorded before")
    record.add_argument("study", type=Path, metavar="FOLDER", help="of the study: results/demo")
    record.add_argument("--into", type=Path, help="folder of what is recorded (recorded/STUDY in that of all results)")


def _add_render(commands: Any) -> None:
    render = command(commands, "render", render_command, "draw tables and figures from a study's rows")
    render.add_argument("names", nargs="+", metavar="NAME", help="tables and figures: tab01 fig02")
    render.add_argument("--rows", type=Path, nargs="+", default=[], help="rows.csv of one study, or of several")
    render.add_argument("--reference", type=Path, default=presets.REFERENCE, help="the paper's numbers")
    render.add_argument("--images", type=Path, help="corrupted images, for the figure that shows them")
    render.add_argument(
        "--output",
        type=Path,
        help="folder for tables/ and figures/ (that of the first rows; of recorded ones RESULTS/STUDY-recorded)",
    )


def _add_claims(commands: Any) -> None:
    judge = command(commands, "claims", claims_command, "judge the paper's claims by the rows of studies: a scorecard")
    judge.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="rows.csv of one study, or of several")
    judge.add_argument("--claims", type=Path, default=presets.CLAIMS, help="the claims")
    judge.add_argument("--reference", type=Path, default=presets.REFERENCE, help="the paper's numbers")
    judge.add_argument("--table", action="store_true", help="one wide table in Markdown, with what is not run")
    judge.add_argument(
        "--images", action="store_true", help="add what test images alone tell: a bootstrap, and McNemar for one seed"
    )


def _add_site(commands: Any) -> None:
    site = command(commands, "site", site_command, "write one page of results that opens in a browser, without network")
    site.add_argument("rows", type=Path, nargs="+", metavar="ROWS", help="rows.csv of one study, or of several")
    site.add_argument("--claims", type=Path, default=presets.CLAIMS, help="the claims")
    site.add_argument("--reference", type=Path, default=presets.REFERENCE, help="the paper's numbers")
    site.add_argument(
        "--output", type=Path, help="the file (results.html beside the rows; of several, in the folder of results)"
    )
    site.add_argument("--title", metavar="TEXT", help="what the results are of (the study's name)")
    site.add_argument("--summary", type=Path, metavar="FILE", help="also the main verdicts, as reStructuredText")


def _add_theory(commands: Any) -> None:
    theory = command(commands, "theory", theory_command, "measure the proof of Theorem 4.4 on small networks, exactly")
    theory.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="seeds 0 to N - 1, trained side by side (20)"
    )
    theory.add_argument("--output", type=Path, help="the file (results/theory/rows.csv); runs.json beside it")


def _add_verify(commands: Any) -> None:
    check = command(commands, "verify", verify_command, "check every number of a folder of results back to the weights")
    check.add_argument("folder", nargs="?", type=Path, metavar="RESULTS", help="the folder (that of --results)")
    check.add_argument("--reevaluate", action="store_true", help="predict every test image again with every network")
    check.add_argument("--reference", type=Path, default=presets.REFERENCE, help="the paper's numbers")
    device(check)


def _add_list(commands: Any) -> None:
    listing = command(
        commands, "list", list_command, "what exists: datasets, networks, methods, evaluations, tables, figures"
    )
    listing.add_argument("kind", nargs="?", choices=registry.KINDS, help="only this kind, with its settings")


def _accept(arguments: argparse.Namespace) -> None:
    from spaced_kd.cli.accept import accept

    for run in arguments.runs:
        changed = accept(run, arguments.reason, arguments.results)
        print(
            f"{Path(run).name}: {'accepted after ' + ' and '.join(changed) + ' changed' if changed else 'is current'}"
        )
