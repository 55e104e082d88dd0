"""Batch norm over halves of a batch, as with two GPUs under DataParallel; re-estimated running statistics."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaced_kd.data.dataset import Data
from spaced_kd.utils.errors import UserError


class HalvesBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that in training standardises each half of a batch by its own mean and variance.

    Only the first half updates the running statistics: those of the second GPU are lost with its copy of the network.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), the first half larger by one where B is odd, as `torch.chunk` cuts it."""
        if not self.training or len(images) < 2:
            return super().forward(images)
        first, second = images.chunk(2)
        alone = F.batch_norm(second, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return torch.cat([super().forward(first), alone])


def halve(network: nn.Module) -> nn.Module:
    """Turn every batch norm of a network into one over halves; UserError if it has none."""
    found = [module for module in network.modules() if type(module) is nn.BatchNorm2d]
    if not found:
        raise UserError("batch_norm is halves, but the network has no batch norm: leave it out")
    for module in found:
        module.__class__ = HalvesBatchNorm2d  # same parameters, same state: only `forward` differs
    return network


def reestimated(network: nn.Module, data: Data, batch_size: int) -> nn.Module:
    """A copy in eval mode whose running statistics are re-estimated on the training images with its weights.

    Each is the mean over batches in fixed order without augmentation, weighted by their numbers of images. Batches have
    at most `batch_size` images and differ in size as little as possible. A network without batch norm is only copied.
    """
    if batch_size < 2:
        raise UserError(f"batch_size is {batch_size}, but the statistics of a batch need at least 2 images")
    network = copy.deepcopy(network).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    total, seen = len(data.labels["train"]), 0
    size = math.ceil(total / math.ceil(total / batch_size))
    for images in data.images["train"].split(size) if norms else ():
        seen += len(images)
        for norm in norms:
            norm.train()
            norm.momentum = len(images) / seen
        with torch.no_grad():
            network(data.normalise(images))
    return network.eval()
