"""Every loss with its equation and source. Logits are (B, K), labels (B,), features (B, D); computed in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaced_kd.outputs import Exit


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, the mean over the batch: l_task of Eq. 1."""
    return F.cross_entropy(logits.float(), labels)


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)): sum over classes, mean over the batch (Hinton et al. 2015)."""
    log_p = F.log_softmax(teacher.float() / temperature, dim=1)
    log_q = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of squared differences over batch and features (Romero et al. 2015, FitNets)."""
    return F.mse_loss(student.float(), teacher.float())


def target(network: nn.Module, images: Tensor) -> Exit:
    """What a teacher says of a batch: in eval mode (running statistics, no drop-path), without gradient."""
    training = network.training
    network.eval()
    with torch.no_grad():
        said = network(images, exits=True)[-1]
    network.train(training)
    return said


def distillation(
    student: Exit,
    teacher: Exit,
    labels: Tensor,
    align: nn.Module,
    *,
    alpha: float,
    temperature: float,
    beta: float,
    square_temperature: bool,
) -> dict[str, Tensor]:
    """The student's three terms: (1 - alpha) CE + alpha T^2 KL(teacher || student at T) + beta MSE(features).

    Eq. 2 of the paper has the first two; Sec. 5.1 gives the third and the weights. T^2 keeps the size of the soft
    gradient independent of T (Hinton et al. 2015); the paper does not mention it. `align` maps the student's features
    to the teacher's width.
    """
    scale = temperature**2 if square_temperature else 1.0
    return {
        "hard": (1 - alpha) * hard(student.logits, labels),
        "soft": alpha * scale * kl(student.logits, teacher.logits, temperature),
        "feature": beta * mse(align(student.features), teacher.features),
    }


def alignment(student_width: int, teacher_width: int) -> nn.Module:
    """A linear layer from the student's features to the teacher's width; nothing where the widths agree."""
    return nn.Identity() if student_width == teacher_width else nn.Linear(student_width, teacher_width)
