"""Generated parts of the site: a page's line `<!-- generated: NAME ARGUMENT -->` is replaced by what NAME returns.

Everything comes from the code, its configuration files or the recorded rows, so that a page cannot drift from them. A
key, switch or column without a description stops the build.
"""

import argparse
import ast
import importlib
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from spaced_kd.cli import main as cli  # noqa: E402
from spaced_kd.config import (  # noqa: E402
    presets,
    registry,
    run_spec,
    study,
    validation,
)

MARK = re.compile(r"^<!-- generated: (\w+)((?: \S+)*) -->$", re.M)
PARTS: dict[str, Callable[..., str]] = {}


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this for each page."""
    return MARK.sub(lambda mark: PARTS[mark[1]](*mark[2].split()), markdown)


def part(function: Callable[..., str]) -> Callable[..., str]:
    """Registers a function under its name."""
    PARTS[function.__name__] = function
    return function


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def code(value: object) -> str:
    """`value` as inline code, booleans as YAML writes them; nothing for an empty text."""
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value not in ("", None) else ""


def kind(annotation: str) -> str:
    """A type annotation for readers: the choices of a Literal, `number` for float."""
    names = {"float": "number", "int": "integer", "str": "text", "bool": "true, false", "None": "none"}
    found = []
    for option in annotation.split(" | "):
        if option.startswith("Literal["):
            found.append(", ".join(code(value) for value in ast.literal_eval(option.removeprefix("Literal"))))
        elif option.startswith("tuple["):
            found.append(f"list of {names.get(option[6:].split(',')[0], 'values')}s")
        else:
            found.append(names.get(option, option))
    return " or ".join(found)


def comments(path: Path, name: str | None = None) -> dict[str, str]:
    """Field -> comment, of the dataclass `name` (or of the first one) in a file; arguments of functions likewise."""
    source = path.read_text()
    lines = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and name in (None, node.name):
            for item in node.body:
                if isinstance(item, ast.AnnAssign):
                    found[ast.unparse(item.target)] = _comment(lines, item.lineno, item.end_lineno or item.lineno)
    return {key: text for key, text in found.items() if text}


def _comment(lines: dict[int, tuple[str, bool]], first: int, last: int) -> str:
    """The comment on the last line, or the whole lines of comment above the first."""
    if last in lines and not lines[last][1]:
        return lines[last][0]
    above = []
    while lines.get(first - 1, ("", False))[1]:
        first -= 1
        above.insert(0, lines[first][0])
    return " ".join(above)


def arguments(docstring: str) -> dict[str, str]:
    """Argument -> text, of the section Args of a docstring."""
    section = re.search(r"^ *Args:\n(.*?)(?:\n\s*\n|\Z)", docstring, re.M | re.S)
    items = re.findall(r"^ +(\w+): (.*?)(?=\n +\w+: |\Z)", section[1] if section else "", re.M | re.S)
    return {name: " ".join(text.split()) for name, text in items}


def described(where: str, key: str, known: dict[str, str]) -> str:
    """The description of a key; the build stops where it has none."""
    if not known.get(key):
        raise SystemExit(f"docs: {where} has {key}, which has no description: write one")
    return known[key]


# ---- reference ------------------------------------------------------------------------------------------------------


@part
def study_keys() -> str:
    """Keys of a study file."""
    return table(["key", "meaning"], [[code(key), text] for key, text in study.STUDY_KEYS.items()])


@part
def run_keys() -> str:
    """Keys of a run, from the fields of RunSpec and their comments."""
    known = comments(Path(run_spec.__file__), "RunSpec")
    rows = []
    for name, field in run_spec.RunSpec.__dataclass_fields__.items():
        if name == "settings":
            continue
        required = str(field.default).startswith("<dataclasses._MISSING")
        default = "required" if required else {"": "empty", "None": "none", "()": "empty"}.get(str(field.default))
        annotation = field.type if isinstance(field.type, str) else validation._name(field.type)
        text = described("RunSpec", name, known)
        rows.append([code(name), kind(annotation), default or code(field.default), text[0].upper() + text[1:]])
    return table(["key", "type", "default", "meaning"], rows)


@part
def settings(kind_of: str) -> str:
    """Every plug-in of a kind with its settings."""
    return "\n\n".join(_plugin(each) for each in registry.plugins(kind_of).values() if not each.package)


SHARED = {  # settings that several networks have
    "width": "factor of the channels of every stage",
    "times": "whether the parameters or the channels are multiplied",
    "initialisation": "initial weights (B5, B6, C5)",
    "attention": "how self KD's attention at the exits is enlarged (B2)",
    "stem": "3x3 at every image size, or from 224 px on 7x7 with a max-pool (B9)",
    "drop_path": "drop-path rate of the last block; it rises linearly from 0",
    "drop_path_rises": "to the last block's rate, or past it (C6)",
    "distillation_token": "a token and a head of their own for the soft loss (V4)",
    "depth": "number of blocks",
    "dim": "width of the tokens",
}


def _plugin(each: registry.Plugin) -> str:
    known = SHARED if each.kind == "networks" else {}
    known = known | comments(each.path) | arguments(each.docstring) | arguments(_function_docstring(each))
    rows = [
        [
            code(name),
            kind(annotation),
            "required" if default is registry.REQUIRED else code(default) or "none",
            known.get(name, ""),
        ]
        for name, (annotation, default) in each.settings.items()
    ]
    shown = table(["setting", "type", "default", "meaning"], rows) if rows else "No settings."
    return f"### {each.name}\n\n{each.summary}\n\n{shown}"


def _function_docstring(each: registry.Plugin) -> str:
    for node in ast.parse(each.path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == each.attribute:
            return ast.get_docstring(node) or ""
    return ""


@part
def summaries(kind_of: str) -> str:
    """Name and first line of every plug-in of a kind."""
    rows = [[code(each.name), each.summary] for each in registry.plugins(kind_of).values() if not each.package]
    return table(["name", "what it is"], rows)


@part
def command_line() -> str:
    """Every command with its options, from the parser itself."""
    parser = cli._parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found = []
    for name, command in commands.choices.items():
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        rows = [[code(_option(action)), action.help or ""] for action in command._actions if action.dest != "help"]
        found.append(
            f"## {name}\n\n{command.description}\n\n```text\n{usage}\n```\n\n{table(['option', 'meaning'], rows)}"
        )
    return "\n\n".join(found)


def _option(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    value = action.metavar if action.option_strings and action.nargs != 0 else ""
    if action.option_strings and action.nargs != 0 and not value:
        value = action.dest.upper()
    return f"{name} {value}".strip()


COLUMNS = {
    "source": "`ours` or `paper`",
    "study": "name of the study",
    "run": "id of the run, the name of its folder in `results/runs`",
    "dataset": "dataset, with its settings in brackets where they are not the defaults",
    "network": "network that is evaluated, with its settings likewise",
    "teacher": "network of the teacher; in a chain of three, `teacher > assistant`",
    "method": "method, with its settings likewise",
    "interval": "interval in epochs, or `max`; empty for methods without a student",
    "seed": "seed of the run",
    "protocol": "protocols whose switches the run has; `mixed` for a run between two protocols",
    "commit": "commit of the code that made the run",
    "student_steps": "training steps of the network that is evaluated",
    "planned": "seeds that were listed before the first run, if any",
    "only_teacher": "`yes` for a run that no arm of the study asks for, but that is a student's teacher",
    "machine": "kind of machine that trained the run: the GPU's name, or the processor's widest instructions",
    "evaluation": "evaluation: `accuracy`, `training` (loss), `cost`, `schedule`, or the name of a plug-in",
    "metric": "metric of the evaluation; `missing` where a result is not there yet",
    "value": "the number",
    "recipe": "run keys that differ from their defaults, as `key=value` words",
    "selection": "which states: `tail`, `last`, `best`, `halves`, `held_out`, or `curve` (each evaluated epoch)",
    "epoch": "epoch of the number",
    "states": "selection `tail`: number of states whose accuracies are averaged",
    "sigma": "weight noise: standard deviation of the noise",
    "draw": "weight noise: number of the random draw",
    "probes": "Hessian trace: number of probe vectors",
    "stderr": "standard error of the estimate",
    "corruption": "name of the corruption",
    "severity": "severity of the corruption, 1 to 5",
    "epsilon": "attack: radius in steps of 1/255",
    "steps": "attack: iterations",
    "target": "supervision complexity: which target",
    "temperature": "supervision complexity: temperature of the target",
    "teacher_epoch": "supervision complexity: epoch of the teacher",
    "table": "of the paper's numbers: the table that has it",
    "note": "of the paper's numbers: what is doubtful about the cell",
}


@part
def row_columns() -> str:
    """Columns of rows.csv."""
    from spaced_kd.analysis import tidy_rows

    rows = [
        [code(name), "number" if name in tidy_rows.NUMBERS else "text", described("a row", name, COLUMNS)]
        for name in tidy_rows.COLUMNS
    ]
    return table(["column", "type", "meaning"], rows)


PROTOCOLS = ("textbook", "paper", "released", "released_loop_only", "teacher_checkpoints")


@part
def protocols() -> str:
    """Every switch with its value in each protocol, from the protocols' files."""
    loaded = {name: presets.load_protocol(name) for name in sorted(presets.protocol_names(), key=PROTOCOLS.index)}
    found = []
    for method in dict.fromkeys(method for content in loaded.values() for method in content):
        having = {name: content[method] for name, content in loaded.items() if content.get(method)}
        keys = dict.fromkeys(key for given in having.values() for key in given)
        rows = [[code(key), *(_by_kind(given.get(key)) for given in having.values())] for key in keys]
        title = "All methods" if method == "all" else method
        if rows:
            found.append(f"### {title}\n\n" + table(["switch", *map(code, having)], rows))
    return "\n\n".join(found)


