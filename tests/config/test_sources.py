"""An edited plug-in, or another training core, is noticed in finished runs; a comment, a new name or place is not."""

import ast
import json
import shutil
import sys

import pytest
from conftest import snakemake, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config import registry, sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.training import checkpointer, run_folder
from spaced_kd.training.loop import train
from spaced_kd.utils.errors import UserError

METHOD = '''"""Mine."""
from dataclasses import dataclass
from typing import ClassVar
import torch.nn.functional as F
from kd_of_mine.parts import weighted, unused
from spaced_kd.distillation import losses
from spaced_kd.distillation.schedule import turns
@dataclass(frozen=True)
class Mine:
    """It."""
    weight: float = 0.1  # of the distance
    roles: ClassVar[dict[str, str]] = {"teacher": "teacher", "student": "student"}
    def schedule(self, total, interval, per_epoch):
        return turns(total, interval)
    def terms(self, who, networks, batch):
        """Terms."""
        scores = networks[who](batch.images)
        terms = {"hard": F.cross_entropy(scores, batch.labels)}
        if who == "student":
            goal = losses.teacher_outputs(networks["teacher"], batch.images)
            terms["logits"] = weighted(self.weight, scores, goal.logits)
        if not terms:
            raise ValueError(f"{who} has none")
        return terms
'''
PARTS = '''"""Parts."""
from spaced_kd.distillation.losses import mse
SCALE = 2.0
def weighted(weight, a, b):
    """Scaled."""
    return SCALE * weight * mse(a, b)
def unused():
    return 1
'''
MINE = {"method": "mine", "interval": "max", "epochs": 1}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An installed method of two files; as a function it alters one of them, and reads both anew."""
    folder, about = tmp_path / "site" / "kd_of_mine", tmp_path / "site" / "kd_of_mine-1.dist-info"
    folder.mkdir(parents=True)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kd_of_mine\nVersion: 1\n")
    entries = about / "entry_points.txt"
    entries.write_text("[spaced_kd.methods]\nmine = kd_of_mine.mine\n")
    for name, source in (("__init__", ""), ("mine", METHOD), ("parts", PARTS)):
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("PYTHONPATH", str(folder.parent), prepend=":")

    def alter(name: str, *pairs: tuple[str, str]) -> None:
        path = folder / f"{name}.py"
        text = path.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        forget()

    forget()
    yield alter
    forget()


def forget() -> None:
    """What was read of sources so far."""
    for cached in (registry.plugins, sources.digest, sources._file):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("kd_of_mine")]:
        del sys.modules[name]


def digest() -> str:
    return sources.digest("methods", "mine")


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("mine", [('"""It."""', '"""Something else."""'), ("# of the distance", "# of it")]),
        ("mine", [("scores", "logits_of_mine"), ("goal", "aim")]),  # local variables
        ("mine", [("class Mine", "class Yours")]),
        ("mine", [("weight: float", "weight: int | float"), ("def terms(self, who,", "def terms(self, who: str,")]),
        ("mine", [("{who} has none", "{who} has nothing to learn")]),
        (
            "mine",
            [("import torch.nn.functional as F", "from torch.nn import functional"), ("F.cross", "functional.cross")],
        ),
        ("mine", [("import losses\n", "import losses as of\n"), ("losses.teacher_outputs", "of.teacher_outputs")]),
        ("parts", [("return 1", "return 2")]),  # which is not used
        ("parts", [("SCALE", "FACTOR")]),
    ],
)
def test_what_cannot_change_a_number_does_not_change_the_digest(mine, name, pairs):
    before = digest()
    mine(name, *pairs)
    assert digest() == before


def test_moving_and_renaming_a_function_does_not_change_the_digest(mine, tmp_path):
    before = digest()
    folder = tmp_path / "site" / "kd_of_mine"
    (folder / "sub").mkdir()
    (folder / "parts.py").rename(folder / "sub" / "moved.py")
    mine("sub/moved", ("weighted", "scaled"))
    mine("mine", ("kd_of_mine.parts", ".sub.moved"), ("weighted", "scaled"))
    assert digest() == before


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("mine", [("weight: float = 0.1", "weight: float = 0.2")]),
        ("mine", [('"student": "student"}', '"student": "student", "other": "student"}')]),
        ("mine", [("weighted(self.weight, scores, goal.logits)", "weighted(self.weight, goal.logits, scores)")]),
        ("mine", [("import torch.nn.functional as F", "import torch.nn.functional_of_mine as F")]),
        ("mine", [("losses.teacher_outputs(", "losses.eval_or_train_mode(")]),
        ("parts", [("SCALE = 2.0", "SCALE = 3.0")]),
        ("parts", [("SCALE * weight", "SCALE / weight")]),
        ("parts", [("import mse", "import l1 as mse")]),
        ("parts", [("SCALE = 2.0\n", "SCALE = 2.0\nprint.mine = 3\n")]),  # a statement that binds no name
    ],
)
def test_what_may_change_a_number_changes_the_digest(mine, name, pairs):
    before = digest()
    mine(name, *pairs)
    assert digest() != before


def test_a_loss_of_this_package_counts_where_it_is_used(mine, tmp_path, monkeypatch):
    shutil.copytree(registry.ROOT, tmp_path / "copy" / "spaced_kd")
    found = sources._file

    def elsewhere(module: str):
        path = found(module)
        inside = module.split(".")[0] == "spaced_kd"
        return tmp_path / "copy" / "spaced_kd" / path.relative_to(registry.ROOT) if inside and path else path

    elsewhere.cache_clear = found.cache_clear
    monkeypatch.setattr(sources, "_file", elsewhere)
    before = {name: sources.digest("methods", name) for name in ("mine", "ban", "baseline")}
    path = tmp_path / "copy" / "spaced_kd" / "distillation" / "losses.py"
    tree = ast.parse(path.read_text())
    (mse,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "mse"]
    mse.body.append(ast.parse("return 0").body[0])
    path.write_text(ast.unparse(tree))
    sources.digest.cache_clear()
    after = {name: sources.digest("methods", name) for name in before}
    assert [name for name in before if after[name] != before[name]] == ["mine"]


def refusal(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_edited_method_is_refused_until_it_is_accepted_or_trained_anew(mine, results, capsys):
    run = tiny(**MINE)
    folder = train(run, results)
    arguments = ["train", *run.overrides(), "--results", str(results)]
    mine("parts", ("SCALE = 2.0", "SCALE = 3.0"))
    message = refusal(lambda: train(run, results))
    assert message.startswith(
        f"{folder} was trained before method mine (mine.py) changed: move it away to train it again"
    )
    assert f'`spaced-kd accept --reason "..." {folder}`' in message
    assert cli.main(arguments) == 2
    assert cli.main(["verify", str(results)]) == 2
    assert f"{folder}: was trained before method mine (mine.py) changed" in capsys.readouterr().out

    keep = ["accept", "--results", str(results), str(folder), "--reason"]
    assert cli.main([*keep, " "]) == 2
    assert cli.main([*keep, "the scale is the same in my units"]) == 0
    assert "accepted after method mine (mine.py) changed" in capsys.readouterr().out
    assert cli.main([*keep, "again"]) == 0
    assert "is current" in capsys.readouterr().out
    (entry,) = json.loads((folder / "run.json").read_text())["accepted"]
    assert entry["reason"] == "the scale is the same in my units"
    assert cli.main(arguments) == 0
    assert cli.main(["verify", str(results)]) == 0

    mine("parts", ("SCALE = 3.0", "SCALE = 4.0"))
    assert "was trained before" in refusal(lambda: run_folder.finished(run, ResultPaths(results)))
    mine("parts", ("SCALE = 4.0", "SCALE = 2.0"))  # as it was trained
    assert run_folder.finished(run, ResultPaths(results))
    folder.rename(folder.with_name("old"))
    mine("parts", ("SCALE = 2.0", "SCALE = 4.0"))
    train(run, results)
    assert run_folder.finished(run, ResultPaths(results))


def test_another_training_core_is_refused(results, monkeypatch):
    run = tiny(method="baseline", epochs=1)
    folder = train(run, results)
    monkeypatch.setattr(sources, "NUMERICS", sources.NUMERICS + 1)
    assert refusal(lambda: train(run, results)).startswith(f"{folder} was trained before the training core changed")


def test_runs_from_before_digests_stay_valid(results, monkeypatch):
    run = tiny(method="baseline", epochs=1)
    path = train(run, results) / "run.json"
    described = json.loads(path.read_text())
    assert set(described["sources"]) == {"dataset", "network", "method"}
    del described["sources"], described["numerics"]
    path.write_text(json.dumps(described))
    monkeypatch.setattr(sources, "NUMERICS", 99)
    assert run_folder.finished(run, ResultPaths(results))


def test_a_training_does_not_go_on_with_another_source(mine, results, monkeypatch):
    run = tiny(**MINE)
    after = checkpointer.Checkpointer.after_turn

    def stop(self, *turn) -> None:
        after(self, *turn)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpointer.Checkpointer, "after_turn", stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, results, checkpoint_every=0)
    mine("parts", ("SCALE = 2.0", "SCALE = 3.0"))
    message = refusal(lambda: train(run, results))
    assert "was written before method mine (mine.py) changed: restore that source, or delete" in message
    mine("parts", ("SCALE = 3.0", "SCALE = 2.0"))
    train(run, results)


@pytest.mark.slow
def test_a_dry_run_refuses_an_edited_method_in_one_line(mine, checkout, digits):
    grid = {
        "dataset": {"digits": {"train_per_class": 4}},
        "network": {"resnet_mini": {"width": 0.0625}},
        "recipe": {"epochs": 1, "batch_size": 9, "lr": 0.05},
        "seed": [0, 1],
        "arms": [{"method": "mine", "interval": "max"}],
    }
    study = {"study": "trial", "grids": [grid]}
    (checkout / "results").mkdir()
    (checkout / "results" / "data").symlink_to(digits / "data")
    for seed in (0, 1):
        train(tiny(**MINE, seed=seed), checkout / "results")
    mine("mine", ("# of the distance", "# of it"))
    assert snakemake(checkout, study, "-n").returncode == 0
    mine("parts", ("SCALE = 2.0", "SCALE = 3.0"))
    result = snakemake(checkout, study, "-n")
    assert result.returncode == 1
    lines = (result.stdout + result.stderr).splitlines()
    (line,) = [line for line in lines if "was trained before method mine (mine.py) changed" in line]
    assert "(1 more runs are like it)" in line
    assert "Traceback" not in result.stderr


PLAIN = """from pathlib import Path
import numpy as np
from spaced_kd.api import Shape, random_crop
MEAN = STD = (0.5, 0.5, 0.5)
def prepare(source: Path, *, each: int = 4) -> dict[str, np.ndarray]:
    count = 2 * each
    images = np.full((count, 32, 32, 3), 90, np.uint8)
    images[:each] = 200
    made = {"images": images, "labels": np.arange(count) // each}
    return {f"{split}_{key}": array for split in ("train", "test") for key, array in made.items()}
def shape(*, each: int = 4) -> Shape:
    return Shape(2 * each, 2 * each, 2, 32)
def augment(images, draws):
    return random_crop(images, draws, padding=2)
"""


def test_an_edited_prepare_is_noticed_in_prepared_data_and_leaves_runs_valid(tmp_path, monkeypatch, capsys):
    """Of a dataset: its file is another in the same process, as it would be in the next."""
    site, about = tmp_path / "site", tmp_path / "site" / "plain-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[spaced_kd.datasets]\nplain_two = plain_two\n")
    monkeypatch.syspath_prepend(str(site))

    def write(source: str) -> None:
        (site / "plain_two.py").write_text(f'"""Two greys."""\n{source}')
        sys.modules.pop("plain_two", None)
        for cached in (registry.plugins, sources.digest):
            cached.cache_clear()

    write(PLAIN)
    where = ["--results", str(tmp_path)]
    run = ["network=vit_mini", "network.dim=16", "method=baseline", "epochs=1", "batch_size=4"]
    assert cli.main(["prepare", "dataset=plain_two", *where]) == 0
    assert cli.main(["train", "dataset=plain_two", *run, "seed=0", *where]) == 0
    write(PLAIN.replace("count = 2 * each", "count = each + each"))  # the same data
    assert cli.main(["train", "dataset=plain_two", *run, "seed=0", *where]) == 0  # the finished run is left alone
    capsys.readouterr()
    assert cli.main(["train", "dataset=plain_two", *run, "seed=1", *where]) == 2
    message = capsys.readouterr().err
    assert "was prepared before plain_two.py changed: delete it and prepare it again" in message
    assert message.count("\n") == 1
    assert cli.main(["prepare", "dataset=plain_two", *where]) == 0
    assert cli.main(["train", "dataset=plain_two", *run, "seed=1", *where]) == 0
    assert cli.main(["verify", str(tmp_path)]) == 0
    write(PLAIN.replace("200", "201"))  # other data
    assert cli.main(["prepare", "dataset=plain_two", *where]) == 0
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "was trained on other data than" in capsys.readouterr().out
    registry.plugins.cache_clear()
    sys.modules.pop("plain_two", None)


def test_a_comment_in_prepare_asks_for_nothing(tmp_path):
    before = sources.of_prepare("digits")
    assert before != sources.digest("datasets", "digits")  # that of a training
    assert sources.of_prepare("tiny_imagenet") != before
