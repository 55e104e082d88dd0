"""Provenance of a result: commit, versions, hardware."""

import os
import platform
import sys
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaced_kd.config import registry, sources
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.training.code_commit import commit, package_folder

if TYPE_CHECKING:
    import torch

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

KINDS = {  # kind of processor -> its flags, the widest instructions first
    "amx": {"amx_tile", "amx_bf16"},
    "avx512_bf16": {"avx512_bf16"},
    "avx512": {"avx512f"},
    "avx2": {"avx2"},
}


@dataclass
class Origin:
    """The code that trains a run: that of this process, and the commits of earlier processes if they differ."""

    provenance: dict[str, Any]
    sources: dict[str, Any]  # digests of the plug-ins, and the number of the training core
    earlier: list[str] = field(default_factory=list)

    @property
    def commits(self) -> list[str]:
        """Commits of the code that has trained so far, each once."""
        return list(dict.fromkeys([*self.earlier, self.provenance["commit"]]))

    def goes_on_from(self, commits: list[str]) -> None:
        """Record the commits of the code that began the run."""
        self.earlier = [each for each in commits if each != self.provenance["commit"]]


def origin(spec: RunSpec, device: "torch.device") -> Origin:
    """The code of this process, as loaded."""
    return Origin(describe(device), sources.of_run(spec))


def warning() -> str:
    """The warning before a training whose code has no known commit; empty if the commit is known."""
    if commit()[0] != "unknown":
        return ""
    return (
        f"no commit has the code in {package_folder()}, so `record` will refuse its runs: use a checkout, or give its"
        " commit as SPACED_KD_COMMIT"
    )


def warnings_of(spec: RunSpec, device: Any = None) -> list[str]:
    """Warnings before a run is trained: the code has no known commit, or the precision is slow on this machine."""
    slow = (
        f"precision is {spec.precision}, which this processor only emulates, some nine times slower than fp32:"
        " train this run on a processor with AVX-512 or on a GPU; with precision=fp32 it is another run"
    )
    return [text for text in (warning(), slow if emulated(spec.precision, device) else "") if text]


def emulated(precision: str, device: Any = None) -> bool:
    """Whether the processor has no instructions for a precision, and emulates it.

    Measured with ResNet-18 at 32 px: on an EPYC without AVX-512, training in bf16 took nine times as long as in fp32.
    """
    return precision == "bf16" and kind(device) == "avx2"


def describe(device: Any = None) -> dict[str, Any]:
    """Commit, versions, machine and, where one is used, the accelerator."""
    head, dirty = commit()
    found: dict[str, Any] = {
        "commit": head,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name))} | _plugins(),
        "imported": imported(),
        "system": platform.platform(),
        "processor": processor(),
        "processors": os.cpu_count(),
        "machine": kind(device),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    if device is not None and device.type == "cuda":
        import torch

        found["accelerator"] = torch.cuda.get_device_name(device)
        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return found


def kind(device: Any = None) -> str:
    """Kind of machine: the GPU's name, or the processor's widest instructions, which select its kernels.

    Two kinds round differently, so the same run has different final weights on them.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    flags = set(_processor_field("flags").split())
    return next((name for name, needed in KINDS.items() if needed <= flags), platform.machine())


def imported() -> dict[str, dict[str, str]]:
    """Imports of this process other than Python's own: folder -> distribution or module -> version.

    The folder is that of the imported files, relative to the environment or the repository if it is below one of them,
    so that a recorded run names no folder of its machine. The version is that of the distribution installed in the
    folder, and empty if no distribution there contains the module.
    """
    standard = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    found: dict[str, dict[str, str]] = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name.startswith("_") or not file:
            continue
        path = Path(file)
        folder = path.parents[1] if path.stem == "__init__" else path.parent
        if folder in standard or (folder.parent in standard and folder.name == "lib-dynload"):
            continue
        name_there, number = _installed(str(folder)).get(name, (name, ""))
        roots = (Path(sys.prefix), package_folder().parents[1])
        where = next((folder.relative_to(root) for root in roots if folder.is_relative_to(root)), folder)
        found.setdefault(str(where), {})[name_there] = number
    return found


@cache
def _installed(folder: str) -> dict[str, tuple[str, str]]:
    """Top-level module -> name and version of its distribution, for all distributions installed in a folder."""
    found = {}
    for each in distributions(path=[folder]):
        names = (each.read_text("top_level.txt") or "").split()
        if not names:  # a line for each file: its path, checksum and size
            lines = (each.read_text("RECORD") or "").splitlines()
            names = {line.partition(",")[0].partition("/")[0].partition(".")[0] for line in lines}
        about = each.metadata  # a file, which `name` and `version` would read twice
        found |= dict.fromkeys(names, (about["Name"], about["Version"]))
    return found


def _plugins() -> dict[str, str]:
    """Versions of other packages that have plug-ins for this one."""
    found = [plugin.package for kind in registry.KINDS for plugin in registry.plugins(kind).values()]
    return dict(package.rsplit(" ", 1) for package in found if package)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Model of the processor, as named by the operating system."""
    return _processor_field("model name") or platform.processor() or platform.machine()


def _processor_field(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" if it is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
