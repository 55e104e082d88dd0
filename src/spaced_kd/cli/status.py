"""The state of a study: which trainings are done, running, waiting, stopped or failed, from the files of its results.

It imports no torch and reads no weights, so that it answers at once.
"""

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from spaced_kd.analysis import human_names
from spaced_kd.analysis.arms import Arm
from spaced_kd.cli.options import command
from spaced_kd.config.labels import labels
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import Study, load_study
from spaced_kd.training import curve, run_lock
from spaced_kd.utils.files import read_json

DONE, RUNNING, WAITING, STOPPED, FAILED = STATES = ("done", "running", "waiting", "stopped", "failed")
GOES_ON = "the same command goes on"  # in the last line of a training that was stopped, not of one that failed
WIDTH = 80
SHOWN = 10  # runs of a state that are listed


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    epoch, accuracy, share: at its last evaluation, None before the first; share is the fraction of its turns, since an
    epoch counts the learner's own steps, of which some methods take more; seconds: taken so far, from its curve; to_go:
    seconds left at its own speed, None while unknown; line: why it stopped or failed.
    """

    run: str
    state: str
    share: float | None = None
    epoch: int | None = None
    accuracy: float | None = None
    seconds: float | None = None
    to_go: float | None = None
    line: str = ""


@dataclass(frozen=True)
class Status:
    """The progress of a study; `failed_jobs`: the last line of preparations and evaluations that failed, by job."""

    study: Study
    runs: tuple[Progress, ...]
    evaluations: tuple[int, int]  # jobs done, jobs in all
    failed_jobs: dict[str, str]
    run_labels: "RunLabels" = field(default_factory=lambda: RunLabels())

    @property
    def counts(self) -> dict[str, int]:
        """Trainings by state."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES}

    def to_go(self) -> tuple[float, int]:
        """Seconds of training left, and the number of runs whose length is unknown.

        A run is estimated by the mean of the finished runs of its arm, or else of its setting.
        """
        names = self.run_labels
        keys = {run.id: (own := names.setting(run), (*own, names.arm(run))) for run in self.study.runs}
        taken: dict[tuple[str, ...], list[float]] = {}
        for run in self.runs:
            for key in keys[run.run] if run.state == DONE and run.seconds else ():
                taken.setdefault(key, []).append(run.seconds)
        total, unknown = 0.0, 0
        for run in (run for run in self.runs if run.state != DONE):
            of_setting, of_arm = keys[run.run]
            known = taken.get(of_arm) or taken.get(of_setting)
            left = run.to_go if run.to_go is not None else mean(known) if known else None
            total, unknown = total + (left or 0), unknown + (left is None)
        return total, unknown


def add_status(commands: Any) -> None:
    """Adds `status` to the commands."""
    parser = command(commands, "status", status_command, "say how far a study is: done, running, waiting, failed")
    parser.add_argument("config", type=Path, help="the study: config/studies/demo.yaml")
    parser.add_argument("--json", action="store_true", help="each run, for programs")


def status_command(arguments: argparse.Namespace) -> None:
    """Prints how far a study is."""
    found = status(load_study(arguments.config), arguments.results)
    if arguments.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print(describe(found))


def status(study: Study, results: Path) -> Status:
    """The progress of a study, from the files below the folder of all results."""
    runs = tuple(progress(run, results) for run in study.runs)
    done = {run.run for run in runs if run.state == DONE}
    jobs = [(part.name, run) for part in study.parts for run, names in part.evaluated.items() if names]
    lacking = [job for job in jobs if not Path(results, job[0], "evaluations", f"{job[1]}.json").exists()]
    logs = {
        f"evaluation of {run}": results / "logs" / "evaluate" / name / f"{run}.log"
        for name, run in lacking
        if run in done
    }
    for data in {run.data_id: ResultPaths(results).data(run) for run in study.runs}.items():
        if not data[1].exists():
            logs[f"preparation of {data[0]}"] = results / "logs" / "prepare" / f"{data[0]}.log"
    failed = {job: line for job, path in logs.items() if (line := error(path))}
    return Status(study, runs, (len(jobs) - len(lacking), len(jobs)), failed)


def progress(run: RunSpec, results: Path) -> Progress:
    """The progress of a run, from its files."""
    paths = ResultPaths(results)
    if (folder := paths.run(run)).joinpath("run.json").exists():
        rows = read_json(folder / "rows.json", list)
        accuracy = next((row["value"] for row in rows if row.get("selection") == "last"), None)
        seconds = read_json(folder / "run.json", dict).get("wall_seconds")
        epoch = next((row["epoch"] for row in rows if row.get("selection") == "last"), None)
        return Progress(run.id, DONE, 1.0, epoch, accuracy, seconds)
    lines = curve.read(paths.curve(run))
    last = lines[-1] if lines else {}
    about: dict[str, Any] = {"epoch": int(last["epoch"]) if last else None, "accuracy": last.get("accuracy")}
    about |= {"seconds": last.get("seconds"), "to_go": _left(last)}
    about["share"] = last["turn"] / last["turns"] if last.get("turn") else None
    if run_lock.held(paths.lock(run)):
        return Progress(run.id, RUNNING, **about)
    log = results / "logs" / "train" / f"{run.id}.log"
    line = error(log)
    if line and GOES_ON not in line:
        return Progress(run.id, FAILED, **about, line=line)
    if line or lines or any(paths.state(run).glob("turn-*")):
        return Progress(run.id, STOPPED, **about, line=line)
    return Progress(run.id, WAITING)


