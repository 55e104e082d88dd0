"""Checks that every number follows from its origin: from table and row through the run's files to its weights."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pandas import DataFrame

from spaced_kd.analysis import collect, render, tidy_rows
from spaced_kd.config import registry, sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, compare
from spaced_kd.config.study import RESERVED
from spaced_kd.training import accuracy
from spaced_kd.training.run_folder import OUTPUTS, read_spec
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import altered, read_json, sha256


class Checker:
    """Checks a folder of results.

    Args:
        folder: of all results.
        reference: the paper's numbers, which tables show beside ours; None where no tables are checked.
        reevaluate: predict the test images again with every network, and compare image by image.
        device: where; auto, cpu, cuda or cuda:N.
    """

    def __init__(
        self, folder: Path, reference: DataFrame | None = None, *, reevaluate: bool = False, device: str = "auto"
    ) -> None:
        self.folder, self.paths, self.reference = folder, ResultPaths(folder), reference
        self.reevaluate, self.device = reevaluate, device
        self.counts = dict.fromkeys(("runs", "rows", "tables", "images predicted again", "files absent"), 0)
        self.labels = cache(self._labels)

    def findings(self) -> Iterator[str]:
        """Findings, one line each."""
        for path in sorted(self.folder.glob("runs/*/run.json")):
            yield from self.of_run(path.parent)
        for path in sorted([*self.folder.glob("*/rows.csv"), *self.folder.glob("*/*/rows.csv")]):
            if path.relative_to(self.folder).parts[0] not in RESERVED:
                yield from _lines(path, self._study(path))
        for folder in sorted(self.folder.glob("*/tables")):  # of a study that consists of experiments
            parts = sorted(folder.parent.glob("*/rows.csv"))
            if folder.parent.name not in RESERVED and parts and not folder.with_name("rows.csv").exists():
                yield from _lines(folder, self._tables(folder, tidy_rows.read(*parts)))

    def summary(self) -> str:
        """Numbers of checked items so far."""
        return ", ".join(f"{count} {what}" for what, count in self.counts.items())

    def of_run(self, folder: Path) -> Iterator[str]:
        """Findings in a run's folder, and between it, its data and its teacher."""
        yield from _lines(folder, self._run(folder))

    def _run(self, folder: Path) -> Iterator[str]:
        """Check a run's files against its description, and the description against the run's origin."""
        self.counts["runs"] += 1
        spec = read_spec(folder.name, self.folder)
        described = read_json(folder / "run.json", dict)
        if spec.id != folder.name:
            yield f"{folder}: contains the run {spec.id}"
            return
        compare(spec, described.get("spec", {}), folder)
        if changed := sources.changes(spec, described):
            yield f"{folder}: was trained before {' and '.join(changed)} changed"
        provenance = described.get("provenance") or {}
        if not provenance.get("commit"):
            yield f"{folder}: run.json names no commit"
        outputs = described.get("outputs", {})
        yield from (f"{folder / name}: run.json has no checksum of it" for name in OUTPUTS if name not in outputs)
        wrong = altered(folder, outputs)
        yield from (f"{folder / name}: not what the run wrote, by its checksum in run.json" for name in wrong)
        yield from self._teacher(folder, spec, provenance.get("teacher_sha256"))
        if not self.paths.data(spec).exists():
            self.counts["files absent"] += 1
            if self.reevaluate:
                yield f"{folder}: cannot be predicted again without its data, {self.paths.data(spec)}"
            return
        checksum, labels = self.labels(self.paths.data(spec))
        if checksum != provenance.get("data_sha256"):
            yield f"{folder}: was trained on other data than {self.paths.data(spec)}"
        elif not wrong:
            yield from self._accuracy(folder, spec, labels, described)

    def _teacher(self, folder: Path, spec: RunSpec, followed: str | None) -> Iterator[str]:
        """The weights of the stored teacher that a student followed."""
        if followed:
            weights = self.paths.weights(spec.teacher_spec())
            if not weights.exists():
                self.counts["files absent"] += 1
            elif sha256(weights) != followed:
                yield f"{folder}: followed another teacher than {weights}"

    def _accuracy(self, folder: Path, spec: RunSpec, labels: Any, described: dict[str, Any]) -> Iterator[str]:
        """Accuracies against the predictions, and predictions against the weights."""
        stored, _ = array_file.read(folder / "predictions.safetensors", remedy="train the run again")
        epochs, predictions = stored["epochs"].tolist(), stored["predictions"]
        rows = accuracy.accuracy_rows(epochs, predictions, labels, described.get("held_out"))
        rows += accuracy.tail_rows(stored.get("tail_predictions", ()), labels, described.get("tail_held_out"))
        if rows != read_json(folder / "rows.json", list):
            yield f"{folder / 'rows.json'}: does not follow from the run's predictions"
        if self.reevaluate:
            again = self._predicted(spec)
            self.counts["images predicted again"] += len(again)
            if other := int((again != predictions[-1]).sum()):
                yield f"{folder}: its weights predict {other} of {len(again)} test images otherwise than recorded"

    def _predicted(self, spec: RunSpec) -> Any:
        """Predictions of a run's network for every test image, uint16 (N,)."""
        from spaced_kd.evaluation.evaluate import finished_network  # torch, which all other checks do without
        from spaced_kd.training.job import autocast
        from spaced_kd.training.metrics import predict

        network, data = finished_network(spec.id, self.folder, device=self.device)
        with autocast(spec, data.labels["test"].device):
            return predict(network, data)

    def _study(self, path: Path) -> Iterator[str]:
        """A study's rows against those that its runs give now, its descriptions and its tables."""
        rows = tidy_rows.read(path)
        ours = rows[(rows["source"] == "ours") & (rows["metric"] != "missing")]
        self.counts["rows"] += len(ours)
        older = collect.TRAINING not in set(ours["evaluation"])  # from before rows had losses
        for run, group in ours.groupby("run", sort=False):
            own = group.assign(planned="", only_teacher="")  # which are the study's alone
            yield from _lines(path, self._rows(path, run, own, older=older))
        if path.with_name("runs.json").exists():
            described = {str(description.get("id")) for description in read_json(path.with_name("runs.json"), list)}
            for run in sorted(described ^ set(ours["run"])):
                yield f"{path}: of {run} there is only {'its description' if run in described else 'its rows'}"
            for description in read_json(path.with_name("runs.json"), list):
                own = self.folder / "runs" / str(description.get("id")) / "run.json"
                if not own.exists() or read_json(own, dict) != description:
                    yield f"{path.with_name('runs.json')}: describes {description.get('id')} otherwise than {own}"
        yield from self._tables(path.with_name("tables"), rows)

    def _tables(self, folder: Path, rows: DataFrame) -> Iterator[str]:
        """A folder of tables against rows: its study's, or those of all experiments; the theory's are all studies'."""
        theory = self.folder / "theory" / "rows.csv"
        for table in sorted(folder.glob("*.csv")):
            shown = tidy_rows.read(theory) if table.stem == "theory" and theory.exists() else rows
            yield from _lines(table, self._table(table, tidy_rows.beside(shown, self.reference)))

    def _rows(self, path: Path, run: str, group: DataFrame, *, older: bool) -> Iterator[str]:
        """One run's rows in a study, and of its evaluations those that are kept beside the run."""
        spec = read_spec(run, self.folder)
        fresh = collect.of_run(spec, path.parent.relative_to(self.folder).as_posix(), self.folder)
        fresh = [row for row in fresh if not older or row["evaluation"] != collect.TRAINING]
        for row, made in zip(_plain(group), _plain(tidy_rows.join(DataFrame(fresh))), strict=False):
            if row != made:
                key = next(key for key in row | made if row.get(key) != made.get(key))
                yield f"{path}: {key} of a row of {run} is {row.get(key)}, but its files give {made.get(key)}"
        if len(group) != len(fresh):
            yield f"{path}: has {len(group)} rows of {run}, but its files give {len(fresh)}"
        kept = [read_json(cache, dict) for cache in (self.folder / "runs" / run / "evaluations").glob("*.json")]
        weights = sha256(self.folder / "runs" / run / "weights.safetensors")
        measured = [row for each in kept if each.get("weights_sha256", weights) == weights for row in each["rows"]]
        shown = path.parent / "evaluations" / f"{run}.json"
        for row in collect.evaluation_rows(shown, read_json(self.folder / "runs" / run / "run.json", dict)):
            if {key: value for key, value in row.items() if key != "evaluation"} not in measured:
                yield f"{shown}: a row of {row.get('evaluation')} is none that was measured on the run's weights"
                break

    def _table(self, path: Path, rows: DataFrame) -> Iterator[str]:
        """A table's files against those that rows give now."""
        self.counts["tables"] += 1
        name = path.stem
        made = render.table_files(name, render.caption(name), registry.find("tables", name)(rows))
        for ending, content in made.items():
            file = path.with_suffix(f".{ending}")
            if file.exists() and file.read_bytes() != content:
                yield f"{file}: is not what the rows of {path.parents[1]} give now: draw it again"

    def _labels(self, path: Path) -> tuple[str, Any]:
        """Checksum and test labels of prepared data."""
        stored, about = array_file.read(path, remedy="prepare it again")
        return about["checksum"], stored["test_labels"]


def _lines(path: Path, found: Iterator[str]) -> Iterator[str]:
    """Findings of one check of a file or folder; a check that fails to run is a finding, too."""
    try:
        yield from found
    except UserError as error:
        yield str(error)
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        yield f"{path}: cannot be checked ({type(error).__name__}: {error})"


def _plain(rows: DataFrame) -> list[dict[str, Any]]:
    """Rows as mappings without empty values."""
    return [{k: v for k, v in row.items() if v == v and v != ""} for row in rows.to_dict("records")]
