"""The contract of an evaluation: a function of a trained network that yields rows."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn

from spaced_kd.data.dataset import Data


class Evaluation(Protocol):
    """The function `evaluate` of a file.

    The file may have `RANGES`, which maps a setting to an interval such as "(0, 255]" or to a tuple of choices, and
    `SOURCES`, further files, relative to its own, whose change makes the evaluation compute its rows again.
    """

    def __call__(self, network: nn.Module, data: Data, *, seed: int, **settings: Any) -> Iterable[dict[str, Any]]:
        """Rows: mappings with `metric`, a name, and `value`, a finite number; further keys become columns.

        The array `predictions` (N,) of a row is stored beside the rows.

        Args:
            network: in eval mode; images (B, 3, H, W) -> logits (B, classes).
            data: the run's dataset.
            seed: the run's; all random numbers are drawn from `generator(seed, purpose, index)`.
            settings: keyword-only, each with a type and a plain default, by name. Two names are the suite's:
                `history`, a `Replay` of the run's training, and `kd`, a function that returns the run's
                `FixedTeacher`, or None.
        """
