"""The source of every random number of the suite: one generator per (seed, purpose, index).

`torch.Generator().manual_seed` keeps only the low 32 bits of a seed, so draws come from numpy's Philox, whose key is
derived from the whole triple. Libraries that draw from global generators (timm's initialisation and drop-path,
imagecorruptions) are called inside `global_seed`, the only function that sets and restores those.
"""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def _sequence(seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), index])


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, index): the same numbers on every machine, in any order of calls."""
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, index)))


@contextmanager
def global_seed(seed: int, purpose: str, index: int = 0) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch for the block, and restore them after it."""
    import torch  # here, so that preparing data needs no torch

    words = _sequence(seed, purpose, index).generate_state(4)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(words.tobytes())
        np.random.seed(words)
        if torch.cuda.is_available():
            torch.manual_seed(int(words[0]) | int(words[1]) << 32)
        else:  # torch.manual_seed would record a stack trace for a GPU that is not there
            torch.default_generator.manual_seed(int(words[0]) | int(words[1]) << 32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
