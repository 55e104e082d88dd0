"""Slices of the loss surface around a trained network, along random directions that are filter-normalised.

A direction d has a number for each weight, drawn from N(0, 1); then each filter j of layer i in it gets the length of
the network's own filter,

    d_ij ← d_ij ‖θ_ij‖ / ‖d_ij‖.

A filter is what makes one output: a slice of a weight tensor along its first axis, of a convolution as of a linear
layer. So a step of 1 moves each filter by its own length, and two networks can be compared although scaling a filter
up before a batch norm changes the curvature and not the network.

Tensors of one axis stay as they are: biases, and the scales and shifts of batch and layer normalisation. So do buffers:
with the network in eval mode, batch normalisation uses the running statistics of the unmoved network.

Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", Sec. 4. What stays is as in the authors' code
by default.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from spaced_kd.data.dataset import Data
from spaced_kd.utils.seeding import generator

BATCH = 250  # images at a time


def direction(network: nn.Module, seed: int, index: int = 0) -> dict[str, Tensor]:
    """The filter-normalised direction number `index`: name -> tensor of the parameter's shape; without what stays.

    Its draws depend on seed and index only, the same for all networks of a shape, so that differences are paired.
    """
    draws = generator(seed, "direction of the loss surface", index)
    found = {}
    for name, weights in network.named_parameters():
        if weights.ndim > 1:
            d = torch.as_tensor(draws.standard_normal(tuple(weights.shape), dtype=np.float32), device=weights.device)
            axes = tuple(range(1, d.ndim))
            found[name] = d * (_length(weights.detach(), axes) / _length(d, axes))
    return found


def losses(
    network: nn.Module,
    data: Data,
    directions: Sequence[dict[str, Tensor]],
    steps: Sequence[float],
    *,
    images: int = 500,
) -> np.ndarray:
    """Mean cross-entropy (nats) at every θ + Σ_k a_k d_k with a_k from `steps`; an axis of the array per direction k.

    Args:
        network: in eval mode; images -> logits (B, classes). It is left untouched.
        data: dataset whose training images are classified, without augmentation.
        directions: K of them, from `direction`.
        steps: S of them, in lengths of the filters; (S,) * K is the shape of what is returned.
        images: number of training images, the same for every network.
    """
    chosen = data.subset("train", images)
    inputs, labels = data.normalise(data.images["train"][chosen]), data.labels["train"][chosen]
    theta = {name: weights.detach() for name, weights in network.named_parameters()}
    values = []
    with torch.inference_mode():
        for point in product(steps, repeat=len(directions)):
            moved = dict(theta)
            for step, d in zip(point, directions, strict=True):
                moved |= {name: moved[name] + step * d[name] for name in d}
            logits = torch.cat([functional_call(network, moved, (batch,)) for batch in inputs.split(BATCH)])
            values.append(F.cross_entropy(logits, labels).item())
    return np.reshape(values, (len(steps),) * len(directions))


def _length(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(tensor, dim=axes, keepdim=True)
