"""Public names for plug-ins of other packages, notebooks and users: what is named here stays where it is."""

from spaced_kd.config.registry import find, plugins
from spaced_kd.config.run_spec import RunSpec, from_flat, from_overrides
from spaced_kd.config.study import Study, load_study
from spaced_kd.data.augmentation import random_crop, random_resized_crop, random_rotation
from spaced_kd.data.batches import Batch
from spaced_kd.data.dataset import Data, Shape
from spaced_kd.data.download import fetch, unzip
from spaced_kd.distillation.logit_memory import LogitMemory, Sizes
from spaced_kd.distillation.losses import (
    alignment,
    distillation,
    eval_or_train_mode,
    hard,
    kl,
    mse,
    soft_cross_entropy,
    teacher_outputs,
)
from spaced_kd.distillation.method import Method
from spaced_kd.distillation.schedule import Turn, follow, solo, turns
from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.sharing.load import load_network
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

__all__ = [
    "Batch",
    "Data",
    "LogitMemory",
    "Method",
    "NetworkOutput",
    "RunSpec",
    "Shape",
    "Sizes",
    "Study",
    "Turn",
    "UserError",
    "alignment",
    "distillation",
    "eval_or_train_mode",
    "fetch",
    "find",
    "follow",
    "from_flat",
    "from_overrides",
    "generator",
    "global_seed",
    "hard",
    "kl",
    "load_network",
    "load_study",
    "mse",
    "plugins",
    "random_crop",
    "random_resized_crop",
    "random_rotation",
    "soft_cross_entropy",
    "solo",
    "teacher_outputs",
    "turns",
    "unzip",
]
