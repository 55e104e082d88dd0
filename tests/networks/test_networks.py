"""Networks: as large as published, alike where they should be, and able to learn."""

import pytest
import torch
from conftest import TINY
from timm.models.pit import PoolingVisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.networks.pit import pit_tiny
from spaced_kd.networks.resnet import resnet_mini
from spaced_kd.networks.vit import deit_tiny, vit_mini
from spaced_kd.training.job import assemble
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import global_seed

NAMES = registry.names("networks")
LARGE = ("resnet50", "resnet101", "resnet18_x2", "resnet18_x4", "resnet18_x8")


def made(name: str, classes: int = 10, size: int = 32, **settings) -> nn.Module:
    with global_seed(0, "test"):
        return registry.find("networks", name)(classes, size, **settings)


def size_of(name: str, classes: int, size: int, **settings) -> tuple[float, float]:
    """Millions of parameters, and GMACs of one image, attention's products included."""
    with torch.device("meta"):
        network = made(name, classes, size, **settings).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, size, size))
    return sum(p.numel() for p in network.parameters()) / 1e6, counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("name", "classes", "size", "millions", "gmacs"),
    [  # sources: weiaicunzai/pytorch-cifar100 for 32 px; the papers and timm's table for 224 px
        ("resnet18", 100, 32, 11.22, 0.56),
        ("resnet50", 100, 32, 23.71, 1.30),
        ("resnet101", 100, 32, 42.70, 2.51),
        ("resnet18", 1000, 224, 11.69, 1.82),
        ("resnet50", 1000, 224, 25.56, 4.11),
        ("resnet101", 1000, 224, 44.55, 7.83),
        ("deit_tiny", 1000, 224, 5.72, 1.26),  # "1.3"; counts that cannot see fused attention say 1.08
        ("pit_tiny", 1000, 224, 4.85, 0.70),
    ],
)
def test_parameters_and_flops_are_the_published_ones(name, classes, size, millions, gmacs):
    found = size_of(name, classes, size)
    assert found[0] == pytest.approx(millions, abs=0.006)
    assert found[1] == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(
    ("factor", "by_parameters", "by_width"),
    [
        (2, (90, 181, 362, 724), (128, 256, 512, 1024)),
        (4, (128, 256, 512, 1024), (256, 512, 1024, 2048)),
        (8, (181, 362, 724, 1448), (512, 1024, 2048, 4096)),
    ],
)
def test_the_wider_teachers_of_tab_8_in_both_readings(factor, by_parameters, by_width):
    for times, widths in (("parameters", by_parameters), ("width", by_width)):
        with torch.device("meta"):
            network = made(f"resnet18_x{factor}", times=times)
        stages = [getattr(network.trunk, f"layer{depth}") for depth in (1, 2, 3, 4)]
        assert tuple(stage[-1].conv2.out_channels for stage in stages) == widths
    plain, wider = (size_of(name, 100, 32)[0] for name in ("resnet18", f"resnet18_x{factor}"))
    assert wider / plain == pytest.approx(factor, rel=0.01)


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize(
    ("name", "tokens"), [("deit_tiny", {32: 64, 64: 64, 224: 196}), ("pit_tiny", {32: 225, 64: 225, 224: 729})]
)
def test_transformers_cut_images_of_each_size_into_patches(name, tokens, size):
    with torch.device("meta"):
        network = made(name, size=size)
        assert network(torch.empty(2, 3, size, size)).shape == (2, 10)
        height, width = network.trunk.patch_embed.grid_size
    assert height * width == tokens[size]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet")])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_residual_networks_stem_shrinks_images_of_224_px_alone(name, size):
    with torch.device("meta"):
        trunk = made(name, size=size).trunk
        stem = trunk.maxpool(trunk.conv1(torch.empty(1, 3, size, size)))
        assert made(name, size=size, exits=True)(torch.empty(1, 3, size, size), exits=True)[-1].logits.shape == (1, 10)
    assert stem.shape[-1] == (56 if size == 224 else size)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("resnet")])
