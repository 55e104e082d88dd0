"""`spaced-kd tensorboard` writes what the curves of a study hold, beside trainings that know nothing of it."""

import shutil
import threading
from pathlib import Path

import pytest
from conftest import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spaced_kd.cli import tensorboard
from spaced_kd.cli.main import main
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import load_study
from spaced_kd.training import curve
from spaced_kd.training.loop import train

STUDY = """\
study: watched
grids:
  - dataset: digits
    network: resnet_mini
    recipe: {epochs: 12}
    seed: 0
    arms: [{method: baseline}]
"""
HEADER = "epoch,turn,turns,seconds,accuracy,held_out_accuracy,teacher_loss\n"
FIRST, SECOND = "1,5,60,2.5,40.25,,2.125\n", "2,10,60,5,50.5,,1.75\n"


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> epochs and values of all event files of a folder."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def study(tmp_path):
    """The study's file, its only run, and the folders of results."""
    path = tmp_path / "watched.yaml"
    path.write_text(STUDY)
    (run,) = load_study(path).runs
    paths = ResultPaths(tmp_path / "results")
    paths.curve(run).parent.mkdir(parents=True)
    return path, run, paths


def call(path, paths, *options):
    return main(["tensorboard", str(path), "--results", str(paths.results), *options])


def test_events_are_the_curve_and_a_second_call_replaces_them(study, capsys):
    path, run, paths = study
    paths.curve(run).write_text(HEADER + FIRST + SECOND[:9])  # a line that is being written
    assert call(path, paths) == 0
    folder = paths.results / "watched" / "tensorboard" / run.id
    assert points(folder) == {"accuracy/test": [(1, 40.25)], "loss/teacher": [(1, 2.125)]}
    assert "events of 1 of 1 runs are in" in capsys.readouterr().out
    (folder / "mine.txt").write_text("kept")
    paths.curve(run).write_text(HEADER + FIRST + SECOND)
    assert call(path, paths) == 0
    assert points(folder) == {"accuracy/test": [(1, 40.25), (2, 50.5)], "loss/teacher": [(1, 2.125), (2, 1.75)]}
    assert len([*folder.iterdir()]) == 2


def test_it_goes_on_until_the_last_run_is_finished(study, monkeypatch):
    path, run, paths = study
    polls = []

    def wait(seconds):
        polls.append(seconds)
        if len(polls) == 1:
            paths.curve(run).write_text(HEADER + FIRST)
        else:
            with paths.curve(run).open("a") as file:
                file.write(SECOND)
            (paths.run(run) / "run.json").write_text("{}")

    monkeypatch.setattr(tensorboard.time, "sleep", wait)
    assert call(path, paths, "--every", "3") == 0
    assert polls == [3, 3]
    assert points(paths.results / "watched" / "tensorboard" / run.id)["accuracy/test"] == [(1, 40.25), (2, 50.5)]


def test_a_study_that_never_ran_is_one_line(study, capsys):
    path, _, paths = study
    assert call(path, paths) == 2
    assert "no run of watched has a learning curve" in (message := capsys.readouterr().err)
    assert message.count("\n") == 1


def test_a_missing_package_is_one_line(study, capsys, monkeypatch):
    path, run, paths = study
    paths.curve(run).write_text(HEADER + FIRST)

    def lacks(self):
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")

    monkeypatch.setattr(tensorboard.Events, "_open", lacks)
    assert call(path, paths) == 2
    assert "pip install 'spaced-kd[tensorboard]'" in capsys.readouterr().err


def test_weights_are_equal_with_and_without_a_watcher(results, tmp_path):
    run = tiny(method="baseline")
    weights, watched = {}, []
    for name in ("plain", "watched"):
        shutil.copytree(results, tmp_path / name)
        paths, over = ResultPaths(tmp_path / name), threading.Event()

        def watch(events, over):
            while not over.is_set():
                events.update()
                watched.append(events.written)
                over.wait(0.01)

        events = tensorboard.Events(paths.curve(run), tmp_path / "events")
        watcher = threading.Thread(target=watch, args=(events, over))
        if name == "watched":
            watcher.start()
        try:
            weights[name] = (train(run, paths.results) / "weights.safetensors").read_bytes()
        finally:
            over.set()
            if name == "watched":
                watcher.join()
    events.update()
    assert weights["plain"] == weights["watched"]
    assert len(watched) > 1
    lines = curve.read(ResultPaths(tmp_path / "watched").curve(run))
    written = points(tmp_path / "events")["accuracy/test"]
    assert [epoch for epoch, _ in written] == [line["epoch"] for line in lines] != []
    assert [value for _, value in written] == pytest.approx([line["accuracy"] for line in lines])
