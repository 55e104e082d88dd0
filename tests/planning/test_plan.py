"""The plan of a study: counts that a training confirms, times that add up, and what it refuses."""

import json
from pathlib import Path

import pytest
from conftest import TINY, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config import registry, run_spec
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import expand, load_study
from spaced_kd.planning import costs, plan, throughput
from spaced_kd.planning.costs import RunCosts
from spaced_kd.training import checkpointer, provenance
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]
RESNET = {key: value for key, value in TINY.items() if key.startswith("network")}
COMMON = {key: value for key, value in TINY.items() if key not in RESNET}
VIT = {"network": "vit_mini", "network.dim": 16, "optimizer": "adamw", "lr": 1e-3}
STUDY = """
study: small
grids:
  - dataset: {digits: {train_per_class: 4}}
    network: {resnet_mini: {width: 0.0625}}
    recipe: {epochs: 3, batch_size: 9}
    seed: [0, 1]
    arms:
      - {method: baseline, evaluate: all}
      - {method: online_kd, interval: [0, 1.0, 1.5, max], evaluate: all}
evaluations: {corruptions: {images: 20}, bim: {images: 20}}
tables: [tab01]
"""


SHORT = STUDY.replace("1.5", "0.5").replace("batch_size: 9", "batch_size: 15")


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return load_study(path)


SPACED = {"method": "online_kd", "interval": 1.5}
SPACED_SELF = {"method": "self_kd", "interval": 1.5}
CONFIRMED = [
    (RESNET, {"method": "baseline"}),
    (RESNET, {"method": "online_kd", "interval": 0}),
    (RESNET, SPACED | {"method.student_batches": "new_views", "method.adapter": "mlp"}),
    (RESNET | {"batch_norm": "halves"}, SPACED | {"eval_every": 2}),
    (RESNET | {"held_out": 0.25}, SPACED),
    (RESNET | {"epochs": 7, "eval_every": 7, "tail_evaluations": 3}, SPACED),
    (RESNET, {"method": "self_kd", "interval": 0}),
    (RESNET, SPACED_SELF | {"method.idle_heads": "drifting"}),
    (RESNET, {"method": "ban", "interval": 1.5, "method.generations": 2}),
    (RESNET, {"method": "dlb", "interval": 1.5}),
    (RESNET, {"method": "ps_kd", "interval": 0}),
    (VIT, SPACED),
    (VIT, SPACED_SELF),
]


@pytest.mark.parametrize(("network", "run"), CONFIRMED)
def test_a_training_confirms_the_counts(results, network, run):
    described = run_spec.from_flat(COMMON | {"epochs": 2} | network | run)
    counted = RunCosts().cost(described, store_teachers=False)
    folder = train(described, results)
    run = json.loads((folder / "run.json").read_text())
    flops = sum(run["training_flops"].values())
    assert counted.flops == flops if network is not VIT else 0.95 * flops < counted.flops < flops  # fused attention
    assert counted.spared == 0
    shape = registry.find("datasets", "digits").shape(train_per_class=4)
    outputs, _ = array_file.read(folder / "predictions.safetensors", remedy="")
    evaluated = len(outputs["predictions"]) + len(outputs.get("tail_predictions", ()))
    assert evaluated == len(run["losses"]) + 3 * ("tail_evaluations" in network)
    assert counted.predictions == 2 * shape.test * evaluated
    stored, _ = array_file.read(folder / "weights.safetensors", remedy="")
    assert counted.weights == sum(array.nbytes for array in stored.values())
    assert RunCosts().disk(described) == counted.weights + counted.predictions


@pytest.mark.parametrize("teacher", [{}, {"teacher": "resnet_mini", "teacher.width": 0.125}])
def test_a_student_of_stored_states_confirms_the_counts(results, teacher):
    student = run_spec.from_flat(tiny(method="online_kd", interval=1.5).changed() | teacher)
    counted = RunCosts().cost(student)
    train(student.teacher_spec(), results, save_states_for=(student,))
    left = {int(path.stem.split("-")[1]) for path in ResultPaths(results).trajectory(student.teacher_spec()).iterdir()}
    assert counted.states == left
    result = json.loads((train(student, results) / "run.json").read_text())
    assert result["teacher_states"] == "stored"
    assert counted.flops == sum(result["training_flops"].values())
    assert counted.spared == RunCosts().cost(student.teacher_spec()).flops > 0


