"""Training: the same weights to the bit, however the teacher comes along and wherever the process is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Training, first_fast, tiny

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.distillation.losses import distillation, hard, teacher_outputs
from spaced_kd.distillation.schedule import turns
from spaced_kd.evaluation.evaluate import finished_network
from spaced_kd.training import checkpoint, code_commit, curve, provenance, run_recorder
from spaced_kd.training.accuracy import accuracy
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import predict
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError


def weights(folder: Path) -> str:
    """Checksum of a run's weights."""
    return array_file.read(folder / "weights.safetensors", remedy="")[1]["checksum"]


def learning_curve(folder: Path) -> list[dict[str, float]]:
    """Lines of curve.csv without their times; each epoch has one."""
    lines = curve.read(folder / "curve.csv")
    assert [line["epoch"] for line in lines] == run_epochs(folder)
    assert all(line.pop("seconds") > 0 for line in lines)
    return lines


def run_epochs(folder: Path) -> list[int]:
    return [row["epoch"] for row in json.loads((folder / "rows.json").read_text()) if row["selection"] == "curve"]


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("network", ["resnet_mini", "vit_mini"])
@pytest.mark.parametrize("interval", first_fast([0.5, 1.5, "max"]))
def test_a_student_is_the_same_with_a_shared_teacher_and_trained_together(results, tmp_path, interval, network):
    size = {"network__width": 0.0625} if network == "resnet_mini" else {"network__dim": 16}
    flat = {"network": network, **size, "method": "online_kd", "interval": interval}
    spec = from_vit(flat) if network == "vit_mini" else tiny(**flat)
    alone = train(spec, results)
    assert run_json(alone)["teacher_states"] == "trained along"

    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    train(spec.teacher_spec(), other, save_states_for=(spec,))
    shared = train(spec, other)
    assert run_json(shared)["teacher_states"] == "stored"
    assert weights(alone) == weights(shared)
    assert (alone / "predictions.safetensors").read_bytes() == (shared / "predictions.safetensors").read_bytes()


def from_vit(flat: dict):
    """A tiny transformer's run: the residual network's width means nothing to it."""
    from conftest import TINY

    from spaced_kd.config.run_spec import from_flat

    named = {key.replace("__", "."): value for key, value in flat.items()}
    return from_flat({key: value for key, value in TINY.items() if key != "network.width"} | named)


def test_the_loop_is_the_paper_written_out(results):
    """Spaced KD by hand on the same batches: plain SGD steps in the order of Alg. 2."""
    spec = tiny(method="online_kd", interval=1.5, epochs=2)
    folder = train(spec, results)

    job = assemble(spec, ResultPaths(results))
    teacher, student = job.modules["teacher"], job.modules["student"]
    optimizers = {
        who: torch.optim.SGD(job.modules[who].parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        for who in ("teacher", "student")
    }
    for start in range(0, 10, 7):  # int(1.5 * 5) = 7 batches, and the last block of 3
        block = range(start, min(start + 7, 10))
        for i in block:
            loss = hard(teacher(job.batches[i].images), job.batches[i].labels)
            optimizers["teacher"].zero_grad()
            loss.backward()
            optimizers["teacher"].step()
        for i in block:
            goal = teacher_outputs(teacher, job.batches[i].images)
            outputs = student(job.batches[i].images, exits=True)[-1]
            weights_ = {"alpha": 0.3, "temperature": 3.0, "beta": 0.03, "square_temperature": True}
            loss = sum(distillation(outputs, goal, job.batches[i].labels, torch.nn.Identity(), **weights_).values())
            optimizers["student"].zero_grad()
            loss.backward()
            optimizers["student"].step()
    stored, _ = array_file.read(folder / "weights.safetensors", remedy="")
    for name, tensor in student.state_dict().items():
        assert np.array_equal(tensor.numpy(), stored[name]), name


def test_the_baseline_is_the_teacher(results):
    spec = tiny(method="online_kd", interval=1.5)
    baseline = train(spec.teacher_spec(), results)
    job = assemble(tiny(method="online_kd", interval=0), ResultPaths(results))
    for who, index in job.turns:
        job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
    stored, _ = array_file.read(baseline / "weights.safetensors", remedy="")
    assert all(
        np.array_equal(stored[name], value.numpy()) for name, value in job.modules["teacher"].state_dict().items()
    )


def test_teacher_and_student_start_alike_with_and_without_exits(results):
    online = assemble(tiny(method="online_kd"), ResultPaths(results)).modules
    self_kd = assemble(tiny(method="self_kd"), ResultPaths(results)).modules
    start = online["teacher"].state_dict()
    for other in (online["student"], self_kd["student"]):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in start.items())
    assert not torch.equal(
        start["trunk.fc.weight"], assemble(tiny(method="baseline", seed=1), ResultPaths(results)).result.trunk.fc.weight
    )


