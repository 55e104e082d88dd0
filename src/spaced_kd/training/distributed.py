"""One training over several processes, each with its share of every batch, on one or several machines.

Each process runs the same loop on the same networks. It forwards its share of a batch's images, and the outputs of all
processes are gathered: losses are those of the whole batch and equal to the bit in every process, also where they
compare images of different shares. So are the gradients, which torch's DistributedDataParallel sums. With a single
process the functions of this module do nothing.

`torchrun` starts the processes and passes each its rank by environment variables. The first process writes all files.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spaced_kd.data.batches import Batch
from spaced_kd.data.dataset import Data
from spaced_kd.training.preemption import Interrupted
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.processes import rank, started
from spaced_kd.utils.seeding import global_seed

Terms = Callable[[str, dict[str, Any], Batch], dict[str, Tensor]]
PATIENCE = timedelta(days=7)  # torchrun ends all processes if one fails; waiting for a lock is not a failure


@contextlib.contextmanager
def process_group(processes: int) -> Iterator[None]:
    """Join the other processes of a run for the block.

    Raises:
        UserError: the number of started processes is not `processes`, or another process ended early.
    """
    if started() != processes:
        raise UserError(
            f"processes is {processes}, but {started()} were started: give processes={started()}, which is another run,"
            f" or start torchrun --nproc-per-node {processes} -m spaced_kd train ..."
        )
    if processes == 1:
        yield
        return
    # counts and decisions are exchanged between CPUs, tensors of a GPU between GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
        barrier()  # until the first process has written all files
    except RuntimeError as error:
        if rank() and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise UserError(f"process {rank()} lost another process: see the message of that one") from None
        raise
    finally:
        dist.destroy_process_group()


def device(name: str) -> str:
    """The device of this process for a requested kind: each process gets a GPU of its own on its machine."""
    if started() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def on_rank_zero(context: contextlib.AbstractContextManager[Any]) -> contextlib.AbstractContextManager[Any]:
    """The context in the first process only; the others continue, and wait at the next collective operation."""
    return contextlib.nullcontext() if rank() else context


def broadcast_from_zero(value: bool) -> bool:
    """The first process's value, in all processes."""
    if started() > 1:
        found = torch.tensor(value)
        dist.broadcast(found, 0)
        return bool(found)
    return value


def assert_same_on_all_ranks(what: str, value: int) -> int:
    """The value, which must be the same in all processes.

    Raises:
        UserError: the values differ, so the processes do not read the same files.
    """
    if started() > 1:
        values = [torch.tensor(0) for _ in range(started())]
        dist.all_gather(values, torch.tensor(value))
        if len({int(found) for found in values}) > 1:
            found = ", ".join(str(int(found)) for found in values)
            raise UserError(f"{what} is {found} in the {started()} processes: give them one shared folder of results")
    return value


def stopping(stop: Interrupted | None) -> Interrupted | None:
    """The interruption of any process, in all processes, so that all stop after the same turn."""
    if started() == 1:
        return stop
    status = torch.tensor(stop.status if stop else 0)
    dist.all_reduce(status, dist.ReduceOp.MAX)
    return stop or (Interrupted("another process stops", int(status)) if status else None)


def barrier() -> None:
    """Wait for the other processes."""
    total(0)


def total(count: int) -> int:
    """The sum over all processes."""
    if started() == 1:
        return count
    summed = torch.tensor(count)
    dist.all_reduce(summed)
    return int(summed)


def synchronised(network: nn.Module, where: torch.device) -> nn.Module:
    """The network with batch norm over the whole batch: torch's SyncBatchNorm, which exists for GPUs only."""
    if started() == 1:
        return network
    if where.type == "cpu" and any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        raise UserError(
            f"batch_norm is whole, but torch has none over the shares of {started()} processes without GPUs: use shares"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def step(
    terms: Terms, modules: dict[str, nn.Module], networks: set[str], learning: set[str]
) -> Callable[[str, Batch], dict[str, Tensor]]:
    """(role, batch) -> a method's loss terms on the whole batch; `batch` has this process's share of the images.

    Args:
        terms: of the method.
        modules: by name.
        networks: names of the modules that process images.
        learning: names of the modules whose gradients are summed over processes.
    """
    if started() == 1:
        return lambda role, batch: terms(role, modules, batch)
    # one module for all, since a turn may use several networks, or one twice. Idle networks have no gradients, and with
    # find_unused_parameters DDP never reorders its buckets: a resumed run sums gradients in the same order
    return DistributedDataParallel(_Step(terms, modules, networks, learning), find_unused_parameters=True)


class _Step(nn.Module):
    """A method's loss terms as one module, whose parameters are those that learn."""

    def __init__(self, terms: Terms, modules: dict[str, nn.Module], networks: set[str], learning: set[str]) -> None:
        super().__init__()
        self.terms, self.networks = terms, networks
        # in the order of `modules`, the same in all processes: gradients are matched by position
        self.learning = nn.ModuleDict({name: module for name, module in modules.items() if name in learning})
        self.given = dict(modules)  # a plain mapping: modules that do not learn are not submodules of this one

    def forward(self, role: str, batch: Batch) -> dict[str, Tensor]:
        """The terms of a turn."""
        sizes = [len(part) for part in batch.labels.tensor_split(started())]
        whole = {name: _Whole(self.given[name], sizes) for name in self.networks}
        return self.terms(role, self.given | whole, batch)


class _Whole:
    """A network that takes this process's share of a batch and returns the outputs for the whole batch."""

    def __init__(self, network: nn.Module, sizes: list[int]) -> None:
        self.network, self.sizes = network, sizes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, images: Tensor, **how: Any) -> Any:
        # random numbers of a network (drop-path) differ between shares; those of a loss are equal in all processes
        with global_seed(int(torch.randint(2**62, ())), "share of a batch", rank()):
            return self._gathered(self.network(images, **how))

    def _gathered(self, output: Any) -> Any:
        if isinstance(output, Tensor):
            return _Gather.apply(output, self.sizes)
        if isinstance(output, list):
            return [self._gathered(each) for each in output]
        return None if output is None else type(output)(*map(self._gathered, output))  # a NetworkOutput


class _Gather(torch.autograd.Function):
    """The rows of all processes in order of rank; the backward pass returns the gradient of a process's own rows."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = share.new_zeros(max(sizes), *share.shape[1:])  # all_gather needs equal sizes
        padded[: len(share)] = share
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # times the number of processes, by which DistributedDataParallel divides the sum of gradients
        return gradient.split(ctx.sizes)[rank()] * len(ctx.sizes), None


def predict_sharded(
    predict: Callable[..., np.ndarray], network: nn.Module, data: Data, split: str = "test", batch_size: int = 500
) -> np.ndarray:
    """predict(network, data, split, batch_size), shared among the processes; all of them return the whole result."""
    if started() == 1:
        return predict(network, data, split, batch_size)
    for buffer in network.buffers():  # without synchronised batch norm, those of the first process are used
        dist.broadcast(buffer, 0)
    images = data.images[split]
    found = torch.zeros(len(images), dtype=torch.int32)
    mine = [*torch.arange(len(images)).split(batch_size)][rank() :: started()]  # the same batches as of one process
    if mine:
        rows = torch.cat(mine)
        part = images.only(rows) if data.streamed else images[rows.to(images.device)]
        moved = data.images | {split: part.to(images.device)}
        predicted = predict(network, replace(data, images=moved), split, batch_size)
        found[rows] = torch.from_numpy(predicted.astype(np.int32))
    dist.all_reduce(found)
    return found.numpy().astype(np.uint16)
