"""From a RunSpec to the objects that train: data, batches, networks, learners, turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.batches import Batch, Batches
from spaced_kd.data.dataset import Data
from spaced_kd.data.loading import choose_workers, load_data, make_augment
from spaced_kd.distillation.method import Method
from spaced_kd.distillation.schedule import Turn, epochs_of_updates
from spaced_kd.training import distributed, timeline
from spaced_kd.training.cuda_graphs import GraphedStep
from spaced_kd.training.learner import Learner, Onlooker, backward
from spaced_kd.training.modules import Modules, build
from spaced_kd.training.plugin_checks import check_smallest_batch, check_terms, dry_run_plugin
from spaced_kd.training.teacher_states import LiveTeacher, StoredTeacher, TeacherStates
from spaced_kd.training.timeline import (
    block_ends,
    make_method,
    make_turns,
    result_network,
    result_roles,
    states_to_save,
    when_to_evaluate,
)
from spaced_kd.utils import processes
from spaced_kd.utils.devices import choose_device
from spaced_kd.utils.errors import UserError


@dataclass
class Job:
    """One run's objects.

    Attributes:
        learners: role -> its Learner, or the StoredTeacher that stands in for a teacher.
        turns: all turns, in order unless the method decides the order during training.
        evaluations: turn after which the result is evaluated -> its epoch.
        tail: turn after which the result is evaluated for the mean over the last tenth of its own steps -> its steps.
        step: (role, batch) -> loss terms.
        workers: number of processes that make batches ahead; None if each is made when it is needed.
        graphed_step: replays recorded passes on a GPU; None if every turn runs normally.
    """

    spec: RunSpec
    device: torch.device
    data: Data
    batches: Batches
    method: Method
    modules: Modules
    turns: list[Turn]
    learners: dict[str, Any]
    evaluations: dict[Turn, int]
    tail: dict[Turn, int]
    step: Callable[[str, Batch], dict[str, Tensor]]
    workers: int | None = None
    graphed_step: GraphedStep | None = None

    @property
    def result(self) -> nn.Module:
        """The run's result: the network of the last role."""
        return self.modules[result_network(self.method)]

    @property
    def reported(self) -> nn.Module:
        """The result as it is evaluated."""
        return self.method.reported(self.result)

    @property
    def own_learners(self) -> dict[str, Learner]:
        """The learners whose state is this run's, by the name of their network."""
        learning = {role: learner for role, learner in self.learners.items() if isinstance(learner, Learner)}
        return {self.method.roles[role]: learner for role, learner in learning.items()}

    @property
    def teacher_states(self) -> str | None:
        """Where the teacher of a student comes from: "stored" in files, trained "together" in its own run, or along."""
        if isinstance(teacher := self.learners.get("teacher"), StoredTeacher):
            return teacher.told
        return "trained along" if self.spec.teacher_spec() else None

    @property
    def decides(self) -> bool:
        """Whether the method decides the order of its turns during training, from the state of its modules."""
        return self.method.order(self.total, self.modules) is not None

    @property
    def total(self) -> int:
        """Batches of the whole training."""
        return self.spec.epochs * self.batches.per_epoch

    def images(self, index: int) -> int | str:
        """Number of images of a batch, and of the previous one if the method uses it: a turn's FLOPs depend on both."""
        size = self.batches.size(index)
        if index and self.method.looks_back:
            return f"{size} after {self.batches.size(index - 1)}"
        return size

    def turns_after(self, done: int, waiting: Callable[[], None] | None = None) -> Iterator[Turn]:
        """The turns from number `done` on; batches that are worth it are made ahead by workers from now on.

        `waiting` is called about every second while such a batch is awaited.
        """
        if (decided := self.method.order(self.total, self.modules)) is not None:
            yield from decided
            return
        to_go = self.turns[done:]
        if self.workers is not None:
            learnt = (index for role, index in to_go if isinstance(self.learners[role], Learner))
            self.batches.make_ahead(learnt, self.workers, waiting)
        yield from to_go

    def terms(self, role: str, index: int) -> dict[str, Tensor]:
        """The method's loss terms for a turn, in the run's precision."""
        return self.terms_on(role, self.batches[index])

    def terms_on(self, role: str, batch: Batch) -> dict[str, Tensor]:
        """The method's loss terms on a batch, in the run's precision."""
        with self.autocast():
            return check_terms(self.spec.method, role, self.step(role, batch))

    def passes(self, role: str, index: int) -> dict[str, Tensor]:
        """Forward and backward pass of a turn: sets gradients of the parameters and returns the loss terms."""
        if self.graphed_step:
            return self.graphed_step(role, self.batches[index])
        return backward(self.terms(role, index))

    def autocast(self) -> torch.autocast:
        """The run's precision."""
        return autocast(self.spec, self.device)

    def states_to_save(self, student: RunSpec) -> set[int]:
        """Numbers of batches after which a teacher saves its state for a later student."""
        return states_to_save(student, self.batches.per_epoch)


