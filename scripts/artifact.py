"""Writes ARTIFACT.md for reviewers from claims, recorded runs and plans: python -m scripts.artifact."""

import re
from collections.abc import Iterator
from statistics import mean
from typing import Any

import pandas as pd

from scripts.readme import RECORDED, ROOT, recorded
from spaced_kd.analysis import human_names
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import word
from spaced_kd.analysis.claims.verdicts import Verdict, judge
from spaced_kd.analysis.tables.headline import evidence
from spaced_kd.config.study import load_study
from spaced_kd.planning.costs import RunCosts
from spaced_kd.utils.files import read_json

TARGET = ROOT / "ARTIFACT.md"
DATA = ROOT / "docs" / "data"
TEXT = """# Artifact

<!-- written by `make artifact`; edit scripts/artifact.py -->

`make kick` goes in five minutes from nothing to the tables of the README, redrawn from recorded rows and compared,
and to recorded networks that are checked and evaluated again. It needs Python 3.11, make, and 7 GB of disk for the
environment. `make archive` writes what this page describes as one zip.

## Claims

Each of the paper's claims that has runs, in the setting with the most training steps, then the most seeds. The
command runs the whole study anew, in `results/STUDY`, and judges it; where a line has several, the verdict needs the
rows of all: `spaced-kd claims results/STUDY/rows.csv ...`. Minutes are those of all its trainings, one
after another: the mean of the recorded ones, as long as each took beside others on that machine. Disk is that of
weights and predictions. The verdict is the recorded one; `spaced-kd claims results/recorded/*/rows.csv` lists all of
them with their intervals.

{claims}

## Licences

| What | Where | Licence |
|---|---|---|
| code, documentation, and the rows and descriptions of runs | everywhere, `results/recorded` | Apache-2.0, `LICENSE` |
{data}

No image of a dataset is in the repository or in the archive. `CITATION.cff` says what to cite.
"""


def artifact() -> str:
    """The page."""
    return TEXT.format(claims=_markdown(pd.DataFrame(claims())), data="\n".join(_licences()))


def claims() -> list[dict[str, str]]:
    """A line for each claim that has runs."""
    rows = recorded()
    judged = [verdict for verdict in judge(load(PATH, rows), rows) if verdict.setting and any(verdict.runs)]
    of_claims: dict[str, list[Verdict]] = {}
    for verdict in judged:
        of_claims.setdefault(verdict.claim.id, []).append(verdict)
    described = {path.parent.name: read_json(path, list) for path in sorted(RECORDED.glob("*/runs.json"))}
    costs: dict[str, dict[str, str]] = {}
    lines = []
    for several in of_claims.values():
        verdict = max(several, key=evidence)
        studies = _studies(verdict, described)
        costs |= {study: _costs(study, described[study]) for study in studies if study not in costs}
        setting = human_names.scale_name(verdict.setting)
        told = {"claim": f"{verdict.claim.sentence} ({verdict.claim.place})", "setting": setting}
        lines.append(told | _together([costs[study] for study in studies]) | {"verdict": word(verdict)})
    return lines


def _studies(verdict: Verdict, described: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The smallest recorded study that has all runs of a verdict, or several that have them together.

    That of the theory has no runs of its own.
    """
    needed = {run for arm in verdict.runs for run in arm}
    runs_of = {name: {str(run.get("id")) for run in runs} & needed for name, runs in described.items()}
    names = sorted(described, key=lambda name: (-len(runs_of[name]), len(described[name])))
    found: list[str] = []
    while needed:
        name = max(names, key=lambda name: len(runs_of[name] & needed))
        if not runs_of[name] & needed:
            break
        found.append(name)
        needed = needed - runs_of[name]
    return found or ["theory"]


def _together(costs: list[dict[str, str]]) -> dict[str, str]:
    """Costs of studies that a verdict needs, in their order; equal ones once."""
    return {key: ", ".join(dict.fromkeys(each[key] for each in costs)) for key in costs[0]}


def _costs(study: str, runs: list[dict[str, Any]]) -> dict[str, str]:
    """Command, minutes, disk and machine of a study."""
    machines = ", ".join(sorted({_machine(run["provenance"]) for run in runs}))
    if study == "theory":
        return {"command": "`spaced-kd theory`", "minutes": "not measured", "disk": "1 MB", "machine": machines}
    path = next(path for kind in ("studies", "experiments") for path in (ROOT / "config" / kind).glob(f"{study}.yaml"))
    counts, planned = RunCosts(), load_study(path).runs
    seconds = mean(run["wall_seconds"] for run in runs) * len(planned)
    size = sum(counts.disk(run) for run in planned)
    return {
        "command": f"`snakemake scorecard --configfile {path.relative_to(ROOT)}`",
        "minutes": f"{seconds / 60:,.0f}",
        "disk": f"{size / 1e6:,.0f} MB",
        "machine": machines,
    }


def _machine(provenance: dict[str, Any]) -> str:
    name = provenance.get("accelerator") or f"{provenance['processor']}, {provenance['processors']} cores"
    return re.sub(r"\((R|TM)\)| Processor", "", name)


def _licences() -> Iterator[str]:
    """A line for each dataset whose page says its licence."""
    for path in sorted(DATA.glob("*.md")):
        text = path.read_text("utf-8")
        if found := re.search(r"\*\*Licence\.\*\* (.+?\.)(?:\s|$)", text, re.DOTALL):
            title = text.partition("\n")[0].removeprefix("# ")
            yield f"| {title} | not in it; `docs/data/{path.name}` | {' '.join(found[1].split())} |"


def _markdown(lines: pd.DataFrame) -> str:
    text = lines.to_markdown(index=False, disable_numparse=True)
    return re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", text))


if __name__ == "__main__":
    TARGET.write_text(artifact(), "utf-8")
