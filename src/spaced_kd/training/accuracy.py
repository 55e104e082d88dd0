"""Accuracies of a run from its predictions, without torch."""

from typing import Any

import numpy as np

from spaced_kd.config.validation import TAIL_STATES
from spaced_kd.utils.seeding import generator


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Top-1 accuracy in percent over the last axis."""
    return 100 * (predictions == labels).mean(axis=-1)


def accuracy_rows(
    epochs: list[int], predictions: np.ndarray, labels: np.ndarray, held_out: list[float] | None = None
) -> list[dict[str, Any]]:
    """Accuracy of the last epoch, of the best epoch on test, and by halves; and the curve. `predictions`: (epochs, N).

    `halves`: the epoch is chosen on one fixed random half of the test set and scored on the other half, and the
    reverse; the value is the mean of both. Unlike `best`, the maximum over test accuracies, it is not optimistic. With
    `held_out`, accuracies on held-out training images by epoch, also the test accuracy of the epoch that is best there.
    """
    curve = accuracy(predictions, labels)
    rows = [{"selection": "curve", "epoch": epoch, "value": value} for epoch, value in zip(epochs, curve, strict=True)]
    best = int(curve.argmax())
    rows += [{"selection": "last", "epoch": epochs[-1], "value": curve[-1]}]
    rows += [{"selection": "best", "epoch": epochs[best], "value": curve[best]}]
    if held_out:
        chosen = int(np.argmax(held_out))
        rows += [{"selection": "held_out", "epoch": epochs[chosen], "value": curve[chosen]}]
    order = generator(0, "halves of test").permutation(len(labels))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    scores = []
    for chooser, scorer in (halves, halves[::-1]):
        chosen = accuracy(predictions[:, chooser], labels[chooser]).argmax()
        scores.append(accuracy(predictions[chosen, scorer], labels[scorer]))
    rows += [{"selection": "halves", "value": np.mean(scores)}]
    return [{"metric": "accuracy", **row, "value": float(row["value"])} for row in rows]


def tail_rows(
    predictions: np.ndarray | list[np.ndarray], labels: np.ndarray, held_out: list[float] | None = None
) -> list[dict[str, Any]]:
    """Mean accuracy over the states in the last tenth of the network's own steps; no row for fewer than three states.

    The mean reduces the noise of a single state without selecting one. With the accuracies on held-out training images
    of each state, also their mean as metric `held_out_accuracy`, for selecting recipes. `predictions`: (states, N).
    """
    if (states := len(predictions)) < TAIL_STATES:
        return []
    values = {"accuracy": accuracy(np.stack(predictions), labels)} | (
        {"held_out_accuracy": held_out} if held_out else {}
    )
    return [
        {"metric": metric, "selection": "tail", "states": states, "value": float(np.mean(value))}
        for metric, value in values.items()
    ]
