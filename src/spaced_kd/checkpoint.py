"""Weights and resume states: safetensors, written whole, verified when read, the last two states kept."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spaced_kd import arrays
from spaced_kd.errors import UserError
from spaced_kd.learner import Learner

REMEDY = "delete it, and the same command makes it again"


def to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as arrays on the host."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def save_weights(path: Path, network: nn.Module, **about: Any) -> str:
    """Write a network's parameters and buffers; gives their checksum."""
    return arrays.save(path, to_arrays(network.state_dict()), **about)


def load_weights(path: Path, network: nn.Module) -> str:
    """Read a network's parameters and buffers; UserError where the file is damaged or of another network."""
    stored, about = arrays.read(path, remedy=REMEDY)
    _fill(path, network, stored)
    return about["checksum"]


def save_state(
    folder: Path, turn: int, modules: dict[str, nn.Module], learners: dict[str, Learner], **about: Any
) -> None:
    """Write everything that a training needs to go on after `turn` turns, and keep the state before it."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, learner in learners.items():
        for parameter, state in learner.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer of {name}/{parameter}/{key}": value for key, value in state.items()}
    recorded = {f"record/{name}": value for name, value in about.pop("record").items()}
    steps = {name: learner.steps for name, learner in learners.items()}
    arrays.save(_path(folder, turn), to_arrays(tensors) | recorded, turn=turn, steps=steps, **about)
    for old in states(folder)[:-2]:
        old.unlink()


def load_state(
    folder: Path, modules: dict[str, nn.Module], learners: dict[str, Learner], run: str
) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest whole state put into modules and learners: (turn, record, description); None where there is none.

    A damaged state is passed over with a warning for the one before it, and so is one without a learner that is needed
    now (a teacher whose stored states are gone); UserError where it belongs to another run.
    """
    for path in reversed(states(folder)):
        try:
            stored, about = arrays.read(path, remedy="the state before it is used")
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if about["run"] != run:
            raise UserError(f"{path} is a state of the run {about['run']}: delete it")
        if missing := set(learners) - set(about["steps"]):
            warnings.warn(f"{path} lacks the learner {', '.join(missing)}: training starts anew", stacklevel=2)
            continue
        for name, module in modules.items():
            _fill(path, module, _below(f"{name}/", stored))
        for name, learner in learners.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(f"optimizer of {name}/", stored).items():
                parameter, _, part = key.partition("/")
                state.setdefault(int(parameter), {})[part] = torch.from_numpy(value)
            groups = learner.optimizer.state_dict()["param_groups"]
            learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
            learner.steps = about["steps"][name]
        return about["turn"], _below("record/", stored), about
    return None


def states(folder: Path) -> list[Path]:
    """Resume states in a folder, oldest first."""
    return sorted(folder.glob("turn-*.safetensors"))


def _path(folder: Path, turn: int) -> Path:
    return folder / f"turn-{turn:09d}.safetensors"


def _below(prefix: str, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}


def _fill(path: Path, module: nn.Module, stored: dict[str, np.ndarray]) -> None:
    try:
        module.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})
    except RuntimeError:
        raise UserError(f"{path} holds the weights of another network: {REMEDY}") from None
