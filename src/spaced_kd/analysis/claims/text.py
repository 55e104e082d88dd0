"""Verdicts as text: lines of a table, and a listing for a terminal."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from pandas import DataFrame

from spaced_kd.analysis import human_names
from spaced_kd.analysis.cells import NOTHING
from spaced_kd.analysis.claims.model import Claim, Setting, paper_range, paper_statistic
from spaced_kd.analysis.claims.rule import COUNTED, EXCLUDED, INCONCLUSIVE, INTERIM, NONE, NOT_RUN, OPPOSITE, SUPPORTED
from spaced_kd.analysis.claims.verdicts import Verdict
from spaced_kd.analysis.queries import where
from spaced_kd.analysis.statistics import Interval
from spaced_kd.config.labels import Recipe

COLUMNS = (
    *("place", "claim", "paper", "setting", "endpoint", "verdict", "ours", "adjusted 95 %", "raw 95 %", "p"),
    *("resolution", "remark"),
)
DECIDED = (SUPPORTED, OPPOSITE, EXCLUDED, INCONCLUSIVE, INTERIM, NONE)
OTHER = "other setting: "
ENDPOINTS = {"last": "last epoch", "tail": "mean over the last tenth"}


def listing(verdicts: Sequence[Verdict], rows: DataFrame) -> str:
    """Verdicts for a terminal: a paragraph for each claim that has runs, then the number of each verdict."""
    wide = min(shutil.get_terminal_size().columns, 160)
    paragraphs = []
    found = human_names.of_table(lines([verdict for verdict in verdicts if verdict.verdict != NOT_RUN], rows))
    for (place, claim, paper), group in found.groupby(["place", "claim", "paper"], sort=False):
        paragraph = [textwrap.fill(f"{place}: {claim}; the paper: {paper}", wide)]
        for line in group.to_dict("records"):
            head = "; ".join(line[key] for key in ("ours", "setting", "endpoint") if line[key] != NOTHING)
            names = {"adjusted 95 %": "adjusted 95 % ", "raw 95 %": "raw 95 % ", "resolution": "resolution "}
            more = [names.get(key, "") + line[key] for key in (*names, "p") if line[key] != NOTHING]
            for text, indent in (
                (f"{line['verdict']}: {head}", "  "),
                ("; ".join(more), "    "),
                (line["remark"].replace(NOTHING, ""), "    "),
            ):
                if text:
                    paragraph.append(textwrap.fill(text, wide, initial_indent=indent, subsequent_indent="    "))
        paragraphs.append("\n".join(paragraph))
    return "\n\n".join([*paragraphs, textwrap.fill(tally(verdicts), wide)])


def tally(verdicts: Sequence[Verdict]) -> str:
    """The number of comparisons with each verdict, in the paper's own settings and in others; counts separately."""
    judged = [each for each in verdicts if each.verdict != COUNTED and not each.claim.counted]
    parts = []
    for own, settings in ((True, "the paper's own settings"), (False, "other settings")):
        counts = Counter(each.verdict for each in judged if each.own == own)
        parts.append(f"in {settings} {', '.join(f'{counts[n]} {n}' for n in DECIDED if counts[n]) or 'none'}")
    absent = sum(each.verdict == NOT_RUN for each in judged)
    text = f"Of {len(judged)} comparisons: {'; '.join(parts)}; {absent} not run."
    held = [each.holds for each in verdicts if each.verdict == COUNTED]
    if held:
        true = held.count(True)
        text += f" Counts of operations (not tests): {true} of {len(held)} are as the claim says."
    return text


def lines(verdicts: Iterable[Verdict], rows: DataFrame) -> DataFrame:
    """Verdicts as a table of text, settings by their labels; `rows` contain the paper's numbers.

    Its `attrs["names"]` are names of the settings for readers, as `human_names.of_table` takes them.
    """
    of_claim: dict[str, list[Verdict]] = {}
    names: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.setting:
            name = human_names.setting_name(verdict.setting)
            names |= {f"{place}{verdict.setting.name}": f"{place}{name}" for place in ("", OTHER)}
        of_claim.setdefault(verdict.claim.id, []).append(verdict)
    found, rows = [], where(rows, source="paper")
    for group in of_claim.values():
        absent = [verdict for verdict in group if verdict.verdict == NOT_RUN and not verdict.expected]
        if len(absent) < len(group):
            paper = _paper(group[0].claim, rows)
            found += [_line(verdict, paper) for verdict in group if verdict not in absent]
        if absent:
            found.append(_absent(absent, rows))
    table = DataFrame(found, columns=list(COLUMNS)).fillna(NOTHING)
    table.attrs["names"] = {"setting": names}
    return table


def short_names(settings: Collection[Setting]) -> dict[Setting, str]:
    """Display names: "digits, resnet_mini, epochs=12, paper", with the settings that distinguish the recipe there.

    The name ends with the reading.
    """
    names = {}
    for setting in settings:
        there = [Recipe.read(other.recipe).telling.items() for other in settings if other[:2] == setting[:2]]
        common = set(there[0]).intersection(*there)
        recipe = Recipe.read(setting.recipe)
        own = Recipe({key: text for key, text in recipe.telling.items() if (key, text) not in common})
        words = str(Recipe(own.without(("protocol",)).settings | {"epochs": recipe.epochs}))
        parts = [setting.dataset, setting.network, words, setting.shared, f"reading {setting.reading}"]
        names[setting] = ", ".join(filter(None, parts))
    return names


