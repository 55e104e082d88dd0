"""The contract of a network: a function in a file of its family makes it, and the function's name is the network's."""

from typing import Any, Protocol

from torch import Tensor

from spaced_kd.networks.outputs import NetworkOutput


class Network(Protocol):
    """An `nn.Module`. Exits are constructed after the trunk, whose initial weights thus do not depend on them.

    Attributes:
        widths: numbers of features of the exits, from shallow to deep; without exits, of the network's output.
    """

    widths: tuple[int, ...]

    def __call__(self, images: Tensor, exits: bool = False) -> Tensor | list[NetworkOutput]:
        """Logits (B, classes) of standardised images (B, 3, H, W).

        With `exits`, the outputs from shallow to deep; the last one has the network's logits.
        """


class MakeNetwork(Protocol):
    """The function. A file of networks without batch norm has the line `BATCH_NORM = False`."""

    def __call__(self, classes: int, image_size: int, *, exits: bool = False, **settings: Any) -> Network:
        """A network with random weights, drawn from torch's global generator.

        Args:
            classes: number of classes.
            image_size: height and width of the images in pixels.
            exits: whether shallower exits are built, which self KD needs.
            settings: keyword-only, each with a type and a plain default, by name.
        """
