"""Remedies name packages that exist, with the bounds of pyproject.toml."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from cast_sdk.errors import MissingDependencyError
from cast_sdk.system import installing

ROOT = Path(__file__).parents[2]


def versions(monkeypatch, known):
    def version(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("numpy>=1.24.0", ("numpy", ">=1.24.0", "")),
        ('torch>=2.9.0; extra == "export"', ("torch", ">=2.9.0", 'extra == "export"')),
        ("cast-sdk[export,train]; extra == 'dev'", ("cast-sdk", "", "extra == 'dev'")),
    ],
)
def test_parsing(line, expected):
    assert installing.parse(line) == expected


def test_only_what_is_missing_or_too_old_is_named(monkeypatch):
    asked = {one.name: one.lowest for one in installing.requirements("export")}
    assert {"torch", "onnx", "onnxscript"} <= set(asked)
    versions(monkeypatch, {**asked, "torch": "2.4.1"})
    with pytest.raises(MissingDependencyError, match=r"Exporting needs torch\.") as caught:
        installing.require("export", "Exporting")
    assert "torch 2.4.1" in caught.value.found
    assert caught.value.remedy == f"pip install 'torch>={asked['torch']}'"
    versions(monkeypatch, {**asked, "torch": f"{asked['torch']}a0+nv25.1"})
    installing.require("export", "Exporting")


def test_a_failed_import_names_the_package_and_its_extra(monkeypatch):
    versions(monkeypatch, {})
    error = installing.explain(ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript"), "export")
    assert "onnxscript" in error.problem and "'onnxscript>=" in error.remedy
    error = installing.explain(ModuleNotFoundError("No module named 'PIL'", name="PIL"), "hub")
    assert error.remedy == "pip install pillow"


def test_installing_again_names_the_source():
    assert installing.install_again().startswith("pip install --force-reinstall --no-deps ")


def test_no_remedy_asks_an_index_for_this_package():
    for folder in ("cast_sdk", "runtime", "export", "training", "examples", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".html") and path.resolve() == path:
                found = re.findall(r"pip install [^\n]*\bcast-sdk\b[^\n]*", path.read_text())
                assert not found, f"{path}: {found}"


def test_every_extra_that_the_code_names_exists():
    names = set(metadata.metadata("cast-sdk").get_all("Provides-Extra") or [])
    for folder in ("cast_sdk", "runtime", "export", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            used = set(re.findall(r"""(?:pip_install|require)\(["\']([\w-]+)["\']""", path.read_text()))
            assert used <= names, path
