"""What a run is called, what a study expands to, and what is refused."""

import json
import re
from dataclasses import fields

import pytest

from spaced_kd.config import registry
from spaced_kd.config.run_spec import RunSpec, compare, from_flat, from_overrides
from spaced_kd.config.study import STUDY_KEYS, expand, load_study
from spaced_kd.utils.errors import UserError

RUN = {"dataset": "digits", "network": "resnet_mini", "method": "online_kd", "interval": 1.5, "seed": 0}

RUN_KEYS = [field.name for field in fields(RunSpec) if field.name != "settings"]


def study(**changes):
    grid = {
        "dataset": "digits",
        "network": "resnet_mini",
        "recipe": {"epochs": 4},
        "seed": [0, 1],
        "arms": [{"method": "baseline", "evaluate": ["bim"]}, {"method": "online_kd", "interval": [0, 1.5]}],
    }
    return {"study": "trial", "grids": [grid | changes.pop("grid", {})], "evaluations": {"bim": {}}} | changes


def test_words_round_trip():
    run = from_flat(RUN | {"method.alpha": 0.5, "lr": 5e-4, "teacher": "resnet18", "teacher.width": 0.25})
    assert from_overrides(run.overrides()) == run
    assert from_overrides(["dataset=digits", "network=resnet_mini", "method=baseline", "seed=0", "lr=5e-4"]).lr == 5e-4


def test_a_default_spelt_out_changes_no_id():
    assert from_flat(RUN | {"lr": 0.01, "method.alpha": 0.3, "network.width": 0.125}).id == from_flat(RUN).id
    assert from_flat(RUN | {"lr": 0.02}).id != from_flat(RUN).id


def test_a_new_setting_with_a_default_leaves_finished_runs_finished(monkeypatch):
    before = from_flat(RUN)
    stored, name = before.resolved(), before.id
    method = registry.plugin("methods", "online_kd")
    monkeypatch.setitem(method.settings, "gamma", ("float", 0.0))
    assert from_flat(RUN).id == name
    compare(from_flat(RUN), stored, "results/runs/x")


def test_a_changed_default_is_refused_by_name(monkeypatch):
    stored = from_flat(RUN).resolved()
    monkeypatch.setitem(registry.plugin("methods", "online_kd").settings, "alpha", ("float", 0.4))
    with pytest.raises(UserError, match=r"made with method\.alpha=0\.3, but method\.alpha is now 0\.4"):
        compare(from_flat(RUN), stored, "results/runs/x")


def test_every_field_is_part_of_the_identity():
    other = {"dataset": "cifar100", "network": "vit_mini", "method": "self_kd", "teacher": "resnet18", "interval": 2.0}
    other |= {"optimizer": "adamw", "lr_schedule": "cosine", "precision": "bf16"}
    other |= {"clock": "teacher", "initial_weights": "different", "batch_norm": "halves", "augmentation": "strong"}
    other |= {"order_seed": 7, "augmentation_seed": 7, "held_out": 0.2, "tail_evaluations": 3}
    other |= {"lr_clock": "epochs", "weight_decay_on": "weights", "last_batch": "dropped"}
    other |= {"interval_rounding": "up", "momentum": 0.8}
    other |= {"standardisation": "imagenet", "warmup_lr": 0.005, "min_lr": 0.005}
    other |= {"assistant": "resnet18", "nesterov": True, "lr_drops": [4.0]}
    needed = {"assistant": {"method": "takd"}, "lr_drops": {"lr_schedule": "steps"}}
    ids = {from_flat(RUN).id}
    for name, value in RunSpec(**RUN).resolved().items():
        if name != "settings":
            changed = {name: other[name] if name in other else value + 1}
            ids.add(from_flat(RUN | changed | needed.get(name, {})).id)
    assert len(ids) == len(RunSpec(**RUN).resolved())


def test_the_teacher_is_the_baseline_of_the_same_recipe_and_seed():
    run = from_flat(RUN | {"lr": 0.02, "teacher": "resnet18", "teacher.width": 0.25, "method.alpha": 0.5})
    flat = {
        "dataset": "digits",
        "network": "resnet18",
        "network.width": 0.25,
        "method": "baseline",
        "seed": 0,
        "lr": 0.02,
    }
    assert run.teacher_spec() == from_flat(flat)
    assert from_flat(RUN | {"method": "self_kd"}).teacher_spec() is None


def test_a_study_is_the_cross_product_with_its_teachers():
    found = expand(study())
    assert len(found.runs) == 2 * 3
    assert sum(bool(names) for names in found.evaluated.values()) == 2
    teacher = next(run for run in found.runs if run.method == "baseline" and run.seed == 1)
    assert found.followers(teacher.id) == ["interval=1.5 method=online_kd"]  # online KD trains its teacher along


def test_a_students_teacher_is_added():
    found = expand(study(grid={"arms": [{"method": "online_kd", "interval": 1.5}]}))
    assert sorted(run.method for run in found.runs) == ["baseline", "baseline", "online_kd", "online_kd"]


