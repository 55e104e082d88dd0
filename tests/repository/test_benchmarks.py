"""The plain loop computes what ours does, and the table of goals says what was measured. Nothing here is timed."""

import copy
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, tiny

from benchmarks import __main__, evaluations, machine, steps, study_costs, targets
from benchmarks.reference_loop import Plain, loader
from scripts import pack_tiny_imagenet
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import load_study
from spaced_kd.training import provenance
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.utils.files import sha256

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("interval", "batches"), [(0, 1), (0.7, 3)])  # of 5: the second leaves a block of 2
def test_the_plain_loop_learns_what_ours_does(results, interval, batches):
    spec = tiny(method="online_kd", interval=interval, epochs=1, lr=0.002)  # at more, rounding grows within ten steps
    job = assemble(spec, ResultPaths(results), "cpu")
    copies = {name: copy.deepcopy(job.modules[name]) for name in ("teacher", "student")}
    plain = Plain(*copies.values(), job.device, lr=spec.lr)
    stream = ((batch.images, batch.labels) for batch in (job.batches[i] for i in range(job.batches.per_epoch)))
    assert list(plain.turns(stream, batches)) == [who for who, _ in job.turns]
    for who, index in job.turns:
        job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
    for name, network in copies.items():
        for theirs, ours in zip(network.parameters(), job.modules[name].parameters(), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_the_plain_loader_gives_every_image_once_as_ours_are_standardised(results):
    job = assemble(tiny(method="baseline"), ResultPaths(results), "cpu")
    batches = list(loader(job.data, 16, workers=0))
    assert [len(labels) for _, labels in batches] == [16, 16, 8]
    assert torch.equal(
        torch.cat([labels for _, labels in batches]).sort().values, job.data.labels["train"].sort().values
    )
    images = torch.cat([images for images, _ in batches])
    black = (-torch.tensor(job.data.mean) / torch.tensor(job.data.std))[:, None, None]
    assert (
        torch.isclose(images, black).flatten(1).any(1).all()
    )  # a crop from a border of four has some of it, digits too
    assert images.amax() <= job.data.normalise(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)).amax() + 1e-5


def test_plain_and_ours_are_timed_block_by_block(results, monkeypatch, capsys):
    monkeypatch.setattr(steps, "block", lambda device: 2)
    specs = {each: tiny(method="online_kd", interval=0.5, epochs=9, precision=each) for each in ("bf16", "fp32")}
    plain, ours, making = steps._times(specs, torch.device("cpu"), 2, ResultPaths(results), with_warm_up=True)
    assert {who: len(times) for who, times in plain.items()} == {"teacher": 2, "student": 2}
    assert {name: [len(times) for times in each.values()] for name, each in ours.items()} == {
        "bf16": [2, 2],
        "fp32": [2, 2],
    }
    assert len(making) == 2
    assert min(*making, *plain["teacher"], *ours["bf16"]["student"]) > 0
    assert "pair 2 of 2" in capsys.readouterr().out


def test_deterministic_kernels_are_on_for_every_other_block_and_off_afterwards(results, monkeypatch):
    seen = []
    spec = tiny(method="online_kd", interval=0.5, epochs=9, precision="bf16")
    monkeypatch.setattr(steps, "_spec", lambda *_: spec)
    monkeypatch.setattr(steps, "prepare", lambda *_: None)  # the digits are there
    timed = steps._block
    monkeypatch.setattr(
        steps,
        "_block",
        lambda *given: (seen.append(torch.are_deterministic_algorithms_enabled()), timed(*given))[1],
    )
    monkeypatch.setattr(steps, "block", lambda device: 2)
    values, detail = steps.deterministic(torch.device("cpu"), 1, 2, Path(), ResultPaths(results))
    assert seen == [True, False] * 3
    assert not torch.are_deterministic_algorithms_enabled()
    (more, _) = values["deterministic"]
    assert more == pytest.approx(100 * (detail["seconds with"][0] / detail["seconds without"][0] - 1))


def test_a_block_of_the_wrong_learner_is_noticed(monkeypatch):
    monkeypatch.setattr(steps, "block", lambda device: 2)
    with pytest.raises(RuntimeError, match="have learnt, not teacher"):
        steps._block(iter(["teacher", "student"]), torch.device("cpu"), "fp32")


