"""What a graph is specialised for, checked against the model before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from cast_sdk._version import __version__
from cast_sdk.arguments import shown, whole
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ExportError, InputError
from cast_sdk.runtime.backends.feeding import fill
from cast_sdk.runtime.backends.ports import ASSIGNMENT, POSITIONS
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class GraphOptions:
    """What a graph is specialised for.

    Attributes:
        batch: images per call; None: any number.
        height, width: input size in pixels.
        num_superpixels: S, the number of superpixel tokens (0 for models without).
        soft_assignments: also give `assignment1..4`, float32 [B, S_l, K_l]; so for models whose levels are merged.
        tokens: also give `tokens1..4`, float32 [B, S_l, C], and `dense` of fused models, float32 [B, S, n].
        precision: "fp32", or "fp16" or "bf16" with products of 16 bits between float32 islands.
        target: "any", or "cpu": what superpixels make of a resized grid comes in as matrices, which a processor
            computes in a hundredth of the time of the dense products that GPUs and static engines need.
    """

    batch: int | None
    height: int
    width: int
    num_superpixels: int
    soft_assignments: bool = False
    tokens: bool = False
    precision: Precision = "fp32"
    target: Literal["any", "cpu"] = "any"

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]

    @property
    def squeeze(self) -> bool:
        """Batch 1 is folded away."""
        return self.batch == 1


def output_names(spec: ModelSpec, options: GraphOptions) -> list[str]:
    """Outputs of a graph in order."""
    levels = range(1, len(spec.clusters) + 1)
    names = ["embedding"]
    if spec.has_logits:
        names += spec.score_names
    names += [f"level{level}" for level in levels]
    if spec.dense:
        names.append("semantic")
    if options.soft_assignments:
        names += [f"assignment{level}" for level in levels]
    if options.tokens:
        names += [f"tokens{level}" for level in levels]
        names += ["dense"] if spec.fused and spec.stage != "pretrain" else []
    return names + [f"sampled{level}" for level in levels]


def graph_options(
    spec: ModelSpec,
    *,
    batch: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    superpixels: int | None = None,
    **options: Any,
) -> tuple[ModelSpec, GraphOptions]:
    """Check a request and fill in the defaults: the spec at this input size, and the options of its graph.

    Raises:
        ExportError: for a size the model cannot take, fewer than one image, or options the model has no use for.
    """
    try:
        if batch is not None:
            whole(batch, "batch", 1, 65536)
        if superpixels is not None:
            whole(superpixels, "superpixels", 1, 2**20)
        size = spec.image_size if image_size is None else image_size
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        for side in sides:
            whole(side, "image_size", 1, 16384)
    except InputError as error:
        raise ExportError(error.problem, remedy=error.remedy) from error
    if len(sides) != 2:
        raise ExportError(f"image_size is {shown(size)}.", remedy="give a side, or (height, width)")
    height, width = sides
    free = spec.fused and spec.stage != "pretrain"
    side = spec.patch_size * spec.position_grid
    if not free and (height, width) != (side, side):
        raise ExportError(
            f"{spec.name} does not work on images of {height} x {width} pixels, only of {side} x {side}.",
            remedy="leave image_size out, or train or create the model with image_size=N",
        )
    if not spec.uses_superpixels:
        if superpixels is not None:
            raise ExportError(
                f"superpixels={superpixels} was given, but {spec.name} takes no superpixels.",
                remedy="leave superpixels out",
            )
        asked = count = 0
    else:
        asked = superpixels or (height * width // 256 if spec.family == "segmenter" else spec.superpixels.count)
        count = seeds_count(height, width, asked)
        if spec.hierarchical and count < spec.clusters[0]:
            raise ExportError(
                f"{count} superpixels at {height} x {width} pixels are fewer than the {spec.clusters[0]} segments "
                f"that {spec.name} groups them into.",
                remedy=f"ask for superpixels={spec.clusters[0]} or more",
            )
    for name in ("soft_assignments", "tokens"):
        if options.get(name) and not spec.hierarchical:
            raise ExportError(f"{name}=True was given, but {spec.name} has no levels.", remedy=f"leave {name} out")
    if options.get("target") == "cpu" and options.get("precision") == "fp16":
        raise ExportError(
            "A graph for CPUs was asked for in fp16, which processors compute slower than fp32.",
            remedy="export it in fp32 or int8",
        )
    if spec.grouping == "merged":
        options["soft_assignments"] = True  # which the levels are made of
    if not resizes(spec):
        options["target"] = "any"
    settings = dataclasses.replace(spec.superpixels, count=asked or spec.superpixels.count)
    # Runtimes prepare square images by this number; rectangles by the record of the export.
    spec = dataclasses.replace(spec, image_size=max(height, width), superpixels=settings)
    return spec, GraphOptions(batch, height, width, count, **options)


def resizes(spec: ModelSpec) -> bool:
    """Whether a model averages features that are resized to the label maps, so that its graph depends on the target."""
    return spec.uses_superpixels and spec.fused and spec.stage != "pretrain"


def input_names(spec: ModelSpec, options: GraphOptions) -> list[str]:
    """Inputs of a graph in order."""
    if options.target == "cpu":
        return ["image", ASSIGNMENT, POSITIONS]
    return ["image", "superpixels"] if spec.uses_superpixels else ["image"]


def example_inputs(options: GraphOptions, spec: ModelSpec) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes for tracing, in the order of `input_names`."""
    batch, height, width = options.batch or 2, options.height, options.width
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(height * width).view(1, height, width) * max(options.num_superpixels, 1) // (height * width)
    labels = labels.expand(batch, -1, -1).to(torch.int32).contiguous()
    inputs = {"image": image, "superpixels": labels}
    if options.target == "cpu":
        shapes = {
            ASSIGNMENT: (batch, options.num_superpixels, -(-height // 8) * -(-width // 8)),
            POSITIONS: (batch, options.num_superpixels, spec.position_grid**2),
        }
        buffers = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        fill(buffers, labels.numpy())
        inputs |= {name: torch.from_numpy(buffer) for name, buffer in buffers.items()}
    return tuple(inputs[name] for name in input_names(spec, options))


def export_info(options: GraphOptions, outputs: Sequence[str], *, created_by: str, **rest: Any) -> ExportInfo:
    """The record of an export.

    Args:
        outputs: names of the file's outputs, in order.
        created_by: what made the file besides this package, with its version.
        rest: further fields of the record.
    """
    return ExportInfo(
        precision=options.precision,
        batch=options.batch,
        height=options.height,
        width=options.width,
        num_superpixels=options.num_superpixels,
        outputs=tuple(outputs),
        created_by=f"cast_sdk {__version__}, {created_by}",
        **{"target": options.target, **rest},
    )


def spec_of(model: nn.Module) -> ModelSpec:
    """The description a model of this package carries; ExportError for any other module."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ModelSpec):
        raise foreign_model(model)
    return spec


def foreign_model(model: nn.Module) -> ExportError:
    return ExportError(
        f"A {type(model).__name__} cannot be exported: it is not a model of cast_sdk.models.",
        remedy="cast_sdk.load_model(CHECKPOINT) or cast_sdk.create_model(NAME)",
    )