@pytest.mark.parametrize("changes", [RESNET, RESNET | {"momentum": 0.0}, VIT], ids=["sgd", "plain sgd", "adamw"])
@pytest.mark.parametrize("stored", [True, False])
def test_a_resume_state_confirms_its_size(results, monkeypatch, changes, stored):
    class PulledPlugError(Exception):
        pass

    student = run_spec.from_flat(COMMON | SPACED | changes)
    if stored:
        train(student.teacher_spec(), results, save_states_for=(student,))

    def pull(self, index):
        if self.metrics.predictions:
            self.save(index)
            raise PulledPlugError

    monkeypatch.setattr(checkpointer.Checkpointer, "after_turn", pull)
    with pytest.raises(PulledPlugError):
        train(student, results)
    (state,) = ResultPaths(results).state(student).glob("turn-*.safetensors")
    written, _ = array_file.read(state, remedy="")
    size = sum(array.nbytes for name, array in written.items() if not name.startswith("record/"))
    assert RunCosts().cost(student, store_teachers=stored).state == pytest.approx(size, rel=0.02)  # AdamW's steps


def test_runs_that_count_alike_are_counted_once(monkeypatch):
    made = []
    real = costs.Networks
    monkeypatch.setattr(costs, "Networks", lambda *args: made.append(args) or real(*args))
    together = RunCosts()
    first = together.cost(tiny(method="online_kd", interval=1.5))
    assert together.cost(tiny(method="online_kd", interval=1.5, seed=3, lr=0.5)) == first
    assert together.cost(tiny(method="online_kd", interval=1.0)).states != first.states
    assert len(made) == 2  # student and teacher
    together.cost(tiny(method="online_kd", interval=1.5, network__width=0.125))
    assert len(made) == 4


def test_several_processes_count_what_one_counts(study, monkeypatch):
    alone = plan._count(study)
    monkeypatch.setattr(plan, "FEW_GROUPS", 0)
    assert plan._count(study) == alone
    monkeypatch.setattr(RunCosts, "cost", lambda *_, **__: (_ for _ in ()).throw(UserError("no such shape")))
    with pytest.raises(UserError, match=f"^{study.runs[0].id}: no such shape$"):
        plan._count(study)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, 24),
        (2, 12),  # a, then its students beside b and c: 4 + 5 + 3 and 6 + 2 + 4 in some order
        (3, 9),  # a student waits for its teacher: 4 + 5
        (9, 9),
    ],
)
def test_makespan(count, expected):
    seconds = {"c": 2.0, "b": 6.0, "a": 4.0, "a1": 5.0, "a2": 3.0, "a3": 4.0}
    assert plan.makespan(seconds, {"a1": "a", "a2": "a", "a3": "a"}, count) == expected


def test_a_short_teacher_with_a_long_student_starts_first():
    seconds = {"alone": 5.0, "alone too": 5.0, "teacher": 1.0, "student": 9.0}
    assert plan.makespan(seconds, {"student": "teacher"}, 2) == 10


def run(*, accelerator=None, network="resnet_mini", method="baseline", flops=3e12, seconds=1.0, precision="fp32"):
    """What of a finished run tells how fast its device is."""
    return {
        "spec": {"method": method, "precision": precision, "threads": 1},
        "labels": {"network": network},
        "provenance": {"accelerator": accelerator} if accelerator else {"processor": provenance.processor()},
        "training_flops": {"teacher": flops / 3, "student": flops * 2 / 3},
        "wall_seconds": seconds,
        "energy_joules": 300.0 if accelerator else None,
    }


def test_all_that_is_recorded_can_be_asked_for_throughput():
    recorded = list(throughput.finished_runs(ROOT / "results"))
    assert any("spec" not in run for run in recorded)  # of the theory
    assert throughput.Rates("cpu", recorded).device == "cpu"


