"""Torch-TensorRT needs a GPU even to be imported: what is tested here is the refusal, and the way around it."""

from __future__ import annotations

import sys
import types
import zipfile

import numpy as np
import pytest
import torch

import cast_sdk
from cast_sdk.artifact import INFO_KEY, SPEC_KEY
from cast_sdk.errors import ArtifactError, ExportError, InputError, MissingDependencyError
from cast_sdk.export.engines import torch_trt
from cast_sdk.export.lowering.lower import lower
from cast_sdk.export.lowering.options import example_inputs, export_info, graph_options
from cast_sdk.runtime.backends.torch_program import TorchProgramBackend


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    options = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2)}
    return cast_sdk.create_model("cast_tiny", num_classes=10, **options).eval()


@pytest.fixture(scope="module")
def program(model, tmp_path_factory):
    """The lowered model saved as a torch program for the CPU, as Torch-TensorRT saves it for a GPU."""
    path = tmp_path_factory.mktemp("program") / "cast.ep"
    spec, options = graph_options(model.spec)
    shipped = torch_trt.Shipped(lower(model, options, spec))
    saved = torch.export.export(shipped, example_inputs(options, spec))
    info = export_info(options, shipped.output_names, created_by=f"torch {torch.__version__}", target="torch")
    torch.export.save(saved, path, extra_files=torch_trt.metadata(spec, info))
    return path


def test_a_program_runs_as_the_checkpoint_does(model, program):
    runtime = cast_sdk.Runtime(program, allow_code=True)
    assert isinstance(runtime.backend, TorchProgramBackend) and runtime.device == "cpu"
    side, count = runtime.info.height, runtime.info.num_superpixels
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    grid = np.arange(count, dtype=np.int32).reshape(1, 8, 8).repeat(side // 8, 1).repeat(side // 8, 2)
    found = runtime.backend.run(image, np.ascontiguousarray(grid))
    assert set(found) == {"embedding", "logits", "level1", "level2", "level3", "level4"}
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (model.spec.mean, model.spec.std))
    with torch.inference_mode():
        pixels = (torch.from_numpy(image).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = model(pixels, torch.from_numpy(grid).long())
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-4)
    np.testing.assert_array_equal(found["level4"], expected.levels[3].labels)
    runtime.close()
    with pytest.raises(InputError, match="backend is closed"):
        runtime.backend.run(image, grid)


def test_a_program_is_opened_only_when_its_code_is_allowed(program, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("the program was opened"))
    with pytest.raises(InputError, match=r"(?s)can run code.*allow_code=True.*--allow-code"):
        cast_sdk.Runtime(program)


def test_damaged_and_foreign_programs(program, tmp_path):
    damaged = tmp_path / "cut.ep"
    damaged.write_bytes(program.read_bytes()[:10_000])
    with pytest.raises(ArtifactError, match="not a complete torch program"):
        cast_sdk.Runtime(damaged, allow_code=True)
    with zipfile.ZipFile(tmp_path / "foreign.ep", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ArtifactError, match=r"(?s)cast_sdk's model description.*no 'cast_sdk' in it"):
        cast_sdk.Runtime(tmp_path / "foreign.ep", allow_code=True)
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(tmp_path / "hollow.ep", "w") as archive:
        for name in source.namelist():
            if "extra" in name:
                archive.writestr(name, source.read(name))
    with pytest.raises(ArtifactError, match="torch cannot load the program"):
        cast_sdk.Runtime(tmp_path / "hollow.ep", allow_code=True)
    with pytest.raises(InputError, match="compiled for cpu"):
        cast_sdk.Runtime(program, device="cuda", allow_code=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; what is tested is its absence")
def test_refused_without_a_gpu(model, tmp_path):
    with pytest.raises(MissingDependencyError, match=r"no GPU for Torch-TensorRT.*\n  Found: torch .* without"):
        torch_trt.export_torch_trt(model, tmp_path / "x.ep")
    assert not list(tmp_path.iterdir())


def test_refused_with_the_packages_own_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingDependencyError, match="Torch-TensorRT cannot be imported") as caught:
        torch_trt.import_torch_tensorrt()
    assert "torch-tensorrt>=" in caught.value.remedy
    old = types.SimpleNamespace(save=lambda module, path: None, __version__="2.2.0")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", old)
    with pytest.raises(MissingDependencyError, match=r"torch-tensorrt 2.2.0 is too old"):
        torch_trt.import_torch_tensorrt()


@pytest.mark.parametrize(
    "path, options, message",
    [
        ("x.pt", {}, r"x.pt does not end in .ep"),
        ("x.ep", {"precision": "int8"}, "cannot be made in int8"),
        ("x.ep", {"image_size": 50}, "50 x 50 pixels, only of 96 x 96"),
    ],
)
def test_requests_that_cannot_be_served(model, path, options, message):
    with pytest.raises(ExportError, match=message):
        torch_trt.export_torch_trt(model, path, **options)


def test_only_our_own_programs_are_replaced(model, tmp_path):
    foreign = tmp_path / "x.ep"
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(1),)), foreign)
    before = foreign.read_bytes()
    with pytest.raises(ExportError, match=r"x.ep is there already.*\n  Remedy: choose another --out"):
        torch_trt.export_torch_trt(model, foreign)
    assert foreign.read_bytes() == before


def test_what_is_compiled_and_saved(model, tmp_path, monkeypatch):
    """Our part, with a stand-in for the compiler: which program, without TF32, saved with our record, atomically."""
    calls = {}

    def compile_program(program, inputs, disable_tf32):
        calls["inputs"], calls["tf32"] = [tuple(value.shape) for value in inputs], not disable_tf32
        if calls.get("fails"):
            raise RuntimeError("no converter for aten::hedgehog")
        return program

    def save(module, file_path, *, output_format, arg_inputs, extra_files):
        torch.export.save(module, file_path, extra_files=extra_files)

    stand_in = types.SimpleNamespace(
        save=save, __version__="2.14.0", dynamo=types.SimpleNamespace(compile=compile_program)
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    info = torch_trt.export_torch_trt(model, tmp_path / "x.ep", precision="fp16", checkpoint_sha256="ab")
    assert calls == {"inputs": [(1, 96, 96, 3), (1, 96, 96)], "tf32": False}
    assert info.precision == "fp16" and info.target == "torch" and info.checkpoint_sha256 == "ab"
    with zipfile.ZipFile(tmp_path / "x.ep") as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
    assert {SPEC_KEY, INFO_KEY} <= names
    assert torch_trt.export_torch_trt(model, tmp_path / "x.ep").precision == "fp32"  # ours: replaced
    calls["fails"] = True
    with pytest.raises(ExportError, match="RuntimeError: no converter for aten::hedgehog"):
        torch_trt.export_torch_trt(model, tmp_path / "y.ep")
    assert [path.name for path in tmp_path.iterdir()] == ["x.ep"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependencyError, match="compiled for an NVIDIA GPU"):
        cast_sdk.Runtime(tmp_path / "x.ep", allow_code=True)
