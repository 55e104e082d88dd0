"""YAML values as settings have them; unlike YAML 1.1, 5e-4 is a number."""

import re
from typing import Any

from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError


def parse_override(override: str) -> tuple[str, Any]:
    """`key=value` with the value read as YAML (1e-3 counts as a number)."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is not of the form key=value")
    return key, read_value(text)


def read_value(text: str) -> Any:
    """One YAML value; unlike YAML 1.1, numbers like 5e-4 are numbers."""
    return numbers(yaml_files.parse_value(text))


def numbers(value: Any, what: Any = "it") -> Any:
    """Convert strings such as 5e-4, which YAML 1.1 does not read as numbers, to the numbers that they denote.

    UserError for a value that no setting can have, such as a date; `what` is its key.
    """
    if isinstance(value, dict):
        return {key: numbers(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item, what) for item in value]
    if not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise UserError(f"{what} is {value!s:.50} ({kind}), but must be text, a number, yes or no: put it in quotes")
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)e[-+]?[0-9]+", re.I)


def mapping(key: str, value: Any) -> dict[str, Any]:
    """A key's mapping, empty for None; UserError for another value, or for keys that are not words."""
    if not isinstance(value or {}, dict):
        raise UserError(f"{key} is {value!r:.200}, but must be a mapping")
    for name in value or {}:
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UserError(f"{key} has the key {name!r:.200}, but keys must be words")
    return value or {}


def sequence(key: str, value: Any) -> list[Any]:
    """A key's list; UserError for another value."""
    if not isinstance(value, list):
        raise UserError(f"{key} is {value!r:.200}, but must be a list")
    return value
