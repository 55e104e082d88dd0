"""`spaced-kd tensorboard`: learning curves of a study as event files, for watching it with TensorBoard.

The files are written beside the trainings, from each run's `curve.csv`. A training knows nothing of them.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaced_kd.cli.options import at_least, command
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import load_study
from spaced_kd.training import curve
from spaced_kd.utils.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TAGS = {"accuracy": "accuracy/test", "held_out_accuracy": "accuracy/held out"}  # columns of a curve, in percent
EVENTS = "events.out.tfevents.*"


def add_tensorboard(commands: Any) -> None:
    """Adds `tensorboard` to the commands."""
    parser = command(
        commands, "tensorboard", tensorboard_command, "write the learning curves of a study as events of TensorBoard"
    )
    parser.add_argument("config", type=Path, help="the study: config/studies/demo.yaml")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="of the events (results/STUDY/tensorboard)")
    parser.add_argument(
        "--every", type=at_least(1.0), metavar="SECONDS", help="go on with new epochs until all runs are finished"
    )


def tensorboard_command(arguments: argparse.Namespace) -> None:
    """Writes the events that there are; with --every, those to come as well."""
    study, paths = load_study(arguments.config), ResultPaths(arguments.results)
    folder = arguments.to or arguments.results / study.name / "tensorboard"
    events = {run.id: Events(paths.curve(run), folder / run.id) for run in study.runs}
    while True:
        finished = all(
            (paths.run(run) / "run.json").exists() for run in study.runs
        )  # before reading, so that none lacks
        for each in events.values():
            each.update()
        begun = sum(bool(each.written) for each in events.values())
        if finished or not arguments.every:
            break
        time.sleep(arguments.every)
    if not begun:
        raise UserError(
            f"no run of {study.name} has a learning curve in {arguments.results}: start the study, for instance by"
            f" snakemake --configfile {arguments.config}"
        )
    print(f"events of {begun} of {len(events)} runs are in {folder}: tensorboard --logdir {folder}")


class Events:
    """The event file of one run; an older one in its folder is replaced.

    A point's step is its epoch, and its time that of the epoch's evaluation, as far as the curve tells: a run that was
    resumed has no pause in it.

    Args:
        path: of the run's `curve.csv`, which need not exist yet.
        folder: of the file.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder, self.written = path, folder, 0
        self._writer: SummaryWriter | None = None

    def update(self) -> None:
        """Write the epochs that the curve has and the file has not."""
        lines = curve.read(self.path)
        if len(lines) <= self.written:
            return
        began = self.path.stat().st_mtime - lines[-1]["seconds"]
        writer = self._open()
        for line in lines[self.written :]:
            for column, value in line.items():
                if tag := TAGS.get(column) or (column.endswith("_loss") and f"loss/{column.removesuffix('_loss')}"):
                    writer.add_scalar(tag, value, int(line["epoch"]), walltime=began + line["seconds"])
        writer.flush()
        self.written = len(lines)

    def _open(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # an extra, and torch costs seconds

            for old in self.folder.glob(EVENTS):
                old.unlink()
            self._writer = SummaryWriter(str(self.folder))
        return self._writer
