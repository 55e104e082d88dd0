"""The JSON schema of a study (draft 2020-12), with which editors complete keys and mark misspelt ones.

It is generated from STUDY_KEYS, the fields of `RunSpec` and the settings of the plug-ins, and checks names, types,
choices and ranges. Conditions between keys are checked when a study is read, as by `spaced-kd plan`.

    python -m spaced_kd.config.schema > workflow/schemas/study.schema.json
"""

import ast
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from spaced_kd.config import presets, registry
from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import STUDY_KEYS
from spaced_kd.config.tuning import NO_TRIALS
from spaced_kd.config.validation import POSITIVE, _name

Schema = dict[str, Any]
PLAIN: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "None": {"type": "null"},
}
WORDS: Schema = {"type": "array", "items": {"type": "string"}}
SEEDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}


def of_study() -> Schema:
    """The schema of a file of config/studies or config/experiments."""
    evaluations = {name: _settings("evaluations", name) for name in registry.names("evaluations")}
    values: dict[str, Schema] = {
        "study": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        "data": PLAIN["str"],
        "store_teachers": PLAIN["bool"],
        "train_together": PLAIN["bool"],
        "planned_seeds": SEEDS,
        "recipes": {"type": "object", "additionalProperties": {"$ref": "#/$defs/recipe"}},
        "grids": {"type": "array", "items": {"$ref": "#/$defs/grid"}, "minItems": 1},
        "evaluations": _object(evaluations),
        "tables": {"type": "array", "items": {"enum": registry.names("tables")}},
        "figures": {"type": "array", "items": {"enum": registry.names("figures")}},
        "experiments": WORDS | {"minItems": 1},
    }
    run = _run()
    one = {key: {"$ref": f"#/$defs/{key}"} for key in run}
    axes = {key: {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]} for key, value in one.items()}
    whole = {"planned_seeds": SEEDS, "evaluate": {"anyOf": [{"const": "all"}, WORDS]}}
    recipe = {"anyOf": [PLAIN["str"], {"$ref": "#/$defs/recipe"}]}
    axes["recipe"] = {"anyOf": [recipe, {"type": "array", "items": recipe}]}
    arms = {"type": "array", "items": _object(axes | whole)}
    tried = {
        key: {"type": "array", "items": one[key], "minItems": 2} for key in one if key not in (*NO_TRIALS, *PLUGINS)
    }
    tune = _object(tried) | {"minProperties": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of spaced_kd",
        **_object({key: {"description": text} | values[key] for key, text in STUDY_KEYS.items()}),
        "required": ["study"],
        "$defs": {"grid": _object(axes | whole | {"arms": arms, "tune": tune}), "recipe": _object(one), **run},
    }


def _run() -> dict[str, Schema]:
    """Keys of a run -> schema of one value of each: fields, plug-ins with their settings, settings alone."""
    found = {f.name: _field(f.name, _name(f.type)) for f in fields(RunSpec) if f.name not in (*PLUGINS, "settings")}
    found["protocol"] = {"enum": presets.protocol_names()}
    for role, kind in PLUGINS.items():
        names = registry.names(kind)
        settings = {name: _settings(kind, name) for name in names}
        single = _object(settings) | {"minProperties": 1, "maxProperties": 1}
        found[role] = {"anyOf": [{"enum": names}, single]}
        for setting in sorted({key for name in names for key in settings[name]["properties"]}):
            own = [settings[name]["properties"].get(setting) for name in names]
            found[f"{role}.{setting}"] = _any(each for each in own if each)
    return found


def _field(name: str, annotation: str) -> Schema:
    if name == "interval":
        return {"anyOf": [{"type": "number", "minimum": 0}, {"const": "max"}]}
    positive = {"exclusiveMinimum": 0} if name in POSITIVE else {}
    return _value(annotation) | positive


def _settings(kind: str, name: str) -> Schema:
    """A plug-in's settings, all of which may be omitted: `bim:` without a value is accepted, too."""
    plugin = registry.plugin(kind, name)
    ranges = plugin.constants.get("RANGES", {})
    own = {key: _value(annotation, ranges.get(key)) for key, (annotation, _) in plugin.settings.items()}
    return _object(own) | {"type": ["object", "null"]}


def _value(annotation: str, allowed: str | tuple[Any, ...] | None = None) -> Schema:
    """The schema of an annotation such as "float | None", within a range as RANGES has it.

    >>> _value("float", "(0, 255]")
    {'type': 'number', 'exclusiveMinimum': 0.0, 'maximum': 255.0}
    >>> _value("Literal['kl', 'ce'] | None")
    {'anyOf': [{'enum': ['kl', 'ce']}, {'type': 'null'}]}
    """
    return _any(_option(option, allowed) for option in annotation.split(" | "))


def _option(option: str, allowed: str | tuple[Any, ...] | None) -> Schema:
    if option.startswith("Literal["):
        choices = ast.literal_eval(option.removeprefix("Literal"))
        return {"enum": list(choices)}
    if option.startswith("tuple["):
        inner = option[len("tuple[") :].split(",")[0].rstrip("]")
        return {"type": "array", "items": _option(inner, allowed)}
    if option == "None" or allowed is None:
        return PLAIN.get(option, {})
    return {"enum": list(allowed)} if isinstance(allowed, tuple) else PLAIN.get(option, {}) | _limits(allowed)


def _limits(interval: str) -> Schema:
    """Limits of an interval in mathematical notation, such as "[1, inf)"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    found = {}
    if low != float("-inf"):
        found["minimum" if interval[0] == "[" else "exclusiveMinimum"] = low
    if high != float("inf"):
        found["maximum" if interval[-1] == "]" else "exclusiveMaximum"] = high
    return found


def _any(options: Iterable[Schema]) -> Schema:
    """Any one of several schemas, without repetitions."""
    different = list({json.dumps(option, sort_keys=True): option for option in options}.values())
    return different[0] if len(different) == 1 else {"anyOf": different}


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def text() -> str:
    """The schema as the text of the file."""
    return json.dumps(of_study(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
