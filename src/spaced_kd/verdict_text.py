"""Verdicts in words: as the lines of a table, and as a terminal shows them."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from pandas import DataFrame

from spaced_kd.cells import NOTHING
from spaced_kd.claims import Claim, Setting, paper_range, paper_statistic, recipe_words
from spaced_kd.spec import RunSpec
from spaced_kd.verdicts import Verdict

COLUMNS = ("place", "claim", "paper", "setting", "verdict", "ours", "resolution", "remark")
DECIDED = ("supported", "contradicted", "inconclusive", "no verdict")


def listing(verdicts: Sequence[Verdict], rows: DataFrame) -> str:
    """Verdicts as a terminal shows them: a paragraph for each claim that runs tell of, then how many of each."""
    wide = min(shutil.get_terminal_size().columns, 160)
    paragraphs = []
    found = lines([verdict for verdict in verdicts if verdict.verdict != "not run"], rows)
    for (place, claim, paper), group in found.groupby(["place", "claim", "paper"], sort=False):
        told = [textwrap.fill(f"{place}: {claim}; the paper: {paper}", wide)]
        for line in group.to_dict("records"):
            if line["resolution"] != NOTHING:
                line["resolution"] = f"resolution {line['resolution']}"
            parts = [line[key] for key in ("ours", "setting", "resolution", "remark") if line[key] != NOTHING]
            head = f"  {line['verdict']:14}"
            told.append(textwrap.fill("; ".join(parts), wide, initial_indent=head, subsequent_indent=" " * len(head)))
        paragraphs.append("\n".join(told))
    return "\n\n".join([*paragraphs, textwrap.fill(tally(verdicts), wide)])


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many comparisons have which verdict, in the paper's own settings and in others."""
    told = []
    for own, settings in ((True, "the paper's own settings"), (False, "other settings")):
        counts = Counter(each.verdict for each in verdicts if each.own == own)
        told.append(f"in {settings} {', '.join(f'{counts[n]} {n}' for n in DECIDED if counts[n]) or 'none is there'}")
    absent = sum(each.verdict == "not run" for each in verdicts)
    return f"Of {len(verdicts)} comparisons: {'; '.join(told)}; {absent} not run."


def lines(verdicts: Iterable[Verdict], rows: DataFrame) -> DataFrame:
    """Verdicts as a table of text; `rows` have the paper's numbers."""
    of_claim: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        of_claim.setdefault(verdict.claim.id, []).append(verdict)
    found = []
    for group in of_claim.values():
        absent = [verdict for verdict in group if verdict.verdict == "not run" and not verdict.expected]
        found += [_line(verdict, rows) for verdict in group if verdict not in absent]
        if absent:
            found.append(_absent(absent, rows))
    return DataFrame(found, columns=list(COLUMNS))


def short_names(settings: Collection[Setting]) -> dict[Setting, str]:
    """Display names: "digits, resnet_mini, epochs=12", and what else of the recipe tells it from others there."""
    told = {}
    for setting in settings:
        there = [recipe_words(other.recipe).items() for other in settings if other[:2] == setting[:2]]
        common = set(there[0]).intersection(*there)
        own = {"epochs": str(RunSpec.epochs)}
        own |= {k: text for k, text in recipe_words(setting.recipe).items() if k == "epochs" or (k, text) not in common}
        words = " ".join(f"{key}={own[key]}" for key in sorted(own))
        told[setting] = ", ".join(filter(None, [setting.dataset, setting.network, words, setting.shared]))
    return told


def _line(verdict: Verdict, rows: DataFrame) -> dict[str, str]:
    claim = verdict.claim
    paper = _paper(claim, rows) if verdict.paper is None or claim.of else _number(verdict.paper, claim.unit)
    where = "" if verdict.own or claim.of else "other setting: "
    return {
        "place": claim.place,
        "claim": _sentence(claim),
        "paper": paper,
        "setting": where + verdict.setting.name if verdict.setting else "all rows",
        "verdict": verdict.verdict,
        "ours": _ours(verdict),
        "resolution": NOTHING if verdict.detectable is None else _number(verdict.detectable, claim.unit)[1:],
        "remark": _remark(verdict),
    }


def _absent(verdicts: Sequence[Verdict], rows: DataFrame) -> dict[str, str]:
    """One line for all rows of a claim that have not been run."""
    first = verdicts[0]
    claim = first.claim
    several = f"{len(verdicts)} rows of {claim.place}"
    setting = NOTHING if not first.setting else several if len(verdicts) > 1 else first.setting.name
    return {
        "place": claim.place,
        "claim": _sentence(claim),
        "paper": _paper(claim, rows, verdicts),
        "setting": setting,
        "verdict": "not run",
        "ours": NOTHING,
        "resolution": NOTHING,
        "remark": f"{'needs ' if claim.needs else ''}{first.reason}{', and so on' * (len(verdicts) > 1)}",
    }


def _sentence(claim: Claim) -> str:
    return f"{claim.sentence} ({claim.kind}, margin {claim.margin:g} {claim.unit})"


def _paper(claim: Claim, rows: DataFrame, verdicts: Sequence[Verdict] = ()) -> str:
    """The paper's own numbers: of the rows in question, or of all rows of the claim."""
    values = [verdict.paper for verdict in verdicts if verdict.paper is not None] or paper_range(claim, rows)
    if not values:
        return "not available"
    ends = [_number(value, claim.unit) for value in (min(values), max(values))]
    text = " to ".join(dict.fromkeys(ends))
    if claim.of:
        return f"{text}; from its tables {_number(paper_statistic(claim, rows), claim.unit)}"
    return f"{text} ({len(values)} rows)" if len(values) > 1 else text


def _ours(verdict: Verdict) -> str:
    """E.g. "+1.00 ± 0.50 (3), [-0.24, +2.24]"."""
    if verdict.mean is None:
        return NOTHING
    unit = verdict.claim.unit
    count = f"{verdict.seeds}" if verdict.seeds == verdict.expected else f"{verdict.seeds} of {verdict.expected} seeds"
    parts = [_number(verdict.mean, unit) + (f" ± {verdict.sd:.2f}" if verdict.sd is not None else "") + f" ({count})"]
    if verdict.interval:
        parts.append(f"[{', '.join(_number(limit, unit) for limit in verdict.interval)}]")
    if verdict.images:
        parts.append(f"other test images alone [{', '.join(_number(limit, unit) for limit in verdict.images)}]")
    if verdict.mcnemar is not None:
        parts.append(f"McNemar p = {verdict.mcnemar:.2g}")
    return ", ".join(parts)


def _remark(verdict: Verdict) -> str:
    if verdict.verdict == "inconclusive" and verdict.detectable is not None:
        return f"{verdict.needed} seeds would settle it" if verdict.needed else "10,000 seeds would not settle it"
    return verdict.reason or NOTHING


def _number(value: float, unit: str) -> str:
    """With sign; a percentage says so."""
    return f"{value:+.1f} %" if unit == "%" else f"{value:+.2f}"
