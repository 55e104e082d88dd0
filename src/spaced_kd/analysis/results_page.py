"""The results page: one HTML file with every verdict, its interval as a bar, and the runs behind it.

The table is DataTables, from the offline bundle of the package itables. The file loads nothing: its content security
policy forbids every request. The same rows give the same bytes.
"""

import base64
import html
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pandas import DataFrame

from spaced_kd.analysis import human_names
from spaced_kd.analysis.claims import text
from spaced_kd.analysis.claims.model import paper_range
from spaced_kd.analysis.claims.rule import EXCLUDED, NOT_RUN, OPPOSITE, SUPPORTED
from spaced_kd.analysis.claims.verdicts import Verdict
from spaced_kd.analysis.tables.headline import CLAIMS, best_of, evidence
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json

TEMPLATE = Path(__file__).with_suffix(".html")
LARGEST = 5 * 1024 * 1024  # bytes
ENDS = {"pp": 8.0, "%": 100.0}  # of the bars' axis on both sides, by unit
WIDTH, HEIGHT = 240, 26  # of a bar, in pixels
CLASSES = {SUPPORTED: "supported", OPPOSITE: "opposite", EXCLUDED: "excluded"}


def page(verdicts: Sequence[Verdict], rows: DataFrame, runs: dict[str, dict[str, Any]], title: str) -> bytes:
    """The page, as UTF-8.

    Args:
        verdicts: of `judge`.
        rows: tidy rows that were judged, ours and the paper's.
        runs: of `descriptions`; runs that it lacks are listed by their ids alone.
        title: what the results are of, e.g. "demo".

    Raises:
        UserError: no comparison has results, the package itables is missing, or the page is too large.
    """
    if all(each.verdict == NOT_RUN for each in verdicts):
        raise UserError(
            f"{title} has no results for any claim: run a study that has both arms of one, such as online_kd with"
            " intervals 0 and 1.5, and collect it"
        )
    verdicts = _ordered(verdicts)
    found = [each for each in verdicts if each.verdict != NOT_RUN]
    lines = [_line(each, rows) for each in found]
    names = human_names.scale_names([each.setting for each in found if each.setting])
    for line, verdict in zip(lines, found, strict=True):
        line["scale"] = names[verdict.setting] if verdict.setting else "all rows of the paper's table"
    lines += [
        _absent(line) for line in text.lines([v for v in verdicts if v.verdict == NOT_RUN], rows).to_dict("records")
    ]
    used = sorted({run for line in lines for arm in line["arms"] for run in arm["runs"]})
    bundle = _bundle()
    parts = {
        "@TITLE@": html.escape(title),
        "@HEADLINE@": _headline(best_of(verdicts)),
        "@SUMMARY@": html.escape(text.tally(verdicts)),
        "@LINES@": _script(lines),
        "@RUNS@": _script({run: runs.get(run, {}) for run in used}),
        "@STYLE@": bundle["css"],
        "@BUNDLE@": base64.b64encode(bundle["js"].encode()).decode(),
    }
    content = TEMPLATE.read_text("utf-8")
    for mark, part in parts.items():
        content = content.replace(mark, part)
    if len(written := content.encode()) > LARGEST:
        raise UserError(f"the page of {title} has {len(written):,} bytes, more than {LARGEST:,}: name fewer rows files")
    return written


