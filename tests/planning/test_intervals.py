"""Intervals that are one batch: refused when a study is read, as soon as the size of its dataset is known."""

import pytest
from conftest import tiny

from spaced_kd.config import registry
from spaced_kd.config.run_spec import from_flat
from spaced_kd.data.datasets import digits
from spaced_kd.planning import intervals, plan
from spaced_kd.utils.errors import UserError


def spaced(interval, **changes):
    """A run on 40 images, in batches of 9 unless given otherwise."""
    return tiny(method="online_kd", interval=interval, **changes)


def refusal(run, results) -> str:
    with pytest.raises(UserError) as caught:
        intervals.check([run], results.parent, results)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("interval", "batch_size", "message"),
    [
        (0.5, 60, "interval=0.5 epochs is 0.50 batches of 1 an epoch"),
        (0.2, 21, "interval=0.2 epochs is 0.40 batches of 2 an epoch"),
        (1.5, 160, "interval=1.5 epochs is 1.50 batches of 1 an epoch"),
    ],
)
def test_the_size_that_a_dataset_declares_is_enough(tmp_path, interval, batch_size, message):
    run = spaced(interval, batch_size=batch_size)
    assert refusal(run, tmp_path / "none").startswith(f"{run.id}: {message}, which would be online KD")
    intervals.check([spaced(interval + 1.5, batch_size=batch_size, epochs=9)], tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("interval", "changes", "message"),
    [
        (1.5, {"batch_size": 40}, "1.50 batches of 1 an epoch"),
        (0.45, {"last_batch": "dropped"}, "1.80 batches of 4 an epoch"),
        (0.6, {"held_out": 0.5}, "1.80 batches of 3 an epoch"),
    ],
)
def test_prepared_data_tell_their_size_without_torch(results, monkeypatch, interval, changes, message):
    monkeypatch.setattr(registry, "find", lambda *_: pytest.fail("a plug-in was imported"))
    assert message in refusal(spaced(interval, **changes), results)
    intervals.check([spaced(interval), spaced(interval, interval_rounding="up", **changes)], results, results)


def test_a_size_that_only_prepared_data_tell_is_checked_from_then_on(results, tmp_path, monkeypatch):
    monkeypatch.delattr(digits, "shape")
    run = spaced(0.5, batch_size=15)
    intervals.check([run], tmp_path, tmp_path / "none")
    assert "1.50 batches of 3 an epoch" in refusal(run, results)
    with pytest.raises(UserError, match="digits has no function shape, which tells its size: add it"):
        plan.RunCosts().cost(run)
    of_files = {key: value for key, value in run.changed().items() if not key.startswith("dataset")}
    intervals.check([from_flat(of_files | {"dataset": "image_folder", "dataset.folder": "pets"})], tmp_path, results)


def test_damaged_data_are_named(results, tmp_path):
    path = tmp_path / "own" / "data" / f"{spaced(0.5).data_id}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff" * 100)
    assert f"{path} is damaged" in refusal(spaced(0.5), tmp_path / "own")
