"""Every loss with its equation and source. Logits are (B, K), labels (B,), features (B, D); computed in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaced_kd.networks.outputs import NetworkOutput


def hard(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, the mean over the batch: l_task of Eq. 1."""
    return F.cross_entropy(logits.float(), labels)


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)): sum over classes, mean over the batch (Hinton et al. 2015)."""
    log_p = F.log_softmax(teacher.float() / temperature, dim=1)
    log_q = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy with the teacher's softmax at T, mean over the batch: `kl` plus the teacher's entropy.

    The released code's soft loss of self KD; its gradient is that of `kl`.
    """
    return F.cross_entropy(student.float() / temperature, F.softmax(teacher.float() / temperature, dim=1))


def kl_of_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The value of KLDivLoss for probabilities q instead of log-probabilities: sum_k p_k (log p_k - q_k), mean.

    The released code's soft loss of online KD. It is not a divergence: it minimises -<p, q>, so that its best student
    puts probability 1 on the teacher's first choice, and its gradient vanishes with q.
    """
    p = F.softmax(teacher.float() / temperature, dim=1)
    q = F.softmax(student.float() / temperature, dim=1)
    return F.kl_div(q, p, reduction="batchmean")


def kl_per_logit(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`kl` divided by the number of classes: the mean over batch and classes, the released transformers' soft loss."""
    return kl(student, teacher, temperature) / student.shape[1]


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of squared differences over batch and features (Romero et al. 2015, FitNets)."""
    return F.mse_loss(student.float(), teacher.float())


def mse_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of squared differences over batch and features (Tab. 3): `mse` times B x D."""
    return F.mse_loss(student.float(), teacher.float(), reduction="sum")


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of absolute differences over batch and features (Tab. 3)."""
    return F.l1_loss(student.float(), teacher.float())


def smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch and features of d^2 / 2 where a difference d is below 1, |d| - 1/2 elsewhere (Tab. 3)."""
    return F.smooth_l1_loss(student.float(), teacher.float())


def cross_entropy_of_features(student: Tensor, teacher: Tensor) -> Tensor:
    """-sum_d t_d log softmax(s)_d, mean over the batch: features raw, as logits and as their targets.

    The released code's cross-entropy (O17). It is not a divergence: targets neither sum to 1 nor are all positive.
    For teachers with negative features, such as transformers, it has no minimum.
    """
    return F.cross_entropy(student.float(), teacher.float())


def dist(student: Tensor, teacher: Tensor) -> Tensor:
    """Norm of the difference over the whole batch, not squared and not averaged: the released code's feature loss.

    Its gradient has norm 1 whatever the batch size, while that of a mean over the batch shrinks.
    """
    return torch.dist(student.float(), teacher.float())


def _of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, float], Tensor]:
    """A loss of differences as a soft loss: of logits / T. With T^2 before it, one of squares does not depend on T."""
    return lambda student, teacher, temperature: loss(student / temperature, teacher / temperature)


DIFFERENCES = {loss.__name__: loss for loss in (mse, mse_sum, l1, smooth_l1)}
SOFT_LOSSES = {
    **{loss.__name__: loss for loss in (kl, kl_of_probabilities, kl_per_logit, soft_cross_entropy)},
    **{name: _of_logits(loss) for name, loss in DIFFERENCES.items()},
    "cross_entropy": soft_cross_entropy,
}
FEATURE_LOSSES = {**DIFFERENCES, "dist": dist, "cross_entropy": cross_entropy_of_features}


@contextmanager
def eval_or_train_mode(network: nn.Module, mode: str) -> Iterator[None]:
    """For targets: no gradient, and the mode `eval` or `train`; the network's own mode is restored afterwards."""
    training = network.training
    network.train(mode == "train")
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def teacher_outputs(network: nn.Module, images: Tensor, mode: str = "eval") -> NetworkOutput:
    """The deepest outputs of a teacher for a batch, without gradient.

    In `eval` mode batch norm uses its running statistics, and drop-path is off. In `train` mode, the released code's,
    it uses the batch's statistics and updates the running ones once more.
    """
    with eval_or_train_mode(network, mode):
        return network(images, exits=True)[-1]


def distillation(
    student: NetworkOutput,
    teacher: NetworkOutput,
    labels: Tensor,
    align: nn.Module,
    *,
    alpha: float,
    hard_weight: float | None = None,
    temperature: float,
    beta: float,
    square_temperature: bool = True,
    soft_loss: str = "kl",
    feature_loss: str = "mse",
) -> dict[str, Tensor]:
    """The student's three terms: (1 - alpha) CE + alpha T^2 KL(teacher || student at T) + beta MSE(features).

    Eq. 2 of the paper has the first two; Sec. 5.1 gives the third and the weights. T^2 keeps the size of the soft
    gradient independent of T (Hinton et al. 2015); the paper does not mention it. `align` maps the student's features
    to the teacher's width. `soft_loss` and `feature_loss` name the losses that replace KL and MSE; `hard_weight`
    replaces 1 - alpha.
    """
    share = 1 - alpha if hard_weight is None else hard_weight
    scale = temperature**2 if square_temperature else 1.0
    return {
        "hard": share * hard(student.logits, labels),
        "soft": alpha * scale * SOFT_LOSSES[soft_loss](student.soft, teacher.logits, temperature),
        "feature": beta * FEATURE_LOSSES[feature_loss](align(student.features), teacher.features),
    }


def alignment(student_width: int, teacher_width: int, kind: str = "linear") -> nn.Module:
    """A layer from the student's features to the teacher's width.

    `linear` is the identity for equal widths. `linear_always` and `mlp` are the layers of the released code of self and
    online KD, which also has them for equal widths; `mlp` has a hidden layer of the mean width.
    """
    if kind == "linear_always":
        return nn.Linear(student_width, teacher_width)
    if kind == "mlp":
        hidden = (student_width + teacher_width) // 2
        return nn.Sequential(nn.Linear(student_width, hidden), nn.ReLU(), nn.Linear(hidden, teacher_width))
    return nn.Identity() if student_width == teacher_width else nn.Linear(student_width, teacher_width)
