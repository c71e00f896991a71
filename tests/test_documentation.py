"""Every page: its commands exist with their options, its Python compiles and names what exists, the tutorials run."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import cast_sdk

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "examples" / "deploy" / "README.md"])


def blocks(page: Path, languages: str) -> list[str]:
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", page.read_text(), re.S | re.M)


def commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "bash|sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.append((page.relative_to(ROOT).as_posix(), words))
    return found


@cache
def help_of(*program: str) -> str:
    done = subprocess.run([*program, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program_of(words: list[str]) -> list[str] | None:
    """The program of a command line of this package, with its subcommand; None for other programs."""
    here = Path(sys.executable).parent
    for index, word in enumerate(words):
        name = Path(word).name
        if name.startswith("cast-") and (here / name).exists():
            after = words[index + 1 : index + 2]
            subcommand = (
                after if name in ("cast-export", "cast-doctor", "cast-train") and after and after[0].isalpha() else []
            )
            return [str(here / name), *subcommand]
        if re.fullmatch(r"(training|examples|benchmarks)/[\w/]+\.py", word):
            after = words[index + 1 : index + 2]
            known = re.search(r"^Commands:", help_of(sys.executable, word), re.M)
            return [sys.executable, word, *(after if known and after else [])]
    return None


OURS = [(page, words) for page, words in commands() if program_of(words)]


def test_the_pages_have_commands():
    assert len(OURS) > 40 and len({page for page, _ in OURS}) > 8


@pytest.mark.parametrize("page, words", OURS, ids=lambda value: value if isinstance(value, str) else value[0][-30:])
def test_options_exist(page, words):
    program = program_of(words)
    text = help_of(*program)
    start = next(i for i, word in enumerate(words) if Path(word).name == Path(program[-1]).name or word == program[-1])
    for option in [word.partition("=")[0] for word in words[start:] if re.match(r"--[a-z]", word)]:
        assert option in text, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_python_names_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cast_sdk":
                assert hasattr(cast_sdk, node.attr), f"{page}: cast_sdk.{node.attr}"


@pytest.mark.parametrize("name", ["jetson", "folder", "shipping"])
def test_tutorials_run(name, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    shutil.copytree(ROOT / "examples" / "photos", photos, ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(photos / "cat.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "tutorials" / f"{name}.md", "python"):
        exec(block, names)
    assert len(names) > 3
