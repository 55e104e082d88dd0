"""Losses and methods against their equations."""

import numpy as np
import pytest
import torch
from conftest import tiny
from torch import nn

from spaced_kd.distillation.losses import (
    FEATURE_LOSSES,
    SOFT_LOSSES,
    alignment,
    dist,
    distillation,
    eval_or_train_mode,
    hard,
    kl,
    kl_of_probabilities,
    kl_per_logit,
    mse,
    soft_cross_entropy,
    teacher_outputs,
)
from spaced_kd.distillation.methods.online_kd import OnlineKD
from spaced_kd.distillation.methods.self_kd import SelfKD
from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.networks.resnet import resnet_mini
from spaced_kd.training.learner import Learner, backward, learning_rate


def logits(seed: int, classes: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(7, classes))).float().requires_grad_()


def test_kl_is_the_textbook_sum():
    student, teacher, temperature = logits(0), logits(1), 3.0
    p, q = (torch.softmax(x.double() / temperature, 1) for x in (teacher, student))
    expected = (p * (p / q).log()).sum() / len(p)
    assert kl(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)
    assert kl(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-7)


def test_the_gradient_of_kl_is_the_difference_of_softmaxes():
    student, teacher, temperature = logits(0), logits(1).detach(), 3.0
    kl(student, teacher, temperature).backward()
    p, q = (torch.softmax(x / temperature, 1) for x in (teacher, student))
    assert torch.allclose(student.grad, (q - p) / temperature / len(p), atol=1e-7)


