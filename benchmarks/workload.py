"""What the benchmarks run on: real Tiny-ImageNet, a part of it, and the runs whose steps are timed."""

from pathlib import Path

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.data import dataset

PART = {"dataset": "tiny_imagenet", "dataset.classes": 20, "dataset.train_per_class": 250}


def run(**changes: object) -> RunSpec:
    """A run on 5,000 training images of 20 classes; `a__b` in a name stands for `a.b`."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return from_flat(PART | {"network": "resnet18", "method": "baseline", "seed": 0} | given)


def prepare(spec: RunSpec, source: Path, paths: ResultPaths) -> None:
    """Decode the run's dataset, unless that is done."""
    path, settings = paths.data(spec), spec.resolved()["settings"]["dataset"]
    if not path.exists():
        content = registry.find("datasets", spec.dataset).prepare(source, **settings)
        dataset.save(path, content, dataset=spec.dataset, settings=settings)
