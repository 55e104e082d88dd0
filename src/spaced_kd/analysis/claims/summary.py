"""Verdicts of a study as the first page of its report, in reStructuredText."""

import re
from collections.abc import Sequence

from pandas import DataFrame

from spaced_kd.analysis import human_names
from spaced_kd.analysis.cells import NOTHING
from spaced_kd.analysis.claims import text
from spaced_kd.analysis.claims.rule import NOT_RUN
from spaced_kd.analysis.claims.verdicts import Verdict


def summary(verdicts: Sequence[Verdict], rows: DataFrame, title: str) -> str:
    """The study, the commits that trained its runs, the main verdicts, and how many there are of each.

    Args:
        verdicts: of `judge`.
        rows: tidy rows that were judged, ours and the paper's.
        title: the study's name.
    """
    ours = rows[(rows["source"] == "ours") & (rows["commit"] != "")]
    commits = ", ".join(sorted({f"{commit[:10]}{commit[40:]}" for commit in ours["commit"]}))
    runs = f"Study **{_escaped(title)}**: {ours['run'].nunique()} runs, trained by commit {_escaped(commits)}."
    main = [each for each in verdicts if each.claim.main and each.verdict != NOT_RUN]
    lines = human_names.of_table(text.lines(main, rows)).to_dict("records")
    return "\n\n".join([runs, *map(_verdict, lines), _escaped(text.tally(verdicts))]) + "\n"


def _verdict(line: dict[str, str]) -> str:
    """One item of the list of verdicts."""
    sentence = line["claim"].partition(" (")[0]
    adjusted = line["adjusted 95 %"]
    interval = [] if adjusted == NOTHING else [f"adjusted 95 % {adjusted}"]
    details = "; ".join([line["ours"], *interval, f"the paper {line['paper']}", line["setting"]])
    return f"* {_escaped(sentence[0].upper() + sentence[1:])}: **{_escaped(line['verdict'])}**. {_escaped(details)}."


def _escaped(words: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", words)
