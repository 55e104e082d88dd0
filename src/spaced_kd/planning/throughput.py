"""Training throughput of devices: measured by finished runs, or else an assumed share of the stated peak."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd.config.run_spec import RunSpec
from spaced_kd.training.provenance import emulated, processor
from spaced_kd.utils.errors import UserError


class Peak(NamedTuple):
    """Stated FLOP/s, and the share of it that trainings like these are assumed to reach."""

    flops: float
    share: float


# Peaks of GPUs: NVIDIA's data sheets of H200 SXM, H100 SXM and A100 SXM; fp32 without tensor cores, tf32 and bf16
# with them, without sparsity. cpu: a core with AVX2 at 2.5 GHz, 2 units x 8 numbers x 2
# operations; for bf16 the same, and a share of EMULATED where the processor has no AVX-512.
# Shares are low: small images in batches of 128 leave a large GPU waiting for its next kernel. An H200's for fp32 and
# bf16 are about what ResNet-18 reached there, 0.27 and 0.11 at 32 px, 0.41 and 0.20 at 64 px, by
# benchmarks/recorded/cuda.json; the others are assumed.
DEVICES: dict[str, dict[str, Peak]] = {
    "h200": {"fp32": Peak(67e12, 0.3), "tf32": Peak(494e12, 0.07), "bf16": Peak(989e12, 0.1)},
    "h100": {"fp32": Peak(67e12, 0.3), "tf32": Peak(494e12, 0.07), "bf16": Peak(989e12, 0.1)},
    "a100": {"fp32": Peak(19.5e12, 0.4), "tf32": Peak(156e12, 0.13), "bf16": Peak(312e12, 0.1)},
    "cpu": {"fp32": Peak(80e9, 0.3), "bf16": Peak(80e9, 0.3)},
}
EMULATED = 0.03  # a ninth of the share of fp32, as provenance.emulated measured it, rounded


class Rate(NamedTuple):
    """Training FLOPs in a second of wall clock, and where the number comes from."""

    flops: float
    source: str


class Rates:
    """FLOP/s of runs on one kind of device.

    Args:
        device: a name of `DEVICES`, or part of an accelerator's name that finished runs carry.
        finished: descriptions of finished runs, as in run.json.

    Raises:
        UserError: nothing was measured there, and nothing is known of it.
    """

    def __init__(self, device: str, finished: Iterable[dict[str, Any]]) -> None:
        self.device = device
        self.measured: dict[tuple[str | int | None, ...], list[float]] = defaultdict(
            lambda: [0, 0.0, 0.0]
        )  # runs, FLOPs, seconds
        for run in finished:
            about = run["provenance"]
            name = about.get("accelerator") or ""
            on_this = not name and about.get("processor") == processor()
            # on a GPU, only runs that had it to themselves: their energy was measured, or they used several GPUs
            alone = run.get("energy_joules") is not None or run.get("spec", {}).get("processes", 1) > 1
            here = on_this if device == "cpu" else alone and device.lower() in name.lower()
            if here and run.get("training_flops") and run.get("wall_seconds"):
                spec, network = run["spec"], run["labels"]["network"]
                seconds = run["wall_seconds"] * spec.get("processes", 1)  # of a device
                if device == "cpu" and run.get("cpu_seconds"):  # whatever else its cores had to do
                    seconds = min(seconds, run["cpu_seconds"] / spec["threads"])
                for method in (spec["method"], None):
                    sums = self.measured[network, spec["precision"], spec["threads"], method]
                    for position, value in enumerate((1, sum(run["training_flops"].values()), seconds)):
                        sums[position] += value
        if device not in DEVICES and not self.measured:
            raise UserError(f"no run was measured on {device!r}, and its peak is not known: {', '.join(DEVICES)} are")

    def of(self, spec: RunSpec) -> Rate:
        """As measured with the run's network, precision and threads, best with its method too; else as assumed."""
        for method in (spec.method, None):
            runs, flops, seconds = self.measured.get((*self.kind(spec), method), (0, 0, 0))
            if runs:
                return Rate(flops / seconds, f"measured in {runs} runs of {method or 'other methods'}")
        if self.device not in DEVICES:
            raise UserError(
                f"{self.kind(spec)[0]} in {spec.precision} was not measured on {self.device!r}, whose peak is not"
                f" known: {', '.join(DEVICES)} are"
            )
        if spec.precision not in DEVICES[self.device]:
            raise UserError(
                f"precision is {spec.precision}, which {self.device} does not have: use another, or another device"
            )
        peak, share = DEVICES[self.device][spec.precision]
        note = ""
        if self.device == "cpu":
            peak *= spec.threads
            if emulated(spec.precision):
                share, note = EMULATED, f"; {spec.precision} is emulated on this processor"
        return Rate(peak * share, f"assumed: {share:.0%} of {peak / 1e12:g} TFLOP/s{note}")

    @staticmethod
    def kind(spec: RunSpec) -> tuple[str, str, int]:
        """Network, precision and CPU threads, for which a measured rate holds."""
        return spec.label("network"), spec.precision, spec.threads


def finished_runs(results: Path) -> Iterator[dict[str, Any]]:
    """Descriptions of the runs that are finished here, and of those whose rows are recorded in the repository."""
    for path in [*results.glob("runs/*/run.json"), *results.glob("recorded/*/runs.json")]:
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise UserError(f"{path} is damaged: delete it, and make it again") from None
        yield from found if isinstance(found, list) else [found]
