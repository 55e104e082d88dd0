"""Training without distillation, `w/o KD`: with `hard_weight: 1` this run is also the teacher of its students.

Source: Eq. 1 of the paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import hard
from spaced_kd.distillation.schedule import Turn, solo

RANGES = {"hard_weight": "(0, inf)"}


@dataclass(frozen=True)
class Baseline:
    """Cross-entropy, one network."""

    hard_weight: float = 1.0  # of cross-entropy; 0.7 is its weight in KD, here without a teacher

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher"}
    replayable: ClassVar[bool] = True

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Every batch once, in order."""
        return solo(total, "teacher")

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with the labels."""
        return {"hard": self.hard_weight * hard(networks["teacher"](batch.images), batch.labels)}
