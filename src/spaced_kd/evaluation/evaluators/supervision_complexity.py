r"""Supervision complexity: how hard what a student is taught is for the student's own kernel, as its training goes on.

With H the student's empirical neural tangent kernel (n, n) on n images (`ntk.py`), its eigenpairs μ_k, u_k, p_T the
student's softmax at temperature T, y what it is taught (n, K), and the residual r = y − p_T,

    C = 1/n √(Σ_c r_cᵀ (H + εI)⁻¹ r_c · Tr H) = ‖r‖/√n · A,    A² = Tr H / n · Σ_k w_k / (μ_k + ε),

where ε = ridge · Tr H / n, and w_k = Σ_c (u_kᵀ r_c)² / ‖r‖² is the share of r along u_k. C does not depend on the scale
of H; its parts are the size of the residual and its alignment A, which is 1 for H = I and grows with the weight on
small eigenvalues. T r is minus the gradient of T² KL(y || p_T) by the student's logits, whose kernel is H. From the
uniform prediction, r = y − 1/K: then C is that of the target alone.

The student, before its update number t + 1, is measured against hard labels, the same labels permuted over the images,
and a teacher after as many updates as

    online: t + 1,    spaced: the next multiple of s above t, or the last,    offline: the last;

and "received": each spaced one once, at the time nearest to t at which the run's own schedule has it teach. In Spaced
KD that is t; in online KD it comes later. So runs of both are compared under the same teachers, at equal accuracy.

The run is trained once more for this (`replay.py`), its teacher with it. 512 images and five epochs of a network of
78,000 weights take one to two minutes on one core.

Source: Harutyunyan et al. 2023, "Supervision Complexity and its Role in Knowledge Distillation", of which no code is
published. Choices here: the kernel's mean over classes, residuals of probabilities, and a factor √K left out of C.

The metrics of its rows: "complexity" C, its parts "residual" and "alignment", "complexity_of_target" from the uniform
prediction, "divergence" KL(y || p_T) in nats; of the target's first choices "target_accuracy" and "agreement" with the
student's (percent) and "margin", the student's logit of that class less the largest other one, mean over images;
"similarity", the cosine of the student's and the teacher's kernel; by epoch "condition" of H + εI, and
"smallest_eigenvalue" of H over the mean one.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaced_kd.data.dataset import Data
from spaced_kd.distillation.schedule import interval_in_batches
from spaced_kd.evaluation import ntk
from spaced_kd.evaluation.replay import Moment, Replay
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

SOURCES = ["../ntk.py"]  # what is measured anew when it changes, beside this file
RANGES = {
    "images": "[1, inf)",
    "compared": "[1, inf)",
    "epochs": "[0, inf)",
    "interval": "(0, inf)",
    "temperatures": "(0, inf)",
    "ridge": "(0, inf)",
    "memory": "(0, inf)",
}


class Spectrum(NamedTuple):
    """A kernel's eigenvalues (n,), ascending and not below 0, its eigenvectors (n, n) as columns, and ε; float64."""

    values: Tensor
    vectors: Tensor
    epsilon: float


class Seen(NamedTuple):
    """A network at one time: logits (n, K) and kernel of some images; of a student all images' spectrum, too."""

    logits: Tensor
    compared: Tensor
    spectrum: Spectrum | None = None


class Lesson(NamedTuple):
    """A teacher's target for a student, and when both are looked at."""

    target: str
    student: Moment
    teacher: Moment


