"""BAN, DLB and PS-KD: against a loop written out, against their unspaced form, killed anywhere, asked wrongly."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import first_fast, tiny

from spaced_kd.config.paths import ResultPaths
from spaced_kd.distillation import logit_memory
from spaced_kd.distillation.logit_memory import LogitMemory, Sizes
from spaced_kd.distillation.losses import distillation, hard, kl, soft_cross_entropy, teacher_outputs
from spaced_kd.distillation.methods.ban import BAN
from spaced_kd.distillation.methods.dlb import DLB
from spaced_kd.distillation.methods.ps_kd import PSKD
from spaced_kd.distillation.schedule import turns
from spaced_kd.planning.costs import RunCosts
from spaced_kd.training import checkpoint, run_recorder
from spaced_kd.training.job import assemble
from spaced_kd.training.learner import Learner
from spaced_kd.training.loop import train
from spaced_kd.training.teacher_states import StoredTeacher
from spaced_kd.training.timeline import states_to_save
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError

EPOCHS, STEPS = 4, 20  # 5 batches an epoch, the last of 4 images
INTERVALS = {0: 1, 1.5: 7}  # epochs -> batches


@pytest.fixture(autouse=True)
def uncounted(monkeypatch):
    """FLOPs are what test_plan.py is about, and take a third of a tiny training."""
    monkeypatch.setattr(run_recorder.TrainingMetrics, "counted", lambda *_: contextlib.nullcontext())


def trained(results, **changes) -> dict[str, np.ndarray]:
    """The weights that a tiny run leaves."""
    spec = tiny(epochs=EPOCHS, eval_every=EPOCHS, **changes)
    return array_file.read(train(spec, results) / "weights.safetensors", remedy="")[0]


def agree(network: torch.nn.Module, stored: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(stored[name], tensor.numpy()) for name, tensor in network.state_dict().items())


class Hand:
    """Networks at their start, and a plain SGD step of each."""

    def __init__(self, results, **changes) -> None:
        job = assemble(tiny(epochs=EPOCHS, **changes), ResultPaths(results))
        self.batches, self.networks = job.batches, {who: job.modules[who] for who in job.method.roles}
        plain = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
        self.optimizers = {who: torch.optim.SGD(net.parameters(), **plain) for who, net in self.networks.items()}

    def step(self, who: str, loss: torch.Tensor) -> None:
        self.optimizers[who].zero_grad()
        loss.backward()
        self.optimizers[who].step()

    def distil(self, i: int) -> None:
        """The student's step: Eq. 2 and the feature loss of Sec. 5.1."""
        batch = self.batches[i]
        outputs = self.networks["student"](batch.images, exits=True)[-1]
        goal = teacher_outputs(self.networks["teacher"], batch.images)
        weights = {"alpha": 0.3, "temperature": 3.0, "beta": 0.03, "square_temperature": True}
        self.step("student", sum(distillation(outputs, goal, batch.labels, torch.nn.Identity(), **weights).values()))


class LastBatch(Hand):
    """DLB, as its code does it: data and output of the step before are kept."""

    past = None

    def teach(self, i: int, who: str = "teacher") -> None:
        batch, network = self.batches[i], self.networks[who]
        outputs = network(batch.images)
        if self.past is None:
            loss = hard(outputs, batch.labels)
        else:
            images, labels, goal = self.past
            again = network(images)
            loss = hard(torch.cat((again, outputs)), torch.cat((labels, batch.labels))) + 9 * kl(again, goal, 3.0)
        self.past = batch.view(1), batch.labels, outputs.detach()
        self.step(who, loss)


