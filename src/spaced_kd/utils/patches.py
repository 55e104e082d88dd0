"""Image sizes that a transformer's patches cover: elsewhere pixels at the border would be left out unseen."""

from collections.abc import Callable
from itertools import count

from spaced_kd.utils.errors import UserError


def check_patches(network: str, image_size: int, covered: Callable[[int], bool]) -> None:
    """UserError for an image size that is not `covered` by patches; it names the next larger one that is."""
    if not covered(image_size):
        larger = next(size for size in count(image_size + 1) if covered(size))
        raise UserError(f"{network}: its patches do not cover images of {image_size} pixels: give input_size={larger}")
