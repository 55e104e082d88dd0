"""The training core gives the bits that it gave: golden weights of tiny runs, for each number of the core.

    python tests/training/test_golden.py     writes those of a new `NUMERICS`, or of this processor

What is compared everywhere are projections of the weights, up to what another processor's rounding changes; on a kind
of processor and a version of torch that golden.json has, the bits.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from spaced_kd.config import sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.training import provenance
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file

GOLDEN = Path(__file__).with_name("golden.json")
DIGITS = {"dataset": "digits", "dataset.train_per_class": 4, "batch_size": 9, "lr": 0.01, "seed": 0, "epochs": 2}
RESNET = {"network": "resnet_mini", "network.width": 0.125}
VIT = {"network": "vit_mini", "network.dim": 16}
RUNS = {
    "w/o KD": DIGITS | RESNET | {"batch_size": 20, "method": "baseline", "lr_schedule": "cosine", "warmup_epochs": 1.0},
    "spaced KD": DIGITS
    | VIT
    | {"method": "online_kd", "interval": 1.0, "optimizer": "adamw", "lr": 0.001, "augmentation": "strong"},
    "self KD": DIGITS | VIT | {"method": "self_kd", "interval": 0.6, "augmentation": "autoaugment_cutout"},
}
ROUNDING = 2e-3  # of a projection; processors without AVX-512 are up to 7e-4 apart


def trained(spec: RunSpec, results: Path) -> dict[str, np.ndarray]:
    """Weights after the training."""
    train(spec, results, workers=0)
    return array_file.read(ResultPaths(results).weights(spec), remedy="")[0]


def sha(weights: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()


def projections(weights: dict[str, np.ndarray]) -> list[float]:
    """Eight fixed random projections of each run's weights, each tensor counting the same, in double precision."""
    found = np.zeros(8)
    for name in sorted(weights):
        values = weights[name].astype(np.float64).ravel()
        drawn = np.random.default_rng(len(values)).standard_normal((8, len(values)))
        found += drawn @ values / max(1.0, float(np.linalg.norm(values)))
    return found.tolist()


def machine() -> str:
    """What bits may depend on besides the code."""
    version, vectors = torch.__version__.partition("+")[0], torch.backends.cpu.get_cpu_capability()
    return f"torch {version}, {vectors}, {provenance.processor()}"


def golden() -> dict:
    return json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}


@pytest.mark.parametrize("name", RUNS)
def test_the_core_gives_the_weights_that_it_gave(name, results):
    known = golden()
    assert str(sources.NUMERICS) == max(known, key=int), f"run python {Path(__file__).name}: NUMERICS has no weights"
    known = known[str(sources.NUMERICS)]
    weights = trained(from_flat(RUNS[name]), results)
    message = "a training gives other weights: raise NUMERICS in spaced_kd/sources.py, and run this file"
    assert projections(weights) == pytest.approx(known["projections"][name], abs=ROUNDING), message
    if bits := known["bits"].get(machine()):
        assert sha(weights) == bits[name], message


def test_each_number_of_the_core_has_weights_of_its_own():
    runs = [json.dumps(known["projections"], sort_keys=True) for known in golden().values()]
    assert runs
    assert len(set(runs)) == len(runs)


def record() -> None:
    """Add what this machine has no golden weights of; never replace any."""
    from spaced_kd.cli import main as cli

    known = golden()
    own = known.setdefault(str(sources.NUMERICS), {"projections": {}, "bits": {}})
    with tempfile.TemporaryDirectory() as folder:
        cli.main(["prepare", "dataset=digits", "dataset.train_per_class=4", "--results", folder])
        for name, flat in RUNS.items():
            weights = trained(from_flat(flat), Path(folder))
            kept = own["projections"].setdefault(name, projections(weights))
            before = own["bits"].setdefault(machine(), {}).setdefault(name, sha(weights))
            if not np.allclose(projections(weights), kept, rtol=0, atol=ROUNDING) or before != sha(weights):
                sys.exit(f"{name} gives other weights than those of {sources.NUMERICS}: raise NUMERICS")
    GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
