"""Every plug-in found keeps its contract: the same tests for all of them, and for those to come."""

import ast
import inspect
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from conftest import TINY, tiny
from torch import nn

from spaced_kd.config import registry, types
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import from_flat
from spaced_kd.data.dataset import Shape, check, classes_digest, save
from spaced_kd.data.datasets import cifar100, imagenet1k, imagenet100, tiny_imagenet
from spaced_kd.distillation.method import Method, completed
from spaced_kd.evaluation.evaluate import evaluate
from spaced_kd.networks.outputs import NetworkOutput
from spaced_kd.planning.costs import RunCosts
from spaced_kd.training import job as assemble
from spaced_kd.training import timeline
from spaced_kd.training.cuda_graphs import as_recorded
from spaced_kd.training.learner import backward
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import predict
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

SHIPPED = ("cifar100", "digits", "imagenet100", "imagenet1k", "tiny_imagenet")  # of others no layout is known here
LARGE = ("resnet50", "resnet101", "resnet18_x4", "resnet18_x8")  # slow on a CPU; the same code as the others


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_plugin_says_what_it_is(kind):
    for plugin in registry.plugins(kind).values():
        assert plugin.summary, plugin.path
        assert len(plugin.summary) < 140, plugin.path
        for key, (annotation, default) in plugin.settings.items():
            if default is not registry.REQUIRED:
                types.check_type(f"{plugin.name}.{key}", default, annotation)


@pytest.mark.parametrize("kind", [kind for kind in registry.KINDS if kind not in ("networks", "datasets")])
def test_every_plugin_can_be_found(kind):
    for name in registry.names(kind):
        assert callable(registry.find(kind, name))


@pytest.mark.parametrize("name", [name for name in registry.names("networks") if name not in LARGE])
def test_networks(name):
    make = registry.find("networks", name)
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
        for outputs, width in zip(exits, each.widths, strict=True):
            assert isinstance(outputs, NetworkOutput)
            assert outputs.logits.shape == (2, 7)
            assert outputs.features.shape == (2, width)
    batch_norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert registry.plugin("networks", name).constants.get("BATCH_NORM", True) == batch_norms
    assert torch.equal(network(images), with_exits(images))  # exits come after the trunk, and change nothing of it


@pytest.mark.parametrize("name", registry.names("methods"))
def test_what_is_replayable_takes_nothing_of_a_batch_but_images_labels_and_ids(name, results):
    job = assemble.assemble(tiny(method=name), ResultPaths(results))
    if not job.method.replayable:
        pytest.skip("it says that it is not")
    firsts = dict(reversed(job.turns))
    for who, index in firsts.items():
        batch = job.batches[index]
        found, expected = (backward(job.terms_on(who, each)) for each in (as_recorded(*batch[:3]), batch))
        assert found == expected


@pytest.mark.parametrize("name", registry.names("methods"))
def test_methods(name, results):
    job = assemble.assemble(tiny(method=name), ResultPaths(results))
    assert set(job.method.roles) == {who for who, _ in job.method.schedule(12, 5, 4)} | {who for who, _ in job.turns}
    firsts = dict(reversed(job.turns))  # one learner may be through before another begins
    for who, index in [*job.turns[:4], *firsts.items()]:
        terms = job.terms(who, index)
        assert terms
        assert all(term.shape == () and term.requires_grad for term in terms.values())
        job.learners[who].learn(index, lambda terms=terms: backward(terms))


@pytest.mark.parametrize("name", registry.names("datasets"))
def test_datasets_augment_batches_and_draw_from_the_generator_alone(name):
    module = registry.find("datasets", name)
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    once, again, other = (module.augment(images, generator(seed, "test")) for seed in (0, 0, 1))
    size = {"imagenet1k": 224, "imagenet100": 224}.get(name, once.shape[1] if name not in SHIPPED else 32)
    assert once.shape == (8, size, size, 3)
    assert once.dtype == torch.uint8
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert len(module.MEAN) == len(module.STD) == 3


