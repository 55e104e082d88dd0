"""The proof of Theorem 4.4, measured in its own setting on networks that are small enough for exact derivatives.

The setting (Sec. 4.2): one output, squared error for task and distillation, plain SGD (Eq. 3, 5), and more parameters
than images, so that teacher g and student f end with g_φ*(x_i) = f_θ*(x_i) = y_i. With (Eq. 6)

    β_i = (1 − α)(f_θ(x_i) − y_i) + α(f_θ(x_i) − g_φ(x_i)),    ∇L_i = β_i ∇f_θ(x_i),

    Tr H_φ(θ) = 1/N Σ_i ‖∇f_θ(x_i)‖² + β_i Tr ∇²f_θ(x_i),

and Δφ = φ − φ*, the proof compares the teachers of a student's step t: φ_t of online KD and φ_k of Spaced KD.

    u(φ) = 1/N Σ_i |Δφᵀ∇g_φ*(x_i)|                        Lemma 4.3:    u(φ_k) ≤ u(φ_t)
    S(φ) = α/N Σ_i Δφᵀ∇g_φ*(x_i) Tr ∇²f_θ*(x_i)           proof, A.1:   S(φ_k) ≤ S(φ_t), "by Lemma 4.3"
    Tr H_φ(θ*)                                            Theorem 4.4:  Tr H_φk(θ*) ≤ Tr H_φt(θ*)

Two of its steps do not follow. A bound on a mean of absolute values orders no signed sum: Δφᵀ∇g = (1, −1) has a larger
u than (1, 0), and with Tr ∇²f = (1, 1) a smaller S. And where f = y, β_i is −α(g_φ − y_i), so Eq. 7 has the wrong sign:
Tr H_φ(θ*) is 1/N Σ‖∇f‖² − S(φ), and S(φ_k) ≤ S(φ_t) would order the traces the other way.

The networks of all seeds are trained side by side, a row of parameters each; whatever is measured is float64.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, hessian, vmap
from tqdm import tqdm

from spaced_kd.distillation.schedule import interval_in_batches, turns
from spaced_kd.utils.seeding import generator


@dataclass(frozen=True)
class Setting:
    """What is trained, and where it is measured."""

    digits: tuple[int, int] = (3, 8)  # the two classes, y = −1 and 1
    per_class: int = 16  # images
    hidden: int = 8  # tanh units: 529 parameters for 64 pixels
    lr: float = 0.2
    batch_size: int = 8  # divides the number of images
    epochs: int = 4000  # θ* and φ* are where they end: within 0.01 of ±1 on every image
    alpha: float = 0.3  # weight of the distillation loss; Sec. 5.1
    intervals: tuple[float, ...] = (0, 1.5, 15)  # epochs; 0 is online KD
    windows: tuple[int, ...] = (60, 120, 240, 480, 960, 1920)  # first epochs of what is measured
    length: int = 60  # epochs of a window: whole blocks of every interval, so that every place in one counts alike

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return 2 * self.per_class // self.batch_size

    @property
    def measured(self) -> dict[int, int]:
        """Batch of a student's step that is measured -> first epoch of its window."""
        steps = self.length * self.per_epoch
        return {first * self.per_epoch + step: first for first in self.windows for step in range(steps)}


