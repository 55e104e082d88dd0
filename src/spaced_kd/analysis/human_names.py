"""Names of settings for readers, from the labels that rows have; labels themselves stay in CSV files.

`tiny_imagenet[classes=20,size=32,train_per_class=250]` is "Tiny-ImageNet, 20 classes, 32 px, 250 images per class".
"""

import re
from collections.abc import Collection
from fractions import Fraction
from typing import TYPE_CHECKING

from spaced_kd.config.labels import CHAIN, Label, Recipe

if TYPE_CHECKING:
    from pandas import DataFrame

    from spaced_kd.analysis.claims.model import Setting

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
METHODS = {
    "baseline": "w/o KD",
    "online_kd": "online KD",
    "self_kd": "self KD",
    "constant_lead": "constant lead",
    "adaptive_interval": "adaptive interval",
    **{name: name.upper().replace("_", "-") for name in ("ban", "dlb", "dml", "ps_kd", "shake", "takd")},
}
INTERVALS = {  # method and interval -> name; {} is the interval
    ("online_kd", "max"): "offline KD",
    ("online_kd", "0"): "online KD",
    ("online_kd", "*"): "Spaced KD, s = {}",
    ("self_kd", "0"): "self KD",
    ("self_kd", "*"): "Spaced self KD, s = {}",
}
WORDS = {  # settings of plug-ins and words of recipes; {} is the value
    "folder": "{}",
    "classes": "{} classes",
    "size": "{} px",
    "train_per_class": "{} images per class",
    "hidden": "{} hidden units",
    "patches": "{0} x {0} patches",
    "epochs": "{} epochs",
    "batch_size": "batch size {}",
    "lr": "learning rate {}",
    "lr_schedule": "{} schedule",
    "min_lr": "minimum learning rate {}",
    "warmup_epochs": "{} warm-up epochs",
    "weight_decay": "weight decay {}",
    "precision": "{}",
}
VALUES = {"adamw": "AdamW", "sgd": "SGD", "autoaugment_cutout": "AutoAugment and Cutout", "kl": "KL", "mse": "MSE"}
IN_SHORT = ("folder", "classes", "size")  # settings of a dataset that its short name has


def plugin_name(label: str, *, short: bool = False) -> str:
    """A dataset's or network's name, e.g. "ResNet-18 x 1/4" of `resnet18[width=0.25]`.

    Args:
        label: as rows have it: the plug-in's name, and settings that differ from the defaults in square brackets.
        short: name only those settings of a dataset that determine its size.
    """
    plugin = Label.read(label)
    named = PLUGINS.get(plugin.name) or re.sub(r"^resnet(\d+)$", r"ResNet-\1", plugin.name)
    if "width" in plugin.settings:
        named += f" x {Fraction(plugin.settings['width']).limit_denominator(64)}"
    shown = {key: value for key, value in plugin.settings.items() if key != "width" and (not short or key in IN_SHORT)}
    return ", ".join([named, *(_word(key, value) for key, value in shown.items())])


def method_name(label: str, interval: str = "") -> str:
    """A method's name, with its interval where one is given, e.g. "Spaced KD, s = 1.5, soft loss l1".

    Args:
        label: as rows have it, e.g. `online_kd[soft_loss=l1]`.
        interval: in epochs, "max", or "" where it does not matter.
    """
    method = Label.read(label)
    named = METHODS.get(method.name, method.name)
    if interval:
        known = INTERVALS.get((method.name, interval)) or INTERVALS.get((method.name, "*"), f"{named}, s = {{}}")
        named = known.format(interval)
    return ", ".join([named, *(_word(key, value) for key, value in method.settings.items())])


def teacher_name(label: str) -> str:
    """A teacher's name, or those of a chain: "ResNet-101 > ResNet-50"."""
    return CHAIN.join(plugin_name(each) for each in label.split(CHAIN))


def kd_name(label: str) -> str:
    """A method with the teachers that it has: "TAKD from ResNet-101 > ResNet-50"."""
    method, from_teachers, teachers = label.partition(" from ")
    return method_name(method) + (from_teachers and from_teachers + teacher_name(teachers))


