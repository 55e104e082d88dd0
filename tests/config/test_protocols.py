"""Protocols: every switch changes what it names and nothing else; both sets train; the loop knows of none of them."""

import ast
import json
import re
from itertools import groupby, pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY, first_fast, tiny
from torch import nn

import spaced_kd
from spaced_kd.config import labels as results_labels
from spaced_kd.config import presets, registry
from spaced_kd.config.labels import protocols_of
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat, from_overrides
from spaced_kd.config.study import expand, load_study
from spaced_kd.distillation import released_orders, schedule
from spaced_kd.distillation.losses import (
    FEATURE_LOSSES,
    SOFT_LOSSES,
    dist,
    hard,
    kl,
    kl_of_probabilities,
    mse,
    teacher_outputs,
)
from spaced_kd.distillation.methods.online_kd import OnlineKD
from spaced_kd.distillation.methods.self_kd import SelfKD
from spaced_kd.distillation.schedule import interval_in_batches, turns
from spaced_kd.networks.outputs import Ensemble, NetworkOutput
from spaced_kd.training import checkpoint, loop, timeline
from spaced_kd.training.batch_norm import HalvesBatchNorm2d, halve
from spaced_kd.training.job import assemble
from spaced_kd.training.learner import Learner, backward
from spaced_kd.training.loop import train
from spaced_kd.training.timeline import block_ends, make_method
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import global_seed

T, S = "teacher", "student"
ROOT = Path(spaced_kd.__file__).parents[2]
PER_EPOCH = 391  # batches of 128 of CIFAR-100
C100, TINY_IMAGENET = (PER_EPOCH, 80 * PER_EPOCH), (782, 80 * 782)


def order(method, total: int, interval: int, per_epoch: int = 4) -> list[schedule.Turn]:
    return list(method.schedule(total, interval, per_epoch))


def blocks(found: list[schedule.Turn]) -> list[list[int]]:
    """The student's batches, run by run."""
    return [[i for _, i in run] for who, run in groupby(found, key=lambda turn: turn[0]) if who == S]


def batches_of(found: list[schedule.Turn], who: str) -> list[int]:
    return [i for name, i in found if name == who]


# Schedules


def test_target_before_puts_the_student_first():
    assert order(OnlineKD(target="before"), 3, 1) == [(S, 0), (T, 0), (S, 1), (T, 1), (S, 2), (T, 2)]


def test_target_before_a_block_is_a_teacher_frozen_at_its_start():
    found = order(OnlineKD(target="before"), 5, 2)
    assert found == [(S, 0), (S, 1), (T, 0), (T, 1), (S, 2), (S, 3), (T, 2), (T, 3), (S, 4), (T, 4)]
    assert list(block_ends(found)) == [
        2,
        4,
    ]  # the first block's teacher has its initial weights, which are no stored state


def test_a_constant_lead_stops_at_the_end():
    found = order(OnlineKD(lead="constant"), 5, 3)
    assert found == [(T, 0), (T, 1), (T, 2), (S, 0), (T, 3), (S, 1), (T, 4), (S, 2), (S, 3), (S, 4)]
    assert list(schedule.constant_lead(5, 1)) == list(turns(5, 1))


def test_the_last_block_is_dropped():
    assert order(OnlineKD(last_block="dropped"), 5, 2) == [*turns(4, 2), (T, 4)]
    assert order(OnlineKD(last_block="dropped"), 6, 2) == list(turns(6, 2))


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_new_batches_are_later_ones_and_the_teachers_are_as_ever(interval):
    found = order(OnlineKD(student_batches="new"), 5, interval)
    assert [who for who, _ in found] == [who for who, _ in turns(5, interval)]
    assert batches_of(found, T) == [0, 1, 2, 3, 4]
    assert batches_of(found, S) == [5, 6, 7, 8, 9]


def test_new_views_have_the_schedule_of_the_same_batches():
    assert order(OnlineKD(student_batches="new_views"), 7, 3) == list(turns(7, 3))


def test_a_window_is_spaced_and_the_rest_online():
    found = order(OnlineKD(spaced_from=0.5, spaced_until=2.0), 10, 4)
    assert blocks(found) == [[0], [1], [2, 3, 4, 5], [6, 7], [8], [9]]
    assert batches_of(found, T) == list(range(10))
    assert blocks(order(OnlineKD(spaced_from=1.0), 10, 4)) == [[0], [1], [2], [3], [4, 5, 6, 7], [8, 9]]
    with pytest.raises(UserError, match="the spaced window from batch 44 to 10, which is not inside"):
        order(OnlineKD(spaced_from=11.0), 10, 4)


def test_an_extra_step_after_blocks_of_whole_epochs():
    assert blocks(order(OnlineKD(extra_step=True), 8, 4)) == [[0, 1, 2, 3, 16], [4, 5, 6, 7, 17]]
    assert order(OnlineKD(extra_step=True), 8, 3) == list(turns(8, 3))


@pytest.mark.parametrize(("s", "steps"), [(0.5, 117_000), (1.0, 117_300), (1.5, 117_000), (2.0, 117_150)])
def test_the_released_transformers_take_these_steps(s, steps):
    found = order(OnlineKD(extra_step=True), 300 * 390, int(s * 390), 390)  # V10
    assert len(batches_of(found, S)) == len(set(batches_of(found, S))) == steps


def test_the_first_block_of_self_kd_is_an_epoch():
    found = order(SelfKD(first_block="epoch"), 20, 8)
    assert blocks(found) == [[*range(4)], [*range(4, 12)], [*range(12, 20)]]
    assert batches_of(found, T) == list(range(20))
    assert blocks(order(SelfKD(first_block="epoch"), 8, 3)) == [[0], [1, 2, 3], [4, 5, 6], [7]]  # ends at batch 4, too


def test_the_trigger_batch_is_in_the_block_only():
    found = order(SelfKD(trigger_batch="block_only"), 6, 3)
    assert found == [(T, 0), (T, 1), (S, 0), (S, 1), (S, 2), (T, 3), (T, 4), (S, 3), (S, 4), (S, 5)]


def test_the_last_block_of_self_kd_is_dropped():
    assert order(SelfKD(last_block="dropped"), 8, 3) == [*turns(6, 3), (T, 6), (T, 7)]
    both = order(SelfKD(first_block="epoch", last_block="dropped"), 20, 6)
    assert blocks(both) == [[*range(4)], [*range(4, 10)], [*range(10, 16)]]


@pytest.mark.parametrize("method", [OnlineKD(), SelfKD()])
@pytest.mark.parametrize("interval", [2, 3, 7, 20])
def test_without_switches_the_order_is_the_papers(method, interval):
    assert order(method, 20, interval) == list(turns(20, interval))


