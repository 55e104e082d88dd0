"""DML, SHAKE and TAKD: each against a loop written out by hand, its readings of spacing, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import first_fast, tiny
from torch import Tensor, nn

from spaced_kd.analysis.collect import of_run
from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.distillation.losses import hard, kl, kl_per_logit, mse, teacher_outputs
from spaced_kd.distillation.methods.shake import SHAKE, maps_and_logits
from spaced_kd.distillation.methods.takd import TAKD
from spaced_kd.distillation.schedule import follow, solo, turns
from spaced_kd.planning.costs import RunCosts
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.learner import Learner
from spaced_kd.training.loop import train
from spaced_kd.training.timeline import states_to_save
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

T, A, S, H = "teacher", "assistant", "student", "shadow"
BATCHES = 20  # four epochs of 5 batches; blocks of int(1.5 * 5) = 7, 7 and 6
WHOLE, BLOCKS = [range(BATCHES)], [range(7), range(7, 14), range(14, 20)]


def four_epochs(**changes):
    return tiny(epochs=4, eval_every=4, **changes)


def stepper(job: Job, *names: str) -> Callable[[str, Tensor], None]:
    """A step of plain SGD for one of the networks, each with an optimiser of its own."""
    optimizers = {
        name: torch.optim.SGD(job.modules[name].parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        for name in names
    }

    def step(name: str, loss: Tensor) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    return step


def logits_of(network: nn.Module, images: Tensor, mode: str) -> Tensor:
    """Logits without gradient, in a mode; the network is in train mode afterwards."""
    network.train(mode == "train")
    with torch.no_grad():
        logits = network(images)
    network.train()
    return logits


def as_trained(folder: Path, network: nn.Module) -> bool:
    """Whether a run's weights are the network's, to the bit."""
    stored, _ = array_file.read(folder / "weights.safetensors", remedy="")
    own = network.state_dict()
    return set(stored) == set(own) and all(np.array_equal(own[name].numpy(), stored[name]) for name in own)


def checksum(folder: Path) -> str:
    return array_file.read(folder / "weights.safetensors", remedy="")[1]["checksum"]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


# Schedules


def test_a_chain_is_spaced_at_both_links_or_at_one():
    def chained(links: str) -> list:
        return list(TAKD(spaced_links=links).schedule(3, 2, 4))

    first, second = [(T, 0), (T, 1), (A, 0), (A, 1), (S, 0), (S, 1)], [(T, 2), (A, 2), (S, 2)]
    assert chained("both") == first + second
    assert chained("first") == [(T, 0), (T, 1), (A, 0), (S, 0), (A, 1), (S, 1), *second]
    assert chained("last") == [(T, 0), (A, 0), (T, 1), (A, 1), (S, 0), (S, 1), *second]


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 10])
def test_who_follows_learns_every_batch_once_after_its_guide(interval):
    assert list(follow(solo(10, T), T, S, interval, 10)) == list(turns(10, interval))
    for links in ("both", "first", "last"):
        order = list(TAKD(spaced_links=links).schedule(10, interval, 4))
        for who in (T, A, S):
            assert [index for name, index in order if name == who] == list(range(10))
        for guide, who in ((T, A), (A, S)):
            assert all(order.index((guide, index)) < order.index((who, index)) for index in range(10))


def test_the_interval_max_finishes_each_network_before_the_next():
    assert list(TAKD().schedule(3, 3, 4)) == [*solo(3, T), *solo(3, A), *solo(3, S)]
    assert list(SHAKE().schedule(3, 3, 4)) == [*solo(3, T), *solo(3, H), *solo(3, S)]


def test_a_finished_teacher_comes_before_the_shadow():
    assert list(SHAKE().schedule(3, 2, 4)) == [*solo(3, T), (H, 0), (H, 1), (S, 0), (S, 1), (H, 2), (S, 2)]


# DML


def test_dml_is_its_loop_written_out(results):
    """Alone, so unspaced: batch by batch one peer's step, then the other's, guided by the first one's new weights."""
    spec = four_epochs(method="dml")
    job = assemble(spec, ResultPaths(results))
    peers, step = [job.modules[T], job.modules[S]], stepper(job, T, S)
    for i in range(BATCHES):
        batch = job.batches[i]
        for name, me, peer in ((T, *peers), (S, *peers[::-1])):
            logits = me(batch.images)
            step(name, hard(logits, batch.labels) + kl(logits, logits_of(peer, batch.images, "train"), 1.0))
    assert as_trained(train(spec, results), peers[1])


