"""Streamed datasets: an index is prepared, images are decoded when asked for, and everything works as from memory."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from conftest import still
from PIL import Image
from torchvision import transforms

from spaced_kd.cli import main as cli
from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.data import corruptions, dataset, imagenet, streaming
from spaced_kd.data.batches import Batches
from spaced_kd.data.dataset import Shape
from spaced_kd.data.datasets import imagenet1k, imagenet100
from spaced_kd.data.imagenet import index
from spaced_kd.data.streaming import Files, in_order
from spaced_kd.training.checkpoint import states
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import predict
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.training.run_recorder import RunRecorder
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json

WNIDS = ["n00000007", "n00000003", "n00000009"]
SHAPE = Shape(train=12, test=6, classes=3, size=32)
CMC = "9974508e5d4cc0098b70e8b6a0fe6067"  # md5 of imagenet100.txt as published, a class per line


@pytest.fixture
def source(tmp_path) -> Path:
    """The folder that holds ILSVRC2012: four training and two validation images of each of three classes."""
    published.imagenet(tmp_path, WNIDS, train=4, val=2)
    return tmp_path


@pytest.fixture
def streamed(source, monkeypatch) -> Path:
    """A folder of results with that dataset prepared, at 32 pixels to be quick."""
    monkeypatch.setattr(imagenet1k, "shape", lambda: SHAPE)
    monkeypatch.setattr(imagenet1k, "SIZE", 32)
    monkeypatch.setattr(imagenet1k, "CLASSES_SHA256", dataset.classes_digest(sorted(WNIDS)))
    monkeypatch.setattr(imagenet, "SIZE", 32)
    results = source / "results"
    content = imagenet1k.prepare(source)
    dataset.check(content)
    dataset.save(ResultPaths(results).data(of()), content, dataset="imagenet1k", settings={}, source=str(source))
    return results


def of(**changes: object):
    """A tiny run on it: 3 batches an epoch, the last of 2 images."""
    plain = {"dataset": "imagenet1k", "method": "baseline", "seed": 0, "batch_size": 5, "epochs": 1, "lr": 0.05}
    network = {"network": "resnet_mini", "network.width": 0.0625}
    return from_flat(plain | network | {key.replace("__", "."): value for key, value in changes.items()})


def message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights(folder: Path) -> str:
    return array_file.read(folder / "weights.safetensors", remedy="")[1]["checksum"]


# the index


def test_the_index_lists_classes_and_files_by_name(source):
    content = index(source, SHAPE)
    assert content["train_labels"].tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert content["test_labels"].tolist() == [0, 0, 1, 1, 2, 2]
    table = content["train_files"]
    names = [name.decode() for name in table.view(f"S{table.shape[1]}")[:, 0]]
    wnids = sorted(WNIDS)
    assert names == [f"ILSVRC2012/train/{wnid}/{wnid}_{i}.JPEG" for wnid in wnids for i in range(4)]
    assert content["train_bytes"].tolist() == [(source / name).stat().st_size for name in names]


def test_stray_files_are_neither_classes_nor_images(source):
    before = index(source, SHAPE)
    folder = source / "ILSVRC2012"
    for name in ("notes.txt", "n00000003.tar", "._n00000003", "val/.DS_Store", "val/n00000099", "val/._x.JPEG"):
        (folder / ("train" if "/" not in name else "") / name).write_text("stray")
    (folder / "train" / "new_folder").mkdir()
    for split in ("train", "val"):
        (folder / split / WNIDS[0] / "._stray.JPEG").write_text("stray")
        (folder / split / WNIDS[0] / "folder.JPEG").mkdir()
    after = index(source, SHAPE)
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_part_of_the_classes(source, monkeypatch, tmp_path):
    chosen = tmp_path / "chosen.txt"
    chosen.write_text(f"{WNIDS[2]} {WNIDS[0]}\n")
    monkeypatch.setattr(imagenet100, "CLASSES", chosen)
    monkeypatch.setattr(imagenet100, "shape", lambda: Shape(8, 4, 2, 224))
    with pytest.raises(UserError, match=r"chosen.txt does not have the published classes in their order"):
        imagenet100.prepare(source)
    monkeypatch.setattr(imagenet100, "CLASSES_SHA256", dataset.classes_digest([WNIDS[2], WNIDS[0]]))
    content = imagenet100.prepare(source)
    assert content["test_labels"].tolist() == [0, 0, 1, 1]
    assert b"n00000007" in content["test_files"][0].tobytes()


def test_other_classes_of_imagenet_are_refused(source, monkeypatch):
    monkeypatch.setattr(imagenet1k, "shape", lambda: SHAPE)
    with pytest.raises(UserError, match="ILSVRC2012/train does not have the published classes in their order"):
        imagenet1k.prepare(source)


def test_the_classes_of_imagenet100_are_those_published():
    wnids = imagenet100.CLASSES.read_text().split()
    assert len(set(wnids)) == imagenet100.shape().classes == 100
    assert hashlib.md5("".join(f"{wnid}\n" for wnid in wnids).encode()).hexdigest() == CMC


def flatten(folder: Path) -> None:
    for path in (folder / "val").glob("*/*.JPEG"):
        path.rename(folder / "val" / f"{path.parent.name}_{path.name}")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "ILSVRC2012/train cannot be read (No such file"),
        (flatten, "ILSVRC2012/val is flat: move its images into a folder per class"),
        (
            lambda folder: (folder / "train" / WNIDS[0] / f"{WNIDS[0]}_2.JPEG").unlink(),
            "ILSVRC2012/train has 11 images in 3 classes, but must have 12 in 3: unpack ILSVRC2012_img_train.tar again",
        ),
        (
            lambda folder: (folder / "val" / WNIDS[1]).rename(folder / "val" / "other"),
            "ILSVRC2012/val has 4 images in 2 classes, but must have 6 in 3",
        ),
    ],
)
def test_mistakes_are_named(source, damage, expected):
    damage(source / "ILSVRC2012")
    assert expected in message(lambda: index(source, SHAPE))


# the files


def test_an_image_that_is_cut_off_is_found_before_training(source):
    path = source / "ILSVRC2012" / "val" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG"
    path = path if path.exists() else next(path.parent.glob("*.JPEG"))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")  # nothing is lost
    index(source, SHAPE)
    path.write_bytes(whole[: len(whole) // 2])
    text = message(lambda: index(source, SHAPE))
    assert text.startswith(f"{path} is damaged (")
    assert "unpack it again" in text


@pytest.mark.parametrize("workers", [0, 2])
def test_files_stand_in_for_a_tensor(streamed, workers):
    files = dataset.load(ResultPaths(streamed).data(of()), workers=workers).images["train"]
    usual = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)])
    pictures = [usual(Image.open(files.root / name.decode()).convert("RGB")) for name in files.names]
    expected = torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures])
    assert len(files) == 12
    assert files.shape == expected.shape
    some = torch.tensor([7, 0, 1])
    assert torch.equal(files[some], expected[some])
    assert [len(part) for part in files.split(5)] == [5, 5, 2]
    assert torch.equal(torch.cat(list(files.split(5))), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(streamed, source, workers):
    path = source / "ILSVRC2012" / "train" / WNIDS[0] / f"{WNIDS[0]}_3.JPEG"
    path.write_bytes(path.read_bytes()[:500])
    text = message(lambda: train(of(), streamed, workers=workers))
    assert f"{path} is missing or damaged: restore it" in text


def test_what_is_made_ahead_comes_in_order():
    made = in_order(lambda key: torch.tensor(key**2), range(20), workers=3)
    assert [int(each) for each in made] == [i**2 for i in range(20)]


def in_another_process(folder: Path, *start: str, **variables: str) -> subprocess.CompletedProcess:
    """Numbers that workers make in a process of its own."""
    code = (
        "import torch; from spaced_kd.data.streaming import in_order\n"
        "made = in_order(lambda key: torch.full((500, 500), key, dtype=torch.uint8), range(40), workers=2)\n"
        "print(sum(int(each[-1, -1]) for each in made))\n"
    )
    (folder / "made.py").write_text(code)
    command = [*start, sys.executable, str(folder / "made.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_workers_need_no_short_folder_of_temporary_files(tmp_path):
    long = tmp_path / "a_name_that_is_long" / ("x" * 100)  # sockets have 107 characters at most
    long.mkdir(parents=True)
    text = in_another_process(tmp_path, TMPDIR=str(long))
    assert text.stdout == f"{sum(range(40))}\n", text.stderr


@pytest.mark.slow
def test_workers_need_no_shared_memory(tmp_path):
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    text = in_another_process(tmp_path, *small)
    assert text.stdout == f"{sum(range(40))}\n", text.stderr


def test_a_worker_that_fails_ends_the_wait():
    def make(key: int) -> torch.Tensor:
        if key == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "a disk")
        return torch.tensor(key)

    with pytest.raises(OSError, match="a disk"):
        list(in_order(make, range(9), workers=2))


def test_images_travel_as_they_are_stored(streamed, monkeypatch):
    job = assemble(of(), ResultPaths(streamed), workers=1)
    sent = []
    monkeypatch.setattr(streaming, "_Made", lambda make, workers: sent.append(make) or MADE(make, workers))
    job.batches.make_ahead(range(3), 1)
    ahead = [job.batches[index].images for index in range(3)]
    assert sent[0](0).dtype == torch.uint8
    job.batches.close()
    assert all(torch.equal(images, job.batches[index].images) for index, images in enumerate(ahead))


MADE = streaming._Made


@pytest.mark.parametrize("stop", ["the time limit", "SIGTERM"])
@pytest.mark.slow
def test_a_worker_that_hangs_does_not_keep_a_training_from_stopping(streamed, tmp_path, monkeypatch, stop):
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(streamed / "data")
    run = of(epochs=2)
    whole = weights(train(run, other, workers=0))
    augmented, take, asked = Batches._augmented, Batches._next, tmp_path / "asked"
    part = StopSignal(1e6, 1.0) if stop == "the time limit" else StopSignal()

    def ask(self, index: int) -> torch.Tensor:
        if index == 4:
            asked.touch()  # from now on nothing but its waiting can stop the training
            part.end = time.monotonic() if stop == "the time limit" else part.end
        return take(self, index)

    def hang(self, index: int, view: int = 0) -> torch.Tensor:
        if index == 4:
            while not asked.exists():
                time.sleep(0.01)
            if stop == "SIGTERM":
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(30)
        return augmented(self, index, view)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "_augmented", hang)
        patched.setattr(Batches, "_next", ask)
        with pytest.raises(Interrupted) as stopped, part:
            train(run, streamed, workers=1, stop=part)
    assert stopped.value.status == (75 if stop == "the time limit" else 143)
    (state,) = states(ResultPaths(streamed).state(run))
    assert int(state.stem.removeprefix("turn-")) == 4
    for child in multiprocessing.active_children():
        child.join(10)
        assert not child.is_alive()
    assert weights(train(run, streamed, workers=1)) == whole


def test_predictions_are_those_of_the_decoded_images(streamed):
    job = assemble(of(), ResultPaths(streamed), workers=0)
    whole = job.data.images["test"][torch.arange(6)]
    job.result.eval()
    with torch.inference_mode():
        expected = job.result(job.data.normalise(whole)).argmax(1)
    assert predict(job.result, job.data, batch_size=4).tolist() == expected.tolist()


def test_the_command_line_prepares_and_trains(source, streamed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(source)
    results = ["--results", str(tmp_path / "own")]
    assert cli.main(["prepare", "dataset=imagenet1k", "--source", ".", *results]) == 0
    assert "12 training and 6 test images" in capsys.readouterr().out
    monkeypatch.chdir("/")  # where the data lie was made absolute
    assert cli.main(["train", *of().overrides(), "--workers", "1", *results]) == 0
    assert weights(tmp_path / "own" / "runs" / of().id) == weights(train(of(), streamed, workers=0))
    (source / "ILSVRC2012").rename(source / "moved")
    assert cli.main(["train", *of(seed=1).overrides(), *results]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# training


@pytest.mark.parametrize("augmentation", ["standard", "strong"])
def test_the_weights_do_not_depend_on_the_number_of_workers(streamed, tmp_path, augmentation):
    made = []
    for workers in (0, 1, 4):
        results = tmp_path / f"workers-{workers}"
        results.mkdir()
        (results / "data").symlink_to(streamed / "data")
        run = of(method="online_kd", augmentation=augmentation, interval=0.7)
        made.append(weights(train(run, results, workers=workers)))
    assert made[0] == made[1] == made[2]


def test_a_stopped_training_goes_on_to_the_same_weights(streamed, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(streamed / "data")
    run = of(method="online_kd", method__student_batches="new_views", epochs=2)
    whole = weights(train(run, other, workers=0))

    after = RunRecorder.after_turn

    def stop(self, *turn) -> None:
        after(self, *turn)
        if self.metrics.turns == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "after_turn", stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, streamed, workers=1, checkpoint_every=0)
    assert weights(train(run, streamed, workers=1)) == whole


def test_a_teacher_that_is_walked_needs_no_batches(streamed, monkeypatch):
    run = of(method="online_kd", interval=0.7)
    train(run.teacher_spec(), streamed, save_states_for=(run,), workers=0)
    decoded = []
    monkeypatch.setattr(Files, "decode", lambda self, ids: decoded.append(len(ids)) or DECODE(self, ids))
    train(run, streamed, workers=0)
    assert sum(decoded) == 12 + 6  # the student's epoch, and the test set


DECODE = Files.decode


def test_cutout_of_small_images_is_refused(streamed):
    text = message(lambda: train(of(augmentation="autoaugment_cutout"), streamed))
    assert "augmentation is autoaugment_cutout, which is made for small images: use standard or strong" in text


SETTINGS = {
    "batch_norm_reestimated": {"batch_size": 4},
    "bim": {"images": 3, "steps": 1},
    "corruptions": {"images": 3, "names": ("brightness",), "severities": (1,)},
    "hessian_trace": {"images": 3, "probes": 2},
    "supervision_complexity": {"images": 2, "compared": 2, "epochs": (0,), "temperatures": (3.0,)},
    "weight_noise": {"images": 3, "draws": 1, "sigmas": (0.1,)},
}


SLOW = {"hessian_trace": pytest.mark.slow, "supervision_complexity": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in SETTINGS])
def test_every_evaluation_works(streamed, name):
    path = ResultPaths(streamed).data(of())
    if name == "corruptions":
        corruptions.make(path, 3, names=("brightness",), severities=(1,))
    network = assemble(of(), ResultPaths(streamed), workers=0).result.eval()
    given = {"history": still(network)} if name == "supervision_complexity" else {}
    rows = list(registry.find("evaluations", name)(network, dataset.load(path), seed=0, **SETTINGS[name], **given))
    assert set(SETTINGS) == set(registry.names("evaluations"))
    assert rows
    assert all(np.isfinite(row["value"]) for row in rows)


def test_files_that_a_mask_chooses_are_the_same_files(streamed):
    files = dataset.load(ResultPaths(streamed).data(of())).images["train"]
    chosen = torch.arange(len(files)) % 3 == 1
    few = files.only(chosen)
    assert len(few) == 4
    assert few.names.tolist() == files.names[chosen.numpy()].tolist()
    assert few[torch.arange(4)].equal(files[chosen.nonzero()[:, 0]])
    assert torch.cat([*few.split(3)]).equal(few[torch.arange(4)])


def test_streamed_images_are_held_out_as_those_in_memory_are(streamed):
    whole = dataset.load(ResultPaths(streamed).data(of()))
    part = whole.hold_out(0.25)  # 1 of 4 of each class
    assert part.labels["held_out"].tolist() == [0, 1, 2]
    names = {split: part.images[split].names.tolist() for split in ("train", "held_out")}
    assert sorted(names["train"] + names["held_out"]) == sorted(whole.images["train"].names.tolist())
    assert not set(names["train"]) & set(names["held_out"])
    run = train(of(held_out=0.25), streamed)
    assert len(read_json(run / "run.json", dict)["held_out"]) == 1
