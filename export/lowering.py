"""From a trained model to the module that is exported: same numbers, inference only, static operators.

`lower` reads a model of `cast_sdk.models` and builds a module `f(image, superpixels) -> tuple` whose forward pass is
the graph: pixels in, composed labels out. What changes, each exact in float32:

    normalisation inside, its scale folded into the first convolution        folding.fold_normalisation
    BatchNorm folded into convolutions, heads and the fusion                 folding.fold_batchnorm_*
    the stem's last 1x1 convolution behind the segment mean                  tokens.Tokens
    segment means and resizes as dense products                              segments
    query scale folded into qkv                                              folding.fold_query_scale
    batch folded away at batch 1                                             ranks
    sampling from one distance matrix, three operators a step                sampling
    unused MLP of the last pooling dropped, fusion projected per level       blocks
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cast_sdk.errors import ExportError
from cast_sdk.export.baselines import LoweredTome, LoweredVit, class_outputs
from cast_sdk.export.blocks import (
    LoweredBlock,
    LoweredFusion,
    LoweredGrouping,
    LoweredLinear,
    LoweredNorm,
    LoweredValues,
    lower_head,
    lower_layers,
)
from cast_sdk.export.ranks import beside, entries
from cast_sdk.export.tokens import Tokens
from cast_sdk.models.baselines import Tome, Vit
from cast_sdk.models.cast import Cast
from cast_sdk.models.dense import MaskTransformer, Segmenter, Spml
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class GraphOptions:
    """What a graph is specialised for.

    Attributes:
        batch: images per call; None: any number.
        height, width: input size in pixels.
        num_superpixels: S, the number of superpixel tokens (0 for models without).
        soft_assignments: also give `assignment1..4`, float32 [B, S_l, K_l].
        tokens: also give `tokens1..4`, float32 [B, S_l, C], and `dense` of fused models, float32 [B, S, n].
        precision: "fp32", or "fp16" with half-precision products between float32 islands.
    """

    batch: int | None
    height: int
    width: int
    num_superpixels: int
    soft_assignments: bool = False
    tokens: bool = False
    precision: Precision = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float16 if self.precision == "fp16" else torch.float32

    @property
    def squeeze(self) -> bool:
        """Batch 1 is folded away."""
        return self.batch == 1


class LoweredCast(nn.Module):
    """CAST in all variants, with the decoders that read its fused tokens.

    Row outputs (`embedding`, `logits`) are [..., 1, n]; the others [..., S] or [..., S_l, n].
    """

    def __init__(self, cast: Cast, spec: ModelSpec, options: GraphOptions, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.spec, self.options = spec, options
        dtype = options.dtype
        self.class_readout = cast.spec.family == "cast_seg_deit"
        self.tokens = Tokens(cast, options)
        self.stages = nn.ModuleList(
            nn.Sequential(*[LoweredBlock(block, dtype) for block in cast.stage(level)]) for level in range(1, 5)
        )
        self.groupings = nn.ModuleList(LoweredGrouping(cast.pooling(level), dtype) for level in range(1, 5))
        used = 4 if self.class_readout else 3  # nothing reads what the last pooling makes but its class token
        self.values = nn.ModuleList(LoweredValues(cast.pooling(level), dtype) for level in range(1, used + 1))
        self.fusion = LoweredFusion(cast.block_fusion, dtype) if spec.fused else None
        self.norm = None if spec.fused else LoweredNorm(cast.norm)
        self.head = None if self.class_readout else lower_head(cast.head)
        self.decoder = decoder

    def forward(self, image: Tensor, superpixels: Tensor) -> dict[str, Tensor]:
        z, present = self.tokens(image, superpixels)
        levels: dict[str, Tensor] = {}
        tokens: list[Tensor] = []
        class_tokens: list[Tensor] = []
        labels: list[Tensor] = []
        for level, (stage, grouping) in enumerate(zip(self.stages, self.groupings, strict=True), 1):
            z = stage(z)
            x = z[..., 1:, :]
            sampled, logits = grouping(x, present if level == 1 else None)
            own = logits.argmax(-1)
            labels.append(entries(own, labels[-1]) if labels else own)
            tokens.append(x)
            levels |= {f"level{level}": labels[-1].int(), f"sampled{level}": sampled.int(), f"tokens{level}": x}
            if self.options.soft_assignments or level < 4:
                levels[f"assignment{level}"] = logits.softmax(-1)
            if level < 4:
                z = self.values[level - 1](z, sampled, levels[f"assignment{level}"])
                class_tokens.append(z[..., :1, :])
        if self.fusion is None:
            assert self.norm is not None
            return class_outputs(self.norm(z[..., :1, :]), self.head) | levels
        if self.class_readout:
            class_tokens.append(self.values[3](z))
        return self.read_fused(self.fusion, tokens, class_tokens, labels) | levels

    def read_fused(
        self, fusion: LoweredFusion, tokens: list[Tensor], class_tokens: list[Tensor], labels: list[Tensor]
    ) -> dict[str, Tensor]:
        fused = fusion(tokens, labels[:3])
        outputs: dict[str, Tensor] = {}
        if self.class_readout:
            outputs["embedding"] = fusion.class_token(class_tokens)
        else:
            outputs["embedding"] = fused.mean(-2, keepdim=True)
        if self.spec.stage == "pretrain" and self.head is not None:
            outputs["logits"] = self.head(outputs["embedding"])
        elif self.head is not None:
            fused = self.head(fused)
        if self.decoder is not None:
            fused = self.decoder(fused)
            outputs["semantic"] = fused.argmax(-1).int()
        return outputs | {"dense": fused}


class LoweredDecoder(nn.Module):
    """Segmenter's mask transformer: tokens [..., S, C] -> class scores [..., S, n]."""

    classes: Tensor

    def __init__(self, decoder: MaskTransformer, dtype: torch.dtype) -> None:
        super().__init__()
        self.proj_dec = LoweredLinear.of(decoder.proj_dec, dtype)
        self.register_buffer("classes", decoder.cls_emb.detach()[0])
        self.blocks = nn.Sequential(*[LoweredBlock(block, dtype) for block in decoder.blocks])
        self.decoder_norm, self.mask_norm = LoweredNorm(decoder.decoder_norm), LoweredNorm(decoder.mask_norm)
        self.proj_patch = LoweredLinear(decoder.proj_patch.T, None)
        self.proj_classes = LoweredLinear(decoder.proj_classes.T, None)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.proj_dec(tokens).float()
        x = self.decoder_norm(self.blocks(beside(x, after=self.classes)))
        count = self.classes.shape[0]
        patches, classes = self.proj_patch(x[..., :-count, :]), self.proj_classes(x[..., -count:, :])
        patches = patches / patches.norm(dim=-1, keepdim=True)
        classes = classes / classes.norm(dim=-1, keepdim=True)
        return self.mask_norm(patches @ classes.transpose(-2, -1))


