"""`spaced-kd share` and `spaced-kd get`: finished runs on their way out and in."""

import argparse
from pathlib import Path
from typing import Any

from spaced_kd.cli.options import at_least, command


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
