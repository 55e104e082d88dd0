"""Files that somebody altered, forged or mixed up: each is refused by name in one line, and nothing in it is run."""

import ast
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Training, tiny
from safetensors.numpy import save as to_bytes

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.training.checkpoint import load_state, load_weights, states
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

SOURCE = Path(array_file.__file__).parents[1]
SPEC = tiny(method="online_kd", interval=1.0)


@pytest.fixture(scope="module")
def original(digits, tmp_path_factory):
    """A state after two turns, and the run's weights: (arrays, description, bytes of the file)."""
    results = tmp_path_factory.mktemp("original")
    (results / "data").symlink_to(digits / "data")
    Training(assemble(SPEC, ResultPaths(results)), results).take(2)
    path = states(ResultPaths(results).state(SPEC))[-1]
    return *array_file.read(path, remedy=""), path.read_bytes()


def header(content: bytes) -> tuple[dict, bytes]:
    """A safetensors file's header and what follows it."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(content: bytes, change) -> bytes:
    message, rest = header(content)
    change(message)
    text = json.dumps(message).encode()
    return struct.pack("<Q", len(text)) + text + rest


def first_tensor(message: dict) -> dict:
    return message[next(name for name in message if name != "__metadata__")]


def overlap(message: dict) -> None:
    names = [name for name, one in message.items() if name != "__metadata__" and one["shape"] == [8]]
    message[names[1]]["data_offsets"] = message[names[0]]["data_offsets"]


def resealed(stored: dict, about: dict, change) -> bytes:
    """Altered content under a checksum that fits it: what a careful forger makes."""
    stored, about = dict(stored), json.loads(json.dumps(about))
    change(stored, about)
    about["checksum"] = array_file.digest(stored)
    return to_bytes(stored, metadata={"about": json.dumps(about)})


class Payload:
    """Pickled, it writes a file as soon as it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("payload-was-run"),)


WEIGHT = "student/trunk.fc.weight"
MOMENTUM = "optimizer of teacher/0/momentum_buffer"

DAMAGED = {  # bytes -> bytes; the checksum or the format tells
    "empty": lambda whole: b"",
    "one byte": lambda whole: whole[:1],
    "truncated in the header": lambda whole: whole[:50],
    "truncated in the data": lambda whole: whole[:-1],
    "a byte more": lambda whole: whole + b"\0",
    "a bit flipped in the data": lambda whole: whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
    "a bit flipped in the header": lambda whole: whole[:20] + bytes([whole[20] ^ 1]) + whole[21:],
    "a digit flipped in the description": lambda whole: whole.replace(b'\\"teacher\\": 2', b'\\"teacher\\": 3', 1),
    "a type that numpy has not": lambda whole: with_header(whole, lambda h: first_tensor(h).update(dtype="F8_E4M3")),
    "header of 2 to the 63 bytes": lambda whole: struct.pack("<Q", 2**63) + whole[8:],
    "header of 200 MB": lambda whole: struct.pack("<Q", 200_000_000) + b"{" * 1000,
    "header larger than the file": lambda whole: struct.pack("<Q", 10 * len(whole)) + whole[8:],
    "header is no JSON": lambda whole: struct.pack("<Q", 4) + b"torn" + whole,
    "header nested deep": lambda whole: struct.pack("<Q", 50_000) + b"[" * 50_000,
    "overlapping tensors": lambda whole: with_header(whole, overlap),
    "a negative offset": lambda whole: with_header(whole, lambda h: first_tensor(h).update(data_offsets=[-8, 0])),
    "a shape larger than its data": lambda whole: with_header(whole, lambda h: first_tensor(h).update(shape=[2**40])),
    "an unknown type": lambda whole: with_header(whole, lambda h: first_tensor(h).update(dtype="F1024")),
    "a type that arrays have not": lambda whole: to_bytes_bf16(),
    "no description": lambda whole: with_header(whole, lambda h: h.pop("__metadata__")),
    "a description that is no JSON": lambda whole: with_header(whole, lambda h: h["__metadata__"].update(about="{")),
    "a description nested deep": lambda whole: with_header(
        whole, lambda h: h["__metadata__"].update(about="[" * 100_000)
    ),
    "a description that is a list": lambda whole: with_header(whole, lambda h: h["__metadata__"].update(about="[]")),
    "another checksum": lambda whole: whole.replace(b'checksum\\": \\"', b'checksum\\": \\"f', 1)[: len(whole)],
    "a pickle with a payload": lambda whole: pickle.dumps(Payload()),
    "a pickle behind a header's size": lambda whole: (
        struct.pack("<Q", len(pickle.dumps(Payload()))) + pickle.dumps(Payload())
    ),
    "a zip, as torch.save makes": lambda whole: b"PK\x03\x04" + whole,
}