@pytest.mark.parametrize(
    ("dataset", "rate", "replays", "steps", "never", "states"),
    [  # the released code replayed: table O10
        (C100, 0, 31280, 31280, 0, 80),
        (C100, 0.5, 160, 31200, 80, 80),
        (C100, 1.0, 80, 31280, 0, 80),
        (C100, 1.5, 53, 31058, 222, 53),
        (C100, 2.0, 40, 31280, 0, 40),
        (TINY_IMAGENET, 1.5, 53, 62169, 391, 53),
    ],
)
def test_the_released_online_code_takes_these_steps(dataset, rate, replays, steps, never, states):
    per_epoch, total = dataset
    spec = tiny(method="online_kd", interval=rate, epochs=80, protocol="released")
    found = order(make_method(spec), total, interval_in_batches(rate, per_epoch, total), per_epoch)
    students = batches_of(found, S)
    assert sum(who != then for (who, _), (then, _) in pairwise([(T, -1), *found]) if then == S) == replays
    assert students == list(range(steps))
    assert batches_of(found, T) == list(range(total))
    assert total - steps == never
    ends = timeline.teachers_clock(found, per_epoch, total)
    assert list(ends.values()) == list(range(1, 81))
    learnt = [sum(who == S for who, _ in found[:done]) for done in ends]
    assert len(set(learnt) - {0}) == states  # before the first block there is none but the initial one


def test_the_released_self_kd_takes_these_steps():
    per_epoch, total = C100
    spec = tiny(method="self_kd", interval=4.0, epochs=80, protocol="released")
    found = order(make_method(spec), total, 4 * per_epoch, per_epoch)
    assert len(blocks(found)) == 20
    assert len(batches_of(found, T)) == 31_260
    assert len(batches_of(found, S)) == 30_107
    assert len(found) == 61_367 + 20  # before each block the batch that triggers it is forwarded once more (B3)
    assert total - 1 - max(batches_of(found, S)) == 1_173


def test_the_teachers_clock_rings_at_epochs_of_the_data():
    assert timeline.teachers_clock(turns(6, 4), 3, 6) == {3: 1, 12: 2}  # TTT|T SSSS TT SS|: at first it has not learnt
    assert timeline.teachers_clock(turns(6, 3), 3, 6) == {6: 1, 12: 2}  # a block that ends with the epoch comes before
    assert timeline.teachers_clock(turns(6, 1), 3, 6) == {6: 1, 12: 2}
    assert timeline.teachers_clock(released_orders.on_new_batches(turns(6, 3), 6), 3, 6) == {6: 1, 12: 2}


# Losses


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


class Exits(nn.Module):
    """One linear layer per exit."""

    def __init__(self, exits: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(3, 5) for _ in range(exits))
        self.body = nn.Linear(4, 3)
        self.widths = (3,) * exits

    def forward(self, images, exits=False):
        features = self.body(images).tanh()
        found = [NetworkOutput(layer(features), features + depth) for depth, layer in enumerate(self.layers)]
        return found if exits else found[-1].logits


class Batch:
    images, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), LABELS

    @staticmethod
    def view(number):
        return Batch.images * (number + 1)


def online(**switches) -> tuple[dict[str, torch.Tensor], NetworkOutput, NetworkOutput]:
    """The student's terms, and what student and teacher say of the batch."""
    method, networks = OnlineKD(**switches), {T: Exits(1), S: Exits(1)}
    with torch.no_grad():
        networks[T].body.weight += 1
    torch.manual_seed(0)
    networks |= method.modules(networks)
    outputs = [networks[who](Batch.images, exits=True)[-1] for who in (S, T)]
    return method.terms(S, networks, Batch), *outputs


PLAIN, STUDENT, TEACHER = online()


@pytest.mark.parametrize(
    ("switch", "term", "expected"),
    [
        ({"soft_loss": "kl_of_probabilities"}, "soft", 2.7 * kl_of_probabilities(STUDENT.logits, TEACHER.logits, 3.0)),
        ({"square_temperature": False}, "soft", 0.3 * kl(STUDENT.logits, TEACHER.logits, 3.0)),
        ({"feature_loss": "dist"}, "feature", 0.03 * dist(STUDENT.features, TEACHER.features)),
        ({"soft_loss": "kl_per_logit"}, "soft", 2.7 * kl(STUDENT.logits, TEACHER.logits, 3.0) / 5),
        ({"soft_loss": "mse"}, "soft", 0.3 * mse(STUDENT.logits, TEACHER.logits)),
        ({"feature_loss": "l1"}, "feature", 0.03 * (STUDENT.features - TEACHER.features).abs().mean()),
    ],
)
def test_a_loss_of_online_kd_changes_its_term_alone(switch, term, expected):
    terms, *_ = online(**switch)
    assert terms[term].item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms[term] != PLAIN[term]
    assert all(torch.equal(terms[name], PLAIN[name]) for name in terms if name != term)


@pytest.mark.parametrize(("setting", "known"), [("soft_loss", SOFT_LOSSES), ("feature_loss", FEATURE_LOSSES)])
def test_every_loss_that_a_method_offers_exists(setting, known):
    for method in ("online_kd", "self_kd"):
        annotation, _ = registry.plugin("methods", method).settings[setting]
        assert set(ast.literal_eval(annotation.removeprefix("Literal"))) <= set(known)


def test_an_adapter_changes_the_feature_loss_alone():
    terms, student, teacher = online(adapter="mlp")
    networks = {T: Exits(1), S: Exits(1)}
    torch.manual_seed(0)
    adapter = OnlineKD(adapter="mlp").modules(networks)["align"]
    expected = 0.03 * mse(adapter(student.features), teacher.features)
    assert terms["feature"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert terms["feature"].item() != PLAIN["feature"].item()
    assert all(torch.equal(terms[name], PLAIN[name]) for name in ("hard", "soft"))


def test_new_views_are_shown_on_the_students_turns():
    method, networks = OnlineKD(student_batches="new_views"), {T: Exits(1), S: Exits(1), "align": nn.Identity()}
    assert torch.equal(method.terms(T, networks, Batch)["hard"], OnlineKD().terms(T, networks, Batch)["hard"])

    class Doubled(Batch):
        images = Batch.view(1)

    found, expected = method.terms(S, networks, Batch), OnlineKD().terms(S, networks, Doubled)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_view_is_the_same_images_newly_augmented(results):
    batches = assemble(tiny(method="baseline"), ResultPaths(results)).batches
    batch = batches[2]
    assert torch.equal(batch.view(0), batch.images)
    assert torch.equal(batch.view(1), batches[2].view(1))
    assert not torch.equal(batch.view(1), batch.images)
    unaugmented = batches.data.normalise(batches.data.images["train"][batch.ids])
    batches.augment = lambda images, draws: images
    assert torch.equal(batches[2].view(1), unaugmented)


def self_terms(**switches) -> dict[str, torch.Tensor]:
    method, network = SelfKD(**switches), Exits(4)
    return method.terms(S, {S: network} | method.modules({S: network}), Batch)


def test_feature_skips_leaves_out_one_term():
    plain, terms = self_terms(), self_terms(feature_skips="second_deepest")
    assert set(plain) - set(terms) == {"feature of exit 3"}
    assert all(torch.equal(terms[name], plain[name]) for name in terms)


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ({"soft_loss": "soft_cross_entropy"}, "soft"),
        ({"square_temperature": False}, "soft"),
        ({"feature_loss": "dist"}, "feature"),
    ],
)
def test_a_loss_of_self_kd_changes_its_terms_alone(switch, kind):
    plain, terms = self_terms(), self_terms(**switch)
    assert set(plain) == set(terms)
    for name in plain:
        assert torch.equal(terms[name], plain[name]) != name.startswith(kind), name


