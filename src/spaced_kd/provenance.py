"""Where a result comes from: commit, versions, hardware."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spaced_kd import catalog

PACKAGES = (
    "torch",
    "timm",
    "numpy",
    "safetensors",
    "torchvision",
    "curvlinops-for-pytorch",
    "torchattacks",
    "imagecorruptions",
)


def commit() -> tuple[str, bool | None]:
    """Commit of the code, and whether files differ from it or are new; ("unknown", None) outside a checkout.

    Where files were copied without their history, SPACED_KD_COMMIT says whose they are, and nobody can tell more.
    """
    given, folder = os.environ.get("SPACED_KD_COMMIT"), Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        if given not in (None, head):
            return given, None
        return head, bool(_git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":/src", ":/workflow"))
    except (OSError, subprocess.CalledProcessError):
        return given or "unknown", None


def describe(device: Any = None) -> dict[str, Any]:
    """Commit, versions, machine and, where one is used, the accelerator."""
    head, dirty = commit()
    found: dict[str, Any] = {
        "commit": head,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name))} | _plugins(),
        "system": platform.platform(),
        "processor": processor(),
        "processors": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    if device is not None and device.type == "cuda":
        import torch

        found["accelerator"] = torch.cuda.get_device_name(device)
        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return found


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()


def _plugins() -> dict[str, str]:
    """Versions of other packages that have plug-ins for this one."""
    found = [plugin.package for kind in catalog.KINDS for plugin in catalog.plugins(kind).values()]
    return dict(package.rsplit(" ", 1) for package in found if package)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Its model, as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
