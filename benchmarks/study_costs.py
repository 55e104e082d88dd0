"""What a study costs beside its steps: the sweep of intervals, memory, resume states, the start of a job."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import seconds
from benchmarks.workload import prepare, run
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.planning.costs import RunCosts
from spaced_kd.training import checkpoint
from spaced_kd.training.job import assemble

CHECKPOINT_EVERY = 300.0  # seconds, the default of `spaced-kd train`
MEMORY = """
import json, sys, torch
from pathlib import Path
from spaced_kd.config.run_spec import from_overrides
from spaced_kd.training.loop import train
train(from_overrides(sys.argv[2:]), Path(sys.argv[1]), device=DEVICE)
told = Path("/proc/self/status").read_text("utf-8").split()
host = int(told[told.index("VmHWM:") + 1]) * 1024  # of this process alone, where getrusage starts with its parent's
print(json.dumps({"host": host, "device": torch.cuda.max_memory_allocated() if DEVICE != "cpu" else 0}))
"""
BARE = "import torch, timm"
START = """
import os, sys
from spaced_kd.cli import main as cli
from spaced_kd.training.learner import Learner
Learner.learn = lambda *_: os._exit(0)  # the first step would begin here
cli.main(sys.argv[1:])
os._exit(1)
"""


def sweep() -> tuple[dict[str, list[float]], dict[str, Any]]:
    """FLOPs of Tab. 6's sweep on Tiny-ImageNet, ResNet-18, as it is run here, and with each run's teacher its own."""
    counts, same = RunCosts(), {"dataset": "tiny_imagenet", "network": "resnet18", "seed": 0}
    runs = [from_flat(same | {"method": "baseline"})]
    for interval in (0, 0.5, 1.0, 1.5, 2.0, "max"):
        runs.append(from_flat(same | {"method": "online_kd", "interval": interval}))
    costs, together = ([counts.cost(run, train_together=key) for run in runs] for key in (False, True))
    alone = sum(cost.flops + cost.spared for cost in costs)
    here, beside = (sum(cost.flops for cost in each) for each in (costs, together))
    detail = {"flops here": here, "flops with online KD beside its teacher": beside, "flops of independent runs": alone}
    return {"sweep": [here / alone], "sweep_together": [beside / alone]}, detail


def memory(device: torch.device, pairs: int, source: Path, paths: ResultPaths) -> tuple[dict[str, list[float]], dict]:
    """Peak memory of a student 4 epochs behind, against one half an epoch behind."""
    peaks: dict[str, list[dict[str, int]]] = {"4": [], "0.5": []}
    words = {"network": "resnet_mini", "network__width": 0.0625, "method": "online_kd", "epochs": 4, "eval_every": 4}
    words |= {"dataset__size": 32, "dataset__train_per_class": 100}  # 2,000 images: 86 MB more, were they buffered
    prepare(run(**words), source, paths)
    for number in range(pairs):
        started = {}
        for interval in peaks:  # both at once, each in a process and a folder of its own
            folder = Path(paths.results, f"memory-{interval}-{number}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "data").symlink_to(paths.results.resolve() / "data") if not (folder / "data").exists() else None
            program = MEMORY.replace("DEVICE", repr(str(device)))
            command = [sys.executable, "-c", program, folder, *run(interval=float(interval), **words).overrides()]
            started[interval] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for interval, process in started.items():
            told, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"the training of interval {interval} failed")
            peaks[interval].append(json.loads(told.splitlines()[-1]))
        print(f"  memory, pair {number + 1} of {pairs}", flush=True)
    kinds = ("host", "device") if device.type == "cuda" else ("host",)
    more = {
        f"memory_{kind}": [100 * (a[kind] / b[kind] - 1) for a, b in zip(peaks["4"], peaks["0.5"], strict=True)]
        for kind in kinds
    }
    return more, {"peaks": peaks}


def states(device: torch.device, times: int, source: Path, paths: ResultPaths) -> tuple[dict[str, list[float]], dict]:
    """Time of a resume state of two ResNet-18 and their optimisers, as a share of the time between two."""
    spec = run(method="online_kd", dataset__size=32)
    prepare(spec, source, paths)
    job = assemble(spec, paths, str(device))
    for who in ("teacher", "student"):  # so that the optimisers have their momentum
        job.learners[who].learn(0, lambda who=who: job.passes(who, 0))
    folder = Path(paths.results, "states")

    def save(turn: int) -> None:
        checkpoint.save_state(folder, turn, job.modules, job.own_learners, before=turn - 1, record={})

    taken = [seconds(partial(save, turn), device) for turn in range(times)]
    size = sum(path.stat().st_size for path in checkpoint.states(folder)[-1:])
    return {"states": [100 * each / CHECKPOINT_EVERY for each in taken]}, {"bytes": size, "seconds": taken}


def start(pairs: int, source: Path, paths: ResultPaths) -> tuple[dict[str, list[float]], dict]:
    """Seconds from the start of a process to the first step of its training, beyond the imports of torch and timm."""
    spec = run(method="online_kd", interval=1.5, dataset__size=32, epochs=10)
    prepare(spec, source, paths)
    job = [START, "train", *spec.overrides(), "--results", str(paths.results)]
    bare, whole = [], []
    for number in range(pairs + 1):
        for taken, words in ((bare, [BARE]), (whole, job)):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", *words], check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - begun)
        print(f"  start, pair {number} of {pairs}", flush=True)
    first = slice(1, None)  # the first pair reads the files into memory
    beyond = [after - before for after, before in zip(whole[first], bare[first], strict=True)]
    return {"start": beyond}, {"bare": bare[first], "to the first step": whole[first]}


def tab01(results: Path) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Minutes of the three networks of Tab. 1's row Tiny-ImageNet, ResNet-18, of each seed finished below `results`."""
    minutes: dict[int, dict[str, float]] = {}
    for path in sorted(results.glob("runs/*/run.json")):
        about = json.loads(path.read_text("utf-8"))
        spec = about["spec"]
        plain = {"dataset": "tiny_imagenet", "network": "resnet18", "epochs": 80, "batch_size": 128}
        whole = spec["settings"]["dataset"] == {"classes": 200, "train_per_class": 500, "size": 64}
        if all(spec[key] == value for key, value in plain.items()) and whole and spec["interval"] in (0, 1.5):
            arm = f"{spec['method']} {spec['interval']:g}"
            minutes.setdefault(spec["seed"], {})[arm] = about["wall_seconds"] / 60
    whole_rows = [row for row in minutes.values() if len(row) == 3]
    return {"tab01": [sum(row.values()) for row in whole_rows]} if whole_rows else {}, {"minutes": minutes}