@pytest.fixture
def experiments(tmp_path):
    """A folder of two experiments that share the runs of online KD."""
    grid = study()["grids"][0] | {"arms": [{"method": "online_kd", "interval": [0, 1.5]}]}
    files = {
        "intervals": {"study": "intervals", "grids": [grid], "tables": ["tab01", "tab06"]},
        "attack": {
            "study": "attack",
            "grids": [grid | {"evaluate": "all"}],
            "evaluations": {"bim": {}},
            "tables": ["tab12"],
        },
    }
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))
    return tmp_path


def union(folder, **changes):
    return expand({"study": "all", "experiments": ["intervals", "attack"]} | changes, experiments=folder)


def test_a_study_of_experiments_is_their_union(experiments):
    found = union(experiments, tables=["overview"])
    assert [part.name for part in found.parts] == ["all/intervals", "all/attack"]
    assert len(found.runs) == len(found.parts[0].runs) == 2 * 3  # shared, so trained once
    student = next(run for run in found.runs if run.method == "online_kd")
    assert [part.evaluated[student.id] for part in (found, *found.parts)] == [("bim",), (), ("bim",)]
    assert (found.tables, found.parts[0].tables) == (("overview",), ("tab01", "tab06"))
    assert found.drawn_by("tables", "tab06") is found.parts[0]
    assert found.drawn_by("tables", "tab02") is found
    assert expand(study()).parts[0].name == "trial"


def test_the_keys_of_a_study_of_experiments_hold_for_all_of_them(experiments):
    found = union(experiments, store_teachers=False, data="elsewhere")
    assert {part.data for part in (found, *found.parts)} == {"elsewhere"}
    assert found.followers(found.runs[0].id) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"experiments": []}, "experiments is empty: name at least one file"),
        ({"experiments": ["tab99"]}, "'tab99' is none of the experiments: attack, intervals"),
        ({"experiments": ["intervals", "intervals"]}, "several experiments list tab01 among their tables"),
        ({"grids": []}, "a study with experiments has no grids of its own"),
        ({"tables": ["tab99"]}, "'tab99' is none of the tables"),
    ],
)
def test_bad_unions_are_refused_in_one_line(experiments, change, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        union(experiments, **change)
    assert "\n" not in str(caught.value)


def test_an_evaluation_of_an_epoch_that_is_never_reached_is_refused_before_any_training():
    arm = {"method": "online_kd", "interval": 1.5, "evaluate": "all"}
    asked = {"evaluations": {"supervision_complexity": {"epochs": [0, 3]}}}
    expand(study(grid={"epochs": 4, "arms": [arm]}, **asked))
    with pytest.raises(UserError, match=r"^evaluations\.supervision_complexity: epochs has 3, but .* epochs 0 to 2:"):
        expand(study(grid={"epochs": 3, "arms": [arm]}, **asked))


def test_experiments_agree_on_the_settings_of_an_evaluation(experiments):
    other = json.loads((experiments / "attack.yaml").read_text())
    other |= {"study": "stronger", "evaluations": {"bim": {"epsilon": 9}}, "tables": []}
    (experiments / "stronger.yaml").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"evaluations\.bim has other settings in all/stronger than before it"):
        union(experiments, experiments=["attack", "stronger"])


def test_a_recipe_of_a_file_is_that_of_the_network_or_of_another_teacher():
    grid = {
        "dataset": "cifar100",
        "network": ["resnet18", "deit_tiny"],
        "recipe": "paper",
        "seed": 0,
        "method": "baseline",
    }
    resnet, vit = expand({"study": "trial", "grids": [grid]}).runs
    assert (resnet.epochs, resnet.optimizer, resnet.lr) == (80, "sgd", 0.01)
    assert (vit.epochs, vit.optimizer, vit.lr, vit.min_lr, vit.warmup_epochs) == (300, "adamw", 5e-4, 5e-6, 20)
    taught = grid | {"network": "resnet18", "teacher": "deit_tiny", "method": "online_kd"}
    assert {run.epochs for run in expand({"study": "trial", "grids": [taught]}).runs} == {300}
    rate = expand({"study": "trial", "grids": [grid | {"network": "deit_tiny", "lr": 1e-3}]}).runs[0]
    assert (rate.lr, rate.epochs) == (1e-3, 300)
    with pytest.raises(UserError, match="recipe 'paper' has no entry for resnet_mini: it has resnet18"):
        expand({"study": "trial", "grids": [grid | {"network": "resnet_mini"}]})


