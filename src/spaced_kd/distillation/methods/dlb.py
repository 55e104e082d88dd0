"""DLB, self-distillation from the last mini-batch, as the teacher of an identical student.

    L_t = CE(b_t and b'_{t-1}, y) + alpha T^2 KL(p_{t-1}(b_{t-1}) || p_t(b'_{t-1})),   p = softmax(z / T)

A step of the teacher sees its batch b_t, and the batch before under another augmentation, b'; the KL's target is what
the network predicted for b_{t-1} in the step before, as it stood before that step's update. CE is the mean over both
batches, KL that over b'; the first step of all has the CE of its batch alone. Two forward passes a step, so batch norm
sees the batches apart. Source: Shen et al., CVPR 2022, and their code (Meta-knowledge-Lab/DLB at 8949a46). Their T and
alpha have no defaults there: 3 and 1 are from memory of the paper, so a choice.

With a student (Appendix A.3 of the Spaced KD paper): the teacher learns by DLB and an identical student from it,
online (interval 0) or spaced. The paper gives no loss of the student: here it is that of online KD, Sec. 5.1 (Eq. 2
with a feature loss; `student_beta: 0` is Eq. 2 alone), on the teacher's view of each batch. DLB itself, that table's
w/o KD, is `student: alone`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.logit_memory import LogitMemory, Sizes
from spaced_kd.distillation.losses import alignment, distillation, hard, kl, teacher_outputs
from spaced_kd.distillation.schedule import Turn, solo, turns

RANGES = {
    "alpha": "[0, inf)",
    "temperature": "[0.001, 1000000]",
    "student_alpha": "[0, 1]",
    "student_temperature": "[0.001, 1000000]",
    "student_beta": "[0, inf)",
}


@dataclass(frozen=True)
class DLB:
    """The teacher distils from its own last batch; the student from the teacher."""

    alpha: float = 1.0  # weight of the teacher's KL to its last batch
    temperature: float = 3.0  # T of the teacher's loss
    student: Literal["distilled", "alone"] = "distilled"  # alone: it learns by DLB itself, and there is no teacher
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
    looks_back: ClassVar[bool] = True

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Alg. 1 and 2, or one network alone."""
        return solo(total, "student") if self.student == "alone" else turns(total, interval)

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The layer that maps the student's features to the teacher's width."""
        return {"align": alignment(networks["student"].widths[-1], networks["teacher"].widths[-1])}

    def memory(self, sizes: Sizes) -> dict[str, nn.Module]:
        """The logits of the last batch, batch_size x classes."""
        return {"last batch": LogitMemory(min(sizes.batch_size, sizes.images), sizes)}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher's terms are DLB's; the student's are online KD's, or DLB's if it has no teacher."""
        if who == "teacher" or self.student == "alone":
            return self._from_the_last_batch(networks[who], networks["last batch"], batch)
        return distillation(
            networks["student"](batch.images, exits=True)[-1],
            teacher_outputs(networks["teacher"], batch.images),
            batch.labels,
            networks["align"],
            alpha=self.student_alpha,
            temperature=self.student_temperature,
            beta=self.student_beta,
        )

    def _from_the_last_batch(self, network: nn.Module, memory: LogitMemory, batch: Batch) -> dict[str, Tensor]:
        logits, labels = network(batch.images), batch.labels
        terms = {}
        if batch.before is None:
            terms["hard"] = hard(logits, labels)
        else:
            images, past = batch.before(1)
            again = network(images)
            terms["hard"] = hard(torch.cat((again, logits)), torch.cat((past, labels)))
            goal = memory.said[: len(past)]
            terms["soft"] = self.alpha * self.temperature**2 * kl(again, goal, self.temperature)
        memory.write(slice(len(labels)), logits)
        return terms
