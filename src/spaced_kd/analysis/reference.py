"""The paper's numbers, read from their file and checked."""

from pathlib import Path

from pandas import DataFrame

from spaced_kd.analysis.tidy_rows import join, read_csv
from spaced_kd.config import registry
from spaced_kd.utils.errors import UserError

CELL = ("dataset", "network", "teacher", "method", "interval", "corruption", "severity")  # of a table of the paper
CONSTANT_LEAD = "constant_lead"  # a method in the file of the paper's numbers; here a setting of online KD


def read_reference(path: Path) -> DataFrame:
    """The paper's numbers, in percent and percentage points; a metric `delta...` is a difference that the paper states.

    Source: the text of arXiv 2502.06192 as submitted, read by OCR; `note` says where a cell was doubtful. Tab. 3, 4, 5
    and 7 are images there, and have no rows.

    Raises:
        UserError: there is no such file; a row whose cell does not exist, or a second one for a cell.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: start in the repository's folder, or name it with --reference")
    rows = join(read_csv(path, ("table", "metric", "value", *CELL)))
    _check_reference(rows, path)
    evaluation = rows["corruption"].map(lambda name: {"": "accuracy", "bim": "bim"}.get(name, "corruptions"))
    rows = rows.replace({"method": {CONSTANT_LEAD: "online_kd[lead=constant]"}})
    return rows.assign(source="paper", evaluation=evaluation, corruption=rows["corruption"].replace("bim", ""))


def _check_reference(rows: DataFrame, path: Path) -> None:
    """Each row is the one number of a cell that exists; whether a table has its column is for the table to say."""
    known = {
        "table": ["text", *registry.names("tables")],
        "dataset": ["", *registry.names("datasets")],
        "network": ["", *registry.names("networks")],
        "teacher": ["", *registry.names("networks")],
        "method": ["", CONSTANT_LEAD, *registry.names("methods")],
        "corruption": ["", "bim", *registry.defaults("evaluations", "corruptions")["names"]],
    }
    for column, names in known.items():
        if unknown := sorted(set(rows[column]) - set(names)):
            raise UserError(
                f"{path}: {column} {unknown[0]!r} does not exist: there is {', '.join(filter(None, names))}"
            )
    cells = rows[["table", "metric", *CELL]]
    if (twice := cells.duplicated()).any():
        cell = ", ".join(str(value) for value in cells[twice].iloc[0] if value == value and value != "")
        raise UserError(f"{path}: two numbers for one cell, {cell}: leave one of them out")
