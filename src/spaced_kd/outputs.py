"""What a network says."""

from typing import NamedTuple

from torch import Tensor


class Exit(NamedTuple):
    """One depth of a network: logits (B, classes), and the features (B, D) that its classifier reads."""

    logits: Tensor
    features: Tensor
