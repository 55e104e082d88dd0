"""The plug-ins by kind and name, with their settings and one-line descriptions.

The name in a configuration is the name on disk: of a file for a dataset, method, evaluation, table or figure; of a
function in a family's file for a network. Everything but `find` reads the source with `ast`, so that a misspelt name or
setting is refused while the workflow's graph is built, without importing torch.

Other installed packages add plug-ins by entry points, in the groups spaced_kd.methods, spaced_kd.networks and so on:
`NAME = "MODULE"`, where the module is a file like those of this package and NAME the name of its plug-in.
"""

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spaced_kd.config.types import check_range, check_type
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "distillation" / "method.py"
KINDS = ("datasets", "networks", "methods", "evaluations", "tables", "figures")
FOLDERS = {  # of this package; the groups of entry points have the names of the kinds
    "datasets": "data/datasets",
    "networks": "networks",
    "methods": "distillation/methods",
    "evaluations": "evaluation/evaluators",
    "tables": "analysis/tables",
    "figures": "analysis/figures",
}
FACES = {"datasets": "prepare", "evaluations": "evaluate", "tables": "table", "figures": "figure"}
OWN = ("seed", "exits", "history", "kd")  # keyword-only arguments that the suite passes, so not settings
PAPERS_NAMES = {  # the paper's name of a method -> its name here
    "spaced_kd": "online_kd interval=1.5",
    "spaced_online_kd": "online_kd interval=1.5",
    "offline_kd": "online_kd interval=max",
    "kd": "online_kd, or online_kd interval=max for offline KD",
    "spaced_self_kd": "self_kd interval=4",
}
# upper limits of repetitions in evaluations; not in their RANGES, since a changed file is measured anew
MOST_OF_EVALUATIONS = {"draws": 10_000, "probes": 10_000, "sketch": 10_000, "steps": 10_000}
REQUIRED = object()  # marks a setting without a default


@dataclass(frozen=True)
class Plugin:
    """One plug-in as its source describes it.

    `settings` maps a name to (annotation, default). `constants` are the class variables of a method, its contract's
    defaults among them, and a file's names in capitals: BATCH_NORM of networks, SOURCES of an evaluation, EVALUATION of
    a table or figure, whose rows it shows, and RANGES, which maps a setting to an interval such as "(0, 255]" or
    "[1, inf)", or to a tuple of choices. `package` is name and version of the other package that it comes from, if any.
    """

    kind: str
    name: str
    path: Path
    attribute: str
    docstring: str
    settings: dict[str, tuple[str, Any]]
    constants: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    module: str = ""  # dotted name, if it comes from another package

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.docstring.partition("\n")[0]

    @property
    def sources(self) -> list[Path]:
        """The files that determine its results: its own, and those that SOURCES names relative to its folder."""
        return [self.path, *((self.path.parent / name).resolve() for name in self.constants.get("SOURCES", ()))]


@cache
def plugins(kind: str) -> dict[str, Plugin]:
    """Every plug-in of a kind, by name: this package's first, then those of other packages."""
    own = (plugin for path in sorted((ROOT / FOLDERS[kind]).glob("[!_]*.py")) for plugin in _read(kind, path))
    found: dict[str, Plugin] = {}
    for plugin in (*own, *_of_others(kind)):
        if plugin.name in found:
            raise UserError(f"{plugin.path}: {kind} has {plugin.name} twice, the other is {found[plugin.name].path}")
        found[plugin.name] = plugin
    return found


