"""Plug-ins of other packages: found, listed, held to the contract, and refused by name where they break it."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, snakemake, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.distillation.methods.online_kd import OnlineKD
from spaced_kd.evaluation.evaluate import evaluate
from spaced_kd.training import job as assemble
from spaced_kd.training import plugin_checks, provenance
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "contracts" / "plugin"
LOGIT_KD = (EXAMPLE / "logit_kd.py").read_text()
SOURCES = {  # of one small plug-in of each kind that a run has; a method is the example
    "datasets": '''"""Stripes: two classes, across and down."""
import numpy as np
import torch
MEAN, STD = (0.5,) * 3, (0.5,) * 3
def prepare(source, *, each: int = 8):
    """Every second line is bright."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[::2] = 200
    pair = np.stack([image, image.transpose(1, 0, 2)])
    arrays = {"images": pair.repeat(each, 0), "labels": np.repeat(np.arange(2), each)}
    return {f"{split}_{key}": array for split in ("train", "test") for key, array in arrays.items()}
def augment(images, draws):
    """Noise."""
    noise = draws.integers(0, 50, images.shape, dtype=np.uint8)
    return images + torch.from_numpy(noise)
''',
    "networks": '''"""Mine."""
from torch import nn
from spaced_kd.networks.outputs import NetworkOutput
class Net(nn.Module):
    def __init__(self, classes, wide):
        super().__init__()
        self.trunk, self.head, self.widths = nn.LazyLinear(wide), nn.Linear(wide, classes), (wide,)
    def forward(self, images, exits=False):
        features = self.trunk(images.flatten(1)).relu()
        return [NetworkOutput(self.head(features), features)] if exits else self.head(features)
def flat_net(classes, image_size, *, wide: int = 8, exits: bool = False):
    """One hidden layer."""
    net = Net(classes, wide)
    net.trunk = nn.Linear(3 * image_size**2, wide)
    return net
def another_net(classes, image_size, *, exits: bool = False):
    """Not named by an entry point."""
''',
    "evaluations": '''"""Share of weights below 0."""
import torch
def evaluate(network, data, *, seed, scale: float = 100.0):
    """One row."""
    weights = torch.cat([p.flatten() for p in network.parameters()])
    yield {"metric": "negative", "value": scale * (weights < 0).double().mean().item()}
