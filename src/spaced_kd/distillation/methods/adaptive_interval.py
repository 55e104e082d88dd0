"""Spaced KD with an adaptive interval: a block ends as soon as the teacher has improved measurably within it.

The signal is the teacher's loss on the block's own batches, which training computes anyway. A least-squares line is
fitted to it, and the block ends when the line falls by more than `errors` standard errors of its slope, at the earliest
after `least` batches. So blocks are short while the teacher learns fast and its loss is smooth, and long otherwise.
This is a stopping rule, not a test: checked after each batch, the line of a loss that does not fall exceeds two errors
by chance in every third block of 100 batches. Then the student learns the block as in Alg. 2 of the paper, which leaves
an adaptive interval open.

The teacher learns as without KD, but in the student's own run, since the ends of blocks are not known beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation import losses
from spaced_kd.distillation.losses import alignment, distillation, hard
from spaced_kd.distillation.schedule import Turn, turns

RANGES = {
    "alpha": "[0, 1]",
    "temperature": "[0.001, 1000000]",
    "beta": "[0, inf)",
    "errors": "(-inf, inf)",  # below 0 each block ends as early as it may
    "least": "[1, inf)",
}


class Block(nn.Module):
    """The current block, in buffers, so that resume states contain it and a turn transfers a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("learnt", torch.zeros(2, dtype=torch.int64))  # batches of teacher and student
        self.register_buffer("sums", torch.zeros(4, dtype=torch.float64))  # of 1, loss, number x loss, loss^2

    def add(self, loss: Tensor) -> None:
        """Record the teacher's loss on the next batch of the block."""
        loss, number = loss.detach().double(), self.sums[0].clone()
        self.sums += torch.stack([torch.ones_like(loss), loss, number * loss, loss**2])
        self.learnt[0] += 1

    def follow(self) -> None:
        """Record a batch of the student; after the block's last batch the next block begins."""
        self.learnt[1] += 1
        self.sums *= self.learnt[1] < self.learnt[0]

    def fall(self) -> float:
        """The fall of the line through the losses, in standard errors of its slope; 0 for fewer than 3 losses."""
        n, loss, number_loss, squared = self.sums.tolist()
        if n < 3:
            return 0.0
        spread = n * (n**2 - 1) / 12  # of the numbers 0, 1, ..., n - 1 around their mean
        slope = (number_loss - (n - 1) / 2 * loss) / spread
        rest = max(squared - loss**2 / n - slope**2 * spread, 1e-12)  # squares around the line
        return -slope / (rest / (n - 2) / spread) ** 0.5


@dataclass(frozen=True)
class AdaptiveInterval:
    """The losses of Spaced KD, in blocks whose length adapts to the teacher."""

    alpha: float = 0.3  # weight of the soft loss; the hard loss has 1 - alpha
    temperature: float = 3.0  # T of both softmaxes
    beta: float = 0.03  # weight of the feature loss
    errors: float = 2.0  # standard errors by which the teacher's loss falls in a block
    least: int = 10  # batches of a block: a line through fewer points falls by chance too easily

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    teacher_is_shared: ClassVar[bool] = False  # a teacher's run cannot leave states at ends that are not known yet
    finds_interval: ClassVar[bool] = True

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """The turns in a possible order, for counting them: as if no block ended early."""
        return turns(total, total)

    def order(self, total: int, networks: dict[str, nn.Module]) -> Iterator[Turn]:
        """The actual order of turns, a function of the current block, so that a resumed run continues exactly."""
        block = networks["block"]
        while True:
            teacher, student = block.learnt.tolist()
            if student == total:
                return
            ended = teacher == total or (block.sums[0] >= self.least and block.fall() > self.errors)
            yield ("student", student) if ended else ("teacher", teacher)

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The layer that maps the student's features to the teacher's width, and the current block."""
        return {"align": alignment(networks["student"].widths[-1], networks["teacher"].widths[-1]), "block": Block()}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher learns from labels alone, and its loss is recorded; the student from labels and teacher."""
        if who == "teacher":
            loss = hard(networks["teacher"](batch.images), batch.labels)
            networks["block"].add(loss)
            return {"hard": loss}
        networks["block"].follow()
        student = networks["student"](batch.images, exits=True)[-1]
        teacher = losses.teacher_outputs(networks["teacher"], batch.images)
        return distillation(
            student,
            teacher,
            batch.labels,
            networks["align"],
            alpha=self.alpha,
            temperature=self.temperature,
            beta=self.beta,
        )
