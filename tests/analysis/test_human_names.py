import pytest

from spaced_kd.analysis import human_names
from spaced_kd.analysis.claims.model import Setting

TINY = "tiny_imagenet[classes=20,size=32,train_per_class=250]"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (TINY, "Tiny-ImageNet, 20 classes, 32 px, 250 images per class"),
        ("resnet18[width=0.25]", "ResNet-18 x 1/4"),
        ("resnet101", "ResNet-101"),
        ("deit_tiny", "DeiT-Tiny"),
        ("image_folder[folder=pets,size=32]", "Images, pets, 32 px"),
        ("digits[classes=3,8 train_per_class=16]", "Digits, classes 3 and 8, 16 images per class"),
        ("tanh[hidden=8]", "tanh network, 8 hidden units"),
        ("my_net[depth=3,drop_path=0.1]", "my_net, depth 3, drop path 0.1"),
    ],
)
def test_a_plug_in(label, name):
    assert human_names.plugin_name(label) == name


def test_a_setting():
    setting = Setting(TINY, "resnet18[width=0.25]", "resnet18[width=0.25]", "eval_every=5 precision=bf16")
    assert human_names.scale_name(setting) == "Tiny-ImageNet, 20 classes, 32 px; ResNet-18 x 1/4; 80 epochs"
    assert human_names.recipe_name(setting) == "bf16"


def test_another_teacher_and_its_assistant():
    setting = Setting("cifar100", "resnet18", "resnet101 > resnet50", "epochs=10", "alpha=0.5")
    assert human_names.scale_name(setting) == "CIFAR-100; ResNet-18 taught by ResNet-101 and ResNet-50; 10 epochs"
    assert human_names.recipe_name(setting) == "alpha 0.5"


def test_two_settings_never_share_a_name():
    """Images per class are in a short name only where they tell two settings apart."""
    few, many = (Setting(f"digits[train_per_class={n}]", "vit_mini", "vit_mini") for n in (30, 100))
    assert human_names.scale_names([few])[few] == "Digits; mini ViT; 80 epochs"
    names = human_names.scale_names([few, many])
    assert names[few] == "Digits, 30 images per class; mini ViT; 80 epochs"
    assert names[many] == "Digits, 100 images per class; mini ViT; 80 epochs"