FORGED = {  # (arrays, description) -> None, under a right checksum
    "another run's state": lambda stored, about: about.update(run="digits-resnet_mini-baseline-0-1-0123456789"),
    "a weight of another shape": lambda stored, about: stored.update({WEIGHT: stored[WEIGHT][:, :3].copy()}),
    "a weight of another type": lambda stored, about: stored.update({WEIGHT: stored[WEIGHT].astype(np.float64)}),
    "a weight missing": lambda stored, about: stored.pop(WEIGHT),
    "a weight too many": lambda stored, about: stored.update({"student/more": np.zeros(3, np.float32)}),
    "momentum of another shape": lambda stored, about: stored.update({MOMENTUM: np.zeros((2, 2), np.float32)}),
    "momentum of no parameter": lambda stored, about: stored.update(
        {"optimizer of teacher/999/momentum_buffer": np.zeros(3, np.float32)}
    ),
    "momentum without a number": lambda stored, about: stored.update(
        {"optimizer of teacher/one/momentum_buffer": np.zeros(3, np.float32)}
    ),
    "a turn that its name does not tell": lambda stored, about: about.update(turn=7),
    "a turn that is no number": lambda stored, about: about.update(turn={"$gt": 0}),
    "no steps": lambda stored, about: about.pop("steps"),
    "steps that are no numbers": lambda stored, about: about.update(steps={"teacher": "many", "student": None}),
    "steps below zero": lambda stored, about: about.update(steps={"teacher": -1, "student": -1}),
    "steps without end": lambda stored, about: about.update(steps={"teacher": float("inf"), "student": 0}),
    "no spec": lambda stored, about: about.pop("spec"),
    "a spec that is a list": lambda stored, about: about.update(spec=[]),
    "no record": lambda stored, about: about.update(plain=None),
    "an epoch without its predictions": lambda stored, about: about["plain"].update(epochs=[1], losses=[{}]),
    "a loss without its sum": lambda stored, about: about["plain"]["counts"].update({"teacher: soft": 3}),
    "final weights by the name of a state": lambda stored, about: [
        about.pop(key) for key in ("turn", "steps", "plain")
    ],
}


