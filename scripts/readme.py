"""Redraws the results of the README from the recorded rows: python -m scripts.readme."""

import re
from pathlib import Path

import pandas as pd

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.verdicts import judge
from spaced_kd.analysis.tables import headline
from spaced_kd.config.labels import Recipe
from spaced_kd.config.presets import REFERENCE
from spaced_kd.config.run_spec import RunSpec

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECORDED = ROOT / "results" / "recorded"
PAPER_EPOCHS = RunSpec.epochs  # the default of a run is the paper's
MARKED = re.compile(r"(<!-- results -->\n).*(<!-- /results -->)", re.DOTALL)


def results(rows: pd.DataFrame) -> str:
    """Findings in sentences, and the table that they come from, as Markdown; `rows`: ours and the paper's."""
    found = headline.best_of(judge(load(PATH, rows), rows))
    table = headline.table_of(found, rows).to_markdown(index=False)
    table = re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", table))
    return f"{headline.findings(found)}\n\n{table}\n\n{scale(rows)}\n"


def scale(rows: pd.DataFrame) -> str:
    """How long the recorded trainings are, and which studies are unfinished."""
    ends = rows[(rows["metric"] == "accuracy") & (rows["selection"] == "last") & (rows["source"] == "ours")]
    epochs = [int(Recipe.read(recipe).epochs) for recipe in ends["recipe"]]
    ends = ends.assign(epochs=epochs)
    long = ends.groupby("study")["epochs"].max() >= PAPER_EPOCHS
    short = ends[~ends["study"].map(long)]["epochs"]
    named = []
    for study in long[long].index:
        own = ends[ends["study"] == study]
        planned = {seed for plan in own["planned"].dropna() for seed in plan.split()}
        done = own.groupby(["method", "interval", "recipe"])["seed"].nunique().min()
        missing = f" (interim: {done} of {len(planned)} planned seeds)" if done < len(planned) else ""
        named.append(f"`{study}`{missing}")
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return (
        f"The paper's trainings have {PAPER_EPOCHS} epochs or more. So have those of {listed}; all others have"
        f" {short.min()} to {short.max()}."
    )


def recorded() -> pd.DataFrame:
    """All recorded rows, with the paper's numbers."""
    ours = tidy_rows.read(*sorted(RECORDED.glob("*/rows.csv")))
    return tidy_rows.beside(ours, reference.read_reference(REFERENCE))


if __name__ == "__main__":
    text = results(recorded())
    README.write_text(MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", README.read_text("utf-8")), "utf-8")
