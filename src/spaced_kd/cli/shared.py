"""The commands for sharing finished runs: `share`, `get`, `submit` and `check-submission`."""

import argparse
from pathlib import Path
from typing import Any

from spaced_kd.cli.options import at_least, command, device
from spaced_kd.utils.errors import UserError


def add_share(commands: Any) -> None:
    """Adds the command `share`."""
    share = command(
        commands, "share", _share, "write finished runs as folders for a model hub: weights, card, checksums"
    )
    share.add_argument("runs", nargs="+", metavar="RUN", help="ids of the runs, or their folders")
    share.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="the new folder, or a new archive: weights.zip"
    )
    share.add_argument(
        "--licence", default="apache-2.0", metavar="ID", help="of the weights, for the model card (apache-2.0)"
    )


def add_get(commands: Any) -> None:
    """Adds the command `get`."""
    get = command(commands, "get", _get, "check shared runs and put them among the results, as if trained here")
    get.add_argument(
        "source",
        metavar="SOURCE",
        help="what `share` wrote: a folder, a zip archive, or the address of an archive or of one run's folder",
    )
    get.add_argument(
        "--limit", type=at_least(0.0), default=4.0, metavar="GB", help="most that may be downloaded or unpacked (4)"
    )


def add_submit(commands: Any) -> None:
    """Adds the command `submit`."""
    submit = command(commands, "submit", _submit, "write a finished study as one folder for a pull request")
    submit.add_argument("config", type=Path, metavar="STUDY", help="the study's YAML file")
    submit.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the new folder")
    submit.add_argument("--licence", default="apache-2.0", metavar="ID", help="of weights and rows (apache-2.0)")


def add_check_submission(commands: Any) -> None:
    """Adds the command `check-submission`."""
    check = command(commands, "check-submission", _check, "check a submitted folder, and rank its methods")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="what `submit` wrote")
    check.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="rows.csv of published studies to pair with: results/recorded/tiny_small/rows.csv",
    )
    check.add_argument("--source", type=Path, default=Path("data"), help="folder of the published data (data)")
    check.add_argument("--reevaluate", action="store_true", help="predict every test image again with every network")
    device(check)


def _share(arguments: argparse.Namespace) -> None:
    from spaced_kd.sharing.share import share

    share(arguments.runs, arguments.to, arguments.results, licence=arguments.licence)
    print(f"wrote {arguments.to}: runs of it come back by `spaced-kd get {arguments.to}`")


def _get(arguments: argparse.Namespace) -> None:
    from spaced_kd.sharing.get import get

    got = get(arguments.source, arguments.results, limit=int(arguments.limit * 1e9))
    for run in got.new:
        print(f"wrote {arguments.results / 'runs' / run}")
    for run in got.known:
        print(f"{arguments.results / 'runs' / run} is there already")


def _submit(arguments: argparse.Namespace) -> None:
    from spaced_kd.cli.submission import submit

    submit(arguments.config, arguments.to, arguments.results, licence=arguments.licence)
    print(f"wrote {arguments.to}: check it by `spaced-kd check-submission {arguments.to}`")


def _check(arguments: argparse.Namespace) -> None:
    from spaced_kd.cli.submission import Submission
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.data import loading

    submission = Submission(arguments.folder, arguments.against)
    for run in {run.data_id: run for run in submission.study.runs}.values():
        if not (path := ResultPaths(arguments.results).data(run)).exists():
            loading.prepare(run, path, arguments.source)
    how = {"reevaluate": arguments.reevaluate, "device": arguments.device}
    found = list(submission.findings(arguments.results / "data", **how))
    print("\n".join(found))
    if found:
        raise UserError(f"{arguments.folder}: {len(found)} findings: mend them, and submit the study again")
    print(submission.ranked().to_markdown(index=False, disable_numparse=True))
    print(f"{arguments.folder}: 0 findings in {len(submission.study.runs)} runs")
