"""A finished run trained once more, to measure its networks during training.

Training is bit-exact, so a run keeps its final weights only. An evaluation of earlier states repeats the training of
the run and of its teacher; no run stores states for measurements that may never be made. The final weights must be the
recorded ones, or the evaluation fails.
"""

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.evaluation.replay import Moment, Replay
from spaced_kd.training.checkpoint import REMEDY, to_arrays
from spaced_kd.training.job import Job, assemble, make_learners
from spaced_kd.training.timeline import result_network
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json
from spaced_kd.utils.seeding import global_seed


def history(spec: RunSpec, paths: ResultPaths, device: str = "auto") -> Replay:
    """The training of a finished run; it is repeated only when an evaluation calls `networks_at`.

    Args:
        spec: the run.
        paths: of the folder of results, where its weights and data are.
        device: auto, cpu, cuda or cuda:N.
    """
    job = assemble(spec, paths, device)
    roles, result = job.method.roles, result_network(job.method)
    taken: Counter[str] = Counter()
    taught = []
    for role in (role for role, _ in job.turns if role in roles):  # onlookers take no updates
        if roles[role] == result != "teacher" in roles.values():
            taught.append(taken["teacher"])
        taken[roles[role]] += 1
    if job.decides:  # the method decided the order of turns during training, so it differs from the schedule
        ends = read_json(paths.run(spec) / "run.json", dict)["block_ends"]
        taught = [end for start, end in pairwise([0, *ends]) for _ in range(start, end)]
    return Replay(result, job.batches.per_epoch, dict(taken), taught, partial(_look, spec, paths, device))


def _look(
    spec: RunSpec,
    paths: ResultPaths,
    device: str,
    moments: Collection[Moment],
    see: Callable[[str, nn.Module], Any],
) -> dict[Moment, Any]:
    """Train from the first turn to the last, and call `see` for each network at its moments."""
    job = assemble(spec, paths, device)
    # a teacher whose states are stored only at block ends is trained again, too
    job.learners = dict(make_learners(spec, job.method, job.modules, job.turns, job.batches.per_epoch))
    roles = job.method.roles
    updates = Counter(roles[role] for role, _ in job.turns if role in roles)
    for name, number in moments:
        if not 0 <= number <= updates[name]:
            raise UserError(
                f"{spec.id} has no {name} after {number} updates, since it takes {updates[name]}: ask for an earlier"
                " epoch, or leave the evaluation out for this run"
            )
    seen = {moment: _see(job, moment[0], see) for moment in moments if moment[1] == 0}
    taken: Counter[str] = Counter()
    for role, index in job.turns_after(0):
        with global_seed(spec.seed, f"step of {role}", index):  # as `RunRecorder.watching` has it
            job.learners[role].learn(index, partial(job.passes, role, index))
        if role not in roles:
            continue
        name = roles[role]
        taken[name] += 1
        if (name, taken[name]) in moments:
            seen[name, taken[name]] = _see(job, name, see)
    path = paths.weights(spec)
    stored, _ = array_file.read(path, remedy=REMEDY)
    if any(not np.array_equal(value, stored[name]) for name, value in to_arrays(job.result.state_dict()).items()):
        raise UserError(
            f"{spec.id}, trained again, ends in other weights than {path}: evaluate it on a machine of the kind, and"
            " with the versions, that run.json names"
        )
    return seen


def _see(job: Job, name: str, see: Callable[[str, nn.Module], Any]) -> Any:
    """The result of `see` for a network as it is evaluated; the network's mode is restored afterwards."""
    network = job.modules[name]
    shown = job.method.reported(network) if network is job.result else network
    training = network.training
    shown.eval()
    found = see(name, shown)
    network.train(training)
    return found
