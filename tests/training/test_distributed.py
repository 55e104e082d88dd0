"""Several processes train one run: the numbers of one process, exact resumes, one writer, and mistakes in a line."""

import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import TINY, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.data.batches import Batch
from spaced_kd.evaluation.evaluate import finished_network
from spaced_kd.training import distributed
from spaced_kd.training.distributed import process_group
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import predict
from spaced_kd.training.modules import build
from spaced_kd.training.preemption import GO_ON, Interrupted, StopSignal
from spaced_kd.training.timeline import make_method
from spaced_kd.utils import array_file
from spaced_kd.utils import processes as distributed_processes
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json
from spaced_kd.utils.seeding import generator

PATIENCE = 600  # seconds, in which also a busy machine answers
VIT = {key: value for key, value in TINY.items() if key != "network.width"}
VIT |= {"network": "vit_mini", "network.dim": 16, "network.depth": 2, "epochs": 2, "method": "online_kd"}


def vit(**changes: object):
    """A tiny transformer's run over two processes."""
    return from_flat(VIT | {"processes": 2} | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="session")
def server():
    """Processes that have imported everything before they start."""
    context = multiprocessing.get_context("forkserver")
    plugins = [
        f"spaced_kd.{name}"
        for name in (
            "networks.vit",
            "networks.resnet",
            "distillation.methods.online_kd",
            "distillation.methods.self_kd",
        )
    ]
    context.set_forkserver_preload(
        ["pytest", "hypothesis", "yaml", "spaced_kd.evaluation.evaluate", "spaced_kd.training.loop", *plugins]
    )
    return context


def work(rank: int, processes: int, folder: str, call: Callable, arguments: tuple, answers) -> None:
    """What one process does: the call in torchrun's environment; sends what it gives or raises."""
    place = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({key: str(value) for key, value in place.items()})
    torch.set_num_threads(1)
    join, met = dist.init_process_group, itertools.count()

    def meet_again(*all_: object, **named: object) -> None:
        """By a file of its own each time, where torchrun's processes meet once, at a port."""
        join(*all_, init_method=f"file://{folder}/{next(met)}", rank=rank, world_size=processes, **named)

    dist.init_process_group = meet_again
    try:
        answers.put((rank, call(*arguments)))
    except (UserError, Interrupted) as error:
        answers.put((rank, error))
    except BaseException:
        answers.put((rank, AssertionError(traceback.format_exc())))


def start(server, call: Callable, *arguments: object, processes: int = 2) -> list:
    """What each of some processes, started as by torchrun, gives or raises."""
    answers, found = server.Queue(), {}
    with tempfile.TemporaryDirectory() as folder:
        given = (folder, call, arguments, answers)
        workers = [server.Process(target=work, args=(rank, processes, *given)) for rank in range(processes)]
        for worker in workers:
            worker.start()
        try:
            while len(found) < processes:
                rank, answer = answers.get(timeout=PATIENCE)
                found[rank] = answer
                if isinstance(answer, AssertionError):
                    raise answer
        finally:
            for worker in workers:
                worker.join(10 if len(found) == processes else 0)
                worker.kill()
    return [found[rank] for rank in range(processes)]


@pytest.fixture
def side_by_side(server):
    """(call, *arguments) -> what `start` gives."""
    return partial(start, server)


def gradients(method: str, who: str, images: int, settings: dict) -> tuple[dict, dict]:
    """A turn in fp64 on one batch: loss terms and gradients."""
    spec = vit(method=method, processes=distributed_processes.started(), **settings)
    with process_group(distributed_processes.started()):
        made = make_method(spec)
        modules = {n: m.double() for n, m in build(spec, made, 10, 8, torch.device("cpu"), images).items()}
        draws = generator(0, "test")
        views = torch.from_numpy(draws.normal(size=(2, images, 3, 8, 8)))
        labels = torch.from_numpy(draws.integers(0, 10, images))
        share = views.tensor_split(distributed_processes.started(), dim=1)[distributed_processes.rank()]
        batch = Batch(share[0], labels, torch.arange(images), lambda number: share[number])
        step = distributed.step(made.terms, modules, set(made.roles.values()), set(modules))
        if (
            distributed_processes.started() > 1
        ):  # gradients are summed by place, and sets of names have an order of their own
            assert list(step.module.learning) == list(modules)
        for _ in range(2):  # a second turn finds everything in order after the first
            for module in modules.values():
                module.zero_grad()
            torch.manual_seed(0)
            terms = step(who, batch)
            sum(terms.values()).backward()
        found = {f"{n}.{key}": p.grad for n, m in modules.items() for key, p in m.named_parameters()}
    return (
        {name: value.item() for name, value in terms.items()},
        {key: None if value is None else value.numpy() for key, value in found.items()},
    )


