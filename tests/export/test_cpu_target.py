"""Graphs for processors: the same results from other inputs, and refused where they do not fit."""

import weakref
from concurrent.futures import ThreadPoolExecutor

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
    shapes = {"assignment": (5, 4), "positions": (5, 9)}
    names = {"image", *shapes}
    feeder = feeding.Feeder(names, shapes)
    image, labels = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), np.int32)
    with feeder.feed(image, labels) as feed:
        first = feed["assignment"]
        assert set(feed) == names and first[0, 0].any()
        with feeder.feed(image, labels) as other:  # as from another thread
            assert not np.shares_memory(other["assignment"], first)
    with feeder.feed(image, labels + 4) as feed, feeder.feed(image, labels + 4) as other:
        assert np.shares_memory(first, feed["assignment"]) or np.shares_memory(first, other["assignment"])
        for values in (feed, other):
            assert not values["assignment"][0, :4].any() and values["assignment"][0, 4].sum() == pytest.approx(1)


def test_buffers_grow_with_the_batch_and_go_with_the_network(exported):
    backend = open_backend(exported(DENSE[0], "cpu", batch=None))
    inputs = photo_inputs(backend.spec, backend.info.height, backend.info.width, 3)
    for count in (1, 3, 2):
        backend.run(inputs.image[:count], inputs.superpixels[:count])
        (kept,) = backend._feeder._idle
        assert {len(buffer) for buffer in kept.values()} == {1 if count == 1 else 3}
    buffers = [weakref.ref(buffer) for buffer in kept.values()]
    del kept
    backend.close()
    assert len(buffers) == 2 and not any(buffer() is not None for buffer in buffers)


def test_threads_share_a_network_of_matrices(exported):
    backend = open_backend(exported(DENSE[0], "cpu"))
    inputs = photo_inputs(backend.spec, backend.info.height, backend.info.width, 4)
    rows = [slice(index, index + 1) for index in range(4)]

    def labels(row):
        return backend.run(inputs.image[row], inputs.superpixels[row])["level1"]

    alone = [labels(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(labels, rows * 4))
    assert all(np.array_equal(found, expected) for found, expected in zip(together, alone * 4, strict=True))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_whose_inner_axes_are_open(exported, tmp_path, backend):
    """The sizes are those of the description."""
    model = onnx.load(exported(DENSE[0], "cpu"))
    for value in model.graph.input[1:]:
        value.type.tensor_type.shape.dim[2].dim_param = f"{value.name}_cells"
    onnx.save(model, tmp_path / "open.onnx")
    with Runtime(exported(DENSE[0], "cpu"), backend=backend) as one:
        expected = one.segment(bundled.photos()[0])
    with Runtime(tmp_path / "open.onnx", backend=backend) as other:
        assert (other.segment(bundled.photos()[0]).labels(1) == expected.labels(1)).mean() > 0.99


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
