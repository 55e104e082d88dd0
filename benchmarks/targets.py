"""The goals, and the table that says which are met: drawn from what is recorded, a file for each kind of machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
KINDS = {  # kind of machine, as machine.kind names it -> its name; one that is not recorded has no lines
    "cpu-amx": "CPU with AMX",
    "cpu-avx512_bf16": "CPU with AVX-512 for bf16",
    "cpu-avx512": "CPU with AVX-512",
    "cpu-avx2": "CPU without AVX-512",
    "cuda": "GPU",
}


@dataclass(frozen=True)
class Goal:
    """One line of the table: a number that was measured once per pair, and what it should be at least or at most.

    Where there is no limit, the number is only stated.
    """

    key: str
    what: str
    limit: float | None
    unit: str = "x"
    most: bool = False  # whether the limit is an upper one

    @property
    def told(self) -> str:
        """E.g. "at least 3 x"."""
        if self.limit is None:
            return "none"
        return f"at {'most' if self.most else 'least'} {self.limit:g} {self.unit}"

    def met(self, values: list[float]) -> str:
        """Whether the median is within the limit: yes or no, or nothing where that cannot be said."""
        if self.limit is None or not values:
            return ""
        return "yes" if (median(values) <= self.limit if self.most else median(values) >= self.limit) else "no"


def _steps(limits: dict[tuple[int, str], float]) -> tuple[Goal, ...]:
    who = {"teacher": "a teacher's step", "online": "teacher's and student's step", "spaced": "a student's step"}
    return tuple(
        Goal(f"step_{size}_{precision}_{kind}", f"{told}, ResNet-18, {size} px, {precision} against plain fp32", limit)
        for (size, precision), limit in limits.items()
        for kind, told in who.items()
    )


EVERYWHERE = (
    Goal("input_32", "input pipeline's share of a step, 32 px", 5, "%", most=True),
    Goal("input_64", "input pipeline's share of a step, 64 px", 5, "%", most=True),
    Goal("memory_host", "peak host memory at s = 4, beyond that at s = 0.5", 5, "%", most=True),
    Goal("states", "steps lost to resume states", 1, "%", most=True),
    Goal("deterministic", "what deterministic kernels cost a step, 32 px", None, "%"),
    Goal("trace", "Hessian trace to 5 % standard error, against differentiating twice", 2),
    Goal("start", "start of a training, beyond the imports of torch and timm", 1.5, "s", most=True),
)
ON_CPU = (
    *_steps({(32, "fp32"): 1.3, (64, "fp32"): 1.3}),
    Goal("sweep", "FLOPs of the sweep of intervals, against independent runs", 0.7, most=True),
    Goal("sweep_together", "the same, with online KD in its teacher's job", 0.61, most=True),
    *EVERYWHERE,
    Goal("corrupted", "corrupted test sets, 6 x 3, 10,000 images of 32 px", 150, "s", most=True),
)
ON_CPU_IN_BF16 = (*_steps({(32, "bf16"): 3, (64, "bf16"): 5}), *ON_CPU)
GOALS: dict[str, tuple[Goal, ...]] = {
    "cpu-amx": ON_CPU_IN_BF16,
    "cpu-avx512_bf16": ON_CPU_IN_BF16,
    "cpu-avx512": ON_CPU,
    "cpu-avx2": ON_CPU,
    "cuda": (
        *_steps({(32, "bf16"): 8, (64, "bf16"): 5}),
        Goal("utilisation", "share of the bf16 matrix ceiling in a teacher's step, 64 px", 40, "%"),
        Goal("tab01", "Tab. 1's Tiny-ImageNet, ResNet-18: three networks, 80 epochs", 25, "min", most=True),
        *EVERYWHERE,
        Goal("memory_device", "peak device memory at s = 4, beyond that at s = 0.5", 5, "%", most=True),
    ),
}


def goals(recorded: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """A line per goal: median of the pairs, smallest and largest, met or not; `not measured` where one is missing.

    Args:
        recorded: kind of machine -> what was measured there, of `read`.
    """
    lines = []
    for kind, about in recorded.items():
        measured = {key: values for group in about["groups"].values() for key, values in group["values"].items()}
        for goal in GOALS[kind]:
            values = measured.get(goal.key, [])
            spread = f" [{min(values):.3g}, {max(values):.3g}]" if len(values) > 1 else ""
            lines.append(
                {
                    "on": KINDS[kind],
                    "what": goal.what,
                    "goal": goal.told,
                    "measured": f"{median(values):.3g} {goal.unit}{spread}" if values else "not measured",
                    "n": str(len(values)) if values else "",
                    "met": goal.met(values),
                }
            )
    return lines


def arithmetic(about: dict[str, Any]) -> list[dict[str, str]]:
    """A line per timed step: FLOPs, bytes, and the share of the ceilings that they come to in its time."""
    steps, ceilings = about["groups"]["steps"]["detail"], about["ceilings"]
    lines = []
    for name, step in steps.items():
        precision = name.split()[-1]
        if precision == "fp32" and "plain" in name and "tf32" in ceilings:
            precision = "tf32"  # what the plain loop may use on a GPU
        rate, moved = step["flops"] / step["seconds"], step["bytes"] / step["seconds"]
        lines.append(
            {
                "step": name,
                "s": f"{step['seconds']:.3g}",
                "GFLOP": f"{step['flops'] / 1e9:.4g}",
                "of the matrix product's FLOP/s": f"{100 * rate / ceilings[precision]:.0f} %",
                "GB": f"{step['bytes'] / 1e9:.3g}",
                "of the copy's bytes/s": f"{100 * moved / ceilings['bytes']:.0f} %",
            }
        )
    return lines


def utilisation(about: dict[str, Any]) -> list[float]:
    """Percent of the bf16 ceiling that a teacher's step of 64 px reaches."""
    step = about["groups"]["steps"]["detail"]["64 px, teacher, ours bf16"]
    return [100 * step["flops"] / step["seconds"] / about["ceilings"]["bf16"]]


def read(folder: Path = RECORDED) -> dict[str, dict[str, Any]]:
    """What is recorded, by kind of machine."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def page(recorded: dict[str, dict[str, Any]]) -> str:
    """The README's part: the goals, then the arithmetic of each machine."""
    parts = [markdown(goals(recorded))]
    for kind, about in recorded.items():
        machine, ceilings = about["machine"], about["ceilings"]
        name = machine.get("accelerator") or f"{machine['processor']}, {machine['threads']} threads"
        has = f" ({', '.join(machine['bf16_instructions'])})" if kind != "cuda" and machine["bf16_instructions"] else ""
        told = ", ".join(f"{ceilings[each] / 1e12:.3g} TFLOP/s {each}" for each in ceilings if each != "bytes")
        commits = ", ".join(sorted({group["commit"][:7] for group in about["groups"].values()}))
        parts.append(
            f"{KINDS[kind]}: {name}{has}, torch {machine['versions']['torch']}, commit {commits}. Ceilings measured"
            f" there: a large matrix product {told}; a large copy {ceilings['bytes'] / 1e9:.3g} GB/s."
        )
        if "steps" in about["groups"]:
            parts.append(markdown(arithmetic(about)))
    return "\n\n".join(parts) + "\n"


def markdown(lines: list[dict[str, str]]) -> str:
    """A table, written without pandas, which a borrowed machine may not have."""
    rows = [list(lines[0]), *([*line.values()] for line in lines)]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) + " |" for row in rows]
    told.insert(1, "|" + "|".join(":" + "-" * (width + 1) for width in wide) + "|")
    return "\n".join(told)