class LastEpoch(Hand):
    """PS-KD: the logits of each image are kept under its number."""

    def teach(self, i: int, who: str = "teacher") -> None:
        batch, said_before = self.batches[i], self.__dict__.setdefault("said_before", {})
        outputs, ids = self.networks[who](batch.images), batch.ids.tolist()
        share = 0.8 * (i // 5 + 1) / EPOCHS if i >= 5 else 0
        loss = (1 - share) * hard(outputs, batch.labels)
        if i >= 5:
            loss = loss + share * soft_cross_entropy(outputs, torch.stack([said_before[n] for n in ids]), 1.0)
        said_before.update(zip(ids, outputs.detach(), strict=True))
        self.step(who, loss)


BY_HAND = {"dlb": LastBatch, "ps_kd": LastEpoch}


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize("interval", first_fast(INTERVALS))
def test_a_student_of_dlb_and_ps_kd_is_the_loop_written_out(results, method, interval):
    hand, s = BY_HAND[method](results, method=method), INTERVALS[interval]
    for start in range(0, STEPS, s):
        for i in range(start, min(start + s, STEPS)):
            hand.teach(i)
        for i in range(start, min(start + s, STEPS)):
            hand.distil(i)
    assert agree(hand.networks["student"], trained(results, method=method, interval=interval))


@pytest.mark.parametrize("method", BY_HAND)
def test_alone_they_are_the_loop_written_out_and_the_teacher_of_every_student(results, method):
    alone = trained(results, method=method, method__student="alone")
    hand = BY_HAND[method](results, method=method)
    for i in range(STEPS):
        hand.teach(i, "student")
    assert agree(hand.networks["student"], alone)
    job = assemble(tiny(method=method, interval=1.5, epochs=EPOCHS), ResultPaths(results))
    for who, index in job.turns:
        job.learners[who].learn(index, lambda who=who, index=index: job.passes(who, index))
    assert agree(job.modules["teacher"], alone)
    assert not agree(job.modules["student"], alone)


def test_ps_kd_that_trusts_labels_alone_is_online_kd(results):
    plain = trained(results, method="online_kd", interval=1.5)
    found = trained(results, method="ps_kd", interval=1.5, method__alpha=0.0)
    assert all(np.array_equal(plain[name], found[name]) for name in plain)


def test_ps_kds_two_terms_are_the_cross_entropy_with_mixed_labels(results):
    job = assemble(tiny(method="ps_kd", epochs=EPOCHS), ResultPaths(results))
    job.modules["last epoch"].write(slice(None), torch.arange(400.0).reshape(40, 10).sin())
    ids, outputs = job.batches[12].ids, []
    job.modules["teacher"].register_forward_hook(lambda module, given, out: outputs.append(out.detach()))
    found = sum(job.terms("teacher", 12).values())
    share = 0.8 * 3 / 4  # epoch 2 of 4
    softmax = torch.arange(400.0).reshape(40, 10).sin()[ids].softmax(1)
    mixed = (1 - share) * F.one_hot(job.batches[12].labels, 10) + share * softmax
    assert found.item() == pytest.approx(-(mixed * outputs[0].log_softmax(1)).sum(1).mean().item(), rel=1e-5)
    assert torch.equal(job.modules["last epoch"].said[ids], outputs[0])  # and then they are forgotten for the new ones


def test_dlbs_terms_are_its_equation(results):
    job = assemble(tiny(method="dlb"), ResultPaths(results))
    outputs = []
    job.modules["teacher"].register_forward_hook(lambda module, given, out: outputs.append(out.detach()))
    assert set(job.terms("teacher", 4)) == {"hard", "soft"}  # of 4 images after 9
    first = job.terms("teacher", 0)
    assert set(first) == {"hard"}
    found = job.terms("teacher", 1)
    (*_, before, now, again), labels = outputs, [job.batches[i].labels for i in (0, 1)]
    p, q = (z.div(3).softmax(1) for z in (before, again))
    assert found["soft"].item() == pytest.approx(9 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-4)
    of_images = [-z.log_softmax(1)[range(len(y)), y] for z, y in ((again, labels[0]), (now, labels[1]))]
    assert found["hard"].item() == pytest.approx(torch.cat(of_images).mean().item(), rel=1e-5)


def test_a_batch_knows_the_one_before_it(results):
    batches = assemble(tiny(method="baseline"), ResultPaths(results)).batches
    plain = [batches[i] for i in range(7)]
    assert [batch.epoch for batch in plain] == [0, 0, 0, 0, 0, 1, 1]
    batches.make_ahead(range(7), workers=2)
    with contextlib.closing(batches):  # the garbage collector would wait for the workers
        for i, ahead in enumerate(batches[i] for i in range(7)):
            assert (ahead.before is None) == (i == 0)
            for batch in (plain[i], ahead)[: 2 * bool(i)]:
                images, labels = batch.before(1)
                assert torch.equal(images, plain[i - 1].view(1))
                assert torch.equal(labels, plain[i - 1].labels)
                assert not torch.equal(images, plain[i - 1].images)


# BAN


def follow(hand: Hand, block: range, chain: list[str]) -> None:
    for before, who in itertools.pairwise([None, *chain]):
        for i in block:
            batch = hand.batches[i]
            outputs = hand.networks[who](batch.images)
            loss = hard(outputs, batch.labels)
            if before:
                loss = 0.5 * loss + 0.5 * kl(outputs, teacher_outputs(hand.networks[before], batch.images).logits, 1.0)
            hand.step(who, loss)


@pytest.mark.parametrize(
    ("changes", "s"),
    first_fast(
        [
            ({"interval": "max"}, STEPS),
            ({"interval": 0}, 1),
            ({"interval": 1.5}, 7),
        ]
    ),
)
def test_generations_are_the_loop_written_out(results, changes, s):
    changes |= {"method": "ban", "method__generations": 2, "initial_weights": "different"}
    hand = Hand(results, **changes)
    starts = [next(net.parameters()).clone() for net in hand.networks.values()]
    assert not any(torch.equal(one, two) for one, two in itertools.combinations(starts, 2))
    for start in range(0, STEPS, s):
        follow(hand, range(start, min(start + s, STEPS)), ["teacher", "generation 1", "student"])
    assert agree(hand.networks["student"], trained(results, **changes))


def test_generations_are_the_same_with_a_stored_teacher(results, tmp_path):
    changes = {"method": "ban", "interval": 1.5, "method__generations": 2}
    along = trained(results, **changes)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").symlink_to(results / "data")
    spec = tiny(epochs=EPOCHS, eval_every=EPOCHS, **changes)
    train(spec.teacher_spec(), tmp_path / "other", save_states_for=(spec,))
    assert isinstance(assemble(spec, ResultPaths(tmp_path / "other")).learners["teacher"], StoredTeacher)
    stored = trained(tmp_path / "other", **changes)
    assert all(np.array_equal(along[name], stored[name]) for name in along)


def test_ban_as_published_is_offline_kd_with_its_weights_and_reads_its_finished_teacher(results):
    weights = {"method__alpha": 0.5, "method__temperature": 1.0, "method__beta": 0.0}
    along = trained(results, method="online_kd", interval="max", **weights)  # with a teacher of its own
    trained(results, method="baseline")
    spec = tiny(method="ban", interval="max", epochs=EPOCHS, eval_every=EPOCHS)
    assert isinstance(assemble(spec, ResultPaths(results)).learners["teacher"], StoredTeacher)
    for other in BY_HAND:  # whose teacher is not the baseline
        its = tiny(method=other, interval="max", epochs=EPOCHS, eval_every=EPOCHS)
        assert its.teacher_spec() == spec.teacher_spec()
        assert isinstance(assemble(its, ResultPaths(results)).learners["teacher"], Learner)
        assert not states_to_save(its, 5)
    found = trained(results, method="ban", interval="max")
    assert all(np.array_equal(along[name], found[name]) for name in along)
    assert RunCosts().cost(spec).spared == RunCosts().cost(spec.teacher_spec()).flops


def test_orders_of_generations():
    t, g, s = "teacher", "generation 1", "student"
    chain = BAN(generations=2)
    assert [*chain.schedule(2, 2, 2)] == [(t, 0), (t, 1), (g, 0), (g, 1), (s, 0), (s, 1)]
    assert [*chain.schedule(3, 2, 2)][4:] == [(s, 0), (s, 1), (t, 2), (g, 2), (s, 2)]
    assert all([*BAN().schedule(9, interval, 3)] == [*turns(9, interval)] for interval in (1, 4, 9))
    assert [*BAN(batches="new", generations=2).schedule(2, 2, 2)][2:] == [(g, 2), (g, 3), (s, 4), (s, 5)]
    assert list(BAN().roles) == [t, s]


# killed, and asked wrongly


@pytest.mark.parametrize(
    "run",
    first_fast(
        [
            {"method": "dlb", "interval": 1.5},
            {"method": "dlb", "augmentation": "strong"},  # made ahead in other processes
            {"method": "ps_kd", "interval": 1.5},
            {"method": "ban", "interval": 1.5, "method__generations": 2},
        ]
    ),
    ids=str,
)
def test_killed_after_any_turn_they_end_alike(results, tmp_path, monkeypatch, run):
    class PulledPlugError(Exception):
        pass

    spec = tiny(epochs=2, **run)
    ahead = 2 if spec.augmentation == "strong" else None
    whole = train(spec, results, workers=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").symlink_to(results / "data")
    save, saves = checkpoint.save_state, []

    def pull(folder, turn, *rest, **named):
        save(folder, turn, *rest, **named)
        saves.append(turn)
        if turn in (4, 12):
            raise PulledPlugError

    monkeypatch.setattr(checkpoint, "save_state", pull)
    for _ in range(2):
        with pytest.raises(PulledPlugError):
            train(spec, tmp_path / "other", checkpoint_every=0, workers=ahead)
    again = train(spec, tmp_path / "other", checkpoint_every=0, workers=ahead)
    assert saves == list(range(1, len(saves) + 1))
    for name in ("weights.safetensors", "predictions.safetensors", "rows.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        ({"method": "ban", "method__generations": 0}, "ban.generations is 0, but must be 1 or 2 or 3"),
        ({"method": "ban", "method__generations": True}, "ban.generations is True, but must be 1 or 2 or 3"),
        (
            {"method": "dlb", "interval": 1.5, "method__student": "alone"},
            r"dlb.student is alone, but interval is 1.5 \(spaced\): it needs interval online",
        ),
        (
            {"method": "ps_kd", "method__student": "alone", "method__student_beta": 0.0},
            "ps_kd.student_beta is 0.0, but student is alone: it needs student distilled",
        ),
        ({"method": "ps_kd", "method__student": "none"}, "ps_kd.student is 'none', but must be distilled or alone"),
    ],
)
def test_what_makes_no_sense_is_refused(run, complaint):
    with pytest.raises(UserError, match=complaint):
        tiny(**run)


@pytest.mark.parametrize(("method", "rows"), [(DLB(), 9), (PSKD(), 40)])
def test_a_memory_is_sized_counted_and_refused_where_it_does_not_fit(results, monkeypatch, method, rows):
    sizes = Sizes(images=40, classes=10, batch_size=9, epochs=3)
    (made,) = method.memory(sizes).values()
    assert made.said.shape == (rows, 10)
    name = {DLB: "dlb", PSKD: "ps_kd"}[type(method)]
    costs = [RunCosts().cost(tiny(method=each), store_teachers=False).state for each in (name, "online_kd")]
    assert costs[0] - costs[1] == 4 * rows * 10  # of a resume state
    monkeypatch.setattr(logit_memory, "free_memory", lambda device: 12 * rows * 10 - 1)
    message = f"storing 10 logits of {rows} images takes {4 * rows * 10:,} bytes, and three times that while a state"
    with pytest.raises(UserError, match=message) as refused:
        assemble(tiny(method=name), ResultPaths(results))
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(logit_memory, "free_memory", lambda device: 12 * rows * 10)
    assemble(tiny(method=name), ResultPaths(results))


def test_a_memory_of_imagenet_costs_nothing_to_count():
    with torch.device("meta"):
        assert LogitMemory(10**9, Sizes(10**9, 1000, 128, 80)).said.shape == (10**9, 1000)
