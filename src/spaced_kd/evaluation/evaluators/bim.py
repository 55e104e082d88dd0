"""Accuracy under the basic iterative method (BIM), a white-box attack in the maximum norm.

With x an image in [0, 1], y its class, L the cross-entropy, ε the budget and α the step,

    x_0 = x,    x_{i+1} = clip_{x, ε}(x_i + α sign ∇_x L(x_i, y)),

where clip keeps each pixel within ε of x and in [0, 1]. The attack sees pixels: normalisation is part of the network.

Source: Kurakin et al. 2017, "Adversarial Examples in the Physical World", whose α is 1. The paper (Tab. 12) gives
neither ε, α nor the number of steps; its networks keep 31 % accuracy. With the defaults, a small ResNet keeps a third
of its accuracy on ten classes of Tiny-ImageNet.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torchattacks import BIM

from spaced_kd.data.dataset import Data

BATCH = 250  # images at a time
RANGES = {"epsilon": "(0, 255]", "step": "(0, 255]", "steps": "[0, inf)", "images": "[1, inf)"}


def evaluate(
    network: nn.Module,
    data: Data,
    *,
    seed: int,
    epsilon: float = 3.0,
    step: float = 1.0,
    steps: int = 10,
    images: int = 500,
) -> Iterator[dict]:
    """Row "accuracy" (percent) for the images as they are (epsilon 0) and one for the attacked images.

    Args:
        network: in eval mode; images -> logits (B, classes).
        data: dataset whose test images are attacked.
        seed: unused, the attack draws nothing.
        epsilon: ε, in 255ths of the range of a pixel.
        step: α, in 255ths.
        steps: number of steps; 0 for the source's min(ε + 4, 1.25 ε).
        images: number of test images.
    """
    chosen = data.subset("test", images)
    labels = data.labels["test"][chosen]
    clean = data.images["test"][chosen].permute(0, 3, 1, 2).float() / 255
    # eval here, too: torchattacks puts a model back into the mode that it found, and a new module is in training mode
    model = _OnPixels(network, data).eval()
    attack = BIM(model, eps=epsilon / 255, alpha=step / 255, steps=steps)
    batches = zip(clean.split(BATCH), labels.split(BATCH), strict=True)
    attacked = torch.cat([attack(batch, classes) for batch, classes in batches])
    for budget, inputs in ((0.0, clean), (epsilon, attacked)):
        predicted = _predict(model, inputs)
        yield {
            "metric": "accuracy",
            "value": 100 * (predicted == labels).sum().item() / len(labels),
            "epsilon": budget,
            "predictions": predicted.cpu().numpy().astype(np.uint16),
        }


class _OnPixels(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> logits (B, classes)."""

    def __init__(self, network: nn.Module, data: Data) -> None:
        super().__init__()
        self.network = network
        self.normalise = data.normalise

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalise(images))


@torch.inference_mode()
def _predict(model: nn.Module, images: Tensor) -> Tensor:
    """Predicted classes (N,)."""
    return torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)])
