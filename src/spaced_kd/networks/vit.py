"""Vision transformers from timm's class, with an exit after each block for self KD.

Sources: Dosovitskiy et al. 2021 (ViT); Zhang et al. 2019 (exits: here a normalisation and a classifier on
the pooled tokens).
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spaced_kd.outputs import Exit

BATCH_NORM = False  # read without importing: `batch_norm: halves` is refused


def vit_mini(classes: int, image_size: int, *, depth: int = 4, dim: int = 64, exits: bool = False) -> nn.Module:
    """Small ViT with 16 patches and 2 heads; for demos and tests."""
    # pooled over patches: with a few hundred training images a class token learns too slowly
    trunk = VisionTransformer(
        img_size=image_size,
        patch_size=image_size // 4,
        embed_dim=dim,
        depth=depth,
        num_heads=2,
        num_classes=classes,
        class_token=False,
        global_pool="avg",
    )
    with torch.no_grad():  # for the same reason: timm's 0.02 hides where a patch was for the first thousand steps
        trunk.pos_embed.mul_(25)
    return _ViT(trunk, exits)


class _ViT(nn.Module):
    """Images (B, 3, H, W) -> logits (B, classes), or with `exits=True` every Exit from shallow to deep.

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

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[Exit]:
        trunk = self.trunk
        x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
        found = []
        for depth, block in enumerate(trunk.blocks):
            x = block(x)
            if exits and depth < len(self.heads):
                features = self.norms[depth](trunk.pool(x))
                found.append(Exit(self.heads[depth](features), features))
        features = trunk.forward_head(trunk.norm(x), pre_logits=True)
        logits = trunk.head(features)
        return [*found, Exit(logits, features)] if exits else logits
