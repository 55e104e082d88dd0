"""TAKD, teacher assistant KD: a network of a size in between learns from the teacher, and teaches the student.

    L = (1 - alpha) CE(z, y) + alpha T^2 KL(p_T of the one before || p_T),

for the assistant and for the student; the teacher has labels alone. Source: Mirzadeh et al. 2020, whose code searches
T and alpha for each pair of networks, and divides KL by the number of classes (`kl_per_logit`); the defaults are those
of Spaced KD, without its feature loss. As published, each network is finished before the next one starts: interval
`max`. A delay does not change a finished teacher, so spacing means that all three learn together, each some batches
behind the one before. Interval 0 trains them together without a delay, which isolates the effect of joint training.
Appendix A.3 of the Spaced KD paper does not state which links are spaced: `spaced_links` selects them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import SOFT_LOSSES, hard, teacher_outputs
from spaced_kd.distillation.schedule import Turn, follow, solo

GUIDES = {"assistant": "teacher", "student": "assistant"}
RANGES = {"alpha": "[0, 1]", "temperature": "[0.001, 1000000]"}


@dataclass(frozen=True)
class TAKD:
    """A chain of three; `teacher` and `assistant` of the run name their networks."""

    alpha: float = 0.3  # weight of the soft loss; the hard loss has 1 - alpha
    temperature: float = 3.0  # T of both softmaxes
    soft_loss: Literal["kl", "kl_per_logit"] = "kl"
    teacher_mode: Literal["eval", "train"] = "eval"  # of teaching networks: batch norm and drop-path
    spaced_links: Literal["both", "first", "last"] = "both"  # the first is from teacher to assistant

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "assistant": "assistant", "student": "student"}
    replayable: ClassVar[bool] = True
    needs: ClassVar[dict[str, dict[str, list]]] = {"spaced_links": {"interval": ["spaced", "offline"]}}

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Blocks of `interval` batches at the spaced links, of one batch at the other."""
        first, last = (interval if self.spaced_links in ("both", link) else 1 for link in ("first", "last"))
        pair = follow(solo(total, "teacher"), "teacher", "assistant", first, total)
        return follow(pair, "assistant", "student", last, total)

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and the divergence from the next larger network."""
        logits = networks[who](batch.images)
        if who == "teacher":
            return {"hard": hard(logits, batch.labels)}
        goal = teacher_outputs(networks[GUIDES[who]], batch.images, self.teacher_mode).logits
        soft = SOFT_LOSSES[self.soft_loss](logits, goal, self.temperature)
        return {
            "hard": (1 - self.alpha) * hard(logits, batch.labels),
            "soft": self.alpha * self.temperature**2 * soft,
        }