@pytest.mark.parametrize("name", registry.names("datasets"))
def test_datasets_tell_their_shape_without_their_files(name):
    module = registry.find("datasets", name)
    settings, message = (
        [
            parameter
            for parameter in inspect.signature(face).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        for face in (module.prepare, module.shape)
    )
    assert message == settings
    if any(parameter.default is parameter.empty for parameter in settings):
        return  # it has no shape until one is told what it is
    shape = module.shape()
    assert isinstance(shape, Shape)
    assert min(shape) > 0


@pytest.mark.parametrize("name", registry.names("methods"))
def test_methods_are_counted_without_numbers(name):
    assert RunCosts().cost(tiny(method=name)).flops > 0


@pytest.mark.parametrize("name", [name for name in registry.names("networks") if name not in LARGE])
def test_networks_are_counted_without_numbers(name):
    flat = {"dataset": "digits", "network": name, "method": "self_kd", "seed": 0, "epochs": 1}
    assert RunCosts().cost(from_flat(flat)).flops > 0


@pytest.fixture(scope="module")
def every_dataset(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """Results with every dataset prepared from a small copy in its published layout, and the settings of each."""
    source, results = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("results")
    wnids = imagenet100.CLASSES.read_text().split()[:2]
    (source / "chosen.txt").write_text(" ".join(wnids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar100, "CLASSES", 2)
        patch.setattr(cifar100, "PER_CLASS", counts := {"train": 2, "test": 1})
        patch.setattr(cifar100, "_verified", lambda path, content: content)
        for name, value in {"CLASSES": 2, "TRAIN_PER_CLASS": 2, "VAL_PER_CLASS": 1}.items():
            patch.setattr(tiny_imagenet, name, value)
        patch.setattr(imagenet100, "CLASSES", source / "chosen.txt")
        for module in (imagenet1k, imagenet100, tiny_imagenet):
            names = sorted(wnids) if module is imagenet1k else wnids
            patch.setattr(module, "CLASSES_SHA256", classes_digest(names))
        for module in (imagenet1k, imagenet100):
            patch.setattr(module, "shape", lambda: Shape(4, 2, 2, 224))
        published.cifar100(source, classes=2, counts=counts)
        published.tiny_imagenet(source, wnids, train=2, val=1)
        published.imagenet(source, wnids, train=2, val=1)
        given = {"digits": {"train_per_class": 1}, "tiny_imagenet": {"classes": 2, "train_per_class": 2}}
        settings: dict[str, dict] = {name: {} for name in SHIPPED}
        for name in registry.names("datasets"):
            module = registry.find("datasets", name)
            if name not in SHIPPED:
                if not hasattr(module, "example"):
                    continue
                given[name] = settings[name] = module.example(source) or {}
            content = module.prepare(source, **given.get(name, {}))
            content |= {key: array[:10] for key, array in content.items() if key.startswith("test")}
            check(content)
            path = ResultPaths(results).data(two_steps(name, "resnet_mini", settings[name]))
            save(path, content, dataset=name, settings=settings[name], source=str(source))
    return results, settings


def two_steps(dataset: str, network: str, settings: dict):
    """A training of two batches; narrow networks are quick."""
    narrow = {"network.width": 0.25} if isinstance(registry.defaults("networks", network).get("width"), float) else {}
    size = 5 if dataset == "digits" else 2
    plain = {"dataset": dataset, "network": network, "method": "baseline", "seed": 0, "epochs": 1, "batch_size": size}
    return from_flat(plain | narrow | {f"dataset.{key}": value for key, value in settings.items()})


def pairs() -> Iterator:
    """Every network with the smallest dataset and every dataset with the smallest network; the other pairs are slow.

    Large networks, whose code is that of the others, have the smallest dataset alone.
    """
    for network, dataset in product(registry.names("networks"), registry.names("datasets")):
        if network not in LARGE and (network == "resnet_mini" or dataset == "digits"):
            yield pytest.param(network, dataset)
        elif network not in LARGE or dataset == "digits":
            yield pytest.param(network, dataset, marks=pytest.mark.slow)


@pytest.mark.parametrize(("network", "dataset"), list(pairs()))
def test_every_network_trains_on_every_dataset(network, dataset, every_dataset):
    results, settings = every_dataset
    if dataset not in settings:
        pytest.skip(f"{dataset} has no function example(folder), which writes a tiny copy in its published layout")
    job = assemble.assemble(two_steps(dataset, network, settings[dataset]), ResultPaths(results), workers=0)
    before = [weights.clone() for weights in job.result.parameters()]
    for who, index in islice(job.turns_after(0), 2):
        job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
    assert all(torch.isfinite(weights).all() for weights in job.result.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, job.result.parameters(), strict=True))


@pytest.mark.parametrize("augmentation", ["autoaugment_cutout", "strong"])
def test_every_recipe_trains_at_another_input_size(augmentation, results):
    flat = TINY | {"network": "vit_mini", "network.dim": 16, "method": "baseline", "epochs": 1}
    del flat["network.width"]
    spec = from_flat(flat | {"augmentation": augmentation, "input_size": 40})
    seen = []
    job = assemble.assemble(spec, ResultPaths(results))
    job.result.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1:]))
    job.terms("teacher", 0)
    predict(job.reported, job.data)
    assert set(seen) == {(3, 40, 40)}
    train(spec, results, workers=0)
    assert evaluate(spec.id, {"weight_noise": {"images": 5, "draws": 1}}, results)  # a transformer fits one size only