def measure(seeds: int, setting: Setting = Setting()) -> Iterator[dict[str, Any]]:
    """Train teachers and students of seeds 0, 1, ..., and give tidy rows: one value per seed, interval and window.

    A value is the mean over the student's steps in the window, whose first epoch is the row's; what is measured where
    training ends has the last epoch. Metrics:

    - teacher_gap: u(φ), and signed_sum: S(φ) with θ* of online KD
    - linear_error: 1/N Σ |g_φ − g_φ* − Δφᵀ∇g_φ*| in parts of 1/N Σ |g_φ − g_φ*|
    - trace: Tr H_φ(θ*) with θ* of online KD, as in the proof; own_trace: with θ* of the same student
    - teacher_error, student_error: the largest |g_φ*(x_i) − y_i| and |f_θ*(x_i) − y_i| where training ends
    """
    torch.set_num_threads(1)
    x, y = images(setting)
    runs = {interval: train(seeds, interval, x, y, setting) for interval in setting.intervals}
    phi_star = runs[0].phi  # the same in all: a teacher never sees its student
    g_star = network(phi_star, x)
    g_gradients = gradients(phi_star, x)
    ends = {interval: End(run.theta, x) for interval, run in runs.items()}
    for interval, run in runs.items():
        found: dict[tuple[str, int], Tensor] = {}
        for first, phis in run.teachers.items():
            phi = torch.stack(phis)
            g = network(phi, x)
            delta = torch.einsum("tsp,snp->tsn", phi - phi_star, g_gradients)  # Δφᵀ∇g: (steps, seeds, N)
            moved = g - g_star
            found |= {
                ("teacher_gap", first): delta.abs().mean(-1).mean(0),
                ("signed_sum", first): setting.alpha * (delta * ends[0].laplacians).mean(-1).mean(0),
                ("linear_error", first): ((moved - delta).abs().mean(-1) / moved.abs().mean(-1)).mean(0),
                ("trace", first): ends[0].trace(g, y, setting.alpha).mean(0),
                ("own_trace", first): ends[interval].trace(g, y, setting.alpha).mean(0),
            }
        found["teacher_error", setting.epochs] = (g_star - y).abs().amax(-1)
        found["student_error", setting.epochs] = (ends[interval].f - y).abs().amax(-1)
        for (metric, epoch), values in found.items():
            for seed, value in enumerate(values.tolist()):
                arm = {"method": "online_kd", "interval": f"{interval:g}", "seed": seed}
                yield place(setting) | arm | {"epoch": epoch, "metric": metric, "value": value}


def place(setting: Setting) -> dict[str, str]:
    """What rows say of where they were measured."""
    small = f"tanh[hidden={setting.hidden}]"
    recipe = f"epochs={setting.epochs} batch_size={setting.batch_size} lr={setting.lr:g}"
    data = f"digits[classes={setting.digits[0]},{setting.digits[1]} train_per_class={setting.per_class}]"
    return {"evaluation": "theory", "dataset": data, "network": small, "teacher": small, "recipe": recipe}


def images(setting: Setting) -> tuple[Tensor, Tensor]:
    """Handwritten digits x (N, 64), centred and of mean norm 4, and their classes y (N,), −1 or 1.

    Source: the first ones of each class in scikit-learn's set, see `datasets/digits.py`.
    """
    from sklearn.datasets import load_digits  # costs 2.5 s

    bunch = load_digits()
    chosen = np.concatenate([np.flatnonzero(bunch.target == digit)[: setting.per_class] for digit in setting.digits])
    x = torch.from_numpy(bunch.data[chosen])
    x = x - x.mean(0)
    y = torch.ones(len(x), dtype=x.dtype)
    y[: setting.per_class] = -1
    return 4 * x / x.norm(dim=1).mean(), y


def network(parameters: Tensor, x: Tensor) -> Tensor:
    """f(x) = aᵀ tanh(W x + b) + c of images (..., n, D): (..., n), for parameters (..., P) in the order W, b, a, c."""
    inputs = x.shape[-1]
    hidden = parameters.shape[-1] // (inputs + 2)
    weights, b, a, c = parameters.split([hidden * inputs, hidden, hidden, 1], dim=-1)
    inner = torch.tanh(x @ weights.unflatten(-1, (hidden, inputs)).mT + b.unsqueeze(-2))
    return (inner @ a.unsqueeze(-1)).squeeze(-1) + c


def _one(parameters: Tensor, image: Tensor) -> Tensor:
    """f(x) of a network (P,) and an image (D,): a scalar."""
    return network(parameters, image.unsqueeze(0)).squeeze(0)


def initial(seed: int, inputs: int, hidden: int) -> Tensor:
    """Parameters (P,) of a seed: W and a normal with variance 1 / fan-in, no offsets."""
    draws = generator(seed, "theory weights")
    weights, a = draws.normal(size=hidden * inputs) / inputs**0.5, draws.normal(size=hidden) / hidden**0.5
    return torch.from_numpy(np.concatenate([weights, np.zeros(hidden), a, np.zeros(1)]))


