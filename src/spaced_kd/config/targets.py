"""What the workflow is asked for: tables and figures by name, refused by name where there are none."""

import re
from collections.abc import Collection, Iterable

from spaced_kd.config import registry
from spaced_kd.utils.errors import UserError

FILE = re.compile(r"(?:\./)?results/(?:[^/]+/)+(tables|figures)/([^/.]+)\.\w+")  # of a study, or of its experiment
RUN = re.compile(r"(?:\./)?results/(?:runs/([^/]+)/[^/]+|(?:[^/]+/)+evaluations/([^/]+)\.json)")
NAME = re.compile(r"(?:tab|fig)_?\w+")  # a target by itself; other words may be anything
PATHS = ("--profile", "--workflow-profile", "--directory", "-d", "--snakefile", "-s")  # options before one
DRAWN = ("tables", "figures")
JUDGE = ("scorecard", "overview", "fig_overview")  # tables and figures that say what becomes of the paper's claims


def judged(drawn: Iterable[str]) -> bool:
    """Whether a study that draws these asks for verdicts: it has a page of results then."""
    return bool({*JUDGE} & {*drawn})


def check(words: Iterable[str], runs: Collection[str]) -> None:
    """UserError for a table, figure or run that does not exist, with the names that do; `words` of a command line.

    `runs` are the ids of the study's runs.

    Snakemake says of any target that no rule makes it, and neither why nor what is near.
    """
    words = list(words)
    for before, word in zip(["", *words], words, strict=False):
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
