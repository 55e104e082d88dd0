"""Every plug-in found keeps its contract: the same tests for all of them, and for those to come."""

import ast
import inspect

import numpy as np
import pytest
import torch
from conftest import tiny
from torch import nn

from spaced_kd import assemble, catalog
from spaced_kd.counts import Counts
from spaced_kd.data import Shape
from spaced_kd.errors import UserError
from spaced_kd.files import Places
from spaced_kd.outputs import Exit
from spaced_kd.seeding import generator, global_seed
from spaced_kd.spec import from_flat

LARGE = ("resnet50", "resnet101", "resnet18_x4", "resnet18_x8")  # slow on a CPU; the same code as the others


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_plugin_says_what_it_is(kind):
    for plugin in catalog.plugins(kind).values():
        assert plugin.summary, plugin.path
        assert len(plugin.summary) < 140, plugin.path
        for key, (annotation, default) in plugin.settings.items():
            if default is not catalog.REQUIRED:
                catalog.check_type(f"{plugin.name}.{key}", default, annotation)


@pytest.mark.parametrize("kind", [kind for kind in catalog.KINDS if kind not in ("networks", "datasets")])
def test_every_plugin_can_be_found(kind):
    for name in catalog.names(kind):
        assert callable(catalog.find(kind, name))


@pytest.mark.parametrize("name", [name for name in catalog.names("networks") if name not in LARGE])
def test_networks(name):
    make = catalog.find("networks", name)
    with global_seed(0, "test"):
        network = make(7, 32)
    with global_seed(0, "test"):
        with_exits = make(7, 32, exits=True)
    images = torch.randn(2, 3, 32, 32)
    for each, least in ((network, 1), (with_exits, 2)):
        each.eval()
        logits, exits = each(images), each(images, exits=True)
        assert logits.shape == (2, 7)
        assert len(exits) == len(each.widths) >= least
        assert torch.equal(exits[-1].logits, logits)
        for said, width in zip(exits, each.widths, strict=True):
            assert isinstance(said, Exit)
            assert said.logits.shape == (2, 7)
            assert said.features.shape == (2, width)
    batch_norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert catalog.plugin("networks", name).constants.get("BATCH_NORM", True) == batch_norms
    assert torch.equal(network(images), with_exits(images))  # exits come after the trunk, and change nothing of it


@pytest.mark.parametrize("name", catalog.names("methods"))
def test_methods(name, results):
    job = assemble.assemble(tiny(method=name), Places(results))
    assert set(job.method.roles) == {who for who, _ in job.method.schedule(12, 5, 4)} | {who for who, _ in job.turns}
    for who, index in job.turns[:4]:
        terms = job.terms(who, index)
        assert terms
        assert all(term.shape == () and term.requires_grad for term in terms.values())
        job.learners[who].learn(index, lambda terms=terms: terms)


@pytest.mark.parametrize("name", catalog.names("datasets"))
def test_datasets_augment_batches_and_draw_from_the_generator_alone(name):
    module = catalog.find("datasets", name)
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    once, again, other = (module.augment(images, generator(seed, "test")) for seed in (0, 0, 1))
    assert once.shape == images.shape
    assert once.dtype == torch.uint8
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert len(module.MEAN) == len(module.STD) == 3


@pytest.mark.parametrize("name", catalog.names("datasets"))
def test_datasets_tell_their_shape_without_their_files(name):
    module = catalog.find("datasets", name)
    settings, told = (
        [
            parameter
            for parameter in inspect.signature(face).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        for face in (module.prepare, module.shape)
    )
    assert told == settings
    shape = module.shape()
    assert isinstance(shape, Shape)
    assert min(shape) > 0


@pytest.mark.parametrize("name", catalog.names("methods"))
def test_methods_are_counted_without_numbers(name):
    assert Counts().cost(tiny(method=name)).flops > 0


@pytest.mark.parametrize("name", [name for name in catalog.names("networks") if name not in LARGE])
def test_networks_are_counted_without_numbers(name):
    flat = {"dataset": "digits", "network": name, "method": "self_kd", "seed": 0, "epochs": 1}
    assert Counts().cost(from_flat(flat)).flops > 0


def test_reading_a_plugin_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    source = ['"""Mine."""', "raise SystemExit", "@dataclass", "class Mine:", '    """It."""', "    a: float = 0.5"]
    source += ['    roles: ClassVar[dict[str, str]] = {"x": "y"}', ""]
    (tmp_path / "methods" / "mine.py").write_text("\n".join(source))
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    catalog.plugins.cache_clear()
    found = catalog.plugin("methods", "mine")
    catalog.plugins.cache_clear()
    assert found.settings == {"a": ("float", 0.5)}
    assert found.constants == {"roles": {"x": "y"}}


def test_a_file_without_its_face_is_named(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.py").write_text('"""Mine."""\n')
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    catalog.plugins.cache_clear()
    with pytest.raises(UserError, match=r"mine\.py: a file in tables holds one function table, this one has 0"):
        catalog.plugins("tables")
    catalog.plugins.cache_clear()


def test_no_plugin_draws_from_a_global_generator():
    """Reads the sources: numpy's and torch's global draws are left to seeding.py."""
    for kind in catalog.KINDS:
        for plugin in catalog.plugins(kind).values():
            calls = {
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(plugin.path.read_text()))
                if isinstance(node, ast.Call)
            }
            assert not {"torch.randn", "torch.rand", "torch.manual_seed", "np.random.seed", "np.random.rand"} & calls


def test_the_digits_are_split_by_class():
    content = catalog.find("datasets", "digits").prepare(None, train_per_class=3, split=1)
    assert np.bincount(content["train_labels"]).tolist() == [3] * 10
    assert len(content["train_labels"]) + len(content["test_labels"]) == 1797
    assert content["train_images"].shape == (30, 32, 32, 3)
