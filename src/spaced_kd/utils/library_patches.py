"""Patches of other packages for the duration of a block, each with its upstream issue and the versions that need it.

No other module patches a package. Remove a patch when every supported version is above its bound.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

ABSENT = object()


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Replace attributes of a module or object for the block, and restore them afterwards."""
    before = {name: vars(owner).get(name, ABSENT) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def below(package: str, bound: int) -> bool:
    """Whether the major version of an installed package is below `bound`."""
    return int(version(package).split(".")[0]) < bound


@contextmanager
def gradients_of_scalars() -> Iterator[None]:
    """curvlinops below 4: the gradient of a loss by `grad` instead of `jacrev`, the same function for a scalar.

    Under `jacrev` the second derivative of layer normalisation is silently wrong: the batching rule of its backward
    pass is, https://github.com/pytorch/functorch/issues/534.
    """
    if not below("curvlinops-for-pytorch", 4):
        yield
        return
    import curvlinops.hessian
    from torch.func import grad

    with replaced(curvlinops.hessian, jacrev=grad):
        yield


@contextmanager
def posterize_of_no_bits() -> Iterator[None]:
    """timm below 2: RandAugment's strongest posterize keeps no bit, which Pillow 13 refuses; older ones returned black.

    No upstream issue is known.
    """
    from PIL import Image
    from timm.data import auto_augment  # costs a second

    original: Any = auto_augment.posterize  # which has no types

    def posterize(image: Any, bits: int, **settings: object) -> Any:
        return original(image, bits, **settings) if bits else Image.new(image.mode, image.size)

    operations = auto_augment.NAME_TO_OP | {"PosterizeIncreasing": posterize}
    with replaced(auto_augment, NAME_TO_OP=operations if below("timm", 2) else auto_augment.NAME_TO_OP):
        yield


@contextmanager
def seeded_corruptions() -> Iterator[None]:
    """imagecorruptions below 2: noise, blur, fog and frost.

    - Its blurs and fog pass `multichannel` to scikit-image and use `numpy.float_`, both of which were removed:
      https://github.com/bethgelab/imagecorruptions/issues/30, fixed there, but not in a release.
    - scikit-image 0.19 and later draws salt and pepper from a fresh generator that no seed reaches: here it gets one
      that numpy's global generator seeds.
    - It reads and decodes a picture of frost for every image, which takes ten times as long as everything else.
    """
    import cv2
    import numpy as np
    import skimage.filters
    import skimage.util
    from imagecorruptions import corruptions

    if not below("imagecorruptions", 2):
        yield
        return
    random_noise: Any = skimage.util.random_noise  # which have no types
    gaussian: Any = skimage.filters.gaussian

    def seeded(*args: object, **settings: object) -> Any:
        return random_noise(*args, rng=np.random.randint(2**32, dtype=np.uint32), **settings)

    def blurred(*args: object, multichannel: bool = False, **settings: object) -> Any:
        return gaussian(*args, channel_axis=-1 if multichannel else None, **settings)

    noise, frost = replaced(skimage.util, random_noise=seeded), replaced(cv2, imread=cache(cv2.imread))
    with noise, frost, replaced(corruptions, gaussian=blurred), replaced(np, float_=np.float64):
        yield
