"""What the README promises: links, commands with their options, recipes, and the Python example."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """Command lines of the page: shell blocks (continued lines joined) and the table of commands."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.S)).replace("\\\n", " ")
    table = re.findall(r"^\| `(cast-[^`]+)` \|", PAGE, re.M)
    return [shlex.split(line, comments=True) for line in [*blocks.splitlines(), *table] if line.strip()]


def test_links_exist():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in t]
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing


@pytest.mark.parametrize("words", [w for w in commands() if "training/" in " ".join(w)], ids=lambda w: w[1])
def test_training_commands(words):
    program = ROOT / words[1]
    text = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, check=True).stdout
    for option in [word for word in words if word.startswith("--")]:
        assert option in text, option
    recipe = words[words.index("--recipe") + 1]
    assert (ROOT / "training" / "recipes" / f"{recipe}.yaml").is_file()


@pytest.mark.parametrize("words", [w for w in commands() if w[0].startswith("cast-")], ids=lambda w: w[0])
def test_console_commands(words):
    command = Path(sys.executable).parent / words[0]
    text = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for option in [word for word in words if word.startswith("--")]:
        assert option in text, option


def planned(target: str) -> str:
    """What `make` would do for a target; also where these tests are themselves run by make."""
    command = ["make", "--no-print-directory", "-nB", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_does_what_the_page_says():
    made = planned("demo")
    assert "install --quiet -e ." in made and "[" not in made, "the demo needs the base installation only"
    assert "examples/demo.py" in made
    made = planned("test")
    assert ".[dev]" in made and "-m pytest" in made


@pytest.mark.parametrize("stamp", [".demo", ".export", ".dev"])
def test_make_builds_a_changed_kernel_again(tmp_path, stamp):
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", stamp):
        (tmp_path / name).touch()
    command = ["make", "--no-print-directory", "-n", f"VENV={tmp_path}", f"{tmp_path}/{stamp}"]

    def planned(*changed: str) -> str:
        words = [word for name in changed for word in ("-W", name)]
        return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    sources = re.findall(r'"([\w/]+\.cpp)"', (ROOT / "setup.py").read_text())
    assert len(sources) == 6 and "install" not in planned()
    folders = ROOT / "cast_sdk" / "superpixels", ROOT / "runtime" / "tracking"
    headers = [path.relative_to(ROOT).as_posix() for folder in folders for path in folder.glob("*.h")]
    assert len(headers) == 4
    for source in sources + headers:
        assert "install --quiet -e" in planned(source), source


def test_python_example(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S).group(1)
    once, _, stream = code.partition("for seg in rt.stream")
    (tmp_path / "photo.jpg").write_bytes((ROOT / "examples" / "photos" / "cat.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(once, names)
    assert names["seg"].labels(2).shape == (300, 451)
    assert (tmp_path / "levels.png").stat().st_size > 10_000
    source = re.search(r'"rtsp://[^"]+"', stream).group(0)
    exec("for seg in rt.stream" + stream.replace(source, '"test://?count=3"'), names)
    assert names["seg"].index == 2


def test_demo(tmp_path):
    demo = [sys.executable, ROOT / "examples" / "demo.py", "--out", tmp_path]
    done = subprocess.run(demo, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("milliseconds:") == 3
    for name in ("cat", "coffee", "rocket"):
        assert (tmp_path / f"{name}_levels.png").exists() and (tmp_path / f"{name}_levels.json").exists()


def test_demo_of_the_export(tmp_path):
    demo = [sys.executable, ROOT / "examples" / "demo_export.py", "--out", tmp_path]
    done = subprocess.run(demo, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Milliseconds:" in done.stdout
    assert (tmp_path / "cast_tiny.onnx").exists() and (tmp_path / "coffee_levels.png").exists()