TURNS = {
    "baseline": ("baseline", "teacher", {}),
    "a teacher": ("online_kd", "teacher", {}),
    "a student": ("online_kd", "student", {"method__adapter": "mlp"}),
    "a norm over the batch": ("online_kd", "student", {"method__feature_loss": "dist"}),
    "new views": ("online_kd", "student", {"method__student_batches": "new_views"}),
    "two passes": ("online_kd", "student", {"method__second_forward": True}),
    "joint": (
        "online_kd",
        "student",
        {"method__joint_backward": True, "method__optimizers": "one", "method__teacher_mode": "train"},
    ),
    "exits": ("self_kd", "student", {}),
    "the deepest exit": ("self_kd", "teacher", {"interval": 1.0}),
    "idle exits": ("self_kd", "teacher", {"interval": 1.0, "method__idle_heads": "drifting"}),
}


def every_turn(images: int) -> dict[str, tuple[dict, dict]]:
    return {kind: gradients(method, who, images, settings) for kind, (method, who, settings) in TURNS.items()}


@pytest.mark.parametrize(("images", "processes"), [(8, 2), pytest.param(7, 3, marks=pytest.mark.slow)])
def test_shares_of_a_batch_have_the_losses_and_gradients_of_the_whole(side_by_side, images, processes):
    whole = every_turn(images)
    for found in side_by_side(every_turn, images, processes=processes):
        for kind, (terms, its_gradients) in found.items():
            expected_terms, expected = whole[kind]
            assert any(value is not None and abs(value).max() > 1e-6 for value in expected.values()), kind
            assert terms == pytest.approx(expected_terms, rel=0, abs=1e-9), kind
            assert its_gradients.keys() == expected.keys(), kind
            for key, value in expected.items():
                assert (its_gradients[key] is None) == (value is None), (kind, key)
                if value is not None:
                    np.testing.assert_allclose(its_gradients[key], value, rtol=0, atol=1e-9, err_msg=f"{kind}: {key}")


OUTPUTS = ("weights.safetensors", "predictions.safetensors", "rows.json")
RUNS = {
    "stored teacher": vit(interval=1.0),
    "teacher along": vit(interval=0.5, optimizer="adamw"),
    "batch norm": tiny(
        method="baseline", epochs=2, processes=2, batch_norm="shares", held_out=0.25, tail_evaluations=3
    ),
}


