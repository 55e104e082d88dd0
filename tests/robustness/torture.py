"""kill -9 at many moments of many trainings, each of which must end in the bits of one that nobody disturbed.

    python tests/robustness/torture.py 50 [--seed 0]

Every process is a fork of this one, which has imported and trained before, so a kill costs a second and no start-up.
A kill comes at a random moment, or at a chosen one: between a step's gradients and its update, within the writing of a
resume state, of a teacher's state for its students and of an output, at the end of a block, within an evaluation.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # conftest.py, which pytest finds by itself

from conftest import tiny

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data import dataset
from spaced_kd.evaluation import evaluate
from spaced_kd.training import run_recorder
from spaced_kd.training.loop import train
from spaced_kd.utils import files

SHORT = {"epochs": 2}
ARMS = {
    "online": tiny(method="online_kd", interval=0, **SHORT),
    "spaced": tiny(method="online_kd", interval=1.5, **SHORT),
    "offline": tiny(method="online_kd", interval="max", **SHORT),
    "adaptive": tiny(method="adaptive_interval", method__least=4, method__errors=1.0, **SHORT),
    "self KD": tiny(method="self_kd", interval=0, **SHORT),
    "spaced self KD": tiny(method="self_kd", interval=1.0, **SHORT),
    "spaced DML": tiny(method="dml", interval=1.0, **SHORT),
    "spaced SHAKE": tiny(method="shake", interval=1.0, **SHORT),
}
MEASURED = {"bim": {"images": 20, "steps": 2}, "weight_noise": {"images": 20, "draws": 1}}
NEVER = {  # moments that an arm has not: only Spaced KD asks its teacher for a state before its last one
    "online": {"teacher's state"},
    "offline": {"teacher's state"},
    "adaptive": {"teacher's state"},
    "self KD": {"teacher's state", "block's end"},
    "spaced self KD": {"teacher's state"},
    "spaced DML": {"teacher's state"},
    "spaced SHAKE": {"teacher's state"},
}
MOMENTS = ("any", "step", "state", "teacher's state", "output", "block's end", "training's evaluation", "evaluation")
OUTPUTS = ("weights.safetensors", "predictions.safetensors", "rows.json")


def work(spec: RunSpec, results: Path, every: float) -> None:
    """What the workflow does for a student: its teacher, itself, and what is measured on it."""
    teacher = spec.teacher_spec()
    if teacher and spec.interval != 0:
        train(teacher, results, save_states_for=(spec,), checkpoint_every=every)
    train(spec, results, checkpoint_every=every)
    evaluate.evaluate(spec.id, MEASURED, results)


def outcome(spec: RunSpec, results: Path) -> dict[str, bytes]:
    """All that must be the same to the bit: outputs of teacher and student, measured rows."""
    runs = [run for run in (spec.teacher_spec(), spec) if run and ResultPaths(results).run(run).exists()]
    paths = [ResultPaths(results).run(run) / name for run in runs for name in OUTPUTS]
    measured = evaluate.evaluate(spec.id, MEASURED, results)  # from the cache
    left = [path.name for path in results.rglob("*") if path.name.endswith(".tmp") or path.name == "lock"]
    # a killed evaluation's small torn file stays: who evaluates a run does not have it for itself, and removes nothing
    left = [name for name in left if not name.startswith(tuple(f".{measured}-" for measured in MEASURED))]
    return {path.parent.name + path.name: path.read_bytes() for path in paths} | {
        "measured": repr(measured).encode(),
        "losses": repr([files.read_json(path.parent / "run.json", dict)["losses"] for path in paths]).encode(),
        "left behind": repr(left).encode(),
    }


def forked(call: Callable[[], None]) -> int:
    """Process id of a fork that makes the call, silently."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        call()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(moment: str, count: int) -> mock._patch:  # noqa: C901, each moment is a few lines
    """A patch under which this process is killed the `count`-th time that `moment` comes."""
    passed = iter(range(count - 1, -1, -1))

    def due() -> bool:
        return next(passed, 1) == 0

    def fatal(call: Callable, when: Callable[..., bool] = lambda *_: True) -> Callable:
        """The call, before which the process may die."""

        def wrapped(*args: object, **named: object) -> object:
            if when(*args) and due():
                die()
            return call(*args, **named)

        return wrapped

    if moment == "step":
        return mock.patch.object(torch.optim.SGD, "step", fatal(torch.optim.SGD.step))
    if moment == "block's end":
        before = [""]

        def changes(_: run_recorder.RunRecorder, who: str, *rest: object) -> bool:
            changed, before[0] = before[0] not in ("", who), who
            return changed

        after = run_recorder.RunRecorder.after_turn
        return mock.patch.object(run_recorder.RunRecorder, "after_turn", fatal(after, changes))
    if moment == "training's evaluation":
        return mock.patch.object(
            run_recorder.TrainingMetrics, "evaluated", fatal(run_recorder.TrainingMetrics.evaluated)
        )
    if moment == "evaluation":
        return mock.patch.object(evaluate, "_write", fatal(evaluate._write))
    part = {"state": "turn-", "teacher's state": "batches-", "output": ""}[moment]

    class Torn:
        """A file of which half is written when the end comes, or all of it and not yet in its place."""

        def __init__(self, path: Path, mode: str) -> None:
            self.file = open(path, mode)  # noqa: SIM115 (it is a context itself)
            self.mine = part in path.name and (bool(part) or not any(p in path.name for p in ("turn-", "batches-")))

        def __enter__(self) -> "Torn":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            last = self.mine and due()
            self.file.write(content[: len(content) // 2] if last and count % 2 else content)
            if last:
                self.file.flush()
                die()

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    return mock.patch.object(files, "open", Torn, create=True)


def once_killed(
    spec: RunSpec, results: Path, every: float, moment: str, draws: random.Random, took: float, first: bool
) -> bool:
    """Start or go on with the work and kill it, the `first` time that the moment comes; False where it ended before."""
    if moment == "any":
        child = forked(lambda: work(spec, results, every))
        time.sleep(draws.uniform(0, took))
        os.kill(child, signal.SIGKILL)
    else:
        count = draws.randint(1, {"step": 12, "state": 12, "output": 4, "evaluation": 2}.get(moment, 2))
        count = 1 if first else count

        def work_and_die() -> None:
            with dying(moment, count):
                work(spec, results, every)

        child = forked(work_and_die)
    ended = os.waitpid(child, 0)[1]
    if ended not in (0, signal.SIGKILL):
        raise SystemExit(f"{spec.id}: failed by itself after an earlier kill (status {ended})")
    return ended == signal.SIGKILL


def prepare(folder: Path) -> Path:
    """Results with nothing but a few digits."""
    settings = ARMS["online"].resolved()["settings"]["dataset"]
    content = dataset.registry.find("datasets", "digits").prepare(Path("none"), train_per_class=4)
    few = {key: array[:60] for key, array in content.items() if key.startswith("test")}
    dataset.save(ResultPaths(folder).data(ARMS["online"]), content | few, dataset="digits", settings=settings)
    return folder


def fresh(folder: Path, prepared: Path) -> Path:
    folder.mkdir()
    (folder / "data").symlink_to(prepared / "data")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    draws, began = random.Random(arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(Path(temporary) / "prepared")
        expected, took = {}, {}
        for name, spec in ARMS.items():
            whole = fresh(Path(temporary) / f"whole {name}", prepared)
            work(spec, whole, 300)  # warms this process up, too
            start = time.monotonic()
            assert not os.waitpid(forked(lambda spec=spec, whole=whole: work(spec, fresh(whole / "2", whole), 0)), 0)[1]
            took[name], expected[name] = time.monotonic() - start, outcome(spec, whole)
        killed, survived, ends = Counter(), 0, 0
        moments = [MOMENTS[number % len(MOMENTS)] for number in range(arguments.kills)]
        draws.shuffle(moments)
        missed = Counter()
        while moments and ends < 3 * arguments.kills:  # a kill may come too late, and is tried again
            name = [*ARMS][ends % len(ARMS)]
            results = fresh(Path(temporary) / f"killed {ends}", prepared)
            every = draws.choice((0, 0, 0.05)) if not missed else 0
            kills = 0
            # what has been missed before comes first, while nothing of the run is there that could not come again
            possible = [moment for moment in moments if moment not in NEVER.get(name, ())]
            possible.sort(key=lambda moment: -missed[moment])  # the rest in their drawn order
            for moment in possible[: draws.randint(2, 5)]:
                first = missed[moment] > 0
                missed[moment] += 1
                if once_killed(ARMS[name], results, every, moment, draws, took[name], first):
                    missed.pop(moment)
                    moments.remove(moment)
                    killed[moment] += 1
                    kills += 1
            ends += 1
            if not kills:
                continue
            if os.waitpid(forked(lambda name=name, results=results: work(ARMS[name], results, 300)), 0)[1]:
                raise SystemExit(f"{ARMS[name].id}: failed after {kills} kills")
            found = outcome(ARMS[name], results)
            if wrong := [key for key in found if found[key] != expected[name][key]]:
                print(f"{name}: after {kills} kills, these are not as they should be: {', '.join(wrong)}")
                print(found["left behind"].decode())
            else:
                survived += kills
    total = sum(killed.values())
    print(", ".join(f"{moment} {count}" for moment, count in killed.items()))
    print(f"{survived} of {total} kills left no trace, in {ends} runs ({time.monotonic() - began:.0f} s)")
    return not survived == total == arguments.kills


if __name__ == "__main__":
    sys.exit(main())
