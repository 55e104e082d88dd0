"""What artifact reviewers get: a page that is made from claims and recorded runs, and one archive of a commit."""

import zipfile
from pathlib import Path

import pytest
from test_provenance import git, repository

from scripts import archive, artifact
from spaced_kd.training import code_commit


@pytest.mark.slow
def test_the_page_is_made_from_claims_and_recorded_runs():
    assert artifact.TARGET.read_text("utf-8") == artifact.artifact(), "make artifact"


def test_a_claim_on_trained_images_names_the_studies_that_have_its_runs():
    lines = [line for line in artifact.TARGET.read_text("utf-8").splitlines() if "`spaced-kd theory`" in line]
    assert lines
    assert all("; tanh network, " in line for line in lines)
    pooled = next(
        line for line in artifact.TARGET.read_text("utf-8").splitlines() if "Spaced KD beats online KD" in line
    )
    assert "config/studies/mini_80.yaml`, `snakemake" in pooled
    assert "config/studies/mini_80_more.yaml`" in pooled


@pytest.fixture
def tree(tmp_path) -> Path:
    """A repository with all that the archive needs."""
    package = "src/spaced_kd/training/code_commit.py"
    names = ("LICENSE", "CITATION.cff", "ARTIFACT.md", "README.md", "results/recorded/demo/rows.csv", "docs/data/a.md")
    repository(tmp_path / "tree", *names, package, "results/recorded/demo/runs.json")
    return tmp_path / "tree"


def test_the_archive_has_the_commit_and_its_files(tree, tmp_path, monkeypatch):
    path = archive.archive(tree, tmp_path / "dist" / "artifact")
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / "artifact"
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert found == {*git(tree, "ls-files").split("\n"), f"src/spaced_kd/{code_commit.BUILT}"}
    monkeypatch.setattr(code_commit, "__file__", str(folder / "src/spaced_kd/training/code_commit.py"))
    monkeypatch.delenv("SPACED_KD_COMMIT", raising=False)
    assert code_commit.commit() == (git(tree, "rev-parse", "HEAD"), False)


def test_an_archive_of_something_else_is_refused(tree, tmp_path, monkeypatch):
    target = tmp_path / "dist" / "artifact"
    monkeypatch.setattr(archive, "LARGEST", 1)
    with pytest.raises(SystemExit, match="has more than 0 MB: record fewer rows"):
        archive.archive(tree, target)
    (tree / "README.md").write_text("changed")
    with pytest.raises(SystemExit, match=r"^README\.md is not as committed"):
        archive.archive(tree, target)
    git(tree, "checkout", "README.md")
    git(tree, "rm", "-q", "CITATION.cff")
    git(tree, "commit", "-qm", "second")
    with pytest.raises(SystemExit, match=r"^CITATION\.cff is not in the repository"):
        archive.archive(tree, target)
    assert not list(target.parent.glob("*.zip"))
