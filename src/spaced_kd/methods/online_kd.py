"""Online KD, Spaced KD and offline KD: one method, three intervals between teacher and student.

Sources: Alg. 1 (interval of one batch) and Alg. 2 of the paper, losses of Sec. 5.1. Offline KD on the same batches is
an interval of the whole training ("max"). The target comes after the teacher's update on the batch, as in Alg. 1; the
released code takes it from before the update at s = 0. A teaching teacher is in eval mode; in the released code it is
in training mode.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spaced_kd.batches import Batch
from spaced_kd.losses import alignment, distillation, hard, target
from spaced_kd.schedule import Turn, turns


@dataclass(frozen=True)
class OnlineKD:
    """The student learns from labels, and from the teacher's logits and features."""

    alpha: float = 0.3  # weight of the soft loss; the hard loss has 1 - alpha
    temperature: float = 3.0  # T of both softmaxes
    beta: float = 0.03  # weight of the feature loss
    square_temperature: bool = True  # soft loss times T^2

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}

    def schedule(self, total: int, interval: int) -> Iterator[Turn]:
        """The teacher's block of `interval` batches, then the student's."""
        return turns(total, interval)

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The layer that brings the student's features to the teacher's width."""
        return {"align": alignment(networks["student"].widths[-1], networks["teacher"].widths[-1])}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher learns from labels alone and never sees its student."""
        if who == "teacher":
            return {"hard": hard(networks["teacher"](batch.images), batch.labels)}
        teacher = target(networks["teacher"], batch.images)
        student = networks["student"](batch.images, exits=True)[-1]
        weights = {"alpha": self.alpha, "temperature": self.temperature, "beta": self.beta}
        return distillation(
            student, teacher, batch.labels, networks["align"], square_temperature=self.square_temperature, **weights
        )
