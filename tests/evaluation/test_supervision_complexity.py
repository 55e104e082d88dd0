"""Supervision complexity: identities of its definition, the kernel beside finite differences, and its rows."""

from pathlib import Path

import pytest
import torch
from conftest import still, tiny
from torch import Tensor, nn

from spaced_kd.data.dataset import Data
from spaced_kd.evaluation import ntk
from spaced_kd.evaluation.evaluate import finished_network
from spaced_kd.evaluation.evaluators import supervision_complexity
from spaced_kd.evaluation.evaluators.supervision_complexity import complexity, spectrum
from spaced_kd.networks.resnet import resnet_mini
from spaced_kd.networks.vit import vit_mini
from spaced_kd.training.loop import train
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

N, K = 6, 3


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(generator(0, "test", sum(shape)).standard_normal(shape))


@pytest.fixture
def kernel() -> Tensor:
    square = normal(N, 2 * N)
    return square @ square.T


@pytest.fixture
def residual() -> Tensor:
    return normal(N, K)


def test_the_kernels_scale_does_not_matter(kernel, residual):
    assert complexity(spectrum(7 * kernel, 1e-3), residual) == pytest.approx(
        complexity(spectrum(kernel, 1e-3), residual)
    )


def test_of_the_identity_it_is_the_size_of_the_residual(residual):
    size = residual.norm().item() / N**0.5
    eye = torch.eye(N, dtype=torch.float64)
    assert complexity(spectrum(eye, 0.0), residual) == pytest.approx((size, size, 1.0))


def test_an_eigenvector_times_the_root_of_its_eigenvalue_has_norm_one(kernel):
    values, vectors = torch.linalg.eigh(kernel)
    for value, vector in zip(values, vectors.T, strict=True):
        found, _, _ = complexity(spectrum(kernel, 0.0), (value.sqrt() * vector)[:, None])
        assert found == pytest.approx(kernel.trace().item() ** 0.5 / N)


def test_of_a_diagonal_kernel_it_has_a_closed_form(residual):
    diagonal = torch.arange(1.0, N + 1, dtype=torch.float64)
    epsilon = 0.1 * diagonal.mean()
    energy = (residual.square().sum(1) / (diagonal + epsilon)).sum()
    expected = (energy * diagonal.sum()).sqrt().item() / N
    assert complexity(spectrum(diagonal.diag(), 0.1), residual)[0] == pytest.approx(expected)


def test_it_is_the_product_of_its_parts_and_what_a_solver_gives(kernel, residual):
    found, size, alignment = complexity(spectrum(kernel, 1e-2), residual)
    assert found == pytest.approx(size * alignment)
    solved = torch.linalg.solve(kernel + 1e-2 * kernel.trace() / N * torch.eye(N), residual)
    assert found == pytest.approx(((residual * solved).sum() * kernel.trace()).sqrt().item() / N)


def test_a_singular_kernel_has_a_finite_condition():
    found = supervision_complexity.conditioning(spectrum(torch.ones(N, N), 0.5))
    assert found["condition"] == pytest.approx((N + 0.5) / 0.5)
    assert found["smallest_eigenvalue"] == pytest.approx(0, abs=1e-9)


# the kernel


def perceptron() -> nn.Module:
    with global_seed(0, "test perceptron"):
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, K)).double().eval()


def test_the_kernel_against_finite_differences():
    network, inputs, step = perceptron(), normal(N, 3, 2, 2), 1e-6
    theta = nn.utils.parameters_to_vector(network.parameters()).detach()
    columns = []
    for place in range(len(theta)):
        sides = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[place] += sign * step
            nn.utils.vector_to_parameters(moved, network.parameters())
            sides.append(network(inputs).detach())
        columns.append((sides[0] - sides[1]) / (2 * step))
    nn.utils.vector_to_parameters(theta, network.parameters())
    jacobian = torch.stack(columns, -1)  # (n, K, P)
    expected = torch.einsum("icp,jcp->ij", jacobian, jacobian) / K
    torch.testing.assert_close(ntk.kernel(network, inputs), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [resnet_mini, vit_mini])
