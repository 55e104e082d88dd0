"""The contract of a method: its roles, their schedule and losses, and further properties that training needs.

A method is a frozen dataclass in a file of its own. It has `roles`, `schedule` and `terms`, and overrides other
defaults if it needs to. It does not have to inherit from `Method`: `completed` adds the defaults to any such class when
a run is built. A changed default is therefore a change of the training core, not of a method's digest.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.logit_memory import Sizes
from spaced_kd.distillation.schedule import Turn


class Method:
    """Defaults of all attributes that training uses. Class variables are read without importing the file.

    The fields of the dataclass are the method's settings. Training itself uses three of them, if a method has them:
    `initial_weights`, `optimizers` and `idle_heads`.
    """

    roles: ClassVar[dict[str, str]]  # role -> name of its network, in order of learning; the last one is evaluated
    parts: ClassVar[tuple[str, ...]] = ()  # roles whose module comes from `modules`, with an optimiser of its own
    onlookers: ClassVar[dict[str, str]] = {}  # role -> network; its turns update running statistics, but no weights
    needs: ClassVar[dict[str, dict[str, list]]] = {}  # setting -> values of other settings without which it is inert
    exits: ClassVar[bool] = False  # networks are built with exits
    finished_teacher: ClassVar[bool] = False  # the teacher takes all of its turns before any other role
    finds_interval: ClassVar[bool] = False  # the interval is found during training (`order`), and not set
    looks_back: ClassVar[bool] = False  # a turn also uses the batch before its own
    loss_of_logits: ClassVar[bool] = False  # but for the feature loss, the loss depends on logits and a fixed teacher

    teacher_is_shared: bool = True  # the teacher is the run without KD; False if its student's turns change it
    replayable: bool = False  # `terms` uses weights, images, labels and ids only: a GPU may record it as a CUDA graph

    initial_weights: str = "same"  # "different": the other networks do not start from the teacher's weights
    optimizers: str = "two"  # "one" for all networks: idle ones get gradients of zero
    idle_heads: str = "untouched"  # "drifting": exits without a gradient still move by momentum and weight decay
    soft_loss: str = "kl"  # the method's loss among `losses.SOFT_LOSSES`, if `loss_of_logits`

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """All turns (role, batch index) in order, for `total` batches, of which an epoch has `per_epoch`.

        `interval`: batches that the student lags behind its teacher; 1 is online, `total` offline.
        """
        raise NotImplementedError

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms of one turn by name, each of shape (); the role `who` minimises their sum."""
        raise NotImplementedError

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """Further modules by name, which the optimiser of the last network trains, such as an alignment layer."""
        return {}

    def memory(self, sizes: Sizes) -> dict[str, nn.Module]:
        """Modules of buffers by name, for what is remembered of images; a resume state contains them."""
        return {}

    def reported(self, network: nn.Module) -> nn.Module:
        """The module that is evaluated, made from the trained network of the last role."""
        return network

    def order(self, total: int, networks: dict[str, nn.Module]) -> Iterator[Turn] | None:
        """All turns as a function of the modules' state, if training decides their order; None: as in `schedule`."""
        return None


@cache
def completed(method: type[Any]) -> type[Method]:
    """The class with the contract's defaults for missing attributes; a subclass of `Method` is returned unchanged."""
    if issubclass(method, Method):
        return method
    return type(method.__name__, (method, Method), {"__doc__": method.__doc__, "__module__": method.__module__})
