"""A student in its teacher's process: the same bits as in one of its own, wherever the process ends."""

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, first_fast

from spaced_kd.analysis.collect import collect_rows
from spaced_kd.cli.main import main
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.config.study import EXPERIMENTS, expand, load_study
from spaced_kd.planning.costs import RunCosts
from spaced_kd.planning.plan import make
from spaced_kd.training import checkpointer, companions, loop
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.training.run_lock import exclusive, held
from spaced_kd.training.run_recorder import RunRecorder
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

ONLINE = {"method": "online_kd", "epochs": 2, "tail_evaluations": 3}
STUDY = {"study": "trial", "train_together": True, "grids": [TINY | {"method": ["baseline", "online_kd"]}]}
WIDER = {"network__width": 0.125, "teacher": "resnet_mini", "teacher__width": 0.0625}  # so that features are aligned
OUTPUTS = ("weights.safetensors", "predictions.safetensors", "rows.json")


class StopAfter(StopSignal):
    """Stops a process after some of its teacher's turns."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def over(self) -> Interrupted | None:
        self.turns -= 1
        return Interrupted("enough", 75) if self.turns < 0 else None


def outputs(results: Path, *runs) -> list[bytes]:
    return [(ResultPaths(results).run(run) / name).read_bytes() for run in runs for name in OUTPUTS]


def tiny_of(changes: dict):
    """A tiny student of online KD with changes; None takes a key away."""
    changed = TINY | {key.replace("__", "."): value for key, value in (ONLINE | changes).items()}
    return from_flat({key: value for key, value in changed.items() if value is not None})


def run_json(results: Path, run) -> dict:
    return json.loads((ResultPaths(results).run(run) / "run.json").read_text())


def another(results: Path) -> Path:
    """A second folder of results with the same data."""
    other = results.parent / "other"
    other.mkdir()
    (other / "data").symlink_to((results / "data").resolve())
    return other


@pytest.fixture
def apart(results):
    """Trains runs in processes of their own, in another folder."""
    other = another(results)

    def train_each(*runs) -> Path:
        for run in runs:
            train(run, other)
        return other

    return train_each


@pytest.mark.parametrize(
    "changes",
    first_fast(
        [
            {},
            {"network": "vit_mini", "network__width": None, "network__dim": 16},
            {"initial_weights": "different"},
            {"interval": 0.6, "method__lead": "constant"},
            {"interval": 0.6, "method__spaced_from": 0.4, "method__spaced_until": 1.6},
            {"method__target": "before"},
            {"method__teacher_mode": "train"},
            {"method__student_batches": "new_views"},
            {"network__width": 0.125, "teacher": "resnet_mini", "teacher__width": 0.0625},
            {"interval": 0.6, "method__lead": "constant", "clock": "teacher"},
            {"augmentation": "strong"},  # made ahead by other processes
            {"augmentation": "strong", "interval": 0.6, "method__lead": "constant"},
        ]
    ),
    ids=str,
)
def test_teacher_and_student_are_those_of_processes_of_their_own(results, apart, changes):
    student = tiny_of(changes)
    teacher = student.teacher_spec()
    train(teacher, results, together=(student,), workers=2)
    assert run_json(results, student)["teacher_states"] == "together"
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


def test_stopped_after_any_turn_they_end_in_the_same_bits(results, apart):
    student = tiny_of({})
    teacher = student.teacher_spec()
    attempts = 0
    for _ in range(11):
        try:
            train(teacher, results, together=(student,), checkpoint_every=1e9, stop=StopAfter(1))
            break
        except Interrupted:
            attempts += 1
            assert not ResultPaths(results).run(student).joinpath("run.json").exists()
    assert attempts == 5  # a process takes one turn, and stops after the second: ten batches
    assert run_json(results, student)["teacher_states"] == "together"
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


@pytest.mark.parametrize("killed_after", ["the student's state", "the student's outputs"])
def test_killed_between_the_two_they_end_in_the_same_bits(results, apart, monkeypatch, killed_after):
    student = tiny_of({})
    teacher = student.teacher_spec()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if killed_after == "the student's state":
            save_state = checkpointer.checkpoint.save_state
            written = []

            def save(folder: Path, *given: object, **about: object) -> None:
                written.append(about["run"])
                save_state(folder, *given, **about) if len(written) < 6 else die()

            patched.setattr(checkpointer.checkpoint, "save_state", save)
        else:
            patched.setattr(loop, "write_outputs", lambda *given: _write(*given) if given[0].spec == student else die())
        with pytest.raises(KeyboardInterrupt):
            train(teacher, results, together=(student,), checkpoint_every=0)
    there = ResultPaths(results).run(student).joinpath("run.json").exists()
    assert there == (killed_after == "the student's outputs")
    if not there:
        assert written == 3 * [student.id, teacher.id]  # the student is a turn ahead now
    train(teacher, results, together=(student,))
    assert run_json(results, student)["teacher_states"] == "together"
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


_write = loop.write_outputs


def test_a_student_behind_its_teacher_is_left_to_a_process_of_its_own(results, apart, capsys):
    student = tiny_of({})
    teacher = student.teacher_spec()
    with pytest.raises(Interrupted):
        train(teacher, results, stop=StopAfter(3))
    train(teacher, results, together=(student,))
    assert f"{student.id} trains in a process of its own: it is behind its teacher" in capsys.readouterr().out
    assert not ResultPaths(results).run(student).exists()
    train(student, results)
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


def test_a_student_that_fails_is_named_and_its_teacher_goes_on(results, apart, capsys):
    student, fine = tiny_of(WIDER | {"method__beta": 1e38}), tiny_of(WIDER)
    teacher = student.teacher_spec()
    train(teacher, results, together=(student, fine))
    said = capsys.readouterr().out
    assert f"{student.id} trains in a process of its own: the loss (" in said
    assert f"{fine.id} trains in a process of its own" not in said
    assert outputs(results, teacher, fine) == outputs(apart(teacher, fine), teacher, fine)
    with pytest.raises(UserError, match="is nan at batch 1"):
        train(student, results)


def test_a_student_that_another_process_trains_is_not_waited_for(results):
    student = tiny_of({})
    with exclusive(ResultPaths(results).lock(student), StopSignal()):
        train(student.teacher_spec(), results, together=(student,))
    assert not (ResultPaths(results).run(student) / "run.json").exists()


@pytest.mark.parametrize(
    "changes",
    [{"interval": 1.5}, {"method": "dml", "method__leader": "mutual"}, {"method": "adaptive_interval"}],
    ids=str,
)
def test_others_train_as_they_did(results, changes):
    """Whose teacher leaves states in files, or depends on them."""
    student = tiny_of(changes)
    train(student.teacher_spec(), results, together=(student,))
    assert not ResultPaths(results).run(student).exists()


def test_a_student_that_began_in_its_own_process_goes_on_there(results, apart):
    """Its seconds and FLOPs are also those of its teacher."""
    student = tiny_of({})
    teacher = student.teacher_spec()
    with pytest.raises(Interrupted):
        train(student, results, stop=StopAfter(7))
    train(teacher, results, together=(student,))
    assert not ResultPaths(results).run(student).exists()
    train(student, results)
    assert run_json(results, student)["teacher_states"] == "trained along"
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


def test_flops_of_a_teacher_that_was_stored_meanwhile_are_not_the_students(results):
    student = tiny_of({"interval": 1.5})
    with pytest.raises(Interrupted):
        train(student, results, stop=StopAfter(9))  # with turns of the teacher
    train(student.teacher_spec(), results, save_states_for=(student,))
    train(student, results)
    described = run_json(results, student)
    assert described["teacher_states"] == "stored"
    assert described["training_flops"]["teacher"] == 0 < described["training_flops"]["student"]


def test_a_student_whose_state_cannot_be_used_leaves_its_teacher_alone(results, capsys):
    student = tiny_of({})
    state = ResultPaths(results).state(student)
    with pytest.raises(Interrupted):
        train(student.teacher_spec(), results, together=(student,), stop=StopAfter(3))
    (path,) = state.iterdir()
    stored, about = array_file.read(path, remedy="")
    array_file.save(path, stored, **about | {"run": "another"})
    train(student.teacher_spec(), results, together=(student,))
    assert f"{student.id} trains in a process of its own: " in capsys.readouterr().out
    assert path.exists()
    assert not ResultPaths(results).run(student).exists()


def test_a_student_without_memory_leaves_its_teacher_alone(results, monkeypatch, capsys):
    student = tiny_of({})
    begin = loop.Training.__init__

    def full(self, job, *given, **named):
        if job.spec == student:
            raise torch.OutOfMemoryError("CUDA out of memory")
        begin(self, job, *given, **named)

    monkeypatch.setattr(loop.Training, "__init__", full)
    train(student.teacher_spec(), results, together=(student,))
    assert "trains in a process of its own: OutOfMemoryError: CUDA out of memory" in capsys.readouterr().out


def test_a_student_that_left_may_be_trained_at_once(results, monkeypatch):
    student = tiny_of(WIDER | {"method__beta": 1e38})
    teacher, seen = student.teacher_spec(), []
    evaluate = RunRecorder.after_turn

    def after_turn(self, *given):
        evaluate(self, *given)
        if self.job.spec == teacher:
            seen.append(held(ResultPaths(results).lock(student)))

    monkeypatch.setattr(RunRecorder, "after_turn", after_turn)
    train(teacher, results, together=(student,))
    assert seen[0]
    assert not seen[-1]


def test_a_student_that_ended_before_it_could_join_is_left_as_it_is(results, monkeypatch):
    """Its own process may end between the look at it and its lock."""
    student = tiny_of({})
    enter, done = companions.exclusive, []

    def late(path, *given, **named):
        if not done:
            done.append(train(student, results))
        return enter(path, *given, **named)

    monkeypatch.setattr(companions, "exclusive", late)
    train(student.teacher_spec(), results, together=(student,))
    assert run_json(results, student)["teacher_states"] == "trained along"


def test_a_stop_during_a_students_evaluation_is_the_teachers(results, apart, monkeypatch):
    student = tiny_of({})
    teacher = student.teacher_spec()
    evaluate, evaluated = RunRecorder._evaluate, []

    def interrupted(self, *given):
        if self.job.spec == student:
            evaluated.append(given)
            raise Interrupted("SIGTERM", 143)
        evaluate(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "_evaluate", interrupted)
        with pytest.raises(Interrupted):
            train(teacher, results, together=(student,), checkpoint_every=0)
    assert len(evaluated) == 1
    train(teacher, results, together=(student,))
    assert run_json(results, student)["teacher_states"] == "together"
    assert outputs(results, teacher, student) == outputs(apart(teacher, student), teacher, student)


def test_seconds_of_each_are_those_of_its_own_turns(results, monkeypatch):
    students = [tiny_of({"method__alpha": alpha}) for alpha in (0.2, 0.4, 0.5)]
    teacher = students[0].teacher_spec()
    evaluate = RunRecorder._evaluate

    def slow(self, *given):
        time.sleep(0.3)
        evaluate(self, *given)

    monkeypatch.setattr(RunRecorder, "_evaluate", slow)
    train(teacher, results, together=tuple(students))
    slept = 0.3 * 2  # after each epoch; the tail is the last turn alone
    seconds = [run_json(results, run)["wall_seconds"] for run in (teacher, *students)]
    assert all(slept <= each < 2 * slept for each in seconds), seconds


def test_a_student_of_another_teacher_is_refused(results):
    student = tiny_of({"seed": 1})
    with pytest.raises(UserError, match="is no student of digits-resnet_mini-baseline-0-0-"):
        train(tiny_of({}).teacher_spec(), results, together=(student,))


def test_the_cost_of_a_student_is_that_of_its_own_process(results, apart):
    """With the teacher's: its FLOPs are counted once; seconds are those of its own turns."""
    study = expand(STUDY)
    student = next(run for run in study.runs if run.teacher_spec())
    teacher = student.teacher_spec()
    other = apart(teacher, student)
    train(teacher, results, together=(student,))
    flops = []
    for folder in (results, other):
        rows = collect_rows(study, folder)
        found = rows[(rows["run"] == student.id) & (rows["metric"] == "training_flops_with_teacher")]
        flops.append(found["value"].item())
    assert flops[0] == flops[1] > 0
    described, run_of_teacher = run_json(results, student), run_json(results, teacher)
    assert described["training_flops"]["teacher"] == 0
    assert described["provenance"]["teacher_sha256"] == run_of_teacher["outputs"]["weights.safetensors"]
    assert described["energy_joules"] is run_of_teacher["energy_joules"] is None


