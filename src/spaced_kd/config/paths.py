"""Paths of the files and folders below the folder of results."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from spaced_kd.config import registry
from spaced_kd.config.run_spec import RunSpec


def corrupted_path(
    data: Path, images: int, names: Sequence[str] | None = None, severities: Sequence[int] | None = None
) -> Path:
    """File of the corrupted copies of a fixed subset of `images` test images of the prepared `data`.

    Other corruptions or severities than the evaluation's defaults, for which None stands, have a file of their own.
    """
    plain = registry.defaults("evaluations", "corruptions")
    standard = [sorted(plain["names"]), sorted(plain["severities"])]
    asked = [sorted(names or plain["names"]), sorted(severities or plain["severities"])]
    tag = "" if asked == standard else f"-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]}"
    return data.with_name(f"{data.stem}.corrupted-{images}{tag}.safetensors")


class ResultPaths:
    """Paths of a run's data, outputs and states below the folder of results."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def data(self, spec: RunSpec) -> Path:
        """Prepared data of the run's dataset."""
        return self.results / "data" / f"{spec.data_id}.safetensors"

    def run(self, spec: RunSpec) -> Path:
        """Folder of a finished run's outputs."""
        return self.results / "runs" / spec.id

    def weights(self, spec: RunSpec) -> Path:
        """Final weights of a run."""
        return self.run(spec) / "weights.safetensors"

    def curve(self, spec: RunSpec) -> Path:
        """Learning curve of a run, written while it trains."""
        return self.run(spec) / "curve.csv"

    def state(self, spec: RunSpec) -> Path:
        """Folder of a run's resume states, apart from its outputs, which Snakemake deletes before it starts a job."""
        return self.results / "state" / spec.id

    def lock(self, spec: RunSpec) -> Path:
        """Lock file, held by the one process that trains the run."""
        return self.state(spec) / "lock"

    def trajectory(self, spec: RunSpec) -> Path:
        """Folder of the states that a teacher saves for its students."""
        return self.state(spec) / "trajectory"