@pytest.mark.parametrize(("leader", "mode"), [("mutual", "train"), ("alone", "eval")])
def test_spaced_dml_is_its_loop_written_out(results, leader, mode):
    settings = {"method__leader": leader, "method__teacher_mode": mode}
    settings |= {"method__weight": 0.5, "method__temperature": 2.0}
    spec = four_epochs(method="dml", interval=1.5, **settings)
    job = assemble(spec, ResultPaths(results))
    (first, second), step = (job.modules[T], job.modules[S]), stepper(job, T, S)
    for block in BLOCKS:
        for i in block:
            batch = job.batches[i]
            logits = first(batch.images)
            loss = hard(logits, batch.labels)
            if leader == "mutual":
                loss = loss + 0.5 * 2.0**2 * kl(logits, logits_of(second, batch.images, mode), 2.0)
            step(T, loss)
        for i in block:
            batch = job.batches[i]
            logits = second(batch.images)
            goal = logits_of(first, batch.images, mode)
            step(S, hard(logits, batch.labels) + 0.5 * 2.0**2 * kl(logits, goal, 2.0))
    assert as_trained(train(spec, results), second)


def test_peers_that_start_alike_teach_each_other_nothing(results):
    apart, alike = (
        assemble(tiny(method="dml", method__initial_weights=how), ResultPaths(results)) for how in ("different", "same")
    )
    assert equal(apart.modules[T], alike.modules[T])
    assert equal(alike.modules[T], alike.modules[S])
    assert not equal(apart.modules[T], apart.modules[S])
    assert alike.terms(T, 0)["soft"].item() == pytest.approx(0, abs=1e-6)
    assert apart.terms(T, 0)["soft"].item() > 1e-3


def is_the_same_with_stored_states(spec: RunSpec, results: Path, other: Path) -> bool:
    """Whether a run that reads its teacher's states ends in the bits of one that trains the teacher along."""
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    train(spec.teacher_spec(), other, save_states_for=(spec,))
    along, beside = train(spec, results), train(spec, other)
    result = [json.loads((folder / "run.json").read_text())["teacher_states"] for folder in (along, beside)]
    assert result == ["trained along", "stored"]
    return checksum(along) == checksum(beside)


def test_a_leader_is_the_baseline_where_it_never_sees_its_follower(results, tmp_path):
    alone, mutual = (tiny(method="dml", interval=1.5, epochs=2, method__leader=how) for how in ("alone", "mutual"))
    assert is_the_same_with_stored_states(alone, results, tmp_path / "other")
    assert states_to_save(alone, 5) == {7, 10}
    assert states_to_save(mutual, 5) == set()
    train(mutual.teacher_spec(), results, save_states_for=(mutual,))
    job = assemble(mutual, ResultPaths(results))
    assert [type(learner) for learner in job.learners.values()] == [Learner, Learner]  # no stored state stands in


# TAKD


def chain_of(results: Path, **changes) -> tuple[Job, Callable]:
    sizes = {"teacher": "resnet_mini", "teacher__width": 0.125, "assistant": "resnet_mini", "assistant__width": 0.09375}
    job = assemble(four_epochs(method="takd", **sizes, **changes), ResultPaths(results))
    assert [job.modules[name].widths for name in (T, A, S)] == [(64,), (48,), (32,)]
    step = stepper(job, T, A, S)

    def learn(who: str, i: int) -> None:
        batch = job.batches[i]
        logits = job.modules[who](batch.images)
        loss = hard(logits, batch.labels)
        if who != T:
            goal = logits_of(job.modules[{A: T, S: A}[who]], batch.images, "eval")
            loss = 0.7 * loss + 0.3 * 9 * kl(logits, goal, 3.0)
        step(who, loss)

    return job, learn


def test_takd_together_is_its_loop_written_out(results):
    job, learn = chain_of(results)
    for i in range(BATCHES):
        for who in (T, A, S):
            learn(who, i)
    assert as_trained(train(job.spec, results), job.modules[S])


@pytest.mark.parametrize(("interval", "blocks"), [(1.5, BLOCKS), ("max", WHOLE)])
def test_spaced_and_published_takd_are_their_loops_written_out(results, interval, blocks):
    job, learn = chain_of(results, interval=interval)
    for block in blocks:
        for who in (T, A, S):
            for i in block:
                learn(who, i)
    assert as_trained(train(job.spec, results), job.modules[S])


def test_takd_spaced_at_its_last_link_is_its_loop_written_out(results):
    job, learn = chain_of(results, interval=1.5, method__spaced_links="last")
    for block in BLOCKS:
        for i in block:
            learn(T, i)
            learn(A, i)
        for i in block:
            learn(S, i)
    assert as_trained(train(job.spec, results), job.modules[S])


