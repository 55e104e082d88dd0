"""The outputs of a network."""

from typing import NamedTuple

from torch import Tensor, nn


class NetworkOutput(NamedTuple):
    """One depth of a network: logits (B, classes), and the features (B, D) that its classifier reads.

    `distilled`: logits of a separate pass or head for the soft loss, or None.
    """

    logits: Tensor
    features: Tensor
    distilled: Tensor | None = None

    @property
    def soft(self) -> Tensor:
        """The logits that a soft loss compares as a student's."""
        return self.logits if self.distilled is None else self.distilled


class Ensemble(nn.Module):
    """The ensemble of a network's exits: images -> mean of their logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        outputs = self.network(images, exits=True)
        return sum(each.logits for each in outputs) / len(outputs)
