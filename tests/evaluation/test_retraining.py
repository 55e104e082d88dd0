"""A finished run trained once more: what is seen on the way is what was there, and nothing is seen of another run."""

import pytest
import torch
from conftest import tiny
from torch import Tensor

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.evaluation.evaluate import evaluate
from spaced_kd.evaluation.retraining import history
from spaced_kd.training import job
from spaced_kd.training.checkpoint import to_arrays
from spaced_kd.training.learner import Learner
from spaced_kd.training.loop import train
from spaced_kd.training.teacher_states import TeacherStates
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

QUICK = {"images": 4, "compared": 2, "epochs": (0, 2)}


def same(found: dict[str, Tensor], path) -> bool:
    stored, _ = array_file.read(path, remedy="")
    return found.keys() == stored.keys() and all((found[name] == stored[name]).all() for name in stored)


def weights(name, network) -> dict[str, Tensor]:
    """What was seen; a look that draws, in eval mode, must not change what follows."""
    assert not any(module.training for module in network.modules())
    torch.rand(7)
    return {key: value.copy() for key, value in to_arrays(network.state_dict()).items()}


@pytest.mark.parametrize("interval", [0, 1.0])
def test_what_is_seen_is_what_was_there(interval, results):
    paths = ResultPaths(results)
    student = tiny(method="online_kd", interval=interval)
    teacher = student.teacher_spec()
    train(teacher, results, save_states_for=(tiny(method="online_kd", interval=1.0),))
    train(student, results)
    found = history(student, paths)
    assert (found.result, found.per_epoch, found.updates) == ("student", 5, {"teacher": 15, "student": 15})
    assert found.taught == ([5] * 5 + [10] * 5 + [15] * 5 if interval else list(range(1, 16)))
    moments = {("student", 0), ("student", 15), ("teacher", 5), ("teacher", 7), ("teacher", 15)}
    seen = found.networks_at(moments, weights)
    assert set(seen) == moments
    trajectory = TeacherStates(teacher.id, paths.trajectory(teacher), paths.weights(teacher), 15)
    assert same(seen["teacher", 5], trajectory.path(5))  # left by the first training
    assert same(seen["teacher", 15], paths.weights(teacher))
    assert same(seen["student", 15], paths.weights(student))
    start = to_arrays(job.assemble(student, paths).result.state_dict())
    assert all((seen["student", 0][name] == start[name]).all() for name in start)
    assert any((seen["teacher", 7][name] != seen["teacher", 5][name]).any() for name in start)


def test_where_the_method_decides_who_taught_what_is_read_from_the_run(results):
    run = tiny(method="adaptive_interval", epochs=4, method__least=3, method__errors=-9.0)  # each block ends at once
    train(run, results)
    found = history(run, ResultPaths(results))
    ends = [min(first + 3, 20) for first in range(0, 20, 3) for _ in range(min(3, 20 - first))]
    assert found.taught == ends
    assert set(found.networks_at({("student", 3), ("teacher", 20)}, weights)) == {("student", 3), ("teacher", 20)}


def test_each_update_draws_what_it_drew(results, monkeypatch):
    learn, seeds = Learner.learn, []

    def noting(self, index, terms):
        seeds.append(torch.initial_seed())
        return learn(self, index, terms)

    monkeypatch.setattr(Learner, "learn", noting)
    run = tiny(method="online_kd", epochs=1)
    train(run, results)
    first = seeds.copy()
    seeds.clear()
    history(run, ResultPaths(results)).networks_at({("student", 0)}, weights)
    assert seeds == first
    assert len(set(first)) == 10


def test_other_weights_are_not_taken_for_the_runs(results):
    run, other = tiny(method="baseline"), tiny(method="baseline", lr=0.04)
    paths = ResultPaths(results)
    for each in (run, other):
        train(each, results)
    assert history(run, paths).taught == []
    paths.weights(run).write_bytes(paths.weights(other).read_bytes())
    with pytest.raises(UserError, match=rf"^{run.id}, trained again, ends in other weights than .*weights\."):
        history(run, paths).networks_at({("teacher", 1)}, weights)


def test_what_never_comes_is_named_before_the_training(results, monkeypatch):
    together = {"optimizers": "one", "joint_backward": True, "teacher_mode": "train"}
    run = tiny(method="online_kd", epochs=1, **{f"method__{key}": value for key, value in together.items()})
    train(run, results)
    monkeypatch.setattr("spaced_kd.training.learner.Learner.learn", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(UserError, match=f"^{run.id} has no student after 6 updates, since it takes 5: ask for an"):
        history(run, ResultPaths(results)).networks_at({("student", 6)}, weights)
    with pytest.raises(UserError, match=r"^supervision_complexity needs a teacher with updates of its own"):
        evaluate(run.id, {"supervision_complexity": QUICK | {"epochs": (0,)}}, results)


@pytest.mark.parametrize("method", ["baseline", "self_kd"])
def test_a_run_without_a_teacher_is_measured_against_labels_alone(method, results):
    run = tiny(method=method, interval=1.0 if method == "self_kd" else 0)
    train(run, results)
    rows = evaluate(run.id, {"supervision_complexity": QUICK}, results)
    assert {row["target"] for row in rows if "target" in row} == {"hard", "random"}


@pytest.mark.slow
def test_students_of_one_teacher_are_compared_under_the_same_states(results):
    runs = [tiny(method="online_kd", interval=interval, epochs=4) for interval in (0, 1.5)]
    received = []
    for run in runs:
        train(run, results)
        rows = evaluate(run.id, {"supervision_complexity": QUICK}, results)
        of_metric = [row for row in rows if row["metric"] == "target_accuracy" and row.get("target") == "received"]
        received.append({(row["teacher_epoch"], row["value"]) for row in of_metric})
    assert received[0] == received[1]
    assert {epoch for epoch, _ in received[0]} == {1.4, 2.8}  # blocks of seven batches, five an epoch


def test_the_suites_own_arguments_are_no_settings():
    assert "history" not in registry.plugin("evaluations", "supervision_complexity").settings
