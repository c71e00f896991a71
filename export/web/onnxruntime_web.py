"""ONNX Runtime Web: a pinned version from npm, kept in the cache folder, or files that the caller has."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cast_sdk.errors import ExportError, MissingDependencyError
from cast_sdk.system.caches import cache_folder
from cast_sdk.system.files import sha256, writing

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
WASM = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
_SHA256 = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
LICENCE = """\
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class RuntimeFiles:
    """The module and the WebAssembly of one build of ONNX Runtime Web."""

    script: Path
    binary: Path


def find_runtime(folder: Path | None, names: tuple[str, str], say: Say) -> RuntimeFiles:
    """The files `names`, from `folder` or, for None, from the cache, which npm fills once.

    Raises:
        ExportError: a file is missing in `folder`, or npm's package is not the pinned one.
        MissingDependencyError: the cache is empty and there is no npm, or it cannot fetch.
    """
    place = _cached(names, say) if folder is None else folder
    for name in names:
        if not (place / name).is_file():
            raise ExportError(
                f"There is no {name} in {place}.",
                remedy="name the folder `dist` of the unpacked package, or leave --runtime out",
            )
        if sha256(place / name) != _SHA256[name]:
            say(f"{name} is not that of onnxruntime-web {VERSION}, with which the page is tested")
    return RuntimeFiles(place / names[0], place / names[1])


def _cached(names: tuple[str, str], say: Say) -> Path:
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    if all((folder / name).is_file() and sha256(folder / name) == _SHA256[name] for name in names):
        return folder
    say(f"fetching onnxruntime-web {VERSION} with npm, once")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            package = _pack(Path(temporary))
            for name in _SHA256:
                _extract(package, f"package/dist/{name}", Path(temporary) / name)
                (Path(temporary) / name).replace(folder / name)
    return folder


def _pack(folder: Path) -> Path:
    """The package's archive, fetched by npm and compared with the pinned digest."""
    npm = shutil.which("npm")
    remedy = "install npm, or name a folder that holds the package's `dist` files with --runtime"
    if npm is None:
        raise MissingDependencyError("There is no npm here to fetch onnxruntime-web with.", remedy=remedy)
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--json", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise MissingDependencyError("npm could not fetch onnxruntime-web.", found=lines[-1], remedy=remedy)
    found = "sha512-" + base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise ExportError(
            f"What npm fetched as onnxruntime-web {VERSION} has not the pinned digest.",
            found=found,
            remedy="do not use this package; see where npm gets its packages from (npm config get registry)",
        )
    return archives[0]


def _extract(archive: Path, member: str, target: Path) -> None:
    with tarfile.open(archive) as package:
        source = package.extractfile(member)
        assert source is not None, f"the pinned package has {member}"
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