def recipe_text(recipe: str) -> str:
    """A recipe as text, e.g. "10 epochs, learning rate 0.1, reading released"; other text is returned unchanged."""
    words = Recipe.read(recipe).telling
    return ", ".join(_word(key, value) for key, value in words.items()) if all(words.values()) and words else recipe


COLUMNS = {  # of tables, whose cells are labels
    "dataset": plugin_name,
    "network": plugin_name,
    "teacher": teacher_name,
    "method": method_name,
    "kd": kd_name,
    "recipe": recipe_text,
}


def of_table(table: "DataFrame") -> "DataFrame":
    """A table of text with names instead of labels.

    Its `attrs["names"]`, column -> {cell: name}, has the names of columns whose cells are not single labels.
    """
    named = table.copy()
    for column, name in COLUMNS.items():
        if column in named:
            named[column] = named[column].map(name)
    for column, names in table.attrs.get("names", {}).items():
        named[column] = named[column].map(lambda cell, names=names: names.get(cell, cell))
    return named


def family_name(label: str) -> str:
    """A plug-in's name without settings: "Tiny-ImageNet"."""
    return plugin_name(Label.read(label).name)


def scale_name(setting: "Setting", *, short: bool = True) -> str:
    """Dataset, network and epochs: "Tiny-ImageNet, 20 classes, 32 px; ResNet-18 x 1/4; 80 epochs".

    The short name omits settings that do not determine the size of a dataset, such as its images per class.
    """
    network = plugin_name(setting.network)
    if setting.teacher != setting.network:
        network += " taught by " + " and ".join(plugin_name(each) for each in setting.teacher.split(CHAIN))
    epochs = _word("epochs", Recipe.read(setting.recipe).epochs)
    return "; ".join([plugin_name(setting.dataset, short=short), network, epochs])


def scale_names(settings: "Collection[Setting]") -> "dict[Setting, str]":
    """Short names, but full ones where two of the settings would have one short name."""
    full: dict[str, set[str]] = {}
    for setting in settings:
        full.setdefault(scale_name(setting), set()).add(setting.dataset)
    return {each: scale_name(each, short=len(full[scale_name(each)]) == 1) for each in settings}


def setting_name(setting: "Setting") -> str:
    """The full name of a setting: "Digits; mini ResNet; 12 epochs; batch size 16; reading textbook"."""
    reading = f"reading {reading_name(setting.reading)}"
    return "; ".join(filter(None, [scale_name(setting, short=False), recipe_name(setting), reading]))


def setting_names(settings: "Collection[Setting]") -> "dict[Setting, str]":
    """Names of settings side by side: of a recipe only what differs between those of one dataset and network."""
    scales, names = scale_names(settings), {}
    for setting in settings:
        there = [Recipe.read(other.recipe).telling.items() for other in settings if other[:2] == setting[:2]]
        common = set(there[0]).intersection(*there)
        own = {key: text for key, text in Recipe.read(setting.recipe).telling.items() if (key, text) not in common}
        words = recipe_name(setting._replace(recipe=str(Recipe(own))))
        names[setting] = "; ".join(filter(None, [scales[setting], words, f"reading {reading_name(setting.reading)}"]))
    return names


def recipe_name(setting: "Setting") -> str:
    """The other settings of recipe and method that differ from the defaults: "batch size 16, learning rate 0.02"."""
    words = Recipe(Recipe.read(setting.recipe).telling).without(("epochs", "protocol")).settings
    shared = Label.read(f"[{setting.shared}]").settings
    return ", ".join(_word(key, text) for key, text in (words | shared).items())


def reading_name(reading: str) -> str:
    """A reading of the paper (protocol), e.g. "released loop only" of `released_loop_only`."""
    return reading.replace("_", " ")


def _word(key: str, value: str) -> str:
    value = VALUES.get(value, value.replace("_", " ")).removesuffix(".0")
    if key == "optimizer":
        return value
    if key == "epochs" and value.startswith("x"):
        return f"{value[1:]} times the epochs"
    if key == "protocol":
        return f"reading {reading_name(value)}"
    if key == "classes" and "," in value:  # those classes themselves, not their number
        return f"classes {value.replace(',', ' and ')}"
    return WORDS.get(key, f"{key.replace('_', ' ')} {{}}").format(value)
