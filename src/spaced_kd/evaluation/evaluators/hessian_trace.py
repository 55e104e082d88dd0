r"""Trace of the Hessian of the training loss, with its standard error: the curvature that flat minima lack.

With θ the P parameters that the logits depend on, and H the Hessian of the mean cross-entropy L over N training images,

    H = ∇²L(θ),    t_k = v_kᵀ H v_k,    v_k uniform on {−1, 1}^P,

E[t_k] = Tr(H). The value is the mean of K independent t_k (Hutchinson's estimator), and their spread gives its error,

    value = 1/K Σ t_k,    stderr = sd(t_1, ..., t_K) / √K;

value ± q stderr, with Student's quantile q for K − 1 degrees of freedom, is a confidence interval for the trace on
these N images, which are the same for every network; that on all training images may lie outside. Images come without
augmentation, and batch normalisation uses its running statistics (eval mode): those of training, or, with
`batch_norm: reestimated`, those of all training images under the final weights (`batch_norm_reestimated` says how).

With `kd_loss` the same of the loss that the student learnt, L_KD = (1 − α) L_task + α L_soft, whose teacher is fixed as
in Theorem 4.4: its weights are the final ones, its images the same, and its batch norm has running statistics of the
same kind as the student's. In self KD the deepest exit, detached, is the teacher, all exits are students, and P counts
their parameters, too. The feature loss is left out. A network that learnt from labels alone has no such row.

With `sketch` m > 0, the estimator is Hutch++: H is first applied to m random vectors, and Q (P, m), an orthonormal
basis of what comes out, catches its largest eigenvalues exactly; only the rest is left to probes,

    t_k = Tr(Qᵀ H Q) + v_kᵀ (I − Q Qᵀ) H (I − Q Qᵀ) v_k,

which takes 2m further products and has the same mean and formula of the error. A trained network's few large
eigenvalues make it several times cheaper for the same error; other numbers come out, so it is not the default.

Products H v come from curvlinops, several at a time; its `hutchinson_trace` gives their mean alone, and one t_k per
call takes almost twice as long.

Sources: Girard 1989; Hutchinson 1989; Meyer et al. 2021 (Hutch++). The paper's theory speaks of this trace, but
measures none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaced_kd.data.dataset import Data
from spaced_kd.distillation.fixed_teacher import FixedTeacher, Sayings
from spaced_kd.training.batch_norm import reestimated
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.library_patches import gradients_of_scalars
from spaced_kd.utils.seeding import generator

SOURCES = ["../../training/batch_norm.py", "../../distillation/fixed_teacher.py"]
STATISTICS_BATCH = 128  # images of a batch whose statistics are estimated
BATCH, BLOCK = 25, 6  # images and probes at a time: the fastest pair on a CPU, and the memory of 150 images

RANGES = {"images": "[1, inf)", "probes": "[2, inf)", "sketch": "[0, inf)"}

TRACES = {"": {"metric": "trace"}, "_reestimated": {"metric": "trace_reestimated"}}  # by batch norm; claims name them
KD_TRACES = {"": {"metric": "kd_trace"}, "_reestimated": {"metric": "kd_trace_reestimated"}}


def evaluate(
    network: nn.Module,
    data: Data,
    *,
    seed: int,
    images: int = 200,
    probes: int = 12,
    sketch: int = 0,
    batch_norm: Literal["running", "reestimated", "both"] = "running",
    kd_loss: bool = False,
    kd: Callable[[], FixedTeacher | None] | None = None,
) -> Iterator[dict]:
    """Row "trace" with `stderr` (both in nats per squared unit of the weights), `probes` and `parameters`.

    With running statistics estimated anew it is "trace_reestimated"; of the loss of KD it is "kd_trace", or
    "kd_trace_reestimated".

    Args:
        network: in eval mode; images -> logits (B, classes).
        data: dataset whose training images make the loss.
        seed: of the probes.
        images: N, number of training images.
        probes: K, number of Hessian-vector products; at least 2.
        sketch: m, random vectors whose products are a basis of what is caught exactly; 0 for none.
        batch_norm: the running statistics: of training, estimated anew on the training images, or a row for each.
        kd_loss: whether the trace of the loss of KD is measured, too.
        kd: gives that loss and the teacher in it.
    """
    if sketch < 0:
        raise UserError(f"hessian_trace.sketch is {sketch}, but must not be negative: 0 catches nothing")
    if probes < 2:
        raise UserError(f"hessian_trace.probes is {probes}, but a standard error needs at least 2")
    kept = {"": lambda network: network, "_reestimated": lambda network: reestimated(network, data, STATISTICS_BATCH)}
    asked = {"running": [""], "reestimated": ["_reestimated"], "both": list(kept)}[batch_norm]
    for name in asked:
        with operator(kept[name](network), data, images) as hessian:
            found = _estimate(hessian, seed, probes, sketch)
        yield TRACES[name] | found
    fixed = kd() if kd_loss else None
    for name in asked if fixed else ():
        teacher = kept[name](fixed.teacher) if fixed.teacher else None
        with kd_operator(kept[name](Sayings(network)), replace(fixed, teacher=teacher), data, images) as hessian:
            found = _estimate(hessian, seed, probes, sketch)
        yield KD_TRACES[name] | found


def _estimate(hessian: HessianLinearOperator, seed: int, probes: int, sketch: int) -> dict:
    """Value, its standard error, and what they were made from."""
    basis, caught = _catch(hessian, seed, sketch)
    blocks = torch.arange(probes).split(BLOCK)
    t = caught + torch.cat([_quadratic_forms(hessian, seed, block, basis) for block in blocks])
    return {
        "value": t.mean().item(),
        "stderr": (t.std() / probes**0.5).item(),
        "probes": probes,
        "parameters": hessian.shape[0],
    }


@contextmanager
def operator(network: nn.Module, data: Data, images: int) -> Iterator[HessianLinearOperator]:
    """H as a linear operator (P, P); its products hold inside the block.

    Args:
        network: in eval mode; images -> logits (B, classes).
        data: dataset whose training images make the loss.
        images: N, number of training images.
    """
    inputs, labels = _images(data, images)
    with _operator(network, nn.CrossEntropyLoss(), inputs, labels) as hessian:
        yield hessian


@contextmanager
def kd_operator(sayings: Sayings, fixed: FixedTeacher, data: Data, images: int) -> Iterator[HessianLinearOperator]:
    """The Hessian of the loss of KD as a linear operator; its products hold inside the block.

    Args:
        sayings: the student's, in eval mode.
        fixed: the loss and the teacher.
        data: dataset whose training images make the loss.
        images: N, number of training images.
    """
    inputs, labels = _images(data, images)
    with torch.no_grad():
        parts = inputs.split(BATCH)
        targets = torch.cat([fixed.teacher(part) if fixed.teacher else sayings(part)[:, -1, 0] for part in parts])
    with _operator(sayings, _KDLoss(fixed), inputs, torch.cat([labels[:, None].float(), targets], 1)) as hessian:
        yield hessian


class _KDLoss(nn.Module):
    """What curvlinops calls: what was said, and a label and a teacher's logits for each image (B, 1 + classes)."""

    reduction = "mean"

    def __init__(self, fixed: FixedTeacher) -> None:
        super().__init__()
        self.fixed = fixed

    def forward(self, said: Tensor, goals: Tensor) -> Tensor:
        return self.fixed.loss(said, goals[:, 0].long(), goals[:, 1:])


