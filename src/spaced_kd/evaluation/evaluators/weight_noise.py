"""Loss and accuracy on training images after Gaussian noise on all weights: how flat the minimum is.

For each draw k and each σ, with θ all parameters of the network,

    θ' = θ + σ ε,    ε ~ N(0, I),

and the mean cross-entropy and the top-1 accuracy of θ' on the same images, without augmentation. Buffers, and so the
running statistics of batch normalisation, stay as they are. ε depends on seed and draw only: it is the same for every σ
and for every network of the same shape, so that differences between networks are paired.

Source: the paper's Fig. 4, after Zhang et al. 2018, "Deep Mutual Learning". It gives neither σ nor the number of draws.
The defaults take a small trained network from unharmed to half of its accuracy or less.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from spaced_kd.data.dataset import Data
from spaced_kd.utils.seeding import generator

BATCH = 250  # images at a time
RANGES = {"sigmas": "(0, inf)", "draws": "[1, inf)", "images": "[1, inf)"}


def evaluate(
    network: nn.Module,
    data: Data,
    *,
    seed: int,
    sigmas: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03, 0.05),
    draws: int = 5,
    images: int = 500,
    relative: bool = False,
) -> Iterator[dict]:
    """Rows "loss" (nats) and "accuracy" (percent) for the network as it is (sigma 0, draw 0), then per draw and sigma.

    Args:
        network: in eval mode; images -> logits (B, classes). It is left untouched.
        data: dataset whose training images are classified.
        seed: of ε.
        sigmas: standard deviations of the noise, in units of the weights; with `relative`, of their root mean square.
        draws: number of directions ε.
        images: number of training images.
        relative: scale the noise of each tensor of weights w by its root mean square, θ' = θ + σ rms(w) ε.
    """
    chosen = data.subset("train", images)
    inputs, labels = data.normalise(data.images["train"][chosen]), data.labels["train"][chosen]
    theta = {name: weights.detach() for name, weights in network.named_parameters()}
    yield from _rows(network, theta, inputs, labels, sigma=0.0, draw=0)
    for draw in range(1, draws + 1):
        epsilon = _noise(theta, seed, draw)
        if relative:
            epsilon = {name: theta[name].square().mean().sqrt() * noise for name, noise in epsilon.items()}
        for sigma in sigmas:
            moved = {name: weights + sigma * epsilon[name] for name, weights in theta.items()}
            yield from _rows(network, moved, inputs, labels, sigma=sigma, draw=draw)


def _noise(theta: dict[str, Tensor], seed: int, draw: int) -> dict[str, Tensor]:
    """ε of one draw, drawn on the CPU so that every device gets the same."""
    draws = generator(seed, "weight noise", draw)
    noise = {name: draws.standard_normal(tuple(weights.shape), dtype=np.float32) for name, weights in theta.items()}
    return {name: torch.as_tensor(values, device=theta[name].device) for name, values in noise.items()}


def _rows(
    network: nn.Module, theta: dict[str, Tensor], inputs: Tensor, labels: Tensor, **settings: float
) -> list[dict]:
    """Loss and accuracy with the weights θ, which are lent to the network for the call only."""
    with torch.inference_mode():
        logits = torch.cat([functional_call(network, theta, (batch,)) for batch in inputs.split(BATCH)])
        loss = F.cross_entropy(logits, labels).item()
        accuracy = 100 * (logits.argmax(1) == labels).sum().item() / len(labels)
    return [
        {"metric": "loss", "value": loss, **settings},
        {"metric": "accuracy", "value": accuracy, **settings},
    ]
