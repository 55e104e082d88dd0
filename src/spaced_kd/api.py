"""Public names for plug-ins of other packages, notebooks and users: what is named here stays where it is."""

from spaced_kd.config.registry import find, plugins
from spaced_kd.config.run_spec import RunSpec, from_flat, from_words
from spaced_kd.config.study import Study, load_study
from spaced_kd.data.augmentation import random_crop, random_resized_crop, random_rotation
from spaced_kd.data.batches import Batch
from spaced_kd.data.dataset import Data, Shape
from spaced_kd.data.download import fetch, unzip
from spaced_kd.distillation.logit_memory import Memory, Sizes
from spaced_kd.distillation.losses import (
    alignment,
    distillation,
    guiding,
    hard,
    kl,
    mse,
    soft_cross_entropy,
    target,
)
from spaced_kd.distillation.schedule import Turn, alone, follow, turns
from spaced_kd.networks.outputs import Exit
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

__all__ = [
    "Batch",
    "Data",
    "Exit",
    "Memory",
    "RunSpec",
    "Shape",
    "Sizes",
    "Study",
    "Turn",
    "UserError",
    "alignment",
    "alone",
    "distillation",
    "fetch",
    "find",
    "follow",
    "from_flat",
    "from_words",
    "generator",
    "global_seed",
    "guiding",
    "hard",
    "kl",
    "load_study",
    "mse",
    "plugins",
    "random_crop",
    "random_resized_crop",
    "random_rotation",
    "soft_cross_entropy",
    "target",
    "turns",
    "unzip",
]
