"""The interval that finds itself: where blocks end, and that nothing else is another than in Spaced KD."""

import json

import numpy as np
import pytest
import torch
from conftest import first_fast, tiny
from scipy import stats

from spaced_kd.distillation.methods.adaptive_interval import Block
from spaced_kd.training.loop import train
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

NEVER, ALWAYS = 1e9, -1e9  # standard errors


def checksum(folder) -> str:
    return array_file.read(folder / "weights.safetensors", remedy="")[1]["checksum"]


@pytest.mark.parametrize("slope", [-0.02, 0.0, 0.01])
def test_the_fall_is_that_of_the_least_squares_line_in_its_standard_errors(slope):
    noise = generator(0, "test", int(100 * slope) + 9).normal(size=30)
    block, losses = Block(), 2.0 + slope * np.arange(30) + 0.1 * noise
    for loss in losses:
        block.add(torch.tensor(loss))
    line = stats.linregress(np.arange(30), losses)
    assert block.fall() == pytest.approx(-line.slope / line.stderr, rel=1e-9)


def test_a_block_begins_anew_when_the_student_has_learnt_the_last_one():
    block = Block()
    for loss in (3.0, 2.0, 1.5, 1.1):
        block.add(torch.tensor(loss))
    for _ in range(3):
        block.follow()
        assert block.fall() > 2
    block.follow()
    assert block.fall() == 0
    assert block.learnt.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("settings", "spaced"),
    first_fast(
        [
            ({"method__errors": NEVER}, "max"),  # one block of all batches
            ({"method__errors": ALWAYS, "method__least": 7}, 1.5),  # 5 batches an epoch
            ({"method__errors": ALWAYS, "method__least": 3}, 0.6),
        ]
    ),
)
def test_with_the_same_blocks_it_is_spaced_kd_to_the_bit(results, settings, spaced):
    found = train(tiny(method="adaptive_interval", **settings), results)
    assert checksum(found) == checksum(train(tiny(method="online_kd", interval=spaced), results))


def test_its_blocks_are_told_and_a_killed_run_comes_to_the_same_ones(results, tmp_path):
    spec = tiny(method="adaptive_interval", epochs=6, lr=0.05, method__least=4, method__errors=1.0)
    whole = train(spec, results)
    ends = json.loads((whole / "run.json").read_text())["block_ends"]
    assert ends[-1] == 30
    lengths = np.diff([0, *ends])
    assert len(set(lengths)) > 2  # they differ, so the signal was heard
    assert lengths[:-1].min() >= 4

    (tmp_path / "data").symlink_to(results / "data")
    for turns in (3, 8, 14, 29):
        part = StopSignal()
        part.over = iter([None] * turns + [Interrupted("test", 75)]).__next__
        with pytest.raises(Interrupted):
            train(spec, tmp_path, stop=part)
    assert checksum(train(spec, tmp_path)) == checksum(whole)
    assert json.loads((tmp_path / "runs" / spec.id / "run.json").read_text())["block_ends"] == ends


def test_an_interval_beside_it_is_refused():
    with pytest.raises(UserError, match=r"interval is 1.5, but adaptive_interval finds its own: leave it out"):
        tiny(method="adaptive_interval", interval=1.5)
