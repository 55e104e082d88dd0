"""Directions and slices of the loss surface beside their slow and obvious twins."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaced_kd.data.dataset import Data
from spaced_kd.evaluation import loss_surface
from spaced_kd.networks.vit import vit_mini
from spaced_kd.utils.seeding import generator, global_seed


@pytest.fixture(scope="module")
def data() -> Data:
    """Twenty random images of 4x4 pixels and three classes."""
    pixels = torch.from_numpy(generator(0, "test data").integers(0, 256, (20, 4, 4, 3), "uint8"))
    both = {"train": pixels, "test": pixels}, {"train": torch.arange(20) % 3, "test": torch.arange(20) % 3}
    return Data(*both, classes=3, checksum="", mean=(0.5,) * 3, std=(0.3,) * 3, path=Path())


def build(seed: int = 0) -> nn.Sequential:
    with global_seed(seed, "test network"):
        network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
        nn.init.normal_(network[1].running_mean)
        nn.init.uniform_(network[1].running_var, 0.5, 1.5)
        nn.init.uniform_(network[1].weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("make", [build, lambda: vit_mini(10, 32)])
def test_each_filter_of_a_direction_is_as_long_as_the_networks(make):
    network = make()
    d = loss_surface.direction(network, seed=0)
    for name, weights in network.named_parameters():
        assert (name in d) == (weights.ndim > 1)  # no bias, no scale or shift of a normalisation
        for own, moved in zip(weights, d.get(name, ()), strict=False):
            assert moved.norm().item() == pytest.approx(own.norm().item(), rel=1e-5)


def test_networks_of_one_shape_share_the_draws():
    first, second = (loss_surface.direction(build(seed), seed=3) for seed in (0, 1))
    for name in first:
        one, other = (F.normalize(d[name].flatten(1)) for d in (first, second))
        assert torch.allclose(one, other, atol=1e-6)
    for changed in (loss_surface.direction(build(), seed=4), loss_surface.direction(build(), seed=3, index=1)):
        assert not torch.allclose(changed["0.weight"], first["0.weight"])


def test_losses_against_a_loop_that_moves_the_weights(data, monkeypatch):
    monkeypatch.setattr(loss_surface, "BATCH", 5)  # 12 images: two batches of 5 and one of 2
    network = build()
    before = copy.deepcopy(network.state_dict())
    directions, steps = [loss_surface.direction(network, 0, index) for index in (0, 1)], (-0.5, 0.0, 1.0)
    found = loss_surface.losses(network, data, directions, steps, images=12)
    assert found.shape == (3, 3)
    chosen = data.subset("train", 12)
    for i, first in enumerate(steps):
        for j, second in enumerate(steps):
            moved = copy.deepcopy(network)
            with torch.no_grad():
                for name, weights in moved.named_parameters():
                    if name in directions[0]:
                        weights += first * directions[0][name] + second * directions[1][name]
            outputs = moved(data.normalise(data.images["train"][chosen]))
            assert found[i, j] == pytest.approx(F.cross_entropy(outputs, data.labels["train"][chosen]).item(), rel=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_scaling_filters_before_a_batch_norm_changes_no_slice(data):
    network = build()
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for tensor, scale in ((scaled[0].weight, 10), (scaled[0].bias, 10), (scaled[1].running_mean, 10)):
            tensor *= scale
        scaled[1].running_var *= 100
    slices = [
        loss_surface.losses(each, data, [loss_surface.direction(each, seed=0)], (-1.0, -0.5, 0.0, 0.5, 1.0))
        for each in (network, scaled)
    ]
    assert slices[0] == pytest.approx(slices[1], rel=1e-4)
    assert slices[0].max() > slices[0][2]
