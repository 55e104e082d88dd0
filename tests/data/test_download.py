"""Downloads from a server on this machine: whole, resumed, altered, refused; and archives that reach elsewhere."""

import hashlib
import http.server
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import published
import pytest

from spaced_kd.cli import main as cli
from spaced_kd.data.dataset import classes_digest
from spaced_kd.data.datasets import cifar100, imagenet1k, imagenet100, tiny_imagenet
from spaced_kd.data.download import fetch, unzip
from spaced_kd.utils.errors import UserError

CONTENT = bytes(range(256)) * 8000  # 2 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Sends `content`; its faults: a connection cut after `cut` bytes (once), no ranges, an HTTP error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges, self.error = CONTENT, 0, True, 0
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        content = self.server.content[first:]
        status = self.server.error or (416 if first and not content else 206 if first else 200)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status < 400:
            sent, self.server.cut = content[: self.server.cut or None], 0
            self.wfile.write(sent)
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    yield from started()


@pytest.fixture
def other() -> Iterator[Server]:
    yield from started()


def started() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new" / "file.bin"


def nobody() -> str:
    """An address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"


def message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def part_of(target: Path) -> Path:
    return target.with_name("file.bin.part")


def test_a_file_arrives_whole_and_is_not_fetched_again(server, target):
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    fetch([server.url], target, sha256=SHA256)
    assert server.asked == [None]


def test_a_file_that_is_damaged_is_fetched_again(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_where_it_stopped(server, target):
    server.cut = 700_000
    text = message(lambda: fetch([server.url], target, sha256=SHA256))
    assert f"{server.url}: broke off {len(CONTENT) - 700_000} bytes before the end" in text
    assert "which goes on from here, or put it into" in text
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:700_000]
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-"]


def test_the_next_mirror_goes_on_where_the_first_broke_off(server, other, target):
    server.cut = 700_000
    fetch([server.url, other.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert other.asked == ["bytes=700000-"]


def test_a_server_without_ranges_sends_it_anew(server, target):
    server.cut, server.ranges = 700_000, False
    message(lambda: fetch([server.url], target, sha256=SHA256))
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-"]


def test_the_first_mirror_is_down(server, target):
    fetch([nobody(), server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("error", [404, 503])
def test_an_http_error_sends_to_the_next_mirror(server, other, target, error):
    other.error = error
    fetch([other.url, server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_another_file_is_never_taken(server, other, target):
    server.content = CONTENT[:-1] + b"x"
    text = message(lambda: fetch([server.url], target, sha256=SHA256))
    assert f"{server.url}: another file, its sha256 is not {SHA256}" in text
    assert not target.exists()
    assert not part_of(target).exists()
    fetch([server.url, other.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"<html>", CONTENT + b"and more", b"x" + CONTENT[1:]])
def test_a_wrong_beginning_is_thrown_away(server, target, left):
    target.parent.mkdir()
    part_of(target).write_bytes(left)
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(left)}-", None]


def test_a_part_that_is_the_whole_is_taken(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    fetch([server.url], target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_all_mirrors_are_named_when_none_works(server, target):
    server.error = 503
    down = nobody()
    text = message(lambda: fetch([down, server.url], target, sha256=SHA256))
    assert f"file.bin could not be downloaded ({down}: " in text
    assert f"{server.url}: HTTP Error 503" in text


# unpacking


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_an_archive_is_unpacked_beside_itself(tmp_path):
    unzip(zipped(tmp_path / "a.zip", "a/", "a/b/c.txt"), "a")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "a/b/c.txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.zip"]


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "b/evil.txt"])
def test_an_archive_never_writes_elsewhere(tmp_path, name):
    (tmp_path / "in").mkdir()
    archive = zipped(tmp_path / "in" / "a.zip", "a/b.txt", name)
    text = message(lambda: unzip(archive, "a"))
    assert f"{archive} holds {name}, which lies outside a: do not trust it, delete it" in text
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.zip"]
    assert not list(tmp_path.glob("evil*"))


def test_a_damaged_archive_leaves_nothing(tmp_path):
    archive = zipped(tmp_path / "a.zip", "a/b.txt")
    archive.write_bytes(archive.read_bytes()[:-30])
    assert f"{archive} cannot be unpacked (" in message(lambda: unzip(archive, "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


# the command


@pytest.fixture
def archive(tmp_path, server, monkeypatch) -> Path:
    """A small Tiny-ImageNet that the server has, zipped."""
    for name, value in {"CLASSES": 2, "TRAIN_PER_CLASS": 2, "VAL_PER_CLASS": 1}.items():
        monkeypatch.setattr(tiny_imagenet, name, value)
    monkeypatch.setattr(tiny_imagenet, "CLASSES_SHA256", classes_digest(["n1", "n2"]))
    folder = published.tiny_imagenet(tmp_path / "made", ["n1", "n2"], train=2, val=1)
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in folder.rglob("*"):
            file.write(each, each.relative_to(folder.parent))
    server.content = path.read_bytes()
    monkeypatch.setattr(tiny_imagenet, "MIRRORS", (nobody(), server.url))
    monkeypatch.setattr(tiny_imagenet, "SHA256", hashlib.sha256(server.content).hexdigest())
    return path


def test_prepare_downloads_when_it_is_asked_to(tmp_path, server, archive, capsys):
    arguments = ["dataset=tiny_imagenet", "dataset.classes=2", "dataset.train_per_class=2"]
    arguments += ["--source", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    assert cli.main(["prepare", *arguments]) == 2
    assert "has no folder tiny-imagenet-200" in (text := capsys.readouterr().err)
    assert text.rstrip().endswith("or add --download")
    assert not server.asked  # nothing tries the network by itself
    assert cli.main(["prepare", *arguments, "--download"]) == 0
    assert "4 training and 2 test images" in capsys.readouterr().out
    assert cli.main(["prepare", *arguments, "--download"]) == 0
    assert len(server.asked) == 1


def test_cifar100_is_downloaded_as_the_archive_that_is_read(tmp_path, server, monkeypatch):
    monkeypatch.setattr(cifar100, "MIRRORS", (server.url,))
    monkeypatch.setattr(cifar100, "SHA256", SHA256)
    cifar100.download(tmp_path)
    assert (tmp_path / "cifar-100-python.tar.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet1k", "ImageNet cannot be downloaded here, its licence forbids to pass it on: register at https"),
        ("imagenet100", "ImageNet cannot be downloaded here"),
        ("digits", "digits needs no download: leave --download out"),
    ],
)
def test_what_cannot_be_downloaded_says_what_to_do(name, expected, tmp_path, capsys):
    assert cli.main(["prepare", f"dataset={name}", "--download", "--results", str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err


def test_datasets_that_are_downloaded_have_several_mirrors():
    for module in (cifar100, tiny_imagenet):
        assert len(module.MIRRORS) > 1
        assert len(module.SHA256) == 64
    assert imagenet1k.download is imagenet100.download