def test_kl_of_probabilities_descends_minus_the_inner_product():
    (student, again), teacher, temperature = (logits(0), logits(0)), logits(1).detach(), 3.0
    kl_of_probabilities(student, teacher, temperature).backward()
    p, q = (torch.softmax(x / temperature, 1) for x in (teacher, again))
    (-(p * q).sum() / len(p)).backward()
    assert torch.allclose(student.grad, again.grad, atol=1e-7)
    assert student.grad.abs().max() > 1e-3
    p, q = p.double(), q.double()
    expected = (p * (p.log() - q)).sum() / len(p)
    assert kl_of_probabilities(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected < 0


def test_kl_of_probabilities_is_least_for_a_student_that_is_certain():
    teacher = logits(1).detach()
    certain = torch.nn.functional.one_hot(teacher.argmax(1), 5) * 100.0
    assert kl_of_probabilities(certain, teacher, 3.0) < kl_of_probabilities(teacher, teacher, 3.0)


def test_soft_cross_entropy_has_the_gradient_of_kl():
    student, again, teacher = logits(0), logits(0), logits(1).detach()
    soft_cross_entropy(student, teacher, 3.0).backward()
    kl(again, teacher, 3.0).backward()
    assert torch.allclose(student.grad, again.grad, atol=1e-7)
    p = torch.softmax(teacher.double() / 3, 1)
    expected = -(p * torch.log_softmax(student.double() / 3, 1)).sum() / len(p)
    assert soft_cross_entropy(student, teacher, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("size", [3, 48])
def test_the_gradient_of_dist_has_norm_one_whatever_the_batch(size):
    student, teacher = torch.randn(size, 8, requires_grad=True), torch.randn(size, 8)
    dist(student, teacher).backward()
    assert dist(student, teacher).item() == pytest.approx(((student - teacher) ** 2).sum().sqrt().item(), rel=1e-6)
    assert student.grad.norm().item() == pytest.approx(1, rel=1e-5)


def test_dist_of_equal_features_pulls_nowhere():
    student = torch.randn(3, 8, requires_grad=True)
    dist(student, student.detach().clone()).backward()
    assert torch.equal(student.grad, torch.zeros(3, 8))  # as at the first step of networks that start alike


def test_kl_per_logit_is_the_mean_over_batch_and_classes():
    student, teacher = logits(0), logits(1)
    p, q = (torch.softmax(x.double() / 2, 1) for x in (teacher, student))
    expected = (p * (p / q).log()).sum() / (7 * 5)
    assert kl_per_logit(student, teacher, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)


def by_hand(name: str, student: np.ndarray, teacher: np.ndarray) -> float:
    """The losses of Tab. 3, number by number."""
    total = 0.0
    for a, b in zip(student.ravel().tolist(), teacher.ravel().tolist(), strict=True):
        d = abs(a - b)
        total += {"l1": d, "smooth_l1": d**2 / 2 if d < 1 else d - 0.5, "mse": d**2, "mse_sum": d**2}[name]
    return total if name == "mse_sum" else total / student.size


@pytest.mark.parametrize("name", ["l1", "smooth_l1", "mse", "mse_sum"])
def test_the_losses_of_differences_of_tab_3(name):
    student, teacher = (2 * logits(seed).detach().numpy() for seed in (0, 1))
    a, b = (torch.from_numpy(x) for x in (student, teacher))
    assert (abs(student - teacher) < 1).any()
    assert (abs(student - teacher) > 1).any()
    assert FEATURE_LOSSES[name](a, b).item() == pytest.approx(by_hand(name, student, teacher), rel=1e-5)
    assert SOFT_LOSSES[name](a, b, 3.0).item() == pytest.approx(by_hand(name, student / 3, teacher / 3), rel=1e-5)


@pytest.mark.parametrize("name", ["mse", "mse_sum"])
def test_the_temperature_cancels_out_of_squares(name):
    student, teacher = NetworkOutput(logits(0), logits(2)), NetworkOutput(logits(1), logits(3))
    weights = {"alpha": 0.3, "beta": 0.03, "square_temperature": True, "soft_loss": name}
    terms = [
        distillation(student, teacher, torch.zeros(7, dtype=int), nn.Identity(), temperature=t, **weights)
        for t in (1.0, 3.0)
    ]
    assert terms[0]["soft"].item() == pytest.approx(terms[1]["soft"].item(), rel=1e-5)


def test_the_cross_entropies_of_tab_3():
    student, teacher = logits(0).detach().double(), logits(1).detach().double()
    log_q = student - student.exp().sum(1, keepdim=True).log()
    expected = -(teacher * log_q).sum() / 7  # raw features as targets
    assert FEATURE_LOSSES["cross_entropy"](student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    p = (teacher / 3).exp() / (teacher / 3).exp().sum(1, keepdim=True)
    expected = -(p * (student / 3 - (student / 3).exp().sum(1, keepdim=True).log())).sum() / 7
    assert SOFT_LOSSES["cross_entropy"](student, teacher, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("square", "scale"), [(True, 9.0), (False, 1.0)])
def test_the_students_terms_have_their_weights(square, scale):
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    student, teacher = NetworkOutput(logits(0), logits(2, 8)), NetworkOutput(logits(1), logits(3, 8))
    weights = {"alpha": 0.3, "temperature": 3.0, "beta": 0.03, "square_temperature": square}
    terms = distillation(student, teacher, labels, nn.Identity(), **weights)
    assert terms["hard"] == 0.7 * hard(student.logits, labels)
    assert terms["soft"] == 0.3 * scale * kl(student.logits, teacher.logits, 3.0)
    assert terms["feature"] == 0.03 * ((student.features - teacher.features) ** 2).mean()


def test_mse_is_the_mean_over_batch_and_features():
    a, b = logits(0), logits(1)
    assert mse(a, b).item() == pytest.approx(((a - b) ** 2).sum().item() / a.numel(), rel=1e-6)


def test_alignment_only_where_widths_differ():
    assert isinstance(alignment(8, 8), nn.Identity)
    assert alignment(8, 16).weight.shape == (16, 8)


def test_an_mlp_adapter_is_always_there():
    for widths, shapes in (((8, 8), [(8, 8), (8, 8)]), ((8, 17), [(12, 8), (17, 12)])):
        adapter = alignment(*widths, "mlp")
        assert [type(layer).__name__ for layer in adapter] == ["Linear", "ReLU", "Linear"]
        assert [tuple(layer.weight.shape) for layer in adapter if hasattr(layer, "weight")] == shapes


def test_a_teaching_teacher_is_in_eval_mode_without_gradient_and_unchanged():
    network = resnet_mini(5, 32, width=0.0625).train()
    images = torch.randn(4, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outputs = teacher_outputs(network, images)
    assert network.training
    assert not outputs.logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(outputs.logits, network.eval()(images))


class Recorded(nn.Module):
    """A network of one linear layer that notes who was asked."""

    def __init__(self, exits: int = 1, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 5) for _ in range(exits))
        self.widths = (width,) * exits

    def forward(self, images, exits=False):
        found = [NetworkOutput(layer(images), images) for layer in self.layers]
        return found if exits else found[-1].logits


class Batch:
    images, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 4, 0])


def gradients(terms, network) -> bool:
    network.zero_grad()
    sum(terms.values()).backward()
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_teacher_that_fails_has_its_mode_back():
    network = nn.Linear(2, 2)
    with pytest.raises(KeyError), eval_or_train_mode(network, "eval"):
        raise KeyError
    assert network.training


def test_online_kd_teaches_the_student_and_never_the_teacher():
    networks = {"teacher": Recorded(), "student": Recorded(), "align": nn.Identity()}
    method = OnlineKD()
    assert gradients(method.terms("student", networks, Batch), networks["student"])
    assert not gradients(method.terms("student", networks, Batch), networks["teacher"])
    assert gradients(method.terms("teacher", networks, Batch), networks["teacher"])
    assert not gradients(method.terms("teacher", networks, Batch), networks["student"])


def test_self_kd_sums_over_the_shallower_exits():
    network = Recorded(exits=3)
    method = SelfKD()
    networks = {"student": network} | method.modules({"student": network})
    terms = method.terms("student", networks, Batch)
    *shallow, deepest = network(Batch.images, exits=True)
    expected = hard(deepest.logits, Batch.labels)
    for outputs in shallow:
        expected = (
            expected + 0.7 * hard(outputs.logits, Batch.labels) + 0.3 * 9 * kl(outputs.logits, deepest.logits, 3.0)
        )
    assert sum(terms.values()).item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(method.terms("teacher", networks, Batch)) == {"hard"}


def test_the_soft_loss_of_self_kd_does_not_move_the_deepest_exit():
    network = Recorded(exits=2)
    networks = {"student": network} | SelfKD().modules({"student": network})
    terms = SelfKD(alpha=1.0).terms("student", networks, Batch)
    network.zero_grad()
    terms["soft of exit 1"].backward()
    assert network.layers[1].weight.grad is None


def test_learning_rates():
    plain = tiny(method="baseline", lr=0.01)
    assert {learning_rate(plain, step, 10, 100) for step in (0, 50, 99)} == {0.01}
    cosine = tiny(method="baseline", lr=1.0, lr_schedule="cosine", warmup_epochs=1, min_lr=0.1)
    assert learning_rate(cosine, 0, 10, 110) == pytest.approx(0.1)
    assert learning_rate(cosine, 9, 10, 110) == pytest.approx(1.0)
    assert learning_rate(cosine, 60, 10, 110) == pytest.approx(0.55)
    assert learning_rate(cosine, 110, 10, 110) == pytest.approx(0.1)
    steps = tiny(method="baseline", lr=0.1, lr_schedule="steps", lr_drops=[1, 2.5], warmup_epochs=0.2)
    found = [learning_rate(steps, step, 10, 30) for step in (0, 1, 9, 10, 24, 25, 29)]
    assert found == pytest.approx([0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_nesterovs_momentum_looks_ahead():
    weight = torch.nn.Linear(1, 1, bias=False)
    spec = tiny(method="baseline", lr=0.1, nesterov=True, weight_decay=0)
    learner, start = Learner(weight, [], spec, per_epoch=5, total=10), weight.weight.item()
    for _ in range(2):
        learner.learn(0, lambda: backward({"hard": weight.weight.sum()}))  # gradient 1: momentum 1, then 1.9
    assert weight.weight.item() == pytest.approx(start - 0.1 * (1 + 0.9) - 0.1 * (1 + 0.9 * 1.9))