''',
}
NAMES = {"datasets": "stripes", "networks": "flat_net", "evaluations": "negative"}


@pytest.fixture
def install(tmp_path, monkeypatch) -> Iterator[Callable]:
    """Lay a package out as an installer does: install("methods", "my_kd", source) or with the `module` it is in."""
    site, before = tmp_path / "site", set(sys.modules)
    monkeypatch.syspath_prepend(str(site))

    def lay(kind: str, name: str, source: str, module: str | None = None, package: str = "other-kd") -> Path:
        path = site.joinpath(*(module or name).split(".")).with_suffix(".py")
        about = site / f"{package.replace('-', '_')}-0.1.dist-info"
        for folder in (path.parent, about):
            folder.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        with (about / "entry_points.txt").open("a") as entries:
            entries.write(f"[spaced_kd.{kind}]\n{name} = {module or name}\n")
        importlib.invalidate_caches()
        registry.plugins.cache_clear()
        return path

    yield lay
    registry.plugins.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]


def changed(old: str, new: str) -> str:
    """The example with something else in it."""
    assert LOGIT_KD.count(old) == 1
    return LOGIT_KD.replace(old, new)


def test_plugins_of_every_kind_are_listed_and_read_without_an_import(install, capsys, monkeypatch):
    before = {kind: registry.names(kind) for kind in SOURCES}
    for kind, source in SOURCES.items():
        install(kind, NAMES[kind], source.replace('."""\n', '."""\nraise SystemExit\n', 1))
    (install("methods", "logit_kd", LOGIT_KD, "some.package.logit_kd").parents[1] / "__init__.py").write_text("1 / 0")
    for kind, name in (*NAMES.items(), ("methods", "logit_kd")):
        assert set(registry.names(kind)) == {*before.get(kind, registry.names(kind)), name}
        assert cli.main(["list", kind]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)
        assert line.endswith("(other-kd 0.1)")
    assert registry.plugin("methods", "logit_kd").settings == {"weight": ("float", 0.1)}
    assert registry.plugin("networks", "flat_net").settings == {"wide": ("int", 8)}
    assert provenance.describe()["versions"]["other-kd"] == "0.1"


def test_a_run_may_have_nothing_of_this_package_but_the_loop(install, results):
    for kind, source in SOURCES.items():
        install(kind, NAMES[kind], source)
    install("methods", "logit_kd", LOGIT_KD)
    (results / "data").unlink()
    arguments = ["dataset=stripes", "dataset.each=6", "network=flat_net", "method=logit_kd", "seed=0", "interval=1.5"]
    arguments += ["epochs=4", "batch_size=4", "network.wide=5"]
    assert cli.main(["prepare", *arguments, "--results", str(results)]) == 0
    assert cli.main(["train", *arguments, "--results", str(results)]) == 0
    (folder,) = (results / "runs").iterdir()
    (row,) = evaluate(folder.name, {"negative": {"scale": 1.0}}, results)
    stored, _ = array_file.read(folder / "weights.safetensors", remedy="")
    negative = sum((array < 0).sum() for array in stored.values())
    assert row["value"] == pytest.approx(negative / sum(array.size for array in stored.values()))


def test_trying_a_method_first_leaves_its_training_as_it_is(install, results, tmp_path, monkeypatch):
    install("methods", "logit_kd", LOGIT_KD)
    run = tiny(method="logit_kd", interval="max", epochs=2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    tried = ResultPaths(train(run, results).parents[1]).weights(run).read_bytes()
    monkeypatch.setattr(assemble, "dry_run_plugin", lambda *_: None)
    assert ResultPaths(train(run, other).parents[1]).weights(run).read_bytes() == tried


TERM = 'self.weight * mse(logits, teacher_outputs(networks["teacher"], batch.images).logits)'


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (TERM, f"({TERM}).detach()", "the term 'logits' of student has no gradient: leave it out, or do not"),
        (TERM, "logits", "the term 'logits' of student is a tensor (9, 10), but must be a tensor of one number"),
        (TERM, "0.0", "the term 'logits' of student is 0.0, but must be a tensor of one number"),
        ("return terms", "return list(terms.values())", "the terms of teacher are [tensor("),
        (
            "return terms",
            "return terms if who == 'teacher' else {}",
            "the terms of student are {}, but must be a mapping",
        ),
        ("networks[who](batch", "networks['teacher'](batch", "no term of student depends on its network, student"),
        (
            "turns(total, interval)",
            'iter([("teacher", 0), ("teacher", 1)])',
            "no turn in which the network that is evaluated, student, learns: yield turns of student",
        ),
        (
            '{"teacher": "teacher", "student"',
            '{"teacher": "teacher", "pupil"',
            "has turns of student, but its roles are",
        ),
    ],
)
def test_a_broken_method_is_named_before_anyone_learns(old, new, complaint, install, results, monkeypatch):
    install("methods", "logit_kd", changed(old, new))
    monkeypatch.setattr("spaced_kd.training.learner.Learner.learn", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(UserError, match=r"^logit_kd: ") as error:
        train(tiny(method="logit_kd", interval="max"), results)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_method_that_names_a_network_wrongly_is_reported_the_right_names(install, results):
    install("methods", "logit_kd", changed('networks["teacher"]', 'networks["tutor"]'))
    message = r"^logit_kd: its terms of student ask for 'tutor', but its networks are teacher, student$"
    with pytest.raises(UserError, match=message):
        train(tiny(method="logit_kd", interval="max"), results)


def test_a_setting_without_a_default_has_to_be_given(install):
    install("methods", "logit_kd", changed("weight: float = 0.1", "weight: float"))
    assert tiny(method="logit_kd", method__weight=0.1).settings["method"] == {"weight": 0.1}
    with pytest.raises(UserError, match=r"^logit_kd\.weight has no default and is not given: give it"):
        tiny(method="logit_kd")


def test_a_networks_setting_without_a_type_is_named(install):
    path = install("networks", "flat_net", SOURCES["networks"].replace("wide: int = 8", "wide=8"))
    with pytest.raises(UserError, match=rf"^{path}: .*wide of flat_net has no type"):
        registry.names("networks")


def test_a_method_added_to_the_tree_is_tried_as_those_of_other_packages(results, monkeypatch, tmp_path):
    monkeypatch.setattr(plugin_checks, "SHIPPED", {"methods": (), "networks": ("resnet_mini",)})
    monkeypatch.setattr(OnlineKD, "terms", lambda self, who, networks, batch: networks["tutor"])
    with pytest.raises(UserError, match=r"^online_kd: its terms of teacher ask for 'tutor'"):
        train(tiny(method="online_kd", interval="max"), results)


def test_what_is_shipped_is_listed():
    for kind, known in plugin_checks.SHIPPED.items():
        own = {plugin.name for plugin in registry.plugins(kind).values() if not plugin.package}
        assert set(known) <= own


def test_a_network_that_says_something_else_is_named(install, results):
    install("networks", "flat_net", SOURCES["networks"].replace("nn.Linear(wide, classes)", "nn.Linear(wide, 3)"))
    flat = TINY | {"network": "flat_net", "method": "baseline"}
    with pytest.raises(UserError, match=r"^flat_net gives a tensor \(9, 3\) for a batch, but logits \(9, 10\) are"):
        train(from_flat({key: value for key, value in flat.items() if key != "network.width"}), results)


def test_an_evaluation_without_numbers_is_named(install, results):
    install("evaluations", "negative", SOURCES["evaluations"].replace('"value": scale *', '"values": scale *'))
    run = tiny(method="baseline", epochs=1)
    train(run, results)
    with pytest.raises(UserError, match=r"^negative gives the row {'metric': 'negative', 'values'"):
        evaluate(run.id, {"negative": {}}, results)


def test_terms_of_this_package_are_checked_at_each_step(results, monkeypatch):
    monkeypatch.setattr(OnlineKD, "terms", lambda *_: {"soft": torch.zeros(())})
    job = assemble.assemble(tiny(method="online_kd"), ResultPaths(results))
    with pytest.raises(UserError, match=r"^online_kd: the term 'soft' of student has no gradient"):
        job.terms("student", 0)


def test_a_name_is_taken_once(install):
    path = install("methods", "online_kd", LOGIT_KD)
    own = registry.ROOT / "distillation" / "methods" / "online_kd.py"
    with pytest.raises(UserError, match=f"^{path}: methods has online_kd twice, the other is {own}$"):
        registry.names("methods")


def test_a_name_is_taken_once_by_two_packages(install):
    paths = [install("methods", "my_kd", LOGIT_KD, f"{folder}.my_kd", folder) for folder in ("one", "two")]
    with pytest.raises(UserError, match=f"^{paths[1]}: methods has my_kd twice, the other is {paths[0]}$"):
        registry.names("methods")


@pytest.mark.parametrize(
    ("source", "module", "complaint"),
    [
        (
            LOGIT_KD,
            "elsewhere",
            "other-kd 0.1: my_kd of spaced_kd.methods is to be in the module elsewhere, which has",
        ),
        ("", "my_kd", "a file in methods holds one dataclass, this one has 0"),
        (changed("0.1 ", "1 / 10 "), "my_kd", "my_kd.py: defaults and constants must be plain values"),
        (changed("roles: ", "names: "), "my_kd", "my_kd.py: LogitKD has no roles: say who learns"),
        (changed("def terms", "def losses"), "my_kd", "my_kd.py: LogitKD has no function terms: add it"),
        (
            changed("weight: float", "weight"),
            "my_kd",
            "my_kd.py: weight of LogitKD has no type, so it is not a setting",
        ),
        (changed("def terms", "de terms"), "my_kd", "my_kd.py: invalid syntax in line"),
    ],
)
def test_a_plugin_that_cannot_be_read_is_named(source, module, complaint, install):
    install("methods", "my_kd", source, module)
    with pytest.raises(UserError) as error:
        registry.names("methods")
    assert complaint in str(error.value)


def test_a_module_that_is_gone_is_named(install):
    for module in ("my_kd", "some.package.my_kd"):
        install("methods", "my_kd", LOGIT_KD, module).unlink()
        with pytest.raises(UserError, match=r"^other-kd 0\.1: my_kd .* which cannot be found: install the package"):
            registry.names("methods")


def test_the_documentation_shows_the_example_as_it_is():
    shown = (ROOT / "docs" / "how-to" / "plugin-package.md").read_text()
    files = [path.read_text() for path in sorted(EXAMPLE.glob("*.*"))]
    assert len(files) == 2
    assert sum(len(text.splitlines()) for text in files) <= 40
    blocks = re.findall(r"```(?:python|toml)[^\n]*\n(.*?)```", shown, re.DOTALL)
    assert all(text in blocks for text in files)


OUTER = sys.executable
CAPTURED = {"capture_output": True, "text": True, "check": False}


@pytest.mark.slow
@pytest.mark.parametrize(("example", "passed", "skipped"), [(False, 2, 1), (True, 3, 0)])
def test_a_dataset_passes_the_contract_tests_with_and_without_an_example(environment, example, passed, skipped):
    """As documented; the example is optional, and without it a test is skipped with the reason."""
    text = (ROOT / "docs" / "how-to" / "add-dataset.md").read_text()
    (source,) = re.findall(r"```python title=[^\n]*stripes.py\"\n(.*?)```", text, re.DOTALL)
    whole, _, _ = source.partition("\n\ndef example")
    (environment / "stripes.py").write_text(source if example else whole + "\n")
    about = environment / "stripes-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[spaced_kd.datasets]\nstripes = stripes\n")
    chosen = "stripes and (test_datasets or vit_mini)"
    contract = [sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "-p", "no:cacheprovider", "-k", chosen]
    result = subprocess.run([*contract, "tests/contracts/test_contracts.py"], cwd=ROOT, **CAPTURED)
    assert result.returncode == 0, result.stdout
    assert f"{passed} passed" in result.stdout
    assert ("stripes has no function example(folder)" in result.stdout) == (not example)
    assert ("1 skipped" in result.stdout) == bool(skipped)


@pytest.fixture
def installed(tmp_path, environment) -> None:
    """The example as its own packaging installs it, for what is started from here."""
    shutil.copytree(EXAMPLE, tmp_path / "source")
    uv = [OUTER, "-m", "uv", "pip", "install", "--no-deps", "--no-build-isolation", "--offline", "--no-cache"]
    result = subprocess.run([*uv, "--target", str(environment), "./source"], cwd=tmp_path, **CAPTURED)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_example_goes_through_the_workflow(installed, checkout):
    grid = {
        "dataset": {"digits": {"train_per_class": 4}},
        "network": {"resnet_mini": {"width": 0.0625}},
        "recipe": {"epochs": 3, "batch_size": 8, "lr": 0.05},
        "seed": 0,
        "arms": [{"method": "logit_kd", "interval": 1.5, "evaluate": "all"}],
    }
    evaluations = {"weight_noise": {"images": 20, "draws": 1}}
    result = snakemake(checkout, {"study": "trial", "grids": [grid], "evaluations": evaluations, "tables": ["cost"]})
    assert result.returncode == 0, result.stderr
    assert "logit_kd, s = 1.5" in (checkout / "results/trial/tables/cost.csv").read_text()
    assert ",logit_kd,1.5,0,textbook," in (checkout / "results/trial/rows.csv").read_text()


@pytest.mark.slow
def test_the_example_passes_the_contract_tests(installed):
    contract = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "logit_kd"]
    result = subprocess.run([*contract, "tests/contracts/test_contracts.py"], cwd=ROOT, **CAPTURED)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout
