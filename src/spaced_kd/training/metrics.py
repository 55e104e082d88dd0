"""Metrics of a training: predictions of every evaluated epoch, losses, FLOPs, time, energy."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spaced_kd.data.dataset import Data
from spaced_kd.training import distributed
from spaced_kd.training.energy import Meter
from spaced_kd.utils.errors import UserError


def predict(network: nn.Module, data: Data, split: str = "test", batch_size: int = 500) -> np.ndarray:
    """Predicted class of every image of a split, uint16 (N,), in eval mode."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [network(data.normalise(images)).argmax(1).cpu() for images in data.images[split].split(batch_size)]
    network.train(training)
    return torch.cat(parts).numpy().astype(np.uint16)


class TrainingMetrics:
    """Predictions per evaluated epoch, mean loss terms per epoch, FLOPs per turn, seconds, joules; survives a resume.

    Args:
        meters: of the energy, by the keys of their sums.
        synchronise: waits for the device, before another run of this process takes its turns.
    """

    def __init__(self, meters: dict[str, Meter], synchronise: Callable[[], None] = lambda: None) -> None:
        self.meters, self.synchronise = meters, synchronise
        self.turns = 0  # done so far; the name of a resume state contains this number
        self.epochs: list[int] = []
        self.evaluated_at: list[tuple[float, float]] = []  # turns done and seconds at each evaluated epoch
        self.predictions: list[np.ndarray] = []
        self.held_out: list[float] = []  # accuracy on held-out training images, where there are any
        self.tail_steps: list[int] = []  # own steps of the network at each state of the tail
        self.tail_predictions: list[np.ndarray] = []  # of these states
        self.tail_held_out: list[float] = []
        self.block_ends: list[int] = []  # batches that the teacher had learnt at each block end, if the method decides
        self.losses: list[dict[str, float]] = []  # one entry per evaluated epoch: means since the one before
        self.flops: dict[str, int] = {}  # "student 128" -> FLOPs of one turn with 128 images, forward and backward
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._started = time.perf_counter(), time.process_time()
        self._away: tuple[float, float] | None = None  # since when another run of this process takes its turns

    def add(self, role: str, losses: dict[str, Tensor]) -> None:
        """Count a turn and add its loss terms to the running means, without a transfer from the device."""
        self.turns += 1
        for name, loss in losses.items():
            key = f"{role}: {name}"
            self._sums[key] = self._sums.get(key, 0) + loss
            self._counts[key] = self._counts.get(key, 0) + 1
        for meter in self.meters.values():
            meter.watch()

    def replays_to(self, end: int) -> None:
        """Record that the student learns a block that ended after `end` batches of the teacher."""
        if self.block_ends[-1:] != [end]:
            self.block_ends.append(end)

    def means(self) -> dict[str, float]:
        """Mean of each loss term since the last evaluated epoch."""
        return {key: float(value) / self._counts[key] for key, value in self._sums.items()}

    def evaluated(self, epoch: int, predictions: np.ndarray, held_out: float | None = None, *, turn: int) -> None:
        """Close an epoch after `turn` turns: keep predictions, mean losses, and the accuracy on held-out images."""
        self.epochs.append(epoch)
        self.evaluated_at.append((turn, self.time()["wall"]))
        self.held_out += [] if held_out is None else [held_out]
        self.predictions.append(predictions)
        self.losses.append(self.means())
        self._sums, self._counts = {}, {}

    def loss_by_role(self, position: int) -> dict[str, float]:
        """Mean total loss of each role that had turns in an evaluated epoch; `position`: of the epoch, from 0."""
        sums: dict[str, float] = {}
        for name, value in self.losses[position].items():
            role = name.partition(":")[0]
            sums[role] = sums.get(role, 0) + value
        return sums

    def tail_evaluated(self, step: int, predictions: np.ndarray, held_out: float | None = None) -> None:
        """Keep predictions and held-out accuracy of a state of the tail, after `step` own steps of the network."""
        self.tail_steps.append(step)
        self.tail_predictions.append(predictions)
        self.tail_held_out += [] if held_out is None else [held_out]

    @contextlib.contextmanager
    def counted(self, role: str, images: int | str) -> Iterator[None]:
        """Count the FLOPs of the first turn of each role and batch size; other turns run as they are."""
        key = f"{role} {images}"
        if key in self.flops:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.flops[key] = distributed.total(counter.get_total_flops())

    def time(self) -> dict[str, float]:
        """Seconds of wall clock and of this process's CPU time, earlier attempts included."""
        wall, cpu = self._started
        now, used = self._away or (time.perf_counter(), time.process_time())
        return {"wall": self.seconds["wall"] + now - wall, "cpu": self.seconds["cpu"] + used - cpu}

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Leave out the seconds of the block, in which another run of this process takes its turns."""
        self.leave()
        try:
            yield
        finally:
            self.synchronise()
            if self._away:
                (wall, cpu), (since, used) = self._started, self._away
                self._started = wall + time.perf_counter() - since, cpu + time.process_time() - used
            self._away = None

    def leave(self) -> None:
        """Count no seconds from now on."""
        self.synchronise()
        self._away = time.perf_counter(), time.process_time()

    def energy(self) -> dict[str, float | None]:
        """Joules by meter, earlier attempts included; None is not measured."""
        return {name: meter.joules() for name, meter in self.meters.items()}

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON that `unpack` restores."""
        arrays = {f"sum of {key}": value.cpu().numpy() for key, value in self._sums.items()}
        if self.predictions:
            arrays["predictions"] = np.stack(self.predictions)
        if self.tail_steps:
            arrays["tail_predictions"] = np.stack(self.tail_predictions)
        plain = {"epochs": self.epochs, "losses": self.losses, "flops": self.flops, "held_out": self.held_out}
        plain |= {"evaluated_at": self.evaluated_at}
        plain |= {"block_ends": self.block_ends, "tail_steps": self.tail_steps, "tail_held_out": self.tail_held_out}
        return arrays, plain | {"counts": self._counts, "seconds": self.time(), "energy": self.energy()}

    def unpack(self, arrays: dict[str, np.ndarray], plain: dict[str, Any], device: torch.device) -> None:
        """Restore packed metrics."""
        self.epochs, self.losses, self.flops = plain["epochs"], plain["losses"], plain["flops"]
        self._counts, self.seconds, self.held_out = plain["counts"], plain["seconds"], plain.get("held_out", [])
        self.block_ends = plain.get("block_ends", [])
        self.evaluated_at = plain.get(
            "evaluated_at", [(math.nan, math.nan)] * len(self.epochs)
        )  # an older state has none
        self.tail_steps, self.tail_held_out = plain.get("tail_steps", []), plain.get("tail_held_out", [])
        for name, meter in self.meters.items():
            meter.go_on(plain.get("energy", {}).get(name))  # states of versions without meters have no energy
        self.predictions = list(arrays.get("predictions", ()))
        self.tail_predictions = list(arrays.get("tail_predictions", ()))
        if any(each.shape != self.predictions[0].shape for each in self.predictions) or not (
            len(self.predictions) == len(self.epochs) == len(self.losses)
            and len(self.tail_predictions) == len(self.tail_steps)
        ):
            raise ValueError("epochs, predictions and losses do not belong together")
        self._sums = {key: torch.from_numpy(arrays[f"sum of {key}"]).to(device) for key in self._counts}

    def check_finite(self, where: str) -> None:
        """UserError if a loss is not finite; `where`: its batch."""
        for name, mean in self.means().items():
            if not np.isfinite(mean):
                raise UserError(
                    f"the loss ({name}) is {mean} at {where}: lower lr, or the weights of the method's losses, or check"
                    " the data"
                )