def test_the_chains_teacher_is_shared_where_it_pauses(results, tmp_path):
    both, last = (tiny(method="takd", interval=1.5, epochs=2, method__spaced_links=links) for links in ("both", "last"))
    assert is_the_same_with_stored_states(both, results, tmp_path / "other")
    assert states_to_save(both, 5) == {7, 10}
    assert states_to_save(last, 5) == set()  # it moves from one batch of its assistant's to the next


def test_a_chain_of_one_kind_starts_alike_and_divides_as_the_code_does(results):
    job = assemble(tiny(method="takd", method__soft_loss="kl_per_logit"), ResultPaths(results))
    assert equal(job.modules[T], job.modules[A])
    assert equal(job.modules[T], job.modules[S])
    job.learners[T].learn(0, lambda: job.passes(T, 0))
    batch, student = job.batches[0], job.modules[A]
    goal = teacher_outputs(job.modules[T], batch.images).logits
    expected = 0.3 * 9 * kl_per_logit(student(batch.images), goal, 3.0)
    assert job.terms(A, 0)["soft"].item() == pytest.approx(expected.item(), rel=1e-5) != 0


def test_rows_name_who_teaches(results):
    plain = tiny(method="takd", epochs=1)
    other = tiny(method="takd", epochs=1, teacher="resnet_mini", assistant="resnet_mini", assistant__width=0.09375)
    for spec, teachers in (
        (plain, "resnet_mini[width=0.0625]"),
        (other, "resnet_mini > resnet_mini[width=0.09375]"),
    ):
        train(spec, results)
        (row, *_) = of_run(spec, "trial", results)
        assert (row["teacher"], row["network"]) == (teachers, "resnet_mini[width=0.0625]")
        assert row["recipe"] == "batch_size=9 epochs=1 lr=0.05"


# SHAKE


def scaled(logits: Tensor) -> Tensor:
    return 3.1415 * F.layer_norm(logits, (10,))


def stages(teacher: nn.Module, images: Tensor) -> list[Tensor]:
    """The last three of a residual network's maps, by hand."""
    teacher.eval()
    trunk = teacher.trunk
    with torch.no_grad():
        x = trunk.layer1(trunk.act1(trunk.bn1(trunk.conv1(images))))
        found = [x := stage(x) for stage in (trunk.layer2, trunk.layer3, trunk.layer4)]
    teacher.train()
    return found


def from_shadow(shadow: nn.Module, maps: list[Tensor], teacher: nn.Module) -> Tensor:
    fc = teacher.trunk.fc
    x = shadow.fuse[0](maps[0])
    x = shadow.fuse[2](shadow.fuse[1](x + maps[1]) + maps[2])
    return F.linear(x.mean(dim=(2, 3)), fc.weight.detach(), fc.bias.detach())


@pytest.mark.parametrize(
    ("interval", "leader", "mode", "alpha"),
    first_fast([(0, "mutual", "train", 0.0), (1.5, "mutual", "train", 0.0), (1.5, "alone", "eval", 0.5)]),
)
def test_shake_is_its_loop_written_out(results, interval, leader, mode, alpha):
    settings = {"method__leader": leader, "method__teacher_mode": mode, "method__alpha": alpha}
    spec = four_epochs(method="shake", interval=interval, **settings)
    job = assemble(spec, ResultPaths(results))
    step = stepper(job, T, H, S)
    teacher, shadow, student = (job.modules[name] for name in (T, H, S))
    for i in range(BATCHES):
        step(T, hard(teacher(job.batches[i].images), job.batches[i].labels))

    def shadows(i: int) -> None:
        batch = job.batches[i]
        h = scaled(from_shadow(shadow, stages(teacher, batch.images), teacher))
        loss = hard(h, batch.labels) + mse(h, scaled(logits_of(teacher, batch.images, "eval")))
        if leader == "mutual":
            loss = loss + 16 * kl(h, scaled(logits_of(student, batch.images, mode)), 4.0)
        step(H, loss)

    def students(i: int) -> None:
        batch = job.batches[i]
        maps, s = stages(teacher, batch.images), scaled(student(batch.images))
        shadow.train(mode == "train")
        with torch.no_grad():
            h = scaled(from_shadow(shadow, maps, teacher))
        shadow.train()
        loss = hard(s, batch.labels) + 16 * kl(s, h, 4.0)
        step(S, loss + alpha * 16 * kl(s, scaled(logits_of(teacher, batch.images, "eval")), 4.0) if alpha else loss)

    if interval:
        for block in BLOCKS:
            for i in block:
                shadows(i)
            for i in block:
                students(i)
    else:
        for i in range(BATCHES):
            shadows(i)
            students(i)
    assert as_trained(train(spec, results), student)


