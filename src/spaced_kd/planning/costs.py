"""What a run will take, counted before it runs: FLOPs as its training counts them, and bytes on disk.

Networks are built on torch's device `meta`, where tensors have a shape but no numbers, so nothing is computed. There is
no fused attention there: its backward pass, which computes one product twice, is counted without the second time, so
that transformers' FLOPs are too low by some percent. All others are exact.
"""

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spaced_kd.config import registry
from spaced_kd.config.registry import TEACHING
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.batches import Batch
from spaced_kd.data.dataset import Shape
from spaced_kd.data.epochs import batches_per_epoch
from spaced_kd.distillation.method import Method
from spaced_kd.planning.meta import MANY, META, Products, WithoutInitialValues, by_images, without_plain_layers
from spaced_kd.training.job import when_to_evaluate_tail
from spaced_kd.training.learner import backward
from spaced_kd.training.modules import build
from spaced_kd.training.timeline import make_method, make_turns, result_network, states_of, when_to_evaluate
from spaced_kd.utils.errors import UserError


class Turns(NamedTuple):
    """A schedule in numbers.

    number: turns by role, images of the batch, and those of the batch before, 0 where they do not count; shared:
    whether the teacher is a run of its own; follows: whether its stored states are all that the student needs of it;
    states: batches after which it asks for one, but the last, which is the teacher's weights; evaluations: whose
    predictions are kept.
    """

    number: Counter[tuple[str, int, int]]
    shared: bool
    follows: bool
    states: set[int]
    evaluations: int


class Networks:
    """The networks and further modules of a run, without numbers."""

    def __init__(self, spec: RunSpec, shape: Shape) -> None:
        self.method, self.size = make_method(spec), shape.size
        with META, WithoutInitialValues():
            self.modules = build(spec, self.method, shape.classes, shape.size, META, shape.train)
        self._flops: dict[tuple[str, int, int], list[int]] = {}

    def flops(self, role: str, images: int, before: int = 0) -> int:
        """FLOPs of one turn on so many images, forward and backward; `before`: images of the batch before."""
        without_memory = type(self.method).memory is Method.memory  # which may have the size of a batch
        if without_memory and not before and (powers := by_images(self._products(role, MANY))) is not None:
            return sum(flops * images**power for power, flops in powers.items())
        return sum(self._products(role, images, before))

    def _products(self, role: str, images: int, before: int = 0) -> list[int]:
        """FLOPs of each product of one turn."""
        if (role, images, before) not in self._flops:
            pixels, labels = self._batch(images)
            last = (lambda number: self._batch(before)) if before else None
            with without_plain_layers(self.modules.values()), Products() as products:
                batch = Batch(pixels, labels, labels, lambda number: pixels, before=last)
                backward(self.method.terms(role, self.modules, batch))
            self._flops[role, images, before] = products.flops
        return self._flops[role, images, before]

    def _batch(self, images: int) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        pixels = torch.empty(images, 3, self.size, self.size, device=META)
        return pixels, torch.empty(images, dtype=torch.int64, device=META)

    def weights(self) -> int:
        """Bytes of the weights that the run leaves."""
        return _bytes(self.modules[result_network(self.method)].state_dict().values())

    def state(self, spec: RunSpec, *, stored: bool) -> int:
        """Bytes of a resume state: all modules, and what the optimisers keep of those that learn here."""
        moments = {"sgd": int(spec.momentum != 0), "adamw": 2}[spec.optimizer]
        learning = [module for name, module in self.modules.items() if not (stored and name == "teacher")]
        modules = [tensor for module in self.modules.values() for tensor in module.state_dict().values()]
        return _bytes(modules) + moments * _bytes(p for module in learning for p in module.parameters())


class Cost(NamedTuple):
    """What one run takes.

    flops: of its training; spared: those of its teacher's, where it reads stored states instead, or trains in the
    teacher's job (together); states: batches after which it reads one, but the last; weights, predictions, state: bytes
    of what it leaves, and of one resume state.
    """

    flops: int
    spared: int
    together: bool
    states: set[int]
    weights: int
    predictions: int
    state: int