# Networks and their statistics


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


class Wrapped(nn.Module):
    """A convolution with batch norm, which says what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolution()

    def forward(self, images, exits=False):
        x = self.body(images).mean((2, 3))
        return [NetworkOutput(x, x)] if exits else x


def test_a_teacher_in_training_mode_uses_and_moves_statistics():
    network, images = Wrapped().train(), torch.randn(6, 3, 8, 8)
    norm = network.body[1]
    still = teacher_outputs(network, images)
    assert torch.equal(norm.running_mean, torch.zeros(4))
    moved = teacher_outputs(network, images, "train")
    x = network.body[0](images)
    assert torch.allclose(norm.running_mean, 0.1 * x.mean((0, 2, 3)), atol=1e-6)
    assert not torch.allclose(moved.logits, still.logits)
    assert network.training
    assert not moved.logits.requires_grad


def test_the_mode_of_a_teaching_teacher_is_the_students_target_and_no_other_term(results):
    jobs = [
        assemble(tiny(method="online_kd", method__teacher_mode=mode), ResultPaths(results))
        for mode in ("eval", "train")
    ]
    still, moved = (job.terms(S, 0) for job in jobs)
    assert torch.equal(still["hard"], moved["hard"])
    assert not torch.equal(still["soft"], moved["soft"])
    assert [job.modules[T].trunk.bn1.num_batches_tracked.item() for job in jobs] == [0, 1]


@pytest.mark.parametrize("count", [6, 7])
def test_halves_have_statistics_of_their_own_and_the_first_half_moves_the_running_ones(count):
    whole, halves = convolution(), halve(convolution())
    assert [type(module) for module in halves] == [nn.Conv2d, HalvesBatchNorm2d, nn.ReLU]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
    images = torch.randn(count, 3, 8, 8)
    cut = (count + 1) // 2  # as torch.chunk and DataParallel cut
    second = convolution()(images[cut:])
    first = whole(images[:cut])
    assert torch.allclose(halves(images), torch.cat([first, second]), atol=1e-6)
    assert torch.equal(halves[1].running_mean, whole[1].running_mean)
    assert torch.equal(halves[1].running_var, whole[1].running_var)
    assert halves[1].num_batches_tracked == 1
    assert torch.equal(halves.eval()(images), whole.eval()(images))


def deit(**changes: object) -> RunSpec:
    """A run of DeiT-Tiny, without drop-path unless it is given."""
    flat = {key: value for key, value in TINY.items() if key != "network.width"}
    flat |= {"network": "deit_tiny", "network.drop_path": 0.0, "method": "online_kd", "optimizer": "adamw", "lr": 0.001}
    return from_flat(flat | {key.replace("__", "."): value for key, value in changes.items()})


def students_terms(results: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Terms of the student's first turn, drawn as in training, with a teacher that is not the student."""
    job = assemble(deit(initial_weights="different", **changes), ResultPaths(results))
    with global_seed(0, "step of student", 0):
        return {name: term.detach() for name, term in job.terms(S, 0).items()}


def numbers(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def test_a_distillation_token_takes_the_soft_loss_and_the_teacher_has_none(results):
    job = assemble(deit(network__distillation_token=True, initial_weights="different"), ResultPaths(results))
    student, teacher = job.modules[S].train(), job.modules[T]
    assert hasattr(student.trunk, "dist_token")
    assert not hasattr(teacher.trunk, "dist_token")
    terms, batch = job.terms(S, 0), job.batches[0]
    tokens, goal = student.trunk.forward_features(batch.images), teacher_outputs(teacher, batch.images)
    expected = {
        "hard": 0.7 * hard(student.trunk.head(tokens[:, 0]), batch.labels),
        "soft": 2.7 * kl(student.trunk.head_dist(tokens[:, 1]), goal.logits, 3.0),
        "feature": 0.03 * mse(tokens[:, 0], goal.features),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)
    sum(terms.values()).backward()
    assert student.trunk.head_dist.weight.grad.abs().max() > 0
    plain = assemble(deit(), ResultPaths(results))
    assert plain.spec.teacher_spec() == job.spec.teacher_spec() == deit(method="baseline")
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in plain.modules[T].state_dict().items())


def test_a_second_forward_draws_other_masks_for_the_soft_loss_alone(results):
    plain, again = (
        students_terms(results, network__drop_path=0.5, method__second_forward=second) for second in (False, True)
    )
    for name in ("hard", "feature"):
        assert torch.equal(plain[name], again[name])
    assert not torch.equal(plain["soft"], again["soft"])
    plain, again = (students_terms(results, method__second_forward=second) for second in (False, True))
    assert all(torch.equal(plain[name], again[name]) for name in plain)  # without drop-path it is the same pass


def test_drop_path_in_the_teaching_teacher_changes_the_target_alone(results):
    still, moved = (
        students_terms(results, network__drop_path=0.5, method__teacher_mode=mode) for mode in ("eval", "train")
    )
    assert torch.equal(still["hard"], moved["hard"])  # the student's own masks are the same
    for name in ("soft", "feature"):
        assert not torch.equal(still[name], moved[name])
    still, moved = (students_terms(results, method__teacher_mode=mode) for mode in ("eval", "train"))
    assert all(torch.equal(still[name], moved[name]) for name in still)


def test_one_optimiser_goes_on_with_the_idle_half():
    """As one AdamW whose idle half is given zeros: decay, momentum and the count of steps go on, from the start."""
    spec = tiny(method="online_kd", optimizer="adamw", weight_decay=0.05, lr=5e-4)
    teacher, student = Exits(1), Exits(1)
    first = Learner(teacher, [], spec, per_epoch=5, total=10)
    second = Learner(student, [], spec, per_epoch=5, total=10, beside=first)
    twins = {T: Exits(1), S: Exits(1)}
    reference = torch.optim.AdamW([p for twin in twins.values() for p in twin.parameters()], lr=5e-4, weight_decay=0.05)
    start = student.body.weight.detach().clone()
    for number, (who, learner) in enumerate([(T, first), (T, first), (S, second), (S, second), (T, first)]):
        learner.learn(0, lambda learner=learner: backward({"hard": hard(learner.network(Batch.images), LABELS)}))
        for twin in twins.values():
            for parameter in twin.parameters():
                parameter.grad = torch.zeros_like(parameter)
        hard(twins[who](Batch.images), LABELS).backward()
        reference.step()
        for mine, other in ((teacher, twins[T]), (student, twins[S])):
            assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True)), number
        if number == 1:
            assert torch.allclose(student.body.weight, start * (1 - 5e-4 * 0.05) ** 2, rtol=1e-6)
    assert (first.steps, second.steps) == (3, 2)  # each learning rate by its own steps


