"""Where a result comes from: commit, versions, hardware."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaced_kd.config import registry, sources
from spaced_kd.config.run_spec import RunSpec

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
BUILT = "built.json"  # a wheel's commit and digest, in the package's folder


KINDS = {  # kind of processor -> flags that it has, the widest first
    "amx": {"amx_tile", "amx_bf16"},
    "avx512_bf16": {"avx512_bf16"},
    "avx512": {"avx512f"},
    "avx2": {"avx2"},
}


@dataclass
class Origin:
    """The code that trains a run: this process's, and the commits of earlier processes where those were others."""

    provenance: dict[str, Any]
    sources: dict[str, Any]  # digests of the plug-ins, and the number of the training core
    earlier: list[str] = field(default_factory=list)

    @property
    def commits(self) -> list[str]:
        """Commits of the code that has trained so far, each once."""
        return list(dict.fromkeys([*self.earlier, self.provenance["commit"]]))

    def goes_on_from(self, commits: list[str]) -> None:
        """The run was begun by code of these commits."""
        self.earlier = [each for each in commits if each != self.provenance["commit"]]


def origin(spec: RunSpec, device: "torch.device") -> Origin:
    """The code of this process, as it has read it."""
    return Origin(describe(device), sources.of_run(spec))


def commit() -> tuple[str, bool | None]:
    """Commit of the code, and whether files differ from it or are new; ("unknown", None) where no commit has them.

    A commit counts only if it has files of this package in this very place: a package that was copied into another
    repository is none of that one's. A wheel carries the commit that it was built from and a digest of its files. Where
    files were copied without either, SPACED_KD_COMMIT says whose they are, and nobody can tell more.
    """
    given, package = os.environ.get("SPACED_KD_COMMIT"), _package()
    try:
        head = _git(package, "rev-parse", "HEAD")
        known = _blobs(package)
    except (OSError, subprocess.CalledProcessError):
        return _built(package, given)
    if not known:
        return _built(package, given)
    if given not in (None, head):
        return given, None
    workflow = package.parents[1] / "workflow"
    there = package.parent.name == "src" and workflow.is_dir()
    return head, _differs(package, known) or (there and _differs(workflow, _blobs(workflow)))


def warning() -> str:
    """What to say before anything is trained of which nobody will know the code; empty where a commit has it."""
    if commit()[0] != "unknown":
        return ""
    return (
        f"no commit has the code in {_package()}, so that `record` will refuse what it trains: use a"
        " checkout, or give its commit as SPACED_KD_COMMIT"
    )


def warnings_of(spec: RunSpec, device: Any = None) -> list[str]:
    """What to say before a run is trained: that nobody will know its code, or that its precision is slow here."""
    slow = (
        f"precision is {spec.precision}, which this processor only emulates, some nine times slower than fp32:"
        " train this run on a processor with AVX-512 or on a GPU; with precision=fp32 it is another run"
    )
    return [text for text in (warning(), slow if emulated(spec.precision, device) else "") if text]


def emulated(precision: str, device: Any = None) -> bool:
    """Whether the processor computes in a precision that it has no instructions for.

    Measured with ResNet-18 at 32 px: a training in bf16 took nine times as long as in fp32 on an EPYC without AVX-512.
    """
    return precision == "bf16" and kind(device) == "avx2"


def stamp(package: Path, commit: str, dirty: bool) -> None:
    """Write the commit that a copy of the package is made from, and the digest of its files, into the copy."""
    (package / BUILT).write_text(json.dumps({"commit": commit, "dirty": dirty, "sha256": _digest(package)}), "utf-8")


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _built(package: Path, given: str | None) -> tuple[str, bool | None]:
    """What `stamp` has written, with `given`, the user's word, where there is no stamp or it has another commit."""
    try:
        stamped = json.loads((package / BUILT).read_text("utf-8"))
        head, dirty, digest = stamped["commit"], stamped["dirty"], stamped["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return given or "unknown", None
    if given not in (None, head):
        return given, None
    return head, dirty or digest != _digest(package)


def _digest(package: Path) -> str:
    """SHA-256 over the paths and contents of a package's code."""
    paths = {str(path.relative_to(package)): path for path in package.rglob("*") if path.is_file() and _counts(path)}
    lines = (f"{hashlib.sha256(paths[name].read_bytes()).hexdigest()} {name}\n" for name in sorted(paths))
    return hashlib.sha256("".join(line for line in lines if not line.endswith(f" {BUILT}\n")).encode()).hexdigest()


def _blobs(folder: Path) -> dict[str, str]:
    """Path below a folder -> hash of each file that HEAD has in it."""
    lines = _git(folder, "ls-tree", "-r", "-z", "HEAD", ".").split("\0")
    found = [line.partition("\t") for line in lines if line]
    return {path: about.split()[2] for about, _, path in found}


def _differs(folder: Path, known: dict[str, str]) -> bool:
    """Whether files of a folder are other ones than `known`; also those that git is told to ignore."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and _counts(path)}
    return paths.keys() != known.keys() or any(_hash(paths[name], sha) != sha for name, sha in known.items())


def _counts(path: Path) -> bool:
    """Whether a file is code, and not a cache or an editor's."""
    return "__pycache__" not in path.parts and not path.name.startswith(".") and not path.name.endswith("~")


def _hash(path: Path, like: str) -> str:
    """Hash of a file as git takes it, of the length of another."""
    content = path.read_bytes()
    return hashlib.new("sha1" if len(like) == 40 else "sha256", b"blob %d\0%b" % (len(content), content)).hexdigest()


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
    """Kind of machine: the GPU's name, or the processor's widest instructions, by which its kernels are chosen.

    Two kinds round differently, so that the same run ends at different weights there.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    flags = set(_processor_field("flags").split())
    return next((name for name, needed in KINDS.items() if needed <= flags), platform.machine())


def _git(folder: Path, *words: str) -> str:
    """What git says of the repository that a folder lies in, whoever owns it; it takes no locks and runs nothing."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", folder, *words]
    done = subprocess.run(command, capture_output=True, check=True, env=own | {"GIT_OPTIONAL_LOCKS": "0"})
    return os.fsdecode(done.stdout).strip()


def imported() -> dict[str, dict[str, str]]:
    """What this process has imported from outside Python itself: folder -> distribution or module -> version.

    The folder is that of the files that were imported, below the environment or the repository where it is there: a
    recorded run names no folder of its machine. The version is of what is installed in that folder, and empty where no
    distribution there has the module.
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
        roots = (Path(sys.prefix), _package().parents[1])
        where = next((folder.relative_to(root) for root in roots if folder.is_relative_to(root)), folder)
        found.setdefault(str(where), {})[name_there] = number
    return found


@cache
def _installed(folder: str) -> dict[str, tuple[str, str]]:
    """Top-level module -> name and version of the distribution that has it, of all that are installed in a folder."""
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
    """Its model, as the operating system names it."""
    return _processor_field("model name") or platform.processor() or platform.machine()


def _processor_field(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
