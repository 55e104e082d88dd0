"""Fetches a shared folder from a folder, a zip archive, or an address of either; at most a given number of bytes."""

import http.client
import shutil
import stat
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from spaced_kd.sharing import checksums
from spaced_kd.utils.errors import UserError

SCHEMES = ("http", "https", "file")
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20  # bytes
PAGES = (b"<!doctype html", b"<html")
NOWHERE = "name the address of a .zip archive, or of the folder in which `spaced-kd share` wrote SHA256SUMS"


def bring(source: str, into: Path, limit: int) -> Path:
    """The folder that `source` names; it is written below `into` unless it is a folder on this disk.

    Args:
        source: a folder, a zip archive, or an address (http, https, file) of an archive or of a shared run's folder.
        into: an empty folder.
        limit: bytes that may be downloaded, and that an archive may have unpacked.

    Raises:
        UserError: it does not exist, is a page instead of a file, is too large, or has names outside the archive.
    """
    if urlsplit(source).scheme in SCHEMES:
        if not urlsplit(source).path.endswith(".zip"):
            return _folder_at(source.rstrip("/"), into / "downloaded", limit)
        archive = into / "downloaded.zip"
        _download(source, archive, limit)
    else:
        archive = Path(source)
        if archive.is_dir():
            return archive
        if not archive.exists():
            raise UserError(f"{source} does not exist: name a folder, a zip archive or an address of one")
    return _unpacked(archive, into / "unpacked", limit, source)


def _folder_at(address: str, folder: Path, limit: int) -> Path:
    """Download the files that an address's list of checksums names."""
    folder.mkdir()
    left = limit - _download(f"{address}/{checksums.NAME}", folder / checksums.NAME, limit)
    for name in checksums.read(folder / checksums.NAME):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        left -= _download(f"{address}/{quote(name)}", folder / name, left, limit)
    return folder


def _download(address: str, target: Path, left: int, limit: int | None = None) -> int:
    """Download an address into a file; returns the number of bytes."""
    count, first = 0, b""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, target.open("wb") as file:
            while chunk := answer.read(CHUNK):
                first = first or chunk[:200].lstrip().lower()
                count += len(chunk)
                if first.startswith(PAGES):
                    raise UserError(f"{address} gives an HTML page, not a file: name the file's own address")
                if count > left:
                    raise _too_much(address, limit or left)
                file.write(chunk)
            if (promised := answer.headers.get("Content-Length")) and int(promised) != count:
                raise ConnectionError(f"broke off after {count} of {promised} bytes")
    except (OSError, http.client.HTTPException, ValueError) as error:
        remedy = NOWHERE if getattr(error, "code", None) in (404, 410) else "try again later"
        raise UserError(f"{address} cannot be downloaded ({error or type(error).__name__}): {remedy}") from None
    return count


def _unpacked(archive: Path, folder: Path, limit: int, source: str) -> Path:
    """Unpack an archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            if sum(info.file_size for info in file.infolist()) > limit:
                raise _too_much(source, limit)
            for info in file.infolist():
                path = Path(info.filename)
                if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(info.external_attr >> 16):
                    raise UserError(f"{source} holds {info.filename}, which leads out of it: do not trust it")
                if info.is_dir():
                    continue
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as packed, target.open("xb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except zipfile.BadZipFile as error:
        raise UserError(f"{source} is not a whole zip archive ({error}): get it again") from None
    except (FileExistsError, NotADirectoryError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{source} cannot be unpacked ({error}): pack it anew, without encryption") from None
    return folder


def _too_much(source: str, limit: int) -> UserError:
    return UserError(f"{source} has more than {limit / 1e9:g} GB: allow more by --limit GB, if you trust it")
