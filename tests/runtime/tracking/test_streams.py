"""Tracked streams of the bundled model on films with known motion: steadiness, cuts, order; untracked as before."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from standin import StandIn

import cast_sdk
from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime import streaming
from cast_sdk.runtime.camera.packet import pack, unpack
from cast_sdk.runtime.output.recorder import frame_record
from cast_sdk.superpixels import can_continue

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import films
import steadiness

continues = pytest.mark.skipif(not can_continue(), reason="needs the package's own kernel")


@pytest.fixture(scope="module")
def rt():
    with cast_sdk.Runtime() as runtime:
        yield runtime


@pytest.fixture(scope="module")
def photographs(data_dir):
    return steadiness.photographs(data_dir, 3)


@continues
@pytest.mark.parametrize("kind", ["pan", "zoom", "cutout"])
@pytest.mark.parametrize("grouping", ["merged", "assigned"])
def test_slow_motion_is_steady(photographs, kind, grouping):
    """Two pixels a frame: ids follow the true motion on 85% of the pixels and 10% change colour; untracked less so."""
    first, second = photographs[1], photographs[2]
    shots = list(films.cutout(first, second, 32) if kind == "cutout" else getattr(films, kind)(first, 36))
    with cast_sdk.Runtime(grouping=grouping) as runtime:
        steady, plain = steadiness.measure(runtime, shots, track=True), steadiness.measure(runtime, shots)
    assert (steady["same"][2:] >= 0.85).all(), steady
    assert (steady["colour"][2:] < 0.10).all(), steady
    assert (plain["same"][2:] < steady["same"][2:] - 0.05).all() and (plain["IoU"][1:] < steady["IoU"][1:]).all()
    assert grouping == "merged" or (plain["same"][2:] < 0.6).all()
    # Steady is not frozen: as near to the segments of the frame alone as those are to each other's.
    assert (steady["near"][1:] > 0.55).all(), steady


def test_ids_do_not_survive_a_cut(rt, photographs):
    frames = [films.covering(photographs[n], 240, 320) for n in (0, 0, 0, 1, 1, 1, 0)]
    results = list(rt.stream(frames, track=True))
    assert [seg.scene for seg in results] == [0, 0, 0, 1, 1, 1, 2]
    for level in range(5):
        scenes = [
            set(np.concatenate([seg.tracks(level) for seg in results if seg.scene == s]).tolist()) for s in range(3)
        ]
        assert not (scenes[0] & scenes[1] or scenes[1] & scenes[2] or scenes[0] & scenes[2])
    assert (results[3].ages(2) == 0).all() and results[2].ages(2).max() == 2


def test_without_tracking_nothing_changes(rt, photographs):
    frames = [shot.frame for shot in films.pan(photographs[0], 4)]
    for seg, frame in zip(rt.stream(frames), frames, strict=True):
        alone = rt.segment(frame)
        assert seg.tracking is None and "tracking" not in seg.timing
        for level in range(5):
            assert np.array_equal(seg.labels(level), alone.labels(level))
        assert np.array_equal(seg.logits, alone.logits) and np.array_equal(seg.plot(2), alone.plot(2))
        assert set(seg.to_dict(masks=False)["levels"][1]["segments"][0]) == {"id", "parent", "area", "box"}
        assert "tracks" not in frame_record(seg)["levels"] and "tracks" not in unpack(pack(seg))[0]
        with pytest.raises(InputError, match=r"no tracks.*\n.*track=True"):
            seg.tracks(1)


def test_ids_alone_leave_the_segments_as_they_are(rt, photographs):
    frames = [shot.frame for shot in films.pan(photographs[0], 5)]
    for seg, frame in zip(rt.stream(frames, track=True, memory=0, continue_superpixels=False), frames, strict=True):
        alone = rt.segment(frame)
        for level in range(5):
            pairs = set(zip(seg.labels(level).ravel().tolist(), alone.labels(level).ravel().tolist(), strict=True))
            assert len(pairs) == alone.num_segments(level) == seg.num_segments(level)


def test_tracks_go_where_results_go(rt, photographs):
    *_, seg = rt.stream([shot.frame for shot in films.pan(photographs[0], 6)], track=True)
    for level in range(5):
        tracks = seg.tracks(level)
        assert tracks.dtype == np.int64 and tracks.shape == seg.ages(level).shape == (seg.num_segments(level),)
        assert [entry["track"] for entry in seg.to_dict(masks=False)["levels"][level]["segments"]] == tracks.tolist()
    assert json.loads(json.dumps(frame_record(seg)))["levels"]["tracks"] == [seg.tracks(n).tolist() for n in range(5)]
    header, _, _ = unpack(pack(seg))
    assert header["tracks"][2] == seg.tracks(2).tolist() and header["ages"][2] == seg.ages(2).tolist()
    assert seg.timing["tracking"] > 0
    with pytest.raises(InputError, match="level"):
        seg.tracks(5)


def test_colours_follow_tracks(rt, photographs):
    from cast_sdk.runtime.output.colours import segment_colours

    seen: dict[int, np.ndarray] = {}
    for seg in rt.stream([shot.frame for shot in films.pan(photographs[0], 25)], track=True):
        for level in range(5):
            for track, colour in zip(seg.tracks(level).tolist(), segment_colours(seg)[level].astype(int), strict=True):
                before = seen.setdefault(track, colour)
                assert np.abs(colour - before).max() <= 24, "a colour glides, it does not jump"
                seen[track] = colour
                if level == 4:
                    assert np.array_equal(colour, before)


@continues
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_change_the_results(rt, photographs, workers):
    """Superpixels go on in the order of the frames, however many threads prepare them."""
    frames = [shot.frame for shot in films.pan(photographs[0], 16)]
    results = list(rt.stream(frames, track=True, workers=workers, network_workers=2))
    again = list(rt.stream(frames, track=True, workers=1, network_workers=1))
    assert [seg.index for seg in results] == list(range(16))
    for a, b in zip(results, again, strict=True):
        assert np.array_equal(a.labels(0), b.labels(0)) and np.array_equal(a.labels(3), b.labels(3))
        assert all(np.array_equal(a.tracks(level), b.tracks(level)) for level in range(5))


def test_a_model_without_segments_streams_as_ever():
    with StandIn(flat=True) as flat:
        results = list(flat.stream("test://?width=64&height=48&rate=0&count=3", track=True))
    assert len(results) == 3 and results[0].tracking is None


def test_options_that_contradict(rt, monkeypatch):
    with pytest.raises(InputError, match="memory was given"):
        rt.stream([], memory=4)
    monkeypatch.setattr("cast_sdk.superpixels.can_continue", lambda: False)
    with pytest.raises(MissingDependencyError, match="continued"):
        rt.stream([], continue_superpixels=True)
    assert streaming._following(rt, True, None, None)[0].go_on is False


def test_the_resolution_may_change(rt, photographs):
    frames = [cv2.resize(photographs[0], size) for size in ((320, 240), (320, 240), (200, 300))]
    assert [seg.labels(2).shape for seg in rt.stream(frames, track=True)] == [(240, 320), (240, 320), (300, 200)]


def test_memory_stays_flat():
    """A thousand frames in which segments come and go, and a new scene every ten frames."""
    with StandIn() as rt:
        rng = np.random.default_rng(0)
        plain = rt.backend.run

        def restless(image, superpixels):
            outputs = plain(image, superpixels)
            fine = rng.integers(0, 36, outputs["level1"].shape[-1]).astype(np.int32)
            for level, size in enumerate((1, 3, 9, 18), 1):
                outputs[f"level{level}"] = (fine // size)[None]
            return outputs

        rt.backend.run = restless
        frames = (np.full((48, 64, 3), 255 * (number // 10 % 2), np.uint8) for number in range(1000))
        sizes, highest, scene = [], 0, 0
        tracemalloc.start()
        try:
            for seg in rt.stream(frames, track=True, network_workers=1):
                highest, scene = max(highest, int(seg.tracks(1).max())), seg.scene
                if seg.index in (300, 999):
                    sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert scene == 99 and highest > 99 * 198 and sizes[1] < sizes[0] + 100_000
