"""Exported files: rules, parity on real photographs, what they say about themselves, what stops an export."""

import dataclasses
import itertools
import os
import stat

import numpy as np
import onnx
import pytest
import torch
from export_tools import SMALL, photo_inputs, small_model
from golden_tools import draw_weights

from cast_sdk import bundled
from cast_sdk.artifact import INFO_KEY, SPEC_KEY, from_metadata
from cast_sdk.errors import CastError, ExportError
from cast_sdk.export import graph as graphs
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.verification.report import Report
from cast_sdk.export.verification.verify import (
    TIE_MARGIN,
    Bars,
    Difference,
    clearly_sampled,
    label_checks,
    open_session,
    run_session,
    sampling_margin,
)
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.models import create_model, list_models
from cast_sdk.models.cast import Level


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Files of small models, made when first asked for: exported(name, **options) -> path."""
    folder = tmp_path_factory.mktemp("exported")
    files = {}

    def make(name, **options):
        key = (name, *sorted(options.items()))
        if key not in files:
            path = folder / f"{len(files)}.onnx"
            model = small_model(name)
            hierarchical = model.spec.hierarchical
            export_onnx(model, path, tokens=hierarchical, soft_assignments=hierarchical, **options)
            files[key] = path
        return files[key]

    return make


def outputs(path, inputs, batch=1):
    return list(run_session(open_session(path.read_bytes(), 1), inputs, batch))


def described(path):
    model = onnx.load(path)
    return model, *from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)


def check_file(path):
    model, spec, info = described(path)
    onnx.checker.check_model(model, full_check=True)
    assert graphs.broken_rules(model) == []
    assert 17 <= info.opset <= 20
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not model.graph.value_info
    assert {entry.key for entry in model.metadata_props} == {SPEC_KEY, INFO_KEY}
    assert info.outputs == tuple(value.name for value in model.graph.output)
    report = Report.from_dict(info.verification)
    assert report.passed and report.images >= 2
    names = {check.name for check in report.checks}
    assert "embedding" in names
    if spec.hierarchical:
        assert {f"level{level}" for level in range(1, 5)} | {f"sampled{level}" for level in range(1, 5)} <= names
    return model, spec, info


@pytest.mark.parametrize("name", SMALL)
def test_every_family_exports_and_agrees_on_photographs(exported, name):
    model, spec, info = check_file(exported(name))
    assert Report.from_dict(info.verification).images == 8
    assert [value.name for value in model.graph.input] == ["image", "superpixels"][: 1 + spec.uses_superpixels]
    counts = graphs.operators(model)
    assert counts["Conv"] == (1 if name == "vit_small" else 4)
    assert "BatchNormalization" not in counts
    # At batch 1 every linear layer is one Gemm; what is left are products of two computed matrices and averages.
    constants = {tensor.name for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    assert all("/positions/" in node.name for node in weights), [node.name for node in weights]


def export_in_full_size(name, path, photos):
    model = create_model(name)
    draw_weights(model)
    export_onnx(model.eval(), path, images=photos)
    _, _, info = check_file(path)
    assert Report.from_dict(info.verification).images == len(photos)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in list_models() if "_base" not in name])
def test_small_models_export_in_full_size(tmp_path, name):
    """The base sizes are these with wider layers, and take three quarters of the time."""
    export_in_full_size(name, tmp_path / "model.onnx", bundled.photos()[:2])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", list_models())
def test_every_registered_model_exports_in_full_size(tmp_path, name):
    export_in_full_size(name, tmp_path / "model.onnx", bundled.photos())


def test_few_operators_per_sampling_step(exported):
    counts = graphs.operators(onnx.load(exported("cast_small")))
    steps = 12 + 8 + 4 + 2
    assert counts["ArgMax"] == steps + 4
    assert counts["Min"] <= steps
    groups = 3 + 2 + 1 + 1  # of four steps, whose choices move into the row of chosen tokens together
    assert counts["Gather"] <= steps + groups + 12


def test_an_image_gives_the_same_labels_alone_and_in_any_batch(exported):
    spec, info = described(exported("cast_small"))[1:]
    inputs = photo_inputs(spec, info.height, info.width)
    alone = outputs(exported("cast_small"), inputs)
    for batch in (3, None):
        path = exported("cast_small", batch=batch)
        assert described(path)[2].batch == batch
        for one, other in zip(alone, outputs(path, inputs, batch), strict=True):
            assert np.abs(one["logits"] - other["logits"]).max() < 1e-4 * np.abs(one["logits"]).max()
            for level in range(1, 5):
                assert np.array_equal(one[f"level{level}"], other[f"level{level}"])


def test_outputs_move_with_the_input(exported):
    spec, info = described(exported("cast_small"))[1:]
    found = outputs(exported("cast_small"), photo_inputs(spec, info.height, info.width))
    for one, other in itertools.pairwise(found):
        assert np.abs(one["logits"] - other["logits"]).max() > 1e-3
        assert not np.array_equal(one["level2"], other["level2"])


def test_levels_nest_and_soft_assignments_match_them(exported):
    spec, info = described(exported("cast_small"))[1:]
    inputs = photo_inputs(spec, info.height, info.width)
    for found, labels in zip(outputs(exported("cast_small"), inputs), inputs.superpixels, strict=True):
        Hierarchy.from_labels(labels, [found[f"level{level}"] for level in range(1, 5)])  # refuses what does not nest
        composed = found["assignment1"].argmax(-1)
        for level in range(2, 5):
            composed = found[f"assignment{level}"].argmax(-1)[composed]
            assert np.array_equal(composed, found[f"level{level}"])
        assert np.allclose(found["assignment1"].sum(-1), 1, atol=1e-5)
        assert found["tokens2"].shape == (spec.clusters[0], spec.embed_dim)


def test_a_flat_picture_gives_an_answer(exported):
    """Fewer distinct tokens than segments: the training model refuses, a camera must not stop."""
    spec, info = described(exported("cast_small"))[1:]
    inputs = photo_inputs(spec, info.height, info.width, 1)
    flat = dataclasses.replace(inputs, image=np.full_like(inputs.image, 77))
    assert np.isfinite(outputs(exported("cast_small"), flat)[0]["logits"]).all()


def test_a_segmentation_model_exports_at_other_sizes(tmp_path):
    model = small_model("segmenter_cast_small")
    path = tmp_path / "wide.onnx"
    info = export_onnx(model, path, image_size=(96, 124), images=photo_inputs_paths(2))
    assert (info.height, info.width) == (96, 124) and info.verification["passed"]
    assert described(path)[1].superpixels.count == 96 * 124 // 256


def photo_inputs_paths(count):
    from cast_sdk import bundled

    return bundled.photos()[:count]


def test_a_shortfall_writes_nothing(tmp_path, monkeypatch):
    from cast_sdk.export.lowering.cast import LoweredCast

    original = LoweredCast.forward

    def wrong(self, image, *superpixels):
        found = original(self, image, *superpixels)
        return {**found, "logits": found["logits"] * 1.01}

    monkeypatch.setattr(LoweredCast, "forward", wrong)
    with pytest.raises(ExportError, match=r"does not agree with the model.*\n.*logits"):
        export_onnx(small_model("cast_small"), tmp_path / "x.onnx", images=photo_inputs_paths(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 256}, "256 x 256 pixels, only of 224 x 224"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "bf16"}, "Unknown precision 'bf16'.\n.*fp32, fp16, int8"),
        ({"superpixels": 10}, "^4 superpixels at 224 x 224 pixels are fewer than the 12 segments"),
        ({"images": "no/such/folder"}, "no/such/folder does not exist"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, options, message):
    with pytest.raises(CastError, match=message):
        export_onnx(small_model("cast_small"), tmp_path / "x.onnx", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_small", {"tokens": True}, "no levels"),
        ("vit_small", {"superpixels": 100}, "takes no superpixels"),
    ],
)
def test_options_a_baseline_does_not_have(tmp_path, name, options, message):
    with pytest.raises(ExportError, match=message):
        export_onnx(small_model(name), tmp_path / "x.onnx", **options)


def test_outputs_that_cannot_be_written(tmp_path):
    model = small_model("vit_small")
    with pytest.raises(ExportError, match=r"x\.pth does not end in \.onnx"):
        export_onnx(model, tmp_path / "x.pth")
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(model, tmp_path / "missing" / "x.onnx")
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if not os.access(folder, os.W_OK):  # root may write anywhere
            with pytest.raises(ExportError, match="cannot be written"):
                export_onnx(model, folder / "x.onnx")
        assert list(folder.iterdir()) == []
    finally:
        folder.chmod(stat.S_IRWXU)


def test_only_models_of_this_package(tmp_path):
    with pytest.raises(ExportError, match=r"A Linear cannot be exported"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "x.onnx")


def test_near_ties_are_left_out_only_where_they_differ():
    yes, no = np.array([True, True]), np.array([True, False])

    def shares(equal, clear):
        checks = label_checks("level1", equal, clear, Bars())
        return [(check.value, check.count, check.ties, check.passed) for check in checks]

    assert shares([yes], [no]) == [(1.0, 1, 0, True), (1.0, 2, 0, True)]  # equal all the same
    assert shares([no], [no]) == [(1.0, 1, 0, True), (1.0, 1, 1, True)]  # a superpixel left out
    assert shares([no], [~yes]) == [(0.0, 0, 1, False), (1.0, 1, 1, True)]  # an image left out: nothing is shown
    assert shares([no], [yes]) == [(0.0, 1, 0, False), (0.5, 2, 0, False)]  # wrong


@pytest.mark.parametrize(("shift", "clear"), [(1e-4, False), (1e-3, True)])
def test_sampling_is_a_near_tie_where_rounding_of_the_norms_decides(shift, clear):
    """The last two points lie 0.1 and 0.1 + shift from chosen ones, and 12 from the mean."""
    values = [12.0, -11.0, 11.9, -10.9 + shift]
    tokens = torch.tensor([[[value] for value in [*values, -sum(values)]]], dtype=torch.float64)
    none = torch.empty(0)
    margin = sampling_margin(Level(tokens, none, torch.tensor([[0, 1, 4, 3]]), none, none, none), None)
    assert margin == pytest.approx((0.2 * shift + shift**2) / (0.1**2 + 11.9**2 / 10), rel=0.02)
    assert (margin >= TIE_MARGIN) == clear


@pytest.mark.parametrize(("noise", "clear"), [(0.0, True), (1e-6, True), (1e-4, False)])
def test_sampling_is_clear_where_float32_keeps_its_distances(noise, clear):
    """The last two points lie 0.1 and 0.101 from chosen ones, and 12 from the mean: a margin of 1.4e-5."""
    values = torch.tensor([12.0, -11.0, 11.9, -10.899, -2.001], dtype=torch.float64)
    none, picks = torch.empty(0), torch.tensor([[0, 1, 4, 3]])
    exact = Level(values[None, :, None], none, picks, none, none, none)
    moved = values + noise * 12 * torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0])
    assert clearly_sampled(dataclasses.replace(exact, tokens=moved[None, :, None]), exact, None) is clear
    assert not clearly_sampled(dataclasses.replace(exact, sampled=picks.flip(1)), exact, None)


def test_verification_leaves_gradients_on(tmp_path):
    export_onnx(small_model("cast_small"), tmp_path / "x.onnx", images=bundled.photos()[:2])
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_an_error_is_a_near_tie_only_where_float32_itself_moves_the_output():
    assert Difference(found=2e-3, rounding=2e-3, magnitude=10).tied(1e-4)
    assert not Difference(found=2e-3, rounding=2e-6, magnitude=10).tied(1e-4)
    assert not Difference(found=2e-6, rounding=2e-3, magnitude=10).tied(1e-4)


def test_rules_name_what_breaks_them():
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, None)
    node = onnx.helper.make_node("NonZero", ["x"], ["y"], name="search")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))
    broken = "\n".join(graphs.broken_rules(model))
    assert "NonZero of node 'search'" in broken and "'x' has no static shape" in broken
