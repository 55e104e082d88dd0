"""Eigenvalues and their density against those of a Hessian that fits into memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from curvlinops.examples import TensorLinearOperator
from torch import nn

from spaced_kd.data.dataset import Data
from spaced_kd.evaluation import hessian_spectrum
from spaced_kd.evaluation.evaluators import hessian_trace
from spaced_kd.utils.seeding import generator, global_seed


@pytest.fixture(scope="module")
def hessian():
    """The Hessian of a perceptron with 99 weights on 30 random images, and all of its eigenvalues, ascending."""
    pixels = torch.from_numpy(generator(0, "test data").integers(0, 256, (30, 2, 2, 3), "uint8"))
    both = {"train": pixels, "test": pixels}, {"train": torch.arange(30) % 3, "test": torch.arange(30) % 3}
    data = Data(*both, classes=3, checksum="", mean=(0.5,) * 3, std=(0.3,) * 3, path=Path())
    with global_seed(0, "test network"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    with hessian_trace.operator(network, data, 30) as operator:
        yield operator, torch.linalg.eigvalsh((operator @ torch.eye(99)).double()).numpy()


def test_the_outermost_eigenvalues(hessian):
    operator, exact = hessian
    found = hessian_spectrum.eigenvalues(operator, 4, seed=0)
    assert found == pytest.approx(np.concatenate([exact[:4], exact[-4:]]), rel=0.01)


def test_the_density_has_the_moments_of_the_eigenvalues(hessian):
    operator, exact = hessian
    matrix = TensorLinearOperator(operator @ torch.eye(99))  # products with it are quick
    grid, found = hessian_spectrum.density(matrix, (exact[0].item(), exact[-1].item()), seed=0, repeats=500)
    assert grid.shape == found.shape
    assert np.trapezoid(found, grid) == pytest.approx(1, abs=0.01)
    mean = np.trapezoid(grid * found, grid)
    assert mean == pytest.approx(exact.mean(), abs=0.03 * exact.std())
    assert np.sqrt(np.trapezoid((grid - mean) ** 2 * found, grid)) == pytest.approx(exact.std(), rel=0.05)


def test_they_are_repeatable_and_leave_global_generators_alone(hessian):
    operator, exact = hessian
    ends = exact[0].item(), exact[-1].item()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert np.array_equal(*(hessian_spectrum.eigenvalues(operator, 2, seed=1) for _ in range(2)))
    once, again, other = (hessian_spectrum.density(operator, ends, seed=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert torch.equal(torch.rand(1), expected)
