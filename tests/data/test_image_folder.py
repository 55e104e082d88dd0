"""A plain folder of images by class: what is made of it, and each slip in it by name."""

import numpy as np
import pytest
from PIL import Image

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.config.study import expand
from spaced_kd.data import dataset
from spaced_kd.data.datasets import image_folder
from spaced_kd.planning.costs import RunCosts
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json

WORDS = ["dataset=image_folder", "dataset.folder=pets", "dataset.size=16"]
TRAINING = ["network=vit_mini", "network.dim=16", "method=baseline", "seed=0", "epochs=1", "batch_size=2"]


def paint(path, colour=(200, 40, 40), size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


@pytest.fixture
def source(tmp_path):
    """The folder of data with `pets`: two cats and three dogs to learn from, and one of each to test on."""
    root = tmp_path / "data" / "pets"
    for split, counts in {"train": {"dog": 3, "cat": 2}, "val": {"cat": 1, "dog": 1}}.items():
        for label, count in counts.items():
            for number in range(count):
                paint(root / split / label / f"{number}.png", (200 if label == "cat" else 20, 40 * number, 0))
    return tmp_path / "data"


def prepare(source, *arguments) -> int:
    return cli.main(
        ["prepare", *WORDS, *arguments, "--source", str(source), "--results", str(source.parent / "results")]
    )


def test_classes_are_numbered_by_name_and_images_are_cut_to_size(source, capsys):
    (source / "pets/train/cat/notes.txt").write_text("not an image")
    (source / "pets/train/cat/._0.png").write_bytes(b"what a file manager leaves")
    (source / "pets/train/.cache").mkdir()
    content = image_folder.prepare(source, folder="pets", size=16)
    assert content["classes"].tobytes() == b"cat\ndog"
    assert content["train_labels"].tolist() == [0, 0, 1, 1, 1]
    assert content["test_labels"].tolist() == [0, 1]
    assert content["train_images"].shape == (5, 16, 16, 3)
    assert content["train_images"][:, 8, 8].tolist() == [
        [200, 0, 0],
        [200, 40, 0],
        [20, 0, 0],
        [20, 40, 0],
        [20, 80, 0],
    ]
    assert content["train_names"].tobytes() == b"cat/0.png\ncat/1.png\ndog/0.png\ndog/1.png\ndog/2.png"
    assert image_folder.shape(source, folder="pets", size=16) == (5, 2, 2, 16)


def test_the_middle_of_a_wide_image_is_kept(source):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 250  # the middle third alone is bright
    Image.fromarray(wide).save(source / "pets/train/cat/0.png")
    image = image_folder.prepare(source, folder="pets", size=20)["train_images"][0]
    assert image.shape == (20, 20, 3)
    assert image[:, 2:-2].min() > 240


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_any_image_of_8_bits_becomes_rgb(source, mode):
    ending = "tif" if mode == "CMYK" else "png"
    paint(source / f"pets/train/cat/2.{ending}", (255, 255, 255), mode=mode)
    assert image_folder.prepare(source, folder="pets", size=16)["train_images"][2].min() > 250


def no_classes(root):
    for path in [*(root / "train").glob("*/*")]:
        path.unlink()
    for path in [*(root / "train").iterdir()]:
        path.rmdir()


def one_class(root):
    for path in [*root.glob("*/dog/*")]:
        path.unlink()
    for path in [*root.glob("*/dog")]:
        path.rmdir()


def deep(root):
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(root / "train/cat/0.png")


def cut(root):
    path = root / "val/dog/0.png"
    path.write_bytes(path.read_bytes()[:60])


WRONG = {
    "no folder": (
        lambda root: root.rename(root.with_name("other")),
        "pets does not exist: lay images out as train/CLASS/",
    ),
    "no train": (lambda root: (root / "train").rename(root / "learn"), "pets/train does not exist: lay images out as"),
    "no test set": (lambda root: (root / "val").rename(root / "valid"), "pets/val does not exist: lay images out as"),
    "no classes": (no_classes, "train has 0 classes, but needs two: a folder of images for each"),
    "one class": (one_class, "train has 1 classes, but needs two"),
    "a class of the test set alone": (
        lambda root: paint(root / "val/bird/0.png"),
        "class 'bird' has images in {root}/val, but none in {root}/train: both need the same classes",
    ),
    "a class of the training set alone": (
        lambda root: paint(root / "train/bird/0.png"),
        "class 'bird' has images in {root}/train, but none in {root}/val",
    ),
    "an empty class": (lambda root: (root / "train/bird").mkdir(), "train/bird has no image (.png, .jpg, "),
    "no image in a file": (
        lambda root: (root / "train/cat/9.png").write_text("text"),
        "train/cat/9.png cannot be read (cannot identify image file",
    ),
    "an image that is cut off": (cut, "val/dog/0.png cannot be read ("),
    "16 bits": (deep, "train/cat/0.png has more than 8 bits per channel: save it with 8"),
    "two test sets": (
        lambda root: paint(root / "test/cat/0.png"),
        "pets has both val and test: say which is the test set",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_slip_in_the_folder_is_one_line(source, kind, capsys):
    break_it, complaint = WRONG[kind]
    break_it(source / "pets")
    assert prepare(source) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint.format(root=source / "pets") in message
    assert not (source.parent / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["dataset.folder=/pets"],
            "image_folder.folder is '/pets', but must be the name of a folder in that of all data",
        ),
        (["dataset.folder=../pets"], "image_folder.folder is '../pets', but must be"),
        (["dataset.folder=''"], "image_folder.folder is '', but must be"),
        (["dataset.folder=pets", "dataset.size=2"], "image_folder.size is 2, but must be in [4, 1024]"),
        (["dataset.size=16"], "image_folder.folder has no default and is not given"),
        (["dataset.folder=pets", "dataset.sha256=ff00"], "image_folder.sha256 is ff00, but pets comes to"),
    ],
)
def test_a_wrong_setting_is_one_line(source, arguments, complaint, capsys):
    assert (
        cli.main(["prepare", "dataset=image_folder", *arguments, "--source", str(source), "--results", "nowhere"]) == 2
    )
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]


