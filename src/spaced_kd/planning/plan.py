"""What a study will take, before anything runs: jobs, FLOPs, time, disk, and what sharing teachers saves."""

import heapq
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pandas import DataFrame
from tqdm import tqdm

from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import Study
from spaced_kd.planning.costs import Cost, RunCosts
from spaced_kd.planning.throughput import Rates, finished_runs
from spaced_kd.utils.errors import UserError

NOTE = """\
Time is that of trainings, one at a time on each device. Decoding, the evaluations of finished networks, drawing and
waiting for a cluster are not in it; nor are the predictions after each epoch, where throughput is assumed. What is
assumed is a guess: one finished training of a network on such a device, and the next plan is by its measure."""


@dataclass(frozen=True)
class Plan:
    """A study's plan.

    study: what is to run; device, count: kind and number of devices; rates: how fast they train;
    costs: by the run's id; teachers: student -> teacher, whose run it waits for.
    """

    study: Study
    device: str
    count: int
    rates: Rates
    costs: dict[str, Cost]
    teachers: dict[str, str]

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Of a device, by run."""
        return {run.id: self.costs[run.id].flops / self.rates.of(run).flops for run in self.study.runs}

    @cached_property
    def spared_seconds(self) -> float:
        """What the students would train longer if each trained its teacher along."""
        return sum(self.costs[run.id].spared / self.rates.of(run).flops for run in self.study.runs)

    @cached_property
    def makespan(self) -> float:
        """Seconds until all trainings are through."""
        return makespan(self.seconds, self.teachers, self.count)

    def teacher_states(self) -> int:
        """Bytes that teachers leave for their students, besides their weights."""
        wanted: dict[str, set[int]] = defaultdict(set)
        for student, teacher in self.teachers.items():
            wanted[teacher] |= self.costs[student].states
        return sum(len(states) * self.costs[teacher].weights for teacher, states in wanted.items())

    def resume_states(self) -> int:
        """Bytes that the largest trainings keep at the same time, two states each; they go with the training."""
        return 2 * sum(sorted((cost.state for cost in self.costs.values()), reverse=True)[: self.count])

    def parts(self) -> dict[str, list[RunSpec]]:
        """The runs by experiment, which may share some; by dataset and network in a study without experiments."""
        found: dict[str, list[RunSpec]] = defaultdict(list)
        for part in self.study.experiments:
            found[part.name.removeprefix(f"{self.study.name}/")] += part.runs
        for run in () if self.study.experiments else self.study.runs:
            found[f"{run.label('dataset')}, {run.label('network')}"].append(run)
        return found


def make(study: Study, device: str, count: int, results: Path) -> Plan:
    """The plan of a study.

    Args:
        study: what is to run.
        device: kind of device, such as h200; throughput.py says which are known.
        count: devices, each of which trains one run at a time.
        results: folder of all results, whose finished runs tell how fast such devices are.
    """
    if count < 1:
        raise UserError(f"count is {count}, but must be at least 1")
    rates = Rates(device, finished_runs(results))  # an unknown device is refused before the counting
    counts, costs = RunCosts(), {}
    for run in tqdm(study.runs, desc="counting", unit="run", disable=None):
        try:
            costs[run.id] = counts.cost(run, store_teachers=study.store_teachers)
        except UserError as error:
            raise UserError(f"{run.id}: {error}") from None
    teachers = {run.id: teacher.id for run in study.runs if (teacher := run.teacher_spec())}
    return Plan(study, device, count, rates, costs, teachers)


def makespan(seconds: dict[str, float], teachers: dict[str, str], count: int) -> float:
    """Seconds until all runs are through, by list scheduling.

    A free device takes, of the runs whose teacher is through, the one with the longest way to the end: its own time,
    and that of the longest of its students.

    Args:
        seconds: of each run.
        teachers: student -> the run that it waits for.
        count: runs at a time.
    """
    students: dict[str, list[str]] = defaultdict(list)
    for student, teacher in teachers.items():
        students[teacher].append(student)
    way = {run: own + max((seconds[each] for each in students[run]), default=0) for run, own in seconds.items()}
    ready = [(-way[run], run) for run in seconds if run not in teachers]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < count:
            _, run = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[run], run))
        now, through = heapq.heappop(running)
        for student in students[through]:
            heapq.heappush(ready, (-way[student], student))
    return now


def describe(plan: Plan) -> str:
    """The plan as Markdown."""
    texts = [f"Plan of {plan.study.name} on {plan.count} x {plan.device}; nothing has run yet.", _jobs(plan.study)]
    texts += [_markdown(lines(plan)) for lines in (_parts, _totals, _throughput)]
    return "\n\n".join([*texts, NOTE])


def _jobs(study: Study) -> str:
    """Numbers of jobs by rule of the workflow."""
    parts = {part.name: part for part in study.parts}
    corrupted = {run.data_id for run in study.runs if "corruptions" in study.evaluated[run.id]}
    numbers = {
        "prepare": len({run.data_id for run in study.runs}),
        "corrupt": len(corrupted),
        "train": len(study.runs),
        "evaluate": sum(bool(names) for part in study.parts for names in part.evaluated.values()),
        "collect": len(study.parts),
        "draw": sum(len(part.tables) + len(part.figures) for part in {study.name: study, **parts}.values()),
    }
    told = ", ".join(f"{number} {rule}" for rule, number in numbers.items() if number)
    return f"{sum(numbers.values())} jobs: {told}."


def _parts(plan: Plan) -> list[dict[str, str]]:
    lines = []
    for name, runs in (plan.parts() | {"all, each once": list(plan.study.runs)}).items():
        lines.append(
            {
                "part": name,
                "trainings": str(len(runs)),
                "training FLOPs": f"{sum(plan.costs[run.id].flops for run in runs):.3g}",
                "device-hours": _hours(sum(plan.seconds[run.id] for run in runs)),
            }
        )
    return lines


def _totals(plan: Plan) -> list[dict[str, str]]:
    costs = plan.costs.values()
    flops, spared = sum(cost.flops for cost in costs), sum(cost.spared for cost in costs)
    told = {
        "makespan": f"{_hours(plan.makespan)} hours on {plan.count} devices, which are busy"
        f" {sum(plan.seconds.values()) / (plan.makespan * plan.count):.0%} of it",
        "sharing teachers saves": f"{spared:.3g} FLOPs, {_hours(plan.spared_seconds)} device-hours:"
        f" {spared / (flops + spared):.0%} of what it took if each student trained its own",
        "disk, weights": _size(sum(cost.weights for cost in costs)),
        "disk, predictions": _size(sum(cost.predictions for cost in costs)),
        "disk, teachers' states": f"{_size(plan.teacher_states())}, until `make clean`",
        "disk, resume states": f"up to {_size(plan.resume_states())}, until their trainings are through",
    }
    return [{"": name, "in all": text} for name, text in told.items()]


def _throughput(plan: Plan) -> list[dict[str, str]]:
    lines = {}
    for run in plan.study.runs:
        rate = plan.rates.of(run)
        line = {"network": run.label("network"), "precision": run.precision, "method": run.method}
        line |= {"TFLOP/s": f"{rate.flops / 1e12:.3g}", "from": rate.source}
        lines[tuple(line.values())] = line
    return list(lines.values())


def _markdown(lines: list[dict[str, str]]) -> str:
    return DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}" if seconds < 360_000 else f"{seconds / 3600:,.0f}"


def _size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