def assemble(
    spec: RunSpec,
    paths: ResultPaths,
    device: str = "auto",
    workers: int | None = None,
    *,
    graphs: bool = True,
    beside: Job | None = None,
) -> Job:
    """The objects of a training, in the state before its first turn.

    Args:
        spec: the run.
        paths: of the folder of results, where its data and its teacher are.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that decode and augment images ahead; None for all processors but one.
        graphs: whether a GPU may replay recorded steps; the weights are the same.
        beside: the job of its teacher in this process, whose data, batches and learner it uses.
    """
    where = choose_device(distributed.device(device))
    if spec.precision == "tf32" and where.type != "cuda":
        raise UserError("precision is tf32, which only a GPU has: use fp32 or bf16 here")
    data, batches = (beside.data, beside.batches.beside()) if beside else make_batches(spec, paths, where, workers)
    method = make_method(spec)
    turns = make_turns(spec, method, batches.per_epoch)
    modules = make_modules(spec, method, data, where)
    if spec.processes == 1:
        dry_run_plugin(spec, method, modules, turns, batches)
    check_smallest_batch(spec, method, modules, turns, batches)
    learners = make_learners(spec, method, modules, turns, batches.per_epoch)
    if beside:
        learners["teacher"] = LiveTeacher(modules["teacher"], beside.learners["teacher"], list(block_ends(turns)))
    else:
        learners |= stored_teacher(spec, method, modules, turns, paths, spec.epochs * batches.per_epoch)
    job = Job(
        spec=spec,
        device=where,
        data=data,
        batches=batches,
        method=method,
        modules=modules,
        turns=turns,
        learners=learners,
        evaluations=when_to_evaluate(spec, method, turns, batches.per_epoch),
        tail=when_to_evaluate_tail(spec, method, turns),
        step=make_step(method, modules, learners),
        workers=None if beside or transforms_whole_batches(spec, data) else choose_workers(workers),
    )
    if graphs and where.type == "cuda" and spec.processes == 1 and method.replayable:
        parameters = (each for module in modules.values() for each in module.parameters())
        job.graphed_step = GraphedStep(lambda role, batch: backward(job.terms_on(role, batch)), parameters)
    return job


def make_batches(spec: RunSpec, paths: ResultPaths, where: torch.device, workers: int | None) -> tuple[Data, Batches]:
    """The run's data on the device, and its stream of batches.

    Transforms of whole batches are computed on the device, transforms of single images on processors.
    """
    here = load_data(spec, paths, workers)
    data = here.to(where)
    batches = Batches(
        data if transforms_whole_batches(spec, here) else here,
        make_augment(spec, here),
        batch_size=spec.batch_size,
        last_batch=spec.last_batch,
        seed=spec.seed,
        order_seed=spec.order_seed,
        augmentation_seed=spec.augmentation_seed,
        device=where,
        share=(processes.rank(), spec.processes),
    )
    return data, batches


def transforms_whole_batches(spec: RunSpec, data: Data) -> bool:
    """Whether training images are transformed batch by batch instead of image by image."""
    return spec.augmentation == "standard" and not data.streamed


def make_modules(spec: RunSpec, method: Method, data: Data, where: torch.device) -> Modules:
    """The networks and further modules, on the device; with several processes, batch norm is over all shares."""
    modules = build(spec, method, data.classes, data.image_size, where, len(data.labels["train"]))
    if spec.batch_norm == "whole":
        modules = {name: distributed.synchronised(module, where) for name, module in modules.items()}
    return modules


def stored_teacher(
    spec: RunSpec, method: Method, modules: Modules, turns: list[Turn], paths: ResultPaths, total: int
) -> dict[str, Any]:
    """The teacher's role -> its StoredTeacher, if all states that this run needs are stored; else empty."""
    teacher = spec.teacher_spec()
    if teacher is None or not method.teacher_is_shared:
        return {}
    states = TeacherStates(teacher.id, paths.trajectory(teacher), paths.weights(teacher), total)
    ends = list(block_ends(turns))
    return {"teacher": StoredTeacher(modules["teacher"], states, ends)} if states.holds(ends) else {}


def make_step(method: Method, modules: Modules, learners: dict[str, Any]) -> Callable[[str, Batch], dict[str, Tensor]]:
    """The method's loss terms of a role on a batch, over all processes."""
    learning = {name for name, module in modules.items() if any(True for _ in module.parameters())}
    learning -= {name for name in modules if isinstance(learners.get(name), StoredTeacher)}
    return distributed.step(method.terms, modules, set(method.roles.values()), learning)


def when_to_evaluate_tail(spec: RunSpec, method: Method, turns: list[Turn]) -> dict[Turn, int]:
    """Turn -> steps of the result after it, for `tail_evaluations` states in the last tenth of its own steps."""
    found = timeline.tail(turns, result_roles(method), spec.tail_evaluations)
    return {turns[done - 1]: step for done, step in found.items()}


def autocast(spec: RunSpec, device: torch.device) -> torch.autocast:
    """A run's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16")


def make_learners(spec: RunSpec, method: Method, modules: Modules, turns: list[Turn], per_epoch: int) -> dict[str, Any]:
    """One learner per network, shared by the network's roles; the method's modules learn with the last network.

    Learners have an optimiser each, or share one. Roles of the method's `onlookers` take turns without updates.
    """
    onlookers = {role: name for role, name in method.onlookers.items() if role in dict(turns)}
    turns = [turn for turn in turns if turn[0] not in onlookers]
    names = list(dict.fromkeys(method.roles.values()))
    extra = {name: [] for name in names} | {names[-1]: [modules[name] for name in modules if name not in names]}
    totals = {name: sum(method.roles[role] == name for role, _ in turns) for name in names}
    drifting = method.idle_heads == "drifting"
    together = method.optimizers == "one"
    own = spec.interval == "max" or method.finished_teacher
    epochs = epochs_of_updates(turns, method.roles, per_epoch, own=own) if spec.lr_clock == "epochs" else {}
    made: dict[str, Learner] = {}
    for name in names:
        beside = made[names[0]] if together and made else None
        made[name] = Learner(
            *(modules[name], extra[name], spec, per_epoch, totals[name]),
            drifting=drifting,
            beside=beside,
            epochs=epochs.get(name),
        )
    looking = {role: Onlooker(made[name]) for role, name in onlookers.items()}
    return {role: made[name] for role, name in method.roles.items()} | looking
