"""Options that several commands of `spaced-kd` have."""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

RENAMED = {"--leave": "--save-states-for"}  # old name, which still works -> name


def command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """Adds a command with the options that every command has."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.register("action", None, _Once)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results (results)")
    parser.set_defaults(run=run)
    return parser


class _Once(argparse.Action):
    """Stores an option's value and refuses a repeated option, of which argparse would keep only the last."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = vars(namespace).setdefault("given", set())
        if option_string and self.dest in given:
            raise argparse.ArgumentError(self, "is given twice: leave one of them out")
        given.add(self.dest)
        if option_string in RENAMED:
            warnings.warn(f"{option_string} is now {RENAMED[option_string]}: write that instead", stacklevel=1)
        setattr(namespace, self.dest, values)


def workers(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --workers; `what` ends the sentence of its help."""
    parser.add_argument("--workers", type=at_least(0), metavar="N", help=f"processes that {what}")


def device(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU where there is one)")


def at_least(least: float) -> Callable[[str], float]:
    """A reader of numbers of the type of `least` that are not smaller than it."""

    def read(text: str) -> float:
        value = type(least)(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    read.__name__ = "whole number" if isinstance(least, int) else "number"  # in argparse's own messages
    return read
