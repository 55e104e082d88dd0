"""Every setting of every plug-in and every key of a run, at its extremes: two steps of training, or one line."""

import math
import resource
import signal
import sys
from contextlib import contextmanager
from functools import partial
from itertools import islice

import pytest
import torch

from spaced_kd.cli import main as cli
from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.config.validation import AT_MOST, _annotations
from spaced_kd.data import dataset
from spaced_kd.evaluation import evaluate
from spaced_kd.training import modules, provenance, timeline
from spaced_kd.training.distributed import process_group
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.utils.errors import UserError

BASE = {
    "dataset": "digits",
    "dataset.train_per_class": 1,
    "dataset.size": 8,
    "network": "resnet_mini",
    "network.width": 0.0625,
    "method": "baseline",
    "seed": 0,
    "epochs": 1,
    "batch_size": 5,  # two steps
}
LARGE = ("deit_tiny", "resnet18", "resnet18_x2", "resnet18_x4", "resnet18_x8", "resnet50", "resnet101")  # slow here
EXTREMES = {  # of a choice it is a word that is none; what is one has no extremes
    "int": [0, 1, -1, 3, 10**30],
    "float": [0.0, -1.0, 1e-30, 1e20, 1e300],
    "bool": ["no_such_name"],
    "str": ["", "no_such_name"],
    "None": [None],
}
SECONDS = 60  # for a case: none of them takes one on a quiet core
MEMORY = 2**30  # bytes that a case may add


def extremes(annotation: str, allowed: str | tuple | None = None) -> list:
    """Values of an annotation, right and wrong, with the ends of its range and what lies just outside."""
    found = []
    for option in annotation.split(" | "):
        if option.startswith("Literal["):
            found.append("no_such_name")
        elif option.startswith("tuple["):
            inner = option.removeprefix("tuple[").split(",")[0]
            found += [[], [0, 1]] + [[value] for value in EXTREMES[inner]]
        else:
            found += EXTREMES[option]
            if option in ("int", "float") and isinstance(allowed, str):
                ends = [float(end) for end in allowed[1:-1].split(",")]
                ends = [end for end in ends if math.isfinite(end) and abs(end) < 1e6]
                step = 1 if option == "int" else 1e-3
                found += [type(step)(end + off) for end in ends for off in (-step, 0, step) if end + off < 300]
    return list({repr(value): value for value in found}.values())


def settings(kind: str, name: str) -> list[tuple[str, object]]:
    """(setting, value) of a plug-in."""
    plugin = registry.plugin(kind, name)
    ranges = plugin.constants.get("RANGES", {})
    return [
        (key, value)
        for key, (annotation, _) in plugin.settings.items()
        for value in extremes(annotation, ranges.get(key))
    ]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> ResultPaths:
    """Results with ten digits of 8 and of 4 pixels."""
    found = ResultPaths(tmp_path_factory.mktemp("extremes"))
    for size in (8, 4):
        content = registry.find("datasets", "digits").prepare(None, train_per_class=1, size=size)
        content |= {key: array[:10] for key, array in content.items() if key.startswith("test")}
        with any_size():
            spec = from_flat(BASE | {"dataset.size": size})
        about = spec.resolved()["settings"]["dataset"]
        dataset.save(found.data(spec), content, dataset="digits", settings=about)
    return found


