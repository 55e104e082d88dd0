"""Online KD, Spaced KD and offline KD: one method, three intervals between teacher and student.

Sources: Alg. 1 (interval of one batch) and Alg. 2 of the paper, losses of Sec. 5.1. Offline KD on the same batches is
an interval of the whole training ("max"). The defaults are the paper's text; letters are those of
docs/reference/switches.md, which lists the switches of the released code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation import losses
from spaced_kd.distillation.losses import alignment, distillation, hard
from spaced_kd.distillation.released_orders import extra_steps, on_new_batches, student_stops
from spaced_kd.distillation.schedule import Turn, constant_lead, solo, teacher_last, window
from spaced_kd.networks.outputs import NetworkOutput

RANGES = {
    "alpha": "[0, 1]",
    "hard_weight": "[0, inf)",
    "temperature": "[0.001, 1000000]",
    "beta": "[0, inf)",
}


@dataclass(frozen=True)
class OnlineKD:
    """The student learns from labels, and from the teacher's logits and features."""

    alpha: float = 0.3  # weight of the soft loss
    hard_weight: float | None = None  # of the hard loss; none: 1 - alpha. 1 adds the soft loss to labels of full weight
    temperature: float = 3.0  # T of both softmaxes
    beta: float = 0.03  # weight of the feature loss
    square_temperature: bool = True  # soft loss times T^2 (O2)
    soft_loss: Literal[
        "kl", "kl_of_probabilities", "kl_per_logit", "l1", "smooth_l1", "mse", "mse_sum", "cross_entropy"
    ] = "kl"  # O1, V3, Tab. 3
    feature_loss: Literal["mse", "dist", "l1", "smooth_l1", "mse_sum", "cross_entropy"] = "mse"  # O4, Tab. 3
    adapter: Literal["linear", "mlp"] = "linear"  # linear: where widths differ; mlp: always (O5)
    teacher_mode: Literal["eval", "train"] = "eval"  # of a teaching teacher's batch norm and drop-path (O7)
    target: Literal["after", "before"] = "after"  # the teacher's updates on the student's block (O6)
    lead: Literal["blocks", "constant"] = "blocks"  # constant: `interval` ahead at every step, not frozen (Tab. 10)
    last_block: Literal["flushed", "dropped"] = "flushed"  # where `interval` does not divide the training (O10)
    student_batches: Literal["same", "new_views", "new"] = "same"  # the teacher's, newly augmented, or its own (O12)
    extra_step: bool = False  # one more student step after each block of whole epochs (V10)
    optimizers: Literal["two", "one"] = "two"  # one: an idle network gets zero gradients and still decays (V2)
    second_forward: bool = False  # a second pass of the student, with other drop-path masks, for the soft loss (V5)
    joint_backward: bool = False  # teacher and student in one step, the teacher's hard loss times 1 - alpha, too (V7)
    spaced_from: float = 0.0  # epoch from which on the run is spaced; online KD before it (Fig. 3)
    spaced_until: float | None = None  # epoch until which it is; online KD after it

    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    loss_of_logits: ClassVar[bool] = True  # but for the feature loss, with a teacher that stands still
    needs: ClassVar[dict[str, dict[str, list]]] = {  # a setting that is not its default makes sense only with these
        "target": {"interval": ["online", "spaced"]},
        "lead": {"interval": ["spaced"], "target": ["after"]},
        "last_block": {"interval": ["spaced"], "lead": ["blocks"]},
        "joint_backward": {
            "interval": ["online"],
            "optimizers": ["one"],
            "target": ["after"],
            "teacher_mode": ["train"],
            "student_batches": ["same"],
        },
        "extra_step": {"interval": ["spaced"], "lead": ["blocks"], "spaced_from": [0.0], "spaced_until": [None]},
        "spaced_from": {"interval": ["spaced"], "lead": ["blocks"], "target": ["after"], "last_block": ["flushed"]},
        "spaced_until": {"interval": ["spaced"], "lead": ["blocks"], "target": ["after"], "last_block": ["flushed"]},
    }

    @property
    def teacher_is_shared(self) -> bool:
        """Whether all students share the teacher: not if its optimiser's steps depend on the student's turns."""
        return self.optimizers == "two"

    @property
    def replayable(self) -> bool:
        """Whether a GPU may replay a recorded step: not if the student uses another view of the batch."""
        return self.student_batches != "new_views"

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """The teacher's block of `interval` batches, then the student's; each switch changes one aspect."""
        if self.joint_backward:
            return solo(total, "student")
        last = total if self.spaced_until is None else min(total, int(self.spaced_until * per_epoch))
        order = window(total, interval, int(self.spaced_from * per_epoch), last)
        if self.target == "before":
            order = teacher_last(total, interval)
        if self.lead == "constant":
            order = constant_lead(total, interval)
        if self.last_block == "dropped":
            order = student_stops(order, total - total % interval)
        if self.student_batches == "new":
            order = on_new_batches(order, total)
        if self.extra_step and interval % per_epoch == 0:
            order = extra_steps(order, total)
        return order

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The layer that maps the student's features to the teacher's width."""
        return {"align": alignment(networks["student"].widths[-1], networks["teacher"].widths[-1], self.adapter)}

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """The teacher learns from labels alone, independently of its student.

        The student's first pass runs first, so that its drop-path masks do not depend on the switches.
        """
        if who == "teacher":
            return {"hard": hard(networks["teacher"](batch.images), batch.labels)}
        images = batch.view(1) if self.student_batches == "new_views" else batch.images
        student = networks["student"](images, exits=True)[-1]
        if self.second_forward:
            student = student._replace(distilled=networks["student"](images, exits=True)[-1].soft)
        terms = {}
        if self.joint_backward:
            output = networks["teacher"](images, exits=True)[-1]
            teacher = NetworkOutput(output.logits.detach(), output.features.detach())
            terms = {"hard of the teacher": (1 - self.alpha) * hard(output.logits, batch.labels)}
        else:
            teacher = losses.teacher_outputs(networks["teacher"], images, self.teacher_mode)
        return terms | distillation(
            student,
            teacher,
            batch.labels,
            networks["align"],
            alpha=self.alpha,
            hard_weight=self.hard_weight,
            temperature=self.temperature,
            beta=self.beta,
            square_temperature=self.square_temperature,
            soft_loss=self.soft_loss,
            feature_loss=self.feature_loss,
        )
