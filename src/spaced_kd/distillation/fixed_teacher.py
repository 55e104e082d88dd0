"""The loss of a finished student as a function of its logits alone, with a fixed teacher.

Theorem 4.4 of the paper is about (1 - alpha) L_task + alpha L_KD with a fixed teacher. Here this is the loss of the
run's own method with its own settings, without the feature loss, which is not a function of the logits. In self KD the
deepest exit, detached, is the teacher.

Names in this file, such as `said` for logits, are part of the key of cached Hessian traces: a renamed one would have
all of them measured again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.networks.outputs import Ensemble, NetworkOutput


class Sayings(nn.Module):
    """The logits of all exits: images -> (B, exits, 2, classes), those for the labels and those for the soft loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.network if isinstance(network, Ensemble) else network

    def forward(self, images: Tensor) -> Tensor:
        """Exits from shallow to deep."""
        said = self.network(images, exits=True)
        return torch.stack([torch.stack([each.logits, each.soft], 1) for each in said], 1)


@dataclass(frozen=True)
class FixedTeacher:
    """A method's loss and its teacher: a trained network in eval mode, or None for the deepest exit."""

    method: Any
    teacher: nn.Module | None

    def loss(self, said: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch, in nats.

        Args:
            said: the student's logits, as `Sayings` returns them.
            labels: int64 (B,).
            targets: the teacher's logits (B, classes).
        """
        features = said.new_zeros(len(said), 1)  # equal for teacher and student: the feature loss is 0
        exits = [NetworkOutput(each[:, 0], features, each[:, 1]) for each in said.unbind(1)]
        networks = {"student": _Said(exits), "teacher": _Said([NetworkOutput(targets, features)]), "align": _Same()}
        batch = Batch(features, labels, labels, lambda number: features)
        return sum(self.method.terms("student", networks, batch).values())


class _Said(nn.Module):
    """Replaces a network by its outputs."""

    def __init__(self, exits: list[NetworkOutput]) -> None:
        super().__init__()
        self.exits = exits

    def forward(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        return self.exits if exits else self.exits[-1].logits


class _Same(nn.Module):
    """Replaces an alignment layer, or a list of one per exit, by the identity."""

    def forward(self, features: Tensor) -> Tensor:
        return features

    def __getitem__(self, depth: int) -> "_Same":
        return self