@contextmanager
def any_size():
    """Digits may have fewer pixels than their own 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.plugin("datasets", "digits").constants["RANGES"], "size", "[1, 256]")
        yield


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """One with a GB free, whatever this one has."""
    monkeypatch.setattr(modules, "free_memory", lambda device: 2**30)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def memory() -> int:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def in_time():
    def over(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(case, *named: str) -> str | None:
    """What is wrong with how a case goes: None where it ends well, or by a line that names the culprit."""
    had = memory()
    try:
        with in_time():
            case()
    except UserError as error:
        message = str(error)
        if "\n" in message or not message.isprintable() or len(message) > 1000:
            return f"no readable line: {message!r:.500}"
        if not any(word in message for word in (*named, "lower lr, or the weights of the method's losses")):
            return f"does not name {named[0]}: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.300}"
    if memory() - had > MEMORY:
        return f"took {(memory() - had) / 1e9:.1f} GB"
    return None


def two_steps(flat: dict, paths: ResultPaths) -> None:
    """Train for two steps of each role, on finite losses."""
    spec = from_flat(flat)
    with process_group(spec.processes):
        job = assemble(spec, paths, "cpu", 0)
        record = TrainingMetrics({})
        for who, index in islice(job.turns_after(0), 2 * len(set(job.learners))):
            record.add(who, job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index)))
            record.check_finite(f"batch {index}")


def faults(cases: list[tuple[dict, str]], paths: ResultPaths) -> list[str]:
    """What is wrong with runs, each with the key that it is about."""
    found = []
    for flat, named in cases:
        if message := fault(lambda flat=flat: two_steps(flat, paths), named, repr(flat.get(named))):
            found.append(f"{ {key: value for key, value in flat.items() if value != BASE.get(key)} }: {message}")
    return found


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"threads": 100_000}, "threads is 100000, but must be at most 1,024: lower it"),
        (
            {"batch_size": 3},
            "batch_size is 3, so that an epoch's last batch has 1 of 10 images: too few",
        ),
        ({"batch_size": 3}, "give another batch_size, or last_batch=dropped"),
        ({"batch_size": 1}, "has 1 of 10 images: too few for batch norm with images of 8 pixels"),
        ({"batch_norm": "halves", "batch_size": 8}, "an epoch's last batch has 2 of 10 images: too few for batch norm"),
        ({"lr": 1e300}, "lr is 1e+300, but must be at most 3.4e+38 in size, as float32 holds it"),
        ({"seed": 10**30}, "but must be at most 9223372036854775807 in size, as 64 bits hold it"),
        ({"momentum": -1}, "momentum is -1, but must be at least 0 and below 1"),
        ({"augmentation_seed": -1}, "augmentation_seed is -1, but must not be negative"),
        ({"epochs": 10**9}, "epochs is 1000000000, but must be at most 1,000,000: lower it"),
        ({"network.width": 50}, "its weights take more than the 1.1 GB that are free"),
        ({"network.width": 1e20}, "resnet_mini.width is 1e+20, but must be in (0, 64]"),
        (
            {"method": "online_kd", "method.temperature": 0},
            "online_kd.temperature is 0.0, but must be in [0.001, 1000000]",
        ),
    ],
)
def test_a_slip_is_one_line_of_the_command(paths, capsys, changes, complaint):
    arguments = [f"{key}={value}" for key, value in (BASE | changes).items()]
    assert cli.main(["train", *arguments, "--device", "cpu", "--results", str(paths.results), "--workers", "0"]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_more_batches_than_can_be_listed_are_refused(paths, monkeypatch):
    monkeypatch.setattr(timeline, "MOST_BATCHES", 5)
    two_steps(BASE | {"epochs": 2}, paths)
    with pytest.raises(UserError, match="epochs is 3, which is 6 batches of batch_size 5, but a training has"):
        two_steps(BASE | {"epochs": 3}, paths)


KEYS = {
    key: annotation for key, annotation in _annotations(RunSpec).items() if key not in ("dataset", "network", "method")
}


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_keys_of_a_run(key, paths):
    most = [AT_MOST[key] + 1] if key in AT_MOST else []
    assert not faults([(BASE | {key: value}, key) for value in [*extremes(KEYS[key]), *most]], paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("methods"))
def test_settings_of_methods(name, paths):
    needs = registry.plugin("methods", name).constants.get("needs", {})
    cases = []
    for key, value in settings("methods", name):
        spaced = "spaced" in needs.get(key, {}).get("interval", ())
        cases.append((BASE | {"method": name, f"method.{key}": value} | ({"interval": 1} if spaced else {}), key))
    assert not faults(cases, paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("networks"))
def test_settings_of_networks(name, paths):
    base = {key: value for key, value in BASE.items() if key != "network.width"} | {"network": name}
    base |= {"network.width": 0.02} if "width" in registry.defaults("networks", name) else {}
    base |= {"input_size": 16} if name == "pit_tiny" else {}  # its patches do not cover 8 pixels
    cases = [(base | {f"network.{key}": value}, key) for key, value in settings("networks", name)]
    assert not faults([case for case in cases if name not in LARGE or is_refused(case[0])], paths)


def is_refused(flat: dict) -> bool:
    """Whether a run is no run, before anything is built."""
    try:
        from_flat(flat)
    except UserError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("name", [name for name in registry.names("networks") if name not in LARGE])
def test_small_images_and_batches_that_do_not_divide(name, size, paths):
    base = {key: value for key, value in BASE.items() if key != "network.width"} | {
        "network": name,
        "dataset.size": size,
    }
    narrow = {"network.width": 0.02} if "width" in registry.defaults("networks", name) else {}
    cases = [base | narrow | {"batch_size": count} for count in (1, 3, 10, 100)]
    cases += [case | {"method": "self_kd"} for case in cases] + [case | {"batch_norm": "halves"} for case in cases]
    with any_size():
        found = faults([(case, "") for case in cases], paths)
    assert not found


def of_each_setting(kind: str, name: str, case) -> list[tuple]:
    """(setting, value, what is wrong) of a plug-in."""
    faulty = []
    for key, value in settings(kind, name):
        given = [value] if value and isinstance(value, str) else []
        faulty.append((key, value, fault(partial(case, key, value), key, *given, "--corrupt")))
    return [each for each in faulty if each[2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("datasets"))
def test_settings_of_datasets(name, tmp_path):
    module = registry.find("datasets", name)
    given = module.example(tmp_path) or {} if hasattr(module, "example") else {}
    where = [tmp_path] if given else []

    def case(key, value) -> None:
        flat = {key: value for key, value in BASE.items() if not key.startswith("dataset.")} | {"dataset": name}
        asked = from_flat(flat | {f"dataset.{own}": each for own, each in (given | {key: value}).items()})
        asked = asked.settings.get("dataset", {})
        shape = module.shape(*where, **asked)
        assert min(shape) > 0
        if shape.size <= 64 and (given or name == "digits"):
            dataset.check(module.prepare(tmp_path, **asked))

    assert not of_each_setting("datasets", name, case)


@pytest.fixture(scope="module")
def run(paths) -> str:
    """A finished run with a teacher."""
    spec = from_flat(BASE | {"method": "online_kd"})
    for each in (spec.teacher_spec(), spec):
        train(each, paths.results, device="cpu", workers=0)
    return spec.id


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("evaluations"))
def test_settings_of_evaluations(name, paths, run, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "describe", lambda *_: {})
    few = {"images": 4, "compared": 4, "draws": 1, "probes": 2, "steps": 1, "interval": 1.0, "epochs": [0]}
    few = {key: value for key, value in few.items() if key in registry.defaults("evaluations", name)}

    def case(key, value) -> None:
        asked = registry.check_settings("evaluations", name, few | {key: value})
        rows = evaluate.evaluate(run, {name: asked}, paths.results, device="cpu")
        assert rows
        assert all(math.isfinite(row["value"]) for row in rows), rows

    assert not of_each_setting("evaluations", name, case)
