"""What a study will take, before anything runs: jobs, FLOPs, time, disk, and what sharing teachers saves."""

import heapq
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from pandas import DataFrame
from tqdm import tqdm

from spaced_kd.config import targets
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import Study
from spaced_kd.planning.costs import Cost, RunCosts
from spaced_kd.planning.throughput import Rates, finished_runs
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.processes import processors

FEW_GROUPS = 8  # of a dataset and a network, which one process counts as fast as several, whose start takes a second
NOTE = """\
Time is that of trainings, one at a time on each device. Decoding, the evaluations of finished networks, drawing and
waiting for a cluster are not in it; nor are the predictions after each epoch, where throughput is assumed. What is
assumed is a guess: one finished training of a network on such a device, and the next plan is by its measure."""


@dataclass(frozen=True)
class Plan:
    """A study's plan.

    study: what is to run; device, count: kind and number of devices; rates: how fast they train;
    costs: by the run's id; teachers: student -> teacher, whose run it waits for; finished: ids of runs that are there.
    """

    study: Study
    device: str
    count: int
    rates: Rates
    costs: dict[str, Cost]
    teachers: dict[str, str]
    finished: frozenset[str] = frozenset()

    @cached_property
    def to_go(self) -> list[RunSpec]:
        """The runs that are not finished."""
        return [run for run in self.study.runs if run.id not in self.finished]

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Of a device, by run; 0 of one that is finished, or trains in its teacher's job, which takes longer."""
        going: dict[str, float] = {}
        for run in sorted(self.to_go, key=lambda run: run.id in self.teachers):  # teachers first
            cost, teacher = self.costs[run.id], self.teachers.get(run.id)
            flops = cost.flops + (cost.spared if cost.together and teacher in self.finished else 0)
            job = teacher if cost.together and teacher in going else run.id
            going[run.id] = 0.0
            going[job] += flops / self.rates.of(run).flops
        return dict.fromkeys(self.finished, 0.0) | going

    @cached_property
    def spared_seconds(self) -> float:
        """What the students would train longer if each trained its teacher along."""
        return sum(self.costs[run.id].spared / self.rates.of(run).flops for run in self.to_go)

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
        return 2 * sum(sorted((self.costs[run.id].state for run in self.to_go), reverse=True)[: self.count])

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
    costs = _count(study)
    teachers = {run.id: teacher.id for run in study.runs if (teacher := run.teacher_spec())}
    places = ResultPaths(results)
    finished = frozenset(run.id for run in study.runs if (places.run(run) / "run.json").exists())
    return Plan(study, device, count, rates, costs, teachers, finished)


def _count(study: Study) -> dict[str, Cost]:
    """Cost of each run by its id: a large study's in as many processes as there are processors."""
    groups: dict[tuple[str, str], list[RunSpec]] = defaultdict(list)
    for run in study.runs:
        groups[run.dataset, run.network].append(run)  # which share what is counted
    sharing = {"store_teachers": study.store_teachers, "train_together": study.train_together}
    count = partial(_count_group, Path(study.data), sharing)
    costs: dict[str, Cost] = {}
    with ExitStack() as stack:
        progress = stack.enter_context(tqdm(total=len(study.runs), desc="counting", unit="run", disable=None))
        apply: Callable[..., Iterable[dict[str, Cost]]] = map
        if len(groups) > FEW_GROUPS:
            quiet = (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a process without its traceback
            pool = ProcessPoolExecutor(processors(), initializer=signal.signal, initargs=quiet)
            apply = stack.enter_context(pool).map
        for found in apply(count, groups.values()):
            costs |= found
            progress.update(len(found))
    return costs


def _count_group(data: Path, sharing: dict[str, bool], runs: list[RunSpec]) -> dict[str, Cost]:
    """Cost of some runs by their ids; `sharing`: the study's keys about teachers."""
    counts, costs = RunCosts(data), {}
    for run in runs:
        try:
            costs[run.id] = counts.cost(run, **sharing)
        except UserError as error:
            raise UserError(f"{run.id}: {error}") from None
    return costs


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
    begun = f"{len(plan.finished)} of {len(plan.study.runs)} trainings are finished" if plan.finished else ""
    texts = [f"Plan of {plan.study.name} on {plan.count} x {plan.device}; {begun or 'nothing has run yet'}."]
    texts.append(_jobs(plan))
    texts += [_markdown(lines(plan)) for lines in (_parts, _totals, _throughput)]
    return "\n\n".join([*texts, NOTE])


def _jobs(plan: Plan) -> str:
    """Numbers of jobs by rule of the workflow; of trainings, those to go."""
    study = plan.study
    parts = {part.name: part for part in study.parts}
    corrupted = {run.data_id for run in study.runs if "corruptions" in study.evaluated[run.id]}
    numbers = {
        "prepare": len({run.data_id for run in study.runs}),
        "corrupt": len(corrupted),
        "train": len(plan.to_go),
        "evaluate": sum(bool(names) for part in study.parts for names in part.evaluated.values()),
        "collect": len(study.parts),
        "draw": sum(len(part.tables) + len(part.figures) for part in {study.name: study, **parts}.values()),
        "page": int(targets.judged([*study.tables, *study.figures])),
    }
    counts = ", ".join(f"{number} {rule}" for rule, number in numbers.items() if number)
    return f"{sum(numbers.values())} jobs: {counts}."


def _parts(plan: Plan) -> list[dict[str, str]]:
    lines = []
    for name, runs in (plan.parts() | {"all, each once": list(plan.study.runs)}).items():
        lines.append(
            {
                "part": name,
                "trainings": str(len(runs)),
                "training FLOPs": f"{sum(plan.costs[run.id].flops for run in runs):.3g}",
                "to go": str(sum(run.id not in plan.finished for run in runs)),
                "device time to go": _time(sum(plan.seconds[run.id] for run in runs)),
            }
        )
    return lines


def _totals(plan: Plan) -> list[dict[str, str]]:
    costs = plan.costs.values()
    if not plan.to_go:
        return [{"": "makespan", "in all": "0 s: every training is finished"}]
    flops, spared = sum(cost.flops for cost in costs), sum(cost.spared for cost in costs)
    busy = f", which are busy {sum(plan.seconds.values()) / (plan.makespan * plan.count):.0%} of it"
    totals = {
        "makespan": f"{_time(plan.makespan)} on {plan.count} devices{busy}",
        "sharing teachers saves": f"{spared:.3g} FLOPs, {_time(plan.spared_seconds)} of a device:"
        f" {spared / (flops + spared):.0%} of what it took if each student trained its own",
        "disk, weights": _size(sum(cost.weights for cost in costs)),
        "disk, predictions": _size(sum(cost.predictions for cost in costs)),
        "disk, teachers' states": f"{_size(plan.teacher_states())}, until `make clean`",
        "disk, resume states": f"up to {_size(plan.resume_states())}, until their trainings are through",
    }
    return [{"": name, "in all": text} for name, text in totals.items()]


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


def _time(seconds: float) -> str:
    """In the two largest units that it has.

    >>> _time(12.3), _time(12000), _time(1e6)
    ('12 s', '3 h 20 min', '11 d 14 h')
    """
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    place = next((place for place, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)
    two = units[place : place + 2]
    rest = round(seconds / two[-1][1]) * two[-1][1]
    found: list[str] = []
    for name, size in two:
        count, rest = divmod(rest, size)
        found += [f"{count:,.0f} {name}"] if count or not found else []
    return " ".join(found)


def _size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
