"""The documentation: every block of code runs, or says why not; the site builds, and no request leaves it.

A page is one walk through a copy of the repository, its blocks in order. A fence with a title is a file, which is
written; `bash` and `python` are run; a block after `<!-- output -->` has to be in what the command before it printed,
with `...` for what differs. `<!-- not run: WHY -->` before a block leaves it out, `<!-- full: WHY -->` leaves it to
`make docs-full`.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FULL = "DOCS_FULL" in os.environ
BLOCKS = FULL or "DOCS_BLOCKS" in os.environ
FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>[\w ]+?)(?:: (?P<why>[^>]*?))? -->\n)?"
    r"^(?P<indent> *)(?P<ticks>```+) *(?P<language>[\w-]*) *(?P<options>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=indent)(?P=ticks) *$",
    re.M | re.S,
)
LANGUAGES = ("bash", "python", "yaml", "toml", "text")
MARKS = (None, "output", "not run", "full", "full output")
MINUTES = 30


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    mark: str | None
    why: str
    body: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def does_something(self) -> bool:
        """Whether it is a command, or a file that commands use."""
        return bool(self.title) or self.language in ("bash", "python")


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


@cache
def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for fence in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', fence["options"])
        body = "\n".join(line.removeprefix(fence["indent"]) for line in fence["body"].split("\n"))
        line = text.count("\n", 0, fence.start("ticks")) + 1
        found.append(
            Block(page, line, fence["language"], title[1] if title else "", fence["mark"], fence["why"] or "", body)
        )
    return found


ALL = [block for page in pages() for block in blocks(page)]


def runs(block: Block) -> bool:
    """Whether a walk does something for a block."""
    return block.does_something and block.mark != "not run" and (FULL or block.mark != "full")


WALKS = [page for page in pages() if any(map(runs, blocks(page)))]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_blocks_are_well_formed(block):
    assert block.language in LANGUAGES, f"{block}: give the fence one of the languages {', '.join(LANGUAGES)}"
    assert block.mark in MARKS, f"{block}: the mark is {block.mark!r}, but must be one of {MARKS}"
    if block.mark in ("not run", "full"):
        assert len(block.why) > 5, f"{block}: say why it is not run"
    parse = {"yaml": yaml.safe_load, "toml": tomllib.loads, "python": ast.parse}.get(block.language)
    if parse:
        parse(block.body)


def test_the_fences_are_all_found():
    for page in pages():
        assert 2 * len(blocks(page)) == len(re.findall(r"^ *```", page.read_text(), re.M)), page


KEYED = ("study_keys", "run_keys", "row_columns", "switch_descriptions", "protocols", "claims")


@pytest.mark.parametrize("name", KEYED)
def test_every_key_column_and_switch_has_a_description(name, monkeypatch):
    """Without MkDocs: whoever adds one is told at once."""
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    made = import_module("generated").PARTS[name]()
    assert made.count("\n| ") > 5


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """The repository's files as they are now, committed, so that runs have a commit."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    listing = "\0".join(name for name in listed if (name and (ROOT / name).exists()) or (ROOT / name).is_symlink())
    copy = f"tar -C '{ROOT}' --null --no-recursion -T - -cf - | tar -C '{folder}' -xf -"
    subprocess.run(["sh", "-c", copy], input=listing, text=True, check=True)
    me = ["-c", "user.name=Docs", "-c", "user.email=docs@example.org"]
    for arguments in (["init", "-q"], ["add", "--all"], [*me, "commit", "-qm", "The repository as it is"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def walk(page: Path, folder: Path) -> None:
    """Do what a page says, block by block; a failure names the block's line."""
    shims = folder / ".bin"
    shims.mkdir()
    for name, module in {"spaced-kd": "spaced_kd", "pytest": "pytest"}.items():
        (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (shims / name).chmod(0o755)
    paths = [str(shims), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(paths), "PYTHONPATH": f"{folder / 'src'}:{folder}"}
    environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "COLUMNS": "200"}
    printed = ""
    for block in blocks(page):
        if block.mark == "not run" or (block.mark in ("full", "full output") and not FULL):
            continue
        if block.mark in ("output", "full output"):
            assert_printed(block, printed)
        elif block.title:
            path = folder / block.title
            assert path.resolve().is_relative_to(folder.resolve()), f"{block}: {block.title} is outside of the copy"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
        elif block.language in ("bash", "python"):
            command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
            made = subprocess.run(
                [*command, block.body],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60 * MINUTES,
            )
            printed = made.stdout + made.stderr
            assert made.returncode == 0, f"{block}: exit status {made.returncode}\n{block.body}\n{printed[-4000:]}"


def assert_printed(block: Block, printed: str) -> None:
    """Each line of the block is in what was printed, in this order; `...` stands for anything."""
    patterns = [re.escape(line.strip()).replace(r"\.\.\.", ".*") for line in block.body.splitlines()]
    rest = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (" ".join(pattern.replace(r"\ ", " ").split()) for pattern in patterns):
        if line in ("", ".*"):
            continue
        hits = [number for number, text in enumerate(rest) if re.fullmatch(line, text)]
        assert hits, f"{block}: the command before it does not print, in this place, {line}\n{printed[-4000:]}"
        rest = rest[hits[0] + 1 :]


@pytest.mark.slow
@pytest.mark.skipif(not BLOCKS, reason="ten minutes: make docs-blocks")
@pytest.mark.parametrize("page", WALKS, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_says_works(page, template, tmp_path):
    folder = tmp_path / "clone"
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)
    walk(page, folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if built := os.environ.get("DOCS_SITE"):
        return Path(built)
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    folder = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.mark.slow
def test_no_request_leaves_the_site(site):
    source = r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//"""
    asked = re.compile(source + r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//""")
    styles = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")
    for path in site.rglob("*.html"):
        assert not asked.search(path.read_text()), path
    for path in site.rglob("*.css"):
        assert not styles.search(path.read_text()), path


@pytest.mark.slow
def test_every_generated_part_is_made(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 40
    for path in pages:
        assert "<!-- generated:" not in path.read_text(), path
