"""BAN, born-again networks: each generation learns from labels and from the generation before it.

    L = (1 - alpha) CE(z, y) + alpha T^2 KL(softmax(z' / T) || softmax(z / T)),   z' of the generation before, frozen

Source: Furlanello et al., ICML 2018. Generation 0, the teacher, learns from labels alone: it is the run w/o KD. There
is no official code. From memory of the paper are alpha (it has the KL with and without labels), T = 1, and one
generation after the teacher. Our own choice is that generations share order, augmentation and initial weights; with
`batches: new` and the run's `initial_weights: different` each starts afresh. The ensemble of generations and the
weighted and permuted targets are not implemented.

As published, each generation is finished before the next one starts: interval `max`. Appendix A.3 of the Spaced KD
paper delays the student's learning by 1.5 epochs, but the outputs of a finished teacher do not change with a delay. So
here spaced generations learn together, each some batches behind the one before, which is frozen at the end of each
block. Interval 0 trains them together without a delay, which isolates the effect of learning from unfinished teachers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import hard, kl, teacher_outputs
from spaced_kd.distillation.schedule import Turn

RANGES = {"alpha": "[0, 1]", "temperature": "[0.001, 1000000]"}


@dataclass(frozen=True)
class BAN:
    """A chain of networks of one kind, each the student of the one before and the teacher of the next."""

    alpha: float = 0.5  # weight of the soft loss; the hard loss has 1 - alpha; 1 is BAN without labels
    temperature: float = 1.0  # T of both softmaxes
    generations: Literal[1, 2, 3] = 1  # after the teacher; the last one is evaluated
    batches: Literal["same", "new"] = "same"  # of a generation: the teacher's, or an order and augmentation of its own

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    replayable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # the class has the default of two networks, an object the actual number
        between = [f"generation {number}" for number in range(1, self.generations)]
        object.__setattr__(self, "roles", {who: who for who in ("teacher", *between, "student")})

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Each generation learns a block of `interval` batches after the one before; BAN as published is one block."""
        for first in range(0, total, interval):
            for generation, who in enumerate(self.roles):
                later = total * generation if self.batches == "new" else 0
                yield from ((who, later + i) for i in range(first, min(first + interval, total)))

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher learns from labels alone, each other generation also from the one before it."""
        logits = networks[who](batch.images)
        if who == "teacher":
            return {"hard": hard(logits, batch.labels)}
        chain = list(self.roles)
        goal = teacher_outputs(networks[chain[chain.index(who) - 1]], batch.images)
        soft = kl(logits, goal.logits, self.temperature)
        return {"hard": (1 - self.alpha) * hard(logits, batch.labels), "soft": self.alpha * self.temperature**2 * soft}