BAD = [
    ({"study": None}, "give the study a name"),
    ({"grids": []}, "add at least one grid"),
    ({"tabels": []}, "no key 'tabels': it has study"),
    ({"store_teachers": "often"}, "store_teachers is 'often', but must be true or false"),
    ({"tables": ["tab99"]}, "'tab99' is none of the tables"),
    ({"figures": "fig02"}, "figures is 'fig02', but must be a list"),
    ({"evaluations": {"hesian": {}}}, "'hesian' is none of the evaluations"),
    ({"evaluations": {"bim": {"epsilom": 1}}}, "bim has no setting 'epsilom': it has"),
    ({"evaluations": {"bim": {"steps": "many"}}}, "bim.steps is 'many', but must be a whole number"),
    ({"grid": {"dataset": "cifar"}}, "'cifar' is none of the datasets: cifar100"),
    ({"grid": {"network": "resnet"}}, "'resnet' is none of the networks"),
    ({"grid": {"network": {"resnet_mini": {"wide": 1}}}}, "resnet_mini has no setting 'wide': it has width"),
    ({"grid": {"network": {"resnet_mini": {"width": "big"}}}}, "resnet_mini.width is 'big', but must be a number"),
    ({"grid": {"recipe": "resnet"}}, "recipe 'resnet' is none of recipes"),
    ({"grid": {"recipe": {"epoch": 3}}}, "unknown key 'epoch'"),
    ({"grid": {"recipe": {"epochs": 1.5}}}, "epochs is 1.5, but must be a whole number"),
    ({"grid": {"recipe": {"epochs": 0}}}, "epochs is 0, but must be positive"),
    ({"grid": {"recipe": {"lr": -1}}}, "lr is -1.0, but must be positive"),
    ({"grid": {"recipe": {"lr_schedule": "steps"}}}, r"lr_drops is \[\], but lr_schedule is steps: steps needs drops"),
    ({"grid": {"recipe": {"lr_drops": [2]}}}, r"lr_drops is \[2.0\], but lr_schedule is constant"),
    (
        {"grid": {"recipe": {"epochs": 4, "lr_schedule": "steps", "lr_drops": [3, 2]}}},
        r"lr_drops is \[3.0, 2.0\], but must rise, within the 4 epochs",
    ),
    (
        {"grid": {"recipe": {"epochs": 4, "lr_schedule": "steps", "lr_drops": [4]}}},
        r"lr_drops is \[4.0\], but must rise",
    ),
    ({"grid": {"recipe": {"nesterov": True, "momentum": 0}}}, "nesterov is true, but only sgd with momentum has it"),
    ({"grid": {"recipe": {"optimizer": "lion"}}}, "optimizer is 'lion', but must be sgd or adamw"),
    ({"grid": {"seed": [0, 0]}}, "seed lists a value twice"),
    ({"grid": {"arms": [{"": ["", ""]}]}}, "an arm has the key '', but keys must be words"),
    ({"grid": {"seed": -1}}, "seed is -1, but must not be negative"),
    ({"grid": {"seed": True}}, "seed is True, but must be a whole number"),
    ({"grid": {"arms": [{"method": "kd"}]}}, "'kd' is none of the methods: adaptive_interval, ban, baseline"),
    ({"grid": {"arms": [{"method": "online_kd", "interval": -1}]}}, "must not be negative: 0 is online KD"),
    ({"grid": {"arms": [{"method": "online_kd", "interval": 5}]}}, "longer than training's 4"),
    ({"grid": {"arms": [{"method": "online_kd", "interval": "all"}]}}, "interval is 'all', but must be a number"),
    ({"grid": {"arms": [{"method": "baseline", "interval": 1}]}}, "baseline has no student that could lag"),
    ({"grid": {"arms": [{"method": "self_kd", "interval": "max"}]}}, "teacher and student are one network"),
    ({"grid": {"arms": [{"method": "baseline", "evaluate": ["trace"]}]}}, "evaluate names 'trace'"),
    (
        {"grid": {"arms": [{"method": "online_kd", "seed": [0, 1]}, {"method": "self_kd", "seed": [1, 2]}]}},
        "seeds are not paired: .*method=baseline has seed 0, which method=self_kd lacks, and lacks 2",
    ),
    ({"grid": {"arms": {"method": "baseline"}}}, "arms is .* but must be a list"),
]


@pytest.mark.parametrize(("change", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_bad_configurations_are_refused_in_one_line(change, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        expand(study(**change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "start", "end", "known"),
    [
        (lambda: from_flat(RUN | {"zzz": 3}), "a run has ", ", and settings", {*RUN_KEYS, "protocol"}),
        (lambda: expand(study(zzz=3)), "it has ", "$", set(STUDY_KEYS)),
        (lambda: from_flat(RUN | {"method.zzz": 3}), "it has ", "$", set(registry.defaults("methods", "online_kd"))),
        (lambda: from_flat(RUN | {"method": "zzz"}), "methods: ", "$", set(registry.names("methods"))),
    ],
)
def test_an_unknown_word_is_answered_by_all_that_there_are(read, start, end, known):
    with pytest.raises(UserError) as caught:
        read()
    (listed,) = re.findall(f"{start}(.*){end}", str(caught.value))
    assert set(listed.split(", ")) == known


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("study: [")
    with pytest.raises(UserError, match=r"bad\.yaml: not YAML"):
        load_study(tmp_path / "bad.yaml")


def test_resolved_survives_json():
    run = from_flat(RUN)
    assert json.loads(json.dumps(run.resolved())) == run.resolved()
