"""Good files that cases spoil, and what a good result is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import cast_sdk
from cast_sdk.runtime import Runtime


def run_once(path: Path, **options: Any) -> None:
    with Runtime(path, **options) as runtime:
        sound(runtime.segment(np.zeros((48, 64, 3), np.uint8)))


def sound(result: cast_sdk.Segmentation) -> cast_sdk.Segmentation:
    """A result that is one: finite numbers, labels in range at the frame's size, levels that nest."""
    assert all(np.isfinite(value).all() for value in result.outputs.values() if value.dtype.kind == "f")
    for level in range(result.num_levels + 1):
        labels = result.labels(level)
        assert labels.shape == result.size and labels.max() < result.num_segments(level) and labels.min() >= -1
        if level < result.num_levels:
            assert len(result.parents(level)) == result.num_segments(level)
    assert all(0 <= probability <= 1 for _, _, probability in result.top())
    json.loads(result.to_json())
    return result


def encoded(suffix: str, image: np.ndarray) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, image)
    assert done
    return bytes(data)


def film(path: Path) -> bytes:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(3):
        writer.write(np.full((48, 64, 3), 60 * shade, np.uint8))
    writer.release()
    return path.read_bytes()
