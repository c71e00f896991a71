"""What cast-export writes for browsers, without a browser."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from browser import missing
from click.testing import CliRunner
from export_tools import small_model
from foreign_graphs import PLAIN, foreign, with_fields

from cast_sdk.artifact import INFO_KEY, SPEC_KEY
from cast_sdk.bundled import path as bundled
from cast_sdk.errors import ArtifactError, ExportError, MissingDependencyError
from cast_sdk.export.cli import main
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.web import assemble, onnxruntime_web
from cast_sdk.export.web.assemble import write_folder, write_single_file
from cast_sdk.runtime.output.page import element_hash, inline_page, join_modules, page_folder

MODEL = bundled("cast_tiny.onnx")


def listing(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="files">(.*?)</script>', html)[1])


def policy(html: str) -> str:
    return re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]


def test_the_folder_is_complete(site):
    html = (site / "index.html").read_text()
    files = listing(html)
    named = [files["model"], files["kernel"], *files["runtime"].values(), *(s["file"] for s in files["samples"])]
    assert all((site / name).stat().st_size for name in named)
    assert (site / "model.onnx").read_bytes() == MODEL.read_bytes()
    modules = {path.name: path.read_text() for path in site.glob("*.js")}
    imported = {name for text in modules.values() for name in re.findall(r'^import .* from "\./(.*)";', text, re.M)}
    assert imported <= set(modules) and set(re.findall(r'(?:src|href)="([\w.]+)"', html)) <= {
        p.name for p in site.iterdir()
    }
    assert "Microsoft" in (site / "LICENSES.txt").read_text() and "CC0" in (site / "LICENSES.txt").read_text()
    assert "default-src 'none'" in policy(html) and "unsafe-inline" not in policy(html)


def test_the_size_budget(site):
    """What a host that compresses sends for a first visit."""
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 6)) for path in site.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    assert total <= 14e6, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_nothing_is_loaded_from_elsewhere(site):
    own = [p for p in site.rglob("*") if p.suffix in (".js", ".html", ".css")]
    addresses = {a for p in own for a in re.findall(r"https?://[^\s'\"`)]+", p.read_text())}
    assert addresses == {"http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def single_file(tmp_path_factory):
    try:
        return write_single_file(MODEL, tmp_path_factory.mktemp("single") / "page.html")
    except MissingDependencyError as error:
        missing(str(error))


def test_the_single_file_holds_everything(single_file):
    html = single_file.read_text()
    files = listing(html)
    parts = re.findall(r'data-file="([^"]+)">', html)
    assert set(parts) == {files["model"], files["kernel"], *files["runtime"].values()}
    assert all(sample["file"].startswith("data:image/jpeg;base64,") for sample in files["samples"])
    assert 'src="' not in html.replace("data:", "") and '<link rel="stylesheet"' not in html
    assert element_hash(html, "script") in policy(html) and "'self'" not in policy(html)
    assert single_file.stat().st_size < 19e6


def test_what_exists_is_not_replaced(site, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="already"):
        write_folder(MODEL, tmp_path)
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(ExportError, match="already"):
        write_single_file(MODEL, tmp_path / "page.html")
    with pytest.raises(ExportError, match="no name for a page"):
        write_single_file(MODEL, tmp_path / "page.txt")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"mine.txt": "mine", "page.html": "mine"}


def test_models_that_the_page_cannot_run_are_refused(tmp_path):
    export_onnx(small_model("vit_conv_small"), tmp_path / "vit.onnx", verify=False)
    with pytest.raises(ExportError, match="does not classify"):
        write_folder(tmp_path / "vit.onnx", tmp_path / "site")
    merged = foreign(**{SPEC_KEY: with_fields(grouping="merged"), INFO_KEY: with_fields(outputs=PLAIN)})
    (tmp_path / "merged.onnx").write_bytes(merged)
    with pytest.raises(ExportError, match=r"lacks outputs(.|\n)*no assignment1, assignment2, assignment3, assignment4"):
        write_folder(tmp_path / "merged.onnx", tmp_path / "site")
    (tmp_path / "cut.onnx").write_bytes(MODEL.read_bytes()[:5000])
    with pytest.raises(ArtifactError):
        write_folder(tmp_path / "cut.onnx", tmp_path / "site")
    with pytest.raises(ExportError, match=r"no file .*none\.onnx"):
        write_folder(tmp_path / "none.onnx", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_another_runtime_is_taken_and_told(tmp_path):
    for name in onnxruntime_web.WASM:
        (tmp_path / name).write_bytes(b"another")
    said: list[str] = []
    found = onnxruntime_web.find_runtime(tmp_path, onnxruntime_web.WASM, said.append)
    assert found.script.parent == tmp_path and len(said) == 2 and "tested" in said[0]
    with pytest.raises(ExportError, match=r"no ort\.webgpu"):
        onnxruntime_web.find_runtime(tmp_path, onnxruntime_web.WEBGPU, said.append)


def test_a_package_with_another_digest_is_refused(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nprintf x > onnxruntime-web.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ExportError, match="pinned digest"):
        onnxruntime_web.find_runtime(None, onnxruntime_web.WASM, print)
    assert not list((tmp_path / "cache").rglob("*.mjs"))


@pytest.mark.parametrize("script", ["exit 1", "echo offline >&2; exit 1"])
def test_npm_that_cannot_fetch_is_told(tmp_path, monkeypatch, script):
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingDependencyError, match="--runtime"):
        onnxruntime_web.find_runtime(None, onnxruntime_web.WASM, print)


def test_the_command(site, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    done = run("--web", tmp_path / "new", "--runtime", site)
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "new").iterdir()} == {p.name for p in site.iterdir()}
    assert "http.server" in done.output
    for arguments, message in (
        (("--web", tmp_path / "new"), "already"),
        (("--web", tmp_path / "a", "--trt"), "--trt"),
        (("--web", tmp_path / "a", "--onnx", "x.onnx", "--ckpt", "y.pth"), "--ckpt and --onnx"),
        (("--web", tmp_path / "a", "--onnx", tmp_path / "x.onnx"), "no file"),
        (("--web", tmp_path / "a", "--runtime", tmp_path), "no ort.wasm"),
        (("--single-file", tmp_path / "a.txt"), ".html"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output, done.output
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_modules_are_joined(tmp_path):
    (tmp_path / "a.js").write_text('import { b, C } from "./b.js";\nimport { d } from "./d.js";\nuse(b, C, d);\n')
    (tmp_path / "b.js").write_text(
        'import { d } from "./d.js";\nexport const b = d;\nconst hidden = 1;\nexport class C {}\n'
    )
    (tmp_path / "d.js").write_text("export async function d() {}\nconst hidden = 2;\n")
    joined = join_modules("a.js", [tmp_path])
    assert joined.index("module_d =") < joined.index("module_b =") < joined.index("use(b, C, d)")
    assert joined.count("async function d") == 1 and "return { b, C };" in joined
    assert not re.search(r"^(import|export)", joined, re.M)
    for text, message in (
        ('import x from "./d.js";\n', "does not know"),
        ("export { a };\n", "does not know"),
        ("const a = '</script>';\n", "does not know"),
        ('import { x } from "./none.js";\n', "no file"),
        ('import { x } from "./e.js";\n', "each other"),
    ):
        (tmp_path / "e.js").write_text(text)
        with pytest.raises(ValueError, match=message):
            join_modules("e.js", [tmp_path])


def test_a_page_is_inlined(tmp_path):
    (tmp_path / "a.css").write_text("a {}\n")
    (tmp_path / "b.css").write_text("b {}\n")
    (tmp_path / "a.js").write_text("start();\n")
    page = tmp_path / "index.html"
    page.write_text(
        '<link rel="stylesheet" href="a.css">\n<link rel="stylesheet" href="b.css">\n'
        '<script type="module" src="a.js"></script>'
    )
    html = inline_page(page, [tmp_path])
    assert html == '<style>a {}\nb {}\n</style>\n<script>"use strict";\nstart();\n</script>'
    assert element_hash(html, "script").startswith("'sha256-")


def test_every_module_joins():
    folders = (assemble.PAGE, page_folder())
    for entry in ("page.js", "worker.js"):
        assert len(join_modules(entry, folders)) > 5000