def test_small_memory_gives_the_same_kernel(make, monkeypatch):
    with global_seed(0, "test network"):
        network = make(4, 16).eval()
    inputs = normal(5, 3, 16, 16).float()
    whole = ntk.kernel(network, inputs)
    weights = sum(parameters.numel() for parameters in network.parameters())
    for memory, expected in ((4 * 5 * 2.5 * weights, (2, 5)), (4 * 4 * weights, (1, 2))):
        assert ntk.blocks(network, inputs, memory / ntk.GIB) == expected
        torch.testing.assert_close(ntk.kernel(network, inputs, memory / ntk.GIB), whole, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(ntk, "AT_ONCE", 3)  # below the number of classes
    torch.testing.assert_close(ntk.kernel(network, inputs), whole, rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused_in_one_line():
    network, inputs = perceptron(), normal(N, 3, 2, 2)
    with pytest.raises(UserError, match=r"^the kernel of a network of 83 weights takes .* GiB, but memory is 1e-06"):
        ntk.kernel(network, inputs, 1e-6)
    with pytest.raises(UserError, match=r"^the kernel of 100 images takes 0\.000149 GiB, but memory is 0\.0001:"):
        ntk.kernel(network, inputs[:1].expand(100, -1, -1, -1), 1e-4)


# the evaluation


@pytest.fixture
def data() -> Data:
    """Thirty random images of 2x2 pixels and three classes."""
    pixels = torch.from_numpy(generator(0, "test data").integers(0, 256, (30, 2, 2, 3)).astype("uint8"))
    both = {"train": pixels, "test": pixels}, {"train": torch.arange(30) % K, "test": torch.arange(30) % K}
    return Data(*both, classes=K, checksum="", mean=(0.5,) * 3, std=(0.3,) * 3, path=Path())


def rows_of(data: Data, history, **settings) -> list[dict]:
    settings = {"images": 12, "compared": 4, "interval": 1.5} | settings
    return list(supervision_complexity.evaluate(perceptron().float(), data, seed=0, history=history, **settings))


def test_each_target_is_measured_when_it_teaches(data):
    found = rows_of(data, still(perceptron().float(), per_epoch=4, epochs=6, interval=6), epochs=(0, 1, 2, 5))
    pairs = {(row["target"], row["epoch"], row["teacher_epoch"]) for row in found if "teacher_epoch" in row}
    online = {("online", e, e + 0.25) for e in (0, 1, 2, 5)}
    spaced = {("spaced", 0, 1.5), ("spaced", 1, 1.5), ("spaced", 2, 3.0), ("spaced", 5, 6.0)}
    offline = {("offline", e, 6.0) for e in (0, 1, 2, 5)}
    assert pairs == online | spaced | offline | {("received", 0, 1.5), ("received", 2, 3.0), ("received", 5, 6.0)}
    found = rows_of(data, still(perceptron().float(), per_epoch=4, epochs=6), epochs=(0, 1, 2))
    received = {(row["epoch"], row["teacher_epoch"]) for row in found if row.get("target") == "received"}
    assert received == {(1.25, 1.5), (2.75, 3.0)}  # online KD's student meets them one update before they are over


def test_by_default_epochs_double(data):
    found = rows_of(data, still(perceptron().float(), epochs=9))
    assert sorted({row["epoch"] for row in found if row.get("target") == "hard"}) == [0, 1, 2, 4, 8]


def test_margin_agreement_and_divergence_against_a_loop(data):
    network = perceptron().float()
    with torch.no_grad():
        network[-1].bias -= 5  # so that all logits are below 0
    rows = [row for row in rows_of(data, still(network), epochs=(0,)) if row.get("target") == "hard"]
    found = {row["metric"]: row["value"] for row in rows}
    chosen = data.subset("train", 12)
    margins, losses, hits = [], [], []
    for number in chosen:
        logits = network(data.normalise(data.images["train"][number : number + 1]))[0].double().tolist()
        label = int(data.labels["train"][number])
        margins.append(logits[label] - max(z for c, z in enumerate(logits) if c != label))
        losses.append(torch.tensor(logits).logsumexp(0).item() - logits[label])
        hits.append(margins[-1] > 0)
    assert found["margin"] == pytest.approx(sum(margins) / 12, rel=1e-5)
    assert found["divergence"] == pytest.approx(sum(losses) / 12, rel=1e-5)
    assert found["agreement"] == pytest.approx(100 * sum(hits) / 12)
    assert found["target_accuracy"] == 100


def test_the_network_itself_as_teacher_leaves_nothing_to_learn(data):
    rows = [row for row in rows_of(data, still(perceptron().float()), epochs=(0,)) if row.get("target") == "online"]
    assert {row["metric"] for row in rows} >= {"complexity", "similarity"}
    for row in rows:
        if row["metric"] in ("complexity", "residual", "divergence"):
            assert row["value"] == pytest.approx(0, abs=1e-9)
        if row["metric"] == "similarity":
            assert row["value"] == pytest.approx(1)
        if row["metric"] == "agreement":
            assert row["value"] == 100


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ridge": 0.0}, "supervision_complexity.ridge is 0, but must be above 0"),
        ({"epochs": (0, 3)}, "supervision_complexity.epochs has 3, but the run has epochs 0 to 2"),
        ({"memory": 1e-7}, "the kernel of 12 images takes"),
        ({"interval": 9.0}, "interval=9.0 epochs is longer than the training"),
    ],
)
def test_bad_settings_are_refused_before_the_training(settings, complaint, data):
    def never(*_: object) -> None:
        pytest.fail("it was trained")

    history = still(perceptron().float())
    with pytest.raises(UserError) as error:
        rows_of(data, type(history)(**(vars(history) | {"networks_at": never})), **settings)
    assert complaint in str(error.value)


def test_permuted_labels_are_harder_than_true_ones_for_a_trained_network(results):
    run = tiny(method="baseline", epochs=10, network__width=0.125)
    train(run, results)
    network, trained_on = finished_network(run.id, results)
    settings = {"images": 40, "compared": 1, "epochs": (0,), "seed": 0}
    rows = list(supervision_complexity.evaluate(network, trained_on, history=still(network), **settings))
    for metric in ("complexity", "complexity_of_target", "alignment"):
        values = {row["target"]: row["value"] for row in rows if row["metric"] == metric}
        assert values["random"] > 1.2 * values["hard"], metric