def evaluate(
    network: nn.Module,
    data: Data,
    *,
    seed: int,
    history: Replay,
    images: int = 512,
    compared: int = 128,
    split: Literal["train", "test"] = "train",
    epochs: tuple[int, ...] | None = None,
    interval: float = 1.5,
    temperatures: tuple[float, ...] = (1.0, 3.0),
    ridge: float = 1e-3,
    memory: float = 2.0,
) -> Iterator[dict]:
    """Rows by the student's epoch, target and temperature (metrics above); without a teacher, of labels alone.

    Args:
        network: as it is in the end, in eval mode; images -> logits (B, K).
        data: dataset of the images, which are not augmented.
        seed: of the permuted labels.
        history: the run's training.
        images: n, number of images.
        compared: of these, how many the similarity of kernels is measured on.
        split: which images.
        epochs: at whose beginning the student is measured, below the training's number of them; None: 0, 1, 2, 4, ...
        interval: s of the spaced teacher, in epochs.
        temperatures: T of teachers; of labels it is 1.
        ridge: ε in units of the mean eigenvalue; above 0.
        memory: GiB for a kernel's Jacobians.
    """
    epochs = _checked(history, epochs, ridge)
    chosen = data.subset(split, images)
    inputs = data.normalise(data.images[split][chosen]).contiguous()
    labels = data.labels[split][chosen].cpu()
    few = torch.arange(min(compared, len(chosen))) * len(chosen) // min(compared, len(chosen))
    ntk.blocks(network, inputs, memory)  # refused now, and not after a training

    def see(name: str, network: nn.Module) -> Seen:
        with torch.no_grad():
            logits = torch.cat([network(batch) for batch in inputs.split(250)]).double().cpu()
        if name == history.result:
            kernel = ntk.kernel(network, inputs, memory).cpu()
            return Seen(logits, kernel[few[:, None], few], spectrum(kernel, ridge))
        return Seen(logits, ntk.kernel(network, inputs[few], memory).cpu())

    times = {epoch: epoch * history.per_epoch for epoch in epochs}
    lessons = _lessons(history, list(times.values()), interval)
    moments = {(history.result, time) for time in times.values()}
    moments |= {moment for lesson in lessons for moment in (lesson.student, lesson.teacher)}
    seen = history.look(moments, see)
    hard = F.one_hot(labels, data.classes).double()
    permuted = hard[torch.from_numpy(generator(seed, "permuted labels").permutation(len(labels)))]
    for epoch, time in times.items():
        yield from _of_labels(seen[history.result, time], epoch, {"hard": hard, "random": permuted}, labels)
    for lesson in lessons:
        yield from _taught(lesson, seen, history.per_epoch, temperatures, labels)


def _checked(history: Replay, epochs: tuple[int, ...] | None, ridge: float) -> tuple[int, ...]:
    """The epochs at whose beginning the student is measured; UserError for settings that do not fit the run."""
    if ridge <= 0:
        raise UserError(f"supervision_complexity.ridge is {ridge:g}, but must be above 0: H may be singular")
    total = history.updates[history.result] // history.per_epoch
    if epochs is None:
        return tuple(epoch for epoch in (0, *(2**k for k in range(total))) if epoch < total)
    if late := [epoch for epoch in epochs if not 0 <= epoch < total]:
        raise UserError(f"supervision_complexity.epochs has {late[0]}, but the run has epochs 0 to {total - 1}")
    return epochs


def _of_labels(student: Seen, epoch: int, targets: dict[str, Tensor], labels: Tensor) -> Iterator[dict]:
    """Rows of a student alone: the conditioning of its kernel, and labels as targets."""
    for metric, value in conditioning(student.spectrum).items():
        yield {"metric": metric, "value": value, "epoch": float(epoch)}
    for name, y in targets.items():
        yield from _rows(student, y, 1.0, labels, {"epoch": float(epoch), "target": name, "temperature": 1.0})


def _taught(
    lesson: Lesson, seen: dict[Moment, Seen], per_epoch: int, temperatures: tuple[float, ...], labels: Tensor
) -> Iterator[dict]:
    """Rows of a student beside a teacher, at each temperature."""
    student, teacher = seen[lesson.student], seen[lesson.teacher]
    similar = cosine(student.compared, teacher.compared)
    epochs = {"epoch": lesson.student[1] / per_epoch, "teacher_epoch": lesson.teacher[1] / per_epoch}
    for temperature in temperatures:
        y = (teacher.logits / temperature).softmax(1)
        about = epochs | {"target": lesson.target, "temperature": temperature}
        yield from _rows(student, y, temperature, labels, about, similar)