def test_images_that_do_not_fit_in_memory_are_refused_before_they_are_read(source, monkeypatch):
    monkeypatch.setattr(image_folder, "free_memory", lambda device: 10_000)
    with pytest.raises(UserError, match=r"image_folder.size is 64, with which the images of pets take .* lower it"):
        image_folder.prepare(source, folder="pets")


def test_a_run_trains_on_it_and_tells_which_images_it_had(source, capsys):
    assert prepare(source) == 0
    message = capsys.readouterr().out
    results = source.parent / "results"
    assert cli.main(["train", *WORDS, *TRAINING, "--results", str(results), "--workers", "0"]) == 0
    (run,) = (results / "runs").iterdir()
    assert run.name.startswith("image_folder-vit_mini-baseline-0-0-")
    provenance = read_json(run / "run.json", dict)["provenance"]
    assert f"pets: sha256 {provenance['data_sha256'][:16]}\n" in message
    assert cli.main(["verify", str(results)]) == 0
    # other images under the same name: the same id, and not the same data
    (source / "pets/train/cat/1.png").rename(source / "pets/train/cat/5.png")
    assert prepare(source) == 0
    assert cli.main(["verify", str(results)]) == 2
    assert "was trained on other data than" in capsys.readouterr().out


def test_folders_names_and_checksums_make_other_ids():
    flat = {"dataset": "image_folder", "network": "vit_mini", "method": "baseline", "seed": 0}
    given = (
        {"folder": "pets"},
        {"folder": "cars"},
        {"folder": "pets", "sha256": "1f"},
        {"folder": "pets", "test": "test"},
    )
    specs = [from_flat(flat | {f"dataset.{key}": value for key, value in each.items()}) for each in given]
    assert len({spec.id for spec in specs}) == len({spec.data_id for spec in specs}) == 4


def test_a_study_names_the_folder_and_is_planned_from_its_files(source):
    grid = {"dataset": {"image_folder": {"folder": "pets"}}, "network": "vit_mini", "method": "baseline", "seed": 0}
    study = expand({"study": "own", "data": str(source), "grids": [grid | {"epochs": 1, "batch_size": 2}]})
    (run,) = study.runs
    assert RunCosts(source).cost(run).predictions == 2 * 2
    with pytest.raises(UserError, match="does not exist: lay images out as"):
        RunCosts(source / "elsewhere").cost(run)


def test_the_example_is_such_a_folder(tmp_path):
    settings = image_folder.example(tmp_path)
    dataset.check(image_folder.prepare(tmp_path, **settings))
    spec = from_flat(
        {"dataset": "image_folder", "network": "vit_mini", "method": "baseline", "seed": 0} | {"dataset.folder": "a"}
    )
    assert ResultPaths(tmp_path).data(spec).name.startswith("image_folder-")
