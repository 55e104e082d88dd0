"""DML, deep mutual learning: two networks learn from labels and from each other.

    L_1 = CE(z_1, y) + w T^2 KL(p_2 || p_1),    L_2 = CE(z_2, y) + w T^2 KL(p_1 || p_2),

targets without gradient. Source: Zhang et al. 2018, with w = 1 and T = 1. Peer 1 leads as `teacher`, peer 2 follows as
`student` and is evaluated. Interval 0 is the original method: on each batch peer 1 takes its step, then peer 2, guided
by the updated peer 1. With spacing the leader learns a block, then the frozen leader guides the follower through the
same block: all of peer 2's learning is delayed, as in Appendix A.3 of the Spaced KD paper. The appendix does not state
what the leader learns from a frozen follower: `leader` selects it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import hard, kl, teacher_outputs
from spaced_kd.distillation.schedule import Turn, turns

RANGES = {"weight": "[0, inf)", "temperature": "[0.001, 1000000]"}


@dataclass(frozen=True)
class DML:
    """Two peers; with equal initial weights they would agree on every batch and not learn from each other."""

    weight: float = 1.0  # w of the soft loss
    temperature: float = 1.0  # T of both softmaxes
    leader: Literal["mutual", "alone"] = "mutual"  # learns from the follower as it last stood; or from labels alone
    teacher_mode: Literal["train", "eval"] = "train"  # of the peer that guides; a new one's running statistics are void
    initial_weights: Literal["different", "same"] = "different"  # of the follower

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    replayable: ClassVar[bool] = True

    @property
    def teacher_is_shared(self) -> bool:
        """Whether the leader learns without its follower: then it is the baseline, shared by all students."""
        return self.leader == "alone"

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """The leader's block of `interval` batches, then the follower's."""
        return turns(total, interval)

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and the divergence from the other peer."""
        logits = networks[who](batch.images)
        terms = {"hard": hard(logits, batch.labels)}
        if who == "student" or self.leader == "mutual":
            peer = teacher_outputs(
                networks["teacher" if who == "student" else "student"], batch.images, self.teacher_mode
            )
            terms["soft"] = self.weight * self.temperature**2 * kl(logits, peer.logits, self.temperature)
        return terms
