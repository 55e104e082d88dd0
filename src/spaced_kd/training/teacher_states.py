"""A teacher's states at the times when its students learn, and a learner that loads them instead of training.

The teacher of a (dataset, network, recipe, seed) does not depend on its students, so it is trained once. During its
training it saves the states that its students need. A student that lacks one of them trains the same teacher along; the
teacher's weights are then equal to the bit. So is a student that trains in the teacher's own process, beside it.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from spaced_kd.training.checkpoint import load_weights, save_weights
from spaced_kd.training.learner import Learner


class TeacherStates:
    """States of one teacher after given numbers of batches; the last one is its final weights."""

    def __init__(self, run: str, folder: Path, final: Path, total: int) -> None:
        self.run, self.folder, self.final, self.total = run, folder, final, total

    def path(self, batches: int) -> Path:
        """The file of the state after `batches` batches."""
        return self.final if batches == self.total else self.folder / f"batches-{batches:09d}.safetensors"

    def save(self, batches: int, network: nn.Module) -> None:
        """Save a state, unless it exists."""
        if batches != self.total and not self.path(batches).exists():
            save_weights(self.path(batches), network, run=self.run, batches=batches)

    def load(self, batches: int, network: nn.Module) -> None:
        """Load a state into a network; UserError if its file is damaged or contains another state."""
        load_weights(self.path(batches), network, run=self.run, batches=batches)

    def clear(self) -> None:
        """Delete all states but the final weights: a teacher that starts anew may differ."""
        for path in self.folder.glob("batches-*.safetensors"):
            path.unlink()

    def holds(self, ends: list[int]) -> bool:
        """Whether all of these states exist."""
        return all(self.path(end).exists() for end in ends)


class StoredTeacher:
    """Replaces a teacher's learner: loads the stored teacher at the times when its student learns."""

    told = "stored"  # as run.json has it

    def __init__(self, network: nn.Module, states: TeacherStates, ends: list[int]) -> None:
        self.network, self.states, self.ends = network, states, set(ends)

    def learn(self, index: int, passes: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Load the state after batch `index` if the student needs it; otherwise do nothing."""
        if index + 1 in self.ends:
            self.states.load(index + 1, self.network)
        return {}


class LiveTeacher(StoredTeacher):
    """Replaces a teacher's learner by that of the teacher's own run, which trains in the same process.

    Args:
        network: the student's copy of the teacher.
        learner: of the teacher's run.
        ends: numbers of batches after which the student learns.
    """

    told = "together"

    def __init__(self, network: nn.Module, learner: Learner, ends: list[int]) -> None:
        self.network, self.learner, self.ends = network, learner, set(ends)

    def learn(self, index: int, passes: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Copy the teacher after batch `index` if the student needs it; otherwise do nothing."""
        if index + 1 in self.ends:
            if self.learner.steps != index + 1:
                raise RuntimeError(f"the teacher has learnt {self.learner.steps} batches, not {index + 1}")
            self.network.load_state_dict(self.learner.network.state_dict())
        return {}
