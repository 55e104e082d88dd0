"""Orders of learning of the released code alone; letters such as O6 are those of docs/reference/switches.md."""

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise

from spaced_kd.distillation.schedule import Turn, turns


def first_block_of(size: int, total: int, interval: int) -> Iterator[Turn]:
    """`turns` with a first block of `size` batches: one epoch in the released self KD, whose counter starts late (S6).

    If `size` is longer than `interval`, the first block has the remainder, since blocks end every `interval` batches.
    """
    size = size % interval or interval
    yield from turns(size, size)
    yield from turns(total, interval, size)


def student_stops(order: Iterable[Turn], last: int) -> Iterator[Turn]:
    """Omit the student's turns from batch `last` on: the released code never replays an incomplete block (O10)."""
    return ((role, i) for role, i in order if role == "teacher" or i < last)


def without_triggers(order: Iterable[Turn]) -> Iterator[Turn]:
    """Omit the teacher's turn that ends a block: in the released self KD that batch is in the block only (S7)."""
    for turn, then in pairwise([*order, ("end", 0)]):
        if (turn[0], then[0]) != ("teacher", "student"):
            yield turn


def on_new_batches(order: Iterable[Turn], total: int) -> Iterator[Turn]:
    """The student learns later batches of the stream: in another order and with new augmentation (O12)."""
    return ((role, i + total * (role == "student")) for role, i in order)


def extra_steps(order: Iterable[Turn], total: int) -> Iterator[Turn]:
    """Add a turn of the student after each of its blocks, on a batch of no other turn (V10)."""
    block = 0
    for role, run in groupby(order, key=lambda turn: turn[0]):
        yield from run
        if role == "student":
            yield "student", 2 * total + block
            block += 1
