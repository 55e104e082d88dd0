"""The source of a run: a digest of each of its plug-ins, and a version number of the training core.

A digest covers the definitions that a plug-in reaches, in its own file, in its package and in this one, as syntax trees
without docstrings, comments, type annotations, import lines and the text of errors. Definitions and local variables
are numbered instead of named; names of arguments and attributes count. So neither a comment nor moving or renaming a
function changes a digest, but a formula does.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from spaced_kd.config import registry
from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.utils.errors import UserError

NUMERICS = (
    1  # of the training core: raise it whenever a training gives other bits; tests/training/test_golden.py asks for it
)

OF_TRAINING = ("augment", "MEAN", "STD", "SIZE")  # definitions that a training uses; the data have a checksum
DROPPED = (ast.Import, ast.ImportFrom, ast.Pass)
UNREAD = ("annotation", "returns", "ctx", "kind", "type_comment", "type_params")  # fields of a syntax tree


def of_run(spec: RunSpec) -> dict[str, Any]:
    """The digest of each of a run's plug-ins by role, and the number of the training core, as a run stores them."""
    roles = {role: kind for role, kind in PLUGINS.items() if getattr(spec, role)}
    return {
        "sources": {role: digest(kind, getattr(spec, role)) for role, kind in roles.items()},
        "numerics": NUMERICS,
    }


def changes(spec: RunSpec, stored: dict[str, Any]) -> list[str]:
    """Names of the sources that have changed since `stored` was written or accepted; empty if it has no digests."""
    if "sources" not in stored:
        return []  # recorded before digests
    now = of_run(spec)
    found: list[str] = []
    for known in (stored, *stored.get("accepted", ())):
        found = [
            f"{role} {getattr(spec, role)} ({registry.plugin(PLUGINS[role], getattr(spec, role)).path.name})"
            for role, sha in known.get("sources", {}).items()
            if now["sources"].get(role) != sha
        ]
        found += ["the training core"] if known.get("numerics") != NUMERICS else []
        if not found:
            break
    return found


def check(spec: RunSpec, described: dict[str, Any], folder: Path) -> None:
    """UserError, with the remedies, if a finished run's sources have changed."""
    if found := changes(spec, described):
        raise UserError(
            f"{folder} was trained before {' and '.join(found)} changed: move it away to train it again, or keep it by"
            f' `spaced-kd accept --reason "..." {folder}`'
        )


def of_prepare(dataset: str) -> str:
    """Digest of a dataset's `prepare`, which is stored with the prepared data and not with runs.

    A run stores the checksum of its data: a changed `prepare` that returns the same data leaves all runs valid.
    """
    return digest("datasets", dataset, ("prepare",))


@cache
def digest(kind: str, name: str, roots: tuple[str, ...] = ()) -> str:
    """Digest of a plug-in, in hexadecimal; `roots`: the definitions to start from, by default those of a training."""
    plugin = registry.plugin(kind, name)
    module = plugin.module or f"spaced_kd.{registry.FOLDERS[kind].replace('/', '.')}.{plugin.path.stem}"
    roots = roots or (OF_TRAINING if kind == "datasets" else (plugin.attribute,))
    return _Reader({"spaced_kd", module.split(".")[0]}).digest(_Module(plugin.path, module), roots)


