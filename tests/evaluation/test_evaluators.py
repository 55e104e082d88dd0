"""Each evaluation beside its slow and obvious twin."""

import copy
import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import still
from conftest import tiny as trained
from scipy import stats
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.data import corruptions as corrupt
from spaced_kd.data import dataset as prepared
from spaced_kd.data.dataset import Data
from spaced_kd.distillation.fixed_teacher import FixedTeacher
from spaced_kd.evaluation import evaluate as evaluating
from spaced_kd.evaluation.evaluators import bim, corruptions, hessian_trace, weight_noise
from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.networks.resnet import resnet_mini
from spaced_kd.networks.vit import vit_mini
from spaced_kd.training.batch_norm import reestimated
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

NETWORKS = (resnet_mini, vit_mini)
QUICK = {
    "batch_norm_reestimated": {"batch_size": 15},
    "bim": {"images": 12, "steps": 2},
    "corruptions": {"images": 12},
    "hessian_trace": {"images": 4, "probes": 2},
    "supervision_complexity": {"images": 4, "compared": 2, "epochs": (0,)},
    "weight_noise": {"images": 12, "draws": 2, "sigmas": (0.01, 0.1)},
}


def test_a_change_of_any_source_is_another_measurement(tmp_path, monkeypatch):
    plugin = registry.plugin("evaluations", "supervision_complexity")
    assert [path.name for path in plugin.sources] == ["supervision_complexity.py", "ntk.py"]
    assert plugin.sources[1].exists()
    (tmp_path / "inner").mkdir()
    for name in ("inner/one.py", "two.py"):
        (tmp_path / name).write_text(name)
    own = dataclasses.replace(plugin, path=tmp_path / "inner/one.py", constants={"SOURCES": ["../two.py"]})
    monkeypatch.setattr(registry, "plugin", lambda *_: own)
    names = [evaluating._cache(tmp_path, "one", {}, "weights").name]
    for name in ("inner/one.py", "two.py"):
        (tmp_path / name).write_text("changed")
        names.append(evaluating._cache(tmp_path, "one", {}, "weights").name)
    assert len(set(names)) == 3


def test_rows_are_found_by_the_keys_that_their_source_had_earlier(tmp_path, monkeypatch):
    plugin = registry.plugin("evaluations", "hessian_trace")
    own = evaluating._cache(tmp_path, "hessian_trace", {}, "weights")
    hashes = [evaluating.syntax_hash(path) for path in plugin.sources]
    known = evaluating._earlier_keys(plugin.path)
    older = evaluating._cache_of(tmp_path, "hessian_trace", "weights", [known[0], *hashes[1:]], {})
    assert known
    assert own != older
    older.parent.mkdir(parents=True)
    older.write_text("{}")
    assert evaluating._cache(tmp_path, "hessian_trace", {}, "weights") == older
    own.write_text("{}")
    assert evaluating._cache(tmp_path, "hessian_trace", {}, "weights") == own


