"""The empirical neural tangent kernel of a network on some images, in blocks of bounded memory.

With f_c(x) the logit of class c, θ the P parameters that the logits depend on, and K classes,

    H_ij = 1/K Σ_c ⟨∂f_c(x_i)/∂θ, ∂f_c(x_j)/∂θ⟩,

the full kernel (n K, n K) with the mean taken over the blocks of equal classes, and those of unlike classes left out.
Its cost is that of n K backward passes, and of products of n K P numbers by n.

Jacobians are made for as many classes at a time as fit into memory for all n images; where one class does not, for
pairs of blocks of images, whose Jacobians are then made several times.

Source: Jacot et al. 2018.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaced_kd.utils.errors import UserError

GIB = 2**30
AT_ONCE = 160  # images times classes in one backward pass: the fastest on a CPU, some 50 MB for a small network


class Blocks(NamedTuple):
    """How much of a Jacobian is there at a time."""

    classes: int
    images: int


def blocks(network: nn.Module, inputs: Tensor, memory: float) -> Blocks:
    """The largest blocks whose Jacobians fit into `memory` GiB.

    Raises:
        UserError: not even those of two images and one class do, or the kernel itself does not.
    """
    count, room = len(inputs), memory * GIB
    if 2 * 8 * count**2 > room:  # the kernel in float64, and its eigenvectors
        raise UserError(
            f"the kernel of {count} images takes {2 * 8 * count**2 / GIB:.3g} GiB, but memory is {memory:g}: ask for"
            " fewer images, or for more memory"
        )
    weights = sum(each.numel() for each in _used(network, inputs).values())
    gradient = inputs.element_size() * weights  # bytes, of one image and class
    if 2 * gradient > room:
        raise UserError(
            f"the kernel of a network of {weights} weights takes {2 * gradient / GIB:.3g} GiB, but memory is"
            f" {memory:g}: ask for more, or for a smaller network"
        )
    at_once = int(room // (gradient * count))
    if at_once >= 1:
        return Blocks(at_once, count)
    return Blocks(1, int(room // (2 * gradient)))


def kernel(network: nn.Module, inputs: Tensor, memory: float = 2.0) -> Tensor:
    """H, float64 (n, n), symmetric; products in float32, which leaves errors of about 1e-6 of its mean diagonal.

    Args:
        network: in eval mode; images -> logits (B, K).
        inputs: n images as the network takes them.
        memory: of Jacobians, in GiB.

    Raises:
        UserError: it does not fit.
    """
    size = blocks(network, inputs, memory)
    with torch.no_grad():
        count, classes = len(inputs), network(inputs[:1]).shape[1]
    parts = torch.arange(count, device=inputs.device).split(size.images)
    found = torch.zeros(count, count, dtype=torch.float64, device=inputs.device)
    for group in torch.arange(classes, device=inputs.device).split(size.classes):
        jacobian = _jacobian(network, inputs, group)
        for number, first in enumerate(parts):
            mine = jacobian(first)
            _add_square(found, first, mine)
            for second in parts[number + 1 :]:
                found[first[:, None], second] += (mine @ jacobian(second).T).double()
            del mine
    return (found.triu() + found.triu(1).T) / classes


def _add_square(found: Tensor, rows: Tensor, jacobian: Tensor) -> None:
    """Add J Jᵀ, of which strips on and above the diagonal are enough: that saves nearly half of the products."""
    step = max(1, len(rows) // 8)
    for start in range(0, len(rows), step):
        strip = jacobian[start : start + step] @ jacobian[start:].T
        found[rows[start : start + step, None], rows[start:]] += strip.double()


def _jacobian(network: nn.Module, inputs: Tensor, classes: Tensor) -> Callable[[Tensor], Tensor]:
    """Function that gives ∂f_c(x)/∂θ of the chosen images, (b, classes × P)."""
    # contiguous: pooling of channels-last features has no rule for several gradients at once, and is slow
    theta = {name: value.contiguous() for name, value in _used(network, inputs).items()}
    given = (*network.named_parameters(), *network.named_buffers())
    fixed = {name: value.detach().contiguous() for name, value in given}

    def logits(theta: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(network, fixed | theta, (image[None],))[0, classes]

    of_images = vmap(jacrev(logits, chunk_size=min(len(classes), AT_ONCE)), in_dims=(None, 0))

    def jacobian(chosen: Tensor) -> Tensor:
        width = len(classes) * sum(weights.numel() for weights in theta.values())
        rows = torch.empty(len(chosen), width, dtype=inputs.dtype, device=inputs.device)
        for part in torch.arange(len(chosen)).split(max(1, AT_ONCE // len(classes))):
            start = 0
            # fused attention has no rule for several gradients at once
            with sdpa_kernel(SDPBackend.MATH):
                made = of_images(theta, inputs[chosen[part]])
            for piece in made.values():
                piece = piece.flatten(1)
                rows[part[0] : part[-1] + 1, start : start + piece.shape[1]] = piece
                start += piece.shape[1]
        return rows

    return jacobian


def _used(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """θ: the parameters that the logits depend on, without those of the exits."""
    parameters = dict(network.named_parameters())
    with torch.enable_grad():
        said = network(inputs[:1]).sum()
        gradients = torch.autograd.grad(said, list(parameters.values()), allow_unused=True)
    used = zip(parameters.items(), gradients, strict=True)
    return {name: weights.detach() for (name, weights), gradient in used if gradient is not None}