def _left(last: dict[str, float]) -> float | None:
    """Seconds left of a run, at its own rate of turns."""
    if not last.get("turn") or "seconds" not in last:
        return None
    return last["seconds"] * (last["turns"] - last["turn"]) / last["turn"]


def error(log: Path) -> str:
    """The error line of the last job in a log, empty if there is none; each job begins with a line `job ...`."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    starts = [number for number, line in enumerate(lines) if line.startswith("job ")]
    own = [line for line in lines[starts[-1] if starts else 0 :] if line.strip()]
    errors = [line for line in own if line.startswith("spaced-kd:") and not line.startswith("spaced-kd: warning:")]
    if errors:
        return errors[-1].removeprefix("spaced-kd:").strip()
    return own[-1].strip() if any(line.startswith("Traceback ") for line in own) else ""


class RunLabels:
    """Setting and arm of runs, from their labels, which are computed once for all seeds."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def labels(self, run: RunSpec) -> dict[str, str]:
        """Labels of a run, as rows have them."""
        key = " ".join(each for each in run.overrides() if not each.startswith("seed="))
        if key not in self._known:
            self._known[key] = labels(run)
        return self._known[key]

    def setting(self, run: RunSpec) -> tuple[str, ...]:
        """Labels of dataset, network and teacher, and the number of epochs, by which runs are grouped."""
        found = self.labels(run)
        return found["dataset"], found["network"], found["teacher"], str(run.epochs)

    def arm(self, run: RunSpec) -> str:
        """Display name of a run's method and interval."""
        found = self.labels(run)
        return Arm(found["method"], found["interval"]).name


def as_json(found: Status) -> dict[str, Any]:
    """For programs: the counts, and each run."""
    left, unknown = found.to_go()
    return {
        "study": found.study.name,
        "counts": found.counts,
        "seconds_to_go": left,
        "runs_of_unknown_length": unknown,
        "evaluations": dict(zip(("done", "all"), found.evaluations, strict=True)),
        "runs": [asdict(run) for run in found.runs],
        "failed_jobs": found.failed_jobs,
    }


def describe(found: Status) -> str:
    """For a terminal of 80 columns: counts, arms, and the runs that are running, stopped or failed."""
    counts = {state: count for state, count in found.counts.items() if count}
    parts = [_fill(f"{found.study.name}: {len(found.runs)} trainings: {_counted(counts)}", "")]
    if found.evaluations[1]:
        parts.append("evaluations: {} of {} done".format(*found.evaluations))
    left, unknown = found.to_go()
    if left:
        more = f", and {unknown} more of unknown length" if unknown else ""
        parts.append(_fill(f"to go: {duration(left)} of training, one at a time{more}", ""))
    texts = ["\n".join(parts), *_arms(found)]
    running = [run for run in found.runs if run.state == RUNNING]
    texts += _listed(RUNNING, [(run.run, _under_way(run)) for run in running])
    stopped = [run for run in found.runs if run.state == STOPPED]
    texts += _listed(STOPPED, [(run.run, f"{_under_way(run)}{': ' * bool(run.line)}{run.line}") for run in stopped])
    failed = [(run.run, run.line) for run in found.runs if run.state == FAILED]
    texts += _listed(FAILED, [*failed, *found.failed_jobs.items()])
    return "\n\n".join(texts)


def duration(seconds: float) -> str:
    """E.g. "3 h 20 min".

    >>> duration(12000), duration(90), duration(8), duration(200000)
    ('3 h 20 min', '2 min', '8 s', '2 d 7 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _arms(found: Status) -> list[str]:
    """A paragraph for each setting, in it a line for each arm."""
    specs = {run.id: run for run in found.study.runs}
    groups: dict[tuple[str, ...], dict[str, Counter[str]]] = {}
    for run in found.runs:
        spec = specs[run.run]
        arms = groups.setdefault(found.run_labels.setting(spec), {})
        arms.setdefault(found.run_labels.arm(spec), Counter())[run.state] += 1
    texts = []
    for (dataset, network, teacher, epochs), arms in groups.items():
        taught = f" taught by {human_names.plugin_name(teacher)}" if teacher not in ("", network) else ""
        names = [human_names.plugin_name(dataset), human_names.plugin_name(network) + taught, f"{epochs} epochs"]
        lines = [_fill("; ".join(names), "")]
        for name, states in arms.items():
            lines.append(_fill(f"{name:34} {_counted({s: states[s] for s in STATES if states[s]})}", "  "))
        texts.append("\n".join(lines))
    return texts


def _listed(title: str, runs: Sequence[tuple[str, str]]) -> list[str]:
    """A paragraph for runs of a state, two lines each; none where there are none."""
    if not runs:
        return []
    lines = [line for run, text in runs[:SHOWN] for line in (f"  {run}", _fill(text, "      "))]
    if len(runs) > SHOWN:
        lines.append(f"  and {len(runs) - SHOWN} more; --json lists all")
    return ["\n".join([f"{title}:", *lines])]


def _under_way(run: Progress) -> str:
    if run.epoch is None:
        return "before its first evaluation"
    share = [f"{run.share:.0%} done"] if run.share is not None else []
    parts = [f"epoch {run.epoch}", *share, f"accuracy {run.accuracy:.2f} %"]
    return ", ".join([*parts, *([f"{duration(run.to_go)} to go"] if run.to_go is not None else [])])


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _fill(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", drop_whitespace=True)