def test_a_teacher_that_starts_anew_forgets_its_states(results):
    spec, paths = tiny(method="baseline"), ResultPaths(results)
    train(spec, results, save_states_for=(tiny(method="online_kd", interval=1.0),))
    states = sorted(paths.trajectory(spec).iterdir())
    assert len(states) == 2  # after epoch 1 and 2; the last is the final weights
    states[0].write_bytes(b"of another teacher")
    (paths.run(spec) / "run.json").unlink()
    train(spec, results)
    assert not list(paths.trajectory(spec).iterdir())


@pytest.mark.parametrize(("interval", "steps"), [(0, 15), (1.0, 30)])
def test_self_kd_takes_one_step_a_batch_and_its_spaced_form_two(results, interval, steps):
    folder = train(tiny(method="self_kd", interval=interval), results)
    assert sum(run_json(folder)["turns"].values()) == steps
    epochs = array_file.read(folder / "predictions.safetensors", remedy="")[0]["epochs"]
    assert epochs.tolist() == list(range(1, steps // 5 + 1))  # evaluated on the clock of its own steps


@pytest.mark.parametrize(
    "run",
    first_fast(
        [
            {"method": "online_kd", "interval": 0},
            {"method": "online_kd", "interval": 1.5},
            {"method": "self_kd", "interval": 1.0},
            {
                "method": "online_kd",
                "interval": 1.5,
                "optimizer": "adamw",
                "lr_schedule": "cosine",
                "warmup_epochs": 1.0,
            },
            {"method": "online_kd", "interval": 1.5, "optimizer": "adamw", "method__optimizers": "one"},
            {"method": "dml", "interval": 1.5, "nesterov": True, "lr_schedule": "steps", "lr_drops": [1.0, 2.0]},
            {"method": "takd", "interval": 1.5},
            {"method": "shake", "interval": 1.5},
        ]
    ),
)
def test_a_stopped_training_goes_on_to_the_same_weights(results, tmp_path, run, monkeypatch):
    spec = tiny(**run)
    whole = train(spec, results)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")

    class PulledPlugError(Exception):
        pass

    saves = []
    save = checkpoint.save_state

    def pull(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(args[1])
        if len(saves) in (3, 9, 26):
            raise PulledPlugError

    monkeypatch.setattr(checkpoint, "save_state", pull)
    for _ in range(3):
        with pytest.raises(PulledPlugError):
            train(spec, other, checkpoint_every=0)
    again = train(spec, other, checkpoint_every=0)
    assert saves == list(range(1, len(saves) + 1))  # no turn was taken twice
    assert weights(again) == weights(whole)
    for name in ("predictions.safetensors", "rows.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert learning_curve(again) == learning_curve(whole)
    timed = ("wall_seconds", "cpu_seconds", "provenance", "outputs")
    assert {k: v for k, v in run_json(again).items() if k not in timed} == {
        k: v for k, v in run_json(whole).items() if k not in timed
    }


@pytest.mark.slow
def test_kill_dash_nine_in_the_middle(results, tmp_path):
    """A real process, killed for good at three moments, ends in the weights of one that was not."""
    spec = tiny(method="online_kd", interval=1.5, epochs=30)
    whole = train(spec, results)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    command = [
        sys.executable,
        "-m",
        "spaced_kd",
        "train",
        *spec.overrides(),
        "--results",
        other,
        "--checkpoint-every",
        "0",
    ]
    state = ResultPaths(other).state(spec)
    for turns_done in (25, 90, 160):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not any(int(path.stem.split("-")[1]) >= turns_done for path in state.glob("turn-*.safetensors")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (ResultPaths(other).run(spec) / "run.json").exists()
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "goes on after turn" in finished.stdout
    assert weights(ResultPaths(other).run(spec)) == weights(whole)


@pytest.mark.slow
def test_kill_dash_nine_at_every_kind_of_moment():
    """The short form of `make torture`."""
    command = [sys.executable, Path(__file__).parents[1] / "robustness" / "torture.py", "9", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "9 of 9 kills left no trace" in result.stdout


def test_a_damaged_state_falls_back_to_the_one_before(results, tmp_path, recwarn):
    spec, paths = tiny(method="baseline"), ResultPaths(results)
    Training(assemble(spec, paths), results).take(4)
    newest = sorted(paths.state(spec).glob("turn-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert Training(assemble(spec, paths), results).done == 3
    assert "damaged" in str(recwarn.pop().message)


def test_an_epoch_that_is_trained_again_has_one_line_in_the_curve(results, recwarn):
    spec, paths = tiny(method="baseline"), ResultPaths(results)
    Training(assemble(spec, paths), results).take(5)
    (before,) = curve.read(paths.curve(spec))
    assert (before["epoch"], before["turn"], before["turns"]) == (1, 5, 15)
    newest = sorted(paths.state(spec).glob("turn-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])  # so that the epoch's last turn is taken again
    assert [line["turn"] for line in learning_curve(train(spec, results))] == [5, 10, 15]


def test_states_that_are_passed_over_do_not_outlive_new_ones(results, recwarn):
    spec, paths = tiny(method="baseline"), ResultPaths(results)

    def some_turns(number):
        Training(assemble(spec, paths), results).take(number)
        return [path.stem for path in sorted(paths.state(spec).glob("turn-*"))]

    assert some_turns(8) == ["turn-000000007", "turn-000000008"]
    for path in paths.state(spec).glob("turn-*"):
        path.write_bytes(path.read_bytes()[:-100])
    assert some_turns(1) == ["turn-000000001"]  # begun anew, below the numbers of the damaged ones
    assert some_turns(2) == ["turn-000000002", "turn-000000003"]


def test_a_state_of_other_data_is_refused(results):
    spec, paths = tiny(method="baseline"), ResultPaths(results)
    with pytest.raises(Interrupted):
        train(spec, results, stop=StopSignal(time_limit=1e-9, margin=0))
    (state,) = paths.state(spec).glob("turn-*")
    stored, about = array_file.read(state, remedy="")
    array_file.save(state, stored, **about | {"data_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"is not the data of .*: prepare the same data again"):
        train(spec, results)


def test_another_state_of_a_teacher_is_refused(results):
    student, paths = tiny(method="online_kd", interval=1.0), ResultPaths(results)
    train(student.teacher_spec(), results, save_states_for=(student,))
    first, second = sorted(paths.trajectory(student.teacher_spec()).glob("*.safetensors"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"batches-000000005.safetensors is of batches 10, not 5: delete it"):
        train(student, results)


def test_data_of_another_dataset_are_refused(results):
    spec = tiny(method="baseline")
    stored, about = array_file.read(ResultPaths(results).data(spec), remedy="")
    own = results.parent / "own"
    array_file.save(ResultPaths(own).data(spec), stored, **about | {"dataset": "cifar100"})
    with pytest.raises(UserError, match="holds cifar100, not digits: delete it and prepare it again"):
        train(spec, own)


def test_a_foreign_state_is_refused(results):
    paths = ResultPaths(results)
    mine, other = tiny(method="baseline"), tiny(method="baseline", seed=1)
    Training(assemble(other, paths), results).take(1)
    paths.state(mine).parent.mkdir(exist_ok=True)
    paths.state(other).rename(paths.state(mine))
    with pytest.raises(UserError, match=f"is a state of another run, {other.id}: delete it"):
        train(mine, results)


def test_foreign_weights_are_refused(results):
    spec = tiny(method="online_kd", interval="max")
    train(spec.teacher_spec(), results)
    wide = tiny(method="baseline", network__width=0.125)
    train(wide, results)
    ResultPaths(results).weights(spec.teacher_spec()).write_bytes(ResultPaths(results).weights(wide).read_bytes())
    with pytest.raises(UserError, match=r"weights\.safetensors is of run .*, not .*: delete it"):
        train(spec, results)


def test_a_loss_that_is_no_number_stops_at_its_batch(results):
    with pytest.raises(UserError, match=r"the loss \(teacher: hard\) is (nan|inf) at batch \d+: lower lr"):
        train(tiny(method="baseline", lr=1e30), results)
    assert not ResultPaths(results).run(tiny(method="baseline", lr=1e30)).exists()


def test_data_of_another_default_are_refused(results, monkeypatch):
    monkeypatch.setitem(registry.plugin("datasets", "digits").settings, "split", ("int", 7))
    with pytest.raises(UserError, match="was prepared with split=0, not 7: delete it"):
        train(tiny(method="baseline"), results)


def test_a_finished_run_is_left_as_it_is(results):
    spec = tiny(method="baseline")
    folder = train(spec, results)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert train(spec, results) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_written(results, monkeypatch):
    monkeypatch.setattr(
        "spaced_kd.utils.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): make room"):
        train(tiny(method="baseline"), results)
    assert not list(ResultPaths(results).run(tiny(method="baseline")).glob("*"))


def test_counting_flops_changes_nothing_and_counts_right(results, monkeypatch):
    spec = tiny(method="online_kd", interval=1.5)
    counted = run_json(train(spec, results))
    monkeypatch.setattr(run_recorder.TrainingMetrics, "counted", lambda *_: __import__("contextlib").nullcontext())
    other = results.parent / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    assert weights(train(spec, other)) == weights(ResultPaths(results).run(spec))
    # a student's turn is forward and backward of its own, 3 units but for the first layer, and the teacher's forward, 1
    share = counted["training_flops"]["student"] / counted["training_flops"]["teacher"]
    assert 1.3 < share < 1.4


def test_provenance_says_where_a_result_comes_from(results):
    run = run_json(train(tiny(method="baseline"), results))
    result = run["provenance"]
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert result["data_sha256"] == assemble(tiny(method="baseline"), ResultPaths(results)).data.checksum
    assert (result["commit"], result["dirty"]) == code_commit.commit()
    assert "commits" not in result
    assert run["wall_seconds"] > 0
    assert run["training_flops"]["teacher"] > 0
    assert run["spec"]["weight_decay"] == 5e-4


def test_provenance_tells_of_earlier_code(results, monkeypatch, capsys):
    spec, described = tiny(method="baseline"), provenance.describe()
    for commit in ("a" * 40, "b" * 40):
        monkeypatch.setattr(provenance, "describe", lambda *_, commit=commit: described | {"commit": commit})
        part = StopSignal(time_limit=1e-9, margin=0) if commit[0] == "a" else StopSignal()
        with pytest.raises(Interrupted) if commit[0] == "a" else nullcontext():
            train(spec, results, stop=part)
    result = run_json(ResultPaths(results).run(spec))["provenance"]
    assert (result["commit"], result["commits"]) == ("b" * 40, ["a" * 40, "b" * 40])
    assert f"began with other code, commit {'a' * 40}" in capsys.readouterr().out


def test_a_new_file_of_code_is_no_clean_commit(tmp_path, monkeypatch):
    package = tmp_path / "src" / "spaced_kd"
    (package / "training").mkdir(parents=True)
    (package / "training" / "code_commit.py").write_text("")
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    monkeypatch.setattr(code_commit, "__file__", str(package / "training" / "code_commit.py"))
    assert code_commit.commit()[1] is False
    (package / "mine.py").write_text("")
    assert code_commit.commit()[1] is True


def test_looking_for_a_finished_run_imports_no_torch(tmp_path):
    arguments = ["train", *tiny(method="baseline").overrides(), "--results", str(tmp_path), "--finished"]
    code = f"import sys\nfrom spaced_kd.cli import main\nprint(main.main({arguments}), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "2 False\n"
    assert "is not finished" in result.stderr


def test_the_schedule_is_the_methods(results):
    job = assemble(tiny(method="online_kd", interval=1.5), ResultPaths(results))
    assert job.turns == list(turns(15, 7))


def test_a_finished_network_says_what_its_training_recorded(results):
    spec = tiny(method="self_kd", method__reported_head="ensemble", lr=0.02)  # where its heads differ
    folder = train(spec, results)
    network, data = finished_network(spec.id, results)
    recorded, _ = array_file.read(folder / "predictions.safetensors", remedy="")
    assert not network.training
    assert np.array_equal(predict(network, data), recorded["predictions"][-1])


TAIL = {"epochs": 8, "eval_every": 8, "tail_evaluations": 4}  # of 40 batches, so of the last four steps


@pytest.mark.parametrize(
    "run",
    first_fast(
        [
            {"method": "baseline"},
            {"method": "online_kd", "interval": 1.5},
            {"method": "online_kd", "interval": 1.5, "clock": "teacher"},
            {"method": "self_kd", "interval": 1.0},
            {"method": "adaptive_interval", "method__least": 3},
            {"method": "ban", "interval": "max"},
        ]
    ),
)
def test_the_tail_is_evaluated_on_the_learners_own_steps_and_changes_nothing_else(results, tmp_path, run):
    spec, plain = tiny(**run, **TAIL), tiny(**run, epochs=8, eval_every=8)
    assert spec.id != plain.id
    folder, other = train(spec, results), train(plain, results)
    assert weights(folder) == weights(other)
    stored, without = (array_file.read(each / "predictions.safetensors", remedy="")[0] for each in (folder, other))
    assert {name: stored[name].tobytes() for name in without} == {name: without[name].tobytes() for name in without}
    rows, others = (json.loads((each / "rows.json").read_text()) for each in (folder, other))
    assert rows[:-1] == others
    assert "tail_steps" not in without

    job = assemble(plain, ResultPaths(results))
    result, seen = [*job.method.roles.values()][-1], {}
    total = sum(job.method.roles[who] == result for who, _ in job.turns)
    grid = [total - left * total // 40 for left in (3, 2, 1, 0)]
    taken = 0
    for who, index in job.turns_after(0):
        job.learners[who].learn(index, partial(job.passes, who, index))
        if job.method.roles[who] == result:
            taken += 1
            if taken in grid:
                seen[taken] = predict(job.reported, job.data)
    assert stored["tail_steps"].tolist() == grid
    assert all(
        np.array_equal(outputs, seen[step]) for outputs, step in zip(stored["tail_predictions"], grid, strict=True)
    )
    labels = job.data.labels["test"].numpy()
    assert rows[-1] == {
        "metric": "accuracy",
        "selection": "tail",
        "states": 4,
        "value": pytest.approx(np.mean([accuracy(seen[step], labels) for step in grid])),
    }


def test_a_short_tail_has_no_mean(results):
    folder = train(tiny(method="baseline", tail_evaluations=3), results)  # of 15 steps a tenth has two
    assert array_file.read(folder / "predictions.safetensors", remedy="")[0]["tail_steps"].tolist() == [14, 15]
    assert "tail" not in {row["selection"] for row in json.loads((folder / "rows.json").read_text())}


@pytest.mark.parametrize("stored", first_fast([False, True]))
def test_a_training_that_stops_inside_its_tail_goes_on_to_the_same_rows(results, tmp_path, monkeypatch, stored):
    long = TAIL | {"epochs": 14}  # 20 images that are learnt: 42 steps
    spec = tiny(method="online_kd", interval=1.5, held_out=0.5, clock="teacher", **long)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    if stored:
        for place in (results, other):
            train(spec.teacher_spec(), place, save_states_for=(spec,))
    whole = train(spec, results)

    class PulledPlugError(Exception):
        pass

    save = checkpoint.save_state

    def pull(folder, done, *args, **kwargs):
        save(folder, done, *args, **kwargs)
        if done == 82:  # of 84 turns
            raise PulledPlugError

    monkeypatch.setattr(checkpoint, "save_state", pull)
    with pytest.raises(PulledPlugError):
        train(spec, other, checkpoint_every=0)
    again = train(spec, other, checkpoint_every=0)
    for name in ("predictions.safetensors", "rows.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    message, rows = run_json(again), json.loads((again / "rows.json").read_text())
    assert message["teacher_states"] == ("stored" if stored else "trained along")
    assert len(message["tail_held_out"]) == 4
    by_metric = {row["metric"]: row for row in rows if row["selection"] == "tail"}
    assert by_metric["held_out_accuracy"]["value"] == pytest.approx(np.mean(message["tail_held_out"]))
    assert by_metric["held_out_accuracy"]["states"] == by_metric["accuracy"]["states"] == 4


def test_a_tail_of_too_few_evaluations_is_refused():
    with pytest.raises(UserError, match=r"tail_evaluations is 2, but must be at least 3"):
        tiny(method="baseline", tail_evaluations=2)
    with pytest.raises(UserError, match="tail_evaluations is -1, but must not be negative"):
        tiny(method="baseline", tail_evaluations=-1)