class _Module:
    """A file: its statements by the names they bind, and its imports as dotted names."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.loose = path, []
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, str] = {}
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imported |= _imports(node, package)
        for statement in tree.body:
            names = set(_binds(statement))
            for each in names:
                self.bound.setdefault(each, []).append(statement)
            if not names and not _dropped(statement):
                self.loose.append(statement)


class _Reader:
    """Follows names from definition to definition, and writes each definition once, under its number.

    Args:
        own: packages that are followed; an import from another package counts by its name.
    """

    def __init__(self, own: set[str]) -> None:
        self.own = own
        self.modules: dict[Path, _Module] = {}
        self.numbers: dict[tuple[Path, str], int] = {}

    def digest(self, module: _Module, roots: tuple[str, ...]) -> str:
        """sha256 over all definitions that the roots reach."""
        self._enter(module)
        for root in roots:
            if root in module.bound or root in module.imported:
                self._resolved(module, root)
        sha, done = hashlib.sha256(), 0
        while done < len(self.numbers):  # writing one down may add others
            path, name = list(self.numbers)[done]
            found = self.modules[path]
            statements = found.bound[name] if name else found.loose
            sha.update("".join(self._text(each, found, top=True) for each in statements).encode())
            done += 1
        return sha.hexdigest()

    def _enter(self, module: _Module) -> None:
        if module.path not in self.modules:
            self.modules[module.path] = module
            if module.loose:
                self._number(module, "")

    def _number(self, module: _Module, name: str) -> str:
        return f"#{self.numbers.setdefault((module.path, name), len(self.numbers))}"

    def _resolved(self, module: _Module, dotted: str) -> str:
        """The number of a name's definition and the rest of the dotted name, or its full name in another package."""
        first, _, rest = dotted.partition(".")
        if first in module.bound:
            return f"{self._number(module, first)}.{rest}"
        if first not in module.imported:
            return dotted
        full = ".".join(filter(None, (module.imported[first], rest)))
        parts = full.split(".")
        if parts[0] not in self.own:
            return full
        for count in range(len(parts), 0, -1):
            if path := _file(".".join(parts[:count])):
                found = self.modules.get(path) or _Module(path, ".".join(parts[:count]))
                self._enter(found)
                if count < len(parts):
                    return self._resolved(found, ".".join(parts[count:]))
                return " ".join(self._number(found, name) for name in found.bound)  # the module itself is used
        return full

    def _text(self, node: Any, module: _Module, scope: dict[str, str] | None = None, *, top: bool = False) -> str:
        """A syntax tree as text; `scope`: local name -> its number."""
        if isinstance(node, list):
            return "[" + ",".join(self._text(item, module, scope) for item in node if not _dropped(item)) + "]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Raise):
            return "Raise"
        if (dotted := _dotted(node)) and dotted.partition(".")[0] not in (scope or {}):
            return self._resolved(module, dotted)
        if isinstance(node, ast.Name):
            return (scope or {}).get(node.id, node.id)
        if scope is None and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            scope = _locals(node)
        skipped = (*UNREAD, "name") if top and hasattr(node, "body") else UNREAD
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in skipped]
        kept = [f"{name}={self._text(value, module, scope)}" for name, value in fields if value not in (None, [])]
        return f"{type(node).__name__}({','.join(kept)})"


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> list[tuple[str, str]]:
    """(name here, full dotted name) of what a line imports."""
    if isinstance(node, ast.Import):
        return [(each.asname, each.name) if each.asname else (each.name.split(".")[0],) * 2 for each in node.names]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join(filter(None, [*above, node.module]))
    return [(each.asname or each.name, f"{base}.{each.name}") for each in node.names]


def _binds(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def _dropped(node: Any) -> bool:
    """Whether a statement has no effect on results: an import, or a docstring."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return isinstance(node, DROPPED) or text


def _dotted(node: ast.AST) -> str:
    """E.g. "torch.nn.functional.relu" of names joined by dots, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """Name in a function -> its text: arguments keep their names, other variables are numbered."""
    nodes = [*ast.walk(function)]
    found = {node.arg: node.arg for node in nodes if isinstance(node, ast.arg)}
    kept = {getattr(node, "name", None) for node in nodes}
    kept |= {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in kept:
            found.setdefault(node.id, f"${len(found)}")
    return found


@cache
def _file(module: str) -> Path | None:
    """The file of a module, or of a package, found without importing it."""
    first, *others = module.split(".")
    found = importlib.util.find_spec(first)
    if found is None:
        return None
    if not others:
        return Path(found.origin) if found.origin else None
    for folder in found.submodule_search_locations or ():
        path = Path(folder, *others)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
