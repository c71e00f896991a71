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
    "training": {"core", "models", "runtime", "training"},  # runtime: to evaluate exported artifacts
}
DEFERRED = {"runtime": {"models"}}  # the torch backend, when it is chosen
FOLDERS = {"core": "cast_sdk", "runtime": "runtime", "export": "export", "training": "training"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for area, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside_models = area == "core" and path.is_relative_to(ROOT / "cast_sdk" / "models")
            found.append(("models" if inside_models else area, path))
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
        "import cast_sdk.runtime.backends, cast_sdk.runtime.drawing, cast_sdk.runtime.benchmark",
    ],
)
def test_importing_loads_nothing_heavy(code: str):
    assert loaded_after(code) == set()


@pytest.mark.parametrize("command", ["cli_segment", "cli_bench", "cli_doctor"])
def test_help_loads_nothing_heavy_and_not_even_numpy(command: str):
    code = f"import sys\nfrom cast_sdk.runtime.{command} import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    assert loaded_after(code + "assert 'numpy' not in sys.modules") == set()
