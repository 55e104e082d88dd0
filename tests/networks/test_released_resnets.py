"""The released ResNets' training loops written by hand, compared with ours after every update, in float64 (B1 to B6).

The loops have who learns on which batch (counts of batches against s x L), the losses, and which pass moves running
statistics. Networks are small ones of the same class, batches the project's.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, tiny
from torch import Tensor, nn
from torch.nn import functional

from spaced_kd.config import presets
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.data.dataset import STANDARDISATIONS
from spaced_kd.data.loading import load_data
from spaced_kd.distillation.losses import alignment
from spaced_kd.evaluation import evaluate
from spaced_kd.networks import resnet
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.learner import Onlooker, backward
from spaced_kd.training.loop import train
from spaced_kd.utils.seeding import global_seed

T, S = "teacher", "student"
L = 5  # batches of 9 of the 40 digits, the last of 4
ALPHA, BETA, TEMPERATURE = 0.3, 0.03, 3.0
NEAR = {"rtol": 1e-12, "atol": 1e-12}
Update = tuple[str, float, dict[str, Tensor]]  # who learnt, the loss, and parameters and buffers after it


@pytest.fixture
def doubled(monkeypatch):
    """Losses in float64, which are in float32 otherwise."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def released(**changes: object) -> RunSpec:
    return from_flat(TINY | {"protocol": "released", "lr": 0.01} | changes)


def in_float64(spec: RunSpec, results: Path) -> Job:
    job = assemble(spec, ResultPaths(results))
    for module in job.modules.values():
        module.double()
    return job


def states(*modules: nn.Module) -> dict[str, Tensor]:
    found = {f"{i} {name}": value for i, module in enumerate(modules) for name, value in module.state_dict().items()}
    return {name: value.clone() for name, value in found.items()}


def ours(job: Job) -> Iterator[Update]:
    for who, index in job.turns:
        batch = job.batches[index]
        batch = batch._replace(images=batch.images.double())
        with global_seed(job.spec.seed, f"step of {who}", index):
            losses = job.learners[who].learn(index, lambda who=who, batch=batch: backward(job.terms_on(who, batch)))
        if not isinstance(job.learners[who], Onlooker):
            learner = job.learners[who]
            aligned = [job.modules["align"]] if learner.network is job.result else []
            yield who, sum(losses.values()).item(), states(learner.network, *aligned)


def sgd(spec: RunSpec, *modules: nn.Module) -> torch.optim.SGD:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr=spec.lr, momentum=0.9, weight_decay=5e-4)