def test_no_images_are_none_to_choose(data):
    with pytest.raises(UserError, match="images is 0, but must be at least 1"):
        data.subset("test", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    """Forty images of ten classes, each a noisy colour of its own, with corrupted copies of twelve."""
    path = tmp_path_factory.mktemp("data") / "random.safetensors"
    draws = generator(0, "test data")
    content = {}
    for split in prepared.SPLITS:
        colours, noise = draws.integers(0, 200, (40, 1, 1, 3)), draws.integers(0, 56, (40, 32, 32, 3))
        content[f"{split}_images"] = (colours + noise).astype(np.uint8)
    content |= {f"{split}_labels": draws.permutation(np.arange(40) % 10) for split in prepared.SPLITS}
    prepared.save(path, content, dataset="digits")
    corrupt.make(path, 12)
    return prepared.load(path)


@pytest.fixture(scope="module")
def tiny() -> Data:
    """Thirty random images of 2x2 pixels and three classes, for networks whose whole Hessian fits."""
    draws = generator(0, "tiny data")
    pixels = torch.from_numpy(draws.integers(0, 256, (30, 2, 2, 3), np.uint8))
    labels = torch.arange(30) % 3
    both = {"train": pixels, "test": pixels}, {"train": labels, "test": labels}
    return Data(*both, classes=3, checksum="", mean=(0.5,) * 3, std=(0.3,) * 3, path=Path())


def build(make, **settings) -> nn.Module:
    """A network in eval mode with weights as after some training: no zero scales, and running statistics of its own."""
    with global_seed(0, "test network"):
        network = make(10, 32, **settings)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def perceptron(*widths: int) -> nn.Sequential:
    with global_seed(0, "test perceptron"):
        layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    first, *others = layers
    return nn.Sequential(nn.Flatten(), first, *(part for layer in others for part in (nn.Tanh(), layer))).eval()


def state_of(network: nn.Module) -> str:
    return array_file.digest({name: tensor.numpy() for name, tensor in network.state_dict().items()})


def rows_of(name: str, network: nn.Module, data: Data, **settings) -> Iterator[dict]:
    if name == "supervision_complexity":
        settings["history"] = still(network)
    return registry.find("evaluations", name)(network, data, **({"seed": 0} | settings))


def evaluate(name: str, network: nn.Module, data: Data, **settings) -> list[dict]:
    return list(rows_of(name, network, data, **settings))


# every evaluation


@pytest.mark.parametrize("name", QUICK)
def test_networks_are_measured_at_the_runs_input_size(name, data):
    larger, seen = dataclasses.replace(data, input_size=40), []
    network = build(resnet_mini)
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-2:]))
    evaluate(name, network, larger, **QUICK[name])
    assert set(seen) == {(40, 40)}


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("name", QUICK)
def test_it_runs_and_leaves_the_network_and_torch_as_they_were(name, make, data):
    network = build(make)
    state = state_of(network)
    rows = []
    for row in rows_of(name, network, data, **QUICK[name]):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        rows.append(row)
    assert state_of(network) == state
    assert not any(module.training for module in network.modules())
    assert all(weights.grad is None for weights in network.parameters())
    for row in rows:
        predictions = row.pop("predictions", None)
        assert type(row["metric"]) is str
        assert type(row["value"]) is float
        assert np.isfinite(row["value"])
        assert all(isinstance(value, str | int | float) for value in row.values())
        if predictions is not None:
            assert predictions.dtype == np.uint16
            assert predictions.shape == (12,)
            labels = data.labels["test"][data.subset("test", 12)].numpy()
            assert row["value"] == pytest.approx(100 * np.mean(predictions == labels))
    keys = [tuple((key, value) for key, value in row.items() if key not in ("value", "stderr")) for row in rows]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", QUICK)
def test_exits_change_nothing(name, data):
    plain, with_exits = build(resnet_mini), build(resnet_mini, exits=True)
    missing = with_exits.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    first, second = (evaluate(name, network, data, **QUICK[name]) for network in (plain, with_exits))
    for one, other in zip(first, second, strict=True):
        one.pop("predictions", None)
        other.pop("predictions", None)
        assert one == pytest.approx(other)


# weight noise


def test_noisy_weights_against_a_loop_that_moves_them(data):
    network, moved = build(resnet_mini), build(resnet_mini)
    rows = evaluate("weight_noise", network, data, images=12, draws=2, sigmas=(0.01, 0.1), seed=3)
    chosen = data.subset("train", 12)
    found = iter(rows)
    for draw, sigma in ((0, 0.0), (1, 0.01), (1, 0.1), (2, 0.01), (2, 0.1)):
        moved.load_state_dict(network.state_dict())
        draws = generator(3, "weight noise", draw)
        losses, hits = [], []
        with torch.no_grad():
            for weights in moved.parameters():
                weights += sigma * torch.from_numpy(draws.standard_normal(weights.shape, dtype=np.float32))
            for index in chosen:
                logits = moved(data.normalise(data.images["train"][index : index + 1]))[0]
                label = data.labels["train"][index]
                losses.append((logits.logsumexp(0) - logits[label]).item())
                hits.append(bool(logits.argmax() == label))
        for metric, value in (("loss", np.mean(losses)), ("accuracy", 100 * np.mean(hits))):
            assert next(found) == {"metric": metric, "value": pytest.approx(value), "sigma": sigma, "draw": draw}
    assert next(found, None) is None


