"""A real RTSP stream of driving video, killed and restarted while it runs."""

from __future__ import annotations

import time

import pytest
from standin import StandIn
from streams import RtspCamera

from cast_sdk.runtime.sources import opencv as capture


@pytest.fixture
def camera(data_dir, tmp_path):
    camera = RtspCamera(data_dir, tmp_path)
    yield camera
    camera.kill()


def test_a_stream_that_dies_comes_back(camera, monkeypatch):
    monkeypatch.setattr(capture, "READ_TIMEOUT", 2.0)
    camera.start()
    states = []
    with StandIn() as rt, rt.stream(camera.uri, on_status=states.append) as results:
        before = [next(results) for _ in range(20)]
        assert before[0].size == (360, 480)
        assert len({float(r.embedding.sum()) for r in before}) > 5, "the picture moves"
        camera.kill()
        deadline = time.monotonic() + 30
        while results.source.status.state != "lost" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert results.source.status.state == "lost"
        camera.start()
        last = before[-1].index
        after = [next(results) for _ in range(20)]
        assert all(r.index > last and r.size == (360, 480) for r in after)
    names = [s.state for s in states]
    assert names[:3] == ["opening", "live", "lost"] and names[-2:] == ["live", "ended"], names
