"""Image sizes that a transformer's patches cover; at other sizes pixels at the border would silently be left out."""

from collections.abc import Callable
from itertools import count

from spaced_kd.utils.errors import UserError


def check_patches(network: str, image_size: int, covered: Callable[[int], bool]) -> None:
    """UserError for an image size that is not `covered` by patches, with the next larger size that is."""
    if not covered(image_size):
        larger = next(size for size in count(image_size + 1) if covered(size))
        raise UserError(f"{network}: its patches do not cover images of {image_size} pixels: give input_size={larger}")
