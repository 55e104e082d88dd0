"""Accuracy on corrupted test images: noise, blur, weather, digital, of several severities.

Source: Michaelis et al. 2019, "Benchmarking Robustness in Object Detection" (the package imagecorruptions), after
Hendrycks and Dietterich 2019. The paper's six corruptions and three severities (Tab. 5 and 11) are the defaults; each
network sees the same corrupted images, made once per dataset. With all five severities, the mean accuracy is over the
corruptions asked for and the severities, each with the same weight.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from spaced_kd.data.dataset import Data

BATCH = 250  # images at a time
RANGES = {
    "names": (
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "speckle_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "gaussian_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "spatter",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
        "saturate",
    ),
    "severities": (1, 2, 3, 4, 5),
    "images": "[1, inf)",
}


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

    Of all five severities, one row "mean_accuracy" at last.

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
    corrupted = data.corrupted(images, names, severities)
    wanted = [(name, severity) for name in names for severity in severities]
    accuracies = []
    for name, severity in [("clean", 0), *wanted]:
        predicted = _predict(network, data, corrupted[name, severity].to(labels.device))
        accuracies.append(100 * (predicted == labels).sum().item() / len(labels))
        yield {
            "metric": "accuracy",
            "value": accuracies[-1],
            "corruption": name,
            "severity": severity,
            "predictions": predicted.cpu().numpy().astype(np.uint16),
        }
    if set(severities) == set(RANGES["severities"]):
        yield {"metric": "mean_accuracy", "value": sum(accuracies[1:]) / len(wanted)}


@torch.inference_mode()
def _predict(network: nn.Module, data: Data, images: Tensor) -> Tensor:
    """Predicted classes (N,) of uint8 images (N, H, W, 3)."""
    return torch.cat([network(data.normalise(batch)).argmax(1) for batch in images.split(BATCH)])
