"""What a viewer gets per frame: a picture, the superpixel map and small tables; the browser composes the rest.

Layout: the length of the header, uint32 little-endian; the header, JSON; a JPEG of `jpeg` bytes; then the runs of the
superpixel map in row order: `runs` lengths as uint8 and `runs` labels as uint16 little-endian.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.output.colours import segment_colours
from cast_sdk.runtime.output.drawing import encode
from cast_sdk.runtime.output.rle import runs
from cast_sdk.runtime.taxonomy import shown_path
from cast_sdk.system.opencv import import_cv2

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

MAX_SIDE = 1280  # pixels of the picture that is sent


def pack(result: Segmentation, **more: Any) -> bytes:
    """One frame for the browser.

    Args:
        result: a result that still has its frame.
        more: further fields of the header, JSON values.

    Header: `size` [height, width] of the frame, `top` [[name, probability]], `unsure`, `path` [[level, name,
    probability]] of a taxonomy, coarse to fine, `timing` (ms), `index`, `dropped`, `jpeg` (bytes). With a hierarchy
    also `map` [height, width], `window` [x, y, width, height] of the map in the frame (fractions), `parents` (per
    level, each segment's parent), `colours` (per level, "rrggbb" of every segment joined) and `runs`; with tracking
    `tracks` and `ages` (per level, of every segment) and `scene`.
    """
    assert result.frame is not None
    jpeg = encode(_limited(result.frame), ".jpg")
    header: dict[str, Any] = {
        "type": "frame",
        "index": result.index,
        "dropped": result.dropped,
        "size": list(result.size),
        "top": [[name.split(",")[0], round(probability, 4)] for _, name, probability in result.top(5)],
        "unsure": result.unsure,
        "timing": {stage: round(value, 2) for stage, value in result.timing.items()},
        "jpeg": len(jpeg),
        **more,
    }
    if result.spec.taxonomy:
        header["path"] = [[one.level, one.name.split(",")[0], round(one.probability, 4)] for one in shown_path(result)]
    tail = b""
    if result.hierarchy is not None:
        lengths, labels = _short_runs(result.hierarchy.superpixels)
        header |= {
            "map": list(result.hierarchy.superpixels.shape),
            "window": _window(result),
            "parents": [result.parents(level).tolist() for level in range(result.num_levels)],
            "colours": [colours[:, ::-1].tobytes().hex() for colours in segment_colours(result)],
            "runs": len(lengths),
        }
        if result.tracking is not None:
            header |= {
                "scene": result.scene,
                "tracks": [ids.tolist() for ids in result.tracking.ids],
                "ages": [ages.tolist() for ages in result.tracking.ages],
            }
        tail = lengths.tobytes() + labels.tobytes()
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return len(text).to_bytes(4, "little") + text + jpeg + tail


def unpack(data: bytes) -> tuple[dict[str, Any], bytes, npt.NDArray[np.int32] | None]:
    """Header, JPEG and superpixel map int32 [height, width] of a packet (for clients in Python)."""
    start = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start])
    jpeg, tail = data[start : start + header["jpeg"]], data[start + header["jpeg"] :]
    if "runs" not in header:
        return header, jpeg, None
    lengths = np.frombuffer(tail, np.uint8, header["runs"])
    labels = np.frombuffer(tail, "<u2", header["runs"], header["runs"])
    return header, jpeg, np.repeat(labels.astype(np.int32), lengths).reshape(header["map"])


def _short_runs(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Runs of at most 255 pixels: longer ones are cut."""
    values, lengths = runs(labels)
    pieces = -(-lengths // 255)
    cut = np.full(int(pieces.sum()), 255, np.uint8)
    cut[np.cumsum(pieces) - 1] = lengths - 255 * (pieces - 1)
    return cut, np.repeat(values, pieces).astype("<u2")


def _window(result: Segmentation) -> list[float]:
    place = result.geometry
    (height, width), (rows, columns) = place.resized, place.size
    return [place.left / width, place.top / height, columns / width, rows / height]


def _limited(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return np.ascontiguousarray(frame)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized: npt.NDArray[np.uint8] = import_cv2().resize(frame, size, interpolation=import_cv2().INTER_AREA)
    return resized
