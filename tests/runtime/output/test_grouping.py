"""Levels of a Runtime: as the network assigned superpixels, or merged, as the model or its user says."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import cast_sdk
from cast_sdk import Runtime
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, CastError, InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.spec import ModelSpec, SuperpixelSettings
from cast_sdk.superpixels import merged_levels

torch = pytest.importorskip("torch", reason="exports need torch")
OPTIONS = {"image_size": 64, "superpixels": SuperpixelSettings(36, 5, 5), "clusters": (12, 6, 4, 3)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Checkpoint and graph of one network, merged and as assigned, and the latter with its soft assignments."""
    from cast_sdk.models import save_native

    folder = tmp_path_factory.mktemp("grouping")
    torch.manual_seed(0)
    merged = cast_sdk.create_model("cast_tiny", grouping="merged", **OPTIONS).eval()
    assigned = copy.deepcopy(merged)
    assigned.spec = dataclasses.replace(merged.spec, grouping="assigned")
    save_native(merged, folder / "merged.safetensors")
    cast_sdk.export_onnx(merged, folder / "merged.onnx", tokens=True, batch=None)
    cast_sdk.export_onnx(assigned, folder / "assigned.onnx")
    cast_sdk.export_onnx(assigned, folder / "soft.onnx", soft_assignments=True)
    return folder


def levels_of(result):
    return [result.hierarchy.members[level] for level in range(1, result.num_levels + 1)]


def expected(runtime, photo, *, merged):
    prepared = runtime.add_superpixels(runtime.prepare(photo))
    outputs = runtime.infer([prepared])[0]
    levels = (
        merged_levels(prepared.image, prepared.superpixels, [outputs[f"assignment{n}"] for n in range(1, 5)])
        if merged
        else [outputs[f"level{n}"] for n in range(1, 5)]
    )
    return list(Hierarchy.from_labels(prepared.superpixels, levels).members[1:])


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_graph_of_merged_levels_carries_its_assignments_and_uses_them(models, photo):
    with Runtime(models / "merged.onnx") as runtime:
        assert runtime.spec.grouping == runtime.grouping == "merged"
        assert {f"assignment{n}" for n in range(1, 5)} <= set(runtime.info.outputs)
        result = runtime.segment(photo)
        assert same(levels_of(result), expected(runtime, photo, merged=True))
        assert [result.num_segments(level) for level in range(1, 5)] == [12, 6, 4, 3]
        both = runtime.segment_batch([photo, photo[::-1].copy()])
        assert same(levels_of(both[0]), levels_of(result))
        assert not same(levels_of(both[1]), levels_of(result))


def test_the_user_decides_where_the_graph_has_what_it_takes(models, photo):
    with Runtime(models / "merged.onnx", grouping="assigned") as runtime:
        assert same(levels_of(runtime.segment(photo)), expected(runtime, photo, merged=False))
    with Runtime(models / "soft.onnx") as runtime:
        assert runtime.grouping == "assigned"
        assert same(levels_of(runtime.segment(photo)), expected(runtime, photo, merged=False))
    with Runtime(models / "soft.onnx", grouping="merged") as runtime:
        assert same(levels_of(runtime.segment(photo)), expected(runtime, photo, merged=True))
        again = pickle.loads(pickle.dumps(runtime))
        assert again.grouping == "merged"
        again.close()


@pytest.mark.parametrize("eager", [False, True])
def test_a_checkpoint_can_be_merged_whatever_it_says(models, photo, eager):
    from cast_sdk.models import load_model, save_native

    model = load_model(models / "merged.safetensors")
    model.spec = dataclasses.replace(model.spec, grouping="assigned")
    save_native(model, models / f"again{eager}.safetensors")
    with Runtime(models / "merged.onnx") as graph:
        expected = levels_of(graph.segment(photo))
    with Runtime(models / f"again{eager}.safetensors", grouping="merged", eager=eager) as checkpoint:
        assert same(levels_of(checkpoint.segment(photo)), expected)


@pytest.mark.parametrize("eager", [False, True])
def test_a_checkpoint_gives_the_levels_of_its_graph(models, photo, eager):
    with Runtime(models / "merged.onnx") as graph, Runtime(models / "merged.safetensors", eager=eager) as checkpoint:
        assert same(levels_of(checkpoint.segment(photo)), levels_of(graph.segment(photo)))


