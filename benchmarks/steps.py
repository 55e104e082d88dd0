"""Training steps: plain and ours in turn, a block of the teacher and a block of the student each, on the same images.

A block is one batch on a CPU and many on a GPU, whose queue is waited for at its end. What is timed is the whole of a
step: making the batch, both passes, the update, and what either loop does around it. `online` is a teacher's step and a
student's; a spaced student's step is the student's alone, whose teacher comes from stored states here, and is trained
along in the plain loop: what that saves is counted in `sweep`.
"""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.machine import precisions, seconds
from benchmarks.reference_loop import Plain, loader
from benchmarks.workload import prepare, run
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.batches import Batch
from spaced_kd.data.dataset import Shape
from spaced_kd.planning.costs import Networks
from spaced_kd.planning.meta import META
from spaced_kd.training import energy, provenance
from spaced_kd.training.checkpointer import Checkpointer
from spaced_kd.training.curve import Curve
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.run_recorder import RunRecorder
from spaced_kd.utils.devices import set_rounding

BATCH = 128
Times = dict[str, list[float]]  # who -> seconds of a step, one per pair


def measure(
    device: torch.device,
    threads: int,
    pairs: int,
    source: Path,
    paths: ResultPaths,
    *,
    sizes: tuple[int, ...] = (32, 64),
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Ratios by goal, and each step's arithmetic. `sizes`: pixels."""
    values: dict[str, list[float]] = {}
    arithmetic: dict[str, Any] = {}
    for size in sizes:
        specs = {precision: _spec(size, precision, device, threads) for precision in precisions(device)}
        prepare(specs["fp32"], source, paths)
        plain, ours, making = _times(specs, device, pairs, paths, with_warm_up=size == 32 or device.type == "cuda")
        for precision, times in ours.items():
            for who, before, after in _kinds(plain, times):
                values[f"step_{size}_{precision}_{who}"] = [b / a for b, a in zip(before, after, strict=True)]
        values[f"input_{size}"] = [
            100 * made / step for made, step in zip(making, ours[precisions(device)[0]]["teacher"], strict=True)
        ]
        for name, times in (("plain fp32", plain), *((f"ours {precision}", each) for precision, each in ours.items())):
            for who, counted in work(specs["fp32"], "bf16" in name).items():
                arithmetic[f"{size} px, {who}, {name}"] = counted | {"seconds": median(times[who])}
    return values, arithmetic


def deterministic(
    device: torch.device, threads: int, pairs: int, source: Path, paths: ResultPaths, *, size: int = 32
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Percent that a teacher's and a student's step take longer where every kernel gives the same bits each time."""
    precision = precisions(device)[0]
    spec = _spec(size, precision, device, threads)
    prepare(spec, source, paths)
    loop = ours(assemble(spec, paths, str(device)), paths)
    usual = torch.are_deterministic_algorithms_enabled()
    times: dict[bool, list[float]] = {True: [], False: []}
    try:
        for _ in range(1 + pairs):  # the first warms up
            for wanted, taken in times.items():
                torch.use_deterministic_algorithms(wanted)
                taken.append(sum(_block(loop, device, precision).values()))
    finally:
        torch.use_deterministic_algorithms(usual)
    kept = {wanted: taken[1:] for wanted, taken in times.items()}
    more = [100 * (one / other - 1) for one, other in zip(kept[True], kept[False], strict=True)]
    return {"deterministic": more}, {"seconds with": kept[True], "seconds without": kept[False]}


def _spec(size: int, precision: str, device: torch.device, threads: int) -> RunSpec:
    # the second half batch keeps the interval, which is rounded down, clear of the next whole number
    interval = 0 if block(device) == 1 else (block(device) + 0.5) / -(-5000 // BATCH)
    words = {"method": "online_kd", "interval": interval, "epochs": 1000, "eval_every": 1000, "threads": threads}
    return run(dataset__size=size, precision=precision, batch_size=BATCH, **words)


def block(device: torch.device) -> int:
    """Batches of a block."""
    return 20 if device.type == "cuda" else 1


def _times(
    specs: dict[str, RunSpec], device: torch.device, pairs: int, paths: ResultPaths, *, with_warm_up: bool
) -> tuple[Times, dict[str, Times], list[float]]:
    """Seconds of a step: of the plain loop, of ours in each precision; of making a batch."""
    jobs = {precision: assemble(spec, paths, str(device)) for precision, spec in specs.items()}
    loops = {precision: ours(job, paths) for precision, job in jobs.items()}
    plain = plain_loop(jobs["fp32"])
    if with_warm_up:
        _block(plain, device, "tf32")
        for precision, loop in loops.items():
            _block(loop, device, precision)
    of_plain: Times = {"teacher": [], "student": []}
    of_ours: dict[str, Times] = {precision: {"teacher": [], "student": []} for precision in specs}
    making = []
    for number in range(pairs):
        for times, loop, precision in ((of_plain, plain, "tf32"), *((of_ours[p], loops[p], p) for p in loops)):
            for who, taken in _block(loop, device, precision).items():
                times[who].append(taken)
        batches = jobs["fp32"].batches
        making.append(seconds(lambda: [batches[i].images for i in range(10)], device) / 10)  # noqa: B023 (called here)
        told = "  ".join(f"{name} {times['teacher'][-1]:.3g} + {times['student'][-1]:.3g} s" for name, times in
                         (("plain", of_plain), *of_ours.items()))  # fmt: skip
        print(f"  {jobs['fp32'].data.image_size} px, pair {number + 1} of {pairs}: {told}", flush=True)
    return of_plain, of_ours, making


def ours(job: Job, paths: ResultPaths) -> Iterator[str]:
    """The loop of train.py; yields who has learnt, each time."""
    metrics = TrainingMetrics(energy.meters(job.device))
    recorder, origin = (
        RunRecorder(job, metrics, Curve(paths.curve(job.spec), job)),
        provenance.origin(job.spec, job.device),
    )
    checkpointer = Checkpointer(job, metrics, paths, origin, 1e9, StopSignal())
    checkpointer.resume()
    for role, index in checkpointer.turns_to_go():
        with recorder.watching(role, index):
            losses = job.learners[role].learn(index, partial(job.passes, role, index))
        recorder.after_turn(role, index, losses)
        checkpointer.after_turn(index)
        yield role


def plain_loop(job: Job) -> Iterator[str]:
    """The plain loop on the data of our job, with networks that start as ours do, in the standard layout."""
    copies = [
        copy.deepcopy(job.modules[name]).to(memory_format=torch.contiguous_format) for name in ("teacher", "student")
    ]
    batches = iter(chain.from_iterable(repeat(loader(job.data, BATCH, workers=2))))
    first = next(batches)  # the workers have started
    return Plain(*copies, job.device).turns(chain([first], batches), block(job.device))


def _block(loop: Iterator[str], device: torch.device, precision: str) -> dict[str, float]:
    """Seconds of a teacher's step and of a student's, each the mean of a block."""
    set_rounding(precision)
    count, taken = block(device), {}
    for who in ("teacher", "student"):
        learnt: list[str] = []
        taken[who] = seconds(lambda: learnt.extend(islice(loop, count)), device) / count  # noqa: B023 (called here)
        if learnt != [who] * count:
            raise RuntimeError(f"{learnt} have learnt, not {who}")
    return taken


def _kinds(plain: Times, ours: Times) -> Iterator[tuple[str, list[float], list[float]]]:
    yield "teacher", plain["teacher"], ours["teacher"]
    yield "online", _sums(plain), _sums(ours)
    yield "spaced", plain["student"], ours["student"]


def _sums(times: Times) -> list[float]:
    return [sum(each) for each in zip(times["teacher"], times["student"], strict=True)]


class _Bytes(TorchDispatchMode):
    """Bytes that every operation reads and writes, were each to go to memory and back."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def work(spec: RunSpec, half: bool) -> dict[str, dict[str, float]]:
    """FLOPs and bytes of a teacher's step's and a student's two passes, counted without computing.

    Args:
        spec: the run.
        half: whether numbers have two bytes, and not four.
    """
    shape = Shape(5000, 0, 20, spec.settings["dataset"].get("size", 64))
    networks = Networks(spec, shape)
    flops = {who: networks.flops(who, BATCH) for who in ("teacher", "student")}
    pixels = torch.empty(BATCH, 3, shape.size, shape.size, device=META)
    if half:
        pixels = pixels.bfloat16()
        for module in networks.modules.values():
            module.bfloat16()
    labels = torch.empty(BATCH, dtype=torch.int64, device=META)
    found = {}
    for who, counted in flops.items():
        with _Bytes() as moved:
            terms = networks.method.terms(who, networks.modules, Batch(pixels, labels, labels, lambda number: pixels))
            sum(terms.values()).backward()
        found[who] = {"flops": counted, "bytes": moved.total}
    return found
