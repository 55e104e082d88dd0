"""A network, its optimiser, and a learning rate that depends on the learner's own steps alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spaced_kd.spec import RunSpec


def learning_rate(spec: RunSpec, step: int, per_epoch: int, total: int) -> float:
    """Learning rate of a learner's step (from 0) of `total`: linear warm-up, then constant, in steps, or cosine."""
    warmup = round(spec.warmup_epochs * per_epoch)
    if step < warmup:
        return spec.lr * (step + 1) / warmup
    if spec.lr_schedule == "steps":
        return spec.lr / 10 ** sum(step >= epoch * per_epoch for epoch in spec.lr_drops)
    if spec.lr_schedule == "constant":
        return spec.lr
    done = (step - warmup) / max(1, total - warmup)
    return spec.min_lr + (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * done)) / 2


def backward(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave the gradients of the sum of loss terms in the parameters; gives the terms, detached."""
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}


class Learner:
    """One network that learns; `steps` counts its own updates.

    Args:
        network: what is evaluated in the end.
        extra: further modules that the same optimiser trains, such as alignment layers.
        spec: the recipe.
        per_epoch: batches of an epoch.
        total: updates that this learner will take in all.
        drifting: whether parts that a step leaves out move on by momentum and weight decay, once they have learnt.
        beside: another learner whose optimiser this one shares: all that a step of either leaves out moves on.
    """

    def __init__(
        self,
        network: nn.Module,
        extra: list[nn.Module],
        spec: RunSpec,
        per_epoch: int,
        total: int,
        *,
        drifting: bool = False,
        beside: "Learner | None" = None,
    ) -> None:
        self.network, self.spec, self.per_epoch, self.total, self.steps = network, spec, per_epoch, total, 0
        self.drifting = drifting
        parameters = [p for module in (network, *extra) for p in module.parameters()]
        self.optimizer: torch.optim.Optimizer
        if beside:
            self.optimizer = beside.optimizer
            self.optimizer.add_param_group({"params": parameters})
        elif spec.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                parameters,
                lr=spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
            )
        else:
            self.optimizer = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)

    @property
    def sharing(self) -> bool:
        """Whether another learner's parameters are in the optimiser, too."""
        return len(self.optimizer.param_groups) > 1

    def learn(self, index: int, passes: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """One update; gives the loss terms, which the next turn may overwrite on a GPU.

        Args:
            index: number of the batch.
            passes: forward and backward, as `backward` ends them: leaves gradients, and gives the loss terms.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, self.steps, self.per_epoch, self.total)
        self.optimizer.zero_grad()
        losses = passes()
        if self.drifting or self.sharing:
            self._let_idle_parts_drift()
        self.optimizer.step()
        self.steps += 1
        return losses

    def _let_idle_parts_drift(self) -> None:
        """Zero gradients instead of none for what has learnt before: what `zero_grad` left behind before torch 2.0.

        In a shared optimiser for everything, whose decay then begins with the other learner's first step (V2).
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None and (self.sharing or self.optimizer.state.get(parameter)):
                    parameter.grad = torch.zeros_like(parameter)