def test_seconds_elsewhere_are_not_a_trainings_own():
    metrics = TrainingMetrics({})
    with metrics.elsewhere():
        time.sleep(0.3)
        within = metrics.time()["wall"]
    time.sleep(0.05)
    assert within < 0.1
    assert 0.05 <= metrics.time()["wall"] < 0.2


def test_a_study_names_the_students_of_each_teacher():
    study = expand(STUDY | {"grids": [TINY | {"method": "online_kd", "interval": [0, 1.5], "seed": [0, 1]}]})
    students = [run for run in study.runs if run.method == "online_kd"]
    for teacher in {run.teacher_spec().id for run in students}:
        own = [run.overrides() for run in students if run.teacher_spec().id == teacher]
        assert len(own) == 2
        assert [shlex.split(each) for each in study.companions(teacher)] == sorted(own, key=shlex.join)
    assert expand(STUDY | {"train_together": False}).companions(students[0].teacher_spec().id) == []


def test_the_command_trains_both(results, capsys):
    student = tiny_of({})
    teacher = student.teacher_spec()
    command = ["train", *teacher.overrides(), "--results", str(results), "--together", shlex.join(student.overrides())]
    assert main(command) in (0, None)
    assert run_json(results, student)["teacher_states"] == "together"
    assert f"{student.id}: epoch   1" in capsys.readouterr().out
    assert main(["train", *student.overrides(), "--results", str(results)]) in (0, None)
    assert "is finished already" in capsys.readouterr().out