def test_no_noise_is_the_network_itself_and_a_seed_is_repeatable(data):
    network = build(vit_mini)
    rows = evaluate("weight_noise", network, data, images=12, draws=1, sigmas=(0.0, 0.1), seed=1)
    values = [row["value"] for row in rows]
    assert values[:2] == values[2:4] != values[4:]
    assert rows == evaluate("weight_noise", network, data, images=12, draws=1, sigmas=(0.0, 0.1), seed=1)
    assert rows != evaluate("weight_noise", network, data, images=12, draws=1, sigmas=(0.0, 0.1), seed=2)


def test_relative_noise_scales_with_each_tensor(data):
    network = build(vit_mini)
    theta = {name: weights.detach() for name, weights in network.named_parameters()}
    epsilon = weight_noise._noise(theta, 0, 1)
    with torch.no_grad():
        expected = copy.deepcopy(network)
        for name, weights in expected.named_parameters():
            weights += 0.3 * (weights**2).mean() ** 0.5 * epsilon[name]
    absolute = evaluate("weight_noise", expected, data, images=12, draws=0)
    relative = evaluate("weight_noise", network, data, images=12, draws=1, sigmas=(0.3,), relative=True)
    assert [row["value"] for row in relative[2:]] == pytest.approx([row["value"] for row in absolute])
    assert relative[2]["value"] != relative[0]["value"]


def test_weights_survive_an_error(data):
    network = build(resnet_mini)
    state, calls = state_of(network), []

    def fail(*_: object) -> None:
        calls.append(0)
        if len(calls) == 3:
            raise MemoryError

    network.trunk.fc.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        evaluate("weight_noise", network, data, images=12)
    assert state_of(network) == state


# batch norm


def by_hand(network: nn.Module, data: Data, sizes: list[int]) -> nn.Module:
    """Running statistics as the mean of those of each batch, weighted by its images, under fixed weights."""
    network = copy.deepcopy(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums: dict[int, list] = {number: [0, 0] for number in range(len(norms))}

    def look(number: int, module: nn.Module, inputs: tuple) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        sums[number][0] += sizes[0] * values.mean(1)
        sums[number][1] += sizes[0] * values.var(1)

    for number, norm in enumerate(norms):
        norm.train()
        norm.register_forward_pre_hook(partial(look, number))
    for images in data.images["train"].split(list(sizes)):
        network(data.normalise(images))
        sizes.pop(0)
    for number, norm in enumerate(norms):
        norm._forward_pre_hooks.clear()
        norm.running_mean, norm.running_var = (value.float() / 40 for value in sums[number])
    return network.eval()


@torch.no_grad()
def test_statistics_are_those_of_all_training_images_under_the_final_weights(data):
    network = build(resnet_mini)
    found = reestimated(network, data, 15)  # 40 images: 14, 14, 12
    twin = by_hand(network, data, [14, 14, 12])
    state = network.state_dict()
    assert not any(module.training for module in found.modules())
    for (name, value), other in zip(found.state_dict().items(), twin.state_dict().values(), strict=True):
        if "running" in name:
            assert torch.allclose(value, other, rtol=1e-4, atol=1e-5), name
            assert not torch.allclose(value, state[name], rtol=1e-2), name
        elif "num_batches" not in name:
            assert torch.equal(value, state[name]), name
    rows = {row["metric"]: row["value"] for row in evaluate("batch_norm_reestimated", network, data, batch_size=15)}
    for metric, each in (("accuracy", twin), ("accuracy_as_trained", network)):
        correct = each(data.normalise(data.images["test"])).argmax(1) == data.labels["test"]
        assert rows[metric] == pytest.approx(100 * correct.float().mean().item())


def test_lag_alone_is_undone(data):
    network, lagging = build(resnet_mini), build(resnet_mini)
    for module in lagging.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 5
            module.running_var *= 20
    (one, before), (other, after) = (evaluate("batch_norm_reestimated", each, data) for each in (network, lagging))
    assert one == other
    assert before != after
    (trace,) = evaluate("hessian_trace", network, data, images=4, probes=2, batch_norm="reestimated")
    both = evaluate("hessian_trace", lagging, data, images=4, probes=2, batch_norm="both")
    assert trace["metric"] == "trace_reestimated"
    assert [row["metric"] for row in both] == ["trace", "trace_reestimated"]
    assert both[1] == trace
    assert both[:1] == evaluate("hessian_trace", lagging, data, images=4, probes=2)


def test_without_batch_norm_both_accuracies_are_equal(data):
    new, old = evaluate("batch_norm_reestimated", build(vit_mini), data)
    assert new["value"] == old["value"]


def test_statistics_of_one_image_are_refused(data):
    with pytest.raises(UserError, match="batch_size is 1, but the statistics of a batch need at least 2 images"):
        evaluate("batch_norm_reestimated", build(resnet_mini), data, batch_size=1)


# trace of the Hessian


def exact_hessian(network: nn.Module, data: Data, images: int) -> Tensor:
    """The whole Hessian (P, P) of the mean cross-entropy in float64."""
    chosen = data.subset("train", images)
    inputs, labels = data.normalise(data.images["train"][chosen]).double(), data.labels["train"][chosen]
    twin = copy.deepcopy(network).double()
    names, shapes = zip(*((name, weights.shape) for name, weights in twin.named_parameters()), strict=True)

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        theta = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(twin, theta, (inputs,)), labels)

    return torch.func.hessian(loss)(nn.utils.parameters_to_vector(twin.parameters()).detach())