def endpoint(verdict: Verdict) -> str:
    """Endpoint and training steps of a comparison, e.g. "last epoch, 400 and 360 steps"."""
    parts = [ENDPOINTS.get(verdict.endpoint, verdict.endpoint)]
    if verdict.states:
        parts.append(f"{_numbers(verdict.states)} states")
    if verdict.steps:
        parts.append(f"{_numbers(verdict.steps)} steps")
    elif verdict.endpoint and verdict.verdict != NOT_RUN:
        parts.append("steps unknown")
    return ", ".join(filter(None, parts)) or NOTHING


def _numbers(found: tuple[int, ...]) -> str:
    """Of `after` and of `before`, e.g. "360 and 400"; one where they are the same."""
    return " and ".join(f"{n:,}" for n in dict.fromkeys(found[:2]))


def family(verdict: Verdict) -> str:
    """The family over which an interval was adjusted, e.g. "main claims, m = 12"."""
    if not verdict.family:
        return NOTHING
    return f"{verdict.family.name}, m = {verdict.family.m}"


def interval(limits: Interval | None, unit: str) -> str:
    """E.g. "[-0.24, +2.24]"."""
    return f"[{', '.join(_number(limit, unit) for limit in limits)}]" if limits else NOTHING


def _line(verdict: Verdict, paper: str) -> dict[str, str]:
    """`paper`: the paper's own numbers of all rows of the claim."""
    claim = verdict.claim
    if verdict.paper is not None and not claim.of:
        paper = _number(verdict.paper, claim.unit)
    place = "" if verdict.own or claim.of else OTHER
    adjusted = f"{interval(verdict.interval, claim.unit)} ({family(verdict)})" if verdict.interval else NOTHING
    return {
        "place": claim.place,
        "claim": _sentence(claim),
        "paper": paper,
        "setting": place + verdict.setting.name if verdict.setting else "all rows",
        "endpoint": endpoint(verdict),
        "verdict": word(verdict),
        "ours": _ours(verdict),
        "adjusted 95 %": adjusted,
        "raw 95 %": interval(verdict.raw, claim.unit),
        "p": _probabilities(verdict),
        "resolution": NOTHING if verdict.detectable is None else _number(verdict.detectable, claim.unit)[1:],
        "remark": _remark(verdict),
    }


def word(verdict: Verdict) -> str:
    """The verdict as text, e.g. "interim, 4 of 10"."""
    return f"{INTERIM}, {verdict.seeds} of {verdict.expected}" if verdict.verdict == INTERIM else verdict.verdict


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
        "verdict": NOT_RUN,
        "remark": f"{'needs ' if claim.needs else ''}{first.reason}{', and so on' * (len(verdicts) > 1)}",
    }


def _sentence(claim: Claim) -> str:
    source = f": {claim.margin_source}" if claim.margin_source else " of our choice"
    return f"{claim.sentence} ({claim.kind.replace('_', ' ')}, margin {claim.margin:g} {claim.unit}{source})"


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
    """E.g. "+1.00 ± 0.50 (3)"."""
    if verdict.mean is None:
        return NOTHING
    unit = verdict.claim.unit
    count = f"{verdict.seeds}" if verdict.seeds == verdict.expected else f"{verdict.seeds} of {verdict.expected} seeds"
    parts = [_number(verdict.mean, unit) + (f" ± {verdict.sd:.2f}" if verdict.sd is not None else "") + f" ({count})"]
    if verdict.images:
        parts.append(f"other test images alone {interval(verdict.images, unit)}")
    if verdict.mcnemar is not None:
        parts.append(f"McNemar p = {verdict.mcnemar:.2g}")
    return ", ".join(parts)


def _probabilities(verdict: Verdict) -> str:
    """E.g. "p 0.012 adjusted, 0.003 raw, 0.25 by sign flips"."""
    found = ((verdict.p, "adjusted"), (verdict.p_raw, "raw"), (verdict.p_flips, "by sign flips, raw"))
    parts = [f"{p:.2g} {how}" for p, how in found if p is not None]
    return f"p {', '.join(parts)}" if parts else NOTHING


def _remark(verdict: Verdict) -> str:
    """Remarks: the reason, the seeds that would decide it, the role of the margin, kinds of machines."""
    unit = verdict.claim.unit
    parts = [verdict.reason]
    if verdict.verdict == COUNTED:
        parts.append(f"as the sentence says: {'yes' if verdict.holds else 'no'}")
    if verdict.needed:
        parts.append(_seeds(verdict))
    if verdict.turns_at is not None:
        parts.append(_sensitivity(verdict, _number(verdict.turns_at, unit)[1:]))
    if verdict.machines:
        kinds = ", ".join(f"{kind} {_number(mean, unit)} ({n})" for kind, mean, n in verdict.machines)
        parts.append(f"pooled with the kind of machine as a block: {kinds}")
    return "; ".join(filter(None, parts)) or NOTHING


def _seeds(verdict: Verdict) -> str:
    """The number of seeds that would decide an inconclusive claim, and its uncertainty."""
    assert verdict.needed  # the caller has checked
    n, low, high, shows = verdict.needed
    if n is None:
        return "10,000 seeds would not settle it if mean and deviation stay"
    most = f"{high:,}" if high else "more than 10,000"
    spread = f" ({low:,} to {most} by the 95 % interval of the deviation)" if low else ""
    return f"{n:,} seeds would show {shows} if mean and deviation stay{spread}"


def _sensitivity(verdict: Verdict, limit: str) -> str:
    """The dependence of the verdict on the margin."""
    if verdict.claim.kind == "greater":
        return f"a gain of more than {limit} is excluded"
    if verdict.verdict == OPPOSITE:
        return f"not with a margin of {limit} or more"
    return f"supported with any margin above {limit}"


def _number(value: float, unit: str) -> str:
    """A number with its sign, and % for percentages."""
    if unit == "%":
        return f"{value:+.2g} %" if 0 < abs(value) < 1 else f"{value:+.1f} %"
    return f"{value:+.2f}"
