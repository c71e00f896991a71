"""The page from its parts: a static folder, or one file that holds everything."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cast_sdk
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ExportError
from cast_sdk.export.web.onnxruntime_web import LICENCE, VERSION, WASM, WEBGPU, RuntimeFiles, find_runtime
from cast_sdk.runtime.backends.ports import expected_outputs
from cast_sdk.runtime.engine.onnx_metadata import read_description
from cast_sdk.runtime.output.page import element_hash, inline_page, join_modules, page_folder
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, writing

Say = Callable[[str], None]

MODEL, KERNEL = "model.onnx", "kernel.wasm"
SAMPLES = ("cat", "coffee", "rocket", "astronaut")
_HERE = Path(__file__).parent
PAGE = _HERE / "page"
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; "


@dataclass(frozen=True)
class _Parts:
    """What every page is made of: files by the name they get, and the list of them that the page reads."""

    files: dict[str, Path]
    listing: dict[str, Any]


def write_folder(
    onnx: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    runtime: str | os.PathLike[str] | None = None,
    webgpu: bool = False,
    say: Say = lambda line: None,
) -> Path:
    """A folder for any static host: the page, the graph, the library's kernel and ONNX Runtime Web.

    Args:
        onnx: a graph of `cast-export` that classifies.
        target: the folder to make; it must not exist or be empty.
        runtime: folder with the files of onnxruntime-web; None: the pinned version, fetched by npm once and cached.
        webgpu: also take the build of ONNX Runtime Web that the page's WebGPU switch needs (27 MB more on the server,
            loaded when it is switched on).
        say: told what is done.

    Returns:
        The folder.

    Raises:
        ArtifactError: the graph is damaged or was not written by cast_sdk.
        ExportError: the page cannot run such a model, or the folder holds something.
        MissingDependencyError: onnxruntime-web is not there and cannot be fetched.
    """
    folder = check_new(Path(target), folder=True)
    parts = _collect(Path(onnx), runtime, webgpu, say)
    policy = _POLICY + (
        "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'"
    )
    html = _filled((PAGE / "index.html").read_text(encoding="utf-8"), policy, parts.listing)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        with writing(folder):
            for name, source in parts.files.items():
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, temporary / name)
            (temporary / "index.html").write_text(html, encoding="utf-8")
            (temporary / "LICENSES.txt").write_text(_licences(), encoding="utf-8")
            temporary.chmod(0o755)
            if folder.is_dir():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_single_file(
    onnx: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    runtime: str | os.PathLike[str] | None = None,
    webgpu: bool = False,
    say: Say = lambda line: None,
) -> Path:
    """One HTML file with everything inside, which also works when it is opened from disk.

    Arguments and errors as `write_folder`; `target` is a file that does not exist.
    """
    file = check_new(Path(target), folder=False)
    parts = _collect(Path(onnx), runtime, webgpu, say)
    folders = (PAGE, page_folder())
    for sample in parts.listing["samples"]:
        photograph = base64.b64encode(parts.files.pop(sample["file"]).read_bytes()).decode()
        sample["file"] = f"data:image/jpeg;base64,{photograph}"
    html = inline_page(PAGE / "index.html", folders)
    policy = _POLICY + (
        f"script-src {element_hash(html, 'script')} 'wasm-unsafe-eval' blob:; worker-src blob:; "
        f"style-src {element_hash(html, 'style')}; img-src blob: data:; connect-src data:"
    )
    blocks = [
        f'<script type="text/plain" id="{name}">{join_modules(f"{name}.js", folders)}</script>'
        for name in ("worker", "painter")
    ]
    for name in _data_files(parts.listing):
        packed = base64.b64encode(gzip.compress(parts.files[name].read_bytes(), 9, mtime=0)).decode()
        blocks.append(f'<script type="text/plain" data-file="{name}">{packed}</script>')
    # Data comes before the page's own script, which reads it.
    html = html.replace("<script>", "\n".join(blocks) + "\n<script>", 1)
    html = _filled(html, policy, parts.listing).replace("<head>", f"<head>\n<!--\n{_licences()}-->", 1)
    with atomic_write(file) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return file


def check_new(target: Path, *, folder: bool) -> Path:
    """`target`, which a page may be written to.

    Raises:
        ExportError: it exists (an empty folder may), or a file has another suffix than .html.
    """
    if target.exists() and not (folder and target.is_dir() and not any(target.iterdir())):
        what = "folder or file" if folder else "file or folder"
        raise ExportError(f"There is a {what} {target} already.", remedy="name a new one: nothing is replaced")
    if not folder and target.suffix.lower() not in (".html", ".htm"):
        raise ExportError(f"{target} is no name for a page.", remedy=f"name it {target.stem}.html")
    return target


def check_graph(onnx: Path) -> tuple[ModelSpec, ExportInfo]:
    """Description of a graph that the page can run.

    Raises:
        ArtifactError: the graph is damaged or was not written by cast_sdk.
        ExportError: it does not classify from superpixels, lacks what results are made of, or takes several images at a
            time.
    """
    if not onnx.is_file():
        raise ExportError(f"There is no file {onnx}.", remedy="check the path")
    spec, info = read_description(onnx)
    if not spec.hierarchical or not spec.num_classes or spec.head != "linear" or "logits" not in info.outputs:
        raise ExportError(
            f"{spec.name} does not classify and group superpixels, which is what the page shows.",
            found=f"family {spec.family}, the outputs {', '.join(info.outputs)}",
            remedy="export a CAST checkpoint that has a linear head",
        )
    if missing := [name for name in expected_outputs(spec, info) if name not in info.outputs]:
        raise ExportError(
            f"{onnx.name} lacks outputs that the results of {spec.name} are made of.",
            found=f"no {', '.join(missing)}",
            remedy="export it again",
        )
    if info.target == "cpu":
        raise ExportError(
            f"{onnx.name} was made for processors with this package's runtime, which the page has not.",
            found="its inputs are matrices that the runtime computes (target cpu)",
            remedy="export it without --target cpu",
        )
    if info.batch not in (1, None):
        raise ExportError(
            f"The graph takes {info.batch} images at a time, and the page gives it one.",
            remedy="export it with --batch 1",
        )
    return spec, info


def _collect(onnx: Path, runtime: str | os.PathLike[str] | None, webgpu: bool, say: Say) -> _Parts:
    check_graph(onnx)
    place = Path(runtime) if runtime is not None else None
    files = {
        file.name: file
        for folder in (PAGE, page_folder())
        for file in folder.iterdir()
        if file.suffix in (".js", ".css")
    }
    files |= {MODEL: onnx, KERNEL: _HERE / KERNEL}
    photos = Path(cast_sdk.__file__).parent / "bundled" / "photos"
    samples = [{"file": f"samples/{name}.jpg", "name": name} for name in SAMPLES]
    files |= {sample["file"]: photos / f"{sample['name']}.jpg" for sample in samples}
    listing: dict[str, Any] = {"version": cast_sdk.__version__, "model": MODEL, "kernel": KERNEL, "samples": samples}
    builds = {"runtime": WASM} | ({"webgpu": WEBGPU} if webgpu else {})
    for key, names in builds.items():
        build: RuntimeFiles = find_runtime(place, names, say)
        files |= {build.script.name: build.script, build.binary.name: build.binary}
        listing[key] = {"script": build.script.name, "binary": build.binary.name}
    return _Parts(files, listing)


def _data_files(listing: dict[str, Any]) -> list[str]:
    builds = [listing[key] for key in ("runtime", "webgpu") if key in listing]
    return [listing["model"], listing["kernel"], *(name for build in builds for name in build.values())]


def _filled(html: str, policy: str, listing: dict[str, Any]) -> str:
    # "<" must not end the element that holds the list.
    text = json.dumps(listing, separators=(",", ":")).replace("<", "\\u003c")
    return html.replace("{policy}", policy, 1).replace("{files}", text, 1)


def _licences() -> str:
    photographs = (Path(cast_sdk.__file__).parent / "bundled" / "photos" / "README.md").read_text(encoding="utf-8")
    return (
        f"This page was made by cast_sdk {cast_sdk.__version__} (MIT licence), of which it contains parts.\n\n"
        f"ONNX Runtime Web {VERSION}, https://github.com/microsoft/onnxruntime:\n\n{LICENCE}\n"
        f"Sample photographs:\n\n{photographs}"
    )
