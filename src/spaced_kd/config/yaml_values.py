"""YAML values as settings have them; unlike YAML 1.1, 5e-4 is a number."""

import re
from typing import Any

from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError


def parse_word(word: str) -> tuple[str, Any]:
    """`key=value` with the value read as YAML (1e-3 counts as a number)."""
    key, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"{word!r} is not of the form key=value")
    return key, read_value(text)


def read_value(text: str) -> Any:
    """One YAML value; unlike YAML 1.1, numbers like 5e-4 are numbers."""
    return numbers(yaml_files.parse_word(text))


def numbers(value: Any, what: Any = "it") -> Any:
    """YAML 1.1 reads 5e-4 as a string: read such strings as the numbers that they look like.

    UserError for what YAML has and settings have not, such as a date; `what` is the key that it belongs to.
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