def test_a_steps_work_is_counted():
    from benchmarks.workload import run

    spec = run(method="online_kd", dataset__size=32)
    whole, half = steps.work(spec, half=False), steps.work(spec, half=True)
    teacher, student = whole["teacher"], whole["student"]
    # of three products of as many FLOPs the first layer's has no gradient of its images; the student's teacher adds one
    assert 3 * 0.99 < 4 * teacher["flops"] / student["flops"] < 3.02
    assert teacher["flops"] / 128 == pytest.approx(
        3 * 2 * 0.555e9, rel=0.01
    )  # 0.555 GMAC: ResNet-18 on 32 px, no max-pool
    assert student["bytes"] > teacher["bytes"] > 128 * 64 * 32 * 32 * 4 * 50
    assert half["teacher"]["bytes"] == pytest.approx(teacher["bytes"] / 2, rel=0.05)


def test_states_are_written_and_the_last_two_kept(results, monkeypatch):
    monkeypatch.setattr(study_costs, "run", lambda **_: tiny(method="online_kd"))
    monkeypatch.setattr(study_costs, "prepare", lambda *_: None)  # the digits are there
    values, detail = study_costs.states(torch.device("cpu"), 3, Path(), ResultPaths(results))
    assert len(values["states"]) == 3
    assert min(values["states"]) > 0
    kept = sorted((results / "states").iterdir())
    assert [path.stem for path in kept] == ["turn-000000001", "turn-000000002"]
    assert detail["bytes"] == kept[-1].stat().st_size


def test_a_copy_without_history_says_whose_it_is(monkeypatch):
    here = provenance.commit()
    monkeypatch.setenv("SPACED_KD_COMMIT", here[0])
    assert provenance.commit() == here
    monkeypatch.setenv("SPACED_KD_COMMIT", "abc")
    assert provenance.commit() == ("abc", None)


def test_the_sweep_spares_each_students_teacher_but_the_one_of_online_kd():
    values, _ = study_costs.sweep()
    # in passes, of which learning takes three: w/o KD 3, online 3 + 4, five students 4 each, against six of 7
    assert values["sweep"] == [pytest.approx((3 + 7 + 5 * 4) / (3 + 6 * 7), rel=0.01)]
    assert values["sweep_together"] == [pytest.approx((3 + 6 * 4) / (3 + 6 * 7), rel=0.01)]


def recorded(**values):
    machine = {
        "processor": "a processor",
        "threads": 2,
        "bf16_instructions": ["avx512_bf16"],
        "versions": {"torch": "2"},
    }
    step = {"flops": 3e11, "bytes": 2e9, "seconds": 2.0}
    group = {"commit": "c" * 40, "values": values, "detail": {"32 px, teacher, plain fp32": step}}
    return {
        "cpu-avx512_bf16": {"machine": machine, "ceilings": {"fp32": 6e11, "bytes": 1e10}, "groups": {"steps": group}}
    }


def test_the_table_says_what_is_met_and_what_was_not_measured():
    table = targets.goals(recorded(step_32_bf16_teacher=[2.5, 4.0, 3.1], states=[2.0, 0.5, 1.5], sweep=[0.7]))
    outputs = {line["what"]: (line["measured"], line["n"], line["met"]) for line in table}
    assert outputs["a teacher's step, ResNet-18, 32 px, bf16 against plain fp32"] == ("3.1 x [2.5, 4]", "3", "yes")
    assert outputs["steps lost to resume states"] == ("1.5 % [0.5, 2]", "3", "no")
    assert outputs["FLOPs of the sweep of intervals, against independent runs"] == ("0.7 x", "1", "yes")
    assert outputs["start of a training, beyond the imports of torch and timm"] == ("not measured", "", "")
    assert {line["on"] for line in table} == {"CPU with AVX-512 for bf16"}


def test_a_number_without_a_goal_is_stated_and_not_judged():
    (line,) = (line for line in targets.goals(recorded(deterministic=[1.0])) if line["goal"] == "none" and line["n"])
    assert (line["measured"], line["met"]) == ("1 %", "")


def test_the_arithmetic_sets_a_step_beside_the_ceilings():
    (line,) = targets.arithmetic(recorded()["cpu-avx512_bf16"])
    assert line["of the matrix product's FLOP/s"] == "25 %"
    assert line["of the copy's bytes/s"] == "10 %"
    assert "0.6 TFLOP/s fp32" in targets.page(recorded())


def test_an_emulated_precision_is_not_timed(monkeypatch):
    cpu = torch.device("cpu")
    for kind, timed in {"avx2": ("fp32",), "amx": ("bf16", "fp32")}.items():
        monkeypatch.setattr(provenance, "kind", lambda device=None, kind=kind: kind)
        assert machine.precisions(cpu) == timed
        assert machine.kind(cpu) == f"cpu-{kind}"
        precisions = {goal.key.split("_")[2] for goal in targets.GOALS[f"cpu-{kind}"] if goal.key.startswith("step_")}
        assert precisions == set(timed)


