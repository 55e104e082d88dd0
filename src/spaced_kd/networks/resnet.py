"""ResNets from timm's classes, with exits after each stage for self KD.

Below 224 px the stem is a 3x3 convolution with stride 1 and no max-pool; from there on it is timm's: a 7x7 convolution
with stride 2 and 64 channels, whatever the width, and a max-pool. `stem="3x3"` keeps the small one at every size, as
the released code does, for some 16 times the FLOPs at 224 px (B9). `initialisation` is timm's (Kaiming, fan out), with
torch's own for the exits; Kaiming for these, too; or torch's own everywhere, as in released networks without exits (B5,
B6). The last scale of each residual branch is 1 and not 0, again as in the released code. `attention` of the exits is
enlarged by the nearest value, or as in the released code, with one more batch norm before, bilinearly (B2). Sources: He
et al. 2016 (ResNet); Zhang et al. 2019, "Be Your Own Teacher" (the exits).
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck, make_blocks
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from spaced_kd.networks.outputs import NetworkOutput

RANGES = {"width": "(0, 64]"}


def resnet_mini(
    classes: int,
    image_size: int,
    *,
    width: float = 0.125,
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet with one basic block per stage, an eighth as wide as ResNet-18; for demos and tests."""
    return _ResNet(
        BasicBlock, (1, 1, 1, 1), _scaled(width), classes, image_size, exits, initialisation, attention, stem
    )