OF_TWO = {"method": "baseline", "precision": "fp32", "threads": 1, "processes": 2}


def test_throughput_is_measured_where_it_can_be_and_else_assumed():
    finished = [
        run(accelerator="NVIDIA H200", flops=2e12),
        run(accelerator="NVIDIA H200", flops=10e12, seconds=2.0),
        run(accelerator="NVIDIA H200", method="self_kd", flops=1e12),
        run(accelerator="NVIDIA H200", seconds=99.0) | {"energy_joules": None},  # beside others on its GPU
        run(accelerator="NVIDIA A100-SXM4-80GB", flops=7e12),
        run(accelerator="NVIDIA L4 of several", flops=8e12) | {"energy_joules": None, "spec": OF_TWO},
        run(flops=1e9),
        run(flops=1e9) | {"training_flops": {}},
        run(flops=9e9) | {"provenance": {"processor": "another"}},
        run(flops=4e9, network="vit_mini", seconds=9.0) | {"cpu_seconds": 2.0},  # beside others on its core
    ]
    mini = {"network": "resnet_mini", "dataset": "digits", "seed": 0}
    plain, selves, online, vit = (
        run_spec.from_flat(mini | changes)
        for changes in (
            {"method": "baseline"},
            {"method": "self_kd"},
            {"method": "online_kd"},
            {"method": "baseline", "network": "vit_mini"},
        )
    )
    h200 = throughput.Rates("h200", finished)
    assert h200.of(plain) == (4e12, "measured in 2 runs of baseline")
    assert h200.of(selves) == (1e12, "measured in 1 runs of self_kd")
    assert h200.of(online) == (13e12 / 4, "measured in 3 runs of other methods")
    assert h200.of(vit).flops == pytest.approx(67e12 * 0.3)
    assert h200.of(vit).source == "assumed: 30% of 67 TFLOP/s"
    assert throughput.Rates("A100", finished).of(plain).flops == 7e12
    assert throughput.Rates("L4", finished).of(plain).flops == 4e12  # of each of its two
    assert throughput.Rates("cpu", finished).of(plain) == (1e9, "measured in 1 runs of baseline")
    assert throughput.Rates("cpu", finished).of(vit) == (2e9, "measured in 1 runs of baseline")
    with pytest.raises(UserError, match=r"vit_mini in fp32 was not measured on 'sxm4'"):
        throughput.Rates("sxm4", finished).of(vit)
    rounded = run_spec.from_flat(mini | {"method": "baseline", "precision": "tf32"})
    assert throughput.Rates("h200", []).of(rounded).flops == pytest.approx(494e12 * 0.07)
    with pytest.raises(UserError, match="precision is tf32, which cpu does not have"):
        throughput.Rates("cpu", []).of(rounded)
    with pytest.raises(UserError, match=r"no run was measured on 'abacus', and its peak is not known: h200, h100"):
        throughput.Rates("abacus", finished)


def test_a_study_adds_up(study, tmp_path):
    made = plan.make(study, "h200", 2, tmp_path)
    (part,) = made.parts().values()
    assert len(part) == len(study.runs) == 10
    own = {run.interval: made.costs[run.id] for run in study.runs if run.method == "online_kd"}
    teacher = next(made.costs[run.id] for run in study.runs if run.method == "baseline")
    assert own[0].flops == pytest.approx(own[1.5].flops + teacher.flops)  # trains its teacher along
    assert {interval: cost.spared > 0 for interval, cost in own.items()} == {
        0: False,
        1.0: True,
        1.5: True,
        "max": True,
    }
    # two seeds; after 5 and 10 batches for 1.0, after 7 and 14 for 1.5, after 15 all of them find its weights
    assert made.teacher_states() == 2 * 4 * teacher.weights
    assert made.resume_states() == 2 * 2 * own[0].state
    assert sum(made.seconds.values()) == pytest.approx(sum(c.flops for c in made.costs.values()) / (67e12 * 0.3))
    assert made.makespan == pytest.approx(sum(made.seconds.values()) / 2)  # a seed for each device

    alone = load_study(write(tmp_path, STUDY + "store_teachers: false\n"))
    along = plan.make(alone, "h200", 2, tmp_path)
    assert sum(along.seconds.values()) == pytest.approx(sum(made.seconds.values()) + made.spared_seconds)
    assert (along.spared_seconds, along.teacher_states()) == (0, 0)


