"""Who learns on which batch, when: every order of learning in the paper is a generator here.

`turns(total, interval)` for total = 6 batches and an interval of 3::

    teacher  0 1 2 . . . 3 4 5 . . .
    student  . . . 0 1 2 . . . 3 4 5

The teacher walks `interval` batches ahead; the student then follows over the same batches, guided by the teacher as it
stands at the end of the block. An interval of 1 batch is online KD (Alg. 1), of all batches offline KD on the same
batches, anything between Spaced KD (Alg. 2).
"""

from collections.abc import Iterator

from spaced_kd.errors import UserError

Turn = tuple[str, int]  # who learns ("teacher" or "student"), index of the batch


def turns(total: int, interval: int) -> Iterator[Turn]:
    """Alg. 1 and 2: the teacher learns a block of `interval` batches, then the student the same block.

    The last block is flushed: it is shorter where `interval` does not divide `total`, so both learn every batch.
    """
    for start in range(0, total, interval):
        block = range(start, min(start + interval, total))
        yield from (("teacher", i) for i in block)
        yield from (("student", i) for i in block)


def alone(total: int, who: str) -> Iterator[Turn]:
    """One learner on every batch in order: the teacher without KD, and self KD (Alg. 3) as `student`."""
    return ((who, i) for i in range(total))


def block_ends(total: int, interval: int) -> list[int]:
    """Numbers of batches after which a teacher pauses for its student: the states that `turns` asks for."""
    return [*range(interval, total, interval), total]


def interval_in_batches(interval: float | str, per_epoch: int, total: int) -> int:
    """The interval s in batches, max(1, int(s x batches per epoch)); `interval` is in epochs, or "max" for all batches.

    Raises UserError for an s > 0 that rounds to one batch (it would be online KD under another name) and for one
    longer than the training.
    """
    if interval == "max":
        return total
    batches = max(1, int(interval * per_epoch))
    if interval > 0 and batches == 1:
        raise UserError(
            f"interval={interval} epochs is {interval * per_epoch:.2f} batches of {per_epoch} an epoch, which would be"
            f" online KD: use interval=0 for that, or at least {2 / per_epoch:.4g}"
        )
    if batches > total:
        raise UserError(
            f"interval={interval} epochs is longer than the training of {total / per_epoch:g}: use max for offline KD"
        )
    return batches
