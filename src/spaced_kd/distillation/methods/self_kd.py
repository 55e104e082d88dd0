"""Self KD and its spaced form: the deepest exit of a network teaches its shallower exits.

Sources: Alg. 3 (interval 0: every batch) and Alg. 4 (the deepest exit alone learns a block, then the whole network the
same block) of the paper; Zhang et al. 2019. In the spaced form the network takes two steps per batch, so twice as many
as in self KD; the target is the current deepest exit, detached, of the same forward pass. The defaults are the paper's
text; letters are those of docs/reference/switches.md, where the switches of the released code are listed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from spaced_kd.data.batches import Batch
from spaced_kd.distillation.losses import alignment, distillation, hard
from spaced_kd.distillation.released_orders import first_block_of, student_stops, without_triggers
from spaced_kd.distillation.schedule import Turn, looking_at_triggers, solo
from spaced_kd.networks.outputs import Ensemble, NetworkOutput

RANGES = {"alpha": "[0, 1]", "temperature": "[0.001, 1000000]", "beta": "[0, inf)"}


@dataclass(frozen=True)
class SelfKD:
    """One network and one optimiser in both roles."""

    alpha: float = 0.3  # weight of the soft loss; the hard loss has 1 - alpha
    temperature: float = 3.0  # T of both softmaxes
    beta: float = 0.03  # weight of the feature loss
    square_temperature: bool = True  # soft loss times T^2 (S8)
    soft_loss: Literal["kl", "soft_cross_entropy"] = "kl"  # S8; their gradients agree
    feature_loss: Literal["mse", "dist"] = "mse"  # O4, S9
    adapter: Literal["linear", "linear_always"] = "linear"  # linear: where widths differ (B1)
    feature_skips: Literal["none", "second_deepest"] = "none"  # exit without a feature loss (S9)
    first_block: Literal["interval", "epoch"] = "interval"  # length of the first block (S6)
    # the batch that ends a block (S7): looked_at, it moves running statistics, but no weight, before the block (B3)
    trigger_batch: Literal["plain_too", "looked_at", "block_only"] = "plain_too"
    last_block: Literal["flushed", "dropped"] = "flushed"  # where `interval` does not divide the training (S6)
    # shallow exits in the deepest one's own steps (S10, B4)
    idle_heads: Literal["untouched", "running", "drifting"] = "untouched"
    reported_head: Literal["deepest", "ensemble"] = "deepest"  # what is evaluated: ensemble is the mean of logits (S3)

    roles: ClassVar[dict[str, str]] = {"teacher": "student", "student": "student"}
    loss_of_logits: ClassVar[bool] = True  # but for the feature loss, with a teacher that stands still
    onlookers: ClassVar[dict[str, str]] = {"onlooker": "student"}
    replayable: ClassVar[bool] = True
    exits: ClassVar[bool] = True
    needs: ClassVar[dict[str, dict[str, list]]] = {  # a setting that is not its default makes sense only with these
        "first_block": {"interval": ["spaced"]},
        "trigger_batch": {"interval": ["spaced"]},
        "last_block": {"interval": ["spaced"]},
        "idle_heads": {"interval": ["spaced"]},
    }

    def schedule(self, total: int, interval: int, per_epoch: int) -> Iterator[Turn]:
        """Student turns only (Alg. 3) for an interval of one batch, else blocks of both (Alg. 4)."""
        if interval == 1:
            return solo(total, "student")
        first = per_epoch if self.first_block == "epoch" else interval
        order = first_block_of(first, total, interval)
        if self.last_block == "dropped":
            order = student_stops(order, total - (total - first) % interval)
        if self.trigger_batch == "block_only":
            order = without_triggers(order)
        if self.trigger_batch == "looked_at":
            order = looking_at_triggers(order)
        return order

    def modules(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """For each shallower exit a layer that maps its features to the deepest exit's width."""
        *shallow, deepest = networks["student"].widths
        return {"align": nn.ModuleList(alignment(width, deepest, self.adapter) for width in shallow)}

    def reported(self, network: nn.Module) -> nn.Module:
        """The module that is evaluated: the network, whose logits are the deepest exit's, or the ensemble of exits."""
        return Ensemble(network) if self.reported_head == "ensemble" else network

    def terms(self, who: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """As teacher the deepest exit's cross-entropy alone; as student that, and each shallower exit's three terms."""
        if who in ("teacher", "onlooker"):
            if self.idle_heads != "untouched":  # as in the released code, their running statistics are updated
                return {"hard": hard(networks["student"](batch.images, exits=True)[-1].logits, batch.labels)}
            return {"hard": hard(networks["student"](batch.images), batch.labels)}
        *shallow, deepest = networks["student"](batch.images, exits=True)
        teacher = NetworkOutput(deepest.logits.detach(), deepest.features.detach())
        terms = {"hard": hard(deepest.logits, batch.labels)}
        for depth, student in enumerate(shallow):
            of_exit = distillation(
                student,
                teacher,
                batch.labels,
                networks["align"][depth],
                alpha=self.alpha,
                temperature=self.temperature,
                beta=self.beta,
                square_temperature=self.square_temperature,
                soft_loss=self.soft_loss,
                feature_loss=self.feature_loss,
            )
            if self.feature_skips == "second_deepest" and depth == len(shallow) - 1:
                del of_exit["feature"]
            terms |= {f"{name} of exit {depth + 1}": value for name, value in of_exit.items()}
        return terms