def _images(data: Data, count: int) -> tuple[Tensor, Tensor]:
    """Network input and labels of so many training images."""
    chosen = data.subset("train", count)
    # contiguous: a tenth faster here than channels-last
    return data.normalise(data.images["train"][chosen]).contiguous(), data.labels["train"][chosen]


@contextmanager
def _operator(network: nn.Module, loss: nn.Module, inputs: Tensor, goals: Tensor) -> Iterator[HessianLinearOperator]:
    """The Hessian of a mean loss over images with respect to all parameters that the network's output depends on."""
    theta = _used(network, inputs[:1])
    # fused attention has no forward-mode derivative
    with sdpa_kernel(SDPBackend.MATH), gradients_of_scalars():
        yield HessianLinearOperator(
            network,
            loss,
            theta,
            list(zip(inputs.split(BATCH), goals.split(BATCH), strict=True)),
            check_deterministic=False,  # it costs several products; eval mode and fixed images leave nothing random
            num_data=len(inputs),
        )


def _used(network: nn.Module, inputs: Tensor) -> list[nn.Parameter]:
    """Parameters that the logits depend on: without those of the exits."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(network(inputs).sum(), parameters, allow_unused=True)
    return [weights for weights, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def _catch(hessian: HessianLinearOperator, seed: int, sketch: int) -> tuple[Tensor | None, float]:
    """Q (P, sketch) and Tr(Qᵀ H Q); nothing and 0 without a sketch."""
    if sketch == 0:
        return None, 0.0
    blocks = torch.arange(sketch).split(BLOCK)
    basis, _ = torch.linalg.qr(torch.cat([hessian @ _probes(hessian, seed, "hessian sketch", b) for b in blocks], 1))
    parts = [(part * (hessian @ part)).sum(dtype=torch.float64) for part in basis.split(BLOCK, dim=1)]
    return basis, float(sum(parts))


def _quadratic_forms(hessian: HessianLinearOperator, seed: int, block: Tensor, basis: Tensor | None) -> Tensor:
    """vᵀ H v of the probes k in `block` outside `basis`: float64 (len(block),)."""
    v = _probes(hessian, seed, "hessian probe", block)
    if basis is not None:
        v = v - basis @ (basis.T @ v)
    return (v * (hessian @ v)).sum(0, dtype=torch.float64)


def _probes(hessian: HessianLinearOperator, seed: int, purpose: str, block: Tensor) -> Tensor:
    """Random signs (P, len(block)), a column for each number in `block`."""
    parameters = hessian.shape[0]
    signs = [generator(seed, purpose, int(k)).integers(0, 2, parameters, dtype=np.int8) for k in block]
    return torch.from_numpy(2 * np.stack(signs, axis=1) - 1).to(hessian.device, hessian.dtype)
