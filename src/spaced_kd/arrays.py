"""Named arrays on disk: safetensors with a checksum and a JSON description, written whole or not at all. No pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from spaced_kd.errors import UserError
from spaced_kd.files import write_safely


def digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and bytes of all arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def save(path: Path, arrays: dict[str, np.ndarray], **about: Any) -> str:
    """Write arrays with their checksum and a description; gives the checksum."""
    checksum = digest(arrays)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_safely(path, to_bytes(whole, metadata={"about": json.dumps({"checksum": checksum} | about)}))
    return checksum


def read(path: Path, *, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of a file that `save` wrote; UserError with the remedy if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): {remedy}") from None
    if not isinstance(about, dict) or digest(arrays) != about.get("checksum"):
        raise UserError(f"{path} is damaged (its checksum does not match): {remedy}")
    return arrays, about