def test_an_idle_teacher_decays_as_the_released_code_was_measured():
    spec = tiny(method="online_kd", optimizer="adamw", weight_decay=0.05, lr=5e-4)
    first = Learner(Exits(1), [], spec, per_epoch=585, total=586)
    second = Learner(Exits(1), [], spec, per_epoch=585, total=585, beside=first)
    weight = first.network.body.weight
    first.learn(0, lambda: backward({"hard": hard(first.network(Batch.images), LABELS)}))
    before, moment = weight.detach().clone(), first.optimizer.state[weight]["exp_avg_sq"].clone()
    first.optimizer.state[weight]["exp_avg"].zero_()  # decay alone
    for index in range(585):  # 1.5 epochs of 390 batches
        second.learn(index, lambda: backward({"hard": hard(second.network(Batch.images), LABELS)}))
    assert (weight / before).mean().item() == pytest.approx(0.985, abs=0.001)
    assert (first.optimizer.state[weight]["exp_avg_sq"] / moment).mean().item() == pytest.approx(0.557, abs=0.001)


def test_one_optimiser_changes_neither_turns_nor_losses_nor_who_learns_first(results):
    two, one_ = (
        assemble(tiny(method="online_kd", interval=1.5, method__optimizers=n), ResultPaths(results))
        for n in ("two", "one")
    )
    assert two.turns == one_.turns
    assert two.evaluations == one_.evaluations
    for who in (T, S):
        assert numbers(two.terms(who, 0)) == numbers(one_.terms(who, 0))
    for job in (two, one_):
        job.learners[T].learn(0, lambda job=job: job.passes(T, 0))
    equal = {
        who: all(torch.equal(v, one_.modules[who].state_dict()[k]) for k, v in two.modules[who].state_dict().items())
        for who in (T, S)
    }
    assert equal == {T: True, S: False}  # the student, idle, has begun to decay


def test_a_teacher_of_one_optimiser_is_its_students_alone(results, tmp_path):
    """Neither stored states nor the finished baseline stand in for it, and none are left for it."""
    shared, own = (tiny(method="online_kd", interval=1.5, method__optimizers=n) for n in ("two", "one"))
    alone = train(own, results)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    train(own.teacher_spec(), other, save_states_for=(own,))
    folder = ResultPaths(other).trajectory(own.teacher_spec())
    assert not list(folder.glob("*"))
    (ResultPaths(other).run(own.teacher_spec()) / "run.json").unlink()
    train(own.teacher_spec(), other, save_states_for=(own, shared))
    assert len(list(folder.glob("*"))) == 2
    beside = train(own, other)
    assert json.loads((beside / "run.json").read_text())["teacher_states"] == "trained along"
    assert checksum(beside) == checksum(alone)
    assert checksum(train(shared, other)) != checksum(alone)


def test_a_joint_backward_is_one_step_of_both_on_the_target_from_before(results):
    joint = {"method__optimizers": "one", "method__joint_backward": True, "method__teacher_mode": "train"}
    spec = deit(initial_weights="different", method__alpha=0.5, **joint)
    job, apart = assemble(spec, ResultPaths(results)), assemble(spec, ResultPaths(results))
    assert job.turns == [(S, index) for index in range(15)]
    losses = job.learners[S].learn(0, lambda: job.passes(S, 0))
    teacher, student = apart.modules[T], apart.modules[S]
    batch, goal = apart.batches[0], teacher_outputs(apart.modules[T], apart.batches[0].images, "train")
    outputs = student(batch.images, exits=True)[-1]
    expected = {
        "hard of the teacher": 0.5 * hard(teacher(batch.images), batch.labels),
        "hard": 0.5 * hard(outputs.logits, batch.labels),
        "soft": 4.5 * kl(outputs.logits, goal.logits, 3.0),
        "feature": 0.03 * mse(outputs.features, goal.features),
    }
    assert numbers(losses) == pytest.approx(numbers(expected), rel=1e-5)
    ours = expected.pop("hard of the teacher")
    for network, loss in ((teacher, ours), (student, sum(expected.values()))):  # an optimiser each, the same step
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=spec.weight_decay)
        loss.backward()
        optimizer.step()
    for who in (T, S):
        for name, value in apart.modules[who].state_dict().items():
            assert torch.allclose(job.modules[who].state_dict()[name], value, atol=1e-5), name


def test_halves_need_a_batch_norm():
    with pytest.raises(UserError, match="batch_norm is halves, but the network has no batch norm"):
        halve(nn.Linear(2, 2))


def test_different_initial_weights_are_the_students_alone(results):
    plain, other = (
        assemble(tiny(method="online_kd", **w), ResultPaths(results)).modules
        for w in ({}, {"initial_weights": "different"})
    )
    for name, value in plain[T].state_dict().items():
        assert torch.equal(value, other[T].state_dict()[name])
    assert not torch.equal(plain[S].trunk.fc.weight, other[S].trunk.fc.weight)
    assert plain[S].trunk.fc.weight.std().item() == pytest.approx(other[S].trunk.fc.weight.std().item(), rel=0.3)


def test_batch_norm_over_halves_is_every_networks(results):
    job = assemble(tiny(method="online_kd", batch_norm="halves"), ResultPaths(results))
    for who in (T, S):
        assert not [module for module in job.modules[who].modules() if type(module) is nn.BatchNorm2d]
    plain = assemble(tiny(method="online_kd"), ResultPaths(results))
    assert all(torch.equal(v, job.modules[S].state_dict()[k]) for k, v in plain.modules[S].state_dict().items())


@pytest.mark.parametrize(("drifting", "moves"), [(False, False), (True, True)])
def test_idle_heads_drift_by_momentum_and_decay_once_they_have_learnt(drifting, moves):
    network = Exits(2)
    spec = tiny(method="self_kd", interval=1.0)
    learner = Learner(network, [], spec, per_epoch=5, total=10, drifting=drifting)
    idle, start = network.layers[0].weight, network.layers[0].weight.detach().clone()
    plain = {"hard": lambda: hard(network(Batch.images), LABELS)}
    learner.learn(0, lambda: backward({name: term() for name, term in plain.items()}))
    assert torch.equal(idle, start)  # has not learnt yet
    learner.learn(1, lambda: backward({"hard": hard(network(Batch.images, exits=True)[0].logits, LABELS)}))
    before, momentum = idle.detach().clone(), learner.optimizer.state[idle]["momentum_buffer"].clone()
    learner.learn(2, lambda: backward({name: term() for name, term in plain.items()}))
    expected = before - spec.lr * (spec.momentum * momentum + spec.weight_decay * before)
    assert torch.allclose(idle, expected if moves else before, atol=1e-7)
    assert torch.equal(idle, before) != moves


def test_idle_heads_run_along_where_they_drift(results):
    plain, drifting = (
        assemble(tiny(method="self_kd", interval=1.0, method__idle_heads=idle), ResultPaths(results))
        for idle in ("untouched", "drifting")
    )
    terms = [job.terms(T, 0) for job in (plain, drifting)]
    assert torch.equal(terms[0]["hard"], terms[1]["hard"])
    tracked = [job.modules[S].branches[0].attention[2].num_batches_tracked.item() for job in (plain, drifting)]
    assert tracked == [0, 1]
    assert [job.learners[S].drifting for job in (plain, drifting)] == [False, True]