def test_a_goal_is_there_for_each_kind_of_processor():
    assert targets.GOALS.keys() == targets.KINDS.keys() == {"cuda", *(f"cpu-{kind}" for kind in provenance.KINDS)}
    assert targets.read().keys() <= targets.KINDS.keys()


def test_every_group_can_be_started():
    arguments = __main__._parser().parse_args([])
    for device in ("cpu", "cuda"):
        assert len(__main__.groups(arguments, torch.device(device))) > 5
    assert callable(evaluations.corrupted)  # imported late, so otherwise not at all


def test_no_goal_is_there_twice_and_every_recorded_number_has_one():
    for kind, each in targets.GOALS.items():
        keys = [goal.key for goal in each]
        assert len(set(keys)) == len(keys)
        for group in targets.read().get(kind, {"groups": {}})["groups"].values():
            assert {key for key in group["values"] if not key.startswith("step_")} <= set(keys)


@pytest.mark.parametrize("path", sorted(targets.RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_recorded_was_measured_on_a_commit(path):
    for group in json.loads(path.read_text())["groups"].values():
        assert re.fullmatch("[0-9a-f]{40}", group["commit"]), "a dirty or unknown commit"


def test_the_parts_of_the_data_hold_every_file_once(tmp_path):
    folder = tmp_path / "data" / "tiny-imagenet-200"
    for name in ("wnids.txt", "val/val_annotations.txt", *(f"train/n{i}/images/n{i}_0.JPEG" for i in range(5))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    made = pack_tiny_imagenet.make(tmp_path / "data", tmp_path / "parts")
    assert [path.name for path in made] == ["part-1.tar.gz", "part-2.tar.gz", "part-3.tar.gz"]
    names = []
    for path in made:
        with tarfile.open(path) as archive:
            names += archive.getnames()
            archive.extractall(tmp_path / "there", filter="data")
    assert len(names) == len(set(names)) == 7
    assert (tmp_path / "there/tiny-imagenet-200/train/n3/images/n3_0.JPEG").read_text() == "train/n3/images/n3_0.JPEG"


BORROWED = """
import sys
for name in sys.argv[1].split():
    sys.modules[name] = None  # as if it were not installed
from pathlib import Path
from benchmarks.__main__ import main
from spaced_kd.cli import main as cli
assert cli.main(["train", *sys.argv[3:], "--results", sys.argv[2]]) == 0
sys.argv = ["benchmarks", "--only", "sweep", "--recorded", sys.argv[2], "--results", sys.argv[2]]
main()
"""
ABSENT = "pandas scipy sklearn curvlinops torchattacks imagecorruptions cv2 skimage matplotlib seaborn snakemake pynvml"


@pytest.mark.slow
def test_a_training_and_a_benchmark_need_torch_timm_and_safetensors_alone(results):
    arguments = tiny(method="online_kd", interval=0.5, epochs=1).overrides()
    command = [sys.executable, "-c", BORROWED, ABSENT, str(results), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "src"})
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    (measured,) = results.glob("cpu-*.json")
    assert "sweep" in json.loads(measured.read_text())["groups"]


@pytest.mark.slow
@pytest.mark.parametrize(("together", "online"), [(False, "trained along"), (True, "together")])
def test_runs_side_by_side_are_those_of_their_own(results, tmp_path, together, online):
    grid = TINY | {"epochs": 2, "seed": [0, 1]}
    arms = [{"method": "online_kd", "interval": [0, 1.5]}, {"method": "baseline"}]
    path = tmp_path / "side.yaml"
    path.write_text(yaml.safe_dump({"study": "side", "train_together": together, "grids": [grid | {"arms": arms}]}))
    command = [sys.executable, "-m", "scripts.train_many", path, "--jobs", "2", "--results", results]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    runs = {run.id: run for run in load_study(path).runs}
    assert {folder.name for folder in (results / "runs").iterdir()} == set(runs)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "data").symlink_to(results / "data")
    for interval, states in ((1.5, "stored"), (0.0, online)):
        student = next(run for run in runs.values() if run.interval == interval and run.method == "online_kd")
        found = json.loads((results / "runs" / student.id / "run.json").read_text())
        assert found["teacher_states"] == states
        alone = train(student, tmp_path / "alone")
        assert sha256(alone / "weights.safetensors") == found["outputs"]["weights.safetensors"]
