"""Shared by the tests: a few real digits, prepared once, and tiny runs on them."""

import os
import subprocess
import sys
import venv

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from dry_runs import dry_run

ROOT = Path(__file__).parents[1]
TINY = {
    "dataset": "digits",
    "dataset.train_per_class": 4,
    "network": "resnet_mini",
    "network.width": 0.0625,
    "epochs": 3,
    "batch_size": 9,  # does not divide the 40 images: 5 batches an epoch, the last of 4 images
    "lr": 0.05,
    "seed": 0,
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results that holds nothing but prepared data: 4 training images of each digit, 60 test images."""
    from spaced_kd.config.paths import ResultPaths
    from spaced_kd.data import dataset

    results = tmp_path_factory.mktemp("digits") / "results"
    spec = tiny(method="baseline")
    content = dataset.registry.find("datasets", "digits").prepare(Path("none"), train_per_class=4)
    few = {key: array[:60] for key, array in content.items() if key.startswith("test")}
    settings = spec.resolved()["settings"]["dataset"]
    dataset.save(ResultPaths(results).data(spec), content | few, dataset="digits", settings=settings)
    return results


@pytest.fixture
def results(digits: Path, tmp_path: Path) -> Path:
    """A fresh folder of results with the prepared data linked into it."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "data").symlink_to(digits / "data")
    return tmp_path / "results"


def tiny(**changes: object):
    """A tiny run; `a__b` in a name stands for `a.b`."""
    from spaced_kd.config.run_spec import from_flat

    return from_flat(TINY | {key.replace("__", "."): value for key, value in changes.items()})


def first_fast(cases: Iterable) -> list:
    """Cases of a test that takes seconds for each: `make test` runs the first, the gate runs all."""
    first, *others = cases
    return [first, *(pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=pytest.mark.slow) for c in others)]


@pytest.fixture
def spec_of() -> Callable:
    """The maker of tiny runs."""
    return tiny


def still(network, *, per_epoch: int = 4, epochs: int = 3, interval: int = 1):
    """A history in which student and teacher are this one network all the time."""
    from spaced_kd.evaluation.replay import Replay

    total = per_epoch * epochs
    taught = [min(total, (update // interval + 1) * interval) for update in range(total)]
    return Replay(
        *("student", per_epoch, {"student": total, "teacher": total}, taught),
        networks_at=lambda moments, see: {moment: see(moment[0], network) for moment in moments},
    )


class Training:
    """The loop of a training, some turns at a time.

    Args:
        job: what is trained.
        results: folder of all results.
        every: seconds between resume states.
    """

    def __init__(self, job, results: Path, every: float = 0.0) -> None:
        from spaced_kd.config.paths import ResultPaths
        from spaced_kd.training import loop
        from spaced_kd.training.preemption import StopSignal

        training = loop.Training(job, ResultPaths(results), every, StopSignal(), others=False)
        self.job, self.recorder, self.checkpointer = job, training.recorder, training.checkpointer
        self.done = training.metrics.turns
        self._turns = training.turns()
        next(self._turns, None)  # waits before the first turn

    def take(self, turns: int) -> None:
        """The next turns."""
        for _ in range(turns):
            next(self._turns, None)


@pytest.fixture
def checkout(tmp_path):
    """The workflow alone in a fresh folder, with a small study."""
    return linked(tmp_path)


def linked(folder: Path) -> Path:
    """The folder, with the workflow linked into it."""
    for name in ("Snakefile", "workflow", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "config").mkdir()
    return folder


@pytest.fixture
def environment(tmp_path, monkeypatch) -> Path:
    """Folder of packages of an environment of its own, which has all that this one has; `snakemake` runs in it."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("\n".join([str(ROOT / "src"), *outer]))
    command = folder / "bin" / "spaced-kd"
    command.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m spaced_kd "$@"\n')
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    return site


def snakemake(folder: Path, study: dict | str, *arguments: str) -> subprocess.CompletedProcess:
    """Run the workflow on a study, or the text of its file, in such a checkout."""
    (folder / "config" / "trial.yaml").write_text(study if isinstance(study, str) else yaml.safe_dump(study))
    arguments = (*arguments, "--configfile", "config/trial.yaml")
    if "-n" in arguments and "PYTHONPATH" not in os.environ:  # which a process that has started cannot follow
        return dry_run(folder, list(arguments))
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
