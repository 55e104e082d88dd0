"""Checks of a method's loss terms, and a dry run of plug-ins that this suite does not ship, before a long training.

Shipped plug-ins are checked more thoroughly by tests/contracts/test_contracts.py.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from spaced_kd.config import registry
from spaced_kd.config.registry import TEACHING
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.batches import Batch, Batches
from spaced_kd.distillation.method import Method
from spaced_kd.distillation.schedule import Turn
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import global_seed

FEW = 3  # images: half of so few may be a single one
SHIPPED = {
    "methods": (
        *("adaptive_interval", "ban", "baseline", "dlb", "dml", "online_kd", "ps_kd", "self_kd", "shake", "takd"),
    ),
    "networks": (
        *("deit_tiny", "pit_tiny", "resnet101", "resnet18", "resnet18_x2", "resnet18_x4", "resnet18_x8", "resnet50"),
        *("resnet_mini", "vit_mini"),
    ),
}


def shipped(kind: str, name: str) -> bool:
    """Whether a plug-in is one of this suite's: neither another package's nor a file that was added to the tree."""
    return not registry.plugin(kind, name).package and name in SHIPPED[kind]


def check_terms(method: str, role: str, terms: Any) -> dict[str, Tensor]:
    """The loss terms of a turn, unchanged; UserError unless they map names to scalars with a gradient."""
    if not isinstance(terms, dict) or not terms:
        raise UserError(f"{method}: the terms of {role} are {terms!r:.100}, but must be a mapping of names to losses")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.shape != ():
            what = f"a tensor {tuple(term.shape)}" if isinstance(term, Tensor) else repr(term)
            raise UserError(f"{method}: the term {name!r} of {role} is {what:.100}, but must be a tensor of one number")
        if not term.requires_grad:
            raise UserError(f"{method}: the term {name!r} of {role} has no gradient: leave it out, or do not detach it")
    return terms


def dry_run_plugin(
    spec: RunSpec, method: Method, modules: dict[str, nn.Module], turns: list[Turn], batches: Batches
) -> None:
    """Try a method or network that is not shipped on one batch of each role; copies leave the training unchanged.

    Otherwise an error in the student's terms would appear only after the teacher's training.

    Raises:
        UserError: names the plug-in, and the part of its contract that it breaks.
    """
    networks = {name: described.network for name, described in _described(spec, method).items()}
    for name, network in networks.items():
        if not shipped("networks", network):
            _check_network(network, modules[name], batches)
    if shipped("methods", spec.method):
        return
    firsts = {role: index for role, index in reversed(turns) if role in method.roles}  # role -> its first batch
    for role in sorted(firsts, key=list(method.roles).index):
        own, trained = copy.deepcopy((method, modules))
        with global_seed(spec.seed, f"rehearsal of {role}"):
            try:
                output = own.terms(role, trained, batches[firsts[role]])
            except KeyError as error:
                raise UserError(
                    f"{spec.method}: its terms of {role} ask for {error}, but its networks are {', '.join(trained)}"
                ) from error
            terms = check_terms(spec.method, role, output)
            sum(terms.values()).backward()
        if all(weights.grad is None for weights in trained[method.roles[role]].parameters()):
            raise UserError(f"{spec.method}: no term of {role} depends on its network, {method.roles[role]}")


def check_smallest_batch(
    spec: RunSpec, method: Method, modules: dict[str, nn.Module], turns: list[Turn], batches: Batches
) -> None:
    """UserError if batch norm would get a single value per channel in an epoch's last batch.

    Otherwise the error would appear only an epoch later. The check uses copies and black images, and runs only if that
    batch is small enough: a single image that a stage reduces to one pixel, or halves or shares of a few images.
    """
    last, whole = batches.per_epoch - 1, spec.processes > 1 and spec.batch_norm == "whole"
    if batches.size(last) > FEW * spec.processes or whole:
        return
    black = _black(batches.size(last) // spec.processes, batches)
    for role in {role: None for role, index in turns if index % batches.per_epoch == last}:
        own, trained = copy.deepcopy((method, modules))
        try:
            with global_seed(spec.seed, f"rehearsal of {role}"), torch.no_grad():
                if spec.processes > 1:  # of which each has its share of the images
                    trained[method.roles[role]](black.images)
                else:
                    own.terms(role, trained, black)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            total, pixels = len(batches.data.labels["train"]), batches.data.image_size
            dropped = ", or last_batch=dropped" if batches.size(0) > batches.size(last) else ""
            raise UserError(
                f"batch_size is {spec.batch_size}, so that an epoch's last batch has {batches.size(last)} of {total}"
                f" images: too few for batch norm with images of {pixels} pixels, which leave it one value per channel:"
                f" give another batch_size{dropped}"
            ) from None


def _black(count: int, batches: Batches) -> Batch:
    """A batch of `count` black images, without reading any data."""
    size = batches.data.image_size
    images = torch.zeros(count, 3, size, size, device=batches.device)
    labels = torch.zeros(count, dtype=torch.int64, device=batches.device)
    return Batch(images, labels, labels, lambda _: images, 0, lambda _: (images, labels))


def _described(spec: RunSpec, method: Method) -> dict[str, RunSpec]:
    """Name of a network -> the run that describes it."""
    names = set(method.roles.values()) - set(method.parts)
    return {name: spec.baseline_of(name) if name in TEACHING else spec for name in sorted(names)}


def _check_network(name: str, network: nn.Module, batches: Batches) -> None:
    with torch.no_grad():
        output = copy.deepcopy(network).eval()(batches[0].images)
    expected = (batches.size(0), batches.data.classes)
    if not isinstance(output, Tensor) or output.shape != expected:
        what = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{name} gives {what} for a batch, but logits {expected} are needed")
