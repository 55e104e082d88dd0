"""`spaced-kd run STUDY`: Snakemake with the workflow, the profile and the study filled in."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from spaced_kd.cli import study_folder
from spaced_kd.cli.options import command
from spaced_kd.config import extras, registry, shipped
from spaced_kd.utils.errors import UserError

PROFILE = Path("profiles", "default")  # which Snakemake finds by itself in the working directory


def add_run(commands: Any) -> None:
    """Adds the command `run`."""
    run = command(commands, "run", _run, "run a study by Snakemake, in this folder or in one that `init` wrote")
    run.add_argument("study", metavar="STUDY", help="a YAML file, a folder of `init`, or a study of the package: demo")
    run.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTION", help="Snakemake's own, passed on: -n --cores 4 tab01"
    )


def snakemake_arguments(study: str, options: list[str]) -> list[str]:
    """Arguments of Snakemake for a study.

    Args:
        study: a YAML file, a folder that `init` wrote, or the name of a study or experiment of the package.
        options: Snakemake's own.

    Raises:
        UserError: there is no such study.
    """
    path = Path(study)
    if path.is_dir():
        if not (path / "Snakefile").is_file():
            raise UserError(f"{study} has no Snakefile: name a folder that `spaced-kd init` wrote, or a YAML file")
        return [*options, "--directory", study, "--snakefile", str(path / "Snakefile"), *_profile(path)]
    if not path.is_file():
        known = study_folder.names()
        if study not in known:
            raise UserError(
                f"{study} is not a file, a folder or a study of the package{registry.hint(study, known)}: name one,"
                " such as demo"
            )
        path = known[study]
    return [*options, "--snakefile", str(shipped.SNAKEFILE), *_profile(Path()), "--configfile", str(path)]


def _profile(folder: Path) -> list[str]:
    """The default profile, where the folder has none of its own."""
    if (folder / PROFILE).is_dir():
        return ["--workflow-profile", str(folder / PROFILE)]
    return ["--workflow-profile", str(shipped.PROFILES / "default")]


def _run(arguments: argparse.Namespace) -> None:
    if arguments.results != Path("results"):
        raise UserError("--results is not for `run`: write results elsewhere by `--directory FOLDER` after the study")
    command = snakemake_arguments(arguments.study, arguments.options)
    if importlib.util.find_spec("snakemake") is None:
        raise UserError(extras.remedy("snakemake"))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *command])
