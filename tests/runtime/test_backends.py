"""Which backend opens what, and what each says about files it cannot use."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, CastError, InputError, MissingDependencyError
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends import onnxruntime as onnxruntime_backend
from cast_sdk.runtime.backends.base import Backend, default_threads, run_images, run_padded
from cast_sdk.runtime.backends.opening import choose_backend, open_backend


def test_suffixes(tmp_path):
    names = {"a.onnx": "onnxruntime", "a.engine": "tensorrt", "a.pth": "torch", "a.pth.tar": "torch"}
    assert {name: choose_backend(tmp_path / name) for name in names} == names
    assert choose_backend(tmp_path / "a.ONNX", "openvino") == "openvino"


def batch(count=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8), rng.integers(
        0, 64, (count, 96, 96), dtype=np.int32
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_contract(tiny_onnx, backend):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    model = open_backend(tiny_onnx, backend, "cpu", threads=1)
    assert isinstance(model, Backend) and model.device == "cpu"
    assert model.spec.name == "fixture" and model.info.num_superpixels == 64
    outputs = model.run(*batch())
    assert tuple(outputs) == model.info.outputs
    assert outputs["embedding"].shape == (1, 8) and outputs["logits"].dtype == np.float32
    for level in range(1, 5):
        assert outputs[f"level{level}"].shape == (1, 64) and outputs[f"level{level}"].dtype == np.int32
    kept = outputs["embedding"].copy()
    other = model.run(*batch(seed=1))
    assert np.array_equal(kept, outputs["embedding"])  # the caller owns the arrays
    assert not np.allclose(kept, other["embedding"])  # outputs move with the input
    model.close()
    model.close()
    with pytest.raises(InputError, match="backend is closed"):
        model.run(*batch())


def test_both_backends_agree(tiny_onnx):
    pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    a, b = (open_backend(tiny_onnx, name, "cpu").run(*batch()) for name in ("onnxruntime", "openvino"))
    assert np.allclose(a["logits"], b["logits"], atol=1e-4)
    assert np.array_equal(a["level4"], b["level4"])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda i, s: (i.astype(np.float32), s), r"'image' is float32 .*not uint8 of shape \[1, 96, 96, 3\]"),
        (lambda i, s: (i[:, :90], s), r"is uint8 of shape \[1, 90, 96, 3\]"),
        (lambda i, s: (i, s.astype(np.int64)), r"'superpixels' is int64 .*not int32"),
        (lambda i, s: (i.repeat(2, 0), s.repeat(2, 0)), r"\[2, 96, 96, 3\]"),
    ],
)
def test_wrong_shapes_and_types(tiny_onnx, change, words):
    with pytest.raises(InputError, match=f"(?i){words}"):
        open_backend(tiny_onnx).run(*change(*batch()))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "foreign", "foreign spec"])
def test_files_that_are_no_models(tiny_onnx, tmp_path, damage, backend):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    path = tmp_path / "bad.onnx"
    content = tiny_onnx.read_bytes()
    if damage == "foreign":
        model = onnx.load(tiny_onnx)
        del model.metadata_props[:]
        content = model.SerializeToString()
    elif damage == "foreign spec":
        model = onnx.load(tiny_onnx)
        model.metadata_props[0].value = '{"schema_version": 99}'
        content = model.SerializeToString()
    path.write_bytes({"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}.get(damage, content))
    words = {
        "empty": "is empty",
        "foreign": "no metadata 'cast_sdk'.*\n.*cast-export --ckpt",
        "foreign spec": "schema 99",
    }.get(damage, "cannot load .*bad.onnx")
    with pytest.raises(ArtifactError, match=words):
        open_backend(path, backend)


@pytest.mark.parametrize(
    "name, options, kind, words",
    [
        ("missing.onnx", {}, ArtifactError, "There is no file"),
        (".", {}, ArtifactError, "is a folder"),
        ("a.zip", {}, ArtifactError, r"ends in \.onnx, \.engine"),
        ("a.onnx", {"backend": "ncnn"}, InputError, "choose one of auto, onnxruntime, openvino"),
        ("a.onnx", {"backend": "torch"}, InputError, r"torch backend cannot read \.onnx"),
        ("a.pth", {"backend": "tensorrt"}, InputError, "cast-export --onnx"),
        ("a.onnx", {"device": "tpu"}, InputError, "auto, cpu, cuda"),
        ("a.onnx", {"threads": 0}, InputError, "threads is 0"),
        ("a.engine", {"device": "cpu"}, InputError, "cannot run on the CPU"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, name, options, kind, words):
    if name[0] == "a":
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(kind, match=words):
        open_backend(tmp_path / name, **options)


@pytest.mark.parametrize(
    "name, options, words",
    [
        (
            "onnxruntime",
            {"precision": "bf16"},
            "has no option precision .*\n.*takes: spinning, threads",
        ),
        ("openvino", {"spinning": True}, "openvino backend has no option spinning"),
        ("tensorrt", {"threads": 2, "spinning": True}, "tensorrt backend has no option spinning, threads"),
    ],
)
def test_options_of_another_backend(tiny_onnx, name, options, words):
    with pytest.raises(InputError, match=words):
        open_backend(tiny_onnx, name, **options)


def test_an_open_backend_takes_no_options(tiny_onnx):
    backend = open_backend(tiny_onnx)
    assert Runtime(backend).backend is backend
    for options in ({"threads": 2}, {"backend": "openvino"}, {"stage": "pretrain"}):
        with pytest.raises(InputError, match="open already"):
            Runtime(backend, **options)


def test_an_error_inside_a_backend_is_not_taken_for_an_unknown_option(tiny_onnx, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("got an unexpected keyword argument 'x'")

    monkeypatch.setattr(onnxruntime_backend, "session_options", broken)
    with pytest.raises(TypeError, match="unexpected keyword"):
        open_backend(tiny_onnx)


def test_cuda_is_never_replaced_in_silence(tiny_onnx):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(MissingDependencyError, match="onnxruntime-gpu"):
        open_backend(tiny_onnx, device="cuda")
    assert open_backend(tiny_onnx, device="auto").device == "cpu"


def test_openvino_precisions(tiny_onnx):
    openvino = pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    with pytest.raises(InputError, match="fp32, bf16"):
        open_backend(tiny_onnx, "openvino", precision="f8")
    with pytest.raises(InputError, match="cannot run on CUDA"):
        open_backend(tiny_onnx, "openvino", "cuda")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    try:
        model = open_backend(tiny_onnx, "openvino", precision="bf16")
    except CastError as error:
        assert not able and "bfloat16" in str(error)
    else:
        assert able and model.run(*batch())["level1"].shape == (1, 64)


def test_openvino_refuses_int8_where_it_saturates(tiny_onnx, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    from cast_sdk.runtime.backends import openvino

    model = onnx.load(tiny_onnx)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"precision": "fp32"', '"precision": "int8"')
    onnx.save(model, tmp_path / "int8.onnx")
    monkeypatch.setattr(openvino, "int8_saturates", lambda: True)
    with pytest.raises(InputError, match=r"(?s)without VNNI.*backend='onnxruntime'"):
        open_backend(tmp_path / "int8.onnx", "openvino")
    assert open_backend(tiny_onnx, "openvino").info.precision == "fp32"
    monkeypatch.setattr(openvino, "int8_saturates", lambda: False)
    assert open_backend(tmp_path / "int8.onnx", "openvino").info.precision == "int8"


@pytest.mark.parametrize("saturates", [True, False])
def test_onnxruntime_takes_exact_products_only_where_the_fast_ones_saturate(tiny_onnx, monkeypatch, saturates: bool):
    monkeypatch.setattr("cast_sdk.runtime.backends.onnxruntime.int8_saturates", lambda: saturates)
    options = open_backend(tiny_onnx)._session.get_session_options()
    if saturates:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")


def test_threads_by_default():
    assert 1 <= default_threads() <= 8


class Counting:
    """A backend of a fixed batch that gives each image's first pixel, and remembers the batches it was given."""

    def __init__(self, fixed: int | None) -> None:
        self.info = ExportInfo("fp32", fixed, 2, 2, 4, ("embedding",))
        self.sizes: list[int] = []

    def run(self, image, superpixels):
        assert len(image) == len(superpixels) == (self.info.batch or len(image))
        self.sizes.append(len(image))
        return {"embedding": image[:, 0, 0, :1].astype(np.float32), "level1": superpixels[:, 0]}


@pytest.mark.parametrize("fixed, sizes", [(1, [1] * 5), (2, [2, 2, 2]), (8, [8]), (None, [1] * 5)])
def test_a_static_batch_is_filled_and_cut(fixed, sizes):
    image = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) + np.zeros((5, 2, 2, 3), np.uint8)
    superpixels = np.arange(5, dtype=np.int32).reshape(5, 1, 1) + np.zeros((5, 2, 2), np.int32)
    backend = Counting(fixed)
    rows = list(run_images(backend, image, superpixels))
    assert [row["embedding"].tolist() for row in rows] == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert [row["level1"].tolist() for row in rows] == [[n, n] for n in range(5)] and backend.sizes == sizes
    assert run_padded(Counting(8), image[:3], superpixels[:3])["embedding"].shape == (3, 1)
