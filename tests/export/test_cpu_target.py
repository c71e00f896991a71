"""Graphs for processors: the same results from other inputs, and refused where they do not fit."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from export_tools import photo_inputs, small_model

from cast_sdk import bundled
from cast_sdk.artifact import from_metadata
from cast_sdk.errors import ExportError, InputError
from cast_sdk.export import graph as graphs
from cast_sdk.export.cli import main
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.web.assemble import check_graph
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends import feeding
from cast_sdk.runtime.backends.opening import open_backend

DENSE = ["segmenter_cast_small", "spml_cast_small", "cast_seg_small segmentation", "cast_seg_deit_small"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("targets"), {}

    def make(name, target, **options):
        key = (name, target, *sorted(options.items()))
        if key not in files:
            files[key] = folder / f"{len(files)}.onnx"
            export_onnx(small_model(name), files[key], target=target, images=bundled.photos()[:4], **options)
        return files[key]

    return make


@pytest.mark.parametrize("name", DENSE)
def test_a_graph_for_processors_is_verified_and_says_so(exported, name):
    path = exported(name, "cpu")
    model = onnx.load(path)
    assert graphs.broken_rules(model) == []
    _, info = from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)
    assert info.target == "cpu" and info.verification["passed"]
    assert [value.name for value in model.graph.input] == ["image", "assignment", "positions"]
    assert "Equal" not in graphs.operators(model)  # no one-hot windows


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", DENSE[:2])
def test_both_targets_give_the_same(exported, name, backend):
    with Runtime(exported(name, "any")) as one, Runtime(exported(name, "cpu"), backend=backend) as other:
        for photo in bundled.photos()[:3]:
            expected, found = one.segment(photo), other.segment(photo)
            assert np.abs(found.embedding - expected.embedding).max() < 1e-3 * np.abs(expected.embedding).max()
            assert (found.labels(1) == expected.labels(1)).mean() > 0.99
            if expected.semantic is not None:
                assert (found.semantic == expected.semantic).mean() > 0.99


def test_any_batch(exported):
    one = open_backend(exported(DENSE[0], "cpu"))
    every = open_backend(exported(DENSE[0], "cpu", batch=None))
    inputs = photo_inputs(one.spec, one.info.height, one.info.width, 3)
    together = every.run(inputs.image, inputs.superpixels)
    for row in range(3):
        alone = one.run(inputs.image[row : row + 1], inputs.superpixels[row : row + 1])
        for name in ("level1", "semantic"):
            assert (alone[name][0] == together[name][row]).mean() > 0.99


def test_buffers_are_used_again_and_hold_nothing_of_the_frame_before():
    shapes = {"image": (1, 16, 16, 3), "assignment": (1, 5, 4), "positions": (1, 5, 9)}
    image, labels = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), np.int32)
    with feeding.feeding(shapes, image, labels) as feed:
        first = feed["assignment"]
        assert set(feed) == set(shapes) and first[0, 0].any()
        with feeding.feeding(shapes, image, labels) as other:  # as from another thread
            assert other["assignment"] is not first
    with feeding.feeding(shapes, image, labels + 4) as feed, feeding.feeding(shapes, image, labels + 4) as other:
        assert first is feed["assignment"] or first is other["assignment"]
        for values in (feed, other):
            assert not values["assignment"][0, :4].any() and values["assignment"][0, 4].sum() == pytest.approx(1)


def test_labels_beyond_the_graph_are_refused(exported):
    backend = open_backend(exported(DENSE[0], "cpu"))
    inputs = photo_inputs(backend.spec, backend.info.height, backend.info.width, 1)
    with pytest.raises(InputError, match="do not lie in"):
        backend.run(inputs.image, inputs.superpixels + backend.info.num_superpixels)


def test_other_models_have_one_graph_for_all(tmp_path):
    lines = []
    info = export_onnx(small_model("cast_small"), tmp_path / "x.onnx", target="cpu", verify=False, say=lines.append)
    assert info.target == "any"
    assert any("the same for every target" in line for line in lines)


def test_what_a_graph_for_processors_cannot_be(tmp_path):
    model = small_model(DENSE[0])
    with pytest.raises(ExportError, match="in fp16"):
        export_onnx(model, tmp_path / "x.onnx", target="cpu", precision="fp16")
    with pytest.raises(ExportError, match="no target 'gpu'"):
        export_onnx(model, tmp_path / "x.onnx", target="gpu")
    for option in (["--trt"], ["--web", str(tmp_path / "site")], ["--torch-trt"]):
        result = CliRunner().invoke(main, ["--model", "cast_tiny", "--target", "cpu", *option])
        assert result.exit_code == 1 and "--target cpu and --" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_page_refuses_it(tmp_path):
    path = tmp_path / "x.onnx"
    export_onnx(small_model("cast_small"), path, verify=False)
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"target": "any"', '"target": "cpu"')
    onnx.save(model, path)
    with pytest.raises(ExportError, match="made for processors"):
        check_graph(path)