def test_a_stream_merges_too(models, photo):
    with Runtime(models / "merged.onnx") as runtime:
        alone = levels_of(runtime.segment(photo))
        for result in runtime.stream([photo] * 3):
            assert same(levels_of(result), alone)


def test_merging_needs_soft_assignments(models):
    with pytest.raises(InputError, match="cannot be merged") as caught:
        Runtime(models / "assigned.onnx", grouping="merged")
    assert "assignment1" in caught.value.found and "--soft-assignments" in caught.value.remedy


def test_a_backend_that_cannot_merge_stays_open(models, photo):
    from cast_sdk.runtime.backends.opening import open_backend

    backend = open_backend(models / "assigned.onnx")
    with pytest.raises(InputError, match="cannot be merged"):
        Runtime(backend, grouping="merged")
    assert Runtime(backend).segment(photo).num_levels == 4
    backend.close()


def test_merging_needs_levels(tmp_path):
    from cast_sdk.models import save_native

    torch.manual_seed(0)
    vit = cast_sdk.create_model("vit_conv_small", embed_dim=32, num_heads=2, depths=(1,), image_size=64).eval()
    save_native(vit, tmp_path / "vit.safetensors")
    with pytest.raises(CastError, match="has no levels"):
        Runtime(tmp_path / "vit.safetensors", grouping="merged")
    cast_sdk.export_onnx(vit, tmp_path / "vit.onnx", verify=False)
    with pytest.raises(InputError, match="cannot be merged") as caught:
        Runtime(tmp_path / "vit.onnx", grouping="merged")
    assert caught.value.found == "a model without levels"


def test_an_unknown_grouping_is_refused(models):
    with pytest.raises(InputError, match="grouping"):
        Runtime(models / "merged.onnx", grouping="both")


def test_a_description_that_merges_what_has_no_levels_is_refused():
    spec = cast_sdk.create_model("vit_conv_small", embed_dim=32, num_heads=2, depths=(1,), image_size=64).spec
    with pytest.raises(ArtifactError, match="merges levels"):
        type(spec).from_dict({**spec.to_dict(), "grouping": "merged"})


def test_a_graph_without_the_assignments_that_it_describes_is_refused(models, tmp_path):
    import onnx
    from onnx import helper

    from cast_sdk.artifact import INFO_KEY, SPEC_KEY

    graph = onnx.load(models / "assigned.onnx")
    stored = {entry.key: entry.value for entry in graph.metadata_props}
    spec = dataclasses.replace(ModelSpec.from_json(stored[SPEC_KEY]), grouping="merged")
    del graph.metadata_props[:]
    info = ExportInfo.from_json(stored[INFO_KEY])
    helper.set_model_props(graph, {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()})
    onnx.save(graph, tmp_path / "changed.onnx")
    with pytest.raises(ArtifactError) as caught:
        Runtime(tmp_path / "changed.onnx")
    assert "assignment1" in caught.value.found


def test_tokens_of_merged_segments_are_means_over_their_superpixels(models, photo):
    with Runtime(models / "merged.onnx") as runtime:
        result = runtime.segment(photo)
    present = result.hierarchy.ids[0]
    assert np.array_equal(result.tokens(0), result.outputs["tokens1"][present])
    clusters = result.outputs["level2"][present]
    for segment in range(result.num_segments(2)):
        inside = result.outputs["tokens3"][clusters[result.hierarchy.members[2] == segment]]
        assert np.allclose(result.tokens(2)[segment], inside.mean(0), atol=1e-6)
    assert np.array_equal(result.features(2)["token"], result.tokens(2))


def test_tokens_of_assigned_segments_are_those_of_the_clusters(models, photo):
    with Runtime(models / "merged.onnx", grouping="assigned") as runtime:
        result = runtime.segment(photo)
    for level in range(4):
        assert np.array_equal(result.tokens(level), result.outputs[f"tokens{level + 1}"][result.hierarchy.ids[level]])
    with pytest.raises(InputError, match="no tokens of level 4"):
        result.tokens(4)


def test_an_export_verifies_the_assignments(models):
    with Runtime(models / "merged.onnx") as runtime:
        info = runtime.info
    names = {check["name"] for check in info.verification["checks"]}
    assert {f"assignment{n}" for n in range(1, 5)} <= names
