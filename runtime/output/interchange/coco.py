"""COCO: one annotation per segment, with run-length masks. pycocotools reads it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cast_sdk.runtime.output import rle
from cast_sdk.runtime.output.interchange.names import file_name, labels_of
from cast_sdk.runtime.output.serialise import boxes

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


def to_coco(results: Sequence[Segmentation], levels: Sequence[int]) -> dict[str, Any]:
    """A COCO data set of results: `images`, `annotations` and `categories`, numbered from 1.

    The categories are the classes of a dense head, else one per level, "level N". An annotation also has `level`,
    `segment` (its number in the level) and `parent` (the segment of the next level, null at the last). Segments without
    a pixel at the frame's size are left out.
    """
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, result in enumerate(results, 1):
        height, width = result.size
        images.append({"id": number, "file_name": file_name(result, number), "height": height, "width": width})
        for level in levels:
            for entry in _segments(result, level):
                category = categories.setdefault(entry.pop("label"), len(categories) + 1)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0, **entry}
                )
    return {
        "info": {"description": f"segments by {results[0].spec.name}" if results else "no results"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()],
    }


def _segments(result: Segmentation, level: int) -> list[dict[str, Any]]:
    count = result.num_segments(level)
    labels = result.labels(level)
    parents = result.parents(level).tolist() if level < result.num_levels else [None] * count
    rows = zip(labels_of(result, level), rle.encode_labels(labels, count), boxes(labels, count), parents, strict=True)
    return [
        {
            "label": label,
            "segmentation": mask,
            "area": sum(mask["counts"][1::2]),
            "bbox": box,
            "level": level,
            "segment": index,
            "parent": parent,
        }
        for index, (label, mask, box, parent) in enumerate(rows)
        if box[2]
    ]
