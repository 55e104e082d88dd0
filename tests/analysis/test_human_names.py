import pytest
from pandas import DataFrame

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


@pytest.mark.parametrize(
    ("label", "interval", "name"),
    [
        ("baseline", "", "w/o KD"),
        ("online_kd", "0", "online KD"),
        ("online_kd", "1.5", "Spaced KD, s = 1.5"),
        ("online_kd", "max", "offline KD"),
        ("online_kd", "", "online KD"),
        ("online_kd[feature_loss=mse_sum,soft_loss=l1]", "0", "online KD, feature loss mse sum, soft loss l1"),
        ("self_kd", "4", "Spaced self KD, s = 4"),
        ("ps_kd", "1.5", "PS-KD, s = 1.5"),
        ("my_kd[alpha=0.5]", "0", "my_kd, s = 0, alpha 0.5"),
    ],
)
def test_a_method(label, interval, name):
    assert human_names.method_name(label, interval) == name


def test_a_recipe():
    assert human_names.recipe_text("epochs=10 eval_every=5 protocol=released_loop_only") == (
        "10 epochs, reading released loop only"
    )
    assert human_names.recipe_text("epochs=x2") == "2 times the epochs"
    assert human_names.recipe_text("–") == "–"
    assert human_names.recipe_text("") == ""


def test_a_table_has_names_in_the_place_of_labels():
    table = DataFrame({"dataset": [TINY, "–"], "kd": ["takd from resnet101 > resnet50", "dml"], "where": ["a", "b"]})
    table.attrs["names"] = {"where": {"a": "a long name"}}
    named = human_names.of_table(table)
    assert named.to_numpy().tolist() == [
        ["Tiny-ImageNet, 20 classes, 32 px, 250 images per class", "TAKD from ResNet-101 > ResNet-50", "a long name"],
        ["–", "DML", "b"],
    ]
    assert table["dataset"][0] == TINY


def test_settings_side_by_side_have_what_tells_them_apart():
    recipes = ("batch_size=9 epochs=12", "batch_size=9 epochs=12 lr=0.1 protocol=paper")
    one, other = (Setting("digits", "resnet_mini", "resnet_mini", recipe) for recipe in recipes)
    assert list(human_names.setting_names([one, other]).values()) == [
        "Digits; mini ResNet; 12 epochs; reading textbook",
        "Digits; mini ResNet; 12 epochs; learning rate 0.1; reading paper",
    ]
    assert human_names.setting_name(one) == "Digits; mini ResNet; 12 epochs; batch size 9; reading textbook"
