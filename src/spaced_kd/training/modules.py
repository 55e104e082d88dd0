"""The networks and further modules of a run, built from its method."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from spaced_kd.config import registry
from spaced_kd.config.registry import TEACHING
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.distillation.logit_memory import Sizes
from spaced_kd.distillation.method import Method
from spaced_kd.networks.contract import MakeNetwork
from spaced_kd.training.batch_norm import halve
from spaced_kd.utils.devices import free_memory
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import global_seed

Modules = dict[str, nn.Module]
IMPOSSIBLE = {  # torch's message for an impossible shape -> its meaning
    "negative dimension": "a layer of negative width",
    "overflow": "a layer too wide for any memory",
}


def build(spec: RunSpec, method: Method, classes: int, image_size: int, device: torch.device, images: int) -> Modules:
    """The method's networks and further modules.

    Equal networks have equal initial weights unless the run or the method sets them to differ. The modules of roles in
    the method's `parts`, such as a head, are built by the method. `images`: number of training images, from which a
    method computes the size of its memory.
    """
    modules: Modules = {}
    for name in dict.fromkeys(method.roles.values()):
        if name in method.parts:
            continue
        described = spec.baseline_of(name) if name in TEACHING else spec
        make: MakeNetwork = registry.find("networks", described.network)
        differs = name != "teacher" and "different" in (spec.initial_weights, method.initial_weights)
        with global_seed(spec.seed, f"initial weights of the {name}" if differs else "initial weights"):
            settings = described.settings.get("network", {})
            size = f"images of {image_size} pixels"
            problem = f"{described.network} cannot be built for {size} with {settings or 'its defaults'}"
            try:
                with _within_memory(problem, device):
                    modules[name] = make(classes, image_size, exits=method.exits, **settings)
            except (ValueError, ZeroDivisionError, OverflowError, AssertionError) as error:
                raise UserError(f"{problem} ({' '.join(str(error).split()) or type(error).__name__})") from error
            except (RuntimeError, TypeError) as error:
                reason = next((reason for words, reason in IMPOSSIBLE.items() if words in str(error).lower()), None)
                if not reason:  # possibly out of memory
                    raise
                raise UserError(f"{problem} ({reason})") from error
            if any(0 in weights.shape for weights in modules[name].parameters()):
                raise UserError(f"{problem} (a layer of no width)")
        if spec.batch_norm == "halves":
            halve(modules[name])
    with global_seed(spec.seed, "initial weights of the method"):
        modules |= method.modules(modules)
    with device:
        modules |= method.memory(Sizes(images, classes, spec.batch_size, spec.epochs))
    return {name: module.to(device, memory_format=torch.channels_last) for name, module in modules.items()}


@contextmanager
def _within_memory(problem: str, device: torch.device) -> Iterator[None]:
    """UserError as soon as the weights created in the block need more memory than the host has free.

    Memory is allocated before it is written to, so that a mistyped width neither fills the memory nor gets the process
    killed.
    """
    free, needed = None if device.type == "meta" else free_memory(torch.device("cpu")), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal needed
        if parameter is not None and not is_lazy(parameter):  # a lazy one has no shape yet
            needed += parameter.numel() * parameter.element_size()
        if free is not None and needed > free:
            raise UserError(f"{problem} (its weights take more than the {free / 1e9:,.1f} GB that are free)")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
