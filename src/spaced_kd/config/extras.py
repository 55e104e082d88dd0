"""The extra of the package that installs a missing module, such as `train`."""

import importlib.util
from collections.abc import Iterable

from spaced_kd.utils.errors import UserError

TRAIN = ("torch", "torchvision", "timm", "sklearn", "PIL", "curvlinops", "snakemake", "huggingface_hub")
ROBUSTNESS = ("torchattacks", "imagecorruptions", "skimage")
OF_MODULE = dict.fromkeys(TRAIN, "train") | dict.fromkeys(ROBUSTNESS, "robustness") | {"tensorboard": "tensorboard"}
OF_EVALUATION: dict[str, tuple[str, ...]] = {"bim": ("torchattacks",), "corruptions": ("imagecorruptions",)}


def remedy(module: str) -> str:
    """The command that installs a missing module, in one line; empty for a module that is in no extra."""
    extra = OF_MODULE.get(module.partition(".")[0])
    return f"{module} is not installed: pip install 'spaced-kd[{extra}]'" if extra else ""


def check(evaluations: Iterable[str]) -> None:
    """UserError if training, or one of these evaluations, needs an extra that is not installed."""
    asked = {"training": ("torch", "timm"), **{name: OF_EVALUATION.get(name, ()) for name in evaluations}}
    for what, modules in asked.items():
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise UserError(f"{what} needs a package that is missing: {remedy(module)}")
