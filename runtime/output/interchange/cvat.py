"""CVAT for images 1.1: XML with one mask per segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.output import rle
from cast_sdk.runtime.output.interchange.names import file_name, labels_of
from cast_sdk.runtime.output.serialise import boxes

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


def to_cvat(results: Sequence[Segmentation], level: int) -> str:
    """The text of an annotations.xml: upload it to a task whose images have the names of the results' sources.

    A mask's `group_id` is the number of its segment plus 1, since CVAT takes 0 for none.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    known = ElementTree.SubElement(task, "labels")
    named: set[str] = set()
    for number, result in enumerate(results):
        labels = labels_of(result, level)
        for label in dict.fromkeys(labels):
            if label not in named:
                named.add(label)
                ElementTree.SubElement(ElementTree.SubElement(known, "label"), "name").text = label
        _add_image(root, result, level, number, labels)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_image(root: ElementTree.Element, result: Segmentation, level: int, number: int, labels: list[str]) -> None:
    height, width = result.size
    image = ElementTree.SubElement(
        root, "image", id=str(number), name=file_name(result, number + 1), width=str(width), height=str(height)
    )
    segments = result.labels(level)
    for index, (label, (x, y, w, h)) in enumerate(zip(labels, boxes(segments, len(labels)), strict=True)):
        if not w:
            continue
        runs = _runs(segments[y : y + h, x : x + w] == index)
        told = {"label": label, "source": "auto", "occluded": "0", "rle": ", ".join(map(str, runs))}
        place = {"left": str(x), "top": str(y), "width": str(w), "height": str(h), "z_order": "0"}
        ElementTree.SubElement(image, "mask", told | place | {"group_id": str(index + 1)})


def _runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of zeros and ones in turn, row by row, beginning with zeros."""
    values, lengths = rle.runs(mask)
    counts: list[int] = lengths.tolist()
    return [0, *counts] if values[0] else counts
