"""The inputs and outputs of a graph, compared with its description when it is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError
from cast_sdk.spec import ModelSpec

ASSIGNMENT, POSITIONS = "assignment", "positions"  # inputs of graphs with target "cpu"
Port = tuple[str, tuple[int | None, ...]]  # NumPy's name of the dtype, and the shape; None: any length


def expected_inputs(spec: ModelSpec, info: ExportInfo) -> dict[str, Port]:
    """`image`, and of models that use superpixels these, or the matrices that graphs for CPUs take in their place."""
    pixels = (info.batch, info.height, info.width)
    ports: dict[str, Port] = {"image": ("uint8", (*pixels, 3))}
    if info.target == "cpu":
        cells = -(-info.height // 8) * -(-info.width // 8)
        ports[ASSIGNMENT] = ("float32", (info.batch, info.num_superpixels, cells))
        ports[POSITIONS] = ("float32", (info.batch, info.num_superpixels, spec.position_grid**2))
    elif spec.uses_superpixels:
        ports["superpixels"] = ("int32", pixels)
    return ports


def expected_outputs(spec: ModelSpec, info: ExportInfo) -> dict[str, Port]:
    """What results are made from: `embedding`, class scores, levels, `semantic` and, where levels are merged, soft
    assignments, as far as the model has them.
    """
    per_superpixel: Port = ("int32", (info.batch, info.num_superpixels))
    ports: dict[str, Port] = {"embedding": ("float32", (info.batch, None))}
    if spec.has_logits:
        widths = [level.num_classes for level in spec.taxonomy] or [spec.num_classes]
        for name, width in zip(spec.score_names, widths, strict=True):
            ports[name] = ("float32", (info.batch, None if spec.head == "projector" else width))
    ports |= {f"level{number}": per_superpixel for number in range(1, len(spec.clusters) + 1)}
    if spec.dense:
        ports["semantic"] = per_superpixel
    if spec.grouping == "merged":
        tokens = (info.num_superpixels, *spec.clusters)
        for number in range(1, len(tokens)):
            ports[f"assignment{number}"] = ("float32", (info.batch, tokens[number - 1], tokens[number]))
    return ports


def check_ports(
    path: str | os.PathLike[str],
    spec: ModelSpec,
    info: ExportInfo,
    inputs: Mapping[str, Port],
    outputs: Mapping[str, Port],
) -> None:
    """Refuse a graph that is not what its description says.

    Args:
        path: of the file, for the message.
        spec, info: the description.
        inputs, outputs: of the graph, by name.

    Raises:
        ArtifactError: naming the first input or output that is missing, unknown, or of another type or shape.
    """
    taken = expected_inputs(spec, info)
    if "superpixels" in inputs and info.target != "cpu":  # a model without use for them may take them all the same
        taken["superpixels"] = ("int32", (info.batch, info.height, info.width))
    for kind, found, wanted, known in (
        ("input", inputs, taken, tuple(taken)),
        ("output", outputs, expected_outputs(spec, info), info.outputs),
    ):
        for name in dict.fromkeys((*wanted, *known, *found)):
            if name not in found:
                problem = f"no {kind} {name!r}"
            elif name not in known:
                problem = f"an {kind} {name!r} that is not described"
            elif name in wanted and not fits(found[name], wanted[name]):
                problem = f"the {kind} {name!r} is {_text(found[name])}, described as {_text(wanted[name])}"
            else:
                continue
            raise ArtifactError(
                f"The graph in {os.fspath(path)} is not what its description says.",
                found=problem,
                remedy="export it again",
            )


def fits(found: Port, wanted: Port) -> bool:
    """Whether dtype, rank and all known lengths are the same."""
    (dtype, shape), (other, lengths) = found, wanted
    return (
        dtype == other
        and len(shape) == len(lengths)
        and all(a is None or b is None or a == b for a, b in zip(shape, lengths, strict=True))
    )


def _text(port: Port) -> str:
    dtype, shape = port
    return f"{dtype} [{', '.join('any' if length is None else str(length) for length in shape)}]"