def _of_others(kind: str) -> Iterator[Plugin]:
    """Plug-ins that other installed packages name as entry points."""
    for entry in sorted(entry_points(group=f"spaced_kd.{kind}"), key=lambda entry: entry.name):
        dist = entry.dist  # None only for an entry point that was created by hand
        package, path = f"{dist.name} {dist.version}" if dist else "", _source(entry.module)
        problem = f"{package}: {entry.name} of spaced_kd.{kind} is to be in the module {entry.module}"
        if path is None:
            raise UserError(f"{problem}, which cannot be found: install the package again, or remove it")
        there = {plugin.name: plugin for plugin in _read(kind, path)}
        if entry.name not in there:
            raise UserError(f"{problem}, which has {', '.join(there) or 'none'}: give the entry point that name")
        yield replace(there[entry.name], package=package, module=entry.module)


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it or the packages that it is in."""
    first, *others = module.split(".")
    found = importlib.util.find_spec(first)
    if found is None or not others:
        return Path(found.origin) if found and found.origin else None
    paths = (Path(folder, *others).with_suffix(".py") for folder in found.submodule_search_locations or ())
    return next((path for path in paths if path.exists()), None)


def names(kind: str) -> list[str]:
    """Names of a kind, sorted."""
    return sorted(plugins(kind))


def plugin(kind: str, name: str) -> Plugin:
    """The plug-in called `name`; UserError with the known names if there is none."""
    try:
        return plugins(kind)[name]
    except (KeyError, TypeError):
        raise UserError(f"{name!r} is none of the {kind}: {', '.join(names(kind))}{hint(name, names(kind))}") from None


def hint(given: Any, known: Iterable[str]) -> str:
    """The end of a message that suggests a name for a misspelt one; empty if no known name is similar."""
    meant = PAPERS_NAMES.get(given) if isinstance(given, str) else None
    near = [meant] if meant else difflib.get_close_matches(str(given), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def find(kind: str, name: str) -> Any:
    """Import the plug-in: a dataset's module, a method's class, the function of the other kinds."""
    found = plugin(kind, name)
    own = f"spaced_kd.{FOLDERS[kind].replace('/', '.')}.{found.path.stem}"
    module = importlib.import_module(found.module or own)
    return module if kind == "datasets" else getattr(module, found.attribute)


def check_settings(kind: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with each value checked against its annotation.

    UserError names an unknown setting, a wrong type, or a missing setting without a default.
    """
    known = plugin(kind, name).settings
    for key, (annotation, default) in known.items():
        if default is REQUIRED and key not in given:
            raise UserError(f"{name}.{key} has no default and is not given: give it, or write a default ({annotation})")
    for key in given:
        if key not in known:
            raise UserError(f"{name} has no setting {key!r}: it has {', '.join(known) or 'none'}{hint(key, known)}")
    typed = {key: check_type(f"{name}.{key}", value, known[key][0]) for key, value in given.items()}
    for key, allowed in plugin(kind, name).constants.get("RANGES", {}).items():
        if typed.get(key) is not None:
            check_range(f"{name}.{key}", typed[key], allowed)
    for key, most in MOST_OF_EVALUATIONS.items() if kind == "evaluations" else ():
        if typed.get(key, 0) > most:
            raise UserError(f"{name}.{key} is {typed[key]}, but must be at most {most:,}: lower it")
    return typed


def defaults(kind: str, name: str) -> dict[str, Any]:
    """Settings of a plug-in with their default values."""
    return {key: default for key, (_, default) in plugin(kind, name).settings.items() if default is not REQUIRED}


def _read(kind: str, path: Path) -> list[Plugin]:
    try:
        return _described(kind, path, ast.parse(path.read_text("utf-8")))
    except SyntaxError as error:
        raise UserError(f"{path}: {error.msg} in line {error.lineno}") from None
    except ValueError as error:  # of ast.literal_eval
        raise UserError(f"{path}: defaults and constants must be plain values ({error}): write one out") from None


