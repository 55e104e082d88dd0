"""Test accuracy with batch norm's running statistics estimated anew: what a network has learnt, without their lag.

During training running statistics are an exponential average over the last batches (momentum 0.1), each under the
weights of its own step. While weights move fast they lag behind, and so does an accuracy that is taken with them. Here
they are the average over all training images under the final weights: in fixed order, without augmentation, in training
batches of one size, weighted by their images. No weight changes, and all else stays in eval mode.

Both accuracies are taken in float32, so their difference is the lag alone; a run's own accuracy was taken in the run's
precision. A network without batch norm has two equal ones.

Source: "precise" batch norm of Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3. The paper measures
none.
"""

from collections.abc import Iterator

import torch
from torch import nn

from spaced_kd.data.dataset import Data
from spaced_kd.training.batch_norm import reestimated

SOURCES = ["../../training/batch_norm.py"]
BATCH = 500  # test images at a time
RANGES = {"batch_size": "[2, inf)"}


def evaluate(network: nn.Module, data: Data, *, seed: int, batch_size: int = 128) -> Iterator[dict]:
    """Rows "accuracy" with the new statistics, "accuracy_as_trained" with those of training; in percent.

    Args:
        network: in eval mode; images -> logits (B, classes). It is left untouched.
        data: dataset whose training images give the statistics, and whose test images are classified.
        seed: unused, nothing is drawn.
        batch_size: training images of a batch, at most; at least 2.
    """
    anew = reestimated(network, data, batch_size)
    yield {"metric": "accuracy", "value": _accuracy(anew, data)}
    yield {"metric": "accuracy_as_trained", "value": _accuracy(network, data)}


def _accuracy(network: nn.Module, data: Data) -> float:
    """Top-1 accuracy on the test images in percent."""
    labels = data.labels["test"]
    parts = zip(data.images["test"].split(BATCH), labels.split(BATCH), strict=True)
    with torch.inference_mode():
        correct = sum((network(data.normalise(images)).argmax(1) == right).sum().item() for images, right in parts)
    return 100 * correct / len(labels)
