"""A shared network in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from spaced_kd.config.run_spec import from_overrides
from spaced_kd.data.dataset import normalise
from spaced_kd.evaluation.evaluate import trained_network
from spaced_kd.sharing import checksums
from spaced_kd.utils.devices import choose_device
from spaced_kd.utils.files import read_json


class Loaded(NamedTuple):
    """A network in eval mode, and the function that maps uint8 images (batch, height, width, 3) to its input."""

    network: nn.Module
    normalise: Callable[[Tensor], Tensor]


def load_network(folder: str | Path, device: str = "cpu") -> Loaded:
    """Load the network of a folder that `spaced-kd share` wrote; neither data nor other results are needed.

    Args:
        folder: of one run.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: a file is missing, or not the one that was shared.
    """
    folder = Path(folder)
    checksums.check(folder)
    config = read_json(folder / "config.json", dict)
    spec, size = from_overrides(config["words"]), config["image_size"]
    network = trained_network(spec, folder / "weights.safetensors", config["classes"], size)

    def prepared(images: Tensor) -> Tensor:
        return normalise(images, size, config["mean"], config["std"])

    return Loaded(network.to(choose_device(device)), prepared)