def to_bytes_bf16() -> bytes:
    """A tensor of a type that numpy has not."""
    return with_header(
        to_bytes({"student/trunk.fc.weight": np.zeros((2, 2), np.float16)}, metadata={"about": "{}"}),
        lambda message: first_tensor(message).update(dtype="BF16"),
    )


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder of its own, in which a payload would leave its mark."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("payload-was-run").exists()


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("role", ["state", "weights"])
def test_a_damaged_file_is_refused_by_name(original, tmp_path, elsewhere, kind, role, recwarn):
    path = tmp_path / "turn-000000002.safetensors"
    path.write_bytes(DAMAGED[kind](original[2]))
    assert path.read_bytes() != original[2]
    if role == "state":
        assert load_state(tmp_path, {}, {}, SPEC.id) is None  # and the one before it is used, if there is one
        text = str(recwarn.pop().message)
    else:
        with pytest.raises(UserError) as caught:
            load_weights(path, torch.nn.Identity())
        text = str(caught.value)
    assert text.startswith(f"{path} is damaged (")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_state_is_refused_by_name(original, results, elsewhere, kind, capsys):
    stored, about, _ = original
    path = ResultPaths(results).state(SPEC) / "turn-000000002.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(resealed(stored, about, FORGED[kind]))
    assert cli.main(["train", *SPEC.overrides(), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"spaced-kd: {path} ")
    assert message.endswith("delete it\n")
    assert message.count("\n") == 1
    assert not ResultPaths(results).run(SPEC).exists()


def test_the_file_that_all_these_are_made_of_is_accepted(original, results):
    stored, about, whole = original
    path = ResultPaths(results).state(SPEC) / "turn-000000002.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(resealed(stored, about, lambda *_: None))
    assert Training(assemble(SPEC, ResultPaths(results)), results).done == 2
    assert len(DAMAGED) + len(FORGED) >= 40
    assert whole


RUN_JSON = {
    "empty": b"",
    "torn": b'{"id": "x", "spec"',
    "a list": b"[]",
    "nested deep": b"[" * 100_000,
    "no text": b"\xff\xfe\x00",
    "without a spec": b'{"id": "x"}',
    "a spec that is a list": b'{"spec": [], "outputs": {}, "words": []}',
}


@pytest.mark.parametrize("kind", RUN_JSON)
def test_a_damaged_description_is_refused_by_name(results, kind, capsys):
    spec = tiny(method="baseline")
    path = ResultPaths(results).run(spec) / "run.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(RUN_JSON[kind])
    arguments = [f"{key}={value}" for key, value in TINY.items()]
    for command in (["train", *arguments, "method=baseline"], ["evaluate", spec.id, "bim"]):
        assert cli.main([*command, "--results", str(results)]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        if kind != "a spec that is a list" or command[0] == "train":
            assert message.startswith(f"spaced-kd: {path} is damaged (")


def test_a_teachers_state_that_is_another_networks_is_refused(results):
    spec = tiny(method="online_kd", interval=1.5)
    train(spec.teacher_spec(), results, save_states_for=(spec,))
    path = next(ResultPaths(results).trajectory(spec.teacher_spec()).iterdir())
    array_file.save(path, {"trunk.fc.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=f"{path.name} contains the weights of another network: delete it"):
        train(spec, results)


def called(path: Path) -> set[str]:
    """Every `module.function` that a file calls."""
    nodes = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {ast.unparse(node) for node in nodes}


ODD = {  # what YAML has and settings have not, or what is none
    "a date": b"2025-11-21",
    "a day that is none": b"2024-13-45",
    "a set": b"!!set {1, 2}",
    "bytes": b"!!binary aGVsbG8=",
    "a number that is none": b"!!int x",
    "pairs": b"!!pairs [a: 1]",
    "an object": b"!!python/object/apply:pathlib.Path.touch [payload-was-run]",
    "nested deep": b"[" * 3000,
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_yaml_is_refused_in_one_line(tmp_path, elsewhere, kind, capsys):
    path = tmp_path / "study.yaml"
    start = b"study: odd\ngrids: [{dataset: digits, network: resnet_mini, method: baseline, seed: 0}]\n"
    path.write_bytes(start + b"data: " + ODD[kind])
    assert cli.main(["plan", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"spaced-kd: {path}: ")
    assert message.count("\n") == 1
    path.write_bytes(start + b"data: data")
    assert cli.main(["plan", str(path)]) == 0
    if kind != "no text":
        assert cli.main(["train", *SPEC.overrides(), f"lr={ODD[kind].decode()}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_unpickled_evaluated_or_loaded_unsafely():
    unsafe = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "np.load", "yaml.load", "os.system"}
    for path in SOURCE.rglob("*.py"):
        assert not called(path) & unsafe, path
        if "pickle" in path.read_text() and "import pickle" in path.read_text():
            assert path.name == "cifar100.py"  # its own unpickler, after the checksum: tests/data/test_datasets.py
