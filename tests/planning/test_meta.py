"""What is left out on the device `meta` changes neither shapes nor FLOPs."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spaced_kd.config import registry
from spaced_kd.planning.meta import META, Products, WithoutInitialValues, by_images, without_plain_layers

NETWORKS = ["resnet_mini", "vit_mini", "deit_tiny", "pit_tiny", "resnet50"]


def relation(logits):
    """A loss that compares each image with each other."""
    likeness = functional.softmax(logits, 1) @ functional.softmax(logits, 1).T
    return functional.cross_entropy(logits, logits.argmax(1)) + likeness.mean()


def step(network, loss, images):
    for parameter in network.parameters():
        parameter.grad = None
    pixels = torch.empty(images, 3, 32, 32, device=META)
    loss(network(pixels)).backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_one_count_holds_for_any_number_of_images(name):
    with META:
        network = registry.find("networks", name)(10, 32)
    with without_plain_layers([network]), Products() as products:
        step(network, relation, 8191)
    powers = by_images(products.flops)
    assert set(powers) == {1, 2}
    for images in (3, 128):
        with FlopCounterMode(display=False) as counter:
            step(network, relation, images)
        assert sum(flops * images**power for power, flops in powers.items()) == counter.get_total_flops()


def test_a_part_of_the_images_is_not_taken_for_a_polynomial():
    network = nn.Linear(3, 4, device=META)
    with Products() as products:
        network(torch.empty(8191, 3, device=META)[:64])
    assert products.flops == [2 * 64 * 3 * 4]
    assert by_images(products.flops) is None


def test_a_plain_layer_is_back_after_the_count():
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU())
    with without_plain_layers([network]):
        assert [type(layer) for layer in network] == [nn.Linear, nn.Identity, nn.Identity]
    assert [type(layer) for layer in network] == [nn.Linear, nn.LayerNorm, nn.ReLU]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_initial_values_has_its_shapes(name):
    make = registry.find("networks", name)
    with META:
        whole = make(10, 32)
        with WithoutInitialValues():
            bare = make(10, 32)
    assert {key: value.shape for key, value in bare.state_dict().items()} == {
        key: value.shape for key, value in whole.state_dict().items()
    }
