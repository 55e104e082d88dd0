"""CUDA graphs: both passes of a training step recorded once for each learner and batch size, and replayed ever after.

A step of a small network is hundreds of kernels, each of which is done before Python has launched the next one. A graph
launches them together: the same kernels in the same order, so the weights are the same to the bit. The optimiser's few
kernels are launched as ever, with the learning rate of their step.

A graph has what the kernels did and none of the Python around them. So only methods whose terms are a function of
weights and of a batch's images, labels and ids are recorded, those that say `replayable`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spaced_kd.data.batches import Batch

Passes = Callable[[str, Batch], dict[str, Tensor]]  # forward and backward; gives the loss terms


class Recording(NamedTuple):
    """A graph with the tensors that it reads and writes: inputs, the gradient of each parameter it has, losses."""

    graph: Any
    inputs: tuple[Tensor, Tensor, Tensor]
    gradients: list[tuple[Tensor, Tensor]]
    losses: dict[str, Tensor]


class GraphedStep:
    """`passes`, of which the first turn of each kind runs as it is; the second is recorded, and replayed as all others.

    Args:
        passes: (role, batch) -> loss terms; leaves gradients in parameters that had none.
        parameters: all that a turn may give a gradient.
    """

    def __init__(self, passes: Passes, parameters: Iterable[Tensor]) -> None:
        self.passes, self.parameters = passes, list(parameters)
        self.device = self.parameters[0].device
        self.stream = torch.cuda.Stream(self.device)  # torch's own for graphs is on whichever GPU asked first
        self.seen: set[tuple[str, int]] = set()
        self.recordings: dict[tuple[str, int], Recording] = {}
        self.pool = torch.cuda.graph_pool_handle()  # turns come one by one, so graphs may share what they do not keep

    def __call__(self, role: str, batch: Batch) -> dict[str, Tensor]:
        """Gradients and loss terms of a turn; both may be overwritten by the next turn."""
        kind = role, len(batch.labels)
        if kind not in self.seen:  # libraries set themselves up, and FLOPs are counted
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
        """Nothing is computed here, but for the inputs' copies."""
        inputs = tuple(given.clone() for given in batch[:3])
        for each in self.parameters:  # what another learner's last turn has left is no part of this one's graph
            each.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            losses = self.passes(role, as_recorded(*inputs))
        gradients = [(each, each.grad) for each in self.parameters if each.grad is not None]
        return Recording(graph, inputs, gradients, losses)


def as_recorded(images: Tensor, labels: Tensor, ids: Tensor) -> Batch:
    """A batch that has nothing else: whoever asks it for another view, its epoch or the batch before is refused."""
    return Batch(images, labels, ids, view=_Refused(), epoch=_Refused(), before=_Refused())


class _Refused:
    """What no recording has, and what would stay as it was in the turn that was recorded."""

    def _refuse(self, *_: object) -> None:
        raise RuntimeError("a method that says `replayable` asks a batch for more than its images, labels and ids")

    __call__ = __bool__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __index__ = __int__ = __float__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __mod__ = __pow__ = _refuse
    __hash__ = None