def test_products_give_the_exact_trace(tiny, monkeypatch):
    network, operators = perceptron(12, 6, 3), []
    original = hessian_trace._quadratic_forms

    def recorded(hessian, *rest):
        operators.append(hessian)
        return original(hessian, *rest)

    monkeypatch.setattr(hessian_trace, "_quadratic_forms", recorded)
    monkeypatch.setattr(hessian_trace, "BATCH", 7)  # 25 images: three batches of 7 and one of 4
    evaluate("hessian_trace", network, tiny, images=25)
    exact = exact_hessian(network, tiny, 25)
    found = (operators[0] @ torch.eye(len(exact))).trace().item()
    assert found == pytest.approx(exact.trace().item(), rel=1e-5)


def test_estimate_and_error_are_those_of_single_probes(tiny):
    network, probes = perceptron(12, 6, 3), 13
    (row,) = evaluate("hessian_trace", network, tiny, images=25, probes=probes, seed=5)
    exact = exact_hessian(network, tiny, 25).numpy()
    draws = [generator(5, "hessian probe", k).integers(0, 2, len(exact), dtype=np.int8) for k in range(probes)]
    t = [(2.0 * v - 1) @ exact @ (2.0 * v - 1) for v in draws]
    assert row == {
        "metric": "trace",
        "value": pytest.approx(np.mean(t), rel=1e-4),
        "stderr": pytest.approx(stats.sem(t), rel=1e-4),
        "probes": probes,
        "parameters": 12 * 6 + 6 + 6 * 3 + 3,
    }
    (row,) = evaluate("hessian_trace", network, tiny, images=25, probes=200)
    assert abs(row["value"] - exact.trace()) < 4 * row["stderr"]


def test_a_sketch_leaves_to_probes_what_lies_outside_its_basis(tiny):
    network, sketch, probes = perceptron(12, 3, 3), 4, 5
    (row,) = evaluate("hessian_trace", network, tiny, images=25, probes=probes, sketch=sketch, seed=5)
    exact = exact_hessian(network, tiny, 25).numpy()

    def signs(purpose, k):
        return 2.0 * generator(5, purpose, k).integers(0, 2, len(exact), dtype=np.int8) - 1

    q, _ = np.linalg.qr(exact @ np.stack([signs("hessian sketch", k) for k in range(sketch)], axis=1))
    outside = np.eye(len(exact)) - q @ q.T
    t = [
        np.trace(q.T @ exact @ q) + v @ outside @ exact @ outside @ v
        for v in (signs("hessian probe", k) for k in range(probes))
    ]
    assert row["value"] == pytest.approx(np.mean(t), rel=1e-3)
    assert row["stderr"] == pytest.approx(stats.sem(t), rel=1e-2)
    (plain,) = evaluate("hessian_trace", network, tiny, images=25, probes=probes, seed=5)
    assert row["stderr"] < plain["stderr"]


def test_a_negative_sketch_is_refused(tiny):
    with pytest.raises(UserError, match=r"hessian_trace\.sketch is -1"):
        evaluate("hessian_trace", perceptron(12, 3), tiny, sketch=-1)


