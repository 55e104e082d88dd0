"""Accuracy on corrupted test images: noise, blur, weather, digital, of several severities.

Source: Michaelis et al. 2019, "Benchmarking Robustness in Object Detection" (the package imagecorruptions), after
Hendrycks and Dietterich 2019. The paper's six corruptions and three severities (Tab. 5 and 11) are the defaults; each
network sees the same corrupted images, made once per dataset.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from spaced_kd.data import Data
from spaced_kd.errors import UserError

BATCH = 250  # images at a time


def evaluate(
    network: nn.Module,
    data: Data,
    *,
    seed: int,
    names: tuple[str, ...] = ("impulse_noise", "zoom_blur", "snow", "frost", "jpeg_compression", "brightness"),
    severities: tuple[int, ...] = (1, 3, 5),
    images: int = 500,
) -> Iterator[dict]:
    """Row "accuracy" (percent) for the clean images ("clean", severity 0), then per corruption and severity.

    Args:
        network: in eval mode; images -> logits (B, classes).
        data: dataset whose test images are classified.
        seed: unused, the corrupted images are fixed.
        names: corruptions, by their names in imagecorruptions.
        severities: strengths from 1 to 5.
        images: number of test images.
    """
    chosen = data.subset("test", images)
    labels = data.labels["test"][chosen]
    corrupted = data.corrupted(images)
    wanted = [(name, severity) for name in names for severity in severities]
    if missing := [key for key in wanted if key not in corrupted]:
        raise UserError(f"the corrupted images lack {missing}: ask for some of {', '.join(map(str, corrupted))}")
    for name, severity in [("clean", 0), *wanted]:
        predicted = _predict(network, data, corrupted[name, severity].to(labels.device))
        yield {
            "metric": "accuracy",
            "value": 100 * (predicted == labels).sum().item() / len(labels),
            "corruption": name,
            "severity": severity,
            "predictions": predicted.cpu().numpy().astype(np.uint16),
        }


@torch.inference_mode()
def _predict(network: nn.Module, data: Data, images: Tensor) -> Tensor:
    """Predicted classes (N,) of uint8 images (N, H, W, 3)."""
    return torch.cat([network(data.normalise(batch)).argmax(1) for batch in images.split(BATCH)])