def test_the_ensemble_is_the_mean_of_logits_and_only_reported(results):
    plain, ensemble = (
        assemble(tiny(method="self_kd", method__reported_head=head), ResultPaths(results))
        for head in ("deepest", "ensemble")
    )
    assert plain.reported is plain.result
    assert isinstance(ensemble.reported, Ensemble)
    images = plain.batches[0].images
    outputs = [each.logits for each in ensemble.result.eval()(images, exits=True)]
    assert torch.allclose(ensemble.reported.eval()(images), torch.stack(outputs).mean(0), atol=1e-6)
    (one, many) = (train(job.spec, results) for job in (plain, ensemble))
    assert checksum(one) == checksum(many)
    assert (one / "predictions.safetensors").read_bytes() != (many / "predictions.safetensors").read_bytes()


def checksum(folder: Path) -> str:
    return array_file.read(folder / "weights.safetensors", remedy="")[1]["checksum"]


def test_the_clock_changes_when_a_run_is_evaluated_and_nothing_else(results):
    runs = [train(tiny(method="online_kd", interval=1.5, clock=clock), results) for clock in ("learner", "teacher")]
    assert checksum(runs[0]) == checksum(runs[1])
    epochs, predictions = zip(*(stored(run) for run in runs), strict=True)
    assert epochs == ([1, 2, 3], [1, 2, 3])  # 5 batches an epoch, blocks of 7, 7 and 1
    assert (predictions[0][-1] == predictions[1][-1]).all()
    jobs = [
        assemble(tiny(method="online_kd", interval=1.5, clock=clock), ResultPaths(results)) for clock in ("learner", T)
    ]
    last = {(S, 14): 3}
    assert [job.evaluations for job in jobs] == [{(S, 4): 1, (S, 9): 2} | last, {(T, 4): 1, (T, 9): 2} | last]


def stored(run: Path) -> tuple[list[int], object]:
    found, _ = array_file.read(run / "predictions.safetensors", remedy="")
    return found["epochs"].tolist(), found["predictions"]


# Replay, lead, states


def test_replay_without_lead_is_online_kd_to_the_bit(results, tmp_path, monkeypatch):
    """A finished teacher that is put back to where it stood after each batch teaches as the one trained along."""
    spec = tiny(method="online_kd", interval=0, epochs=2)
    along = train(spec, results)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "states_for", lambda job, students: set(range(job.total)))
        train(spec.teacher_spec(), other)
    replayed = train(spec, other)
    assert json.loads((replayed / "run.json").read_text())["teacher_states"] == "stored"
    assert checksum(replayed) == checksum(along)


@pytest.mark.parametrize(
    ("switch", "states"),
    first_fast(
        [
            ({}, [7, 14]),
            ({"method__target": "before"}, [7, 14]),
            ({"method__last_block": "dropped"}, [7, 14]),
            ({"method__student_batches": "new", "method__teacher_mode": "train"}, [7, 14]),
            ({"method__lead": "constant"}, []),
            ({"method__spaced_from": 1.0}, []),
            ({"interval": 0, "method__target": "before"}, []),
        ]
    ),
)
def test_a_teacher_leaves_the_states_of_each_schedule(results, tmp_path, switch, states):
    """Blocks of 7 in 15 batches; a student whose teacher never rests trains it along. Both give the same."""
    spec = tiny(**{"method": "online_kd", "interval": 1.5} | switch)
    along = train(spec, results)
    assert json.loads((along / "run.json").read_text())["teacher_states"] == "trained along"
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    train(spec.teacher_spec(), other, save_states_for=(spec,))
    folder = ResultPaths(other).trajectory(spec.teacher_spec())
    assert [int(path.stem.split("-")[1]) for path in sorted(folder.glob("*"))] == states
    walked = train(spec, other)
    assert json.loads((walked / "run.json").read_text())["teacher_states"] == ("stored" if states else "trained along")
    assert checksum(along) == checksum(walked)


def test_followers_are_told_to_the_teacher_by_their_schedules():
    arms = [
        {"method": "online_kd", "interval": [0, 1.5], "method.alpha": 0.5},
        {"method": "online_kd", "interval": 1.5, "method.target": "before", "clock": "teacher"},
    ]
    found = expand(study(arms=arms))
    teacher = next(run for run in found.runs if run.method == "baseline")
    assert found.followers(teacher.id) == [
        "interval=1.5 method=online_kd method.alpha=0.5",
        "interval=1.5 method=online_kd method.target=before",
    ]


# The sets


def study(**grid):
    plain = {"dataset": "digits", "network": "resnet_mini", "recipe": {"epochs": 4}, "seed": 0}
    return {"study": "trial", "grids": [plain | grid]}


def one(**point) -> RunSpec:
    return expand(study(**point)).runs[-1]


def followed(run: RunSpec) -> list[str]:
    """Names of the protocols whose switches a run has."""
    return list(protocols_of(run))


INTERVALS = {"baseline": [0], "online_kd": [0, 1.5, "max"], "self_kd": [0, 4.0]}
READINGS = ("textbook", "paper", "released", "released_loop_only")
EVERY = [(method, interval) for method, intervals in INTERVALS.items() for interval in intervals]


@pytest.mark.parametrize(("method", "interval"), EVERY)
def test_textbook_is_the_default_and_every_reading_another_run(method, interval):
    plain = one(method=method, interval=interval)
    runs = {name: one(method=method, interval=interval, protocol=name) for name in READINGS}
    assert plain.id == runs["textbook"].id
    for name, run in runs.items():
        assert name in followed(run), run.overrides()
    alone = 2 if method == "baseline" else 4  # the loops alone have textbook's baselines, and `paper` the code's
    assert len({run.id for run in runs.values()}) == alone


@pytest.mark.parametrize(("dataset", "network"), [("cifar100", "resnet18"), ("tiny_imagenet", "resnet50")])
def test_paper_and_released_share_their_baselines(dataset, network):
    where = {"dataset": dataset, "network": network}
    for one_reading, other in (("paper", "released"), ("textbook", "released_loop_only")):
        baselines = [one(**where, method="baseline", protocol=name) for name in (one_reading, other)]
        assert baselines[0].id == baselines[1].id
        for interval in INTERVALS["online_kd"]:
            for name in (one_reading, other):
                student = one(**where, method="online_kd", interval=interval, protocol=name)
                assert student.teacher_spec().id == baselines[0].id


@pytest.mark.parametrize(
    ("reading", "stem", "rotation"),
    [("textbook", "by_size", 0.0), ("paper", "by_size", 15.0), ("released", "3x3", 15.0)],
)
@pytest.mark.parametrize("dataset", ["imagenet100", "imagenet1k"])
def test_readings_of_imagenet_have_a_stem_and_a_rotation(dataset, reading, stem, rotation):
    for method, intervals in INTERVALS.items():
        for interval in intervals:
            run = one(dataset=dataset, network="resnet18", method=method, interval=interval, protocol=reading)
            assert (run.value("network.stem"), run.rotation) == (stem, rotation)
    assert one(dataset=dataset, network="deit_tiny", method="baseline", protocol=reading).rotation == 0


def labels_of(**point) -> dict[str, str]:
    return results_labels.labels(one(**point))


