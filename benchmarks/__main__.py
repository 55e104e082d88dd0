"""`python -m benchmarks`: measure, keep what was measured, and print the table of goals."""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import steps, study_costs, targets
from benchmarks.machine import ceilings, describe, kind
from spaced_kd.config.paths import ResultPaths
from spaced_kd.utils.devices import choose_device
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import write_safely

Group = Callable[[], tuple[dict[str, list[float]], dict[str, Any]]]
LEFT_OUT = {  # of a GPU's groups, what is no work of its own; on a CPU, what would take months
    "cuda": ("sweep", "corrupted"),
    "cpu": ("tab01",),
}


def main() -> None:
    """Parse the command, measure the groups asked for one after the other, keep each as soon as it is there."""
    arguments = _parser().parse_args()
    if arguments.table:
        print(targets.page(targets.read(arguments.recorded)), end="")
        return
    device = choose_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    path = arguments.recorded / f"{kind(device)}.json"
    about = json.loads(path.read_text("utf-8")) if path.exists() else {"groups": {}}
    about["machine"] = describe(device, arguments.threads)
    wanted = groups(arguments, device)
    if "steps" in wanted or "ceilings" not in about:  # what steps are set beside was measured with them
        print("ceilings", flush=True)
        about["ceilings"] = ceilings(device)
    for name, measure in wanted.items():
        print(f"{name} ...", flush=True)
        begun = time.perf_counter()
        values, detail = measure()
        about["groups"][name] = {
            "commit": about["machine"]["commit"] + ("-dirty" if about["machine"]["dirty"] else ""),
            "seconds": time.perf_counter() - begun,
            "values": values,
            "detail": detail,
        }
        if name == "steps" and device.type == "cuda":
            values["utilisation"] = targets.utilisation(about)
        write_safely(path, json.dumps(about, indent=1).encode())
    print(targets.page({kind(device): about}), end="")


def groups(arguments: argparse.Namespace, device: torch.device) -> dict[str, Group]:
    """What is measured, by name, in the order of the table."""
    source, paths, pairs = arguments.source, ResultPaths(arguments.results), arguments.pairs
    found: dict[str, Group] = {
        "steps": partial(steps.measure, device, arguments.threads, pairs, source, paths),
        "deterministic": partial(steps.deterministic, device, arguments.threads, pairs, source, paths),
        "sweep": study_costs.sweep,
        "memory": partial(study_costs.memory, device, pairs, source, paths),
        "states": partial(study_costs.states, device, pairs, source, paths),
        "corrupted": partial(_evaluation, "corrupted", min(3, pairs), source, paths),
        "trace": partial(_evaluation, "trace", device, pairs, source, paths),
        "start": partial(study_costs.start, pairs, source, paths),
        "tab01": partial(study_costs.tab01, Path("results")),
    }
    wanted = arguments.only or [name for name in found if name not in LEFT_OUT[device.type]]
    if unknown := set(wanted) - set(found):
        raise SystemExit(f"{min(unknown)} is none of the groups: {', '.join(found)}")
    return {name: found[name] for name in wanted}


def _evaluation(name: str, *given: Any) -> tuple[dict[str, list[float]], dict[str, Any]]:
    from benchmarks import evaluations  # late: a borrowed machine has no curvlinops and no imagecorruptions

    return getattr(evaluations, name)(*given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of both loops (2)")
    parser.add_argument("--pairs", type=int, default=5, help="how often plain and ours are timed in turn (5)")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="these groups alone; the others stay as recorded")
    parser.add_argument("--source", type=Path, default=Path("data"), help="folder of tiny-imagenet-200 (data)")
    parser.add_argument("--results", type=Path, default=Path("results/bench"), help="what is made on the way")
    parser.add_argument("--recorded", type=Path, default=targets.RECORDED, help="where the measurements are kept")
    parser.add_argument("--table", action="store_true", help="print the table of what is recorded, and measure nothing")
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"benchmarks: {error}") from None
