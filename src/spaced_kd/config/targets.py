"""Targets of the workflow: tables, figures and runs by name; an unknown one is refused with the known names."""

import re
from collections.abc import Collection, Iterable

from spaced_kd.config import registry
from spaced_kd.utils.errors import UserError

FILE = re.compile(r"(?:\./)?results/(?:[^/]+/)+(tables|figures)/([^/.]+)\.\w+")  # of a study, or of its experiment
RUN = re.compile(r"(?:\./)?results/(?:runs/([^/]+)/[^/]+|(?:[^/]+/)+evaluations/([^/]+)\.json)")
NAME = re.compile(r"(?:tab|fig)_?\w+")  # certainly meant as a target; other arguments may be anything
PATHS = ("--profile", "--workflow-profile", "--directory", "-d", "--snakefile", "-s")  # options whose value is a path
DRAWN = ("tables", "figures")
JUDGE = ("scorecard", "overview", "fig_overview")  # tables and figures of verdicts on the paper's claims


def judged(drawn: Iterable[str]) -> bool:
    """Whether a study that draws these shows verdicts, and so has a results page."""
    return bool({*JUDGE} & {*drawn})


def check(arguments: Iterable[str], runs: Collection[str]) -> None:
    """UserError for a table, figure or run that does not exist, with the known names.

    Snakemake's own message gives neither the reason nor a similar name.

    Args:
        arguments: of Snakemake's command line.
        runs: ids of the study's runs.
    """
    arguments = list(arguments)
    for before, word in zip(["", *arguments], arguments, strict=False):
        if found := FILE.fullmatch(word):
            registry.plugin(*found.groups())
        elif (found := RUN.fullmatch(word)) and (run := found[1] or found[2]) not in runs:
            raise UserError(f"the study has no run {run!r}{registry.hint(run, runs) or ': it lists others'}")
        elif NAME.fullmatch(word) and before not in PATHS:
            known = [name for kind in DRAWN for name in registry.names(kind)]
            if word not in known:
                raise UserError(
                    f"{word!r} is none of the tables and figures: {', '.join(known)}{registry.hint(word, known)}"
                )