@pytest.mark.parametrize(
    ("switch", "label", "word"),
    [
        ({"method.feature_loss": "mse"}, {"method": "online_kd[feature_loss=mse]"}, ""),  # a default of textbook's
        ({"method.square_temperature": True}, {"method": "online_kd[square_temperature=True]"}, ""),
        ({"clock": "learner"}, {}, "clock=learner "),
        ({"batch_norm": "halves"}, {}, "batch_norm=halves "),
    ],
)
@pytest.mark.parametrize("reading", ["paper", "released"])
def test_a_reading_but_for_a_switch_is_labelled_beside_the_reading(reading, switch, label, word):
    plain = labels_of(method="online_kd", interval=1.5, protocol=reading)
    assert plain["protocol"] == reading
    found = labels_of(method="online_kd", interval=1.5, protocol=reading, **switch)
    assert found == plain | label | {"protocol": "mixed", "recipe": word + plain["recipe"]}


def test_a_run_as_near_to_textbook_as_to_another_reading_is_textbooks():
    released = presets.values("released", "baseline", {"network": "resnet_mini"}, 0, "tiny_imagenet")
    between = {"dataset": "tiny_imagenet", "network.initialisation": released["network.initialisation"]}
    found = labels_of(method="baseline", **between)  # one switch from textbook, the standardisation from `paper`
    assert found["network"] == "resnet_mini[initialisation=torch]"
    assert "protocol=" not in found["recipe"]


@pytest.mark.slow
def test_labels_of_recorded_rows_are_those_of_today():
    labelled = 0
    for path in (ROOT / "results" / "recorded").glob("*/runs.json"):
        known = {run["id"]: run for run in json.loads(path.read_text()) if "words" in run}
        rows = pd.read_csv(path.with_name("rows.csv"), dtype=str, keep_default_na=False)
        for run, row in rows[rows["run"].isin(known)].drop_duplicates("run").set_index("run").iterrows():
            spec = from_overrides(known[run]["words"])
            assert spec.id == run
            of_today = results_labels.labels(spec)
            assert of_today == row[list(of_today)].to_dict(), run
            labelled += 1
    assert labelled > 600


def test_readings_name_the_same_switches_which_all_exist():
    weights = {"method.temperature", "method.alpha", "method.beta"}  # of the transformers' code, defaults elsewhere
    lacking = {"network.initialisation", "network.attention", "standardisation", "method.adapter"}  # and C1 to C6
    lacking |= {
        "weight_decay_on",
        "lr_clock",
        "warmup_lr",
        "last_batch",
        "interval_rounding",
        "network.drop_path_rises",
        "network.stem",
        "rotation",
    }
    for method in INTERVALS:
        named = {name: set(presets.switches(name, method)) for name in READINGS}
        assert named["textbook"] == named["paper"] | {"batch_norm"} == named["released"] - weights
        assert named["textbook"] - named["released_loop_only"] <= lacking
        own = {f"method.{key}" for key in registry.defaults("methods", method)}
        own |= {f"network.{key}" for name in registry.names("networks") for key in registry.defaults("networks", name)}
        assert set().union(*named.values()) <= own | set(vars(tiny(method="baseline")))


@pytest.mark.parametrize("name", READINGS[:3])
def test_every_value_of_a_reading_has_its_source(name):
    """The comment beside a switch names its letter; the table of readings is made from these lines."""
    lines = (presets.PROTOCOLS / f"{name}.yaml").read_text().splitlines()
    silent = [line for line in lines if re.match(r"  [\w.]+:", line) and not re.search(r"# ([OSVBC]\d+)", line)]
    assert not silent


@pytest.mark.parametrize(
    ("network", "interval", "expected"),
    [
        ("deit_tiny", 0, {"optimizers": "one", "joint_backward": True}),
        (
            "deit_tiny",
            1.5,
            {"optimizers": "one", "student_batches": "new", "last_block": "dropped", "extra_step": True},
        ),
        ("deit_tiny", "max", {"student_batches": "new"}),
        ("pit_tiny", 0, {"optimizers": "one", "joint_backward": True, "second_forward": True}),
        ("pit_tiny", "max", {"student_batches": "new", "second_forward": True}),
    ],
)
def test_the_released_transformers_settings(network, interval, expected):
    run = one(network=network, method="online_kd", interval=interval, protocol="released")
    always = {"soft_loss": "kl_per_logit", "temperature": 1.0, "alpha": 0.5, "beta": 0.0, "teacher_mode": "train"}
    plain = registry.defaults("methods", "online_kd")
    assert {k: v for k, v in run.settings["method"].items() if v != plain[k]} == always | expected
    assert run.settings.get("network", {}).get("distillation_token", False) == (network == "deit_tiny")
    assert (run.clock, run.initial_weights) == ("teacher" if interval == 1.5 else "learner", "different")
    assert followed(run) == ["released"]
    assert run.teacher_spec() == one(network=network, method="baseline", protocol="released")


def test_switches_of_networks_hold_for_every_network_that_has_them():
    run = one(network="deit_tiny", teacher="resnet50", method="online_kd", interval=1.5, protocol="released")
    assert run.settings["teacher"] == {"initialisation": "torch"}
    assert run.settings["network"]["distillation_token"] is True
    assert results_labels.labels(run)["teacher"] == "resnet50"
    chain = one(method="takd", teacher="resnet50", assistant="vit_mini", protocol="paper")
    assert (chain.settings["network"], chain.settings["teacher"]) == (
        {"initialisation": "torch", "stem": "by_size"},
    ) * 2
    assert not chain.settings.get("assistant", {}).get("initialisation")
    assert chain.baseline_of("teacher") == one(network="resnet50", method="baseline", protocol="paper")


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize(("method", "interval"), EVERY)
@pytest.mark.parametrize("dataset", ["cifar100", "tiny_imagenet"])
def test_what_a_reading_sets_is_in_its_name_alone(name, method, interval, dataset):
    run = one(dataset=dataset, network="resnet18", method=method, interval=interval, protocol=name, recipe={"lr": 0.1})
    found = results_labels.labels(run)
    assert (found["dataset"], found["network"], found["teacher"], found["method"]) == (
        *(dataset, "resnet18", "resnet18"),
        method,
    )
    read = {"released": "paper", "released_loop_only": "textbook"}.get(name, name) if method == "baseline" else name
    assert found["recipe"] == " ".join(filter(None, ["lr=0.1", f"protocol={read}" if read != "textbook" else ""]))


def test_values_may_depend_on_several_things(tmp_path):
    (tmp_path / "nested.yaml").write_text(
        yaml.safe_dump(
            {
                "all": {"standardisation": {"resnet": {"digits": "imagenet"}, "else": "cifar10"}},
                "online_kd": {
                    "method.soft_loss": {"resnet": {"spaced": {"cifar100": "l1", "else": "mse"}}, "pit_tiny": "kl"},
                    "standardisation": {"resnet50": "own", "resnet": {"offline": "imagenet"}, "digits": "cifar10"},
                },
            }
        )
    )

    def found(method, network, interval, dataset):
        return presets.values("nested", method, {"network": network}, interval, dataset, tmp_path)

    soft, by = "method.soft_loss", "standardisation"
    assert found("online_kd", "resnet18", 1.5, "cifar100") == {soft: "l1"}
    assert found("online_kd", "resnet18", 1.5, "digits") == {soft: "mse"}  # the family comes before the dataset
    assert found("online_kd", "resnet18", "max", "digits") == {by: "imagenet"}
    assert found("online_kd", "resnet50", 0, "digits") == {by: "own"}
    assert found("online_kd", "pit_tiny", 0, "digits") == {soft: "kl", by: "cifar10"}
    assert found("self_kd", "resnet18", 0, "digits") == {by: "imagenet"}
    assert found("dml", "vit_mini", 0, "digits") == {by: "cifar10"}
    assert found("dml", "resnet18", 0, "cifar100") == {}


