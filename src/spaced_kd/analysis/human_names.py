"""Names of settings for readers, from the labels that rows have; labels themselves stay in CSV files.

`tiny_imagenet[classes=20,size=32,train_per_class=250]` is "Tiny-ImageNet, 20 classes, 32 px, 250 images per class".
"""

import re
from collections.abc import Collection
from fractions import Fraction

from spaced_kd.analysis.claims.model import Setting, recipe_words
from spaced_kd.config.run_spec import RunSpec

PLUGINS = {
    "digits": "Digits",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet100": "ImageNet-100",
    "imagenet1k": "ImageNet-1K",
    "image_folder": "Images",
    "resnet_mini": "mini ResNet",
    "vit_mini": "mini ViT",
    "deit_tiny": "DeiT-Tiny",
    "pit_tiny": "PiT-Tiny",
    "tanh": "tanh network",
}
WORDS = {  # settings of plug-ins and words of recipes; {} is the value
    "folder": "{}",
    "classes": "{} classes",
    "size": "{} px",
    "train_per_class": "{} images per class",
    "hidden": "{} hidden units",
    "epochs": "{} epochs",
    "batch_size": "batch size {}",
    "lr": "learning rate {}",
    "lr_schedule": "{} schedule",
    "min_lr": "minimum learning rate {}",
    "warmup_epochs": "{} warm-up epochs",
    "weight_decay": "weight decay {}",
    "precision": "{}",
    "protocol": "reading {}",
}
VALUES = {"adamw": "AdamW", "sgd": "SGD"}
IN_SHORT = ("folder", "classes", "size")  # settings of a dataset that its short name has


def plugin_name(label: str, *, short: bool = False) -> str:
    """A dataset's or network's name, e.g. "ResNet-18 x 1/4" of `resnet18[width=0.25]`.

    Args:
        label: as rows have it: the plug-in's name, and settings that differ from the defaults in square brackets.
        short: of a dataset's settings only those that tell its size.
    """
    name, given = _parts(label)
    told = PLUGINS.get(name) or re.sub(r"^resnet(\d+)$", r"ResNet-\1", name)
    if "width" in given:
        told += f" x {Fraction(given.pop('width')).limit_denominator(64)}"
    settings = [_word(key, value) for key, value in given.items() if not short or key in IN_SHORT]
    return ", ".join([told, *settings])


def family_name(label: str) -> str:
    """A plug-in's name without settings: "Tiny-ImageNet"."""
    return plugin_name(_parts(label)[0])


def scale_name(setting: Setting, *, short: bool = True) -> str:
    """Dataset, network and epochs: "Tiny-ImageNet, 20 classes, 32 px; ResNet-18 x 1/4; 80 epochs".

    The short name leaves out what does not tell the size of a dataset, such as its images per class.
    """
    network = plugin_name(setting.network)
    if setting.teacher != setting.network:
        network += " taught by " + " and ".join(plugin_name(each) for each in setting.teacher.split(" > "))
    epochs = recipe_words(setting.recipe).get("epochs", str(RunSpec.epochs))
    return "; ".join([plugin_name(setting.dataset, short=short), network, _word("epochs", epochs)])


def scale_names(settings: Collection[Setting]) -> dict[Setting, str]:
    """Short names, but full ones where two of the settings would have one short name."""
    full: dict[str, set[str]] = {}
    for setting in settings:
        full.setdefault(scale_name(setting), set()).add(setting.dataset)
    return {each: scale_name(each, short=len(full[scale_name(each)]) == 1) for each in settings}


def recipe_name(setting: Setting) -> str:
    """What else of the recipe and method differs from the defaults: "batch size 16, learning rate 0.02"."""
    words = {key: text for key, text in recipe_words(setting.recipe).items() if key not in ("epochs", "protocol")}
    shared = dict(word.partition("=")[::2] for word in setting.shared.split(",") if word)
    return ", ".join(_word(key, text) for key, text in (words | shared).items())


def reading_name(reading: str) -> str:
    """A reading of the paper (protocol), e.g. "released loop only" of `released_loop_only`."""
    return reading.replace("_", " ")


def _parts(label: str) -> tuple[str, dict[str, str]]:
    """Name and settings of a label; they are separated by commas or, in older rows, by spaces."""
    name, _, settings = label.removesuffix("]").partition("[")
    words = re.split(r"[ ,](?=[a-z_0-9]+=)", settings) if settings else []
    return name, dict(word.partition("=")[::2] for word in words)


def _word(key: str, value: str) -> str:
    value = VALUES.get(value, value).removesuffix(".0")
    if key == "optimizer":
        return value
    if key == "classes" and "," in value:  # those classes themselves, not their number
        return f"classes {value.replace(',', ' and ')}"
    return WORDS.get(key, f"{key.replace('_', ' ')} {{}}").format(value)
