"""The command line as a person meets it: help, one line for a mistake, exit status, nothing half-written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths

ROOT = Path(__file__).parents[2]
WORDS = [f"{key}={value}" for key, value in TINY.items()]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    message = capsys.readouterr().out
    assert all(name in message for name in ("prepare", "train", "evaluate", "collect", "render", "verify", "list"))


def test_version_is_that_of_the_citation_and_the_changelog(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    name, version = capsys.readouterr().out.split()
    assert name == "spaced-kd"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_list_tells_what_exists(capsys):
    assert cli.main(["list"]) == 0
    message = capsys.readouterr().out
    assert all(name in message for name in ("digits", "resnet18", "online_kd", "hessian_trace", "tab06", "fig02"))
    assert cli.main(["list", "methods"]) == 0
    assert "alpha: float = 0.3" in capsys.readouterr().out


def test_train_evaluate_and_again(results, capsys):
    arguments = [*WORDS, "method=baseline", "--results", str(results)]
    assert cli.main(["train", *arguments]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"wrote {ResultPaths(results).run(tiny(method='baseline'))}: accuracy")
    assert cli.main(["train", *arguments]) == 0
    assert "is finished already" in capsys.readouterr().out

    run = tiny(method="baseline").id
    measure = ["evaluate", "--results", str(results), run, "bim", "bim.images=20", "bim.steps=2"]
    output = results / "measured.json"
    assert cli.main([*measure, "--output", str(output)]) == 0
    rows = json.loads(output.read_text())
    assert [row["evaluation"] for row in rows["rows"]] == ["bim", "bim"]
    (kept,) = (ResultPaths(results).run(tiny(method="baseline")) / "evaluations").glob("bim-*.safetensors")
    before = kept.stat().st_mtime_ns
    assert cli.main([*measure, "--output", str(output)]) == 0  # from the cache
    assert kept.stat().st_mtime_ns == before
    assert cli.main([*measure, "bim.epsilon=1", "--output", str(output)]) == 0  # another setting is another measurement
    assert len(list(kept.parent.glob("bim-*.safetensors"))) == 2


MISTAKES = [
    (["train", "dataset=digts", "network=resnet_mini", "method=baseline", "seed=0"], "'digts' is none of the datasets"),
    (["train", *WORDS, "method=baseline", "epoch=3"], "unknown key 'epoch'"),
    (["train", *WORDS, "method=online_kd", "method.alfa=0.5"], "online_kd has no setting 'alfa'"),
    (["train", *WORDS, "method=online_kd", "method.alfa=0.5"], "; did you mean alpha?"),
    (["train", *WORDS, "method=spaced_kd"], "; did you mean online_kd interval=1.5?"),
    (["train", *WORDS, "method=offline_kd"], "; did you mean online_kd interval=max?"),
    (["train", "dataset=digts", "network=resnet_mini", "method=baseline", "seed=0"], "; did you mean digits?"),
    (["train", *WORDS, "method=online_kd", "method.alpha=half"], "online_kd.alpha is 'half', but must be a number"),
    (["train", *WORDS, "method=baseline", "seed"], "'seed' is not of the form key=value"),
    (["train", *WORDS, "method=online_kd", "interval=0.2"], "interval=0.2 epochs is 1.00 batches of 5 an epoch"),
    (["train", *WORDS, "method=baseline", "augmentation=weak"], "augmentation is 'weak', but must be standard or auto"),
    (["train", *WORDS, "method=baseline", "input_size=-1"], "input_size is -1, but must not be negative"),
    (["train", *WORDS, "method=baseline", "input_size=16"], "input_size is 16, but the images have 32 pixels already"),
    (
        ["train", *WORDS, "method=baseline", "dataset.split=9"],
        "make it with `spaced-kd prepare dataset=digits dataset.train_per_class=4 dataset.split=9 dataset.size=32`",
    ),
    (["evaluate", "nothing-0", "bim"], "run.json does not exist: train the run first"),
    (["evaluate", "nothing-0", "bam"], "'bam' is none of the evaluations"),
    (["prepare", "dataset=tiny_imagenet", "--source", "nowhere"], "nowhere"),
    (["prepare", "dataset=cifar100", "--source", "nowhere"], "nowhere"),
    (["train", *WORDS, "method=baseline", "epoch=3"], "; did you mean epochs?"),
    (["collect", "config/studies/demo.yaml"], "runs of demo is finished in"),
    (["collect", "nowhere.yaml"], "nowhere.yaml: No such file"),
    (["verify", "nowhere"], "nowhere does not exist: name a folder of results"),
    (["verify"], "has nothing to check: neither runs nor rows.csv of a study"),
    (
        ["verify", "src", "--reference", "here.csv"],
        "here.csv does not exist: start in the repository's folder, or name",
    ),
    (["render", "overview", "--output", "somewhere"], "--rows is not given: name rows.csv of a study"),
    (
        ["render", "tab01", "--rows", "nowhere.csv"],
        "nowhere.csv does not exist: `snakemake tab01 --configfile config/experiments/tab01.yaml` makes it",
    ),
]


@pytest.mark.parametrize(("command", "complaint"), MISTAKES, ids=[complaint for _, complaint in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(command, complaint, results, capsys):
    before = sorted(results.rglob("*"))
    assert cli.main([*command, "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.startswith("spaced-kd: ")
    assert message.count("\n") == 1
    assert sorted(results.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "dataset=digits", "--corrupt", "-5"],
        ["prepare", "dataset=digits", "--corrupt", "0"],
        ["train", *WORDS, "method=baseline", "--workers", "-2"],
        ["train", *WORDS, "method=baseline", "--checkpoint-every", "-0.5"],
        ["train", *WORDS, "method=baseline", "--checkpoint-every", "nan"],
    ],
)
def test_numbers_out_of_their_range_are_refused(arguments, results, capsys):
    before = sorted(results.rglob("*"))
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--results", str(results)])
    assert f"argument {arguments[-2]}: {arguments[-1]} is less than" in capsys.readouterr().err
    assert sorted(results.rglob("*")) == before


def test_a_finished_run_may_be_named_by_its_folder(results):
    assert cli.main(["train", *WORDS, "method=baseline", "--results", str(results)]) == 0
    folder = str(ResultPaths(results).run(tiny(method="baseline")))
    assert cli.main(["evaluate", "--results", str(results), folder, "bim", "bim.images=2", "bim.steps=1"]) == 0


def test_damaged_data_are_refused(results, tmp_path, capsys):
    own = tmp_path / "own"
    (own / "data").mkdir(parents=True)
    whole = ResultPaths(results).data(tiny(method="baseline")).read_bytes()
    path = ResultPaths(own).data(tiny(method="baseline"))
    for damage in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"\xff" * 100):
        path.write_bytes(damage)
        assert cli.main(["train", *WORDS, "method=baseline", "--results", str(own)]) == 2
        assert f"{path} is damaged" in capsys.readouterr().err


def test_a_results_folder_that_is_a_file(results, capsys):
    (results / "runs").write_text("")
    assert cli.main(["train", *WORDS, "method=baseline", "--results", str(results)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "spaced_kd", "list", "datasets"], capture_output=True, text=True, check=True
    )
    assert "digits" in result.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "spaced_kd", "list", "networks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_recorded_rows_are_drawn_beside_what_is_recorded(tmp_path, monkeypatch, capsys):
    recorded = tmp_path / "results" / "recorded" / "demo"
    recorded.mkdir(parents=True)
    shutil.copy(ROOT / "results" / "recorded" / "theory" / "rows.csv", recorded)
    arguments = ["render", "theory", "--rows", str(recorded / "rows.csv"), "--results", str(tmp_path / "results")]
    assert cli.main([*arguments, "--reference", str(ROOT / "src/spaced_kd/config/preset_files/reference.csv")]) == 0
    assert str(tmp_path / "results" / "demo-recorded" / "tables" / "theory.md") in capsys.readouterr().out
    assert [path.name for path in recorded.iterdir()] == ["rows.csv"]


def test_the_old_name_of_an_option_works_and_warns(monkeypatch, capsys, results):
    monkeypatch.setattr(
        "spaced_kd.training.loop.train",
        lambda spec, *_, save_states_for, **__: pytest.fail(str(save_states_for[0].interval)),
    )
    arguments = ["dataset=digits", "network=resnet_mini", "method=baseline", "seed=0", "--results", str(results)]
    for option in ("--leave", "--save-states-for"):
        with pytest.raises(pytest.fail.Exception, match=r"^1\.5$"):
            cli.main(["train", *arguments, option, "method=online_kd interval=1.5"])
        message = capsys.readouterr().err
        assert ("--leave is now --save-states-for: write that instead" in message) == (option == "--leave")


HEAVY = ("torch", "torchvision", "timm", "matplotlib", "seaborn", "scipy.stats", "pandas", "numpy")


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], []),
        (["train", "--help"], []),
        (["render", "overview", "--rows", "missing.csv", "--output", "any"], ["pandas", "numpy"]),
    ],
)
def test_a_command_imports_what_it_needs(arguments, imported):
    code = (
        "import sys\nfrom spaced_kd.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert result.splitlines()[-1] == str(imported)