def _by_kind(value: object) -> str:
    """A switch's values, each with the conditions under which it holds."""
    if not isinstance(value, dict):
        return "default" if value is None else code(value)
    places: dict[str, list[str]] = {}
    for conditions, leaf in _leaves(value):
        places.setdefault(code(leaf), []).append(" on ".join(conditions).replace("else", "all others"))
    return "; ".join(f"{leaf}: {', '.join(where)}" for leaf, where in places.items())


def _leaves(value: dict) -> Iterator[tuple[list[str], object]]:
    """Conditions and value, at every depth."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from (([str(key), *more], leaf) for more, leaf in _leaves(item))
        else:
            yield [str(key)], item


@part
def readings() -> str:
    """Every switch in the three readings, each value with the reason that its file gives."""
    names = PROTOCOLS[:3]
    files = {name: _reasons(presets.PROTOCOLS / f"{name}.yaml") for name in names}
    found = []
    for method in ("all", "online_kd", "self_kd"):
        given = {name: presets.load_protocol(name).get(method) or {} for name in names}
        rows = []
        for key in dict.fromkeys(key for each in given.values() for key in each):
            cells = [f"{_by_kind(given[name].get(key))}{_small(files[name].get((method, key), ''))}" for name in names]
            rows.append([code(key), *cells])
        title = "All methods" if method == "all" else method
        found.append(f"### {title}\n\n" + table(["switch", *names], rows))
    return '<div class="wide" markdown>\n\n' + "\n\n".join(found) + "\n</div>"


def _small(reason: str) -> str:
    return f"<br><small>{reason}</small>" if reason else ""


def _reasons(path: Path) -> dict[tuple[str, str], str]:
    """(method, switch) -> comment on the line of the switch, or on the lines that continue its value."""
    found: dict[tuple[str, str], str] = {}
    method = key = ""
    for line in path.read_text().splitlines():
        text, _, comment = line.partition(" # ")
        if top := re.match(r"(\w+):", text):
            method = top[1]
        elif switch := re.match(r"  ([\w.]+):", text):
            key = switch[1]
        if comment and line.startswith("  "):
            found[method, key] = "; ".join(filter(None, [found.get((method, key), ""), comment.strip()]))
    return found


@part
def shipped(folder: str) -> str:
    """The studies of a folder, with the comment that each begins with."""
    rows = []
    for path in sorted((ROOT / "config" / folder).glob("*.yaml")):
        head = re.match(r"(?:# .*\n)+", path.read_text())
        text = re.sub(r" *Letters: [^.]*\.md\.| *What every key means: [^.]*\.md\.", "", head[0]) if head else ""
        text = " ".join(text.removeprefix("# ").replace("\n# ", " ").split())
        rows.append([code(f"config/{folder}/{path.name}"), text])
    return table(["file", "what it is"], rows)


@part
def claims() -> str:
    """The claims of the claims file."""
    content = yaml.safe_load((ROOT / "src/spaced_kd/config/preset_files/claims.yaml").read_text())["claims"]
    rows = [[code(name), _sentence(each["sentence"]), each["place"]] for name, each in content.items()]
    return table(["claim", "sentence", "place in the paper"], rows)


def _sentence(text: str) -> str:
    return re.sub(r"{(\w+)}", r"*\1*", text)


CONTRACTS = {  # kind -> what the file gives
    "datasets": (
        "functions `prepare`, `shape`, `augment`; constants `MEAN`, `STD`; optionally `download`",
        "arrays of images and labels",
    ),
    "networks": (
        "functions of `(classes, image_size, *, exits=False, ...)`; `BATCH_NORM = False` where there is none",
        "logits, or exits",
    ),
    "methods": ("one frozen dataclass with `roles`, `schedule`, `terms`", "the order of learning, and loss terms"),
    "evaluations": ("function `evaluate(network, data, *, seed, ...)`", "rows"),
    "tables": ("function `table(rows)`", "a DataFrame of text"),
    "figures": ("function `figure(rows)`", "a matplotlib Figure"),
}


@part
def contracts() -> str:
    """What a file of each kind gives, and its entry-point group."""
    rows = [
        [kind_of, code(f"src/{_folder(kind_of)}/"), code(f"spaced_kd.{kind_of}"), *CONTRACTS[kind_of]]
        for kind_of in registry.KINDS
    ]
    return table(["kind", "folder", "entry-point group", "contents", "returns"], rows)


@part
def method_defaults() -> str:
    """What a method may override: its default and meaning in the contract, and a method that has another."""
    path = registry.CONTRACT
    (contract,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
    known, users = comments(path, contract.name), _users_of_methods()
    rows = []
    for item in contract.body:
        if isinstance(item, ast.AnnAssign) and item.value:
            name, shown = ast.unparse(item.target), code(ast.literal_eval(item.value)) or "empty"
            text = described("Method", name, known)
        elif isinstance(item, ast.FunctionDef) and item.name not in ("schedule", "terms"):
            arguments = ", ".join(argument.arg for argument in item.args.args[1:])
            name, shown, text = item.name, "", ast.get_docstring(item) or ""
            rows.append([code(f"{name}({arguments})"), shown, text, code(users.get(name, ""))])
            continue
        else:
            continue
        rows.append([code(name), shown, text, code(users.get(name, ""))])
    return table(["name", "default", "meaning", "example"], rows)


def _users_of_methods() -> dict[str, str]:
    """Name -> the file of a shipped method that has it."""
    found: dict[str, str] = {}
    for each in registry.plugins("methods").values():
        tree = ast.parse(each.path.read_text())
        (node,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == each.attribute)
        for item in node.body:
            name = ast.unparse(item.target) if isinstance(item, ast.AnnAssign) else getattr(item, "name", "")
            found.setdefault(name, each.path.name)
    return found


def _folder(kind_of: str) -> Path:
    first = next(each for each in registry.plugins(kind_of).values() if not each.package)
    return first.path.parent.relative_to(ROOT / "src")


SWITCHES = {  # switch -> (letters, what it changes)
    "method.soft_loss": (
        "O1, S8, V3",
        "the released code passes probabilities to `KLDivLoss`, which expects log-probabilities"
        " (`kl_of_probabilities`); its self KD uses the soft cross-entropy, which has the same gradient as `kl`; its"
        " transformers divide by batch × classes (`kl_per_logit`)",
    ),
    "method.square_temperature": ("O2, S8", "factor T² before the soft loss"),
    "method.feature_loss": (
        "O4, S9",
        "`dist` is the norm over the whole batch; its gradient has norm 1 for every batch size",
    ),
    "method.adapter": (
        "O5, B1",
        "layer from student to teacher features: linear where widths differ, or always: linear in self KD"
        " (`linear_always`), Linear-ReLU-Linear in online KD (`mlp`)",
    ),
    "method.target": ("O6", "`before`: targets of the teacher before its update on the student's block"),
    "method.teacher_mode": ("O7, V6", "`train`: targets with the statistics of the batch and with drop-path"),
    "initial_weights": ("O9, V12", "whether teacher and student have the same initial weights"),
    "method.last_block": (
        "O10, S6, V10",
        "`dropped`: the student does not learn the last block if the interval does not divide the training",
    ),
    "clock": (
        "O10, V13",
        "`teacher`: the student is evaluated at the end of the teacher's epochs, even if it has not learnt since",
    ),
    "method.student_batches": ("O12, V1", "`new`: the student learns other batches than its teacher"),
    "batch_norm": ("O15", "`halves`: statistics over each half of the batch, as on two GPUs with DataParallel"),
    "method.reported_head": ("S3", "self KD: the deepest head, or the mean of all heads' logits"),
    "method.first_block": ("S6", "self KD: length of the first block"),
    "method.trigger_batch": (
        "S7, B3",
        "self KD: whether the batch that ends a block also has a step of the deepest head alone, or a forward pass"
        " without an update (`looked_at`)",
    ),
    "method.feature_skips": ("S9", "self KD: the exit without a feature loss"),
    "method.idle_heads": (
        "S10, B4",
        "self KD: whether idle shallow heads are run, so that their statistics move, and whether they keep moving by"
        " momentum and weight decay as well",
    ),
    "augmentation": ("S1, V11", "augmentation of training images"),
    "method.optimizers": (
        "V2",
        "`one`: teacher and student share an AdamW; the idle network gets gradients of zero, so weight decay and"
        " momentum go on",
    ),
    "method.temperature": ("V3", "temperature of the soft loss"),
    "method.alpha": ("V3", "weight of the soft loss"),
    "method.beta": ("V3", "weight of the feature loss"),
    "network.distillation_token": (
        "V4",
        "DeiT: a token and a head of their own for the soft loss; the mean of both heads is evaluated",
    ),
    "method.second_forward": (
        "V5",
        "PiT: the soft loss uses a forward pass of its own, with other drop-path masks",
    ),
    "method.joint_backward": ("V7", "one backward pass for teacher and student"),
    "method.extra_step": ("V10", "one more student step after each block"),
    "network.initialisation": (
        "B5, B6, C5",
        "initial weights: of ResNets Kaiming (fan out), torch's own, or Kaiming for the exits as well; of transformers"
        " timm's, or heads that start at 0",
    ),
    "network.attention": (
        "B2",
        "self KD of ResNets: how the attention of an exit is enlarged; bilinear with one more batch norm before",
    ),
    "network.stem": (
        "B9",
        "ResNets at 224 px: a stem of 7x7 and a max-pool, or the 3x3 of smaller images",
    ),
    "rotation": ("B9", "ImageNet: random rotation of training images, in degrees at most"),
    "standardisation": (
        "S1, B8, C7",
        "mean and deviation by which images are standardised: the dataset's own, ImageNet's or CIFAR-10's",
    ),
    "weight_decay_on": (
        "C1",
        "weight decay on all parameters, or not on biases, normalisations, tokens and position embeddings",
    ),
    "lr_clock": ("C2", "one learning rate per step, or per epoch of the data"),
    "warmup_lr": ("C2", "learning rate at which warm-up starts"),
    "last_batch": ("C3", "whether the smaller last batch of an epoch is used"),
    "interval_rounding": ("C4", "rounding of the interval to whole batches"),
    "network.drop_path_rises": ("C6", "PiT: drop-path of block *i* of 12 is 0.1 × *i* / 11, or 0.1 × *i* / 12"),
}


@part
def switch_descriptions() -> str:
    """Every switch that a protocol sets, with what it changes."""
    named = {
        key
        for name in presets.protocol_names()
        for given in presets.load_protocol(name).values()
        for key in given or {}
    }
    for key in sorted(named):
        described("a protocol", key, {name: text for name, (_, text) in SWITCHES.items()})
    rows = [[code(key), letters, text] for key, (letters, text) in SWITCHES.items()]
    return table(["switch", "letters", "what it changes"], rows)


@part
def recorded_theory() -> str:
    """The table `theory`, from its recorded rows."""
    return _drawn("theory", [ROOT / "results" / "recorded" / "theory" / "rows.csv"])


# ---- data -----------------------------------------------------------------------------------------------------------


@part
def dataset(name: str) -> str:
    """Facts about a dataset from its module: numbers of images, mirrors, checksums, standardisation."""
    module = registry.find("datasets", name)
    shape = module.shape()
    rows = [
        ["training images", f"{shape[0]:,}"],
        ["test images", f"{shape[1]:,}"],
        ["classes", str(shape[2])],
        ["size in pixels", f"{shape[3]} x {shape[3]}"],
        ["mean per channel", ", ".join(map(str, module.MEAN))],
        ["standard deviation per channel", ", ".join(map(str, module.STD))],
    ]
    rows += [[f"mirror {number}", code(address)] for number, address in enumerate(getattr(module, "MIRRORS", ()), 1)]
    if hasattr(module, "SHA256"):
        rows.append(["SHA-256 of the archive", code(module.SHA256)])
    for file, digest in getattr(module, "MD5", {}).items():
        rows.append([f"MD5 of `{file}`", code(digest)])
    return table(["fact", "value"], rows)


# ---- pictures -------------------------------------------------------------------------------------------------------


@part
def schedule_picture() -> str:
    """Online, Spaced and offline KD over six batches, drawn from the schedule itself."""
    from spaced_kd.distillation.schedule import turns

    total, size, top = 6, 30, 26
    pictures = []
    for title, interval in (("Online KD, s = 0", 1), ("Spaced KD, s = 3 batches", 3), ("Offline KD, s = max", total)):
        order = list(turns(total, interval))
        boxes = [
            f'<rect class="turn {who}" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" rx="4"/>'
            f'<text class="number" x="{x + size / 2 - 1}" y="{y + 19}">{index}</text>'
            for column, (who, index) in enumerate(order)
            for x, y in [(80 + column * size, top + (who == "student") * size)]
        ]
        label = ", ".join(f"{who} {index}" for who, index in order)
        pictures.append(
            f'<svg class="schedule" viewBox="0 0 {84 + len(order) * size} {top + 2 * size}" role="img"'
            f' aria-label="{title}: {label}"><text class="title" x="0" y="14">{title}</text>'
            f'<text x="0" y="{top + 19}">teacher</text><text x="0" y="{top + size + 19}">student</text>'
            f"{''.join(boxes)}</svg>"
        )
    return '<div class="schedules">' + "".join(pictures) + "</div>"


# ---- results --------------------------------------------------------------------------------------------------------


@part
def recorded(name: str, *studies: str) -> str:
    """A table of the suite, drawn from recorded rows of some studies."""
    return _drawn(name, [ROOT / "results" / "recorded" / study / "rows.csv" for study in studies])


def _drawn(name: str, paths: list[Path]) -> str:
    from spaced_kd.analysis import reference, render, tidy_rows

    rows = tidy_rows.beside(
        tidy_rows.read(*paths), reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")
    )
    made = render.table_files(name, render.caption(name), registry.find("tables", name)(rows))
    return f'<div class="wide" markdown>\n\n{made["md"].decode()}\n</div>'


@part
def benchmarks() -> str:
    """The recorded measurements of speed."""
    sys.path.insert(0, str(ROOT))
    goals = importlib.import_module("benchmarks.targets")
    return f'<div class="wide" markdown>\n\n{goals.page(goals.read())}\n</div>'
