"""`python -m scripts.train_many STUDY.yaml ...`: train studies on one device, several runs at a time.

For a borrowed machine without Snakemake, and for many short runs: each process imports torch once and trains one run
after the other, teachers before their students. Finished runs are left as they are; run it again for the others.
"""

import argparse
import gc
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import Study, load_study
from spaced_kd.utils.errors import UserError


def in_order(studies: list[Study]) -> dict[str, RunSpec]:
    """The runs of all studies by id, each once, in the order of the files."""
    return {run.id: run for study in studies for run in study.runs}


def train_all(
    runs: dict[str, RunSpec], results: Path, device: str, jobs: int, seconds: float, *, together: bool = False
) -> tuple[list[str], int]:
    """Train what can be begun within `seconds`, `jobs` at a time; `together`: online students beside their teachers.

    Gives a line for each run that failed, and how many were not begun: for want of time, or of their teacher.
    """
    begun, deadline = time.monotonic(), time.monotonic() + seconds
    followers: dict[str, list[RunSpec]] = {}
    for run in runs.values():
        if teacher := run.teacher_spec():
            followers.setdefault(teacher.id, []).append(run)
    order = {run: place for place, run in enumerate(sorted(runs, key=lambda run: run not in followers))}
    ready = [run for run in runs.values() if not run.teacher_spec()]
    context = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    running: dict[Future, RunSpec] = {}
    failed: list[str] = []
    finished = 0
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        while ready or running:
            ready.sort(key=lambda run: order[run.id])  # teachers first, then as the files have them
            while ready and len(running) < jobs and time.monotonic() < deadline:
                run = ready.pop(0)
                students = tuple(followers.get(run.id, ()))
                beside = students if together else ()
                running[pool.submit(_train, run, results, students, beside, device)] = run
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run = running.pop(future)
                if error := future.exception():
                    failed.append(f"{run.id}: {type(error).__name__}: {error}")
                    print(failed[-1], flush=True)
                    continue
                finished += 1
                ready += followers.get(run.id, ())
                print(f"{time.monotonic() - begun:5.0f} s  {finished:4d} of {len(runs)}  {run.id}", flush=True)
    return failed, len(runs) - finished - len(failed)


def _train(
    run: RunSpec, results: Path, students: tuple[RunSpec, ...], beside: tuple[RunSpec, ...], device: str
) -> None:
    from spaced_kd.training.loop import train  # here, so that the process which hands out runs needs no torch

    try:
        train(run, results, save_states_for=students, together=beside, device=device)
    finally:
        gc.collect()  # the memory of the run's graphs, before the next one asks for its own


def main() -> None:
    """Parse the command, train, and say what failed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train_many", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY", help="YAML files, the most important first")
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time (8)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (results)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long (no limit)")
    given = parser.parse_args()
    try:
        studies = [load_study(path) for path in given.studies]
    except UserError as error:
        raise SystemExit(f"train_many: {error}") from None
    beside = any(study.train_together for study in studies)
    runs = in_order(studies)
    failed, left = train_all(runs, given.results, given.device, given.jobs, given.seconds, together=beside)
    if failed or left:
        raise SystemExit(f"train_many: {len(failed)} runs failed, and {left} were not begun: run it again for them")


if __name__ == "__main__":
    main()
