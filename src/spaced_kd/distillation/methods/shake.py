"""SHAKE, shadow KD: a small head on a finished teacher, its shadow, learns together with the student that it teaches.

    shadow:   beta [CE(h, y) + MSE(h, t) + T^2 KL(s || h at T)]
    student:  gamma CE(s, y) + alpha T^2 KL(t || s at T) + beta T^2 KL(h || s at T)

Logits h of the shadow, s and t of the teacher are brought to mean 0 and deviation `scale`, image by image, before any
loss; targets have no gradient. Source: Li and Jin 2022, weights and scale of their code (lliai/SHAKE at 3fa4e11). The
shadow fuses the teacher's last three feature maps and applies the teacher's own classifier. The fusion is a choice
here: a convolution, batch norm and ReLU for each map, to whose output the next map is added. That code takes both steps
at once, on targets from before either; here, at interval 0, the shadow takes its step on a batch, and then the student.

The finished teacher is the run without KD. The shadow is the teacher that still learns: with spacing it learns a block,
then the frozen shadow guides the student through the same block. Appendix A.3 of the Spaced KD paper does not state
what the shadow learns from a frozen student: `leader` selects it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import eval_or_train_mode, hard, kl, mse, teacher_outputs
from spaced_kd.distillation.schedule import Turn, follow, solo
from spaced_kd.utils.errors import UserError

RANGES = {
    "gamma": "[0, inf)",
    "alpha": "[0, inf)",
    "beta": "[0, inf)",
    "temperature": "[0.001, 1000000]",
    "scale": "(0, inf)",
}


@dataclass(frozen=True)
class SHAKE:
    """A finished teacher, its shadow, and the student."""

    gamma: float = 1.0  # weight of the student's labels
    alpha: float = 0.0  # weight of the teacher itself
    beta: float = 1.0  # weight of all terms of the shadow
    temperature: float = 4.0  # T of both softmaxes
    scale: float = 3.1415  # deviation of all logits, image by image
    leader: Literal["mutual", "alone"] = "mutual"  # learns from the student as it last stood, too; or not
    teacher_mode: Literal["train", "eval"] = "train"  # of shadow and student where they guide; the teacher's is eval

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "shadow": "shadow", "student": "student"}
    replayable: ClassVar[bool] = True
    parts: ClassVar[tuple[str, ...]] = ("shadow",)
    finished_teacher: ClassVar[bool] = True

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """All of the teacher's batches; then the shadow's block of `interval` batches, and the student's."""
        return chain(solo(total, "teacher"), follow(solo(total, "shadow"), "shadow", "student", interval, total))

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The shadow."""
        return {"shadow": Shadow(networks["teacher"])}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The equations above."""
        teacher, shadow, student = (networks[name] for name in ("teacher", "shadow", "student"))
        if who == "teacher":
            return {"hard": hard(teacher(batch.images), batch.labels)}
        maps, logits = maps_and_logits(teacher, batch.images)
        t, squared = self._normalised(logits), self.temperature**2
        if who == "shadow":
            h = self._normalised(shadow(maps, teacher))
            terms = {"hard": self.beta * hard(h, batch.labels), "logits": self.beta * mse(h, t)}
            if self.leader == "mutual":
                s = self._normalised(teacher_outputs(student, batch.images, self.teacher_mode).logits)
                terms["soft"] = self.beta * squared * kl(h, s, self.temperature)
            return terms
        s = self._normalised(student(batch.images))
        with eval_or_train_mode(shadow, self.teacher_mode):
            h = self._normalised(shadow(maps, teacher))
        terms = {"hard": self.gamma * hard(s, batch.labels), "soft": self.beta * squared * kl(s, h, self.temperature)}
        if self.alpha:
            terms["soft of the teacher"] = self.alpha * squared * kl(s, t, self.temperature)
        return terms

    def _normalised(self, logits: Tensor) -> Tensor:
        return self.scale * F.layer_norm(logits.float(), logits.shape[1:])


class Shadow(nn.Module):
    """The teacher's last three feature maps (B, C, H, W), and its own frozen classifier -> logits (B, classes)."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        known = getattr(getattr(teacher, "trunk", None), "feature_info", None)
        if not known:
            raise UserError("shake needs the feature maps of a timm network as teacher: choose another teacher")
        *_, first, second, last = ((each["num_chs"], each["reduction"]) for each in known)
        self.fuse = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=shrunk // size, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for (before, size), (after, shrunk) in pairwise((first, second, last, last))
        )

    def forward(self, maps: list[Tensor], teacher: nn.Module) -> Tensor:
        """Logits (B, classes) of a batch's feature maps."""
        fused = 0.0
        for layer, each in zip(self.fuse, maps, strict=True):
            fused = layer(fused + each)
        classifier = teacher.trunk.get_classifier()
        return F.linear(fused.mean(dim=(2, 3)), classifier.weight.detach(), classifier.bias.detach())


def maps_and_logits(teacher: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The last three feature maps and the logits of a finished teacher."""
    with eval_or_train_mode(teacher, "eval"):
        last, maps = teacher.trunk.forward_intermediates(images, indices=3)
        return maps, teacher.trunk.forward_head(last)
