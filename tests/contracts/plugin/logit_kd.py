"""Logit KD: the student matches the teacher's logits by squared error. Ba and Caruana 2014."""

from dataclasses import dataclass
from typing import ClassVar

from spaced_kd.api import hard, mse, teacher_outputs, turns


@dataclass(frozen=True)
class LogitKD:
    """Cross-entropy, and the squared distance to the teacher's logits."""

    weight: float = 0.1  # of the distance

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}

    def schedule(self, total, interval, per_epoch):
        return turns(total, interval)

    def terms(self, who, networks, batch):
        logits = networks[who](batch.images)
        terms = {"hard": hard(logits, batch.labels)}
        if who == "student":
            terms["logits"] = self.weight * mse(logits, teacher_outputs(networks["teacher"], batch.images).logits)
        return terms