class RunCosts:
    """Costs of runs; runs that differ in nothing that counts are counted once.

    Args:
        data: folder of the published datasets, for one whose shape is that of its files.
    """

    def __init__(self, data: Path = Path("data")) -> None:
        self.data = data
        self._known: dict[str, Any] = {}

    def cost(self, spec: RunSpec, *, store_teachers: bool = True, train_together: bool = False) -> Cost:
        """Of one run; UserError where its interval or its dataset's settings are impossible."""
        shape, networks, teacher = self._shape(spec), self._networks(spec), spec.teacher_spec()
        turns = self._turns(spec, shape)
        stored = store_teachers and turns.follows
        together = train_together and turns.shared and not turns.follows and spec.processes == 1
        # a teacher that is trained once never sees its students: its turns are those of its own run
        learns = {"teacher": self._networks(teacher)} if teacher and turns.follows else {}
        flops = {role: 0 for role, *_ in turns.number}
        for (role, images, before), times in turns.number.items():
            flops[role] += times * learns.get(role, networks).flops(role, images, before)
        spared = flops.pop("teacher") if stored or together else 0
        return Cost(
            flops=sum(flops.values()),
            spared=spared,
            together=together,
            states=turns.states if stored else set(),
            weights=networks.weights(),
            predictions=2 * shape.test * turns.evaluations,  # uint16
            state=networks.state(spec, stored=stored or together),
        )

    def disk(self, spec: RunSpec) -> int:
        """Bytes of the weights and predictions that a run leaves; FLOPs, which take seconds, are not counted."""
        shape = self._shape(spec)
        return self._networks(spec).weights() + 2 * shape.test * self._turns(spec, shape).evaluations

    def images(self, spec: RunSpec) -> int | None:
        """Training images; None of a dataset that tells no size, or none before its files are there."""
        tell = _teller(spec)
        try:
            return self._shape(spec).train if tell else None
        except UserError:
            if tell and not _looks_at_files(tell):
                raise
            return None

    def _shape(self, spec: RunSpec) -> Shape:
        settings, tell = spec.settings.get("dataset", {}), _teller(spec)
        if tell is None:
            raise UserError(f"{spec.dataset} has no function shape, which tells its size: add it")
        where = [self.data] if _looks_at_files(tell) else []
        shape = self._once([spec.dataset, settings], lambda: tell(*where, **settings))
        held_out = shape.classes * round(spec.held_out * shape.train / shape.classes)
        return shape._replace(train=shape.train - held_out, size=spec.input_size or shape.size)

    def _turns(self, spec: RunSpec, shape: Shape) -> Turns:
        parts = [spec.method, spec.interval, spec.interval_rounding, spec.epochs, spec.batch_size, spec.last_batch]
        parts += [spec.clock, spec.eval_every, spec.tail_evaluations]
        return self._once([shape.train, *parts, spec.settings.get("method")], lambda: count_turns(spec, shape.train))

    def _networks(self, spec: RunSpec) -> Networks:
        shape, settings = self._shape(spec), [spec.settings.get(role) for role in ("network", *TEACHING)]
        parts = [spec.network, spec.teacher, spec.assistant, spec.method, spec.batch_norm, *settings]
        parts.append(_without_weights(spec.settings.get("method", {})))
        return self._once([*shape, spec.batch_size, *parts], lambda: Networks(spec, shape))

    def _once(self, parts: list[Any], make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for each list of parts."""
        key = json.dumps(parts, sort_keys=True)
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def _teller(spec: RunSpec) -> Callable[..., Shape] | None:
    """The function `shape` of a run's dataset."""
    tell: Callable[..., Shape] | None = getattr(registry.find("datasets", spec.dataset), "shape", None)
    return tell


def _looks_at_files(tell: Callable[..., Shape]) -> bool:
    """Whether it takes the folder of data by its place, as of a dataset whose size is that of its files."""
    return "source" in inspect.signature(tell).parameters


def _without_weights(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a method, of each number whether it is 0: weights and temperatures change no FLOPs, but a loss of
    weight 0 may be left out."""
    return {key: value != 0 if isinstance(value, float) else value for key, value in settings.items()}


def count_turns(spec: RunSpec, images: int) -> Turns:
    """The schedule of a run on so many training images."""
    per_epoch = batches_per_epoch(images, spec.batch_size, spec.last_batch)
    smaller = min(spec.batch_size, images - (per_epoch - 1) * spec.batch_size)  # the last batch of an epoch
    sizes = [spec.batch_size] * (per_epoch - 1) + [smaller]
    method = make_method(spec)
    turns = make_turns(spec, method, per_epoch)
    if method.looks_back:
        number = Counter((role, sizes[i % per_epoch], sizes[(i - 1) % per_epoch] if i else 0) for role, i in turns)
    else:  # without a tuple for each of millions of turns
        last = Counter(role for role, i in turns if i % per_epoch == per_epoch - 1)
        rest = Counter(map(itemgetter(0), turns)) - last
        number = Counter()
        for size, times in ((spec.batch_size, rest), (smaller, last)):
            number.update({(role, size, 0): count for role, count in times.items()})
    total = spec.epochs * per_epoch
    shared = spec.teacher_spec() is not None and method.teacher_is_shared
    states = states_of(turns, total) if shared else set()
    evaluations = len(when_to_evaluate(spec, method, turns, per_epoch)) + len(
        when_to_evaluate_tail(spec, method, turns)
    )
    return Turns(number, shared, bool(states), states - {total}, evaluations)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