@pytest.mark.parametrize("sketch", [0, 3])
def test_the_interval_covers_the_exact_trace(tiny, sketch):
    network = perceptron(12, 3, 3)
    exact = exact_hessian(network, tiny, 25).trace().item()
    quantile = stats.t.ppf(0.975, 12 - 1)
    settings = {"images": 25, "probes": 12, "sketch": sketch}
    rows = [evaluate("hessian_trace", network, tiny, **settings, seed=seed)[0] for seed in range(50)]
    covered = [abs(row["value"] - exact) < quantile * row["stderr"] for row in rows]
    assert 43 <= sum(covered) < 50


@pytest.mark.parametrize("make", NETWORKS)
def test_products_of_real_networks_against_differentiating_twice(make, data):
    network, images = build(make), 5
    (row,) = evaluate("hessian_trace", network, data, images=images, probes=2)
    chosen = data.subset("train", images)
    t = []
    for k in range(2):
        signs = generator(0, "hessian probe", k).integers(0, 2, row["parameters"], dtype=np.int8)
        v = torch.from_numpy(2.0 * signs - 1).float()
        theta = list(network.parameters())
        with sdpa_kernel(SDPBackend.MATH):
            loss = F.cross_entropy(network(data.normalise(data.images["train"][chosen])), data.labels["train"][chosen])
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, theta, create_graph=True)])
            product = torch.cat([part.flatten() for part in torch.autograd.grad(gradient @ v, theta)])
        t.append((v @ product).item())
    assert row["value"] == pytest.approx(np.mean(t), rel=1e-3)
    assert row["stderr"] == pytest.approx(stats.sem(t), rel=1e-3)


# trace of the Hessian of the loss of KD


class TwoExits(nn.Module):
    """A perceptron with an exit after its first layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with global_seed(seed, "test network"):
            self.first, self.shallow, self.deep = nn.Linear(12, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        hidden = self.first(images.flatten(1)).tanh()
        outputs = [NetworkOutput(self.shallow(hidden), hidden), NetworkOutput(self.deep(hidden.sin()), hidden)]
        return outputs if exits else outputs[-1].logits


def of_kd(method: str, **settings: object) -> FixedTeacher:
    teacher = TwoExits(1).eval() if method == "online_kd" else None
    return FixedTeacher(registry.find("methods", method)(**settings), teacher)


def exact_kd_hessian(network: nn.Module, teacher: nn.Module | None, data: Data, scale: float) -> Tensor:
    """The whole Hessian of the loss of KD, written out in float64; in self KD of all exits, the deepest one's fixed."""
    inputs, labels = data.normalise(data.images["train"][:30]).double(), data.labels["train"][:30]
    twin = copy.deepcopy(network).double()
    with torch.no_grad():
        fixed = (copy.deepcopy(teacher).double() if teacher else twin)(inputs)
    p = (fixed / 3).softmax(1)
    names, shapes = zip(*((name, weights.shape) for name, weights in twin.named_parameters()), strict=True)

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        theta = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        shallow, deep = (each.logits for each in torch.func.functional_call(twin, theta, (inputs,), {"exits": True}))
        student, alone = (deep, 0.0) if teacher else (shallow, F.cross_entropy(deep, labels))
        kl = (p * (p.log() - (student / 3).log_softmax(1))).sum(1).mean()
        return alone + 0.6 * F.cross_entropy(student, labels) + 0.4 * scale * kl

    return torch.func.hessian(loss)(nn.utils.parameters_to_vector(twin.parameters()).detach())


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("method", ["online_kd", "self_kd"])
def test_products_of_the_kd_loss_are_those_of_its_exact_hessian(method, square, tiny, monkeypatch):
    monkeypatch.setattr(hessian_trace, "BATCH", 7)  # 30 images: four batches of 7 and one of 2
    network, fixed = TwoExits(0).eval(), of_kd(method, alpha=0.4, square_temperature=square)
    exact = exact_kd_hessian(network, fixed.teacher, tiny, 9 if square else 1)
    if fixed.teacher:
        network.shallow = None  # no exits but the last one
        monkeypatch.setattr(TwoExits, "forward", lambda self, images, exits=False: deepest(self, images, exits))
    with hessian_trace.kd_operator(hessian_trace.Sayings(network), fixed, tiny, 30) as hessian:
        found = hessian @ torch.eye(hessian.shape[0])
    learnt = exact.diagonal() != 0 if fixed.teacher else slice(None)  # the shallow exit says nothing here
    exact = exact[learnt][:, learnt]
    assert found.shape == exact.shape
    assert torch.allclose(found.double(), exact, rtol=1e-4, atol=1e-6)


