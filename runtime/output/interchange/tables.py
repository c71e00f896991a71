"""One row per segment: what a program that works with tables wants of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import MissingDependencyError
from cast_sdk.runtime.output.serialise import boxes

if TYPE_CHECKING:
    import pandas

    from cast_sdk.runtime.result import Segmentation

Table = dict[str, npt.NDArray[Any]]
_COLUMNS = {
    "box": ("x", "y", "width", "height"),
    "centroid": ("centroid_x", "centroid_y"),
    "colour": ("red", "green", "blue"),
}


def features(result: Segmentation, level: int) -> Table:
    """Columns by name; row i is segment i of the level.

    `id` int32 [n]; `parent` int32 [n], the segment of the next level that holds it, -1 at the last level; `track` int64
    [n] in streams with `track=True`; `area` int64 [n], pixels; `box` int32 [n, 4], x, y, width, height; `centroid`
    float64 [n, 2], mean x and y of the pixels' centres; `colour` float64 [n, 3], mean red, green and blue, 0 to 255,
    unless the frame was let go; `token` float32 [n, C], the model's own vector of the segment, of a model exported with
    tokens, for the levels below the last; `semantic` int32 [n], the class of most of its pixels, and `scores` float32
    [n, classes], the mean class scores of its pixels, before any softmax, of models with a dense head (a checkpoint, or
    exported with tokens). Classifiers of whole images have no scores of segments, so there are none for them.

    A segment without a pixel at the frame's size has area 0 and NaN for what is a mean over pixels.
    """
    count = result.num_segments(level)
    labels = result.labels(level)
    last = level == result.num_levels
    owner = labels.ravel()
    seen = owner >= 0
    owner = owner[seen]
    area = np.bincount(owner, minlength=count)
    with np.errstate(invalid="ignore"):
        height, width = labels.shape
        rows, columns = np.arange(height)[:, None], np.arange(width)[None]

        def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            spread = np.broadcast_to(values, labels.shape).ravel()[seen]
            return np.bincount(owner, weights=spread, minlength=count) / area

        table: Table = {
            "id": np.arange(count, dtype=np.int32),
            "parent": np.full(count, -1, np.int32) if last else result.parents(level),
            **({"track": result.tracks(level)} if result.tracking is not None else {}),
            "area": area,
            "box": np.array(boxes(labels, count), np.int32).reshape(count, 4),
            "centroid": np.stack([mean(columns + 0.5), mean(rows + 0.5)], 1),
        }
        if result.frame is not None:
            table["colour"] = np.stack([mean(result.frame[..., channel]) for channel in (2, 1, 0)], 1)
    return {**table, **_of_the_model(result, level)}


def _of_the_model(result: Segmentation, level: int) -> Table:
    """What the model's outputs say of each segment."""
    hierarchy = result.hierarchy
    assert hierarchy is not None
    table: Table = {}
    if f"tokens{level + 1}" in result.outputs:
        table["token"] = result.tokens(level)
    classes = classes_of(result, level)
    if classes is None:
        return table
    table["semantic"] = classes
    scores = result.outputs.get("dense")
    if scores is not None:
        member, size, count = hierarchy.members[level], hierarchy.areas(0), len(classes)
        sums = np.zeros((count, scores.shape[1]))
        np.add.at(sums, member, scores[hierarchy.ids[0]] * size[:, None])
        table["scores"] = (sums / np.bincount(member, weights=size, minlength=count)[:, None]).astype(np.float32)
    return table


def classes_of(result: Segmentation, level: int) -> npt.NDArray[np.int32] | None:
    """Class of most pixels of each segment, int32 [n]; None for a model without a dense head."""
    found = result.outputs.get("semantic")
    if found is None:
        return None
    hierarchy = result.hierarchy
    assert hierarchy is not None
    own = found[hierarchy.ids[0]]
    votes = np.zeros((len(hierarchy.ids[level]), int(own.max()) + 1), np.int64)
    np.add.at(votes, (hierarchy.members[level], own), hierarchy.areas(0))
    return votes.argmax(1).astype(np.int32)


def flat(table: Table) -> dict[str, Any]:
    """The table with one number or one vector per cell: `box` becomes x, y, width, height, and so on."""
    columns: dict[str, Any] = {}
    for name, values in table.items():
        if name in _COLUMNS:
            columns |= {part: values[:, index] for index, part in enumerate(_COLUMNS[name])}
        else:
            columns[name] = values if values.ndim == 1 else list(values)
    return columns


def to_dataframe(result: Segmentation, level: int) -> pandas.DataFrame:
    """`features` as a DataFrame: one row per segment; `token` and `scores` hold an array per cell.

    Raises:
        MissingDependencyError: without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "pandas, which makes the DataFrame, cannot be imported.", found=str(error), remedy="pip install pandas"
        ) from error
    return pandas.DataFrame(flat(features(result, level)))