def descriptions(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Run -> seed, command, commit, machine and checksum of its weights, from runs.json beside files of rows."""
    found: dict[str, dict[str, Any]] = {}
    for path in (each.with_name("runs.json") for each in paths):
        for run in read_json(path, list) if path.exists() else ():
            if "id" in run:
                found.setdefault(run["id"], _description(run))
    return found


def _description(run: dict[str, Any]) -> dict[str, Any]:
    provenance = run.get("provenance") or {}
    # one command may have trained several runs: the overrides repeat this one
    command = ["spaced-kd", "train", *run["words"]] if "words" in run else provenance.get("command") or []
    return {
        "seed": (run.get("spec") or {}).get("seed", ""),
        "command": " ".join(f"'{word}'" if " " in word else word for word in command),
        "commit": provenance.get("commit", "") + ("-dirty" if provenance.get("dirty") else ""),
        "machine": provenance.get("machine") or provenance.get("accelerator") or provenance.get("processor", ""),
        "checksum": (run.get("outputs") or {}).get("weights.safetensors", ""),
    }


def _ordered(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The headline's claims first, then the others as they come; of each claim the best evidence first."""
    claims = dict.fromkeys([*CLAIMS, *(each.claim.id for each in verdicts)])
    place = {claim: number for number, claim in enumerate(claims)}
    return sorted(verdicts, key=lambda each: (place[each.claim.id], *(-number for number in _evidence(each))))


def _evidence(verdict: Verdict) -> tuple[int, int, int]:
    return evidence(verdict) if verdict.setting else (0, 0, 0)


def _headline(verdicts: Sequence[Verdict]) -> str:
    """A list of the main claims, each in the setting with the best evidence."""
    return f'<ul id="headline">{"".join(map(_item, verdicts))}</ul>' if verdicts else ""


def _item(verdict: Verdict) -> str:
    claim, kind = verdict.claim, CLASSES.get(verdict.verdict, "open")
    ours = f"{verdict.mean:+.2f} {claim.unit}" if verdict.mean is not None else "no finite difference"
    interval = f" {text.interval(verdict.interval, claim.unit)}" if verdict.interval else ""
    assert verdict.setting, claim.id  # as `best_of` compares runs of one setting
    setting = f"{human_names.scale_name(verdict.setting)}; reading {human_names.reading_name(verdict.setting.reading)}"
    word, sentence, where = map(html.escape, (text.word(verdict), claim.sentence, setting))
    return (
        f'<li><span class="verdict {kind}">{word}</span> {sentence}: {ours}{interval}, {verdict.seeds} seeds'
        f"<small>{where}</small></li>"
    )


def _line(verdict: Verdict, rows: DataFrame) -> dict[str, Any]:
    """The page's data of a verdict; identifiers are for the CSV file."""
    claim, setting = verdict.claim, verdict.setting
    shown = text.lines([verdict], rows).to_dict("records")[0]
    ids = setting._asdict() if setting else dict.fromkeys(("dataset", "network", "teacher", "recipe", "shared"), "")
    names = [arm.name for arm in (claim.after, claim.before) if arm] + [arm.name for arm in claim.less or ()]
    low, high = verdict.interval or (None, None)
    return {
        "claim": claim.sentence,
        "place": claim.place,
        "main": claim.main,
        "rule": f"{claim.kind.replace('_', ' ')}, margin {claim.margin:g} {claim.unit}",
        "dataset": human_names.family_name(ids["dataset"]) if setting else "all",
        "network": human_names.family_name(ids["network"]) if setting else "all",
        "reading": human_names.reading_name(setting.reading) if setting else "all",
        "recipe": human_names.recipe_name(setting) if setting else "",
        "own": verdict.own,
        "verdict": shown["verdict"],
        "word": verdict.verdict,
        "kind": CLASSES.get(verdict.verdict, "open"),
        "paper": shown["paper"],
        "ours": shown["ours"],
        "mean": verdict.mean,
        "low": low,
        "high": high,
        "unit": claim.unit,
        "n": verdict.seeds,
        "interval": shown["adjusted 95 %"],
        "raw": shown["raw 95 %"],
        "p": shown["p"],
        "endpoint": shown["endpoint"],
        "remark": shown["remark"],
        "bar": bar(verdict, paper_range(claim, rows)),
        "arms": [{"name": name, "runs": list(each)} for name, each in zip(names, verdict.runs, strict=False)],
        "ids": {"claim_id": claim.id, **ids},
    }


def _absent(line: dict[str, str]) -> dict[str, Any]:
    """The page's data of rows of the paper without runs."""
    empty = dict.fromkeys(("dataset", "network", "reading", "recipe", "ours", "interval", "raw", "p", "endpoint"), "–")
    sentence, _, rule = line["claim"].rpartition(" (")
    return empty | {
        **{"claim": sentence, "rule": rule.removesuffix(")"), "place": line["place"], "main": False, "own": True},
        **{"scale": line["setting"], "verdict": NOT_RUN, "word": NOT_RUN, "kind": "open", "paper": line["paper"]},
        **{
            "mean": None,
            "low": None,
            "high": None,
            "unit": "",
            "n": 0,
            "remark": line["remark"],
            "bar": "",
            "arms": [],
        },
        **{"recipe": "", "ids": dict.fromkeys(("claim_id", "dataset", "network", "teacher", "recipe", "shared"), "")},
    }


def bar(verdict: Verdict, paper: Sequence[float] = ()) -> str:
    """An interval as SVG: the paper's range grey, a line at 0, ours as a point with its adjusted interval.

    An arrow marks an interval that continues beyond the axis. Points of inconclusive verdicts are open.
    """
    if verdict.mean is None:
        return ""
    unit = verdict.claim.unit
    end, middle = ENDS[unit], HEIGHT / 2

    def x(value: float) -> float:
        return round(6 + (WIDTH - 12) * (min(max(value, -end), end) + end) / (2 * end), 1)

    label = f"{text.endpoint(verdict)}; ours {verdict.mean:+.2f} {unit}"
    drawn = []
    if paper:
        left, right = x(min(paper)), x(max(paper))
        drawn.append(f'<rect x="{left}" y="3" width="{max(right - left, 2):.1f}" height="{HEIGHT - 6}" class="paper"/>')
        label += f"; the paper {min(paper):+.2f} to {max(paper):+.2f}"
    drawn.append(f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}" class="zero"/>')
    if verdict.interval:
        low, high = verdict.interval
        label += f"; {text.interval(verdict.interval, unit)}"
        drawn.append(f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" class="interval"/>')
        for value, way in ((low, -1), (high, 1)):
            position = x(value)
            if value * way > end:
                points = f"{position},{middle - 5} {position + 6 * way},{middle} {position},{middle + 5}"
                drawn.append(f'<polygon points="{points}"/>')
            else:
                drawn.append(
                    f'<line x1="{position}" x2="{position}" y1="{middle - 4}" y2="{middle + 4}" class="interval"/>'
                )
    drawn.append(f'<circle cx="{x(verdict.mean)}" cy="{middle}" r="4.5"/>')
    label = html.escape(label)
    kind = CLASSES.get(verdict.verdict, "open")
    head = f'<svg class="bar {kind}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return f"{head}<title>{label}</title>{''.join(drawn)}</svg>"


def _script(content: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, allow_nan=False).replace("<", "\\u003c")


def _bundle() -> dict[str, str]:
    """Code and style of DataTables, found without importing the package."""
    spec = find_spec("itables")
    if spec is None:
        raise UserError("the results page needs the package itables, which is not installed: pip install itables")
    folder = Path(spec.submodule_search_locations[0]) / "html"
    return {kind: (folder / f"dt_bundle.{kind}").read_text("utf-8") for kind in ("js", "css")}
