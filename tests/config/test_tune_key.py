import pytest

from spaced_kd.config.study import expand
from spaced_kd.utils.errors import UserError

RECIPE = {"epochs": 3, "held_out": 0.1, "tail_evaluations": 3}
GRID = {"dataset": "digits", "network": "resnet_mini", "recipe": RECIPE, "seed": [100, 101]}
ARMS = [{"method": "baseline"}, {"method": "online_kd", "interval": [0, 1.5]}]
TUNE = {"lr": [0.01, 0.1], "lr_schedule": ["constant", "cosine"]}


def study(**changes):
    return expand({"study": "s", "grids": [GRID | {"arms": ARMS, "tune": TUNE} | changes]})


def test_every_arm_has_the_same_trials():
    found = study()
    assert len(found.runs) == len(found.tuned) == 3 * 4 * 2
    arms = {}
    for run in found.runs:
        arms.setdefault((run.method, run.interval), set()).add((run.lr, run.lr_schedule, run.seed))
    assert len(arms) == 3
    assert len({frozenset(trials) for trials in arms.values()}) == 1
    assert set(found.tuned.values()) == {("lr", "lr_schedule")}


def test_tuned_runs_are_those_of_plain_axes():
    assert {run.id for run in study().runs} == {
        run.id for run in expand({"study": "s", "grids": [GRID | TUNE | {"arms": ARMS}]}).runs
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"arms": [*ARMS, {"method": "self_kd", "lr": 0.5}]}, "an arm has lr of its own"),
        ({"arms": [{"method": "baseline", "tune": TUNE}]}, "an arm has tune of its own"),
        ({"recipe": RECIPE | {"held_out": 0.0}}, "held_out is 0 in a grid with tune"),
        ({"recipe": RECIPE | {"tail_evaluations": 0}}, "tail_evaluations is 0 in a grid with tune"),
        ({"tune": {"lr": [0.1]}}, r"tune\.lr is \[0\.1\], but must list two values"),
        ({"tune": {}}, "tune is {}, but must name keys"),
        ({"tune": {"seed": [1, 2]}}, "tune has seed, which cannot be tried"),
        ({"lr": 0.1}, "lr is in the grid and in its tune"),
        ({"tune": {"lrr": [1, 2]}}, "lrr"),
    ],
)
def test_unequal_tuning_is_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        study(**changes)


def test_an_arm_cannot_tune_alone():
    with pytest.raises(UserError, match="an arm has tune of its own"):
        expand({"study": "s", "grids": [GRID | {"arms": [{"method": "baseline", "tune": TUNE}]}]})