def _lessons(history: Replay, times: list[int], interval: float) -> list[Lesson]:
    """What a student is measured against at each time, in its updates; see the module's docstring."""
    if not history.taught:
        return []
    name, last = history.result, history.updates.get("teacher", 0)
    if not last:
        raise UserError(
            "supervision_complexity needs a teacher with updates of its own, but this run's moves in its student's"
            " turns: leave the evaluation out for it"
        )
    s = interval_in_batches(interval, history.per_epoch, last)
    found, received = [], {}
    for time in times:
        spaced = min(last, (time // s + 1) * s)
        teachers = {"online": time + 1, "spaced": spaced, "offline": last}
        found += [Lesson(target, (name, time), ("teacher", k)) for target, k in teachers.items()]
        if own := [update for update, k in enumerate(history.taught) if k == spaced]:
            nearest = min(own, key=lambda update, time=time: abs(update - time))
            received.setdefault(spaced, Lesson("received", (name, nearest), ("teacher", spaced)))
    return found + list(received.values())


def spectrum(kernel: Tensor, ridge: float) -> Spectrum:
    """Eigenpairs of a symmetric kernel (n, n); ε = ridge · Tr H / n."""
    values, vectors = torch.linalg.eigh(kernel.double())
    return Spectrum(values.clamp(min=0), vectors, ridge * kernel.diagonal().double().mean().item())


def complexity(spectrum: Spectrum, residual: Tensor) -> tuple[float, float, float]:
    """C, and its parts ‖r‖/√n and A; `residual` is r (n, K), float64."""
    along = (spectrum.vectors.T @ residual).square().sum(1)
    mean = spectrum.values.mean()
    size = (along.sum() / len(along)).sqrt()
    found = (mean * (along / (spectrum.values + spectrum.epsilon)).sum() / len(along)).sqrt()
    return found.item(), size.item(), (found / size).item()


def conditioning(spectrum: Spectrum) -> dict[str, float]:
    """Condition number of H + εI; the smallest eigenvalue of H over the mean one."""
    values, epsilon = spectrum.values, spectrum.epsilon
    return {
        "condition": ((values[-1] + epsilon) / (values[0] + epsilon)).item(),
        "smallest_eigenvalue": (values[0] / values.mean()).item(),
    }


def cosine(one: Tensor, other: Tensor) -> float:
    """⟨H, H'⟩ / (‖H‖ ‖H'‖), Frobenius."""
    return ((one * other).sum() / (one.norm() * other.norm())).item()


def _rows(
    student: Seen, y: Tensor, temperature: float, labels: Tensor, about: dict, similarity: float | None = None
) -> Iterator[dict]:
    """Rows of one student and target; `about` tells which."""
    log_p = (student.logits / temperature).log_softmax(1)
    whole, size, alignment = complexity(student.spectrum, y - log_p.exp())
    yield {"metric": "complexity", "value": whole} | about
    yield {"metric": "residual", "value": size} | about
    if size:  # else the student has it all, and there is no direction
        yield {"metric": "alignment", "value": alignment} | about
    own, _, _ = complexity(student.spectrum, y - 1 / y.shape[1])
    yield {"metric": "complexity_of_target", "value": own} | about
    divergence = (torch.special.xlogy(y, y) - y * log_p).sum(1).mean().item()
    yield {"metric": "divergence", "value": divergence} | about
    first = y.argmax(1)
    agreement = 100 * (student.logits.argmax(1) == first).double().mean().item()
    yield {"metric": "agreement", "value": agreement} | about
    yield {"metric": "target_accuracy", "value": 100 * (labels == first).double().mean().item()} | about
    own_logit = student.logits.gather(1, first[:, None])
    others = student.logits.scatter(1, first[:, None], -torch.inf).amax(1, keepdim=True)
    yield {"metric": "margin", "value": (own_logit - others).mean().item()} | about
    if similarity is not None:
        yield {"metric": "similarity", "value": similarity} | about
