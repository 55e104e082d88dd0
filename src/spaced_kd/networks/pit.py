"""Pooling-based vision transformers from timm's class, with an exit after each block for self KD.

Sources: Heo et al. 2021 (PiT); Zhang et al. 2019 (exits: here a normalisation and a classifier on the class token).
"""

from typing import Literal

import torch
from timm.layers import DropPath
from timm.models.pit import PoolingVisionTransformer
from torch import Tensor, nn

from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.utils.patches import check_patches

BATCH_NORM = False  # read without importing: `batch_norm: halves` is refused
RANGES = {"drop_path": "[0, 1)"}


def pit_tiny(
    classes: int,
    image_size: int,
    *,
    drop_path: float = 0.1,
    drop_path_rises: Literal["to_last", "past_last"] = "to_last",
    initialisation: Literal["timm", "zero_head"] = "timm",
    exits: bool = False,
) -> nn.Module:
    """PiT-Tiny: 2, 6, 4 blocks; overlapping patches of 16 px, below 128 px an eighth of the image (4 px at 32).

    Patches begin every half of their size, so 32 and 64 px give 15 x 15 of them, 224 px 27 x 27. `drop_path` is the
    last block's rate, risen linearly from 0, in every released configuration 0.1; past_last (C6) would reach it one
    block after the last: block i of 12 has drop_path x i / 12. `initialisation` zero_head (C5) starts the head at 0.
    """
    check_patches("pit_tiny", image_size, _covered)
    patch = _patch(image_size)
    trunk = PoolingVisionTransformer(
        img_size=image_size,
        patch_size=patch,
        stride=patch // 2,
        base_dims=(32, 32, 32),
        depth=(2, 6, 4),
        heads=(2, 4, 8),
        num_classes=classes,
        drop_path_rate=drop_path,
    )
    if drop_path_rises == "past_last":
        _raise_past_last(trunk, drop_path)
    if initialisation == "zero_head":
        nn.init.zeros_(trunk.head.weight)
        nn.init.zeros_(trunk.head.bias)
    return _PiT(trunk, exits)


def _patch(image_size: int) -> int:
    """Height and width of patches in pixels."""
    return min(16, image_size // 8)


def _covered(image_size: int) -> bool:
    """Whether the last patch ends at the image's border; patches are half of their size apart."""
    patch = _patch(image_size)
    return patch >= 2 and (image_size - patch) % (patch // 2) == 0


def _raise_past_last(trunk: PoolingVisionTransformer, drop_path: float) -> None:
    """Drop-path rates from 0 by drop_path / blocks for each block."""
    blocks = [block for stage in trunk.transformers for block in stage.blocks]
    for number, block in enumerate(blocks):
        for part in (block.drop_path1, block.drop_path2):
            if isinstance(part, DropPath):
                part.drop_prob = drop_path * number / len(blocks)


class _PiT(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes), or with `exits=True` a NetworkOutput per exit, shallow to deep.

    `widths`: size D of the features of each exit.
    """

    def __init__(self, trunk: PoolingVisionTransformer, exits: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.widths = tuple(block.norm1.normalized_shape[0] for stage in trunk.transformers for block in stage.blocks)
        if not exits:
            self.widths = self.widths[-1:]
        shallow = self.widths[:-1]
        self.norms = nn.ModuleList(nn.LayerNorm(wide, eps=1e-6) for wide in shallow)
        self.heads = nn.ModuleList(nn.Linear(wide, trunk.num_classes) for wide in shallow)

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        trunk, found = self.trunk, []
        x = trunk.pos_drop(trunk.patch_embed(images) + trunk.pos_embed)
        token = trunk.cls_token.expand(len(x), -1, -1)
        for stage in trunk.transformers:
            if stage.pool is not None:
                x, token = stage.pool(x, token)
            grid = x.shape[-2:]
            x = stage.norm(torch.cat([token, x.flatten(2).transpose(1, 2)], dim=1))
            for block in stage.blocks:
                x = block(x)
                if exits and len(found) < len(self.heads):
                    features = self.norms[len(found)](x[:, 0])
                    found.append(NetworkOutput(self.heads[len(found)](features), features))
            token, x = x[:, :1], x[:, 1:].transpose(1, 2).unflatten(2, grid)
        features = trunk.norm(token)[:, 0]
        logits = trunk.head(features)
        return [*found, NetworkOutput(logits, features)] if exits else logits
