"""The order of learning: which role learns on which batch, and when. Each order of the paper is a generator here.

`turns(total, interval)` for total = 6 batches and an interval of 3::

    teacher  0 1 2 . . . 3 4 5 . . .
    student  . . . 0 1 2 . . . 3 4 5

The teacher learns a block of `interval` batches. The student then learns the same batches, guided by the teacher at the
end of the block. An interval of 1 batch is online KD (Alg. 1), an interval of all batches is offline KD on the same
batches, and any interval between is Spaced KD (Alg. 2). The other orders of the paper and of its controls follow;
letters such as O6 are those of the switches in docs/reference/switches.md.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from spaced_kd.utils.errors import UserError

Turn = tuple[str, int]  # role that learns ("teacher", "student" or another of the method), index of the batch


def turns(total: int, interval: int, start: int = 0) -> Iterator[Turn]:
    """Alg. 1 and 2: the teacher learns a block of `interval` batches, then the student the same block.

    The last block is flushed: it is shorter where `interval` does not divide `total`, so both learn every batch.

    >>> " ".join(f"{role[0]}{batch}" for role, batch in turns(5, 3))
    't0 t1 t2 s0 s1 s2 t3 t4 s3 s4'
    """
    for first in range(start, total, interval):
        block = range(first, min(first + interval, total))
        yield from (("teacher", i) for i in block)
        yield from (("student", i) for i in block)


def solo(total: int, who: str) -> Iterator[Turn]:
    """One role learns every batch in order: the teacher without KD, or the student in self KD (Alg. 3)."""
    return ((who, i) for i in range(total))


def teacher_last(total: int, interval: int) -> Iterator[Turn]:
    """The student learns each block first, guided by the teacher at the start of the block: frozen, but not ahead.

    For blocks of one batch the targets precede the teacher's update, as in the released code (O6).
    """
    for first in range(0, total, interval):
        block = range(first, min(first + interval, total))
        yield from (("student", i) for i in block)
        yield from (("teacher", i) for i in block)


def constant_lead(total: int, lead: int) -> Iterator[Turn]:
    """Tab. 10: the teacher is `lead` batches ahead at each of the student's steps, until it has learnt all batches.

    It is ahead, but never frozen. A lead of one batch is online KD.

    >>> " ".join(f"{role[0]}{batch}" for role, batch in constant_lead(4, 2))
    't0 t1 s0 t2 s1 t3 s2 s3'
    """
    yield from (("teacher", i) for i in range(lead))
    for i in range(total):
        yield "student", i
        if i + lead < total:
            yield "teacher", i + lead


def window(total: int, interval: int, first: int, last: int) -> Iterator[Turn]:
    """Fig. 3: Spaced KD from batch `first` up to, but not including, batch `last`; online KD before and after."""
    if not 0 <= first < last <= total:
        raise UserError(
            f"spaced_from and spaced_until give the spaced window from batch {first} to {last}, which is not inside the"
            f" training of {total} batches"
        )
    yield from turns(first, 1)
    yield from turns(last, interval, first)
    yield from turns(total, 1, last)


def looking_at_triggers(order: Iterable[Turn]) -> Iterator[Turn]:
    """`without_triggers`, but the network processes that batch before the block, without an update (B3)."""
    for turn, then in pairwise([*order, ("end", 0)]):
        yield ("onlooker", turn[1]) if (turn[0], then[0]) == ("teacher", "student") else turn


def follow(order: Iterable[Turn], leader: str, follower: str, interval: int, total: int) -> Iterator[Turn]:
    """Add a role: `follower` learns each block of `interval` batches as soon as `leader` has learnt it.

    A student that follows a teacher `alone` gives `turns`. Chains of 4 batches, spaced by 2 at both links, and at the
    last one only::

        teacher    0 1 . . . . 2 3 . . . .      0 . 1 . . . 2 . 3 . . .
        assistant  . . 0 1 . . . . 2 3 . .      . 0 . 1 . . . 2 . 3 . .
        student    . . . . 0 1 . . . . 2 3      . . . . 0 1 . . . . 2 3
    """
    for role, i in order:
        yield role, i
        if role == leader and ((i + 1) % interval == 0 or i + 1 == total):
            yield from ((follower, j) for j in range(i - i % interval, i + 1))


def epochs_of_updates(
    order: Iterable[Turn], roles: dict[str, str], per_epoch: int, *, own: bool
) -> dict[str, list[int]]:
    """Learner -> the epoch of the data, from 0, at each of its updates, for a learning rate per epoch (C2).

    It is the epoch of the latest batch of the role that learns first, the teacher, so that a student learns a block at
    one rate. With `own`, as in offline KD, each learner counts its own epochs.

    Args:
        order: all turns.
        roles: role -> learner.
        per_epoch: batches of an epoch.
        own: whether each learner counts its own epochs.
    """
    found: dict[str, list[int]] = {learner: [] for learner in roles.values()}
    leader = None
    epoch = 0
    for role, index in order:
        leader = leader or role
        updates = found[roles[role]]
        if own:
            epoch = len(updates) // per_epoch
        elif role == leader:
            epoch = index // per_epoch
        updates.append(epoch)
    return found


def interval_in_batches(interval: float | str, per_epoch: int, total: int, rounding: str = "down") -> int:
    """The interval s in batches: s x batches per epoch, rounded `down` or `up` (C4), at least 1.

    `interval` is in epochs, or "max" for all batches. The product is a floating-point number: 0.29 of 100 batches is
    28.999..., which is rounded down to 28.

    Raises:
        UserError: an s > 0 is rounded to one batch, which would be online KD under another name; or s is longer than
            the training.
    """
    if interval == "max":
        return total
    batches = max(1, {"down": math.floor, "up": math.ceil}[rounding](interval * per_epoch))
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
