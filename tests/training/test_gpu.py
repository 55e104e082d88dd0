"""What only a GPU can show; skipped where there is none, as in `.ci/run`."""

from functools import partial

import pytest
import torch
from conftest import TINY

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.evaluation.evaluate import evaluate
from spaced_kd.training.checkpoint import to_arrays
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.preemption import GO_ON, Interrupted, StopSignal
from spaced_kd.utils.seeding import global_seed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
ARMS = [
    {"method": "baseline"},
    {"method": "baseline", "batch_norm": "halves"},
    {"method": "online_kd", "precision": "fp32"},
    {"method": "online_kd", "precision": "tf32"},
    {"method": "online_kd", "method__optimizers": "one", "optimizer": "adamw"},
    {"method": "online_kd", "interval": 1.5, "protocol": "released"},
    {"method": "online_kd", "interval": 1.5, "method__student_batches": "new_views"},
    {"method": "self_kd", "interval": 1.5, "protocol": "released"},
    {"method": "online_kd", "network": "vit_mini", "network__width": None, "lr": 0.001, "optimizer": "adamw"},
    {"method": "online_kd", "network": "deit_tiny", "network__width": None, "input_size": 32, "lr": 0.001},
    *({"method": name} for name in registry.names("methods") if name != "baseline"),
    *({"method": name, "interval": 1.5} for name in ("dml", "self_kd", "shake", "takd", "ban", "dlb", "ps_kd")),
]


def on_gpu(**changes):
    flat = TINY | {"precision": "bf16"} | {key.replace("__", "."): value for key, value in changes.items()}
    return from_flat({key: value for key, value in flat.items() if value is not None})


def trained(spec, results, turns=None, **how):
    """Every module after the turns, and the mean of the losses that they gave."""
    job, losses = assemble(spec, ResultPaths(results), "cuda", **how), []
    for who, index in list(job.turns_after(0))[:turns] if not job.decides else job.turns_after(0):
        with global_seed(spec.seed, f"step of {who}", index):
            found = job.learners[who].learn(index, partial(job.passes, who, index))
        losses.append(sum(found.values(), torch.zeros((), device=job.device)))
    modules = {name: to_arrays(module.state_dict()) for name, module in job.modules.items()}
    return job, modules, torch.stack(losses).tolist()


def same(one, other):
    return all((one[name][key] == other[name][key]).all() for name in one for key in one[name])


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: " ".join(map(str, arm.values())))
def test_replayed_steps_give_the_same_bits(arm, results):
    spec = on_gpu(**arm)
    job, modules, losses = trained(spec, results)
    plain, expected, expected_losses = trained(spec, results, graphs=False)
    assert same(modules, expected)
    assert losses == expected_losses
    assert plain.graphed_step is None
    assert bool(job.graphed_step and job.graphed_step.recordings) == bool(getattr(job.method, "replayable", False))


def test_a_step_is_that_of_a_processor(results):
    spec = on_gpu(method="online_kd", precision="fp32")
    _, found, _ = trained(spec, results, 2)
    job = assemble(spec, ResultPaths(results), "cpu")
    for who, index in job.turns[:2]:  # of the teacher and of the student; rounding grows from step to step
        job.learners[who].learn(index, partial(job.passes, who, index))
    for name, module in job.modules.items():
        for key, tensor in to_arrays(module.state_dict()).items():
            assert found[name][key] == pytest.approx(tensor, rel=1e-3, abs=1e-4), (name, key)


@pytest.mark.parametrize("interval", [0.5, 1.5, "max"])
def test_a_stored_teacher_and_one_trained_along_teach_the_same(interval, results, tmp_path):
    teacher, student = on_gpu(method="baseline"), on_gpu(method="online_kd", interval=interval)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    train(teacher, results, save_states_for=(student,), device="cuda")
    found, expected = train(student, results, device="cuda"), train(student, other, device="cuda")
    assert (found / "weights.safetensors").read_bytes() == (expected / "weights.safetensors").read_bytes()
    assert '"stored"' in (found / "run.json").read_text()
    assert '"trained along"' in (expected / "run.json").read_text()


def test_a_stopped_training_goes_on_to_the_same_bits(results, tmp_path):
    spec = on_gpu(method="online_kd", interval=1.5)
    whole = train(spec, results, device="cuda")
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")

    class SevenTurns(StopSignal):
        asked = 0

        def over(self):
            self.asked += 1
            return Interrupted("seven turns are done", GO_ON) if self.asked == 7 else None

    for _ in range((len(assemble(spec, ResultPaths(other), "cuda").turns) - 1) // 7):
        with pytest.raises(Interrupted):
            train(spec, other, device="cuda", stop=SevenTurns())
    again = train(spec, other, device="cuda")
    assert (again / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("arguments", ["weight_noise draws=2", "hessian_trace probes=4 images=20", "bim images=20"])
def test_evaluations(arguments, results):
    name, *settings = arguments.split()
    pytest.importorskip({"hessian_trace": "curvlinops", "bim": "torchattacks"}.get(name, "torch"))
    run = train(on_gpu(method="self_kd"), results, device="cuda")
    asked = {name: {key: int(value) for key, value in (word.split("=") for word in settings)}}
    rows = evaluate(run.name, asked, results, device="cuda")
    assert rows
    assert all(row["value"] == row["value"] for row in rows)


def test_energy_is_measured_or_said_not_to_be(results):
    about = (train(on_gpu(method="baseline"), results, device="cuda") / "run.json").read_text()
    assert '"accelerator": "NVIDIA' in about
    assert '"energy_joules": 0' not in about