def test_the_teacher_stands_still_and_is_the_baseline(results):
    """Its final weights are all that is needed of it, so at interval 0, too, it is trained once."""
    spec = tiny(method="shake", epochs=1)
    along = train(spec, results)
    assert json.loads((along / "run.json").read_text())["teacher_states"] == "trained along"
    weights = along / "weights.safetensors"
    before = weights.read_bytes()
    (along / "run.json").unlink()
    baseline = train(spec.teacher_spec(), results)
    result = json.loads((train(spec, results) / "run.json").read_text())
    assert result["teacher_states"] == "stored"
    assert result["training_flops"][T] == 0
    assert weights.read_bytes() == before
    job = assemble(spec, ResultPaths(results))
    for who, index in job.turns[:8]:  # 5 of the teacher's
        job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
    assert as_trained(baseline, job.modules[T])


@pytest.mark.parametrize("teacher", ["resnet_mini", "vit_mini", "pit_tiny"])
def test_a_shadow_takes_the_maps_of_every_family(results, teacher):
    job = assemble(tiny(method="shake", teacher=teacher), ResultPaths(results))
    teacher = job.modules[T]
    images = job.batches[0].images
    maps, logits = maps_and_logits(teacher, images)
    assert len(maps) == 3
    assert torch.allclose(logits, logits_of(teacher, images, "eval"), atol=1e-5)
    before = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in job.modules.items()}
    job.learners[H].learn(0, lambda: job.passes(H, 0))
    assert all(torch.equal(v, before[T][k]) for k, v in teacher.state_dict().items())
    assert not any(parameter.grad is not None for parameter in teacher.parameters())
    assert all(not torch.equal(v, before[H][k]) for k, v in job.modules[H].state_dict().items())


def test_a_network_without_maps_casts_no_shadow():
    with pytest.raises(UserError, match="shake needs the feature maps of a timm network as teacher: choose"):
        SHAKE().modules({T: nn.Linear(2, 2)})


# All three


@pytest.mark.parametrize("method", ["dml", "shake", "takd"])
def test_counts_are_those_of_a_training(results, method):
    sizes = {"assistant": "resnet_mini", "assistant__width": 0.09375} if method == "takd" else {}
    spec, counts = tiny(method=method, interval=1.5, epochs=2, **sizes), RunCosts()
    if sizes:
        counts.cost(tiny(method=method, interval=1.5, epochs=2, **sizes | {"assistant": "resnet18"}))  # is another
    result = json.loads((train(spec, results) / "run.json").read_text())
    assert counts.cost(spec, store_teachers=False).flops == sum(result["training_flops"].values())
    assert result["turns"] == dict.fromkeys(registry.plugin("methods", method).constants["roles"], 10)
    assert [entry["epoch"] for entry in result["losses"]] == [1, 2]  # of the student's own steps


BAD = [
    ({"method": "dml", "method.leader": "both"}, "dml.leader is 'both', but must be mutual or alone"),
    ({"method": "dml", "initial_weights": "different"}, "dml has a setting of its own: use method.initial_weights"),
    ({"method": "dml", "assistant": "resnet18"}, "assistant is resnet18, but dml has none: leave it out"),
    ({"method": "online_kd", "assistant": "resnet18"}, "assistant is resnet18, but online_kd has none"),
    ({"method": "takd", "assistant": "resnet"}, "'resnet' is none of the networks"),
    ({"method": "takd", "assistant.width": 0.5}, "assistant.width is set, but no assistant network is named: add"),
    ({"method": "takd", "assistant": "resnet18", "assistant.wide": 1}, "resnet18 has no setting 'wide'"),
    ({"method": "takd", "method.spaced_links": "last"}, r"spaced_links is last, but interval is 0.0 \(online\)"),
    ({"method": "takd", "assistant": "vit_mini", "batch_norm": "halves"}, "vit_mini has no batch norm"),
    (
        {"method": "takd", "assistant": "deit_tiny", "assistant.distillation_token": True},
        "assistant.distillation_token is true, but only a student",
    ),
    ({"method": "shake", "interval": 1.5, "clock": "teacher"}, "clock is teacher, but that of shake has finished"),
    ({"method": "shake", "interval": 90}, "interval is 90 epochs, longer than training's 80"),
]


@pytest.mark.parametrize(("change", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_what_makes_no_sense_is_refused_in_one_line(change, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        from_flat({"dataset": "digits", "network": "resnet_mini", "seed": 0} | change)
    assert "\n" not in str(caught.value)
