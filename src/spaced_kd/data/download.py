"""Download of published archives from mirrors: resumed, checked and unpacked. No other part uses the network.

Only if the licence allows it, and only on request (`spaced-kd prepare --download`).
"""

import http.client
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from spaced_kd.utils import files
from spaced_kd.utils.errors import UserError

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte
FAILURES = (OSError, http.client.HTTPException)  # URLError, timeouts and broken connections are OSErrors


def fetch(mirrors: Sequence[str], target: Path, *, sha256: str) -> None:
    """Download a file, unless it exists already; UserError if no mirror has it.

    An incomplete download is kept as `target`.part, from which the next mirror or the next attempt continues.

    Args:
        mirrors: addresses of the same file, in the order in which they are tried.
        target: its path.
        sha256: its checksum.
    """
    if target.exists() and files.sha256(target) == sha256:
        return
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for address in mirrors:
        print(f"downloading {address}", flush=True)
        for resumed in (part.exists(), False):  # from the start if the resumed part was of another file
            try:
                _append(address, part)
            except FAILURES as error:
                reasons.append(f"{address}: {error or type(error).__name__}")
                break
            if files.sha256(part) == sha256:
                os.replace(part, target)
                return
            part.unlink()
            if not resumed:
                reasons.append(f"{address}: another file, its sha256 is not {sha256}")
                break
    raise UserError(
        f"{target.name} could not be downloaded ({'; '.join(reasons)}): try again later, which goes on from here, or"
        f" put it into {target.parent} by hand"
    )


def unzip(archive: Path, folder: str) -> None:
    """Unpack the one folder of an archive beside it, whole or not at all; UserError if a member would lie elsewhere."""
    target = archive.parent / folder
    scratch = archive.parent / f".{folder}.unpacking"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                path = Path(name)
                if path.is_absolute() or ".." in path.parts or path.parts[:1] != (folder,):
                    raise UserError(f"{archive} holds {name}, which lies outside {folder}: do not trust it, delete it")
            file.extractall(scratch)
        os.replace(scratch / folder, target)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): delete it, make room, and try again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _append(address: str, part: Path) -> None:
    """Append the missing bytes to `part`; one of FAILURES if the connection breaks."""
    part.parent.mkdir(parents=True, exist_ok=True)
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # nothing is missing
            return
        raise
    with response, part.open("ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
        left = int(response.headers.get("Content-Length", -1))
        while chunk := response.read(CHUNK):
            file.write(chunk)
            left -= len(chunk)
    if left > 0:
        raise ConnectionError(f"broke off {left} bytes before the end")