def step(optimizer: torch.optim.SGD, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class OnlineLoop:
    """Two networks built one after the other, an optimiser each, the adapter in the student's."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.teacher, self.student = (copy.deepcopy(job.modules[who]).train() for who in (T, S))
        self.adapter = copy.deepcopy(job.modules["align"])
        self.of_teacher, self.of_student = sgd(job.spec, self.teacher), sgd(job.spec, self.student, self.adapter)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        found = self.job.batches[index]
        return found.images.double(), found.labels

    def teach(self, index: int) -> tuple[Update, tuple[Tensor, Tensor]]:
        images, labels = self.batch(index)
        outputs = self.teacher(images, exits=True)[-1]
        loss = step(self.of_teacher, functional.cross_entropy(outputs.logits, labels))
        return (T, loss, states(self.teacher)), (outputs.logits.detach(), outputs.features.detach())

    def study(self, index: int, target: tuple[Tensor, Tensor] | None = None) -> Update:
        images, labels = self.batch(index)
        outputs = self.student(images, exits=True)[-1]
        if target is None:
            with torch.no_grad():
                target = self.teacher(images, exits=True)[-1][:2]
        p, q = ((logits / TEMPERATURE).softmax(1) for logits in (target[0], outputs.logits))
        loss = (1 - ALPHA) * functional.cross_entropy(outputs.logits, labels)
        loss = loss + ALPHA * (p * (p.log() - q)).sum() / len(labels)  # q where its logarithm belongs
        loss = loss + BETA * (self.adapter(outputs.features) - target[1]).square().sum().sqrt()
        return S, step(self.of_student, loss), states(self.student, self.adapter)

    def updates(self, s: float | str) -> Iterator[Update]:
        total = self.job.spec.epochs * L
        if s == "max":
            yield from (self.teach(index)[0] for index in range(total))
            self.teacher.eval()
            yield from (self.study(total + index) for index in range(total))  # on new batches
            return
        interval, stored = int(L * s), []
        for index in range(total):
            update, outputs = self.teach(index)
            yield update
            if not interval:
                yield self.study(index, outputs)  # which the teacher said before its update
                continue
            stored.append(index)
            if (index + 1) % interval == 0:
                yield from (self.study(each) for each in stored)
                stored = []


class SelfLoop:
    """One network with four heads and adapters, one optimiser."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.network, self.adapters = copy.deepcopy(job.modules[S]).train(), copy.deepcopy(job.modules["align"])
        self.optimizer = sgd(job.spec, self.network, self.adapters)

    def says(self, index: int) -> tuple[list, Tensor]:
        found = self.job.batches[index]
        return self.network(found.images.double(), exits=True), found.labels

    def whole(self, index: int) -> Update:
        (*shallow, deepest), labels = self.says(index)
        loss = functional.cross_entropy(deepest.logits, labels)
        soft = (deepest.logits.detach() / TEMPERATURE).softmax(1)
        for place, (head, adapter) in enumerate(zip(shallow, self.adapters, strict=True)):
            log_q = (head.logits / TEMPERATURE).log_softmax(1)
            loss = loss + (1 - ALPHA) * functional.cross_entropy(head.logits, labels)
            loss = loss - ALPHA * (soft * log_q).sum(1).mean()
            if place != 2:  # the second deepest has no feature loss
                loss = loss + BETA * (adapter(head.features) - deepest.features.detach()).square().sum().sqrt()
        return S, step(self.optimizer, loss), states(self.network, self.adapters)

    def plain(self, index: int) -> Update:
        (*_, deepest), labels = self.says(index)
        loss = step(self.optimizer, functional.cross_entropy(deepest.logits, labels))
        return T, loss, states(self.network, self.adapters)

    def updates(self, s: float) -> Iterator[Update]:
        interval, stored = int(L * s), []
        for index in range(self.job.spec.epochs * L):
            if not interval:
                yield self.whole(index)
                continue
            stored.append(index)
            if (index + 1 - L) % interval:  # the count of batches starts an epoch late
                yield self.plain(index)
            else:
                self.says(index)  # moves running statistics, and updates nothing
                yield from (self.whole(each) for each in stored)
                stored = []


def compare(mine: Iterator[Update], loop: Iterator[Update], without: str = "") -> dict[str, int]:
    """Each learner's updates, in its own order, are the same; gives their number."""
    found: dict[str, list[Update]] = {T: [], S: []}
    other: dict[str, list[Update]] = {T: [], S: []}
    for into, updates in ((found, mine), (other, loop)):
        for update in updates:
            into[update[0]].append(update)
    for who in (T, S):
        for (_, loss, state), (_, expected, its) in zip(found[who], other[who], strict=True):
            assert loss == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert state.keys() == its.keys()
            for name in state:
                if not (without and who == without and ("running" in name or "num_batches" in name)):
                    torch.testing.assert_close(state[name], its[name], **NEAR, msg=lambda m, n=name: f"{n}: {m}")
    return {who: len(updates) for who, updates in found.items()}


@pytest.mark.parametrize(
    ("s", "expected"), [(0, {T: 15, S: 15}), (0.5, {T: 15, S: 14}), (1.5, {T: 15, S: 14}), ("max", {T: 15, S: 15})]
)
def test_online_kd_is_the_released_loop(results, doubled, s, expected):
    job = in_float64(released(method="online_kd", interval=s), results)
    loop = OnlineLoop(job)
    # B7: at 0 our student's job computes the teacher's target again; nobody reads the statistics that this moves
    assert compare(ours(job), loop.updates(s), without=T if s == 0 else "") == expected


@pytest.mark.parametrize(
    ("s", "epochs", "expected"),
    [
        (0, 2, {T: 0, S: 10}),
        (0.7, 3, {T: 10, S: 14}),
        pytest.param(4.0, 6, {T: 28, S: 25}, marks=pytest.mark.slow),
    ],
)
def test_self_kd_is_the_released_loop(results, doubled, s, epochs, expected):
    job = in_float64(released(method="self_kd", interval=s, epochs=epochs), results)
    loop = SelfLoop(job)
    assert compare(ours(job), loop.updates(s)) == expected


def test_a_looked_at_batch_moves_statistics_alone(results):
    job = assemble(released(method="self_kd", interval=1.0), ResultPaths(results))
    at = next(i for i, (who, _) in enumerate(job.turns) if who == "onlooker")
    assert job.turns[at : at + 2] == [("onlooker", 4), (S, 0)]  # the block's last batch, then its first
    before, network = states(job.result), job.learners["onlooker"].network
    losses = job.learners["onlooker"].learn(4, lambda: job.passes("onlooker", 4))
    moved = {name for name, value in states(job.result).items() if not torch.equal(value, before[name])}
    assert network is job.result
    assert losses["hard"] > 0
    assert moved == {name for name in before if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("heads", ["untouched", "running", "drifting"])
def test_idle_heads(results, heads):
    """Between blocks: untouched ones stay, running ones move their statistics, drifting ones their weights as well."""
    spec = tiny(method="self_kd", interval=1.0, method__idle_heads=heads)
    job = assemble(spec, ResultPaths(results))
    turns = iter(job.turns)

    def until(stop: str) -> None:
        for who, index in turns:
            job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
            if stop == who:
                return

    until(S)
    until(T)
    before = states(job.result)
    until(T)
    moved = {name for name, value in states(job.result).items() if not torch.equal(value, before[name])}
    of_heads = {name for name in moved if "branches" in name}
    weights = {name for name in of_heads if "running" not in name and "num_batches" not in name}
    assert bool(of_heads - weights) == (heads != "untouched")
    assert bool(weights) == (heads == "drifting")


def test_alignment_is_always_there_where_it_is_asked_for():
    assert isinstance(alignment(8, 8), nn.Identity)
    layer = alignment(8, 8, "linear_always")
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (8, 8)


@pytest.mark.parametrize(("before", "after"), [((4, 4), (8, 8)), ((1, 2), (2, 4)), ((3, 3), (5, 5))])
def test_bilinear_attention_is_interpolation(before, after):
    x = torch.randn(2, 3, *before, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, *after, dtype=torch.float64)
    found, expected = resnet._bilinear(x, after), functional.interpolate(x, after, mode="bilinear")
    torch.testing.assert_close(found, expected, **NEAR)
    (own,), (theirs,) = (torch.autograd.grad((each * weights).sum(), x) for each in (found, expected))
    torch.testing.assert_close(own, theirs, **NEAR)


@pytest.mark.parametrize(("network", "more"), [("resnet18", 896), ("resnet50", 3584)])
def test_the_released_attention_has_one_more_batch_norm(network, more):
    make = getattr(resnet, network)
    counts = [
        sum(weights.numel() for weights in make(10, 32, attention=kind, exits=True).parameters())
        for kind in ("nearest", "bilinear")
    ]
    assert counts[1] - counts[0] == more


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_initialisations_of_resnets():
    """torch's default is uniform in +-1 / sqrt(fan in), Kaiming normal of variance 2 / fan out."""
    made = {}
    for name in ("kaiming", "kaiming_with_exits", "torch"):
        torch.manual_seed(0)
        made[name] = resnet.resnet18(10, 32, initialisation=name, exits=True)

    def spread(layer: nn.Conv2d) -> tuple[float, float]:
        rows, columns = layer.kernel_size
        fan_in, fan_out = layer.weight[0].numel(), layer.out_channels * rows * columns / layer.groups
        return layer.weight.std().item() * (3 * fan_in) ** 0.5, layer.weight.std().item() * (fan_out / 2) ** 0.5

    big = [i for i, layer in enumerate(convolutions(made["torch"].trunk)) if layer.weight.numel() > 10000]
    for i in big:
        default, kaiming = (convolutions(made[name].trunk)[i] for name in ("torch", "kaiming"))
        assert spread(default)[0] == pytest.approx(1, abs=0.03)
        assert default.weight.abs().max() <= default.weight[0].numel() ** -0.5
        assert spread(kaiming)[1] == pytest.approx(1, abs=0.03)
    exits = {name: made[name].branches for name in made}
    big = [i for i, layer in enumerate(convolutions(exits["torch"])) if layer.weight.numel() > 10000]
    for i in big:
        assert spread(convolutions(exits["kaiming"])[i])[0] == pytest.approx(1, abs=0.03)
        assert spread(convolutions(exits["torch"])[i])[0] == pytest.approx(1, abs=0.03)
        # groups: torch counts the fan out of a depthwise convolution over all its channels
        assert (
            convolutions(exits["kaiming_with_exits"])[i].weight.std()
            > 1.2 * convolutions(exits["torch"])[i].weight.std()
        )
    trunks = [states(made[name].trunk) for name in ("kaiming", "kaiming_with_exits")]
    assert all(torch.equal(value, trunks[1][name]) for name, value in trunks[0].items())


def test_teacher_student_and_baseline_start_from_one_initialisation(results):
    student = assemble(tiny(method="online_kd", interval=1.0, network__initialisation="torch"), ResultPaths(results))
    alone = assemble(student.spec.teacher_spec(), ResultPaths(results))
    first, second, third = (states(m) for m in (student.modules[T], student.modules[S], alone.modules[T]))
    plain = states(assemble(tiny(method="baseline"), ResultPaths(results)).modules[T])
    name = "0 trunk.conv1.weight"
    assert torch.equal(first[name], second[name])
    assert torch.equal(first[name], third[name])
    assert not torch.equal(first[name], plain[name])


def test_a_run_and_its_evaluations_standardise_alike(results, monkeypatch):
    spec = tiny(method="baseline", standardisation="imagenet", epochs=1)
    paths = ResultPaths(results)
    own, other = (load_data(each, paths) for each in (tiny(method="baseline"), spec))
    assert (other.mean, other.std) == STANDARDISATIONS["imagenet"]
    images = own.images["test"][:4]
    expected = own.normalise(images) * torch.tensor(own.std)[:, None, None] + torch.tensor(own.mean)[:, None, None]
    mean, std = (torch.tensor(values)[:, None, None] for values in STANDARDISATIONS["imagenet"])
    torch.testing.assert_close(other.normalise(images), (expected - mean) / std)
    assert own.checksum == other.checksum  # the same prepared data
    assert paths.data(spec) == paths.data(tiny(method="baseline"))
    train(spec, results)
    seen = []
    monkeypatch.setattr(
        evaluate, "load_data", lambda *given, **more: seen.append(load_data(*given, **more)) or seen[-1]
    )
    evaluate.evaluate(spec.id, {"weight_noise": {"images": 20, "draws": 1}}, results)
    assert [data.mean for data in seen] == [STANDARDISATIONS["imagenet"][0]]


def test_a_label_weight_is_neither_teacher_nor_baseline(results):
    """0.7 of the labels without a teacher scales the loss; students go on with the plain baseline."""
    plain, weighed = (
        assemble(tiny(method="baseline", **more), ResultPaths(results)) for more in ({}, {"method__hard_weight": 0.7})
    )
    first, second = (job.terms_on(T, job.batches[0])["hard"] for job in (plain, weighed))
    torch.testing.assert_close(second, 0.7 * first)
    assert plain.spec.id != weighed.spec.id
    student = tiny(method="online_kd", method__hard_weight=1.0)
    assert student.teacher_spec() == plain.spec
    added, shared = (assemble(spec, ResultPaths(results)) for spec in (student, tiny(method="online_kd")))
    one, other = (job.terms_on(S, job.batches[0]) for job in (added, shared))
    torch.testing.assert_close(0.7 * one["hard"], other["hard"])
    assert torch.equal(one["soft"], other["soft"])
    assert presets.interval_kind(student.interval) == "online"
