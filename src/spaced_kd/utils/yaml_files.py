"""YAML files and values, read by one safe loader that refuses text whose meaning in YAML 1.1 is not the apparent one.

YAML silently keeps only the last of several equal keys, and version 1.1 reads 010 as 8 and 1:30 as 90.
"""

import re
from pathlib import Path
from typing import Any, TextIO

import yaml

from spaced_kd.utils.errors import UserError

# errors of reading YAML; ValueError for a date that does not exist and for bytes that are not text
NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
OCTAL, SEXAGESIMAL = re.compile(r"[-+]?0[0-9_]+"), re.compile(r"[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?")
MERGE = "tag:yaml.org,2002:merge"


class _AmbiguousError(Exception):
    """YAML reads the text as another value than the apparent one."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line + 1


class _Loader(yaml.SafeLoader):
    """Builds plain values only; refuses repeated keys, and numbers that YAML 1.1 reads in base 8 or 60."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # before merged keys are added to its own
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                line = key.start_mark.line
                if key.value in lines:
                    raise _AmbiguousError(f"{key.value!r:.100} is given twice, first in line {lines[key.value]}", line)
                lines[key.value] = line + 1
        return node

    def construct_yaml_number(self, node: yaml.ScalarNode) -> int | float:
        read = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        value = read(node)
        text = str(node.value)
        if (OCTAL.fullmatch(text) and node.tag.endswith(":int")) or SEXAGESIMAL.fullmatch(text):
            raise _AmbiguousError(
                f"{text} is {value} in YAML: write the number that is meant, or quotes", node.start_mark.line
            )
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_yaml_number)


def read(path: Path, remedy: str = "name another file") -> Any:
    """Content of a YAML file in UTF-8; UserError names the file and, if known, the line."""
    try:
        return parse(path.read_text("utf-8"), path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML: {error}") from None


def parse(text: str | TextIO, where: Path | str) -> Any:
    """Value of a YAML text, or of an open file; UserError names its source `where` and the line."""
    try:
        return _value(text)
    except _AmbiguousError as error:
        raise UserError(f"{where}: line {error.line}: {error}") from None
    except NO_YAML as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def parse_value(text: str) -> Any:
    """Value of one argument of a command line."""
    try:
        return _value(text)
    except _AmbiguousError as error:
        raise UserError(f"{text!r}: {error}") from None
    except NO_YAML:
        raise UserError(f"{text!r} cannot be read as a YAML value") from None


def _value(text: str | TextIO) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def text(content: Any) -> str:
    """Plain values as YAML text, keys in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
