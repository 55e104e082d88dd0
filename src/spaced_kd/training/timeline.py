"""A run's turns, when they are evaluated, and after which batches a teacher's state is stored."""

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from spaced_kd.config import registry
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.distillation.method import Method, completed
from spaced_kd.distillation.schedule import Turn, interval_in_batches
from spaced_kd.utils.errors import UserError

MOST_BATCHES = 10_000_000  # all turns are listed before training: some 100 bytes each


def make_method(spec: RunSpec) -> Method:
    """The method with its settings, and the contract's defaults for attributes that it lacks."""
    return completed(registry.find("methods", spec.method))(**spec.settings.get("method", {}))


def make_turns(spec: RunSpec, method: Method, per_epoch: int) -> list[Turn]:
    """The method's schedule for the run.

    Raises:
        UserError: the schedule has turns of an unknown role, or none of the network that is evaluated.
    """
    total = spec.epochs * per_epoch
    if total > MOST_BATCHES:
        raise UserError(
            f"epochs is {spec.epochs}, which is {total:,} batches of batch_size {spec.batch_size}, but a training has"
            f" at most {MOST_BATCHES:,}: lower epochs, or raise batch_size"
        )
    interval = interval_in_batches(spec.interval, per_epoch, total, spec.interval_rounding)
    turns = list(method.schedule(total, interval, per_epoch))
    roles = set(map(itemgetter(0), turns))
    if strangers := sorted(roles - {*method.roles, *method.onlookers}):
        raise UserError(
            f"{spec.method}: its schedule has turns of {strangers[0]}, but its roles are {', '.join(method.roles)}"
        )
    if not roles & result_roles(method):
        raise UserError(
            f"{spec.method}: its schedule for interval={spec.interval} has no turn in which the network that is"
            f" evaluated, {result_network(method)}, learns: yield turns of {' or '.join(sorted(result_roles(method)))},"
            " or choose another interval"
        )
    return turns


def states_to_save(follower: RunSpec, per_epoch: int) -> set[int]:
    """Numbers of batches after which a teacher saves its state for a later student.

    Empty for a student that trains its teacher along: if the teacher changes between consecutive batches of the
    student, or depends on the student.
    """
    method = make_method(follower)
    if not method.teacher_is_shared:
        return set()
    return states_of(make_turns(follower, method, per_epoch), follower.epochs * per_epoch)


def states_of(turns: list[Turn], total: int) -> set[int]:
    """The same from the turns of a student on `total` batches, for a method whose teacher is shared."""
    found: list[int] = []
    for learnt in block_ends(turns):
        if found and learnt - found[-1] == 1 and learnt != total:
            return set()
        found.append(learnt)
    return set(found)


def when_to_evaluate(spec: RunSpec, method: Method, turns: list[Turn], per_epoch: int) -> dict[Turn, int]:
    """Turn -> the epoch that ends with it, every `eval_every` epochs of the run's clock and at the end of training."""
    if spec.clock == "teacher":
        ends = teachers_clock(turns, per_epoch, spec.epochs * per_epoch)
    else:
        ends = learners_clock(turns, result_roles(method), per_epoch)
    due = {done: epoch for done, epoch in ends.items() if epoch % spec.eval_every == 0 or done == max(ends)}
    return {turns[done - 1]: epoch for done, epoch in due.items()}


def result_network(method: Method) -> str:
    """Name of the network that is the run's result: that of the last role."""
    return [*method.roles.values()][-1]


def result_roles(method: Method) -> set[str]:
    """The roles of the network that is the run's result: their steps are its own."""
    return {role for role, name in method.roles.items() if name == result_network(method)}


def block_ends(order: Iterable[Turn]) -> Iterator[int]:
    """Numbers of the teacher's batches after which its student starts a block: the states that the student needs.

    The teacher takes its batches in order. Its initial state is not counted, since every run has it.
    """
    learnt = 0
    for role, run in groupby(map(itemgetter(0), order)):
        if role == "teacher":
            learnt += len(list(run))
        elif learnt:
            yield learnt


def learners_clock(order: Iterable[Turn], roles: Collection[str], per_epoch: int) -> dict[int, int]:
    """Turns done -> epoch, each time `roles` have taken as many turns as an epoch has batches, and at their last."""
    theirs = [done for done, (name, _) in enumerate(order, 1) if name in roles]
    ends = {done: epoch for epoch, done in enumerate(theirs[per_epoch - 1 :: per_epoch], 1)}
    return ends | {theirs[-1]: math.ceil(len(theirs) / per_epoch)}


def teachers_clock(order: Iterable[Turn], per_epoch: int, total: int) -> dict[int, int]:
    """Turns done -> epoch, before the first turn on a batch of the next epoch, and at the end (O10).

    The student may not have had a turn since the previous evaluation.
    """
    ends: dict[int, int] = {}
    done = epoch = 0
    for done, (_, index) in enumerate(order, 1):
        while index % total >= (epoch + 1) * per_epoch:
            epoch += 1
            ends[done - 1] = epoch
    return ends | {done: total // per_epoch}


def tail(order: Iterable[Turn], roles: Collection[str], number: int) -> dict[int, int]:
    """Turns done -> steps of `roles` by then: `number` of them, evenly spaced in their last tenth, the last included.

    Fewer if the last tenth has fewer steps. The grid of own steps does not depend on the order of turns.
    """
    if not number:
        return {}
    theirs = [done for done, (name, _) in enumerate(order, 1) if name in roles]
    total = len(theirs)
    steps = (total - left * total // (10 * number) for left in reversed(range(number)))
    return {theirs[step - 1]: step for step in steps}
