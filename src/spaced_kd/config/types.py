"""Values checked against the annotations of plug-ins and fields, and against ranges."""

import ast
import sys
from functools import cache
from typing import Any

from spaced_kd.utils.errors import UserError

LARGEST = 3.4e38  # in float32, in which networks compute
MOST = 2**63 - 1  # in an int64


def check_type(key: str, value: Any, annotation: str) -> Any:
    """`value` if it has the annotated type (an int passes as float, a list as tuple), else UserError with the key."""
    for option in annotation.split(" | "):
        if option.startswith("Literal["):
            choices = _choices(option)
            if any(value == choice and type(value) is type(choice) for choice in choices):
                return value
            annotation = annotation.replace(option, " or ".join(map(str, choices)))
        elif option.startswith("tuple["):
            if isinstance(value, list | tuple):
                inner = option[len("tuple[") :].split(",")[0]
                return tuple(check_type(key, item, inner) for item in value)
        elif option == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            if not -sys.float_info.max <= value <= sys.float_info.max:
                raise UserError(f"{key} is {value!r:.200}, but must be a finite number")
            if abs(value) > LARGEST:
                raise UserError(
                    f"{key} is {value!r:.200}, but must be at most {LARGEST:g} in size, as float32 holds it"
                )
            return float(value)
        elif option == "None" and value is None:
            return None
        elif type(value).__name__ == option:
            if option == "int" and abs(value) > MOST:
                raise UserError(f"{key} is {value!r:.200}, but must be at most {MOST} in size, as 64 bits hold it")
            return value
    raise UserError(f"{key} is {value!r:.200}, but must be {_in_words(annotation)}")


def check_range(key: str, value: Any, allowed: str | tuple[Any, ...]) -> None:
    """UserError unless the value, or each of a list, lies in the interval or is one of the choices."""
    several = isinstance(value, tuple)
    values = value if several else (value,)
    if not values:
        raise UserError(f"{key} is an empty list: name what is meant, or leave the key out")
    if len(set(values)) < len(values):
        raise UserError(f"{key} lists a value twice: {list(values)!r:.200}")
    wanted = f"in {allowed}" if isinstance(allowed, str) else f"one of {', '.join(map(str, allowed))}"
    for each in values:
        if not (within(each, allowed) if isinstance(allowed, str) else each in allowed):
            raise UserError(f"{key} {'has' if several else 'is'} {each!r:.200}, but must be {wanted}")


def within(value: float, interval: str) -> bool:
    """Whether a number lies in an interval, given in mathematical notation.

    >>> within(1, "[1, inf)"), within(0, "(0, 255]")
    (True, False)
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    return (low <= value if interval[0] == "[" else low < value) and (
        value <= high if interval[-1] == "]" else value < high
    )


@cache
def _choices(option: str) -> list[Any]:
    """Values of a Literal annotation; cached, since each run of a study is checked against it."""
    found: list[Any] = ast.literal_eval(option.removeprefix("Literal"))
    return found


def _in_words(annotation: str) -> str:
    """E.g. "float | None" is "a number or none"."""
    words = {
        "float": "a number",
        "int": "a whole number",
        "bool": "true or false",
        "str": "a word",
        "list": "a list",
        "None": "none",
    }
    kinds = []
    for option in annotation.split(" | "):
        inner = option.removeprefix("tuple[").split(",")[0]
        kinds.append(f"a list, each {words.get(inner, inner)}" if option != inner else words.get(option, option))
    return " or ".join(kinds)