def write(folder, text):
    (folder / "other.yaml").write_text(text)
    return folder / "other.yaml"


def test_the_command_tells_it_all_before_anything_runs(tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    config = write(tmp_path, STUDY)
    assert cli.main(["plan", str(config), "--device", "h200", "--count", "2", "--results", str(tmp_path / "none")]) == 0
    message = capsys.readouterr().out
    assert "Plan of small on 2 x h200" in message
    assert "24 jobs: 1 prepare, 1 corrupt, 10 train, 10 evaluate, 1 collect, 1 draw." in message
    assert "assumed: 30% of 67 TFLOP/s" in message
    assert sorted(tmp_path.rglob("*")) == [*before, config]


@pytest.mark.parametrize(
    ("text", "arguments", "complaint"),
    [
        (STUDY, ["--device", "abacus"], "no run was measured on 'abacus'"),
        (STUDY, ["--count", "0"], "count is 0, but must be at least 1"),
        (STUDY.replace("1.5", "0.2"), [], "-online_kd-0.2-0-"),  # which run, and why
        (STUDY.replace("1.5", "0.2"), [], "interval=0.2 epochs is 1.00 batches of 5 an epoch"),
        (SHORT, [], "interval=0.5 epochs is 1.50 batches of 3 an epoch"),
        (STUDY.replace("{digits: {train_per_class: 4}}", "{tiny_imagenet: {classes: 900}}"), [], "classes is 900"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, text, arguments, complaint):
    assert cli.main(["plan", str(write(tmp_path, text)), *arguments, "--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_experiments_are_its_parts_and_share_their_runs(tmp_path, study):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(STUDY.replace("small", name).replace("tables: [tab01]", ""))
    config = {"study": "both", "experiments": ["one", "two"], "tables": ["tab01"]}
    made = plan.make(expand(config, experiments=tmp_path), "h200", 2, tmp_path)
    assert {name: len(runs) for name, runs in made.parts().items()} == {"one": 10, "two": 10}
    assert sum(made.seconds.values()) == sum(plan.make(study, "h200", 2, tmp_path).seconds.values())
    assert "35 jobs: 1 prepare, 1 corrupt, 10 train, 20 evaluate, 2 collect, 1 draw." in plan.describe(made)


def test_finished_runs_are_done_and_take_no_time(study, tmp_path, capsys):
    teacher, student = (next(run for run in study.runs if run.method == name) for name in ("baseline", "online_kd"))
    for run in (teacher, student):
        folder = ResultPaths(tmp_path).run(run)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"provenance": {}}')
    fresh, made = plan.make(study, "h200", 2, tmp_path / "none"), plan.make(study, "h200", 2, tmp_path)
    assert made.finished == {teacher.id, student.id}
    left = sum(fresh.seconds.values()) - fresh.seconds[teacher.id] - fresh.seconds[student.id]
    assert sum(made.seconds.values()) == pytest.approx(left)
    assert made.makespan < fresh.makespan
    message = plan.describe(made)
    assert "Plan of small on 2 x h200; 2 of 10 trainings are finished." in message
    assert ", 8 train, " in message
    assert "nothing has run yet" in plan.describe(fresh)
    for run in study.runs:
        ResultPaths(tmp_path).run(run).mkdir(exist_ok=True)
        (ResultPaths(tmp_path).run(run) / "run.json").write_text('{"provenance": {}}')
    assert "every training is finished" in plan.describe(plan.make(study, "h200", 2, tmp_path))


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (0, "0 s"),
        (0.2, "0 s"),
        (59.6, "60 s"),
        (61, "1 min 1 s"),
        (3599.9, "60 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_400 * 3, "3 d"),
        (1e9, "11,574 d 2 h"),
    ],
)
def test_times_are_readable(seconds, message):
    assert plan._time(seconds) == message
