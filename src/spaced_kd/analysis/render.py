"""Tables and figures as files: CSV, Markdown, LaTeX and HTML; PDF and PNG. The same rows give the same bytes."""

import html
import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis import human_names, latex
from spaced_kd.analysis.cells import NOTHING, texts, with_numbers
from spaced_kd.analysis.layout import NOT_RUN
from spaced_kd.analysis.queries import MissingRunsError
from spaced_kd.config import registry, shipped
from spaced_kd.config.study import experiment_of
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import write_safely

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 40  # characters of a cell that may be broken into several lines
VERDICTS = {"supported": "supported", "opposite shown": "opposite"}  # cells that have a colour, and its class
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{name}</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 1.5em; color: #222; }}
table {{ border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }}
th, td {{ padding: 0.25em 0.8em; text-align: left; white-space: nowrap; }}
thead th {{ border-bottom: 1px solid; }}
tbody tr:nth-child(even) {{ background: #f4f4f4; }}
td.again {{ color: #6b6b6b; }}
td.long {{ white-space: normal; min-width: 16em; }}
td.supported {{ color: #00664a; font-weight: bold; }}
td.opposite {{ color: #a03a00; font-weight: bold; }}
caption {{ text-align: left; max-width: 60em; padding-bottom: 0.8em; }}
summary {{ cursor: pointer; padding: 0.6em 0; }}
p {{ max-width: 60em; margin: 0.3em 0; font-size: 90%; }}
</style>
</head>
<body>
{table}
{notes}
</body>
</html>
"""


def render(name: str, rows: DataFrame, folder: Path, images: dict[str, np.ndarray] | None = None) -> list[Path]:
    """Draw one table or figure into `folder`/tables or `folder`/figures; the paths written.

    Args:
        name: of a table or figure, as `tab01`.
        rows: tidy rows, ours and the paper's.
        folder: of the study's results.
        images: example images for the figures that show some.
    """
    kind = next((kind for kind in ("tables", "figures") if name in registry.names(kind)), None)
    if kind is None:
        known = ", ".join(registry.names("tables") + registry.names("figures"))
        raise UserError(f"{name!r} is none of the tables and figures: {known}")
    draw = registry.find(kind, name)
    given = [rows]
    if "images" in inspect.signature(draw).parameters:
        if images is None:
            raise UserError(
                f"{name} shows images, but none are given: name with --images the file that `spaced-kd prepare"
                " dataset=... --corrupt N` makes"
            )
        given.append(images)
    try:
        drawn = draw(*given)
    except MissingRunsError as error:
        raise UserError(f"{error}; {remedy(name)}") from None
    contents = table_files(name, caption(name), drawn) if kind == "tables" else figure_files(drawn)
    paths = {ending: folder / kind / f"{name}.{ending}" for ending in contents}
    for ending, content in contents.items():
        write_safely(paths[ending], content)
    return list(paths.values())


def remedy(name: str) -> str:
    """Which experiment makes a table or figure, in words."""
    for kind in ("tables", "figures"):
        if path := experiment_of(kind, name):
            if shipped.INSTALLED:
                return f"`spaced-kd init {path.stem} --from {path.stem}`, then `snakemake {name}` there"
            return f"`snakemake {name} --configfile {path.relative_to(path.parents[2])}` makes it"
    return f"`snakemake {name}` makes it from the demo"


def caption(name: str) -> str:
    """Caption of a table or figure: its module's docstring on one line."""
    kind = "tables" if name in registry.names("tables") else "figures"
    return " ".join(registry.plugin(kind, name).docstring.split())


def table_files(name: str, caption: str, table: DataFrame) -> dict[str, bytes]:
    """A table in each format, by file ending; notes stand below it, in CSV in a column of their own.

    CSV keeps the labels of datasets, networks, methods and recipes, and has the numbers of cells beside their text; the
    other formats have names and text alone.
    """
    notes, numbers = table.attrs.get("notes", []), with_numbers(table)
    table = texts(table)
    below = [f"{mark} {text}".strip() for mark, text in notes]
    named = human_names.of_table(table)
    markdown = named.map(_markdown).rename(columns=_markdown).to_markdown(index=False, disable_numparse=True)
    paragraphs = "\n".join(f"<p>{html.escape(note)}</p>" for note in below)
    formats = {
        "csv": _noted(numbers, table, notes).to_csv(index=False, lineterminator="\n"),
        "md": "\n\n".join([caption, markdown, *below]) + "\n",
        "tex": latex.table(name, caption, named, below),
        "html": PAGE.format(name=html.escape(name), table=_html(caption, named), notes=paragraphs),
    }
    return {ending: text.encode() for ending, text in formats.items()}


def figure_files(drawing: "Figure") -> dict[str, bytes]:
    """A figure in each format, by file ending, without dates."""
    import matplotlib  # costs a second, which a table need not pay

    from spaced_kd.analysis import plotting

    contents = {}
    for ending, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(plotting.RC):
            drawing.savefig(buffer, format=ending, metadata=metadata)
        contents[ending] = buffer.getvalue()
    return contents


def _noted(numbers: DataFrame, table: DataFrame, notes: list[tuple[str, str]]) -> DataFrame:
    """Numbers of a table with a column that spells out the marks of each line."""
    if not any(mark for mark, _ in notes):
        return numbers
    lines = [
        "; ".join(f"{mark} {text}" for mark, text in notes if mark and any(mark in cell for cell in line))
        for line in table.itertuples(index=False, name=None)
    ]
    return numbers.assign(notes=lines)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|")


def _html(caption: str, table: DataFrame) -> str:
    """A table in HTML; lines of the paper that are not run are folded below it."""
    absent = _not_run(table)
    if not absent.any() or absent.all():
        return _html_table(table, caption)
    folded = f"<details>\n<summary>{absent.sum()} lines of what is not run</summary>\n"
    return f"{_html_table(table[~absent], caption)}\n{folded}{_html_table(table[absent])}\n</details>"


def _not_run(table: DataFrame) -> Series:
    """Whether a line is of what the study has no run of: by its verdict, or by our line of its dataset and network."""
    if "verdict" in table:
        return table["verdict"] == NOT_RUN
    if "source" not in table:
        return Series(False, table.index)
    keys = list(table)[: list(table).index("source")]
    cells = table[list(table)[len(keys) + 1 :]]
    has_runs = (table["source"] == "ours") & ~cells.isin([NOT_RUN, NOTHING]).all(axis=1)
    return ~has_runs.groupby([table[key] for key in keys]).transform("any")


def _html_table(table: DataFrame, caption: str = "") -> str:
    """One table, in which what begins a line as it began the one above is grey."""
    above: tuple[str, ...] = ("",) * table.shape[1]
    lines = ["".join(f'<th scope="col">{html.escape(column)}</th>' for column in table)]
    for line in table.itertuples(index=False, name=None):
        same = [*(one == other for one, other in zip(line, above, strict=True)), False].index(False)
        lines.append("".join(_html_cell(text, again=position < same) for position, text in enumerate(line)))
        above = line
    head, *body = (f"<tr>{line}</tr>\n" for line in lines)
    caption_tag = f"<caption>{html.escape(caption)}</caption>\n" if caption else ""
    return f"<table>\n{caption_tag}<thead>{head}</thead>\n<tbody>{''.join(body)}</tbody>\n</table>"


def _html_cell(text: str, *, again: bool) -> str:
    kinds = [
        *(["again"] if again else []),
        *(["long"] if len(text) > LONG else []),
        *([VERDICTS[text]] if text in VERDICTS else []),
    ]
    return f'<td class="{" ".join(kinds)}">{html.escape(text)}</td>' if kinds else f"<td>{html.escape(text)}</td>"
