"""The released transformers' training loop written by hand, compared with the project's after every update (C1 to C6).

The loop has who learns on which batch (a count against s x L), zero gradients for the idle network, the groups that
AdamW decays, and the rate of an epoch. Networks are small ones of the same classes, in float64. Batches and drop-path
masks are the project's, since the released order of images is not reachable (C8).
"""

import copy
import math
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, first_fast, tiny
from timm.layers import DropPath
from timm.models.deit import VisionTransformerDistilled
from timm.models.pit import PoolingVisionTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from spaced_kd.config.labels import protocols_of
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.config.yaml_values import parse_override
from spaced_kd.distillation.schedule import epochs_of_updates, interval_in_batches, turns
from spaced_kd.networks import pit, vit
from spaced_kd.planning.costs import count_turns
from spaced_kd.training import checkpoint
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.learner import backward, learning_rate, learning_rate_of_epoch, parameter_groups
from spaced_kd.training.loop import train
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import global_seed

T, S = "teacher", "student"
L = 4  # batches of 9 of the 40 digits: the last 4 images of an epoch are left out
EPOCHS, WARMUP = 3, 1
LR, WARMUP_LR, MIN_LR, DECAY = 1e-3, 1e-6, 1e-5, 0.5
RELEASED = {
    "optimizer": "adamw",
    "lr": LR,
    "warmup_lr": WARMUP_LR,
    "min_lr": MIN_LR,
    "weight_decay": DECAY,  # ten times the released one, so that it shows in few updates
    "lr_schedule": "cosine",
    "warmup_epochs": WARMUP,
    "epochs": EPOCHS,
    "lr_clock": "epochs",
    "weight_decay_on": "weights",
    "last_batch": "dropped",
    "initial_weights": "different",
    "network.initialisation": "zero_head",
    "network.drop_path": 0.3,
    "method.soft_loss": "kl_per_logit",
    "method.temperature": 1.0,
    "method.alpha": 0.5,
    "method.beta": 0.0,
    "method.teacher_mode": "train",
    "method.optimizers": "one",
}
ONLINE = {"method.joint_backward": True}
SPACED = {"method.student_batches": "new", "method.last_block": "dropped", "method.extra_step": True}
SPACED |= {"interval_rounding": "up"}
DEIT = {"network": "deit_tiny", "network.distillation_token": True}
PIT = {"network": "pit_tiny", "network.drop_path_rises": "past_last", "method.second_forward": True}


def transformer(**changes: object) -> RunSpec:
    """A run of such a network on digits, by plain keys."""
    flat = {key: value for key, value in TINY.items() if key != "network.width"}
    return from_flat(flat | {"method": "online_kd"} | changes)


@pytest.fixture
def small(monkeypatch):
    """The same networks with few and narrow blocks, and losses in float64, which are in float32 otherwise."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)

    class Plain(VisionTransformer):
        def __init__(self, **shape: object) -> None:
            super().__init__(**shape | {"depth": 3, "embed_dim": 12, "patch_size": 4})

    class Distilled(VisionTransformerDistilled):
        def __init__(self, **shape: object) -> None:
            super().__init__(**shape | {"depth": 3, "embed_dim": 12, "patch_size": 4})

    class Pooling(PoolingVisionTransformer):
        def __init__(self, **shape: object) -> None:
            super().__init__(**shape | {"depth": (1, 2, 1), "base_dims": (4, 4, 4)})

    monkeypatch.setattr(vit, "VisionTransformer", Plain)
    monkeypatch.setattr(vit, "VisionTransformerDistilled", Distilled)
    monkeypatch.setattr(pit, "PoolingVisionTransformer", Pooling)


def in_float64(spec: RunSpec, results: Path) -> Job:
    job = assemble(spec, ResultPaths(results))
    for module in job.modules.values():
        module.double()
    return job


def ours(job: Job) -> Iterator[dict[str, Tensor]]:
    """Losses after each of the project's updates."""
    for who, index in job.turns:
        batch = job.batches[index]
        batch = batch._replace(images=batch.images.double())
        with global_seed(job.spec.seed, f"step of {who}", index):
            yield job.learners[who].learn(index, lambda who=who, batch=batch: backward(job.terms_on(who, batch)))