def resnet18(
    classes: int,
    image_size: int,
    *,
    width: float = 1.0,
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-18; `width` multiplies the channels of every stage (64, 128, 256, 512)."""
    return _ResNet(
        BasicBlock, (2, 2, 2, 2), _scaled(width), classes, image_size, exits, initialisation, attention, stem
    )


def resnet18_x2(
    classes: int,
    image_size: int,
    *,
    times: Literal["parameters", "width"] = "parameters",
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-18 x2 of Tab. 8: twice the parameters (widths 90, 181, 362, 724), or twice the width (128 to 1024)."""
    return _ResNet(
        BasicBlock, (2, 2, 2, 2), _wider(2, times), classes, image_size, exits, initialisation, attention, stem
    )


def resnet18_x4(
    classes: int,
    image_size: int,
    *,
    times: Literal["parameters", "width"] = "parameters",
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-18 x4 of Tab. 8: four times the parameters (widths 128 to 1024), or the width (256 to 2048)."""
    return _ResNet(
        BasicBlock, (2, 2, 2, 2), _wider(4, times), classes, image_size, exits, initialisation, attention, stem
    )


def resnet18_x8(
    classes: int,
    image_size: int,
    *,
    times: Literal["parameters", "width"] = "parameters",
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-18 x8 of Tab. 8: eight times the parameters (widths 181, 362, 724, 1448), or the width (512 to 4096)."""
    return _ResNet(
        BasicBlock, (2, 2, 2, 2), _wider(8, times), classes, image_size, exits, initialisation, attention, stem
    )


def resnet50(
    classes: int,
    image_size: int,
    *,
    width: float = 1.0,
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-50; `width` multiplies the channels of every stage."""
    return _ResNet(
        Bottleneck, (3, 4, 6, 3), _scaled(width), classes, image_size, exits, initialisation, attention, stem
    )


def resnet101(
    classes: int,
    image_size: int,
    *,
    width: float = 1.0,
    initialisation: Literal["kaiming", "kaiming_with_exits", "torch"] = "kaiming",
    attention: Literal["nearest", "bilinear"] = "nearest",
    stem: Literal["by_size", "3x3"] = "by_size",
    exits: bool = False,
) -> nn.Module:
    """ResNet-101; `width` multiplies the channels of every stage."""
    return _ResNet(
        Bottleneck, (3, 4, 23, 3), _scaled(width), classes, image_size, exits, initialisation, attention, stem
    )


WIDTHS = (64, 128, 256, 512)  # channels of the four stages


def _scaled(width: float) -> tuple[int, ...]:
    return tuple(round(width * base) for base in WIDTHS)


def _wider(factor: int, times: str) -> tuple[int, ...]:
    """Widths, rounded down, that multiply the parameters, which grow with their square, or the widths themselves."""
    return tuple(int(base * (factor**0.5 if times == "parameters" else factor)) for base in WIDTHS)


class _ResNet(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes), or with `exits=True` a NetworkOutput per exit, shallow to deep.

    `widths`: size D of the features of each exit.
    """

    def __init__(
        self,
        block: type,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        classes: int,
        image_size: int,
        exits: bool,
        initialisation: str,
        attention: str,
        stem: str,
    ) -> None:
        super().__init__()
        self.trunk = TimmResNet(block, layers, num_classes=classes, channels=channels, zero_init_last=False)
        if image_size < 224 or stem == "3x3":
            # timm's stem has 64 channels whatever `channels` is, so the stages are rebuilt on our stem
            self.trunk.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
            self.trunk.bn1 = nn.BatchNorm2d(channels[0])
            self.trunk.maxpool = nn.Identity()
            kinds = {"act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d}
            for name, stage in make_blocks((block,) * 4, channels, layers, channels[0], **kinds)[0]:
                setattr(self.trunk, name, stage)
            self.trunk.init_weights(zero_init_last=False)
        if initialisation == "torch":
            _torch_initialisation(self.trunk)
        for module in self.trunk.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.in_channels < 8:
                module.__class__ = _NarrowConv2d
        # after the trunk, so that the trunk starts alike with and without exits
        wide = [count * block.expansion for count in channels]
        self.widths = (wide[-1],) * (4 if exits else 1)
        self.branches = (
            nn.ModuleList(_Branch(wide[depth:], classes, attention) for depth in range(3)) if exits else None
        )
        if initialisation == "kaiming_with_exits" and exits:
            _kaiming(self.branches)

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        trunk, branches = self.trunk, self.branches if exits and self.branches else []
        x = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))
        found = []
        for depth, stage in enumerate((trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)):
            x = stage(x)
            if depth < len(branches):
                found.append(branches[depth](x))
        features = trunk.global_pool(x)
        logits = trunk.fc(features)
        return [*found, NetworkOutput(logits, features)] if exits else logits


def _torch_initialisation(network: nn.Module) -> None:
    """Draw every convolution anew by torch's default: uniform in +-1 / sqrt(fan in)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()


def _kaiming(network: nn.Module) -> None:
    """Draw every convolution anew as timm draws the trunk's: normal of variance 2 / fan out (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class _NarrowConv2d(nn.Conv2d):
    """A 1x1 convolution of fewer than 8 channels that takes its stride beforehand: the same function.

    On processors without AVX-512, the backward pass of such a strided convolution writes past its memory in oneDNN 3.10
    to 3.13 (torch 2.11 to 2.15): the process ends in a segmentation fault or, worse, goes on with wrong numbers.
    Source: oneDNN issue 6035.
    """

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(images[..., ::rows, ::columns], self.weight, self.bias)


class _Branch(nn.Module):
    """Exit after a stage: attention, then a separable convolution per stage left; features as wide as the last."""

    def __init__(self, channels: list[int], classes: int, attention: str) -> None:
        super().__init__()
        self.attention = _separable(channels[0], channels[0])
        self.bilinear = attention == "bilinear"
        if self.bilinear:
            self.attention.extend([nn.BatchNorm2d(channels[0]), nn.ReLU()])
        self.shrink = nn.Sequential(*(_separable(before, after) for before, after in pairwise(channels)))
        self.fc = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> NetworkOutput:
        enlarge = _bilinear if self.bilinear else _nearest
        mask = enlarge(self.attention(x), x.shape[-2:]).sigmoid()
        features = self.shrink(x * mask).mean(dim=(2, 3))
        return NetworkOutput(self.fc(features), features)


def _nearest(x: Tensor, size: torch.Size) -> Tensor:
    """Enlarged to `size`; its gradient is deterministic on a GPU, too."""
    return F.interpolate(x, size=size, mode="nearest")


def _bilinear(x: Tensor, size: torch.Size) -> Tensor:
    """F.interpolate's bilinear as two products, since its own gradient is not deterministic on a GPU (B2)."""
    rows, columns = (_linear(before, after, x) for before, after in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def _linear(before: int, after: int, like: Tensor) -> Tensor:
    """Matrix (after, before) of linear interpolation along one axis."""
    unit = torch.eye(before, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], size=after, mode="linear")[0].T


def _separable(before: int, after: int) -> nn.Sequential:
    """Two depthwise-separable convolutions, the first with stride 2."""
    layers = []
    for wide, out, stride in ((before, before, 2), (before, after, 1)):
        layers += [
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
