"""Weights and resume states: safetensors, written atomically and verified when read; the last two states are kept."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spaced_kd.training.learner import Learner
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

REMEDY = "delete it, and the same command makes it again"
MALFORMED = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
)  # errors of reading content of another kind


def to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as arrays on the host."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def save_weights(path: Path, network: nn.Module, **about: Any) -> str:
    """Write a network's parameters and buffers; returns their checksum."""
    return array_file.save(path, to_arrays(network.state_dict()), **about)


def load_weights(path: Path, network: nn.Module, **expected: Any) -> str:
    """Read a file of weights into a network; UserError if the file is damaged or has another description.

    Args:
        path: the file.
        network: receives the parameters and buffers.
        expected: entries of the file's description, such as `run`; entries that the file lacks are not checked.
    """
    stored, about = array_file.read(path, remedy=REMEDY)
    for key, value in expected.items():
        if about.get(key, value) != value:
            raise UserError(f"{path} is of {key} {about[key]}, not {value}: {REMEDY}")
    try:
        _fill(network, stored)
    except MALFORMED:
        raise UserError(f"{path} contains the weights of another network: {REMEDY}") from None
    return about["checksum"]


def save_state(
    folder: Path, turn: int, modules: dict[str, nn.Module], learners: dict[str, Learner], *, before: int, **about: Any
) -> None:
    """Write the state of a training after `turn` turns; of the older states only the one after `before` is kept.

    `before` is the state that this training wrote or resumed from: a damaged one that it skipped must not be kept.
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, learner in learners.items():
        for parameter, state in learner.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer of {name}/{parameter}/{key}": value for key, value in state.items()}
    recorded = {f"record/{name}": value for name, value in about.pop("record").items()}
    steps = {name: learner.steps for name, learner in learners.items()}
    array_file.save(state_path(folder, turn), to_arrays(tensors) | recorded, turn=turn, steps=steps, **about)
    for old in states(folder):
        if old not in (state_path(folder, turn), state_path(folder, before)):
            old.unlink()


def load_state(
    folder: Path, modules: dict[str, nn.Module], learners: dict[str, Learner], run: str
) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
    """Load the newest valid state into modules and learners: (turn, metrics, description); None if there is none.

    A damaged state is skipped with a warning, and so is one that lacks a learner needed now (a teacher whose stored
    states are gone). UserError if a state belongs to another run, or the file is intact but not a state.
    """
    for path in reversed(states(folder)):
        try:
            stored, about = array_file.read(path, remedy="the state before it is used")
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if about.get("run") != run:
            raise UserError(f"{path} is a state of another run, {about.get('run')}: delete it")
        try:
            if path != state_path(folder, about["turn"]):
                raise ValueError
            if missing := set(learners) - set(about["steps"]):
                warnings.warn(f"{path} lacks the learner {', '.join(missing)}: training starts anew", stacklevel=2)
                continue
            for name, module in modules.items():
                _fill(module, _below(f"{name}/", stored))
            for name, learner in learners.items():
                _fill_optimizer(learner.optimizer, _below(f"optimizer of {name}/", stored))
                if (steps := int(about["steps"][name])) < 0:
                    raise ValueError
                learner.steps = steps
        except MALFORMED:
            raise no_state(path) from None
        return about["turn"], _below("record/", stored), about
    return None


def has_learner(folder: Path, name: str) -> bool:
    """Whether the newest valid state in a folder has a learner of this name."""
    for path in reversed(states(folder)):
        try:
            return name in array_file.read(path, remedy="the state before it is used")[1].get("steps", ())
        except UserError:
            continue
    return False


def no_state(path: Path) -> UserError:
    """The error for an intact file that has the name of a state but other content."""
    return UserError(f"{path} is not a state from which this run can resume: delete it")


def states(folder: Path) -> list[Path]:
    """Resume states in a folder, oldest first."""
    return sorted(folder.glob("turn-*.safetensors"))


def state_path(folder: Path, turn: int) -> Path:
    """File of the state after `turn` turns."""
    return folder / f"turn-{turn:09d}.safetensors"


def _below(prefix: str, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}


def _fill(module: nn.Module, stored: dict[str, np.ndarray]) -> None:
    """Load parameters and buffers into a module; one of MALFORMED if names, shapes or types differ."""
    tensors = {name: torch.from_numpy(value) for name, value in stored.items()}
    own = module.state_dict()
    if any(tensor.dtype != own[name].dtype for name, tensor in tensors.items()):
        raise TypeError
    module.load_state_dict(tensors)


def _fill_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, np.ndarray]) -> None:
    """Load "number of the parameter/key" -> value into an optimiser, which does not check shapes itself."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in stored.items():
        number, _, key = name.partition("/")
        if value.shape not in ((), parameters[int(number)].shape):
            raise ValueError
        state.setdefault(int(number), {})[key] = torch.from_numpy(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