class Lowered(nn.Module):
    """What is exported: `f(image)` or `f(image, superpixels)` gives a tuple in the order of `output_names`.

    Attributes:
        spec: the model's description at this input size.
        options: what the graph is specialised for.
        input_names, output_names: names of the graph. The last outputs, `sampled1..4`, are for verification.
    """

    def __init__(self, body: nn.Module, spec: ModelSpec, options: GraphOptions) -> None:
        super().__init__()
        self.body, self.spec, self.options = body, spec, options
        self.input_names = ["image", "superpixels"] if spec.uses_superpixels else ["image"]
        self.output_names = output_names(spec, options)
        self.eval()
        self.requires_grad_(False)

    def forward(self, image: Tensor, superpixels: Tensor | None = None) -> tuple[Tensor, ...]:
        """image uint8 [B,H,W,3] RGB; superpixels int32 [B,H,W]."""
        if superpixels is None:
            outputs = self.body(image)
        else:
            outputs = self.body(image, superpixels.squeeze(0) if self.options.squeeze else superpixels)
        return tuple(self._batched(name, outputs[name]) for name in self.output_names)

    def _batched(self, name: str, value: Tensor) -> Tensor:
        if name in ("embedding", "logits"):  # [..., 1, n]: at batch 1 the row is the batch
            return value if self.options.squeeze else value.squeeze(-2)
        return value.unsqueeze(0) if self.options.squeeze else value