def loss(theta: Tensor, x: Tensor, y: Tensor, target: Tensor | None = None, alpha: float = 0.0) -> Tensor:
    """L of Sec. 4.2, the mean over images (..., n): (1 − α) ½(f − y)² + α ½(f − g)², g being the `target`; (...)."""
    f = network(theta, x)
    task = (f - y).square() / 2
    return (task if target is None else (1 - alpha) * task + alpha * (f - target).square() / 2).mean(-1)


def slope(theta: Tensor, *arguments: Any) -> Tensor:
    """∇L of every network, (seeds, P); `arguments` as of `loss`. Seeds do not meet in the sum."""
    theta = theta.detach().requires_grad_()
    return torch.autograd.grad(loss(theta, *arguments).sum(), theta)[0]


def gradients(parameters: Tensor, x: Tensor) -> Tensor:
    """∇f(x_i) of every network and image, (seeds, N, P)."""
    return vmap(vmap(grad(_one), (None, 0)), (0, None))(parameters, x)


def laplacians(parameters: Tensor, x: Tensor) -> Tensor:
    """Tr ∇²f(x_i) of every network and image, (seeds, N), from whole Hessians of f, some at a time."""
    trace = vmap(lambda one, image: hessian(_one)(one, image).trace(), (None, 0))
    return torch.stack([trace(one, x) for one in parameters])


class End:
    """Where students have ended, θ* (seeds, P): f_θ*(x_i) and Tr ∇²f_θ*(x_i), (seeds, N); 1/N Σ‖∇f‖², (seeds,)."""

    def __init__(self, theta: Tensor, x: Tensor) -> None:
        self.f = network(theta, x)
        self.laplacians = laplacians(theta, x)
        self.squares = gradients(theta, x).square().sum(-1).mean(-1)

    def trace(self, g: Tensor, y: Tensor, alpha: float) -> Tensor:
        """Tr H_φ(θ*) by Eq. 8, first line, for what the teachers say, g = g_φ(x_i) (..., seeds, N)."""
        beta = (1 - alpha) * (self.f - y) + alpha * (self.f - g)
        return self.squares + (beta * self.laplacians).mean(-1)


@dataclass
class Run:
    """Teachers and students of all seeds after a training."""

    phi: Tensor  # (seeds, P)
    theta: Tensor  # (seeds, P)
    teachers: dict[int, list[Tensor]]  # first epoch of a window -> φ (seeds, P) at each of the student's steps


def train(seeds: int, interval: float, x: Tensor, y: Tensor, setting: Setting) -> Run:
    """Alg. 1 or 2 for all seeds at once. Seed i has the same initial weights and batches at every interval."""
    phi = torch.stack([initial(seed, x.shape[1], setting.hidden) for seed in range(seeds)])
    theta = phi.clone()
    total = setting.epochs * setting.per_epoch
    order = turns(total, interval_in_batches(interval, setting.per_epoch, total))
    teachers: dict[int, list[Tensor]] = defaultdict(list)
    measured = setting.measured
    batches = orders(seeds, setting)
    for role, index in tqdm(order, f"interval {interval:g}", 2 * total, mininterval=5, unit="turn"):
        ids = batches[index]
        if role == "teacher":
            phi = phi - setting.lr * slope(phi, x[ids], y[ids])
        else:
            theta = theta - setting.lr * slope(theta, x[ids], y[ids], network(phi, x[ids]), setting.alpha)
            if index in measured:
                teachers[measured[index]].append(phi)
    return Run(phi, theta, teachers)


def orders(seeds: int, setting: Setting) -> Tensor:
    """Images of every batch, (batches, seeds, batch_size): each epoch has all of them in an order of its own."""
    count = 2 * setting.per_class
    drawn = [
        [generator(seed, "theory order", epoch).permutation(count) for seed in range(seeds)]
        for epoch in range(setting.epochs)
    ]
    batches = np.array(drawn).reshape(setting.epochs, seeds, setting.per_epoch, setting.batch_size)
    return torch.from_numpy(batches).transpose(1, 2).flatten(0, 1)