class Few(StopSignal):
    """Ends after some turns, as one process alone sees it."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def over(self) -> Interrupted | None:
        self.turns -= 1
        return Interrupted("enough", GO_ON) if self.turns == 0 and distributed_processes.rank() == 1 else None


def as_a_reader() -> mock._patch:
    """Makes writing a failure in all processes but the first."""
    return mock.patch("spaced_kd.utils.files.open", open if distributed_processes.rank() == 0 else None, create=True)


def whole_and_in_pieces(whole: Path, pieces: Path) -> list[str]:
    """Every run at once and in three slices; gives what the first process says."""
    with as_a_reader():
        for spec in RUNS.values():
            if spec.interval == 1.0 and spec.method == "online_kd":
                train(spec.teacher_spec(), whole, save_states_for=(spec,))
            train(spec, whole)
            for turns in (3, 5):
                with pytest.raises(Interrupted):
                    train(spec, pieces, stop=Few(turns))
            train(spec, pieces)
            with process_group(2):
                _, data = finished_network(spec.id, whole)
                network = assemble(spec, ResultPaths(whole)).reported
                shared = distributed.predict_sharded(predict, network, data, batch_size=7)
                assert np.array_equal(shared, predict(network, data, batch_size=7))
    return sorted(path.name for path in pieces.rglob("turn-*"))


@pytest.fixture(scope="module")
def made(server, digits, tmp_path_factory):
    """Two folders with the same runs: trained at once, and in pieces."""
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "pieces")]
    for folder in folders:
        (folder / "data").symlink_to(digits / "data")
    for left in start(server, whole_and_in_pieces, *folders):
        assert left == []
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_pieces_make_the_bits_of_the_whole(made, kind):
    whole, pieces = (ResultPaths(folder).run(RUNS[kind]) for folder in made)
    for name in OUTPUTS:
        assert (whole / name).read_bytes() == (pieces / name).read_bytes(), name
    result, other = (read_json(folder / "run.json", dict) for folder in (whole, pieces))
    assert result["teacher_states"] == {"stored teacher": "stored", "teacher along": "trained along"}.get(kind)
    assert other["teacher_states"] == (None if kind == "batch norm" else "trained along")
    assert result["held_out"] == other["held_out"]
    assert (
        result["tail_held_out"] == other["tail_held_out"] == (result["held_out"][-1:] if kind == "batch norm" else [])
    )
    if kind != "stored teacher":  # who walks stored states has no losses
        assert result["losses"] == other["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_what_is_recorded_is_what_one_process_predicts(made, kind):
    network, data = finished_network(RUNS[kind].id, made[0])
    recorded, _ = array_file.read(ResultPaths(made[0]).run(RUNS[kind]) / "predictions.safetensors", remedy="")
    assert np.array_equal(predict(network, data), recorded["predictions"][-1])


@pytest.mark.slow
def test_a_run_says_how_many_processes_it_had_and_measures_no_part_as_the_whole(made):
    result = read_json(ResultPaths(made[0]).run(RUNS["batch norm"]) / "run.json", dict)
    assert result["spec"]["processes"] == 2
    assert result["cpu_seconds"] is result["energy_joules"] is result["package_energy_joules"] is None
    assert RUNS["batch norm"].teacher_spec() is None
    assert RUNS["stored teacher"].teacher_spec().processes == 2
    alone = tiny(method="baseline")
    assert "processes" not in alone.changed()
    assert tiny(method="baseline", processes=1).id == alone.id != tiny(method="baseline", processes=2).id


def flops(spec: RunSpec, results: Path) -> dict[str, int]:
    return read_json(train(spec, results) / "run.json", dict)["training_flops"]


@pytest.mark.slow
def test_all_processes_flops_are_counted(made, results):
    """Shares of 5 and 4 images are the FLOPs of 9, and what is computed on the whole batch twice is nothing here."""
    result = read_json(ResultPaths(made[0]).run(RUNS["teacher along"]) / "run.json", dict)["training_flops"]
    assert result == flops(from_flat(RUNS["teacher along"].changed() | {"processes": 1}), results)


def shares_of(spec: RunSpec, results: Path) -> list[tuple]:
    with process_group(spec.processes):
        batches = assemble(spec, ResultPaths(results)).batches
        return [(batches[i].images.numpy(), batches[i].ids.tolist(), batches.size(i)) for i in (0, 4, 0)]


@pytest.mark.slow
def test_a_share_is_a_function_of_seed_index_and_process(side_by_side, results):
    spec = vit()
    first, second = side_by_side(shares_of, spec, results)
    alone = assemble(from_flat(spec.changed() | {"processes": 1}), ResultPaths(results)).batches
    for (mine, ids, size), (others, other_ids, _), index in zip(first, second, (0, 4, 0), strict=True):
        assert ids == other_ids == alone[index].ids.tolist()  # labels and ids are the whole batch's
        assert len(mine) + len(others) == size == alone.size(index)
        assert 0 <= len(mine) - len(others) <= 1
    assert np.array_equal(first[0][0], first[2][0])
    assert not np.array_equal(first[0][0][:4], second[0][0][:4])


def disagree() -> None:
    with process_group(2):
        distributed.assert_same_on_all_ranks("the turn to go on after", 7 + distributed_processes.rank())


@pytest.mark.slow
def test_processes_that_read_other_files_are_refused(side_by_side):
    for error in side_by_side(disagree):
        assert str(error) == (
            "the turn to go on after is 7, 8 in the 2 processes: give them one shared folder of results"
        )


def full_disk(spec: RunSpec, results: Path) -> None:
    no_room = OSError(28, "No space left on device")
    with mock.patch("spaced_kd.utils.files.os.replace", side_effect=no_room):
        train(spec, results, checkpoint_every=0)


def test_one_that_fails_holds_no_other_up(side_by_side, results):
    first, second = side_by_side(full_disk, vit(), results)
    assert "cannot be written (No space left on device): make room" in str(first)
    assert str(second) == "process 1 lost another process: see the message of that one"


def slice_on_slurm(results: Path, bin: Path) -> int:
    os.environ.update(SLURM_JOB_ID="77", PATH=f"{bin}:{os.environ['PATH']}")
    arguments = [*vit().overrides(), "--results", str(results), "--time-limit", "0.001", "--margin", "0"]
    arguments += ["--requeue"]
    return cli.main(["train", *arguments])


def test_a_slice_ends_in_all_and_slurm_is_asked_once(side_by_side, results, tmp_path):
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> "$0.asked"\n')
    (tmp_path / "scontrol").chmod(0o755)
    assert side_by_side(slice_on_slurm, results, tmp_path) == [GO_ON, GO_ON]
    assert (tmp_path / "scontrol.asked").read_text() == "requeue 77\n"
    assert [path.name for path in ResultPaths(results).state(vit()).iterdir()] == ["turn-000000001.safetensors"]


def test_another_number_than_was_started_is_refused(results, capsys, monkeypatch):
    assert cli.main(["train", *vit().overrides(), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert "processes is 2, but 1 were started" in message
    assert "torchrun --nproc-per-node 2 -m spaced_kd train" in message
    assert message.count("\n") == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="processes is 2, but 4 were started: give processes=4, which is another run"):
        train(vit(), results)


def test_batch_norm_over_shares_needs_gpus(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    spec, cpu = tiny(method="baseline", processes=2), torch.device("cpu")
    network = build(spec, make_method(spec), 10, 8, cpu, 40)["teacher"]
    with pytest.raises(UserError, match="torch has none over the shares of 2 processes without GPUs: use shares"):
        distributed.synchronised(network, cpu)
    there = distributed.synchronised(network, torch.device("cuda"))  # only named: nothing is computed
    norms = [module for module in there.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(type(module) is torch.nn.SyncBatchNorm for module in norms)
    assert there.state_dict().keys() == build(spec, make_method(spec), 10, 8, cpu, 40)["teacher"].state_dict().keys()


def test_an_image_for_each_process_at_least(results):
    spec = vit(batch_size=13, processes=2)  # 40 images: the last batch has one
    with pytest.raises(UserError, match="last batch has 1 of 40 images, fewer than the 2 processes"):
        assemble(spec, ResultPaths(results))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": 0}, "processes is 0, but must be positive"),
        ({"batch_norm": "shares"}, "batch_norm is shares, but processes is 1"),
        ({"batch_norm": "halves", "processes": 2}, "batch_norm is halves, but processes is 2"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(method="baseline", **changes)


@pytest.mark.slow
def test_torchrun_on_two_machines(made, tmp_path):
    """Two agents of torchrun, as on two nodes, with a process each."""
    (tmp_path / "data").symlink_to(made[0] / "data")
    spec = RUNS["teacher along"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), "--node-rank"]
    train_it = ["-m", "spaced_kd", "train", *spec.overrides(), "--results", str(tmp_path)]
    agents = [subprocess.Popen([*command, node, *train_it], stdout=subprocess.PIPE, text=True) for node in "01"]
    result = [agent.communicate(timeout=120)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0]
    assert "after the last epoch" in result[0]
    assert result[1] == ""  # the first process speaks
    for name in OUTPUTS:
        assert (ResultPaths(tmp_path).run(spec) / name).read_bytes() == (
            ResultPaths(made[1]).run(spec) / name
        ).read_bytes(), name