def deepest(network: TwoExits, images: Tensor, exits: bool) -> Tensor | list[NetworkOutput]:
    hidden = network.first(images.flatten(1)).tanh()
    outputs = NetworkOutput(network.deep(hidden.sin()), hidden)
    return [outputs] if exits else outputs.logits


def test_the_kd_trace_stands_beside_that_of_cross_entropy(data):
    network, teacher = build(resnet_mini), build(resnet_mini)
    nn.init.normal_(teacher.trunk.fc.weight)
    fixed = FixedTeacher(registry.find("methods", "online_kd")(), teacher)
    settings = {"images": 4, "probes": 2}
    found = evaluate("hessian_trace", network, data, **settings, kd_loss=True, batch_norm="both", kd=lambda: fixed)
    assert [row["metric"] for row in found] == ["trace", "trace_reestimated", "kd_trace", "kd_trace_reestimated"]
    assert found[:1] == evaluate("hessian_trace", network, data, **settings)
    assert len({row["value"] for row in found}) == 4
    assert len({row["parameters"] for row in found}) == 1
    # where there is no soft loss, the loss of KD is cross-entropy
    hard = FixedTeacher(registry.find("methods", "online_kd")(alpha=0.0), teacher)
    (plain, same) = evaluate("hessian_trace", network, data, **settings, kd_loss=True, kd=lambda: hard)
    assert same["value"] == pytest.approx(plain["value"], rel=1e-4)
    assert evaluate("hessian_trace", network, data, **settings, kd_loss=True, kd=lambda: None) == [plain]  # w/o KD


@pytest.mark.slow
def test_the_teacher_is_the_runs_own(results):
    paths = ResultPaths(results)
    runs = {name: trained(method=name) for name in ("online_kd", "self_kd", "adaptive_interval", "baseline")}
    for spec in runs.values():
        train(spec, results)
    asked = {"hessian_trace": {"images": 4, "probes": 2, "kd_loss": True}}
    measured = {name: evaluating.evaluate(spec.id, asked, results) for name, spec in runs.items() if "adap" not in name}
    metrics = {name: [row["metric"] for row in rows] for name, rows in measured.items()}
    assert metrics == {"online_kd": ["trace", "kd_trace"], "self_kd": ["trace", "kd_trace"], "baseline": ["trace"]}
    assert measured["self_kd"][1]["parameters"] > measured["self_kd"][0]["parameters"]  # all exits
    network, data = evaluating.finished_network(runs["online_kd"].id, results)
    fixed = evaluating.fixed_teacher(runs["online_kd"], paths, data)
    teacher, _ = evaluating.finished_network(runs["baseline"].id, results)
    assert runs["online_kd"].teacher_spec() == runs["baseline"]
    assert state_of(fixed.teacher) == state_of(teacher) != state_of(network)
    with pytest.raises(UserError, match=r"kd_loss is true, but .*adaptive_interval.* has no loss of logits with"):
        evaluating.fixed_teacher(runs["adaptive_interval"], paths, data)
    paths.weights(runs["baseline"]).unlink()
    with pytest.raises(UserError, match=r"kd_loss needs .*weights.safetensors, the teacher of .*: train .* first"):
        evaluating.fixed_teacher(runs["online_kd"], paths, data)


def test_one_probe_has_no_error(tiny):
    with pytest.raises(UserError, match=r"hessian_trace\.probes is 1"):
        evaluate("hessian_trace", perceptron(12, 3), tiny, probes=1)


# corruptions


def test_all_five_severities_have_a_mean_accuracy(data):
    network = build(resnet_mini)
    chosen = {"names": ("fog", "contrast"), "severities": (5, 1, 2, 3, 4)}
    corrupt.make(data.path, 12, **chosen)
    *rows, mean = evaluate("corruptions", network, data, images=12, **chosen)
    corrupted = [row["value"] for row in rows if row["corruption"] != "clean"]
    assert len(corrupted) == 10
    assert mean["metric"] == "mean_accuracy"
    assert mean["value"] == pytest.approx(sum(corrupted) / 10)
    assert {row["metric"] for row in evaluate("corruptions", network, data, images=12)} == {"accuracy"}


