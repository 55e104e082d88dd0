"""Files written atomically, and their checksums."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from spaced_kd.utils.errors import UserError


def write_safely(path: Path, content: bytes) -> None:
    """Write a file atomically: temporary file, flush to disk, rename, flush the folder."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room, or name another folder") from None


def sweep(folder: Path) -> None:
    """Remove half-written files of killed processes from a folder that only this process uses."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def read_json(path: Path, kind: type) -> Any:
    """Content of a JSON file, an object of `kind`; UserError if it is damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(content, kind):
        raise damaged(path, f"a {kind.__name__} was expected")
    return content


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file with invalid content."""
    return UserError(f"{path} is damaged ({reason}): delete it and make it again")


def altered(folder: Path, checksums: dict[str, str]) -> list[str]:
    """Names of the files in a folder that are missing or have another sha256."""
    return [name for name, sha in checksums.items() if not (folder / name).is_file() or sha256(folder / name) != sha]


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_digest(rows: list[dict[str, Any]]) -> str:
    """Checksum of an evaluation's rows, whatever their layout in a file."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
