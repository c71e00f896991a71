"""Models with a taxonomy from the checkpoint to the picture: one output per head, verified, in every precision."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from export_tools import TREE, photo_inputs, small_model
from golden_tools import draw_weights

from cast_sdk import bundled
from cast_sdk.export import build_engine, export_onnx
from cast_sdk.export.cli import main
from cast_sdk.export.precision.quantize import layers
from cast_sdk.export.verification import quality
from cast_sdk.export.verification.report import Report
from cast_sdk.models import create_model, save_native, save_official
from cast_sdk.published_taxonomies import published_taxonomy
from cast_sdk.runtime import Runtime

NAME = "cast_deit_small with a taxonomy"
HEADS = ["logits", "logits2", "logits3"]
STATED = quality.Thresholds(None, None, None, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The checkpoint and its verified graph."""
    folder = tmp_path_factory.mktemp("taxonomy")
    save_native(small_model(NAME), folder / "m.safetensors")
    info = export_onnx(small_model(NAME), folder / "m.onnx")
    return folder / "m.safetensors", folder / "m.onnx", info


def test_one_output_per_head_verified_one_by_one(files):
    graph = onnx.load(files[1]).graph
    assert [value.name for value in graph.output][:4] == ["embedding", *HEADS]
    widths = [value.type.tensor_type.shape.dim[1].dim_value for value in graph.output][1:4]
    assert widths == [level.num_classes for level in TREE]
    checks = {check.name: check for check in Report.from_dict(files[2].verification).checks if check.measure == "error"}
    assert set(checks) == {"embedding", *HEADS}
    assert all(check.value < 1e-4 and check.count + check.ties == 8 for check in checks.values())


def test_a_wrong_head_fails_the_export(tmp_path, monkeypatch):
    from cast_sdk.errors import ExportError
    from cast_sdk.export.lowering.cast import LoweredCast

    original = LoweredCast.read_taxonomy

    def swapped(self, tokens):
        return original(self, [tokens[0], tokens[2], tokens[1], tokens[3]])

    monkeypatch.setattr(LoweredCast, "read_taxonomy", swapped)
    with pytest.raises(ExportError, match="logits2"):
        export_onnx(small_model(NAME), tmp_path / "m.onnx", images=bundled.photos()[:2])


def test_path_and_top_are_those_of_torch(files):
    reference, runtime = Runtime(files[0], device="cpu"), Runtime(files[1], device="cpu")
    for photo in bundled.photos():
        expected, found = reference.segment(photo), runtime.segment(photo)
        for consistent in (False, True):
            one, other = expected.path(consistent=consistent), found.path(consistent=consistent)
            assert [entry[:3] for entry in one] == [entry[:3] for entry in other]
            assert np.allclose([entry.probability for entry in one], [entry.probability for entry in other], atol=1e-4)
        for level in ("species", 2, "class"):
            assert [entry[:2] for entry in expected.top(2, level=level)] == [
                entry[:2] for entry in found.top(2, level=level)
            ]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precisions_report_every_head(tmp_path, precision):
    calibrate = {"calibrate": bundled.photos() * 8, "keep_float": ["*/taxonomy.0/*"]} if precision == "int8" else {}
    info = export_onnx(
        small_model(NAME),
        tmp_path / "m.onnx",
        precision=precision,
        images=bundled.photos(),
        thresholds=STATED,
        **calibrate,
    )
    values = {(check.name, check.measure): check.value for check in Report.from_dict(info.verification).checks}
    for head in HEADS:
        assert {(head, "top1"), (head, "cosine")} <= set(values)
    if precision == "fp16":
        assert min(values[head, "cosine"] for head in HEADS) > 0.99
    with Runtime(tmp_path / "m.onnx") as runtime:
        assert [one.level for one in runtime.segment(bundled.photos()[0]).path()] == ["class", "family", "species"]


def test_every_head_can_be_quantised(files):
    names = [name for name in layers(onnx.load(files[1])) if "taxonomy" in name]
    assert len(names) == 3


def test_an_engine_is_built(files, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'cast-sdk[trt-rtx]'")
    from cast_sdk.runtime.engine.record import read_sidecar

    build_engine(files[1], tmp_path / "m.engine", targets=("sm86",), progress=False)
    record = read_sidecar(tmp_path / "m.engine")
    assert record.spec.taxonomy == small_model(NAME).spec.taxonomy
    assert list(record.info.outputs[:4]) == ["embedding", *HEADS]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small model in the layout of the reference program, as it would be for Living-17."""
    torch.manual_seed(0)
    taxonomy = published_taxonomy("living17")
    model = create_model("cast_deit_small", taxonomy=taxonomy, embed_dim=48, depths=(1, 1, 1, 1))
    draw_weights(model)
    path = tmp_path_factory.mktemp("official") / "best_checkpoint.pth"
    args = argparse.Namespace(data_set="BREEDS-HIER-SUPERPIXEL", breeds_sort="living17", nb_classes=[34, 17])
    save_official(model, path, "deit", epoch=99, args=args, optimizer={}, accuracy=85.0)
    raw = torch.load(path, weights_only=False)
    del raw["cast_sdk"]
    torch.save(raw, path)
    return path


def test_official_checkpoint_to_pictures_with_a_path(official, tmp_path):
    from click.testing import CliRunner

    graph = tmp_path / "living17.onnx"
    done = CliRunner().invoke(main, ["--ckpt", str(official), "--out", str(graph)])
    assert done.exit_code == 0, done.output
    assert "256 superpixels" in done.output and "logits2" in done.output
    shown = CliRunner().invoke(main, ["inspect", str(graph)])
    assert "class 34 (stage 3), superclass 17 (stage 4)" in shown.output and "Living-17" in shown.output
    photo = bundled.photos()[0]
    command = [sys.executable, "-m", "cast_sdk.runtime.commands.segment", str(photo), "--model", str(graph)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "path, coarse to fine: " in done.stdout and " > n0" in done.stdout
    assert cv2.imread(str(next((tmp_path / "out").glob("*.png")))) is not None
    data = json.loads((tmp_path / "out" / photo.name).with_suffix(".json").read_text())
    assert [entry["level"] for entry in data["path"]] == ["superclass", "class"]
    consistent = data["consistent_path"]
    assert consistent[1]["class_id"] // 2 == consistent[0]["class_id"]
    assert consistent[0]["probability"] >= consistent[1]["probability"]


def test_photos_are_not_all_the_same(files):
    """Heads that a lowering froze would pass a comparison on one image."""
    spec = small_model(NAME).spec
    inputs = photo_inputs(spec, spec.image_size, spec.image_size)
    with Runtime(files[1]) as runtime:
        rows = [runtime.segment(np.ascontiguousarray(image[..., ::-1])).outputs for image in inputs.image[:3]]
    for head in HEADS:
        assert np.ptp(np.stack([row[head] for row in rows]), axis=0).max() > 1e-3
