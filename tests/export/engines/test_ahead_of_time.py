"""AOTInductor's packages: compiled for this processor for real where there is a C++ compiler."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import torch

import cast_sdk
from cast_sdk import bundled
from cast_sdk.errors import ArtifactError, ExportError, InputError, MissingDependencyError
from cast_sdk.export.engines import ahead_of_time
from cast_sdk.export.verification.photos import read_inputs
from cast_sdk.export.verification.report import Check
from cast_sdk.runtime.backends.torch import TorchBackend

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="AOTInductor needs a C++ compiler; there is none here"
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    options = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (4, 3, 2, 2)}
    return cast_sdk.create_model("cast_tiny", num_classes=10, **options).eval()


@pytest.fixture(scope="module")
def package(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "cast.pt2"
    said: list[str] = []
    info = ahead_of_time.export_ahead_of_time(
        model, path, device="cpu", images=bundled.photos()[:4], checkpoint_sha256="ab", say=said.append
    )
    assert info.created_by.endswith("AOTInductor for cpu") and info.checkpoint_sha256 == "ab"
    assert said[:2] == ["compiling cast_tiny for this processor", "verifying on 4 images"] and "level4" in said[2]
    return path


@needs_compiler
def test_a_package_runs_as_the_checkpoint_does(model, package, tmp_path):
    from cast_sdk.models.saving import save_native

    save_native(model, tmp_path / "m.safetensors")
    runtime = cast_sdk.Runtime(package, allow_code=True)
    eager = TorchBackend(tmp_path / "m.safetensors", device="cpu", eager=True)
    given = read_inputs(runtime.spec, (96, 96), bundled.photos()[:3])
    assert runtime.device == "cpu" and runtime.spec == eager.spec
    for row in range(3):
        found, expected = (
            b.run(given.image[row][None], given.superpixels[row][None]) for b in (runtime.backend, eager)
        )
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-3, atol=1e-4)
        assert np.mean(found["level1"] == expected["level1"]) > 0.99
    runtime.close()
    with pytest.raises(InputError, match="backend is closed"):
        runtime.backend.run(given.image[:1], given.superpixels[:1])


@needs_compiler
def test_a_package_is_opened_only_when_its_code_is_allowed(package, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *_: pytest.fail("the package was opened"))
    with pytest.raises(InputError, match=r"(?s)can run code.*allow_code=True.*--allow-code"):
        cast_sdk.Runtime(package)
    with pytest.raises(InputError, match="compiled for cpu and cannot run on cuda"):
        cast_sdk.Runtime(package, device="cuda", allow_code=True)
    (tmp_path / "cut.pt2").write_bytes(package.read_bytes()[:10_000])
    with pytest.raises(ArtifactError, match=r"(?s)not a complete torch program.*--aot"):
        cast_sdk.Runtime(tmp_path / "cut.pt2", allow_code=True)
    with zipfile.ZipFile(tmp_path / "foreign.pt2", "w") as archive:
        archive.writestr("model/data/x.wrapper_metadata.json", '{"AOTI_DEVICE_KEY": "cpu"}')
    with pytest.raises(ArtifactError, match="no 'cast_sdk' in it"):
        cast_sdk.Runtime(tmp_path / "foreign.pt2", allow_code=True)


@needs_compiler
def test_a_shortfall_writes_nothing(model, package, tmp_path, monkeypatch):
    """Without compiling again: the package that was made stands in for a bad one."""
    monkeypatch.setattr(ahead_of_time, "_compile", lambda module, inputs, path, *rest: shutil.copyfile(package, path))
    monkeypatch.setattr(ahead_of_time, "verify_outputs", lambda *_: [Check("logits", "error", 0.5, 1e-4, 2)])
    with pytest.raises(ExportError, match=r"(?s)does not agree with the model on real images.*nothing was written"):
        ahead_of_time.export_ahead_of_time(model, tmp_path / "x.pt2", device="cpu", images=bundled.photos()[:2])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path, options, kind, message",
    [
        ("x.pt", {}, ExportError, r"x.pt does not end in .pt2"),
        ("x.pt2", {"precision": "fp16", "device": "cpu"}, InputError, "'fp16' is for GPUs"),
        ("x.pt2", {"image_size": 50, "device": "cpu"}, ExportError, "50 x 50 pixels, only of 96 x 96"),
    ],
)
def test_requests_that_cannot_be_served(model, tmp_path, path, options, kind, message):
    with pytest.raises(kind, match=message):
        ahead_of_time.export_ahead_of_time(model, tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; what is tested is its absence")
def test_no_gpu_to_compile_for(model, tmp_path):
    with pytest.raises(MissingDependencyError, match=r"no GPU to compile for.*\n  Found: torch .* without"):
        ahead_of_time.export_ahead_of_time(model, tmp_path / "x.pt2", device="cuda")


def test_only_our_own_packages_are_replaced(model, tmp_path):
    foreign = tmp_path / "x.pt2"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(ExportError, match=r"x.pt2 is there already"):
        ahead_of_time.export_ahead_of_time(model, foreign, device="cpu")
    assert foreign.read_bytes() == b"somebody's"
