"""Vision transformers from timm's class, with an exit after each block for self KD.

Sources: Dosovitskiy et al. 2021 (ViT); Touvron et al. 2021 (DeiT); Zhang et al. 2019 (exits: here a normalisation and
a classifier on the pooled tokens).
"""

from typing import Literal

import torch
from timm.layers import trunc_normal_
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.patches import check_patches

BATCH_NORM = False  # read without importing: `batch_norm: halves` is refused
RANGES = {"drop_path": "[0, 1)", "depth": "[1, 1000]", "dim": "[2, 65536]", "patches": "[1, 256]"}


def vit_mini(
    classes: int, image_size: int, *, depth: int = 4, dim: int = 64, patches: int = 4, exits: bool = False
) -> nn.Module:
    """Small ViT with 2 heads and `patches` x `patches` patches; for demos and tests."""
    check_patches("vit_mini", image_size, lambda size: size % patches == 0)
    if dim % 2:
        raise UserError(f"vit_mini.dim is {dim}, but must be even: two heads share it")
    # pooled over patches: with a few hundred training images a class token learns too slowly
    trunk = VisionTransformer(
        img_size=image_size,
        patch_size=image_size // patches,
        embed_dim=dim,
        depth=depth,
        num_heads=2,
        num_classes=classes,
        class_token=False,
        global_pool="avg",
    )
    with torch.no_grad():  # for the same reason: at timm's 0.02 the position hardly counts in the first thousand steps
        trunk.pos_embed.mul_(25)
    return _ViT(trunk, exits)


def deit_tiny(
    classes: int,
    image_size: int,
    *,
    drop_path: float = 0.1,
    distillation_token: bool = False,
    initialisation: Literal["timm", "zero_head"] = "timm",
    exits: bool = False,
) -> nn.Module:
    """DeiT-Tiny: 12 blocks, 192 wide, class token; patches of 16 px, below 128 px an eighth of the image (4 px at 32).

    `drop_path` is the last block's rate, linear from 0, in every released configuration 0.1. `distillation_token` (V4)
    adds a token and a head for the soft loss; in eval mode the logits are the mean of both heads. `initialisation`
    zero_head (C5) starts heads at 0 and the class token with a standard deviation of 0.02 instead of 1e-6.
    """
    check_patches("deit_tiny", image_size, lambda size: size >= 8 and size % _patch(size) == 0)
    shape = {"img_size": image_size, "patch_size": _patch(image_size), "embed_dim": 192, "depth": 12}
    shape |= {"num_heads": 3, "num_classes": classes, "drop_path_rate": drop_path}
    trunk = VisionTransformer(**shape)
    if initialisation == "zero_head":
        trunc_normal_(trunk.cls_token, std=0.02)
    if distillation_token:
        trunk = _with_token(trunk, VisionTransformerDistilled(**shape))
    if initialisation == "zero_head":
        for head in (trunk.head, trunk.head_dist) if distillation_token else (trunk.head,):
            nn.init.zeros_(head.weight)
    return _ViT(trunk, exits)


def _patch(image_size: int) -> int:
    """Height and width of DeiT's patches in pixels."""
    return min(16, image_size // 8)


def _with_token(plain: VisionTransformer, distilled: VisionTransformerDistilled) -> VisionTransformerDistilled:
    """`distilled` with the weights of `plain` where both have them: networks with and without the token start alike."""
    shared = plain.state_dict()
    token, patches = shared["pos_embed"][:, :1], shared["pos_embed"][:, 1:]
    shared["pos_embed"] = torch.cat([token, distilled.pos_embed[:, 1:2], patches], dim=1)
    distilled.load_state_dict(shared, strict=False)
    return distilled


class _ViT(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes), or with `exits=True` a NetworkOutput per exit, shallow to deep.

    `widths`: size D of the features of each exit.
    """

    def __init__(self, trunk: VisionTransformer, exits: bool) -> None:
        super().__init__()
        self.trunk = trunk
        wide, classes = trunk.embed_dim, trunk.num_classes
        count = len(trunk.blocks) - 1 if exits else 0
        self.widths = (wide,) * (count + 1)
        self.norms = nn.ModuleList(nn.LayerNorm(wide, eps=1e-6) for _ in range(count))
        self.heads = nn.ModuleList(nn.Linear(wide, classes) for _ in range(count))

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        trunk = self.trunk
        x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
        found = []
        for depth, block in enumerate(trunk.blocks):
            x = block(x)
            if exits and depth < len(self.heads):
                features = self.norms[depth](trunk.pool(x))
                found.append(NetworkOutput(self.heads[depth](features), features))
        x = trunk.norm(x)
        features = trunk.fc_norm(trunk.pool(x))
        logits, distilled = trunk.head(features), None
        if isinstance(trunk, VisionTransformerDistilled):
            distilled = trunk.head_dist(x[:, 1])
            logits = logits if self.training else (logits + distilled) / 2
        return [*found, NetworkOutput(logits, features, distilled)] if exits else logits
