"""Named arrays on disk: safetensors with a checksum and a JSON description, written atomically, without pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import write_safely

SEAL = "about_sha256"  # checksum of the description; "checksum" is that of the arrays


def digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and bytes of all arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def save(path: Path, arrays: dict[str, np.ndarray], **about: Any) -> str:
    """Write arrays with their checksum and a description; returns the checksum."""
    checksum = digest(arrays)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = json.dumps({"checksum": checksum, SEAL: _sealed(about)} | about)
    write_safely(path, to_bytes(whole, metadata={"about": header}))  # one entry: safetensors has no order of several
    return checksum


def read(path: Path, *, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of a file that `save` wrote; UserError with the remedy if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): {remedy}") from None
    whole = isinstance(about, dict) and digest(arrays) == about.get("checksum")
    # files of versions before 0.2 have no seal
    if not whole or about.pop(SEAL, None) not in (None, _sealed(about)):
        raise UserError(f"{path} is damaged (its checksum does not match): {remedy}")
    return arrays, about


def read_one(path: Path, name: str, *, remedy: str) -> np.ndarray:
    """One array of a file that `save` wrote, without reading the others; UserError if it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            array: np.ndarray = file.get_tensor(name)
            return array
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): {remedy}") from None


def _sealed(about: dict[str, Any]) -> str:
    """sha256 of a description without its checksums."""
    kept = {key: value for key, value in about.items() if key not in (SEAL, "checksum")}
    as_read = json.loads(json.dumps(kept))  # whose keys are all text
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