def test_the_released_stem_is_small_at_every_size(name):
    with torch.device("meta"):
        for size in (32, 224):
            trunk = made(name, size=size, stem="3x3").trunk
            assert trunk.maxpool(trunk.conv1(torch.empty(1, 3, size, size))).shape[-1] == size


@pytest.mark.parametrize(("name", "exits"), [("resnet18_x2", 4), ("vit_mini", 4), ("deit_tiny", 12), ("pit_tiny", 12)])
def test_the_exits_of_self_kd(name, exits):
    network = made(name, exits=True)
    outputs = network(torch.randn(2, 3, 32, 32), exits=True)
    assert len(outputs) == exits  # of a transformer one per block, so eleven students
    for each, wide in zip(outputs, network.widths, strict=True):
        assert (each.logits.shape, each.features.shape) == ((2, 10), (2, wide))
    sum(each.logits.sum() for each in outputs).backward()
    assert all(p.grad is not None for p in network.parameters())
    if name == "pit_tiny":
        assert network.widths == (64,) * 2 + (128,) * 6 + (256,) * 4


@pytest.mark.parametrize("name", ["deit_tiny", "pit_tiny"])
def test_a_transformer_with_exits_says_what_timms_says(name):
    network, images = made(name, exits=True).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(images), network.trunk(images), atol=1e-6)


def test_an_exit_reads_its_own_block():
    """Blocks behind an exit do not change it, and those before it do."""
    network, images = made("pit_tiny", exits=True).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images, exits=True)
        network.trunk.transformers[1].blocks[3].mlp.fc2.weight += 1  # the sixth block
        after = network(images, exits=True)
    changed = [not torch.equal(a.logits, b.logits) for a, b in zip(before, after, strict=True)]
    assert changed == [False] * 5 + [True] * 7


@pytest.mark.parametrize("make", [deit_tiny, pit_tiny])
def test_drop_path_is_of_training_and_grows_with_depth(make):
    with global_seed(0, "test"):
        network = make(10, 32)
    rates = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"][::2]
    assert rates == pytest.approx([0.1 * depth / 11 for depth in range(12 - len(rates), 12)])
    images = torch.randn(4, 3, 32, 32)
    with global_seed(1, "test"):
        first, second = network(images), network(images)
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(images), network(images))
    assert not [module for module in make(10, 32, drop_path=0.0).modules() if type(module).__name__ == "DropPath"]


def test_a_distillation_token_is_a_head_of_its_own_and_the_trunk_starts_alike():
    plain, network = made("deit_tiny"), made("deit_tiny", distillation_token=True)
    other = network.state_dict()
    added = {"trunk.dist_token", "trunk.head_dist.weight", "trunk.head_dist.bias"}
    assert set(other) - set(plain.state_dict()) == added
    for name, value in plain.state_dict().items():
        found = other[name]
        if name == "trunk.pos_embed":
            found = torch.cat([found[:, :1], found[:, 2:]], 1)
        assert torch.equal(found, value), name
    images = torch.randn(2, 3, 32, 32)
    network.eval()
    tokens = network.trunk.forward_features(images)
    both = network.trunk.head(tokens[:, 0]), network.trunk.head_dist(tokens[:, 1])
    (outputs,) = network(images, exits=True)
    assert torch.allclose(outputs.logits, (both[0] + both[1]) / 2, atol=1e-6)  # as timm's and the released code's
    network.train()
    for module in network.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    (outputs,) = network(images, exits=True)
    assert torch.allclose(outputs.logits, both[0], atol=1e-6)
    assert torch.allclose(outputs.soft, both[1], atol=1e-6)
    assert torch.allclose(outputs.features, tokens[:, 0], atol=1e-6)


