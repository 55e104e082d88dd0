"""Writes finished runs as folders for a model hub: weights, predictions, description, card and checksums."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.loading import load_data
from spaced_kd.sharing import card, checksums
from spaced_kd.training.run_folder import OUTPUTS, finished, read_spec
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely

ARCHIVE = ".zip"
DATE = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same files give the same archive


def share(runs: Sequence[str], to: Path, results: Path, *, licence: str = card.LICENCE) -> None:
    """Write a folder for each run into a new folder, or into a new zip archive if its name ends in .zip.

    Args:
        runs: ids of finished runs, or their folders.
        to: the new folder or archive.
        results: folder of all results, with the prepared data of the runs.
        licence: identifier of the licence under which the weights are shared.

    Raises:
        UserError: `to` exists, a run is not finished, a file is not the one that it wrote, or its data are missing;
            nothing is written then.
    """
    if to.exists() or to.is_symlink():
        raise UserError(f"{to} exists: name a new folder")
    if not to.absolute().parent.is_dir():
        raise UserError(f"{to.parent} is not a folder: create it first")
    specs = [read_spec(run, results) for run in dict.fromkeys(runs)]
    with tempfile.TemporaryDirectory(prefix=".spaced-kd-", dir=to.absolute().parent) as scratch:
        made = Path(scratch) / "shared"
        for spec in specs:
            write(spec, made / spec.id, results, licence=licence)
        if to.suffix == ARCHIVE:
            made = pack(made, Path(scratch) / "shared.zip")
        made.rename(to)


def write(spec: RunSpec, folder: Path, results: Path, *, licence: str = card.LICENCE) -> None:
    """Write the folder of one run; its name is the run's id."""
    paths = ResultPaths(results)
    source = paths.run(spec)
    if not finished(spec, paths):
        raise UserError(f"{source} is not finished, or not as the run wrote it: `spaced-kd verify` names the file")
    described = read_json(source / "run.json", dict)
    data = load_data(spec, paths)
    if data.checksum != described["provenance"].get("data_sha256"):
        raise UserError(f"{source} was trained on other data than {data.path}: prepare its own data again")
    folder.mkdir(parents=True)
    for path in [source / "run.json", *(source / name for name in OUTPUTS), *sorted(source.glob("evaluations/*.*"))]:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    config = {
        "words": described["words"],
        "classes": data.classes,
        "image_size": data.image_size,
        "mean": data.mean,
        "std": data.std,
        "data_sha256": data.checksum,
    }
    write_safely(folder / "config.json", json.dumps(config, indent=1).encode())
    text = card.card(spec, described, read_json(source / "rows.json", list), len(data.labels["test"]), licence)
    write_safely(folder / "README.md", text.encode())
    checksums.write(folder)


def pack(folder: Path, archive: Path) -> Path:
    """Pack the files of a folder into a zip archive, whose bytes depend on the files alone."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), DATE)
            info.external_attr = 0o644 << 16
            file.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive
