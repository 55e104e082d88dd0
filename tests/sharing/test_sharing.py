"""`spaced-kd share` and `get`: a run that went out and came in is the same run; whatever was altered is named."""

import json
import stat
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from conftest import snakemake, tiny
from huggingface_hub import ModelCard

from spaced_kd.api import load_network
from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.data.loading import load_data
from spaced_kd.sharing import checksums
from spaced_kd.training.loop import train
from spaced_kd.training.run_folder import finished
from spaced_kd.utils import array_file
from spaced_kd.utils.files import read_json, sha256

RUN = tiny(method="self_kd", epochs=1)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory) -> Path:
    """Folder of results with one finished run, and what `share` made of it beside it: shared/, shared.zip."""
    results = tmp_path_factory.mktemp("trained") / "results"
    results.mkdir()
    (results / "data").symlink_to(digits / "data")
    train(RUN, results)
    for name in ("shared", "shared.zip"):
        assert cli.main(["share", RUN.id, "--to", str(results.parent / name), "--results", str(results)]) == 0
    return results


@pytest.fixture
def shared(trained, tmp_path) -> Path:
    """A copy of the shared folder, to be altered."""
    with zipfile.ZipFile(trained.parent / "shared.zip") as file:
        file.extractall(tmp_path / "shared")
    return tmp_path / "shared" / RUN.id


def got(source: str | Path, results: Path, *more: str) -> int:
    return cli.main(["get", str(source), "--results", str(results), *more])


def refused(source: str | Path, results: Path, capsys, *more: str) -> str:
    """The one line in which `get` refuses a source; nothing may be left of it."""
    assert got(source, results, *more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not list(results.glob("runs/*"))
    assert not list(results.glob(".get*"))
    new = results / "new" / "results"  # not even an empty folder
    assert got(source, new, *more) == 2
    assert capsys.readouterr().err
    assert not new.parent.exists()
    return error


def test_a_run_that_came_in_is_finished_and_predicts_the_same_to_the_image(trained, results, capsys):
    assert got(trained.parent / "shared", results) == 0
    assert finished(RUN, ResultPaths(results))
    assert cli.main(["verify", str(results), "--reevaluate"]) == 0
    assert "0 findings in 1 runs, 0 rows, 0 tables, 60 images predicted again" in capsys.readouterr().out
    assert cli.main(["evaluate", RUN.id, "weight_noise", "weight_noise.images=9", "--results", str(results)]) == 0
    before = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/*")}
    assert got(trained.parent / "shared.zip", results) == 0
    assert "is there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results.glob("runs/*/*")} == before


def test_three_lines_load_the_network(trained):
    network, normalise = load_network(trained.parent / "shared" / RUN.id)
    data = load_data(RUN, ResultPaths(trained))
    with torch.no_grad():
        logits = network(normalise(data.images["test"]))
    stored, _ = array_file.read(ResultPaths(trained).run(RUN) / "predictions.safetensors", remedy="")
    assert logits.argmax(1).tolist() == stored["predictions"][-1].tolist()


def test_the_card_has_metadata_as_a_hub_reads_it(trained):
    folder = trained.parent / "shared" / RUN.id
    card = ModelCard.load(folder / "README.md").data
    (result,) = card.eval_results
    rows = read_json(folder / "rows.json", list)
    assert result.metric_value == pytest.approx(next(r["value"] for r in rows if r["selection"] == "last"), abs=1e-4)
    low, high = result.metric_args["interval_95"]
    assert low < result.metric_value < high
    assert (card.license, card.reading, result.dataset_type) == ("apache-2.0", "textbook", "digits")
    commit = read_json(folder / "run.json", dict)["provenance"]["commit"]
    assert card.commit.startswith(commit)
    assert len(max((folder / "README.md").read_text().split("---")[1].splitlines(), key=len)) < 120


def test_the_same_runs_give_the_same_archive(trained, tmp_path):
    again = tmp_path / "again.zip"
    assert cli.main(["share", RUN.id, "--to", str(again), "--results", str(trained)]) == 0
    assert sha256(again) == sha256(trained.parent / "shared.zip")


@pytest.mark.parametrize("name", ["README.md", "weights.safetensors", "predictions.safetensors", "run.json"])
def test_an_altered_file_is_named(shared, results, capsys, name):
    (shared / name).write_bytes((shared / name).read_bytes() + b" ")
    message = refused(shared, results, capsys)
    assert str(shared / name) in message
    assert "is not the file that was shared" in message


def test_checksums_that_fit_do_not_hide_other_weights(shared, results, capsys):
    (shared / "weights.safetensors").write_bytes(b"others")
    checksums.write(shared)
    assert "weights.safetensors is not what the run wrote" in refused(shared, results, capsys)


def test_a_description_of_another_run_is_refused(shared, results, capsys):
    described = read_json(shared / "run.json", dict)
    described["words"] = [word.replace("seed=0", "seed=1") for word in described["words"]]
    (shared / "run.json").write_text(json.dumps(described))
    checksums.write(shared)
    assert "seed=0, but seed is now 1" in refused(shared, results, capsys)


def test_a_file_that_is_missing_is_named(shared, results, capsys):
    (shared / "rows.json").unlink()
    assert "rows.json is missing" in refused(shared, results, capsys)
    checksums.write(shared)
    assert "lacks rows.json" in refused(shared, results, capsys)


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", ".hidden", "a/../../b"])
def test_a_list_with_a_name_outside_of_the_folder_is_refused(shared, results, capsys, name):
    with (shared / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    assert "is not a checksum and a file below the folder" in refused(shared, results, capsys)


def test_of_several_runs_all_come_or_none(trained, shared, results, capsys):
    other = shared.with_name("zz")
    other.mkdir()
    (other / "run.json").write_text("{}")
    assert f"{other} has no SHA256SUMS" in refused(shared.parent, results, capsys)


def test_another_run_in_its_place_is_left_alone(trained, results, capsys):
    there = ResultPaths(results).run(RUN)
    there.mkdir(parents=True)
    (there / "run.json").write_text('{"outputs": {"weights.safetensors": "0"}}')
    assert got(trained.parent / "shared", results) == 2
    assert "exists and is not this run to the bit" in capsys.readouterr().err
    assert [path.name for path in there.iterdir()] == ["run.json"]


@pytest.fixture
def server(trained):
    """What lies beside the results, and a page, on a server of this machine; gives its address."""
    (trained.parent / "page.zip").write_text("\n<!DOCTYPE html><title>Sign in</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(trained.parent))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", ["shared.zip", f"shared/{RUN.id}"])
def test_an_address_of_an_archive_or_of_a_folder(server, results, path):
    assert got(f"{server}/{path}", results) == 0
    assert finished(RUN, ResultPaths(results))


def test_an_address_that_does_not_give_a_file_is_refused(server, results, capsys):
    assert "page.zip gives an HTML page, not a file" in refused(f"{server}/page.zip", results, capsys)
    for path in ("none.zip", "page.html"):  # the second is taken for a folder
        told = refused(f"{server}/{path}", results, capsys)
        assert "HTTP Error 404: File not found): name the address of a .zip archive, or of the folder" in told
    assert "more than 0.0001 GB" in refused(f"{server}/shared.zip", results, capsys, "--limit", "0.0001")
    assert "more than 0.0001 GB" in refused(f"{server}/shared/{RUN.id}", results, capsys, "--limit", "0.0001")


def archive(path: Path, name: str, mode: int = 0o644) -> Path:
    """An archive with one member."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(info, bytes(1_000_000))
    return path


def test_an_archive_that_is_too_large_damaged_or_leads_out_is_refused(trained, results, tmp_path, capsys):
    assert "more than 0.0005 GB" in refused(archive(tmp_path / "1.zip", "a"), results, capsys, "--limit", "0.0005")
    for name, mode in (("../a", 0o644), ("/a", 0o644), ("a", stat.S_IFLNK | 0o777)):
        assert "leads out of it" in refused(archive(tmp_path / "2.zip", name, mode), results, capsys)
    assert "has no shared run" in refused(archive(tmp_path / "3.zip", "a"), results, capsys)
    (tmp_path / "4.zip").write_bytes((trained.parent / "shared.zip").read_bytes()[:-100])
    assert "is not a whole zip archive" in refused(tmp_path / "4.zip", results, capsys)
    assert "does not exist" in refused(tmp_path / "5.zip", results, capsys)
    assert not list(tmp_path.parent.glob("a"))


def test_what_cannot_be_shared_leaves_nothing(trained, tmp_path, capsys):
    def told(*arguments: str) -> str:
        assert cli.main(["share", *arguments, "--results", str(trained)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    (tmp_path / "there").mkdir()
    assert "there exists: name a new folder" in told(RUN.id, "--to", str(tmp_path / "there"))
    assert "none is not a folder" in told(RUN.id, "--to", str(tmp_path / "none" / "new"))
    assert "train the run first" in told(RUN.id, "other", "--to", str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.slow
def test_a_study_counts_runs_that_came_in_as_finished(trained, checkout):
    arguments = {word.partition("=")[0]: yaml.safe_load(word.partition("=")[2]) for word in RUN.overrides()}
    (checkout / "results").mkdir()
    (checkout / "results" / "data").symlink_to((trained / "data").resolve())
    assert got(trained.parent / "shared", checkout / "results") == 0
    planned = snakemake(checkout, {"study": "trial", "grids": [arguments]}, "-n", "--cores", "1")
    assert planned.returncode == 0, planned.stderr
    assert "collect" in planned.stdout
    assert "\ntrain " not in planned.stdout
