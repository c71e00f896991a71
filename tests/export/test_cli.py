"""The commands as people type them."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from export_tools import small_model

from cast_sdk.errors import ExportError
from cast_sdk.export import cli
from cast_sdk.export.cli import main
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.verification.quality import THRESHOLDS
from cast_sdk.models import save_native
from cast_sdk.system.files import sha256


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "vit.safetensors"
    save_native(small_model("vit_conv_small"), path)
    return path


def cast_export(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_export_then_inspect(checkpoint, tmp_path):
    path = tmp_path / "vit.onnx"
    done = cast_export("--ckpt", checkpoint, "--out", path)
    assert done.exit_code == 0, done.output
    assert "verifying on 8 images" in done.output and "logits" in done.output and f"wrote {path}" in done.output
    shown = cast_export("inspect", path)
    assert shown.exit_code == 0
    for text in ("vit_conv_small", "uint8 [1, 224, 224, 3]", "Gemm", "onnxruntime"):
        assert text in shown.output
    facts = json.loads(cast_export("inspect", "--json", path).output)
    assert facts["info"]["verification"]["passed"] and len(facts["info"]["checkpoint_sha256"]) == 64
    compared = cast_export("compare", checkpoint, path)
    assert compared.exit_code == 0 and "same class" in compared.output


def test_a_folder_of_save_pretrained(tmp_path):
    small_model("vit_conv_small").save_pretrained(tmp_path / "mine")
    done = cast_export("--ckpt", f"{tmp_path}/mine/", "--out", tmp_path / "vit.onnx", "--no-verify")
    assert done.exit_code == 0, done.output
    facts = json.loads(cast_export("inspect", "--json", tmp_path / "vit.onnx").output)
    assert facts["info"]["checkpoint_sha256"] == sha256(tmp_path / "mine" / "model.safetensors")
    assert cli._stem(f"{tmp_path}/mine/") == "mine"


def test_a_file_with_the_name_of_published_weights_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cast_tiny.bundled").write_bytes(b"not weights")
    done = cast_export("--ckpt", "./cast_tiny.bundled", "--out", "x.onnx", "--no-verify")
    assert done.exit_code == 1 and f"The checkpoint {tmp_path}" in done.output


def test_reduced_precision_without_verification(checkpoint, tmp_path):
    done = cast_export("--ckpt", checkpoint, "--out", tmp_path / "half.onnx", "--precision", "fp16", "--no-verify")
    assert done.exit_code == 0 and "not verified" in done.output, done.output


def test_unverified_is_said(checkpoint, tmp_path):
    done = cast_export("--ckpt", checkpoint, "--out", tmp_path / "vit.onnx", "--no-verify", "--batch", "0")
    assert done.exit_code == 0 and "not verified" in done.output
    assert "not verified" in cast_export("inspect", tmp_path / "vit.onnx").output


def test_inspect_a_checkpoint(checkpoint):
    shown = cast_export("inspect", checkpoint)
    assert shown.exit_code == 0 and "vit_conv" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to export"),
        (("--ckpt", "no.pth"), "no.pth does not exist"),
        (("--model", "cast_huge"), "cast_huge"),
        (("--onnx", "x.onnx"), "without --trt"),
        (("--ckpt", "{here}", "--out", "{folder}/x.onnx", "--target", "gpu"), "--target gpu was given without --trt"),
        (("--ckpt", "{here}", "--web", "{folder}/x", "--target", "sm86"), "--target sm86 was given without --trt"),
        (("--ckpt", "{here}", "--out", "{folder}/x.txt"), "x.txt does not end in .onnx"),
        (("--ckpt", "{here}", "--out", "{folder}/missing/x.onnx"), "cannot be written"),
        (("--ckpt", "{here}", "--out", "{folder}/x.onnx", "--image-size", "64"), "64 x 64 pixels, only of 224 x 224"),
        (("--ckpt", "{here}", "--out", "{folder}/x.onnx", "--precision", "int8"), "without real images"),
        (("inspect", "no.onnx"), "no.onnx"),
    ],
)
def test_mistakes_end_with_one_message(checkpoint, tmp_path, arguments, message):
    done = cast_export(*(part.format(here=checkpoint, folder=tmp_path) for part in arguments))
    assert done.exit_code == 1
    assert message in done.output and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


GRAPH, CPU = ("--ckpt", "{here}", "--out", "{folder}/x.onnx"), ("--model", "cast_tiny")


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        ((*GRAPH, "--workspace", "512"), "--workspace", "add --trt"),
        ((*GRAPH, "--flavor", "auto"), "--flavor", "add --trt"),
        ((*GRAPH, "--version-compatible"), "--version-compatible", "add --trt"),
        ((*GRAPH, "--hardware-compatible"), "--hardware-compatible", "add --trt"),
        ((*GRAPH, "--timing-cache", "t"), "--timing-cache", "add --trt"),
        (("--web", "{folder}/x", "--workspace", "512"), "--workspace", "add --trt"),
        ((*CPU, "--torch-trt", "--flavor", "rtx"), "--flavor", "add --trt"),
        ((*GRAPH, "--webgpu"), "--webgpu", "add --web DIR"),
        ((*GRAPH, "--runtime", "."), "--runtime", "add --web DIR"),
        (("--onnx", "m.onnx", "--trt", "--compact"), "--compact", "start from --ckpt"),
        (("--onnx", "m.onnx", "--trt", "--image-size", "64"), "--image-size", "start from --ckpt"),
        (("--onnx", "m.onnx", "--web", "{folder}/x", "--batch", "2"), "--batch", "start from --ckpt"),
        (("--web", "{folder}/x", "--precision", "fp16"), "--precision", "start from --ckpt"),
        (("--web", "{folder}/x", "--no-verify"), "--no-verify", "start from --ckpt"),
        ((*CPU, "--torch-trt", "--tokens"), "--tokens", "leave out --torch-trt"),
        ((*CPU, "--torch-trt", "--images", "."), "--images", "leave out --torch-trt"),
        ((*GRAPH, "--precision", "bf16"), "--precision", "add --aot"),
        ((*CPU, "--aot", "--precision", "int8"), "--precision", "leave out --aot"),
        ((*CPU, "--aot", "--tokens"), "--tokens", "leave out --aot"),
        ((*GRAPH, "--calibrate", "."), "--calibrate", "add --precision int8"),
        ((*GRAPH, "--precision", "fp16", "--keep-float", "none"), "--keep-float", "add --precision int8"),
        ((*GRAPH, "--min-top1", "0.5"), "--min-top1", "add --precision fp16 or int8"),
        ((*GRAPH, "--precision", "fp16", "--no-verify", "--min-iou", "0"), "--min-iou", "leave out --no-verify"),
        ((*GRAPH, "--no-verify", "--images", "."), "--images", "leave out --no-verify"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(checkpoint, tmp_path, arguments, option, remedy):
    done = cast_export(*(part.format(here=checkpoint, folder=tmp_path) for part in arguments))
    assert done.exit_code == 1 and f"error: {option} does not apply here." in done.output
    assert f"Remedy: {remedy}" in done.output and list(tmp_path.iterdir()) == []


def test_options_of_the_export_are_none_of_its_subcommands(tmp_path):
    done = cast_export("--batch", "2", "inspect", tmp_path / "m.onnx")
    assert done.exit_code == 2 and "--batch is no option of inspect" in done.output


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("calibrate", {"calibrate": ["."]}),
        ("keep_float", {"keep_float": ["none"], "precision": "fp16"}),
        ("thresholds", {"thresholds": THRESHOLDS["fp16"]}),
        ("thresholds", {"thresholds": THRESHOLDS["fp16"], "precision": "fp16", "verify": False}),
        ("images", {"images": ["."], "verify": False}),
    ],
)
def test_an_argument_that_does_not_apply_is_refused(tmp_path, argument, options):
    with pytest.raises(ExportError, match=f"{argument}= does not apply here"):
        export_onnx(small_model("cast_small"), tmp_path / "x.onnx", **options)


def test_inspect_foreign_and_truncated_files(tmp_path):
    (tmp_path / "short.onnx").write_bytes(b"\x08\x07\x12\x99\x99\x01abc")
    assert "short.onnx is not a complete ONNX graph" in cast_export("inspect", tmp_path / "short.onnx").output
    (tmp_path / "a.engine").write_bytes(b"plan")
    assert "is missing beside" in cast_export("inspect", tmp_path / "a.engine").output


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from cast_sdk.export.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'cv2', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("[]", "['numpy']")