def test_a_protocol_that_contradicts_a_run_is_not_its_own():
    run = one(method={"online_kd": {"lead": "constant", "soft_loss": "kl_of_probabilities"}}, interval=1.5)
    assert followed(run) == []  # the released codes drop the last block, and a constant lead has none
    run = one(method={"self_kd": {"soft_loss": "soft_cross_entropy"}}, interval=1.5)
    assert followed(run) == []
    with pytest.raises(UserError, match="protocol teacher_checkpoints has no entry for self_kd: it has baseline, onli"):
        one(method="self_kd", protocol="teacher_checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize(("network", "interval"), [("deit_tiny", 0), ("pit_tiny", 1.0), ("deit_tiny", "max")])
def test_the_released_transformers_train_from_end_to_end(results, network, interval):
    spec = deit(network=network, interval=interval, protocol="released", batch_size=20, epochs=1)
    run = json.loads((train(spec, results) / "run.json").read_text())
    teacher, student = {0: (0, 2), 1.0: (2, 3), "max": (2, 2)}[interval]
    assert run["turns"] == {T: teacher, S: student}
    assert run["teacher_states"] == "trained along"


def test_what_is_given_wins_over_the_protocol():
    run = one(
        method={"online_kd": {"soft_loss": "kl"}},
        interval=0,
        protocol="released",
        recipe={"epochs": 4, "clock": "learner"},
    )
    assert "method.soft_loss" not in run.changed()
    assert run.changed()["method.feature_loss"] == "dist"
    assert followed(run) == []
    assert followed(one(method={"online_kd": {"alpha": 0.0}}, interval=0)) == ["textbook"]  # alpha is no switch


def test_a_protocol_holds_for_a_kind_of_interval():
    online, spaced, offline = (
        one(method="online_kd", interval=i, protocol="released").changed() for i in (0, 1.5, "max")
    )
    differ = {"method.target", "method.last_block", "clock", "method.student_batches", "method.teacher_mode"}
    assert differ & set(online) == {"method.target", "method.teacher_mode"}
    assert differ & set(spaced) == {"method.last_block", "clock", "method.teacher_mode"}
    assert differ & set(offline) == {"method.student_batches"}


def test_released_code_switches_one_thing_at_a_time():
    found = load_study(ROOT / "config" / "experiments" / "released_code.yaml")
    switched = {}
    for run in found.runs:
        named = presets.keys("textbook", run.method) & set(run.changed())
        if not followed(run):
            assert len(named) == 1, run.id
            switched.setdefault(run.method, set()).update(named)
    for method in ("online_kd", "self_kd"):
        textbook, loops = (presets.switches(name, method) for name in ("textbook", "released_loop_only"))
        differ = {key for key, value in loops.items() if value != textbook[key]}
        assert differ - {"augmentation"} <= switched[method]  # which differs on CIFAR-100 only


def test_a_protocol_holds_for_a_dataset():
    def runs(dataset: str) -> list[RunSpec]:
        return [one(dataset=dataset, method="self_kd", interval=interval, protocol="released") for interval in (0, 4.0)]

    assert [run.augmentation for run in runs("cifar100")] == ["autoaugment_cutout"] * 2
    assert [run.augmentation for run in runs("tiny_imagenet")] == ["standard"] * 2
    assert [followed(run) for run in (*runs("cifar100"), *runs("tiny_imagenet"))] == [["released"]] * 4


BAD = [
    ({"protocol": "papers"}, "'papers' is none of the protocols: paper, released, released_loop_only, teacher_che"),
    ({"protocol": "released_vit"}, "'released_vit' is none of the protocols: paper, released"),
    ({"method": "kd", "protocol": "paper"}, "'kd' is none of the methods"),
    ({"method.soft_los": "kl"}, "online_kd has no setting 'soft_los'"),
    ({"method.soft_loss": "KL"}, "online_kd.soft_loss is 'KL', but must be kl or kl_of_probabilities"),
    ({"clock": "mine"}, "clock is 'mine', but must be learner or teacher"),
    ({"interval": "max", "method.target": "before"}, r"target is before, but interval is max \(offline\): it needs"),
    ({"interval": 0, "method.last_block": "dropped"}, r"last_block is dropped, but interval is 0.0 \(online\)"),
    ({"interval": 0, "method.lead": "constant"}, "lead is constant, but interval is 0.0"),
    (
        {"method.lead": "constant", "method.target": "before"},
        "lead is constant, but target is before: it needs target after",
    ),
    ({"method.spaced_from": 1, "method.last_block": "dropped"}, "spaced_from is 1.0, but last_block is dropped"),
    ({"method.spaced_from": 90}, "spaced_from is 90 and spaced_until the end, but must be a window of the 4 epochs"),
    ({"method.spaced_from": -1}, "spaced_from is -1 and spaced_until the end, but must be a window"),
    ({"method.spaced_until": 4.5}, "spaced_from is 0 and spaced_until 4.5, but must be a window of the 4 epochs"),
    ({"method.spaced_from": 2, "method.spaced_until": 2}, "spaced_from is 2 and spaced_until 2, but must be a window"),
    ({"network": "vit_mini", "batch_norm": "halves"}, "batch_norm is halves, but vit_mini has no batch norm"),
    ({"teacher": "vit_mini", "batch_norm": "halves"}, "batch_norm is halves, but vit_mini has no batch norm"),
    ({"interval": 0, "clock": "teacher"}, "clock is teacher, but interval is 0.0"),
    (
        {"method": "self_kd", "initial_weights": "different"},
        "initial_weights is different, but self_kd has one network",
    ),
    (
        {"method": "self_kd", "interval": 0, "method.idle_heads": "drifting"},
        "idle_heads is drifting, but interval is 0",
    ),
    ({"method": "self_kd", "method.target": "before"}, "self_kd has no setting 'target'"),
    ({"min_lr": 0.5}, "min_lr is 0.5, but must be from 0 to lr, 0.01: lower it"),
    ({"min_lr": -0.5}, "min_lr is -0.5, but must be from 0 to lr"),
    ({"warmup_lr": 0.5}, "warmup_lr is 0.5, but must be from 0 to lr, 0.01"),
    ({"warmup_lr": -1e-9}, "warmup_lr is -1e-09, but must be from 0 to lr"),
    ({"warmup_epochs": 4.5}, "warmup_epochs is 4.5, but must be within the 4 epochs: lower it, or raise epochs"),
    ({"warmup_epochs": -1}, "warmup_epochs is -1, but must be within the 4 epochs"),
    ({"network": {"pit_tiny": {"drop_path": 1.5}}}, r"pit_tiny.drop_path is 1.5, but must be in \[0, 1\)"),
    ({"network": {"deit_tiny": {"drop_path": -0.1}}}, r"deit_tiny.drop_path is -0.1, but must be in \[0, 1\)"),
    ({"network": {"vit_mini": {"depth": 0}}}, r"vit_mini.depth is 0, but must be in \[1, 1000\]"),
    ({"network": {"vit_mini": {"dim": 0}}}, r"vit_mini.dim is 0, but must be in \[2, 65536\]"),
    (
        {"method.joint_backward": True},
        r"joint_backward is True, but interval is 1.5 \(spaced\): it needs interval online",
    ),
    (
        {"interval": 0, "method.joint_backward": True},
        "joint_backward is True, but optimizers is two: it needs optimizers",
    ),
    (
        {"interval": 0, "method.joint_backward": True, "method.optimizers": "one"},
        "joint_backward is True, but teacher_mode is eval: it needs teacher_mode train",
    ),
    ({"network": {"pit_tiny": {"distillation_token": True}}}, "pit_tiny has no setting 'distillation_token'"),
    (
        {"network": {"deit_tiny": {"distillation_token": True}}, "method": "baseline", "interval": 0},
        "network.distillation_token is true, but only a student with a teacher has one: leave it out",
    ),
    (
        {"teacher": {"deit_tiny": {"distillation_token": True}}},
        "teacher.distillation_token is true, but only a student",
    ),
]


@pytest.mark.parametrize(("change", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_bad_switches_are_refused_in_one_line(change, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        one(**{"method": "online_kd", "interval": 1.5} | change)
    assert "\n" not in str(caught.value)


def test_presets_that_cannot_be_found_are_no_empty_set(tmp_path):
    run = from_flat(TINY | {"method": "online_kd"})
    assert "textbook" in protocols_of(run)
    for kind, find in (("protocol", presets.protocol_names), ("recipe", presets.recipe_names)):
        with pytest.raises(UserError, match=f"^{tmp_path} has no {kind}: install the package again"):
            find(tmp_path)
    with pytest.raises(UserError, match="has no protocol"):
        protocols_of(run, tmp_path)


def test_protocols_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"online_kd": {"method.soft_loss": {"spaced": "kl_of_probabilities"}}})
    )
    grid = study(method="online_kd", interval=[0, 1.5], protocol="mine")
    runs = [run for run in expand(grid, tmp_path).runs if run.method == "online_kd"]
    assert [run.settings.get("method", {}) for run in runs] == [{}, {"soft_loss": "kl_of_probabilities"}]
    assert [list(protocols_of(run, tmp_path)) for run in runs] == [["mine"], ["mine"]]
    with pytest.raises(UserError, match="protocol mine has no entry for self_kd: it has online_kd"):
        expand(study(method="self_kd", protocol="mine"), tmp_path)
    for name, content, complaint in (
        ("wrong", {"online_kd": {"method.soft": "kl"}}, "online_kd has no setting 'soft'"),
        (
            "kinds",
            {"online_kd": {"clock": {"late": "teacher"}}},
            "clock of online_kd depends on late: use online, spaced",
        ),
        ("flat", ["paper"], "not a mapping of methods"),
    ):
        folder = tmp_path / name  # a process reads the names of a folder once
        folder.mkdir()
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=complaint):
            expand(study(method="online_kd", protocol=name), folder)


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize(
    ("method", "interval"),
    [("online_kd", 0), ("online_kd", 1.5), ("online_kd", "max"), ("self_kd", 0), ("self_kd", 1.0)],
)
def test_every_reading_trains_from_end_to_end(results, name, method, interval):
    spec = from_flat(tiny(method=method, interval=interval).changed() | {"protocol": name, "epochs": 2})
    run = json.loads((train(spec, results) / "run.json").read_text())
    twice = method == "self_kd" and interval and name == "textbook"  # on its own clock it makes twice the epochs
    assert [entry["epoch"] for entry in run["losses"]][-1] == (4 if twice else 2)
    assert followed(spec) == [name]


