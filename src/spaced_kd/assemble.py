"""From a RunSpec to the objects that train: data, batches, networks, learners, turns."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd import catalog
from spaced_kd.batches import Batches
from spaced_kd.data import Data, load
from spaced_kd.files import Places
from spaced_kd.learner import Learner
from spaced_kd.schedule import Turn, block_ends, interval_in_batches
from spaced_kd.seeding import global_seed
from spaced_kd.spec import RunSpec
from spaced_kd.trajectory import Trajectory, Walker

Modules = dict[str, nn.Module]


@dataclass
class Job:
    """One run's objects. `learners` maps who learns to a Learner, or to the Walker that stands in for a teacher."""

    spec: RunSpec
    device: torch.device
    data: Data
    batches: Batches
    method: Any
    modules: Modules
    turns: list[Turn]
    learners: dict[str, Any]

    @property
    def result(self) -> nn.Module:
        """The network that the run is about: the last role's."""
        return self.modules[[*self.method.roles.values()][-1]]

    @property
    def own_learners(self) -> dict[str, Learner]:
        """The learners whose state is this run's, by the name of their network."""
        named = {self.method.roles[who]: learner for who, learner in self.learners.items()}
        return {name: learner for name, learner in named.items() if isinstance(learner, Learner)}

    @property
    def total(self) -> int:
        """Batches of the whole training."""
        return self.spec.epochs * self.batches.per_epoch

    def terms(self, who: str, index: int) -> dict[str, Tensor]:
        """The method's loss terms for a turn, in the run's precision."""
        with self.autocast():
            return self.method.terms(who, self.modules, self.batches[index])

    def autocast(self) -> torch.autocast:
        """The run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")

    def block_ends(self, interval: float | str) -> set[int]:
        """Numbers of batches after which a teacher pauses for students of this interval (epochs)."""
        batches = interval_in_batches(interval, self.batches.per_epoch, self.total)
        return set(block_ends(self.total, batches))


def assemble(spec: RunSpec, places: Places, device: str = "auto") -> Job:
    """Everything that a training needs, in the state before its first turn."""
    where = choose_device(device)
    torch.set_num_threads(spec.threads)
    data = load(places.data(spec), spec.resolved()["settings"]["dataset"]).to(where)
    augment = catalog.find("datasets", spec.dataset).augment
    batches = Batches(data, augment, batch_size=spec.batch_size, seed=spec.seed)
    total = spec.epochs * batches.per_epoch
    interval = interval_in_batches(spec.interval, batches.per_epoch, total)
    method = catalog.find("methods", spec.method)(**spec.settings.get("method", {}))
    turns = list(method.schedule(total, interval))
    modules = build(spec, method, data.classes, data.image_size, where)
    learners: dict[str, Any] = make_learners(spec, method, modules, turns, batches.per_epoch)
    if (teacher := spec.teacher_spec()) and interval > 1:
        trajectory = Trajectory(places.trajectory(teacher), places.weights(teacher), total)
        ends = block_ends(total, interval)
        if trajectory.holds(ends):
            learners["teacher"] = Walker(modules["teacher"], trajectory, ends)
    return Job(spec, where, data, batches, method, modules, turns, learners)


def choose_device(device: str) -> torch.device:
    """The device named, or for "auto" a GPU where there is one; deterministic kernels there."""
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
        torch.use_deterministic_algorithms(True)
    return chosen


def build(spec: RunSpec, method: Any, classes: int, image_size: int, device: torch.device) -> Modules:
    """The method's networks and further modules; networks of one kind start alike, whatever their role."""
    modules: Modules = {}
    for name in dict.fromkeys(method.roles.values()):
        role = "teacher" if name == "teacher" and spec.teacher else "network"
        make = catalog.find("networks", getattr(spec, role))
        with global_seed(spec.seed, "initial weights"):
            exits = getattr(method, "exits", False)
            modules[name] = make(classes, image_size, exits=exits, **spec.settings.get(role, {}))
    if hasattr(method, "modules"):
        with global_seed(spec.seed, "initial weights of the method"):
            modules |= method.modules(modules)
    return {name: module.to(device, memory_format=torch.channels_last) for name, module in modules.items()}


def make_learners(
    spec: RunSpec, method: Any, modules: Modules, turns: list[Turn], per_epoch: int
) -> dict[str, Learner]:
    """One learner per network, shared by the roles that it plays; the method's modules learn with the last one."""
    names = list(dict.fromkeys(method.roles.values()))
    extra = {name: [] for name in names} | {names[-1]: [modules[name] for name in modules if name not in names]}
    totals = {name: sum(method.roles[who] == name for who, _ in turns) for name in names}
    made = {name: Learner(modules[name], extra[name], spec, per_epoch, totals[name]) for name in names}
    return {who: made[name] for who, name in method.roles.items()}