def test_a_network_without_the_token_has_one_set_of_logits():
    (outputs,) = vit_mini(10, 32)(torch.randn(2, 3, 32, 32), exits=True)
    assert outputs.distilled is None
    assert outputs.soft is outputs.logits


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in registry.names("networks")],
)
def test_every_network_trains_two_steps(results, name):
    plain = {key: value for key, value in TINY.items() if key != "network.width"}
    spec = from_flat(plain | {"network": name, "method": "self_kd", "lr": 0.01})
    job = assemble(spec, ResultPaths(results))
    before = {key: value.clone() for key, value in job.result.named_parameters()}
    for who, index in job.turns[:2]:
        losses = job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
        assert all(torch.isfinite(loss) for loss in losses.values())
    assert not [key for key, value in job.result.named_parameters() if torch.equal(value, before[key])]


def test_pit_is_timms_class():
    assert isinstance(made("pit_tiny").trunk, PoolingVisionTransformer)


def test_a_narrow_convolution_takes_its_stride_beforehand():
    """Or training ends in a segmentation fault on processors without AVX-512."""
    narrow, wide = resnet_mini(10, 32, width=0.0625), resnet_mini(10, 32, width=0.125)
    strided = [module for module in narrow.modules() if isinstance(module, nn.Conv2d) and module.stride != (1, 1)]
    narrow_ones = [module for module in strided if module.kernel_size == (1, 1) and module.in_channels < 8]
    assert len(narrow_ones) == 1
    assert type(narrow_ones[0]) is not nn.Conv2d
    assert all(type(module) is nn.Conv2d for module in wide.modules() if isinstance(module, nn.Conv2d))
    images = torch.randn(2, 4, 8, 8)
    expected = nn.functional.conv2d(images, narrow_ones[0].weight, stride=2)
    torch.testing.assert_close(narrow_ones[0](images), expected)


@pytest.mark.parametrize(
    ("make", "image_size", "larger"),
    [
        (pit_tiny, 4, 16),
        (pit_tiny, 12, 16),
        (pit_tiny, 40, 41),
        (deit_tiny, 4, 8),
        (deit_tiny, 33, 36),
        (vit_mini, 3, 4),
        (vit_mini, 9, 12),
    ],
)
def test_images_that_patches_do_not_cover_are_refused_in_one_line(make, image_size, larger):
    complaint = f"{make.__name__}: its patches do not cover images of {image_size} pixels: give input_size={larger}"
    with pytest.raises(UserError, match=complaint) as caught:
        make(10, image_size)
    assert "\n" not in str(caught.value)
    assert make(10, larger)(torch.zeros(1, 3, larger, larger)).shape == (1, 10)


def test_heads_that_do_not_share_a_width_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"vit_mini\.dim is 3, but must be even: two heads share it"):
        vit_mini(10, 16, dim=3)


@pytest.mark.parametrize(("patches", "tokens"), [(1, 1), (2, 4), (4, 16)])
def test_vit_mini_has_as_many_patches_as_its_setting_says(patches, tokens):
    network = vit_mini(10, 16, patches=patches)
    assert network.trunk.pos_embed.shape == (1, tokens, 64)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    with pytest.raises(UserError, match="do not cover images of 16 pixels: give input_size=18"):
        vit_mini(10, 16, patches=3)


@pytest.mark.parametrize("make", [pit_tiny, deit_tiny, vit_mini])
@pytest.mark.parametrize("image_size", [16, 32, 64, 224])
def test_every_dataset_is_covered_by_patches(make, image_size):
    with torch.device("meta"):
        make(10, image_size)


@pytest.mark.parametrize(("network", "key", "value"), [("resnet_mini", "width", 0.001)])
def test_a_network_that_cannot_be_built_is_refused_in_one_line(network, key, value, results):
    flat = {"dataset": "digits", "dataset.train_per_class": 4, "network": network, "method": "baseline", "seed": 0}
    with pytest.raises(UserError, match=f"^{network} cannot be built for images of 32 pixels with .*{key}"):
        assemble(from_flat(flat | {f"network.{key}": value}), ResultPaths(results))
