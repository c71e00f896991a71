"""GeoJSON: one feature per segment. Coordinates are pixels, x to the right and y down, as image viewers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cast_sdk.runtime.output.interchange.names import labels_of
from cast_sdk.runtime.output.interchange.polygons import Polygon, Ring, polygons
from cast_sdk.runtime.output.interchange.tables import features, flat

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

_PROPERTIES = ("parent", "track", "area", "red", "green", "blue", "semantic")


def to_geojson(result: Segmentation, level: int) -> dict[str, Any]:
    """A FeatureCollection of the segments of a level.

    A feature's `id` is the segment's number, its geometry a Polygon or, in several parts, a MultiPolygon, and its
    properties are `level`, `label`, `parent`, `area` and the mean colour. Segments without a pixel are left out.
    """
    table = {name: values.tolist() for name, values in flat(features(result, level)).items() if name in _PROPERTIES}
    labels = labels_of(result, level)
    shapes = polygons(result.labels(level), result.num_segments(level))
    collected = []
    for index, parts in enumerate(shapes):
        if not parts:
            continue
        own = {name: _short(values[index]) for name, values in table.items()}
        properties = {"level": level, "label": labels[index], **own}
        if properties["parent"] == -1:
            properties["parent"] = None
        collected.append({"type": "Feature", "id": index, "geometry": _geometry(parts), "properties": properties})
    return {"type": "FeatureCollection", "features": collected}


def _geometry(parts: list[Polygon]) -> dict[str, Any]:
    rings = [[_closed(part.exterior), *map(_closed, part.holes)] for part in parts]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _closed(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]


def _short(value: float) -> float:
    return round(value, 1) if isinstance(value, float) else value