class Released:
    """The released loop: one AdamW for both networks, stepped once a batch, a rate for each epoch."""

    def __init__(self, job: Job, s: float) -> None:
        self.job, self.s = job, s
        self.student, self.teacher = (copy.deepcopy(job.modules[who]).train() for who in (S, T))
        self.distils = isinstance(self.student.trunk, VisionTransformerDistilled)
        named = [*self.student.named_parameters(), *self.teacher.named_parameters()]
        apart = [name.endswith(("bias", "token", "pos_embed")) or value.ndim == 1 for name, value in named]  # C1
        decayed, plain = ([value for (_, value), flag in zip(named, apart, strict=True) if flag == f] for f in (0, 1))
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}], lr=LR
        )

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        found = self.job.batches[index]
        return found.images.double(), found.labels

    def student_says(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits for labels and for the teacher's: of two heads (V4), or of two passes (V5)."""
        if not self.distils:
            return self.student(images), self.student(images)
        tokens = self.student.trunk.forward_features(images)
        return self.student.trunk.head(tokens[:, 0]), self.student.trunk.head_dist(tokens[:, 1])

    @staticmethod
    def soft(student: Tensor, teacher: Tensor) -> Tensor:
        """KL at T = 1 over the batch times the classes (V3)."""
        p, q = teacher.softmax(1), student.log_softmax(1)
        return (p * (p.log() - q)).sum() / student.numel()

    def update(self, loss: Tensor, idle: nn.Module | None, epoch: int) -> float:
        rate = WARMUP_LR + (LR - WARMUP_LR) * epoch / WARMUP  # C2
        if epoch >= WARMUP:
            rate = MIN_LR + 0.5 * (LR - MIN_LR) * (1 + math.cos(math.pi * epoch / EPOCHS))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if idle is not None:  # V2
            loss = loss + sum(0.0 * parameter.sum() for parameter in idle.parameters())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def online(self) -> Iterator[float]:
        """Both networks in one loss, weighted alike (V7)."""
        for index in range(EPOCHS * L):
            images, labels = self.batch(index)
            with global_seed(self.job.spec.seed, "step of student", index):
                hard, distilled = self.student_says(images)
                taught = self.teacher(images)
                classified = functional.cross_entropy(hard, labels) + functional.cross_entropy(taught, labels)
                loss = 0.5 * classified + 0.5 * self.soft(distilled, taught.detach())
                yield self.update(loss, None, index // L)

    def spaced(self) -> Iterator[float]:
        """The student takes its turn when the count reaches s x L (C4), on a loader of its own (V1)."""
        count = block = 0
        new = iter(range(EPOCHS * L, 2 * EPOCHS * L))
        for index in range(EPOCHS * L):
            images, labels = self.batch(index)
            count += 1
            with global_seed(self.job.spec.seed, "step of teacher", index):
                loss = functional.cross_entropy(self.teacher(images), labels)
                yield self.update(loss, self.student, index // L)
            if count >= L * self.s:
                own = [next(new) for _ in range(count)]
                if count % L == 0:  # a round of the loader ends with the block, and the next one begins (V10)
                    own.append(2 * EPOCHS * L + block)
                for each in own:
                    yield self.student_step(each, index // L)
                count, block = 0, block + 1

    def student_step(self, index: int, epoch: int) -> float:
        images, labels = self.batch(index)
        with global_seed(self.job.spec.seed, "step of student", index):
            hard, distilled = self.student_says(images)
            with torch.no_grad():
                taught = self.teacher(images)
            loss = 0.5 * functional.cross_entropy(hard, labels) + 0.5 * self.soft(distilled, taught)
            return self.update(loss, self.teacher, epoch)


@pytest.mark.parametrize("network", [DEIT, PIT], ids=["deit", "pit"])
@pytest.mark.parametrize(("s", "updates"), first_fast([(0, 12), (0.6, 24), (1.0, 27), (1.4, 24)]))
def test_ours_is_the_released_loop_after_every_update(results, small, network, s, updates):
    spec = transformer(**RELEASED | network | (SPACED if s else ONLINE), interval=s)
    job = in_float64(spec, results)
    loop = Released(job, s)
    done = 0
    for losses, expected in zip(ours(job), loop.spaced() if s else loop.online(), strict=True):
        done += 1
        assert sum(loss.item() for loss in losses.values()) == pytest.approx(expected, abs=1e-12)
        for who, theirs in ((T, loop.teacher), (S, loop.student)):
            state = job.modules[who].state_dict()
            for name, value in theirs.state_dict().items():
                assert (state[name] - value).abs().max() < 1e-12, (done, who, name)
    assert done == updates


# Each switch alone


def test_weights_alone_decay(small):
    with torch.random.fork_rng():
        network = vit.deit_tiny(10, 8, distillation_token=True)
    spec = transformer(**DEIT, optimizer="adamw", weight_decay_on="weights")
    extra = nn.Linear(3, 2)
    decayed, spared = parameter_groups((network, extra), spec)
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0
    names = {id(value): name for name, value in network.named_parameters()}
    names |= {id(value): f"extra.{name}" for name, value in extra.named_parameters()}
    result = {names[id(value)] for value in spared["params"]}
    assert {"trunk.cls_token", "trunk.dist_token", "trunk.pos_embed", "trunk.norm.weight", "extra.bias"} <= result
    assert {names[id(value)] for value in decayed["params"]} == {
        name for name in names.values() if name.endswith("weight") and "norm" not in name
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    (everything,) = parameter_groups((network, extra), transformer(**DEIT, optimizer="adamw"))
    assert [id(value) for value in everything["params"]] == list(names)


@pytest.mark.parametrize("optimizers", first_fast(["two", "one"]))
def test_a_run_that_spares_parameters_goes_on_to_the_same_weights(results, tmp_path, monkeypatch, optimizers):
    """Groups of parameters, shared or not, do not change which state belongs to which parameter."""
    switches = {
        "weight_decay_on": "weights",
        "weight_decay": 0.5,
        "lr_clock": "epochs",
        "optimizer": "adamw",
        "lr": 1e-3,
    }
    spec = tiny(method="online_kd", interval=1.0, method__optimizers=optimizers, epochs=2, **switches)
    whole = (train(spec, results) / "weights.safetensors").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").symlink_to(results / "data")
    save, saves = checkpoint.save_state, []

    def pull(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(args[1])
        if len(saves) == 13:  # among the student's steps of the last block
            raise InterruptedError

    monkeypatch.setattr(checkpoint, "save_state", pull)
    with pytest.raises(InterruptedError):
        train(spec, other, checkpoint_every=0)
    assert (train(spec, other, checkpoint_every=0) / "weights.safetensors").read_bytes() == whole


def test_the_rate_of_an_epoch_is_the_released_one():
    recipe = {"lr": 5e-4, "min_lr": 5e-6, "warmup_epochs": 20, "epochs": 300, "lr_schedule": "cosine"}
    new = tiny(method="baseline", **recipe, warmup_lr=5e-7, lr_clock="epochs")
    old = tiny(method="baseline", **recipe)
    assert learning_rate_of_epoch(new, 0) == 5e-7
    assert learning_rate_of_epoch(new, 10) == pytest.approx((5e-7 + 5e-4) / 2)
    assert learning_rate_of_epoch(new, 20) == pytest.approx(5e-6 + 4.95e-4 * (1 + math.cos(math.pi / 15)) / 2)
    assert learning_rate_of_epoch(new, 150) == pytest.approx((5e-6 + 5e-4) / 2)
    rates = [[learning_rate(old, step, 100, 30000) for step in range(30000)]]
    rates.append([learning_rate_of_epoch(new, step // 100) for step in range(30000)])
    assert sum(rates[0]) / sum(rates[1]) == pytest.approx(1.07, abs=0.005)
    ratios = [rates[0][100 * epoch + 50] / rates[1][100 * epoch + 50] for epoch in (0, 1, 250)]
    assert ratios == pytest.approx([25, 1.48, 1.12], rel=0.03)


def test_the_rate_of_an_epoch_has_all_schedules():
    common = {
        "method": "baseline",
        "lr": 1.0,
        "epochs": 8,
        "lr_clock": "epochs",
        "warmup_epochs": 1.5,
        "warmup_lr": 0.1,
    }
    constant = tiny(**common)
    assert [learning_rate_of_epoch(constant, t) for t in (0, 1, 2, 7)] == pytest.approx([0.1, 0.7, 1.0, 1.0])
    steps = tiny(**common, lr_schedule="steps", lr_drops=[3.0, 5.5])
    assert [learning_rate_of_epoch(steps, t) for t in (2, 3, 5, 6)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_warm_up_of_steps_begins_where_it_is_told():
    spec = tiny(method="baseline", lr=1.0, warmup_epochs=1.0, warmup_lr=0.2)
    assert [learning_rate(spec, step, 4, 12) for step in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_a_student_has_the_rate_of_its_teachers_epoch_but_offline_its_own():
    roles = {T: T, S: S}
    found = epochs_of_updates(turns(6, 3), roles, 2, own=False)
    assert found == {T: [0, 0, 1, 1, 2, 2], S: [1, 1, 1, 2, 2, 2]}
    assert epochs_of_updates(turns(6, 6), roles, 2, own=True) == {T: [0, 0, 1, 1, 2, 2], S: [0, 0, 1, 1, 2, 2]}
    one = epochs_of_updates(turns(6, 3), {T: S, S: S}, 2, own=False)  # self KD: one learner
    assert one == {S: [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]}


@pytest.mark.parametrize(("interval", "expected"), [(1.5, [1] * 7 + [2] * 8), ("max", [0] * 5 + [1] * 5 + [2] * 5)])
def test_the_rate_of_an_epoch_reaches_the_student(results, interval, expected):
    spec = tiny(method="online_kd", interval=interval, lr_clock="epochs", lr_schedule="cosine")
    job = assemble(spec, ResultPaths(results))
    assert list(job.learners[S].epochs) == expected
    assert list(job.learners[T].epochs) == [0] * 5 + [1] * 5 + [2] * 5
    assert assemble(tiny(method="online_kd", interval=interval), ResultPaths(results)).learners[S].epochs is None


def test_a_rate_of_epochs_needs_an_order_that_is_known():
    with pytest.raises(UserError, match="lr_clock is epochs, but adaptive_interval finds the order") as caught:
        tiny(method="adaptive_interval", lr_clock="epochs")
    assert "\n" not in str(caught.value)


def test_a_smaller_last_batch_is_dropped(results):
    kept, dropped = (assemble(tiny(method="baseline", last_batch=x), ResultPaths(results)) for x in ("kept", "dropped"))
    assert (kept.batches.per_epoch, dropped.batches.per_epoch) == (5, 4)
    assert [dropped.batches.size(index) for index in range(12)] == [9] * 12
    for index in range(12):  # the same order, and the images at its end have no turn
        assert torch.equal(dropped.batches[index].ids, kept.batches[index // 4 * 5 + index % 4].ids)
    assert len(dropped.turns) == 12
    assert {name: learner.total for name, learner in dropped.learners.items()} == {T: 12}
    divides = tiny(method="baseline", batch_size=10, last_batch="dropped")
    assert assemble(divides, ResultPaths(results)).batches.per_epoch == 4
    assert count_turns(divides, 40).number == {(T, 10, 0): 12}
    assert count_turns(tiny(method="baseline", last_batch="dropped"), 40).number == {(T, 9, 0): 12}


def test_an_epoch_of_no_batch_is_refused(results):
    with pytest.raises(
        UserError, match="last_batch is dropped, but batch_size is 41 and there are 40 training"
    ) as caught:
        assemble(tiny(method="baseline", batch_size=41, last_batch="dropped"), ResultPaths(results))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("s", "per_epoch", "down", "up"),
    [(1.5, 781, 1171, 1172), (1.5, 782, 1173, 1173), (0.5, 391, 195, 196), (2, 390, 780, 780)],
)
def test_an_interval_is_rounded_down_or_up(s, per_epoch, down, up):
    assert interval_in_batches(s, per_epoch, 10 * per_epoch) == down
    assert interval_in_batches(s, per_epoch, 10 * per_epoch, "up") == up


def test_rounding_is_the_students_and_its_teacher_is_reported(results):
    """5 batches an epoch: blocks of 7 or of 8; the teacher is one, and leaves the states of both."""
    down, up = (tiny(method="online_kd", interval=1.5, interval_rounding=way) for way in ("down", "up"))
    assert down.teacher_spec() == up.teacher_spec() == tiny(method="baseline")
    assert "interval_rounding=up" in up.follower()
    result = down.teacher_spec().changed() | dict(parse_override(word) for word in shlex.split(up.follower()))
    train(up.teacher_spec(), results, save_states_for=(from_flat(result),))
    folder = ResultPaths(results).trajectory(up.teacher_spec())
    assert [int(path.stem.split("-")[1]) for path in folder.glob("*")] == [8]


@pytest.mark.parametrize("make", [vit.deit_tiny, pit.pit_tiny], ids=["deit", "pit"])
def test_heads_start_at_zero_and_the_rest_as_ever(make):
    plain, zero = (started(make, initialisation=each) for each in ("timm", "zero_head"))
    differ = {name for name, value in plain.items() if not torch.equal(value, zero[name])}
    assert differ - {"trunk.head.bias"} == {"trunk.head.weight"} | (
        {"trunk.cls_token"} if make is vit.deit_tiny else set()
    )
    assert not zero["trunk.head.weight"].any()
    assert not zero["trunk.head.bias"].any()
    assert zero["trunk.cls_token"].std() == pytest.approx(0.02, rel=0.2)


def test_the_head_of_the_distillation_token_starts_at_zero_too():
    plain, token = (started(vit.deit_tiny, initialisation="zero_head", distillation_token=x) for x in (False, True))
    assert not token["trunk.head_dist.weight"].any()
    assert not token["trunk.head_dist.bias"].any()
    assert all(torch.equal(value, token[name]) for name, value in plain.items() if name != "trunk.pos_embed")


def started(make, **settings: object) -> dict[str, Tensor]:
    with global_seed(0, "initial weights"):
        return make(10, 16, **settings).state_dict()


@pytest.mark.parametrize(("rises", "end"), [("to_last", 11), ("past_last", 12)])
def test_drop_path_rises_to_the_last_block_or_past_it(rises, end):
    network = pit.pit_tiny(10, 16, drop_path=0.1, drop_path_rises=rises)
    blocks = [block for stage in network.trunk.transformers for block in stage.blocks]
    rates = [[part.drop_prob for part in (block.drop_path1, block.drop_path2)] for block in blocks[1:]]
    assert not isinstance(blocks[0].drop_path1, DropPath)
    assert rates == [pytest.approx([0.1 * i / end] * 2, rel=1e-7) for i in range(1, 12)]


# The readings


def read(protocol: str, network: str, method: str = "online_kd", interval: float | str = 1.5) -> RunSpec:
    return transformer(network=network, method=method, interval=interval, protocol=protocol)


BOTH = {"weight_decay_on": "weights", "lr_clock": "epochs", "warmup_lr": 5e-7, "network.initialisation": "zero_head"}
C = {*BOTH, "last_batch", "interval_rounding", "network.drop_path_rises"}


@pytest.mark.parametrize(
    ("protocol", "network", "expected"),
    [
        ("textbook", "deit_tiny", {}),
        ("textbook", "pit_tiny", {}),
        ("paper", "deit_tiny", BOTH | {"interval_rounding": "up"}),
        ("paper", "pit_tiny", BOTH | {"interval_rounding": "up", "network.drop_path_rises": "past_last"}),
        ("released", "deit_tiny", BOTH | {"interval_rounding": "up", "last_batch": "dropped"}),
        (
            "released",
            "pit_tiny",
            BOTH | {"interval_rounding": "up", "last_batch": "dropped", "network.drop_path_rises": "past_last"},
        ),
        ("paper", "resnet_mini", {"network.initialisation": "torch"}),
        ("released", "resnet_mini", {"network.initialisation": "torch"}),
    ],
)
def test_what_each_reading_has_of_c1_to_c6(protocol, network, expected):
    student, teacher = read(protocol, network), read(protocol, network, "baseline", 0)
    assert {key: value for key, value in student.changed().items() if key in C} == expected
    assert student.teacher_spec() == teacher
    shared = {key: value for key, value in expected.items() if key != "interval_rounding"}
    assert {key: value for key, value in teacher.changed().items() if key in C} == shared
    assert protocol in protocols_of(student)


@pytest.mark.parametrize("interval", [0, "max"])
def test_rounding_is_named_where_there_is_something_to_round(interval):
    assert read("released", "deit_tiny", interval=interval).interval_rounding == "down"


def test_paper_has_the_texts_losses_for_transformers():
    """V3, V4, V5, V7: the text's weights, no token, PiT's second pass, two updates."""
    for network in ("deit_tiny", "pit_tiny"):
        flat = read("paper", network).resolved()["settings"]
        method, own = flat["method"], flat["network"]
        assert (method["soft_loss"], method["temperature"], method["alpha"], method["beta"]) == ("kl", 3.0, 0.3, 0.03)
        assert (method["joint_backward"], method["optimizers"], method["extra_step"]) == (False, "two", False)
        assert method["second_forward"] is (network == "pit_tiny")
        assert not own.get("distillation_token", False)
