"""The training stream: order and augmentation each have a seed; held-out images are in no batch."""

import json

import numpy as np
import pytest
from conftest import tiny

from spaced_kd.config.paths import ResultPaths
from spaced_kd.data.dataset import load
from spaced_kd.training.accuracy import accuracy_rows
from spaced_kd.training.job import assemble
from spaced_kd.training.loop import train
from spaced_kd.training.metrics import predict
from spaced_kd.utils.errors import UserError


def stream(results, **changes):
    """The batches of a tiny run."""
    return assemble(tiny(method="baseline", **changes), ResultPaths(results)).batches


def selections(folder):
    """Which epochs a run reports."""
    return {row["selection"] for row in json.loads((folder / "rows.json").read_text())}


def test_the_order_drawn_anew_leaves_the_draws_of_augmentation(results):
    usual, anew = stream(results), stream(results, order_seed=7)
    assert not usual[0].ids.equal(anew[0].ids)
    assert anew[0].ids.equal(stream(results, seed=7)[0].ids)  # the order is that of seed 7
    anew._order = usual._order  # then its crops are the same, too
    assert usual[0].images.equal(anew[0].images)


def test_the_augmentation_drawn_anew_leaves_the_order(results):
    usual, anew = stream(results), stream(results, augmentation_seed=7)
    assert all(usual[i].ids.equal(anew[i].ids) for i in range(6))
    assert not usual[0].images.equal(anew[0].images)
    assert not usual[0].view(1).equal(anew[0].view(1))


def test_initial_weights_keep_the_runs_seed(results):
    jobs = [assemble(tiny(method="baseline", **w), ResultPaths(results)) for w in ({}, {"order_seed": 7})]
    one, two = ([*job.modules["teacher"].parameters()] for job in jobs)
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))


def test_a_students_teacher_has_its_order():
    student = tiny(method="online_kd", interval=1.5, order_seed=7, held_out=0.25)
    assert student.teacher_spec() == tiny(method="baseline", order_seed=7, held_out=0.25)


def test_held_out_images_are_a_share_of_each_class_and_never_learnt(results):
    whole = load(ResultPaths(results).data(tiny(method="baseline")))
    part = whole.hold_out(0.25)  # 1 of 4 of each digit
    assert part.labels["held_out"].bincount().tolist() == [1] * 10
    assert part.labels["train"].bincount().tolist() == [3] * 10
    learnt = {image.numpy().tobytes() for image in part.images["train"]}
    held = {image.numpy().tobytes() for image in part.images["held_out"]}
    assert not learnt & held
    assert learnt | held == {image.numpy().tobytes() for image in whole.images["train"]}
    assert part.images["test"] is whole.images["test"]
    batches = stream(results, held_out=0.25)
    assert sorted(id for i in range(batches.per_epoch) for id in batches[i].ids.tolist()) == list(range(30))


def test_the_best_epoch_on_held_out_images_is_recorded(results):
    spec = tiny(method="baseline", held_out=0.5)
    assert selections(train(spec, results)) == {"curve", "last", "best", "halves", "held_out"}
    assert "held_out" not in selections(train(tiny(method="baseline"), results))
    # chosen by held-out accuracy, scored on test
    labels = np.array([0, 1])
    found = accuracy_rows([1, 2, 3], np.array([[0, 0], [0, 1], [1, 0]]), labels, [50.0, 40.0, 60.0])
    assert [(row["epoch"], row["value"]) for row in found if row["selection"] == "held_out"] == [(3, 0.0)]


def test_held_out_accuracy_is_of_the_held_out_images(results):
    job = assemble(tiny(method="baseline", held_out=0.5), ResultPaths(results))
    assert len(predict(job.reported, job.data, "held_out")) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order_seed": 0}, "order_seed=0 equals seed"),
        ({"augmentation_seed": 0}, "augmentation_seed=0 equals seed"),
        ({"held_out": 1.0}, "held_out is 1, but must be a share"),
        ({"held_out": -0.1}, "held_out is -0.1, but must be a share"),
    ],
)
def test_what_makes_no_difference_or_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(method="baseline", **changes)


def test_a_share_that_holds_out_no_image_is_refused(results):
    with pytest.raises(UserError, match=r"held_out=0\.1 is 0 of a class's 4 training images"):
        assemble(tiny(method="baseline", held_out=0.1), ResultPaths(results))
