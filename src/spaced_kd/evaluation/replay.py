"""What an evaluation may see of a run's training, beside the network in which it ended."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

Moment = tuple[str, int]  # name of a network, "student" or "teacher"; updates that it has taken by then


@dataclass(frozen=True)
class Replay:
    """A finished run's training.

    Attributes:
        result: name of the network that the run is about.
        per_epoch: updates of an epoch.
        updates: in all, by name of the network.
        taught: of each of the result's updates, how many its teacher had taken by then; empty where no other network
            teaches it.
        look: gives what `see(name, network)` makes of the networks at all moments asked for, in eval mode; UserError
            for a moment that never comes, before any work.
    """

    result: str
    per_epoch: int
    updates: dict[str, int]
    taught: list[int]
    look: Callable[[Collection[Moment], Callable[[str, nn.Module], Any]], dict[Moment, Any]]
