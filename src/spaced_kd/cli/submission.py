"""A study's results as one folder for a pull request: written by `submit`, checked by `check-submission`."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandas import DataFrame

import spaced_kd
from spaced_kd.analysis import collect, tidy_rows
from spaced_kd.analysis.arms import SPACED
from spaced_kd.analysis.reference import read_reference
from spaced_kd.cli import verify
from spaced_kd.config import presets, registry
from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.study import Study, load_study
from spaced_kd.sharing import card, checksums, get, share
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely

ABOUT = "submission.json"
FILES = ("study.yaml", "rows.csv", "runs.json", ABOUT)
SETTING = ("dataset", "network", "recipe")  # columns in which a method has to agree with Spaced KD


def submit(config: Path, to: Path, results: Path, *, licence: str = card.LICENCE) -> None:
    """Write a new folder with a finished study: its file, rows, runs, evaluations, and the packages of its plug-ins.

    Raises:
        UserError: a run or evaluation is missing, or the folder exists; nothing is written then.
    """
    study = load_study(config)
    if study.experiments:
        raise UserError(f"{config} has experiments: submit the file of one of them, as config/experiments/tab04.yaml")
    if to.exists() or not to.absolute().parent.is_dir():
        raise UserError(f"{to} exists, or its folder does not: name a new folder")
    rows = collect.collect_rows(study, results)
    if len(missing := rows[rows["metric"] == "missing"]):
        run, what = missing[["run", "evaluation"]].iloc[0]
        raise UserError(f"{what} of {run} is missing ({len(missing)} results are): finish the study, then submit it")
    with tempfile.TemporaryDirectory(prefix=".spaced-kd-", dir=to.absolute().parent) as scratch:
        folder = Path(scratch) / "submission"
        for run in study.runs:
            share.write(run, folder / "runs" / run.id, results, licence=licence)
        evaluations = results / study.name / "evaluations"
        if evaluations.is_dir():
            shutil.copytree(evaluations, folder / "evaluations")
        shutil.copyfile(config, folder / "study.yaml")
        tidy_rows.write(rows, folder / "rows.csv")
        write_safely(folder / "runs.json", json.dumps(collect.descriptions(study, results), indent=1).encode())
        about = {"study": study.name, "spaced_kd": spaced_kd.__version__, "plugins": plugins_of(study)}
        write_safely(folder / ABOUT, json.dumps(about, indent=1).encode())
        checksums.write(folder)
        folder.rename(to)


def plugins_of(study: Study) -> list[dict[str, str]]:
    """Plug-ins of other packages that a study's runs or evaluations have."""
    used = {(kind, getattr(run, role)) for run in study.runs for role, kind in PLUGINS.items() if getattr(run, role)}
    used |= {("evaluations", name) for name in study.evaluations}
    found = [(kind, name, registry.plugin(kind, name).package) for kind, name in sorted(used)]
    return [{"kind": kind, "name": name, "package": package} for kind, name, package in found if package]


