"""The arrows between packages, and what must stay out of a light installation's memory."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "cv2", "openvino", "PIL")
# Who may import whom when the module is imported. Inside functions `deferred` is allowed too.
ALLOWED = {
    "core": {"core"},
    "models": {"core", "models"},
    "runtime": {"core", "runtime"},
    "export": {"core", "models", "runtime", "export"},
    "training": {"core", "models", "runtime", "export", "training"},  # to evaluate, and to finish with an artifact
}
DEFERRED = {"runtime": {"models", "export"}}  # the torch backend, when it is chosen: it runs what an export is made of
FOLDERS = {"core": "cast_sdk", "runtime": "runtime", "export": "export", "training": "training"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for area, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.resolve() != path:  # cast_sdk/runtime and its like are links to the folders beside it
                continue
            inside_models = area == "core" and path.is_relative_to(ROOT / "cast_sdk" / "models")
            runs_commands = path.name == "__main__.py"
            found.append(("models" if inside_models else "runtime" if runs_commands else area, path))
    return found


def area_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "core"


def imports(tree: ast.Module) -> list[tuple[str, bool]]:
    """Imported modules and whether they are deferred: in a function, or for type checkers only."""
    found = []

    def visit(node: ast.AST, deferred: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from cast_sdk import runtime` imports the package, not only the name.
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "cast_sdk" else []
            found.extend((name, deferred) for name in names or [node.module])
        inner = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        inner = inner or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(tree, False)
    return found


@pytest.mark.parametrize("area, path", modules(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_arrows(area: str, path: Path):
    lazy_names = path == ROOT / "cast_sdk" / "__init__.py"  # the public names, under TYPE_CHECKING and by name
    for module, deferred in imports(ast.parse(path.read_text())):
        if not module.startswith("cast_sdk") or (lazy_names and deferred):
            continue
        allowed = ALLOWED[area] | (DEFERRED.get(area, set()) if deferred else set())
        assert area_of(module) in allowed, f"{path.relative_to(ROOT)} ({area}) imports {module}"


def dotted(path: Path) -> str:
    """Name of a module file as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "cast_sdk" else ("cast_sdk", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_imported(tree: ast.Module, files: set[str]) -> set[str]:
    """Modules of this project that a file imports anywhere, but for type checkers only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & files or {str(node.module)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found & files


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle, or nothing."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            done.add(module)
            for other in sorted(arrows[module]):
                if found := walk(other, [*way, module]):
                    return found
        return []

    return next((found for module in sorted(arrows) if (found := walk(module, []))), [])


def test_no_file_imports_itself_through_others():
    files = {dotted(path): path for _, path in modules()}
    known = set(files)
    arrows = {name: files_imported(ast.parse(path.read_text()), known) - {name} for name, path in files.items()}
    assert not circle(arrows), " -> ".join(circle(arrows))
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# Inside runtime/: the rooms that a frame passes do not know the programs built on them, and nobody knows the commands.
BELOW = {"backends", "engine", "output", "sources"}
ABOVE = {"camera", "service", "bulk"}


def rooms() -> list[tuple[str, str]]:
    files = {dotted(path): path for _, path in modules()}
    pairs = []
    for name, path in files.items():
        for other in files_imported(ast.parse(path.read_text()), set(files)):
            if name.startswith("cast_sdk.runtime.") and other.startswith("cast_sdk.runtime."):
                pairs.append((name.removeprefix("cast_sdk.runtime."), other.removeprefix("cast_sdk.runtime.")))
    return pairs


def test_rooms_of_the_runtime():
    for name, other in rooms():
        room, used = name.partition(".")[0], other.partition(".")[0]
        assert used != "commands" or room == "commands", f"{name} imports {other}"
        assert not (room in BELOW and used in ABOVE), f"{name} imports {other}"


def test_no_folder_is_a_corridor():
    folders: dict[Path, int] = {}
    for folder in ("cast_sdk", "runtime", "export", "training", "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            folders[path.parent.resolve()] = folders.get(path.parent.resolve(), 0) + 1
    crowded = {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > 15}
    assert not crowded


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import cast_sdk",
        "from cast_sdk import Runtime, Segmentation, ModelSpec",
        "import cast_sdk.superpixels, cast_sdk.hierarchy, cast_sdk.artifact",
        "import cast_sdk.runtime.backends.opening, cast_sdk.runtime.output.drawing",
        "import cast_sdk.runtime.commands.benchmark",
    ],
)
def test_importing_loads_nothing_heavy(code: str):
    assert loaded_after(code) == set()


@pytest.mark.parametrize("command", ["segment", "bench", "doctor"])
def test_help_loads_nothing_heavy_and_not_even_numpy(command: str):
    code = f"from cast_sdk.runtime.commands.{command} import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code = f"import sys\n{code}"
    assert loaded_after(code + "assert 'numpy' not in sys.modules") == set()
