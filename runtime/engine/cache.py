"""Engines and compiled kernels in the user's cache folder, so that an .onnx is built once per machine."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from cast_sdk.errors import ArtifactError
from cast_sdk.runtime.engine.api import load_tensorrt
from cast_sdk.runtime.engine.build import build, check_request, choose_flavor
from cast_sdk.runtime.engine.cuda import Gpu, open_cuda
from cast_sdk.runtime.engine.record import EngineInfo, read_record
from cast_sdk.runtime.engine.request import BuildRequest
from cast_sdk.system.caches import cache_folder, cache_room
from cast_sdk.system.files import sha256


def cached_engine(
    onnx: Path, *, device_id: int = 0, flavor: str = "auto", batch: int | None = None, progress: bool = True
) -> Path:
    """The engine of an .onnx file for this machine: from the cache, or built now with a progress bar.

    The file's content, the flavour and version of TensorRT, the GPU's model and compute capability, the precision and
    the batch are in the name. A cached engine that is damaged is built again.

    Raises:
        MissingDependencyError: without TensorRT or without a GPU: an engine that cannot run here is not built.
        Others: see `cast_sdk.runtime.engine.build.build`.
    """
    folder = cache_room("engines")
    request = BuildRequest(
        onnx, folder / "name.engine", flavor=flavor, batch=batch, progress=progress, device_id=device_id
    )
    _, info = check_request(request)
    gpu = open_cuda().gpu(device_id)
    chosen = choose_flavor(request, gpu)
    engine = folder / cache_name(
        onnx.stem,
        sha256(onnx),
        chosen,
        load_tensorrt(chosen).version,
        gpu,
        info.precision,
        info.batch or batch or 1,
    )
    if not _usable(engine):
        targets = (gpu.target,) if chosen == "rtx" else ("current",)
        build(dataclasses.replace(request, engine=engine, flavor=chosen, targets=targets))
    return engine


def cache_name(stem: str, digest: str, flavor: str, version: str, gpu: Gpu, precision: str, batch: int) -> str:
    """File name of a cached engine; everything that makes another engine is in it."""
    model = re.sub(r"\W+", "-", gpu.name).strip("-").lower()
    return f"{stem}-{digest[:16]}-b{batch}-{precision}-{flavor}-{version}-{gpu.target}-{model}.engine"


def _usable(engine: Path) -> bool:
    if not engine.is_file():
        return False
    try:
        read_record(engine)
    except ArtifactError:
        return False
    return True


def kernel_cache_file(record: EngineInfo, gpu: Gpu) -> Path:
    """Where TensorRT-RTX's compiled kernels of an engine are kept."""
    return cache_folder() / "kernels" / f"{record.plan_sha256[:16]}-{record.version}-{gpu.target}.rtxcache"
