"""From frames to results, on the small graph."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import cast_sdk
from cast_sdk.errors import ArtifactError, CastError, ExportError, InputError
from cast_sdk.runtime import Runtime, Segmentation
from cast_sdk.runtime.output import rle


@pytest.fixture(scope="module")
def rt(tiny_onnx):
    with Runtime(tiny_onnx, device="cpu", threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def seg(rt, photo) -> Segmentation:
    return rt.segment(photo)


def test_a_result(seg, photo):
    assert seg.size == photo.shape[:2] and seg.num_levels == 4
    assert seg.embedding.shape == (8,) and seg.semantic is None
    assert list(seg.timing) == ["preprocess", "superpixels", "model", "postprocess", "total"]
    assert seg.timing["total"] == pytest.approx(sum(list(seg.timing.values())[:-1]))
    assert seg.num_segments(0) <= 64
    top = seg.top(3)
    assert len(top) == 3 and top[0][2] >= top[1][2] and top[0][1] == f"thing {top[0][0]}"
    assert sum(p for _, _, p in seg.top(10)) == pytest.approx(1)


def test_a_calibrated_model_softens_its_probabilities_and_can_be_unsure(tmp_path, build_onnx, tiny_spec, photo):
    plain = Runtime(build_onnx(tmp_path / "plain.onnx"), device="cpu").segment(photo)
    assert not plain.unsure and plain.verdict == f"{plain.top(1)[0][1]} {plain.top(1)[0][2]:.0%}"
    spec = dataclasses.replace(tiny_spec, temperature=4.0, unsure_below=0.9)
    soft = Runtime(build_onnx(tmp_path / "soft.onnx", spec=spec), device="cpu").segment(photo)
    assert [index for index, _, _ in soft.top(10)] == [index for index, _, _ in plain.top(10)]
    expected = np.exp(soft.logits.astype(float) / 4)
    assert soft.top(1)[0][2] == pytest.approx((expected / expected.sum()).max())
    assert soft.unsure and soft.verdict == "unsure" and soft.to_dict()["unsure"] is True
    assert plain.to_dict()["unsure"] is False


def test_levels_nest_at_the_size_of_the_frame(seg):
    for level in range(4):
        labels, parents = seg.labels(level), seg.parents(level)
        assert labels.dtype == np.int32 and labels.shape == seg.size
        assert len(parents) == seg.num_segments(level) and labels.max() < len(parents)
        assert np.array_equal(parents[labels], seg.labels(level + 1))
    masks = [seg.mask(2, i) for i in range(seg.num_segments(2))]
    assert (np.sum(masks, axis=0) == 1).all()


def test_crop_leaves_the_rest_unlabelled(tiny_onnx, photo):
    result = Runtime(tiny_onnx, fit="crop", device="cpu").segment(photo)
    labels = result.labels(1)
    assert (labels[:, 160] >= 0).sum() > 200 and (labels[:, :10] == -1).all()
    counts = [segment["area"] for segment in result.to_dict()["levels"][1]["segments"]]
    assert sum(counts) == (labels >= 0).sum()
    assert result.plot(1).shape == photo.shape


@pytest.mark.parametrize("batch", [1, 3, None])
def test_alone_and_in_a_batch(tmp_path, photo, batch, build_onnx):
    runtime = Runtime(build_onnx(tmp_path / "batch.onnx", batch=batch), device="cpu")
    frames = [photo, photo[:, ::-1], photo[::-1], photo[:100, :80]]
    together = runtime.segment_batch(frames)
    assert runtime.segment_batch([]) == []
    for frame, result in zip(frames, together, strict=True):
        alone = runtime.segment(frame)
        for level in range(5):
            assert np.array_equal(alone.labels(level), result.labels(level))
        assert np.allclose(alone.embedding, result.embedding, atol=1e-6)


def test_outputs_move_with_the_input(rt, photo):
    results = rt.segment_batch([photo, 255 - photo])
    assert not np.allclose(results[0].logits, results[1].logits, atol=1e-3)


def test_json_holds_the_whole_result(seg):
    data = json.loads(seg.to_json())
    assert data["size"] == list(seg.size) and data["model"] == "fixture"
    assert data["top"][0]["class_id"] == seg.top(1)[0][0]
    assert np.allclose(data["embedding"], seg.embedding, rtol=1e-5)
    for level, entry in enumerate(data["levels"]):
        labels = seg.labels(level)
        assert entry["num_segments"] == len(entry["segments"]) == seg.num_segments(level)
        for segment in entry["segments"]:
            mask = rle.decode(segment["rle"])
            assert np.array_equal(mask, labels == segment["id"]) and segment["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            x, y, width, height = segment["box"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
            expected = seg.parents(level)[segment["id"]] if level < 4 else None
            assert segment["parent"] == expected
    assert "rle" not in seg.to_dict(masks=False)["levels"][0]["segments"][0]


def test_dense_models(dense_onnx, photo):
    result = Runtime(dense_onnx, device="cpu").segment(photo)
    assert result.semantic.shape == photo.shape[:2] and result.semantic.dtype == np.int32
    entries = result.to_dict()["semantic"]
    assert sum(entry["area"] for entry in entries) == photo[..., 0].size
    for entry in entries:
        assert entry["name"] == "abcdefgh"[entry["class_id"]]
        assert np.array_equal(rle.decode(entry["rle"]), result.semantic == entry["class_id"])


def test_stages_can_be_called_one_by_one(rt, photo, seg):
    prepared = rt.prepare(photo)
    with pytest.raises(InputError, match="add_superpixels"):
        rt.infer([prepared])
    rt.add_superpixels(prepared)
    result = rt.finish(prepared, rt.infer([prepared])[0])
    assert np.array_equal(result.labels(3), seg.labels(3))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda s: s.labels(5), r"choose 0\.\.4"),
        (lambda s: s.mask(4, 99), "segment 99"),
        (lambda s: s.parents(4), "no parents"),
        (lambda s: s.plot("semantic"), "dense head"),
    ],
)
def test_requests_a_result_cannot_meet(seg, call, words):
    with pytest.raises(InputError, match=words):
        call(seg)


def test_superpixels_of_other_settings(rt, photo):
    prepared = rt.add_superpixels(rt.prepare(photo))
    prepared.superpixels[0, 0] = 64
    with pytest.raises(InputError, match=r"takes 0\.\.63"):
        rt.finish(prepared, rt.infer([prepared])[0])


def test_a_model_that_overflows(rt, photo):
    prepared = rt.add_superpixels(rt.prepare(photo))
    outputs = rt.infer([prepared])[0]
    outputs["embedding"] = outputs["embedding"] * np.float32(np.inf)
    with pytest.raises(ArtifactError, match="again in fp32"):
        rt.finish(prepared, outputs)


def test_models_without_superpixels(tmp_path, photo, tiny_spec, build_onnx):
    spec = dataclasses.replace(tiny_spec, family="vit", clusters=())
    result = Runtime(build_onnx(tmp_path / "vit.onnx", spec=spec), device="cpu").segment(photo)
    assert result.num_levels == 0 and result.to_dict()["levels"] == [] and result.top(1)
    assert result.plot().shape == photo.shape
    with pytest.raises(InputError, match="no superpixels"):
        result.labels(0)


def test_saving(seg, tmp_path):
    seg.save(tmp_path / "a.png", level=2)
    seg.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["model"] == "fixture"
    for path, kind, words in (
        (tmp_path / "a.mp3", InputError, r"the suffix '\.mp3'"),
        (tmp_path / "a", InputError, "the suffix ''"),
        (tmp_path / "none" / "a.png", ExportError, "cannot be written"),
        (tmp_path / "a.json" / "a.png", ExportError, "cannot be written"),
    ):
        with pytest.raises(kind, match=words):
            seg.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_frames_of_a_batch_that_share_one_buffer_are_told_apart(tiny_onnx):
    rng = np.random.default_rng(0)
    with Runtime(tiny_onnx) as rt:
        frames = [rng.integers(0, 256, (rt.info.height, rt.info.width, 3), np.uint8) for _ in range(3)]

        def one_buffer():
            buffer = np.empty_like(frames[0])
            for frame in frames:
                buffer[:] = frame
                yield buffer

        for found, frame in zip(rt.segment_batch(one_buffer()), frames, strict=True):
            alone = rt.segment(frame)
            assert np.array_equal(found.plot(1), alone.plot(1)) and np.array_equal(found.labels(1), alone.labels(1))


def test_pil_images_that_were_closed_are_refused(tiny_onnx, photo, tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image_module.fromarray(photo).save(tmp_path / "a.png")
    with Runtime(tiny_onnx) as rt:
        with image_module.open(tmp_path / "a.png") as image:
            pass
        with pytest.raises(InputError, match="was closed before its pixels were read"):
            rt.segment_batch([image])
        image = image_module.open(tmp_path / "a.png")
        image.close()
        with pytest.raises(InputError, match="was closed before its pixels were read"):
            rt.segment(image)


def test_a_level_of_coco_that_is_none(tiny_onnx, photo):
    with Runtime(tiny_onnx) as rt:
        result = rt.segment(photo)
    for level in (float("nan"), "1", 9, [1, -1]):
        with pytest.raises(InputError):
            result.to_coco(level)


def test_a_closed_runtime(tiny_onnx, photo):
    runtime = Runtime(tiny_onnx)
    runtime.close()
    runtime.close()
    with pytest.raises(InputError, match="Runtime is closed"):
        runtime.segment(photo)


def test_without_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(cast_sdk.bundled, "FOLDER", tmp_path)
    with pytest.raises(ArtifactError, match="cast-export --ckpt"):
        Runtime()
    with pytest.raises(InputError, match="stretch, crop"):
        Runtime(fit="pad")


def test_every_error_is_a_cast_error(rt):
    for frame in (None, 3, "missing.jpg", np.zeros((0, 0, 3), np.uint8), np.full((4, 4, 3), np.nan)):
        with pytest.raises(CastError, match="Remedy"):
            rt.segment(frame)


def test_running_an_onnx_file_never_imports_torch_or_onnx(tiny_onnx):
    code = f"import numpy, sys, cast_sdk\nrt = cast_sdk.Runtime({str(tiny_onnx)!r})\n"
    code += "seg = rt.segment(numpy.zeros((50, 60, 3), numpy.uint8)); seg.plot(); seg.to_json()\n"
    code += "print([name for name in ('torch', 'onnx', 'PIL', 'openvino') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
