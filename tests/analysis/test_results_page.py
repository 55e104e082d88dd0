import json
import re
from dataclasses import replace
from importlib.util import find_spec

import pandas as pd
import pytest

from spaced_kd.analysis import reference, results_page, tidy_rows
from spaced_kd.analysis.claims import load as claims_file
from spaced_kd.analysis.claims import verdicts
from spaced_kd.cli.main import main
from spaced_kd.config import presets
from spaced_kd.utils.errors import UserError

needs_bundle = pytest.mark.skipif(find_spec("itables") is None, reason="itables is not installed")


def study(values):
    """Rows of w/o KD, online KD and Spaced KD: accuracy of each by seed; None is a missing run."""
    rows = []
    for (method, interval), found in values.items():
        for seed, value in enumerate(found):
            row = {
                "source": "ours",
                "study": "s",
                "run": f"{method}-{interval}-{seed}",
                "seed": seed,
                "commit": "c0ffee",
            }
            row |= {"dataset": "tiny_imagenet[classes=20,size=32]", "network": "resnet18[width=0.25]"}
            row |= {"teacher": "resnet18[width=0.25]", "method": method, "interval": interval, "recipe": "epochs=10"}
            row |= {"evaluation": "accuracy", "selection": "last", "value": value}
            rows.append(row | {"metric": "missing" if value is None else "accuracy"})
    return tidy_rows.join(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def rows():
    ours = study({("online_kd", "0"): [70.0, 71.0, 69.0], ("online_kd", "1.5"): [73.0, 74.1, 71.9]})
    return tidy_rows.beside(ours, reference.read_reference(presets.REFERENCE))


@pytest.fixture(scope="module")
def judged(rows):
    return verdicts.judge(claims_file.load(presets.CLAIMS, rows), rows)


@pytest.fixture(scope="module")
def main_claim(judged):
    return next(each for each in judged if each.claim.id == "spaced_beats_online" and each.seeds)


RUNS = {"online_kd-1.5-0": {"seed": 0, "command": "spaced-kd train </script>", "commit": "c0ffee", "machine": "m"}}


@needs_bundle
def test_the_page_has_every_verdict_and_its_runs(judged, rows, main_claim):
    content = results_page.page(judged, rows, RUNS, "s & co").decode()
    lines, runs = (
        json.loads(re.search(rf'<script type="application/json" id="{part}">(.*?)</script>', content, re.S)[1])
        for part in ("lines", "runs")
    )
    line = next(line for line in lines if line["ids"]["claim_id"] == "spaced_beats_online" and line["n"])
    assert line["scale"] == "Tiny-ImageNet, 20 classes, 32 px; ResNet-18 x 1/4; 10 epochs"
    assert (line["dataset"], line["network"], line["reading"]) == ("Tiny-ImageNet", "ResNet-18", "textbook")
    assert line["ids"]["dataset"] == "tiny_imagenet[classes=20,size=32]"
    assert line["mean"] == pytest.approx(3.0)
    assert line["verdict"] == main_claim.verdict == "supported"
    assert (line["low"], line["high"]) == tuple(main_claim.interval)
    assert [len(arm["runs"]) for arm in line["arms"]] == [3, 3]
    assert line["arms"][0] == {"name": "Spaced KD, s = 1.5", "runs": [f"online_kd-1.5-{seed}" for seed in range(3)]}
    assert runs["online_kd-1.5-0"] == RUNS["online_kd-1.5-0"]
    assert any(line["verdict"] == "not run" for line in lines)
    assert "results of s &amp; co" in content


@needs_bundle
def test_the_main_claims_come_first_and_each_claims_best_evidence(judged, rows, main_claim):
    larger = replace(main_claim, verdict="inconclusive", steps=(9, 9), mean=None, interval=None)
    content = results_page.page([*reversed(judged), larger], rows, RUNS, "s").decode()
    items = re.findall("<li>(.*?)</li>", content, re.S)
    assert len(items) == 1
    assert "inconclusive</span> Spaced KD beats online KD: no finite difference, 3 seeds" in items[0]
    lines = json.loads(re.search(r'<script type="application/json" id="lines">(.*?)</script>', content, re.S)[1])
    assert [line["word"] for line in lines if line["ids"]["claim_id"] == "spaced_beats_online"] == [
        "inconclusive",
        "supported",
    ]
    assert lines[0]["ids"]["claim_id"] == "spaced_beats_online"


@needs_bundle
def test_the_page_is_one_file_that_asks_for_nothing_and_stays_the_same(judged, rows):
    content = results_page.page(judged, rows, RUNS, "s")
    assert content == results_page.page(list(judged), rows, dict(reversed(RUNS.items())), "s")
    assert len(content) < results_page.LARGEST
    text = content.decode()
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[^"' >]*//""", text)
    assert not re.search(r"@[A-Z]+@", text)
    assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", text)


def test_an_interval_that_goes_on_beyond_the_axis_has_an_arrow(main_claim):
    within = replace(main_claim, mean=3.0, interval=(1.0, 5.0))
    assert results_page.bar(within).count("<polygon") == 0
    assert results_page.bar(replace(within, interval=(1.0, 40.0))).count("<polygon") == 1
    assert results_page.bar(replace(within, interval=(-40.0, 40.0))).count("<polygon") == 2
    assert 'class="paper"' in results_page.bar(within, [1.19, 2.65])
    assert "+1.19 to +2.65" in results_page.bar(within, [1.19, 2.65])
    assert results_page.bar(replace(within, mean=None)) == ""


def test_descriptions_of_runs(tmp_path):
    provenance = {
        "commit": "abc",
        "dirty": True,
        "command": ["spaced-kd", "train", "--leave", "a=1 b=2"],
        "machine": "x",
    }
    run = {
        "id": "r",
        "words": ["method=dml", "network=a b"],
        "spec": {"seed": 3},
        "provenance": provenance,
        "outputs": {"weights.safetensors": "f00d"},
    }
    (tmp_path / "runs.json").write_text(json.dumps([run, {"setting": {}}]))
    assert results_page.descriptions([tmp_path / "rows.csv", tmp_path / "none" / "rows.csv"]) == {
        "r": {
            "seed": 3,
            "command": "spaced-kd train method=dml 'network=a b'",
            "commit": "abc-dirty",
            "machine": "x",
            "checksum": "f00d",
        }
    }


def test_rows_without_a_verdict(tmp_path, capsys):
    path = tmp_path / "s" / "rows.csv"
    path.parent.mkdir()
    tidy_rows.write(study({("online_kd", "0"): [70.0], ("online_kd", "1.5"): [None]}), path)
    assert main(["site", str(path)]) == 2
    message = capsys.readouterr().err
    assert "s has no results for any claim" in message
    assert message.count("\n") == 1
    assert not path.with_name("results.html").exists()


def test_a_study_that_never_ran_and_rows_of_another_version(tmp_path, capsys):
    assert main(["site", str(tmp_path / "rows.csv")]) == 2
    assert f"{tmp_path / 'rows.csv'}: No such file" in capsys.readouterr().err
    (tmp_path / "rows.csv").write_text("study,accuracy\ndemo,70\n")
    assert main(["site", str(tmp_path / "rows.csv")]) == 2
    message = capsys.readouterr().err
    assert "has no column source" in message
    assert message.count("\n") == 1


def test_without_the_package_of_the_table(judged, rows, monkeypatch):
    monkeypatch.setattr(results_page, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        results_page.page(judged, rows, {}, "s")
