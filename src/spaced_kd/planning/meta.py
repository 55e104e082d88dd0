"""What planning does on torch's device `meta`, where tensors have a shape but no numbers: build networks, count FLOPs.

torch computes shapes there in Python, at up to a millisecond for each operation. Operations that keep a shape are
therefore left out: those that set initial values, and in a training step all but matrix products and convolutions. Only
these two have FLOPs, by the formulas of torch's FlopCounterMode.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
FILLS = {getattr(Tensor, f"{name}_") for name in ("normal", "uniform", "fill", "zero", "erfinv", "clamp", "mul", "add")}
aten = torch.ops.aten
# layers that have no product and keep the shape: left out as a whole
PLAIN = (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.GELU)
# operations that have no product and keep the shape of their first argument, where other tensors have it as well
SAME_SHAPE = {
    *(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div")),
    *(getattr(aten, name).Scalar for name in ("mul", "div")),
    *(aten.neg.default, aten.sigmoid_backward.default),
    *(aten._softmax.default, aten._safe_softmax.default, aten._softmax_backward_data.default),
    *(aten._log_softmax.default, aten._log_softmax_backward_data.default),
}
MANY = 8191  # a prime number of images, of which no layer has a multiple


class WithoutInitialValues(TorchFunctionMode):
    """In its block, initial values are not set."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of a function; of one that fills a tensor, that tensor."""
        if func in FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the FLOPs of each product in its block.

    Attributes:
        flops: of each.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of an operation, of the right shape."""
        kwargs = kwargs or {}
        if func in SAME_SHAPE and _alike(*args):
            return torch.empty_like(args[0])
        if func is aten.addmm.default:
            result = args[1].new_empty(args[1].shape[0], args[2].shape[1])
        else:
            result = func(*args, **kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.flops.append(count(*args, **kwargs, out_val=result))
        return result


def _alike(first: Tensor, *others: Any) -> bool:
    """Whether the other tensors have the shape and type of the first, which has a fraction."""
    tensors = [other for other in others if isinstance(other, Tensor)]
    return first.is_floating_point() and all(
        other.shape == first.shape and other.dtype == first.dtype for other in tensors
    )


def by_images(flops: Iterable[int]) -> dict[int, int] | None:
    """Products of MANY images as a polynomial of the number of images: power -> FLOPs; None where it is none.

    A product of all images has FLOPs that this prime divides, and one of each image with each other twice. One that it
    does not divide has a part of the images, or none of them.

    >>> by_images([MANY * 10, MANY * MANY * 3, MANY * 5]), by_images([MANY // 2 * 10])
    ({1: 15, 2: 3}, None)
    """
    powers: dict[int, int] = {}
    for each in flops:
        power = 0
        while each and each % MANY == 0:
            each, power = each // MANY, power + 1
        if not power:
            return None
        powers[power] = powers.get(power, 0) + each
    return powers


@contextmanager
def without_plain_layers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """In the block, the modules lack their plain layers."""
    plain = [
        (parent, name, child)
        for module in modules
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, PLAIN)
    ]
    for parent, name, _ in plain:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, child in plain:
            setattr(parent, name, child)