def _described(kind: str, path: Path, tree: ast.Module) -> list[Plugin]:
    described = ast.get_docstring(tree) or ""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    if kind == "networks":
        constants = _constants(tree)
        return [
            Plugin(kind, node.name, path, node.name, ast.get_docstring(node) or "", _keywords(node), constants)
            for node in functions
            if [arg.arg for arg in node.args.args] == ["classes", "image_size"]
        ]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    faces = [node for node in functions if node.name == FACES.get(kind)]
    nodes: Sequence[ast.ClassDef | ast.FunctionDef] = classes if kind == "methods" else faces
    if len(nodes) != 1:
        face = "one dataclass" if kind == "methods" else f"one function {FACES[kind]}"
        raise UserError(f"{path}: a file in {kind} holds {face}, this one has {len(nodes)}")
    if kind == "methods":
        settings = _fields(classes[0], constant=False)
        constants = {name: value for name, (_, value) in _fields(classes[0], constant=True).items()}
        constants |= _constants(tree, "RANGES")
        _check_method(path, classes[0], constants)
        constants = contract_defaults() | constants
    else:
        settings, constants = _keywords(faces[0]), _constants(tree, "SOURCES", "RANGES", "EVALUATION")
    return [Plugin(kind, path.stem, path, nodes[0].name, described, settings, constants)]


@cache
def contract_defaults() -> dict[str, Any]:
    """The class variables of the contract of methods, except `roles`, which has no default."""
    (contract,) = (node for node in ast.parse(CONTRACT.read_text("utf-8")).body if isinstance(node, ast.ClassDef))
    return {name: value for name, (_, value) in _fields(contract, constant=True).items() if value is not REQUIRED}


def _check_method(path: Path, node: ast.ClassDef, constants: dict[str, Any]) -> None:
    """UserError for a method without roles, terms or a schedule, or with a field that has no type."""
    if "roles" not in constants:
        raise UserError(f"{path}: {node.name} has no roles: say who learns, and as which network")
    has = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    for face in ("schedule", "terms"):
        if face not in has and not node.bases:
            raise UserError(f"{path}: {node.name} has no function {face}: add it")
    for item in node.body:
        if isinstance(item, ast.Assign):
            name = ast.unparse(item.targets[0])
            problem = f"{path}: {name} of {node.name} has no type, so it is not a setting"
            raise UserError(f"{problem}: write {name}: float = ..., or ClassVar for a constant")


def _constants(tree: ast.Module, *names: str) -> dict[str, Any]:
    """Names in capitals to which a file assigns a plain value; only those in `names`, if given."""
    given = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()]
    found = {ast.unparse(node.targets[0]): node.value for node in given}
    return {name: ast.literal_eval(value) for name, value in found.items() if not names or name in names}


def _keywords(node: ast.FunctionDef) -> dict[str, tuple[str, Any]]:
    """Settings of a function: its keyword-only arguments except the suite's own."""
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    found = {arg.arg: _setting(arg.annotation, value) for arg, value in pairs if arg.arg not in OWN}
    for arg in node.args.kwonlyargs:
        if arg.arg in found and arg.annotation is None:
            raise ValueError(f"{arg.arg} of {node.name} has no type")
    return found


def _fields(node: ast.ClassDef, *, constant: bool) -> dict[str, tuple[str, Any]]:
    """Settings (fields) or constants (class variables) of a dataclass."""
    return {
        item.target.id: _setting(item.annotation, item.value)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and ast.unparse(item.annotation).startswith("ClassVar") == constant
    }


def _setting(annotation: ast.expr | None, value: ast.expr | None) -> tuple[str, Any]:
    return (ast.unparse(annotation) if annotation else "str", REQUIRED if value is None else ast.literal_eval(value))


PLUGINS = {
    "dataset": "datasets",
    "network": "networks",
    "teacher": "networks",
    "assistant": "networks",
    "method": "methods",
}
TEACHING = ("teacher", "assistant")  # roles that may name a network of their own; the default is the student's


def roles_of(method: str) -> dict[str, str]:
    """Role of a method -> the name of its network."""
    roles: dict[str, str] = plugin("methods", method).constants["roles"]
    return roles


def network_count(method: str) -> int:
    """Number of a method's networks."""
    return len(set(roles_of(method).values()))
