"""A learner: a network, its optimiser, and a learning rate that depends on its own steps only."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd.config.run_spec import RunSpec


def learning_rate(spec: RunSpec, step: int, per_epoch: int, total: int) -> float:
    """Learning rate of a learner's step (from 0) of `total`: linear warm-up, then constant, stepwise or cosine."""
    warmup = round(spec.warmup_epochs * per_epoch)
    if step < warmup:
        return spec.warmup_lr + (spec.lr - spec.warmup_lr) * (step + 1) / warmup
    if spec.lr_schedule == "steps":
        return spec.lr / 10 ** sum(step >= epoch * per_epoch for epoch in spec.lr_drops)
    if spec.lr_schedule == "constant":
        return spec.lr
    done = (step - warmup) / max(1, total - warmup)
    return spec.min_lr + (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * done)) / 2


def learning_rate_of_epoch(spec: RunSpec, epoch: int) -> float:
    """Learning rate of epoch t (from 0) of the data, as in timm's scheduler without a warm-up prefix (C2).

    Warm-up is warmup_lr + (lr - warmup_lr) t / warmup_epochs, cosine min_lr + (lr - min_lr) (1 + cos(pi t / epochs)) /
    2. The cosine starts at the first epoch, so it is already below lr when the warm-up ends.
    """
    if epoch < spec.warmup_epochs:
        return spec.warmup_lr + epoch * (spec.lr - spec.warmup_lr) / spec.warmup_epochs
    if spec.lr_schedule == "steps":
        return spec.lr / 10 ** sum(epoch >= drop for drop in spec.lr_drops)
    if spec.lr_schedule == "constant":
        return spec.lr
    return spec.min_lr + (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2


def parameter_groups(modules: Sequence[nn.Module], spec: RunSpec) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: one of all parameters, or a second one without weight decay (C1).

    Without weight decay are biases, parameters of one dimension, and those that the network names in
    `no_weight_decay()`, as timm's do: tokens and position embeddings.
    """
    named = [(module, *each) for module in modules for each in module.named_parameters()]
    if spec.weight_decay_on == "all":
        return [{"params": [parameter for *_, parameter in named]}]
    named_by_network = {module: _spared(module) for module in modules}
    spared = [
        parameter.ndim <= 1 or name.endswith("bias") or name in named_by_network[module]
        for module, name, parameter in named
    ]
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    for (*_, parameter), without in zip(named, spared, strict=True):
        groups[without]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def _spared(network: nn.Module) -> set[str]:
    """Names of the parameters that the network, or a module in it, excludes from weight decay."""
    asking = {prefix: part for prefix, part in network.named_modules() if hasattr(part, "no_weight_decay")}
    return {f"{prefix}.{name}".lstrip(".") for prefix, part in asking.items() for name in part.no_weight_decay()}


def backward(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the gradients of the sum of loss terms to the parameters; returns the terms, detached."""
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}


class Learner:
    """One network that learns; `steps` counts its own updates.

    Args:
        network: evaluated at the end.
        extra: further modules that the same optimiser trains, such as alignment layers.
        spec: the recipe.
        per_epoch: batches of an epoch.
        total: updates that this learner will take in all.
        drifting: whether modules without a gradient in a step still move by momentum and weight decay, once trained.
        beside: another learner whose optimiser this one shares; parameters without a gradient in a step still move.
        epochs: of the data at each of its updates, if the learning rate is set per epoch.
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
        epochs: Sequence[int] | None = None,
    ) -> None:
        self.network, self.spec, self.per_epoch, self.total, self.steps = network, spec, per_epoch, total, 0
        self.drifting, self.epochs = drifting, epochs
        self.sharers: list[Learner] = beside.sharers if beside else []  # of the optimiser, this one among them
        self.sharers.append(self)
        groups = parameter_groups((network, *extra), spec)
        self.optimizer: torch.optim.Optimizer
        if beside:
            self.optimizer = beside.optimizer
            for group in groups:
                self.optimizer.add_param_group(group)
        elif spec.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                groups,
                lr=spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
            )
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=spec.lr, weight_decay=spec.weight_decay)

    @property
    def sharing(self) -> bool:
        """Whether another learner's parameters are in the optimiser, too."""
        return len(self.sharers) > 1

    def learn(self, index: int, passes: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """One update; returns the loss terms, which the next turn may overwrite on a GPU.

        Args:
            index: number of the batch.
            passes: forward and backward pass, as `backward`: sets gradients and returns the loss terms.
        """
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        losses = passes()
        if self.drifting or self.sharing:
            self._let_idle_parts_drift()
        self.optimizer.step()
        self.steps += 1
        return losses

    def _learning_rate(self) -> float:
        if self.epochs is None:
            return learning_rate(self.spec, self.steps, self.per_epoch, self.total)
        return learning_rate_of_epoch(self.spec, self.epochs[self.steps])

    def _let_idle_parts_drift(self) -> None:
        """Set missing gradients to zero for parameters that have learnt before, as `zero_grad` did before torch 2.0.

        In a shared optimiser for all parameters, whose decay then starts with the other learner's first step (V2).
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None and (self.sharing or self.optimizer.state.get(parameter)):
                    parameter.grad = torch.zeros_like(parameter)


class Onlooker:
    """Takes turns without an update: a batch in train mode updates the running statistics of the learner's network."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.network = learner, learner.network

    @property
    def steps(self) -> int:
        """The learner's updates, of which none is its own."""
        return self.learner.steps

    def learn(self, index: int, passes: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Both passes without an update; returns the loss terms. The learner's next update discards the gradients."""
        self.learner.optimizer.zero_grad()
        return passes()