def test_reading_a_plugin_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "distillation" / "methods").mkdir(parents=True)
    source = ['"""Mine."""', "raise SystemExit", "@dataclass", "class Mine:", '    """It."""', "    a: float = 0.5"]
    source += ['    roles: ClassVar[dict[str, str]] = {"x": "y"}']
    source += ["    def schedule(self): ...", "    def terms(self): ...", ""]
    (tmp_path / "distillation" / "methods" / "mine.py").write_text("\n".join(source))
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    registry.plugins.cache_clear()
    found = registry.plugin("methods", "mine")
    registry.plugins.cache_clear()
    assert found.settings == {"a": ("float", 0.5)}
    assert found.constants == registry.contract_defaults() | {"roles": {"x": "y"}}


def test_a_file_without_its_face_is_named(tmp_path, monkeypatch):
    (tmp_path / "analysis" / "tables").mkdir(parents=True)
    (tmp_path / "analysis" / "tables" / "mine.py").write_text('"""Mine."""\n')
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    registry.plugins.cache_clear()
    with pytest.raises(UserError, match=r"mine\.py: a file in tables holds one function table, this one has 0"):
        registry.plugins("tables")
    registry.plugins.cache_clear()


def test_no_plugin_draws_from_a_global_generator():
    """Reads the sources: numpy's and torch's global draws are left to seeding.py."""
    for kind in registry.KINDS:
        for plugin in registry.plugins(kind).values():
            calls = {
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(plugin.path.read_text()))
                if isinstance(node, ast.Call)
            }
            assert not {"torch.randn", "torch.rand", "torch.manual_seed", "np.random.seed", "np.random.rand"} & calls


def test_the_digits_are_split_by_class():
    content = registry.find("datasets", "digits").prepare(None, train_per_class=3, split=1)
    assert np.bincount(content["train_labels"]).tolist() == [3] * 10
    assert len(content["train_labels"]) + len(content["test_labels"]) == 1797
    assert content["train_images"].shape == (30, 32, 32, 3)


def test_a_method_gets_the_contracts_defaults_and_keeps_its_own(results):
    of_run = timeline.make_method(tiny(method="dml", interval=1, epochs=2, method__leader="alone"))
    assert isinstance(of_run, Method)
    assert isinstance(of_run, registry.find("methods", "dml"))
    assert (of_run.initial_weights, of_run.teacher_is_shared, of_run.replayable) == ("different", True, True)
    assert (of_run.parts, of_run.optimizers, of_run.modules({}), of_run.order(3, {})) == ((), "two", {}, None)
    assert completed(type(of_run)) is type(of_run)


def test_the_contract_names_all_that_methods_override():
    known = set(vars(Method)) | set(Method.__annotations__)
    for plugin in registry.plugins("methods").values():
        public = {name for name in vars(registry.find("methods", plugin.name)) if not name.startswith("_")}
        assert public <= known | set(plugin.settings), plugin.name