def output_names(spec: ModelSpec, options: GraphOptions) -> list[str]:
    """Outputs of a graph in order."""
    levels = range(1, len(spec.clusters) + 1)
    names = ["embedding"]
    if has_logits(spec):
        names.append("logits")
    names += [f"level{level}" for level in levels]
    if spec.dense:
        names.append("semantic")
    if options.soft_assignments:
        names += [f"assignment{level}" for level in levels]
    if options.tokens:
        names += [f"tokens{level}" for level in levels]
        names += ["dense"] if spec.fused and spec.stage != "pretrain" else []
    return names + [f"sampled{level}" for level in levels]


def has_logits(spec: ModelSpec) -> bool:
    """True when the model gives class scores for the whole image."""
    if spec.dense or spec.family in ("cast_seg_deit", "spml") or spec.stage == "segmentation":
        return False
    return spec.head == "projector" or spec.num_classes > 0


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
    size = image_size or spec.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if batch is not None and batch < 1:
        raise ExportError("A graph takes at least one image.", found=f"batch={batch}", remedy="batch=1, N or None")
    free = spec.fused and spec.stage != "pretrain"
    side = spec.patch_size * spec.position_grid
    if not free and (height, width) != (side, side):
        raise ExportError(
            f"{spec.name} works on images of {side} x {side} pixels.",
            found=f"image_size={height}x{width}" if height != width else f"image_size={height}",
            remedy="leave image_size out, or train or create the model with image_size=N",
        )
    if not spec.uses_superpixels:
        if superpixels is not None:
            raise ExportError(f"{spec.name} takes no superpixels.", found=f"superpixels={superpixels}")
        asked = count = 0
    else:
        asked = superpixels or (height * width // 256 if spec.family == "segmenter" else spec.superpixels.count)
        count = seeds_count(height, width, asked)
        if spec.hierarchical and count < spec.clusters[0]:
            raise ExportError(
                f"{spec.name} groups its superpixels into {spec.clusters[0]} segments, so it needs at least as many.",
                found=f"{count} superpixels at {height} x {width} pixels",
                remedy=f"ask for superpixels={spec.clusters[0]} or more",
            )
    for name in ("soft_assignments", "tokens"):
        if options.get(name) and not spec.hierarchical:
            raise ExportError(f"{spec.name} has no levels.", found=f"{name}=True", remedy=f"leave {name} out")
    settings = dataclasses.replace(spec.superpixels, count=asked or spec.superpixels.count)
    # Runtimes prepare square images by this number; rectangles by the record of the export.
    spec = dataclasses.replace(spec, image_size=max(height, width), superpixels=settings)
    return spec, GraphOptions(batch, height, width, count, **options)


def spec_of(model: nn.Module) -> ModelSpec:
    """The description a model of this package carries; ExportError for any other module."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ModelSpec):
        raise _foreign(model)
    return spec


def _foreign(model: nn.Module) -> ExportError:
    return ExportError(
        "A model of cast_sdk.models is exported.",
        found=type(model).__name__,
        remedy="cast_sdk.load_model(CHECKPOINT) or cast_sdk.create_model(NAME)",
    )


def lower(model: nn.Module, options: GraphOptions, spec: ModelSpec | None = None) -> Lowered:
    """The inference module of a trained model.

    Args:
        model: from `create_model` or `load_model`; it is read and not changed.
        options: see `graph_options`.
        spec: the description to carry, when it differs from the model's own.
    """
    own = spec_of(model)
    body: nn.Module
    if isinstance(model, Vit):
        body = LoweredVit(model, options)
    elif isinstance(model, Tome):
        body = LoweredTome(model, options)
    elif isinstance(model, Segmenter):
        body = LoweredCast(model.encoder, own, options, LoweredDecoder(model.decoder, options.dtype))
    elif isinstance(model, Spml):
        classifier = model.semantic_classifier
        body = LoweredCast(model.vit_backbone, own, options, lower_layers(list(classifier)) if classifier else None)
    elif isinstance(model, Cast):
        body = LoweredCast(model, own, options)
    else:
        raise _foreign(model)
    return Lowered(body, spec or own, options)