def test_a_drifting_run_goes_on_to_the_same_weights(results, tmp_path, monkeypatch):
    spec = tiny(method="self_kd", interval=1.0, protocol="released", epochs=2)
    whole = train(spec, results)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    save, saves = checkpoint.save_state, []

    def pull(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(args[1])
        if len(saves) == 12:  # in the plain steps after the first block
            raise InterruptedError

    monkeypatch.setattr(checkpoint, "save_state", pull)
    with pytest.raises(InterruptedError):
        train(spec, other, checkpoint_every=0)
    assert checksum(train(spec, other, checkpoint_every=0)) == checksum(whole)


def test_the_loop_of_training_names_no_switch():
    arguments = (ROOT / "src" / "spaced_kd" / "training" / "loop.py").read_text()
    switches = {key.removeprefix("method.") for given in presets.load_protocol("textbook").values() for key in given}
    values = {str(value) for given in presets.load_protocol("released_loop_only").values() for value in given.values()}
    assert not [word for word in switches | values | {"protocol"} if re.search(rf"\b{re.escape(word)}\b", arguments)]


# Online distillation from a teacher's checkpoints


def test_distilling_from_checkpoints_is_spaced_kd_with_three_switches():
    run = tiny(method="online_kd", interval=1.5, protocol="teacher_checkpoints")
    same = tiny(method="online_kd", interval=1.5, method__student_batches="new", method__alpha=1.0, method__beta=0.0)
    assert run == same
    assert followed(run) == ["teacher_checkpoints"]
    assert followed(tiny(method="online_kd", interval=1.5)) == ["textbook"]
    assert followed(tiny(method="online_kd", interval=1.5, method__student_batches="new")) == []
    assert run.teacher_spec() == tiny(method="baseline")


def test_distilling_from_checkpoints_against_a_loop(results, monkeypatch):
    """The student after each of its steps: next stored state of a finished teacher, fresh batch, soft loss alone."""
    run = tiny(method="online_kd", interval=1.4, epochs=2, protocol="teacher_checkpoints")  # ten batches, by seven
    paths, teacher = ResultPaths(results), run.teacher_spec()
    train(teacher, results, save_states_for=(run,))
    monkeypatch.setattr(
        "spaced_kd.training.teacher_states.TeacherStates.save", lambda *_: pytest.fail("the teacher has finished")
    )
    train(run, results)
    described = json.loads((paths.run(run) / "run.json").read_text())
    assert described["teacher_states"] == "stored"

    job = assemble(run, paths)  # for its batches and its network at the start
    student, guide = job.modules["student"], assemble(teacher, paths).result
    optimizer = torch.optim.SGD(student.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay)
    stored = {7: paths.trajectory(teacher) / "batches-000000007.safetensors", 10: paths.weights(teacher)}
    student.train()
    for step in range(10):
        checkpoint.load_weights(stored[min(at for at in stored if at > step)], guide.eval())  # the next one
        batch = job.batches[10 + step]  # none that the teacher has had
        with torch.no_grad():
            outputs = guide(batch.images)
        loss = 9.0 * kl(student(batch.images), outputs, 3.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights, _ = array_file.read(paths.weights(run), remedy="")
    for name, value in student.state_dict().items():
        assert torch.equal(value, torch.from_numpy(weights[name])), name
