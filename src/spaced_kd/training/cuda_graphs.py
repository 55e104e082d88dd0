"""CUDA graphs: both passes of a training step are recorded once for each learner and batch size, then replayed.

A step of a small network is hundreds of kernels, each of which ends before Python has launched the next one. A graph
launches them together: the same kernels in the same order, so the weights are equal to the bit. The optimiser's few
kernels are launched one by one, with the learning rate of their step.

A graph contains the kernels and none of the Python around them. So only methods with `replayable` are recorded, whose
terms are a function of the weights and of a batch's images, labels and ids.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spaced_kd.data.batches import Batch

Passes = Callable[[str, Batch], dict[str, Tensor]]  # forward and backward; gives the loss terms


class Recording(NamedTuple):
    """A graph with the tensors that it reads and writes: inputs, gradients by parameter, losses."""

    graph: Any
    inputs: tuple[Tensor, Tensor, Tensor]
    gradients: list[tuple[Tensor, Tensor]]
    losses: dict[str, Tensor]


class GraphedStep:
    """Runs `passes` for the first turn of each kind, records the second, and replays it for all others.

    Args:
        passes: (role, batch) -> loss terms; writes gradients into parameters that had none.
        parameters: all parameters that may get a gradient.
    """

    def __init__(self, passes: Passes, parameters: Iterable[Tensor]) -> None:
        self.passes, self.parameters = passes, list(parameters)
        self.device = self.parameters[0].device
        self.stream = torch.cuda.Stream(self.device)  # torch's own is on the GPU that recorded the first graph
        self.seen: set[tuple[str, int]] = set()
        self.recordings: dict[tuple[str, int], Recording] = {}
        self.pool = torch.cuda.graph_pool_handle()  # turns run one at a time, so graphs may share temporary memory

    def __call__(self, role: str, batch: Batch) -> dict[str, Tensor]:
        """Gradients and loss terms of a turn; both may be overwritten by the next turn."""
        kind = role, len(batch.labels)
        if kind not in self.seen:  # libraries initialise themselves, and FLOPs are counted
            self.seen.add(kind)
            return self.passes(role, batch)
        if kind not in self.recordings:
            self.recordings[kind] = self._record(role, batch)
        recording = self.recordings[kind]
        for own, given in zip(recording.inputs, batch[:3], strict=True):
            own.copy_(given)
        recording.graph.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        return recording.losses

    def _record(self, role: str, batch: Batch) -> Recording:
        """Record a graph; only the copies of the inputs are computed here."""
        inputs = tuple(given.clone() for given in batch[:3])
        for each in self.parameters:  # gradients of another learner's last turn do not belong to this graph
            each.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            losses = self.passes(role, as_recorded(*inputs))
        gradients = [(each, each.grad) for each in self.parameters if each.grad is not None]
        return Recording(graph, inputs, gradients, losses)


def as_recorded(images: Tensor, labels: Tensor, ids: Tensor) -> Batch:
    """A batch of these tensors only; using its view, epoch or previous batch raises an error."""
    return Batch(images, labels, ids, view=_Refused(), epoch=_Refused(), before=_Refused())


class _Refused:
    """Raises on every use: a graph would repeat the value of the recorded turn."""

    def _refuse(self, *_: object) -> None:
        raise RuntimeError("a method with `replayable` uses more of a batch than its images, labels and ids")

    __call__ = __bool__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __index__ = __int__ = __float__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __mod__ = __pow__ = _refuse
    __hash__ = None
