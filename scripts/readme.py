"""Redraws the results of the README from the recorded rows: python -m scripts.readme."""

import re
from pathlib import Path

import pandas as pd

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.tables import headline
from spaced_kd.config.presets import REFERENCE

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECORDED = ROOT / "results" / "recorded"
MARKED = re.compile(r"(<!-- results -->\n).*(<!-- /results -->)", re.DOTALL)


def results(rows: pd.DataFrame) -> str:
    """Findings in sentences, and the table that they come from, as Markdown; `rows`: ours and the paper's."""
    table = headline.table(rows).to_markdown(index=False)
    table = re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", table))
    return f"{headline.findings(rows)}\n\n{table}\n"


def recorded() -> pd.DataFrame:
    """All recorded rows, with the paper's numbers."""
    ours = tidy_rows.read(*sorted(RECORDED.glob("*/rows.csv")))
    return tidy_rows.beside(ours, reference.read_reference(REFERENCE))


if __name__ == "__main__":
    text = results(recorded())
    README.write_text(MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", README.read_text("utf-8")), "utf-8")
