"""Files that are said to have rows: what has none is refused by name, and never reads as "not run"."""

from pathlib import Path

import pytest

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.cli import main as cli
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "results" / "recorded" / "tiny_cpu" / "rows.csv"
REFERENCE = ROOT / "src/spaced_kd/config/preset_files/reference.csv"


def change(number: int, make):
    """Alters one line of a text."""
    return lambda text: "\n".join(make(line) if i == number else line for i, line in enumerate(text.split("\n")))


WRONG = {  # text -> text, complaint
    "semicolons": (lambda text: text.replace(",", ";"), "has no column source, with commas between columns"),
    "tabs": (lambda text: text.replace(",", "\t"), "has no column source"),
    "no column of values": (change(0, lambda line: line.replace(",value,", ",worth,")), "has no column value"),
    "another table": (lambda text: "network,accuracy\nresnet18,76.2\n", "has no column source"),
    "a field too many": (change(3, lambda line: f"{line},5"), "is not a table of rows"),
    "a line cut off": (change(3, lambda line: line[:200]), "line 4 has the value nan, which is not a number"),
    "a file cut off": (lambda text: text[:5000], "line 15 has the value nan"),
    "a value in words": (change(3, lambda line: line.replace(",accuracy,accuracy,", ",accuracy,accuracy,x")), "line 4"),
    "nothing": (lambda text: "", "is not a table of rows"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_without_rows_is_refused_by_name(tmp_path, capsys, kind):
    make, complaint = WRONG[kind]
    path = tmp_path / "rows.csv"
    path.write_text(make(RECORDED.read_text("utf-8")), "utf-8")
    with pytest.raises(UserError) as caught:
        tidy_rows.read(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)
    assert cli.main(["claims", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_papers_numbers_are_checked_alike(tmp_path):
    path = tmp_path / "reference.csv"
    path.write_text(REFERENCE.read_text("utf-8").replace(",", ";"), "utf-8")
    with pytest.raises(UserError, match="has no column table"):
        reference.read_reference(path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/recorded/*/rows.csv")), ids=lambda path: path.parent.name)
def test_all_that_is_recorded_is_rows(path):
    assert len(tidy_rows.read(path))