class Submission:
    """A submitted folder.

    Args:
        folder: what `submit` wrote.
        against: rows.csv of published studies, whose methods stand beside the submitted ones.

    Raises:
        UserError: a file is not the submitted one, a plug-in's package is not installed, or a run of the study is
            missing.
    """

    def __init__(self, folder: Path, against: list[Path]) -> None:
        self.folder, self.against = folder, against
        if lacking := {*FILES} - {*checksums.check(folder)}:
            raise UserError(f"{folder} lacks {min(lacking)}: write it by `spaced-kd submit`")
        _check_installed(folder / ABOUT)
        self.study = load_study(folder / "study.yaml")
        for run in self.study.runs:
            own = folder / "runs" / run.id
            if not own.is_dir():
                raise UserError(f"{folder} lacks seed {run.seed} of {run.method}, {own.name}: train it, submit again")
            get.checked(own)

    def findings(self, data: Path, *, reevaluate: bool, device: str) -> Iterator[str]:
        """Findings: those of `verify`, and differences from the setting of Spaced KD.

        Args:
            data: folder of prepared data.
            reevaluate: predict every test image again with every network.
            device: where; auto, cpu, cuda or cuda:N.
        """
        with tempfile.TemporaryDirectory() as name:
            results = Path(name) / "results"
            study = results / self.study.name
            study.mkdir(parents=True)
            (results / "runs").symlink_to((self.folder / "runs").resolve())
            (results / "data").symlink_to(data.resolve())
            for file in ("rows.csv", "runs.json", "evaluations"):
                if (self.folder / file).exists():
                    (study / file).symlink_to((self.folder / file).resolve())
            checker = verify.Checker(results, read_reference(presets.REFERENCE), reevaluate=reevaluate, device=device)
            for finding in checker.findings():
                yield finding.replace(str(study), str(self.folder)).replace(str(results), str(self.folder))
            rows = tidy_rows.read(self.folder / "rows.csv")
            planned = {run.id for run in self.study.runs}
            for run in sorted(planned ^ {*rows.loc[rows["metric"] != "missing", "run"]}):
                yield f"{self.folder / 'rows.csv'}: {run} is not both in the study and in the rows: submit it again"
            yield from self._other_settings(rows)

    def ranked(self) -> DataFrame:
        """The table of methods, those of the published studies among them."""
        return registry.find("tables", "ranking")(self._rows())

    def _rows(self) -> DataFrame:
        ours = tidy_rows.read(*self.against, self.folder / "rows.csv")
        return tidy_rows.beside(ours, read_reference(presets.REFERENCE))

    def _other_settings(self, rows: DataFrame) -> Iterator[str]:
        """Methods that differ from Spaced KD in data, network, reading or endpoint."""
        known = self._rows()
        known = known[(known["source"] == "ours") & (known["selection"] == "last")]
        spaced = known[(known["method"] == SPACED.method) & (known["interval"] == SPACED.interval)]
        settings = set(zip(*(spaced[key] for key in SETTING), strict=True))
        if not settings:
            yield f"{self.folder} has no {SPACED.name} to pair with: add it to the study, or name --against ROWS"
            return
        shared = known[known["run"].isin(rows["run"])]
        for run, lines in shared.groupby("run", sort=False):
            own = set(zip(*(lines[key] for key in SETTING), strict=True))
            if not own & settings:
                yield f"{run} is {_difference(min(own), min(settings))}: train both in one setting"
        checksums_of: dict[str, tuple[str, str]] = {}
        for path in (*self.against, self.folder / "rows.csv"):
            for run in _runs(path.with_name("runs.json")):
                sha, name = (run.get("provenance") or {}).get("data_sha256", ""), run["labels"]["dataset"]
                first = checksums_of.setdefault(name, (sha, run["id"]))
                if first[0] != sha:
                    yield f"{run['id']} was trained on other data than {first[1]}: prepare the published data"


def _check_installed(path: Path) -> None:
    """UserError names a plug-in's package that is not installed, or has another version."""
    for plugin in read_json(path, dict).get("plugins", []):
        kind, name, package = (str(plugin.get(key)) for key in ("kind", "name", "package"))
        there = registry.plugins(kind).get(name) if kind in registry.KINDS else None
        if there is None or there.package != package:
            found = f"is of {there.package}" if there else "is not installed"
            raise UserError(f"{path}: {name} of {package} {found} here: install {package.replace(' ', '==')}")


def _runs(path: Path) -> list[dict[str, Any]]:
    described = read_json(path, list) if path.exists() else []
    return [run for run in described if isinstance(run.get("labels"), dict) and "id" in run]


def _difference(own: tuple[str, ...], other: tuple[str, ...]) -> str:
    """The difference of two settings, e.g. "of epochs=3, but Spaced KD of epochs=2"."""
    for key, mine, theirs in zip(SETTING, own, other, strict=True):
        if mine != theirs and key != "recipe":
            return f"of the {key} {mine}, but {SPACED.name} of {theirs}"
    mine, theirs = (set(recipe.split()) for recipe in (own[-1], other[-1]))
    differing = [" ".join(sorted(words)) or "the defaults" for words in (mine - theirs, theirs - mine)]
    return f"of {differing[0]}, but {SPACED.name} of {differing[1]}"
