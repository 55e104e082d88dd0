"""The training of a finished run, as far as an evaluation may use it beside the final network."""

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
        taught: for each update of the result, the number of updates that its teacher had taken by then; empty if no
            other network teaches it.
        networks_at: returns, for each moment asked for, what `see(name, network)` returns for that network in eval
            mode; UserError for a moment that the training does not reach, before any work.
    """

    result: str
    per_epoch: int
    updates: dict[str, int]
    taught: list[int]
    networks_at: Callable[[Collection[Moment], Callable[[str, nn.Module], Any]], dict[Moment, Any]]

    @property
    def look(self) -> Callable[[Collection[Moment], Callable[[str, nn.Module], Any]], dict[Moment, Any]]:
        """The earlier name of `networks_at`: evaluations whose rows are cached by their source still call it."""
        return self.networks_at
