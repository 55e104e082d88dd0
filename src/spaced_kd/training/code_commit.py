"""The commit of this package's code, from git or from the stamp of a wheel.

`setup.py` asks it while a wheel is built, where no other package is installed: it imports the standard library alone.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path

BUILT = "built.json"  # commit and digest of a wheel, in the package's folder


def commit() -> tuple[str, bool | None]:
    """Commit of the code, and whether files differ from it or are new; ("unknown", None) if no commit is known.

    A commit counts only if it contains files of this package at this path: a package that was copied into another
    repository does not belong to its commits. A wheel contains the commit that it was built from and a digest of its
    files. For files that were copied without either, the variable SPACED_KD_COMMIT gives the commit, unverified.
    """
    given, package = os.environ.get("SPACED_KD_COMMIT"), package_folder()
    try:
        head = _git(package, "rev-parse", "HEAD")
        known = _blobs(package)
    except (OSError, subprocess.CalledProcessError):
        return _built(package, given)
    if not known:
        return _built(package, given)
    if given not in (None, head):
        return given, None
    workflow = package.parents[1] / "workflow"
    there = package.parent.name == "src" and workflow.is_dir()
    return head, _differs(package, known) or (there and _differs(workflow, _blobs(workflow)))


def stamp(package: Path, commit: str, dirty: bool) -> None:
    """Write into a copy of the package the commit that it is made from, and the digest of its files."""
    (package / BUILT).write_text(json.dumps({"commit": commit, "dirty": dirty, "sha256": _digest(package)}), "utf-8")


def package_folder() -> Path:
    """Folder of this package."""
    return Path(__file__).resolve().parents[1]


def _built(package: Path, given: str | None) -> tuple[str, bool | None]:
    """What `stamp` has written, with `given`, the user's word, where there is no stamp or it has another commit."""
    try:
        stamped = json.loads((package / BUILT).read_text("utf-8"))
        head, dirty, digest = stamped["commit"], stamped["dirty"], stamped["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return given or "unknown", None
    if given not in (None, head):
        return given, None
    return head, dirty or digest != _digest(package)


def _digest(package: Path) -> str:
    """SHA-256 over the paths and contents of a package's code."""
    paths = {str(path.relative_to(package)): path for path in package.rglob("*") if path.is_file() and _counts(path)}
    lines = (f"{hashlib.sha256(paths[name].read_bytes()).hexdigest()} {name}\n" for name in sorted(paths))
    return hashlib.sha256("".join(line for line in lines if not line.endswith(f" {BUILT}\n")).encode()).hexdigest()


def _blobs(folder: Path) -> dict[str, str]:
    """Path below a folder -> git's hash, for each file of HEAD."""
    lines = _git(folder, "ls-tree", "-r", "-z", "HEAD", ".").split("\0")
    found = [line.partition("\t") for line in lines if line]
    return {path: about.split()[2] for about, _, path in found}


def _differs(folder: Path, known: dict[str, str]) -> bool:
    """Whether the files of a folder differ from `known`; files that git ignores count, too."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and _counts(path)}
    return paths.keys() != known.keys() or any(_hash(paths[name], sha) != sha for name, sha in known.items())


def _counts(path: Path) -> bool:
    """Whether a file is code, and not a cache or an editor's backup."""
    return "__pycache__" not in path.parts and not path.name.startswith(".") and not path.name.endswith("~")


def _hash(path: Path, like: str) -> str:
    """Git's hash of a file, by the algorithm of another hash, `like`."""
    content = path.read_bytes()
    return hashlib.new("sha1" if len(like) == 40 else "sha256", b"blob %d\0%b" % (len(content), content)).hexdigest()


def _git(folder: Path, *words: str) -> str:
    """Output of a git command in the repository of a folder, whoever owns it; git takes no locks and runs no hooks."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", folder, *words]
    done = subprocess.run(command, capture_output=True, check=True, env=own | {"GIT_OPTIONAL_LOCKS": "0"})
    return os.fsdecode(done.stdout).strip()
