"""Verdicts of a study as the first page of its report, in reStructuredText."""

import re
from collections.abc import Sequence

from pandas import DataFrame

from spaced_kd.analysis import human_names
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
    of_settings: dict[str, list[dict[str, str]]] = {}
    for line in human_names.of_table(text.lines(main, rows)).to_dict("records"):
        of_settings.setdefault(line["setting"], []).append(line)
    tables = [part for setting, lines in of_settings.items() for part in (f"**{_capital(setting)}**", _table(lines))]
    return "\n\n".join([runs, *tables, _escaped(text.tally(verdicts))]) + "\n"


def _table(lines: Sequence[dict[str, str]]) -> str:
    """The verdicts of one setting, a line each."""
    head = ("claim", "verdict", "ours", "adjusted 95 %", "the paper")
    cells = [
        (
            _capital(line["claim"].partition(" (")[0]),
            f"**{_escaped(line['verdict'])}**",
            *(_escaped(line[key]) for key in ("ours", "adjusted 95 %", "paper")),
        )
        for line in lines
    ]
    listed = [
        "\n".join(f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)) for row in (head, *cells)
    ]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *listed])


def _capital(words: str) -> str:
    return _escaped(words[0].upper() + words[1:])


def _escaped(words: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", words)
