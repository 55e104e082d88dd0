"""Who learns when: the algorithms of the paper, written out by hand."""

import subprocess
import sys
from itertools import pairwise

import pytest

from spaced_kd.distillation.released_orders import student_stops
from spaced_kd.distillation.schedule import interval_in_batches, solo, turns
from spaced_kd.training.timeline import block_ends, learners_clock, tail
from spaced_kd.utils.errors import UserError

T, S = "teacher", "student"


def test_online_kd_alternates():
    assert list(turns(3, 1)) == [(T, 0), (S, 0), (T, 1), (S, 1), (T, 2), (S, 2)]


def test_spaced_kd_walks_a_block_ahead():
    assert list(turns(4, 2)) == [(T, 0), (T, 1), (S, 0), (S, 1), (T, 2), (T, 3), (S, 2), (S, 3)]


def test_offline_kd_is_one_block():
    assert list(turns(3, 3)) == [*solo(3, T), *solo(3, S)]


def test_the_last_block_is_flushed():
    assert list(turns(5, 3))[6:] == [(T, 3), (T, 4), (S, 3), (S, 4)]


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 10])
def test_both_learn_every_batch_once_in_order(interval):
    order = list(turns(10, interval))
    for who in (T, S):
        assert [batch for name, batch in order if name == who] == list(range(10))
    for position, (who, batch) in enumerate(order):  # the student never sees a batch before its teacher
        assert who == T or order.index((T, batch)) < position


@pytest.mark.parametrize("interval", [1, 3, 4, 10])
def test_a_teacher_pauses_where_its_student_begins_to_learn(interval):
    order = list(turns(10, interval))
    begins = [b + 1 for (who, b), (then, _) in pairwise(order) if (who, then) == (T, S)]
    assert list(block_ends(order)) == begins == [*range(interval, 10, interval), 10]


def test_an_epoch_ends_where_the_learner_has_taken_as_many_turns():
    assert learners_clock(turns(6, 4), {S}, 3) == {7: 1, 12: 2}  # TTTT SSS|S TT SS|
    assert learners_clock(solo(7, T), {T}, 3) == {3: 1, 6: 2, 7: 3}  # a last epoch that is cut counts too


def test_the_tail_is_a_grid_of_own_steps_whatever_the_order():
    grid = [2920, 2960, 3000, 3040, 3080, 3120, 3160, 3200]
    assert list(tail(solo(3200, S), {S}, 8).values()) == grid
    for interval in (1, 60, 3200):
        order = list(turns(3200, interval))
        found = tail(order, {S}, 8)
        assert list(found.values()) == grid
        assert [sum(who == S for who, _ in order[:done]) for done in found] == grid
        assert all(order[done - 1][0] == S for done in found)
    cut = tail(student_stops(turns(3200, 60), 3180), {S}, 8)  # a tenth of its own steps
    assert list(cut.values())[:2] == [2902, 2942]
    assert list(cut.values())[-1] == 3180


def test_a_tail_of_few_steps_has_each_of_them_once():
    assert list(tail(solo(45, T), {T}, 8).values()) == [42, 43, 44, 45]
    assert list(tail(solo(5, T), {T}, 8).values()) == [5]
    assert tail(solo(5, T), {T}, 0) == {}


def test_the_interval_in_batches_is_a_product_of_floating_point_numbers():
    assert interval_in_batches(0.29, per_epoch=100, total=800) == 28
    assert interval_in_batches(0.3, per_epoch=100, total=800) == 30


def test_interval_in_batches_is_cut_not_rounded():
    # CIFAR-100 has 391 batches of 128 an epoch; the released code's int(len(loader) * rate)
    assert [interval_in_batches(s, 391, 31280) for s in (0, 0.5, 1.0, 1.5, 2.0, "max")] == [
        1,
        195,
        391,
        586,
        782,
        31280,
    ]


@pytest.mark.parametrize(("interval", "complaint"), [(0.1, "online KD"), (9.0, "longer than the training")])
def test_intervals_that_mean_something_else_are_refused(interval, complaint):
    with pytest.raises(UserError, match=complaint):
        interval_in_batches(interval, per_epoch=10, total=80)


LIGHT = [
    "distillation.schedule",
    "config.presets",
    "config.run_spec",
    "config.study",
    "config.registry",
    "config.labels",
    "utils.seeding",
    "utils.files",
    "analysis.collect",
    "analysis.render",
    "cli.main",
]


def test_light_modules_load_no_torch_and_a_heavy_one_does():
    modules = [*LIGHT, "distillation.losses"]
    code = f"import importlib, sys\nfor name in {modules}:\n importlib.import_module('spaced_kd.' + name)\n"
    code += " print(name, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.splitlines() == [f"{name} {name not in LIGHT}" for name in modules]
