"""The loss of a finished student as a function of its logits alone, with a teacher that stands still.

Theorem 4.4 of the paper is about (1 - alpha) L_task + alpha L_KD with a fixed teacher. Here that is the loss of the
run's own method with its own settings, without the feature loss, which is no function of logits. In self KD the deepest
exit is the teacher, detached.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.networks.outputs import Ensemble, NetworkOutput


class Sayings(nn.Module):
    """All that a network says: images -> logits (B, exits, 2, classes), for the labels and for the soft loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.network if isinstance(network, Ensemble) else network

    def forward(self, images: Tensor) -> Tensor:
        """Exits from shallow to deep."""
        said = self.network(images, exits=True)
        return torch.stack([torch.stack([each.logits, each.soft], 1) for each in said], 1)


@dataclass(frozen=True)
class FixedTeacher:
    """A method's loss, and who teaches in it: a trained network in eval mode, or None for the deepest exit."""

    method: Any
    teacher: nn.Module | None

    def loss(self, said: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, in nats.

        Args:
            said: of the student, as `Sayings` gives it.
            labels: int64 (B,).
            targets: the teacher's logits (B, classes).
        """
        features = said.new_zeros(len(said), 1)  # alike everywhere: a feature loss of nothing
        exits = [NetworkOutput(each[:, 0], features, each[:, 1]) for each in said.unbind(1)]
        networks = {"student": _Said(exits), "teacher": _Said([NetworkOutput(targets, features)]), "align": _Same()}
        batch = Batch(features, labels, labels, lambda number: features)
        return sum(self.method.terms("student", networks, batch).values())


class _Said(nn.Module):
    """Stands in for a network that has said this."""

    def __init__(self, exits: list[NetworkOutput]) -> None:
        super().__init__()
        self.exits = exits

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        return self.exits if exits else self.exits[-1].logits


class _Same(nn.Module):
    """Stands in for an alignment layer, or for one of each exit."""

    def forward(self, features: Tensor) -> Tensor:
        return features

    def __getitem__(self, depth: int) -> "_Same":
        return self
