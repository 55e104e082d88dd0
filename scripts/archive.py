"""Writes one zip of code, rows, provenance and licences from the current commit: python -m scripts.archive."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import spaced_kd
from scripts.readme import ROOT
from spaced_kd.training import code_commit

NEEDED = ("LICENSE", "CITATION.cff", "ARTIFACT.md", "README.md", "results/recorded", "docs/data")
LARGEST = 50 * 10**6  # bytes


def archive(root: Path, target: Path) -> Path:
    """Write the files of a repository's commit as `target`.zip, in one folder, the commit stamped into the package.

    The stamp makes runs of the unpacked code name the commit. Ends the program in one line where files differ from the
    commit, one of NEEDED is not in it, or the archive is larger than LARGEST.
    """
    git = ["git", "-C", str(root)]
    if told := subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout:
        sys.exit(f"{told.splitlines()[0][3:]} is not as committed: commit it, or move it away")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    if absent := [name for name in NEEDED if not (root / name).exists()]:
        sys.exit(f"{absent[0]} is not in the repository: write it first (`make artifact`)")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, target.name)
        folder.mkdir()
        whole = subprocess.run([*git, "archive", "HEAD"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=whole, check=True)
        code_commit.stamp(folder / "src" / "spaced_kd", commit, dirty=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        path = Path(shutil.make_archive(str(target), "zip", made, target.name))
    if path.stat().st_size > LARGEST:
        path.unlink()
        sys.exit(f"{path} has more than {LARGEST / 1e6:.0f} MB: record fewer rows")
    return path


if __name__ == "__main__":
    path = archive(ROOT, ROOT / "dist" / f"spaced-kd-{spaced_kd.__version__}-artifact")
    print(f"wrote {path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")
