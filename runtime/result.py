"""Segmentation: what the runtime says about one frame."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import as_path, shown, whole
from cast_sdk.errors import InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime import taxonomy
from cast_sdk.runtime.preprocess import Geometry
from cast_sdk.runtime.taxonomy import PathClass
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write

if TYPE_CHECKING:
    import pandas

    from cast_sdk.runtime.output.interchange.files import Format
    from cast_sdk.runtime.output.interchange.polygons import Polygon
    from cast_sdk.runtime.tracking.tracker import Tracks


@dataclass(repr=False)
class Segmentation:
    """Class, embedding and nested segments of one frame.

    Label maps are made when asked for; the object itself holds a map of the model's size and short arrays.

    Attributes:
        spec: the model that made it.
        geometry: where the model's image lies in the frame.
        hierarchy: the segments at the model's size, a `cast_sdk.hierarchy.Hierarchy` with members, ancestors, children
            and areas; None for models without superpixels.
        outputs: the model's raw outputs for this frame (no batch axis), by name.
        frame: uint8 [h, w, 3] BGR, the frame itself: needed for drawing only, may be set to None to free it.
        timing: milliseconds per stage: preprocess, superpixels, model, postprocess, total; decode for files; streams
            add read and latency.
        source: path or name of the frame, if it has one.
        index: position of the frame in the stream it came from.
        dropped: frames that its stream has shed so far, because a newer one was there.
        scene: number of the scene that the frame belongs to, counted from 0 by streams that look for cuts.
        tracking: the tracks of the segments, in streams with `track=True`.
    """

    spec: ModelSpec
    geometry: Geometry
    hierarchy: Hierarchy | None
    outputs: dict[str, npt.NDArray[Any]]
    frame: npt.NDArray[np.uint8] | None = None
    timing: dict[str, float] = field(default_factory=dict)
    source: str | None = None
    index: int = 0
    dropped: int = 0
    scene: int = 0
    tracking: Tracks | None = None

    def __repr__(self) -> str:
        height, width = self.size
        levels = range(self.num_levels + 1) if self.hierarchy else ()
        counts = ", ".join(str(self.num_segments(level)) for level in levels)
        best = f", {self.verdict}" if self.verdict else ""
        where = f" of {self.source}" if self.source else ""
        segments = f", segments {counts}" if counts else ""
        return f"<Segmentation{where}: {width} x {height}{best}{segments}, by {self.spec.name}>"

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows; none once the frame was let go."""
        if self.frame is None:
            return None
        from cast_sdk.runtime.output.drawing import encode

        return encode(self.plot(), ".png")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.geometry.frame

    @property
    def num_levels(self) -> int:
        """Levels above the superpixels: 4 for CAST."""
        return self.hierarchy.num_levels if self.hierarchy else 0

    def labels(self, level: int) -> npt.NDArray[np.int32]:
        """Segment of each pixel: int32 [h, w] at the frame's size, 0..num_segments(level)-1; -1 outside the crop.

        Level 0 holds the superpixels, 1..4 the model's levels, fine to coarse.
        """
        return self.geometry.to_frame(self._segments.labels(level))

    def num_segments(self, level: int) -> int:
        """Segments of a level. Clusters that hold no superpixel are not counted."""
        return self._segments.num_segments(level)

    def mask(self, level: int, segment: int) -> npt.NDArray[np.bool_]:
        """Pixels of one segment: bool [h, w]."""
        count = self.num_segments(level)
        try:
            whole(segment, "segment", 0, count - 1)
        except InputError as error:
            raise InputError(
                f"Level {level} of this frame has no segment {shown(segment)}.", remedy=f"choose 0..{count - 1}"
            ) from error
        return self.labels(level) == segment

    def parents(self, level: int) -> npt.NDArray[np.int32]:
        """`parents(l)[i]` is the segment of level l+1 that holds segment i of level l: int32 [num_segments(l)]."""
        return self._segments.parents(level)

    def tracks(self, level: int) -> npt.NDArray[np.int64]:
        """Track of each segment of a level: int64 [num_segments(level)].

        The same segment has the same number in every frame of its stream; no number is used twice, on no two levels.

        Raises:
            InputError: for a result that no stream with `track=True` gave, or an unknown level.
        """
        return self._tracking.ids[self._segments.check_level(level)]

    def ages(self, level: int) -> npt.NDArray[np.int64]:
        """Frames since each segment's track began: int64 [num_segments(level)], 0 for a new one.

        Raises:
            InputError: as `tracks`.
        """
        return self._tracking.ages[self._segments.check_level(level)]

    def tokens(self, level: int) -> npt.NDArray[np.float32]:
        """Features of each segment of a level: float32 [num_segments(level), C].

        Above the superpixels: the mean over a segment's superpixels of the tokens of the clusters that the network
        assigned these to, which is one cluster unless levels were merged.

        Raises:
            InputError: for a graph that was exported without `tokens`, or an unknown level.
        """
        hierarchy = self._segments
        found = self.outputs.get(f"tokens{hierarchy.check_level(level) + 1}")
        if found is None:
            raise InputError(
                f"The model gives no tokens of level {level}.",
                found=f"the outputs {', '.join(self.outputs)}",
                remedy="export it with --tokens; levels below the coarsest have them",
            )
        if level == 0:
            return found[hierarchy.ids[0]]
        member, count = hierarchy.members[level], self.num_segments(level)
        own = found[self.outputs[f"level{level}"][hierarchy.ids[0]]]
        sums = np.zeros((count, found.shape[1]))
        np.add.at(sums, member, own)
        return (sums / np.bincount(member, minlength=count)[:, None]).astype(np.float32)

    @property
    def embedding(self) -> npt.NDArray[np.float32]:
        """Image embedding: float32 [C]."""
        return self.outputs["embedding"]

    @property
    def logits(self) -> npt.NDArray[np.float32] | None:
        """Class scores before the softmax: float32 [classes]; None without a classifier."""
        return self.outputs.get("logits")

    @property
    def semantic(self) -> npt.NDArray[np.int32] | None:
        """Class of each pixel: int32 [h, w] at the frame's size, -1 outside the crop; None without a dense head."""
        classes = self.outputs.get("semantic")
        if classes is None:
            return None
        hierarchy = self._segments
        return self.geometry.to_frame(classes[hierarchy.ids[0]].astype(np.int32)[hierarchy.superpixels])

    def top(self, count: int = 5, *, level: int | str = 1) -> list[tuple[int, str, float]]:
        """The most probable classes as (class id, name, probability); empty when the model has no classifier.

        A model that knows its temperature (`spec.temperature`) gives calibrated probabilities: of the names it gives
        with 0.7, about 70% are right on images like those it was calibrated on.

        Args:
            count: how many.
            level: of the taxonomy, by number (1: the finest) or name.
        """
        number = taxonomy.level_number(self.spec, level)
        count = whole(count, "count", 0)
        logits = self.outputs.get(self.spec.score_names[number - 1])
        if logits is None or self.spec.head == "projector":
            return []
        scores = taxonomy.probabilities(logits, self.spec.temperature)
        best = np.argsort(-scores, kind="stable")[:count]
        return [(int(index), self.class_name(int(index), number), float(scores[index])) for index in best]

    @property
    def unsure(self) -> bool:
        """True when the best class is less probable than the model's own threshold (`spec.unsure_below`).

        Then the frame most likely shows something that the model has no name for: look at its segments. Always False
        for a model without a threshold or without a classifier.
        """
        return any(probability < self.spec.unsure_below for _, _, probability in self.top(1))

    @property
    def verdict(self) -> str:
        """The best class in a word and its probability, "unsure" where `unsure` is True, "" without a classifier."""
        if self.unsure:
            return "unsure"
        return "".join(f"{name.split(',')[0]} {probability:.0%}" for _, name, probability in self.top(1))

    def path(self, *, consistent: bool = False) -> list[PathClass]:
        """One class per level of the taxonomy, coarse to fine; empty for models without one.

        Args:
            consistent: the most probable path of the tree, each class with the probability of all paths through it.
                Otherwise each head's own most probable class: they need not lie on one path.

        Raises:
            InputError: for a consistent path of a model that does not know the tree.
        """
        return taxonomy.path(self.spec, self.outputs, consistent)

    def class_name(self, index: int, level: int = 1) -> str:
        """Name of a class (of a level of the taxonomy, 1: the finest), or "class N" where the model has no names."""
        return self.spec.class_name(index, level)

    def plot(self, level: int | Sequence[int] | None = None, **options: Any) -> npt.NDArray[np.uint8]:
        """Picture of the result: uint8 BGR, as OpenCV shows and writes it.

        Args:
            level: one level: an overlay of the frame's size. Several: side by side. None: the frame and all levels
                side by side, or the class map of a model with a dense head.
            options: see `cast_sdk.runtime.output.drawing.draw`: alpha, boundaries, caption.
        """
        from cast_sdk.runtime.output.drawing import draw

        return draw(self, level, **options)

    def save(self, path: str | os.PathLike[str], level: int | Sequence[int] | None = None, **options: Any) -> None:
        """Write the picture of `plot` (by suffix: .png, .jpg, .webp, ...) or, for .json, the text of `to_json`.

        Raises:
            InputError: for a suffix that OpenCV cannot write.
            ExportError: for a folder that is missing or cannot be written.
        """
        file = as_path(path)
        if file.suffix.lower() == ".json":
            data = self.to_json().encode()
        else:
            from cast_sdk.runtime.output.drawing import encode

            data = encode(self.plot(level, **options), file.suffix)
        with atomic_write(file) as temporary:
            temporary.write_bytes(data)

    def to_dict(self, *, masks: bool = True) -> dict[str, Any]:
        """Plain data for JSON; `cast_sdk.runtime.output.serialise.to_dict` lists the fields.

        Args:
            masks: include the run-length mask of each segment (COCO's uncompressed form).
        """
        from cast_sdk.runtime.output.serialise import to_dict

        return to_dict(self, masks=masks)

    def at(self, x: float, y: float) -> tuple[int, ...]:
        """The chain of segments at a point: one of each level, 0 (superpixel) to the coarsest; -1 outside the crop.

        Args:
            x: column in the frame, in pixels from the left; the pixel's own column number means that pixel.
            y: row, from the top.

        Raises:
            InputError: for a point outside the frame.
        """
        segments = self._segments
        place = self.geometry.to_image(x, y)
        if place is None:
            return (-1,) * (segments.num_levels + 1)
        superpixel = segments.superpixels[place]
        return tuple(int(member[superpixel]) for member in segments.members)

    def features(self, level: int) -> dict[str, npt.NDArray[Any]]:
        """One row per segment, as columns: id, parent, track, area, box, centroid, colour, token, class scores.

        See `cast_sdk.runtime.output.interchange.tables.features` for shapes, and for which are there when.
        """
        from cast_sdk.runtime.output.interchange.tables import features

        return features(self, level)

    def to_dataframe(self, level: int) -> pandas.DataFrame:
        """`features` as a pandas DataFrame, one number per cell (`token` and `scores`: one array)."""
        from cast_sdk.runtime.output.interchange.tables import to_dataframe

        return to_dataframe(self, level)

    def polygons(self, level: int) -> list[list[Polygon]]:
        """Outlines of each segment: its connected parts, each with an `exterior` and `holes`, exact to the pixel.

        See `cast_sdk.runtime.output.interchange.polygons`.
        """
        from cast_sdk.runtime.output.interchange.polygons import polygons

        return polygons(self.labels(level), self.num_segments(level))

    def to_supervision(self, level: int, *, masks: bool = True) -> Any:
        """The segments as `supervision.Detections`; see `cast_sdk.runtime.output.interchange.supervision`."""
        from cast_sdk.runtime.output.interchange.supervision import to_supervision

        return to_supervision(self, level, masks=masks)

    def to_coco(self, level: int | Sequence[int] | None = None) -> dict[str, Any]:
        """A COCO data set of this image: the segments of one level, of several, or of all (None).

        Several images: `cast_sdk.runtime.output.interchange.coco.to_coco`.
        """
        from cast_sdk.runtime.output.interchange.coco import to_coco

        if level is None:
            level = range(self.num_levels + 1)
        return to_coco([self], list(level) if isinstance(level, Sequence) else [level])

    def to_geojson(self, level: int) -> dict[str, Any]:
        """A GeoJSON FeatureCollection of the segments, in pixels; see `cast_sdk.runtime.output.interchange.geojson`."""
        from cast_sdk.runtime.output.interchange.geojson import to_geojson

        return to_geojson(self, level)

    def save_as(self, path: str | os.PathLike[str], kind: Format, level: int) -> None:
        """Write the segments of a level for another program: kind "coco", "cvat", "geojson" or "labelme".

        Raises:
            InputError: for an unknown kind or level.
            ExportError: for a folder that is missing or cannot be written.
        """
        from cast_sdk.runtime.output.interchange.files import write

        write(self, path, kind, level)

    def to_json(self, *, masks: bool = True) -> str:
        """`to_dict` as JSON text on one line."""
        return json.dumps(self.to_dict(masks=masks), separators=(",", ":"), allow_nan=False)

    @property
    def _tracking(self) -> Tracks:
        if self.tracking is None:
            raise InputError(
                "This result has no tracks.", remedy="take it from a stream: rt.stream(source, track=True)"
            )
        return self.tracking

    @property
    def _segments(self) -> Hierarchy:
        if self.hierarchy is None:
            raise InputError(
                f"{self.spec.name} has no superpixels, so there are no segments.",
                remedy="use embedding and top(), or a CAST model",
            )
        return self.hierarchy
