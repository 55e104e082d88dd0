"""Self KD and its spaced form: the deepest exit of a network teaches its shallower exits.

Sources: Alg. 3 (interval 0: every batch) and Alg. 4 (the deepest exit alone learns a block, then the whole network the
same block) of the paper; Zhang et al. 2019. In the spaced form the network takes two steps per batch, so twice as many
as in self KD; the target is the current deepest exit, detached, of the same forward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spaced_kd.batches import Batch
from spaced_kd.losses import alignment, distillation, hard
from spaced_kd.outputs import Exit
from spaced_kd.schedule import Turn, alone, turns


@dataclass(frozen=True)
class SelfKD:
    """One network and one optimiser in both roles."""

    alpha: float = 0.3  # weight of the soft loss; the hard loss has 1 - alpha
    temperature: float = 3.0  # T of both softmaxes
    beta: float = 0.03  # weight of the feature loss
    square_temperature: bool = True  # soft loss times T^2

    roles: ClassVar[dict[str, str]] = {"teacher": "student", "student": "student"}
    exits: ClassVar[bool] = True

    def schedule(self, total: int, interval: int) -> Iterator[Turn]:
        """Student turns only (Alg. 3) for an interval of one batch, else blocks of both (Alg. 4)."""
        return alone(total, "student") if interval == 1 else turns(total, interval)

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """For each shallower exit the layer that brings its features to the deepest one's width."""
        *shallow, deepest = networks["student"].widths
        return {"align": nn.ModuleList(alignment(width, deepest) for width in shallow)}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """As teacher the deepest exit's cross-entropy alone; as student that, and each shallower exit's three terms."""
        if who == "teacher":
            return {"hard": hard(networks["student"](batch.images), batch.labels)}
        *shallow, deepest = networks["student"](batch.images, exits=True)
        teacher = Exit(deepest.logits.detach(), deepest.features.detach())
        weights = {"alpha": self.alpha, "temperature": self.temperature, "beta": self.beta}
        terms = {"hard": hard(deepest.logits, batch.labels)}
        for depth, student in enumerate(shallow):
            align = networks["align"][depth]
            of_exit = distillation(
                student, teacher, batch.labels, align, square_temperature=self.square_temperature, **weights
            )
            terms |= {f"{name} of exit {depth + 1}": value for name, value in of_exit.items()}
        return terms
