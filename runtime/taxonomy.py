"""Classes of a frame along the levels of a taxonomy, from the scores of its heads. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import shown
from cast_sdk.errors import InputError
from cast_sdk.spec import ModelSpec
from cast_sdk.taxonomy import path_probabilities, path_table

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


class PathClass(NamedTuple):
    """The class of one level."""

    level: str  # name of the level, such as "family"
    class_id: int
    name: str
    probability: float


def probabilities(logits: npt.NDArray[Any], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Softmax of class scores [classes], divided by the model's temperature."""
    scores = logits.astype(np.float64) / temperature
    scores = np.exp(scores - scores.max())
    return np.asarray(scores / scores.sum(), np.float64)


def level_number(spec: ModelSpec, level: int | str) -> int:
    """Number of a level of the taxonomy, 1 the finest, from its number or name. A model without a taxonomy has level 1.

    Raises:
        InputError: for a level that the model does not have.
    """
    names = [one.name for one in spec.taxonomy]
    if isinstance(level, str) and level in names:
        return names.index(level) + 1
    count = max(1, len(names))
    if isinstance(level, (int, np.integer)) and not isinstance(level, bool) and 1 <= level <= count:
        return int(level)
    raise InputError(
        f"{spec.name} has no level {shown(level)} of classes.",
        found=f"{count} level(s)" + (f", fine to coarse: {', '.join(names)}" if names else ""),
        remedy=f"level=1..{count}, or a name" if names else "use a model with a taxonomy",
    )


def path(spec: ModelSpec, outputs: Mapping[str, npt.NDArray[Any]], consistent: bool) -> list[PathClass]:
    """`Segmentation.path`: one class per level, coarse to fine, from the outputs of one frame."""
    if not spec.taxonomy:
        return []
    heads = [probabilities(outputs[name], spec.temperature) for name in spec.score_names]
    if consistent:
        table = path_table(spec.taxonomy)
        if table is None:
            raise InputError(
                f"{spec.name} does not know which classes belong together.",
                found="levels without a tree, as checkpoints of other programs have them",
                remedy="path() gives each head's own class",
            )
        with np.errstate(divide="ignore"):  # a probability of 0 rules its paths out
            paths = path_probabilities([np.log(head) for head in heads], table)
        heads = [
            np.bincount(column, weights=paths, minlength=level.num_classes).astype(np.float64)
            for column, level in zip(table.T, spec.taxonomy, strict=True)
        ]
        classes = table[paths.argmax()].tolist()
    else:
        classes = [int(head.argmax()) for head in heads]
    found = [
        PathClass(level.name, index, spec.class_name(index, number), min(1.0, float(head[index])))
        for number, (level, head, index) in enumerate(zip(spec.taxonomy, heads, classes, strict=True), 1)
    ]
    return found[::-1]


def shown_path(result: Segmentation) -> list[PathClass]:
    """What people are shown, coarse to fine: the most probable path of the tree, or the heads' classes without one."""
    return result.path(consistent=path_table(result.spec.taxonomy) is not None)


def path_text(result: Segmentation) -> str:
    """The path on one line: "bird > gulls > tern 83%"."""
    classes = shown_path(result)
    names = " > ".join(one.name.split(",")[0] for one in classes)
    return f"{names} {classes[-1].probability:.0%}"
