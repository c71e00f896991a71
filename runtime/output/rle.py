"""Runs of equal values, and run-length masks in COCO's uncompressed form, straight from a label map.

A mask is `{"size": [height, width], "counts": [n0, n1, ...]}`: lengths of alternating runs of zeros and ones over the
pixels taken **column by column** (top to bottom, then the next column), beginning with zeros (n0 may be 0).
`pycocotools.mask.frPyObjects` reads it as it is.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError

Value = TypeVar("Value", bound=np.generic)


def runs(values: npt.NDArray[Value]) -> tuple[npt.NDArray[Value], npt.NDArray[np.int64]]:
    """Value and length of each run of equal values of a map [h, w], row by row."""
    flat = values.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], np.diff(np.append(starts, flat.size))


def encode_labels(labels: npt.NDArray[np.int32], count: int) -> list[dict[str, Any]]:
    """One mask per segment 0..count-1 of a label map [h, w]; negative labels belong to none.

    One pass over the runs of the map, not one over the pixels per segment.
    """
    owner, lengths = runs(labels.T)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(count + 1))
    masks = []
    for segment in range(count):
        own = order[bounds[segment] : bounds[segment + 1]]
        edges = np.stack([starts[own], ends[own]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [labels.size]]))
        if counts[-1] == 0:
            counts = counts[:-1]
        masks.append({"size": list(labels.shape), "counts": counts.tolist()})
    return masks


def decode(mask: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask [height, width] of one entry.

    Raises:
        InputError: when the counts do not fill the size.
    """
    height, width = mask["size"]
    try:
        counts = np.asarray(mask["counts"], np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("The counts of the run-length mask are no whole numbers.", found=str(error)) from error
    if counts.ndim != 1 or (counts < 0).any() or int(counts.sum()) != height * width:
        raise InputError(
            "The counts of the run-length mask do not add up to height x width.",
            found=f"{int(counts.sum())} for {height} x {width}",
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T
