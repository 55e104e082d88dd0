"""SHA256SUMS: the checksum of every file of a folder, in the format that `sha256sum --check` reads."""

import re
from pathlib import Path

from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import sha256, write_safely

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ((?:[\w][\w.+-]*/)*[\w][\w.+-]*)")  # below the folder, no hidden file


def write(folder: Path) -> None:
    """Write the checksums of all files below a folder."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = [f"{sha256(paths[name])}  {name}\n" for name in sorted(paths) if name != NAME]
    write_safely(folder / NAME, "".join(lines).encode())


def read(path: Path) -> dict[str, str]:
    """File below the folder -> its checksum; UserError for another kind of file, or a name outside the folder."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        raise UserError(f"{path.parent} has no {NAME}: `spaced-kd share` writes one; name such a folder") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not (match := LINE.fullmatch(line)):
            raise UserError(f"{path}: line {number} is not a checksum and a file below the folder: get it again")
        found[match[2]] = match[1]
    return found


def check(folder: Path) -> list[str]:
    """Names of the files that have checksums; UserError for one that is missing, a link, or has another checksum."""
    sums = read(folder / NAME)
    for name, sha in sums.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing, but {NAME} lists it: get the folder again")
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link, but a shared folder contains files only: get it again")
        if sha256(path) != sha:
            raise UserError(f"{path} is not the file that was shared, by its checksum in {NAME}: get it again")
    return list(sums)
