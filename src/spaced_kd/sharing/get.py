"""Adds shared runs to the results, after checking all checksums; studies count them as finished. Needs no torch."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

from spaced_kd.config import sources as run_sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, compare, from_overrides
from spaced_kd.sharing import checksums, sources
from spaced_kd.training.run_folder import OUTPUTS
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import altered, damaged, read_json

LIMIT = 4_000_000_000  # bytes, unless the user allows more


class Got(NamedTuple):
    """Ids of runs."""

    new: list[str]
    known: list[str]  # there already, with the same weights and predictions


def get(source: str, results: Path, *, limit: int = LIMIT) -> Got:
    """Check shared runs and add them to `results`/runs, all of them or none.

    Args:
        source: what `spaced-kd share` wrote, here or at an address: a run's folder, a folder of them, a zip archive.
        results: folder of all results.
        limit: bytes that may be downloaded, and that an archive may have unpacked.

    Raises:
        UserError: a file is not the one that was shared, a description is invalid, or another run of that id exists.
    """
    paths, got = ResultPaths(results), Got([], [])
    there = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    with tempfile.TemporaryDirectory(prefix=".get-", dir=there) as name:  # where a rename moves the runs from
        scratch = Path(name)
        found = shared_runs(sources.bring(source, scratch, limit))
        if not found:
            raise UserError(f"{source} has no shared run: name a folder that `spaced-kd share` wrote, or one of them")
        copies = {}
        for folder in found:
            spec, copy = _copied(folder, scratch)
            copies[spec.id] = copy
            _known_or_new(spec, copy, paths, got)
        results.joinpath("runs").mkdir(parents=True, exist_ok=True)
        for run in got.new:
            copies[run].rename(results / "runs" / run)
    return got


def shared_runs(folder: Path) -> list[Path]:
    """Folders of runs in a folder, or the folder itself."""
    paths = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    return [path for path in paths if (path / "run.json").is_file()]


def checked(folder: Path) -> RunSpec:
    """The run of a shared folder, after checking its checksums and description; UserError names a wrong file."""
    names = checksums.check(folder)
    if lacking := {"run.json", "config.json", "README.md", *OUTPUTS} - {*names}:
        raise UserError(f"{folder} lacks {min(lacking)}: share the run again")
    described = read_json(folder / "run.json", dict)
    overrides, outputs = described.get("words"), described.get("outputs")
    if not isinstance(overrides, list) or not isinstance(described.get("spec"), dict) or not isinstance(outputs, dict):
        raise damaged(folder / "run.json", "it does not say what was trained")
    spec = from_overrides(overrides)
    compare(spec, described["spec"], folder)
    if spec.id != described.get("id"):
        raise UserError(f"{folder / 'run.json'} has the id {described.get('id')}, but describes {spec.id}")
    wrong = [*altered(folder, outputs), *(name for name in OUTPUTS if name not in outputs)]
    if wrong:
        raise UserError(f"{folder / wrong[0]} is not what the run wrote, by its checksum in run.json: get it again")
    if changed := run_sources.changes(spec, described):
        warnings.warn(
            f"{spec.id} was trained before {' and '.join(changed)} changed: a study refuses it until"
            f' `spaced-kd accept --reason "..." {spec.id}`',
            stacklevel=2,
        )
    return spec


def _copied(source: Path, scratch: Path) -> tuple[RunSpec, Path]:
    """A run's listed files copied, and the copy checked."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for name in (*checksums.read(source / checksums.NAME), checksums.NAME):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_file() and not (source / name).is_symlink():
            shutil.copyfile(source / name, folder / name)
    folder.chmod(0o755)
    try:
        return checked(folder), folder
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(source))) from None


def _known_or_new(spec: RunSpec, folder: Path, paths: ResultPaths, got: Got) -> None:
    """Add a run to the new or to the known ones; UserError if another run has its folder."""
    there = paths.run(spec)
    if not there.exists():
        got.new.append(spec.id)
        return
    try:
        own = read_json(there / "run.json", dict).get("outputs")
    except UserError:
        own = None
    if not own or own != read_json(folder / "run.json", dict)["outputs"] or altered(there, own):
        raise UserError(f"{there} exists and is not this run to the bit: move it away, or name another --results")
    got.known.append(spec.id)