def test_the_sweep_of_figure_3_costs_less_than_three_fifths_of_independent_runs():
    """Most of its students are online for most of the training, so that no teacher's states can be stored for them."""
    runs = load_study(EXPERIMENTS / "fig03.yaml").runs
    sweep = [run for run in runs if (run.dataset, run.seed) == (runs[0].dataset, runs[0].seed)]
    counts = RunCosts()
    alone = [counts.cost(run, store_teachers=False).flops for run in sweep]
    stored = [counts.cost(run).flops for run in sweep]
    together = [counts.cost(run, train_together=True) for run in sweep]
    assert sum(cost.together for cost in together) > 10
    assert sum(cost.flops for cost in together) < 0.6 * sum(alone) < 0.6 * 1.1 * sum(stored)


def test_a_plan_adds_the_student_to_its_teachers_job(tmp_path):
    study = expand(STUDY)
    student = next(run for run in study.runs if run.teacher_spec())
    teacher = student.teacher_spec()
    plan = make(study, "cpu", 1, tmp_path)
    assert plan.seconds[student.id] == 0
    apart = make(expand(STUDY | {"train_together": False}), "cpu", 1, tmp_path)
    assert apart.seconds[teacher.id] < plan.seconds[teacher.id] < sum(apart.seconds.values())
    done = replace(plan, finished=frozenset([teacher.id]))  # the student is too late to join
    assert done.seconds[student.id] == pytest.approx(apart.seconds[student.id])
