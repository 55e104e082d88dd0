"""PS-KD, progressive self-distillation, as the teacher of an identical student.

    L = CE(z, (1 - a_e) y + a_e p_{e-1}) = (1 - a_e) CE(z, y) + a_e CE(z, p_{e-1}),   a_e = alpha (e + 1) / E

p_{e-1} is the network's own softmax of an image when it learnt it in the epoch before: in training mode, of that
epoch's augmentation, before that step's update. E epochs, e from 0; in epoch 0 the labels alone. Source: Kim et al.,
ICCV 2021, and their code (lgcnsai/PS-KD-Pytorch at 9aa0828). Kept are the logits of all N training images in K
classes, 4 N K bytes on the device: 20 MB for CIFAR-100, 80 MB for Tiny-ImageNet, 5.1 GB for ImageNet-1K.

With a student (Appendix A.3 of the Spaced KD paper): the teacher learns by PS-KD and an identical student from it,
online (interval 0) or spaced. The paper gives no loss of the student: here it is that of online KD, Sec. 5.1 (Eq. 2
with a feature loss; `student_beta: 0` is Eq. 2 alone), with the teacher's current outputs and not the stored ones.
PS-KD itself, that table's w/o KD, is `student: alone`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.logit_memory import LogitMemory, Sizes
from spaced_kd.distillation.losses import alignment, distillation, hard, soft_cross_entropy, teacher_outputs
from spaced_kd.distillation.schedule import Turn, solo, turns

RANGES = {
    "alpha": "[0, 1]",
    "student_alpha": "[0, 1]",
    "student_temperature": "[0.001, 1000000]",
    "student_beta": "[0, inf)",
}


@dataclass(frozen=True)
class PSKD:
    """The teacher's targets shift from labels to its own predictions of an epoch ago; the student learns from it."""

    alpha: float = 0.8  # share of the teacher's own predictions in its targets at the end of training
    student: Literal["distilled", "alone"] = "distilled"  # alone: it learns by PS-KD itself, and there is no teacher
    student_alpha: float = 0.3  # weight of its soft loss; its hard loss has 1 - student_alpha
    student_temperature: float = 3.0  # T of its soft loss, which has T^2 before it
    student_beta: float = 0.03  # weight of its feature loss

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    needs: ClassVar[dict[str, dict[str, list]]] = {
        "student": {"interval": ["online"]},
        "student_alpha": {"student": ["distilled"]},
        "student_temperature": {"student": ["distilled"]},
        "student_beta": {"student": ["distilled"]},
    }
    teacher_is_shared: ClassVar[bool] = False  # it is not the run w/o KD

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Alg. 1 and 2, or one network alone."""
        return solo(total, "student") if self.student == "alone" else turns(total, interval)

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The layer that maps the student's features to the teacher's width."""
        return {"align": alignment(networks["student"].widths[-1], networks["teacher"].widths[-1])}

    def memory(self, sizes: Sizes) -> dict[str, nn.Module]:
        """The logits of the last epoch, images x classes."""
        return {"last epoch": LogitMemory(sizes.images, sizes)}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher's terms are PS-KD's; the student's are online KD's, or PS-KD's if it has no teacher."""
        if who == "teacher" or self.student == "alone":
            return self._from_the_last_epoch(networks[who], networks["last epoch"], batch)
        return distillation(
            networks["student"](batch.images, exits=True)[-1],
            teacher_outputs(networks["teacher"], batch.images),
            batch.labels,
            networks["align"],
            alpha=self.student_alpha,
            temperature=self.student_temperature,
            beta=self.student_beta,
        )

    def _from_the_last_epoch(self, network: nn.Module, memory: LogitMemory, batch: Batch) -> dict[str, Tensor]:
        logits = network(batch.images)
        share = self.alpha * (batch.epoch + 1) / memory.sizes.epochs if batch.epoch else 0.0
        terms = {"hard": (1 - share) * hard(logits, batch.labels)}
        if share:
            terms["soft"] = share * soft_cross_entropy(logits, memory.said[batch.ids], temperature=1.0)
        memory.write(batch.ids, logits)
        return terms