def test_accuracy_on_corrupted_images_against_a_loop(data):
    network = build(resnet_mini)
    rows = {(row["corruption"], row["severity"]): row for row in evaluate("corruptions", network, data, images=12)}
    chosen = data.subset("test", 12)
    stored = data.corrupted(12)
    assert rows.keys() == stored.keys()
    for key in (("clean", 0), ("frost", 5), ("impulse_noise", 1)):
        predicted = [network(data.normalise(image[None])).argmax().item() for image in stored[key]]
        assert rows[key]["predictions"].tolist() == predicted
        hits = [guess == label for guess, label in zip(predicted, data.labels["test"][chosen].tolist(), strict=True)]
        assert rows[key]["value"] == pytest.approx(100 * sum(hits) / 12)
    assert len(set(rows["clean", 0]["predictions"].tolist())) > 1


def test_the_default_corruptions_are_those_made():
    settings = registry.defaults("evaluations", "corruptions")
    assert (settings["names"], settings["severities"]) == (corrupt.NAMES, corrupt.SEVERITIES)


def test_a_corruption_that_was_not_made_is_named(data):
    with pytest.raises(
        UserError, match=r"does not exist: make it with .* --corrupt 12 --names fog --severities 1 3 5`"
    ):
        evaluate("corruptions", build(resnet_mini), data, images=12, names=("fog",))
    with pytest.raises(UserError, match=r"corrupted-11.*does not exist"):
        evaluate("corruptions", build(resnet_mini), data, images=11)


# BIM


class Recorder(nn.Module):
    """A network that keeps its inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(images.detach().clone())
        return self.network(images)


@pytest.mark.parametrize("make", NETWORKS)
def test_attacked_images_against_a_loop(make, data):
    network = build(make)
    chosen = data.subset("test", 12)
    x = data.images["test"][chosen].permute(0, 3, 1, 2) / 255
    labels = network(data.normalise(x)).argmax(1)  # what it says, so that the attack has all to win
    all_labels = data.labels["test"].clone()
    all_labels[chosen] = labels
    data = Data(**(vars(data) | {"labels": data.labels | {"test": all_labels}}))

    recorder = Recorder(network).eval()
    clean, robust = evaluate("bim", recorder, data, images=12, epsilon=4.0, step=1.5, steps=5)
    attacked = recorder.inputs[-1] * 0.5 + 0.5  # digits are normalised by mean and deviation 0.5

    epsilon, alpha, expected = 4 / 255, 1.5 / 255, x.clone()
    for _ in range(5):
        expected.requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(network((expected - 0.5) / 0.5), labels), expected)[0]
        expected = x + (expected.detach() + alpha * gradient.sign() - x).clamp(-epsilon, epsilon)
        expected = expected.clamp(0, 1)
    # where the gradient is within rounding of 0 its sign may differ
    assert ((attacked - expected).abs() < 1e-6).float().mean() > 0.999
    assert (attacked - x).abs().max().item() == pytest.approx(epsilon, abs=1e-6)
    assert attacked.min() >= -1e-6
    assert attacked.max() <= 1 + 1e-6
    assert (clean["epsilon"], clean["value"]) == (0.0, 100.0)
    assert robust["epsilon"] == 4.0
    assert robust["value"] < 100
    with torch.inference_mode():
        assert np.array_equal(robust["predictions"], network(recorder.inputs[-1]).argmax(1))


def test_no_budget_is_the_clean_accuracy(data):
    clean, attacked = evaluate("bim", build(resnet_mini), data, images=12, epsilon=0.0)
    assert clean["value"] == attacked["value"]
    assert np.array_equal(clean["predictions"], attacked["predictions"])


def test_batches_leave_no_image_out(data, monkeypatch):
    network = build(resnet_mini)
    whole = {name: evaluate(name, network, data, **QUICK[name]) for name in ("bim", "corruptions", "weight_noise")}
    for module in (bim, corruptions, weight_noise):
        monkeypatch.setattr(module, "BATCH", 5)
    for name, rows in whole.items():
        for one, other in zip(rows, evaluate(name, network, data, **QUICK[name]), strict=True):
            assert np.array_equal(one.pop("predictions", None), other.pop("predictions", None))
            assert one == pytest.approx(other)
