"""CAST: a vision transformer on superpixel tokens that groups them level by level.

Read top to bottom: `Cast.forward` turns an image and its superpixels into tokens, runs four stages of transformer
blocks with graph pooling between them, and reads the result from the class token or from fused segments. The four
published variants are options of this one class (see `ModelSpec`):

    family          positions           labels at          pooling 4   read-out
    cast            fixed sin-cos       stem grid          frozen      norm(class token) -> head
    cast_deit       learned             stem grid          frozen      norm(class token) -> head
    cast_seg        fixed sin-cos       given resolution*  trained     fused tokens -> head
    cast_seg_deit   learned             given resolution   trained     fused class token and tokens

The first two take a taxonomy (H-CAST): one head per level. The coarsest reads norm(class token of stage 4), each finer
one the class token of an earlier stage as its blocks leave it.

* the stem grid in stage "pretrain", where the head reads the mean of the fused tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from cast_sdk.errors import InputError
from cast_sdk.models.base import Model
from cast_sdk.models.checks import read_at_the_end, require
from cast_sdk.models.layers import Block, ConvStem, numbered, sincos_positions
from cast_sdk.models.pooling import BlockFusion, GraphPooling, compose_labels
from cast_sdk.models.sampling import Sampler
from cast_sdk.models.superpixel_ops import nearest_labels, resized_segment_mean, segment_mean, segment_sizes
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count
from cast_sdk.taxonomy import HEAD_NAMES, check_taxonomy


@dataclass
class Level:
    """One stage and its pooling. S_l tokens enter, K_l segments leave."""

    tokens: Tensor  # [N,S_l,C], output of the stage's blocks, before pooling
    logits: Tensor  # [N,S_l,K_l], pooling logits
    sampled: Tensor  # int64 [N,K_l], the tokens that seeded the segments
    labels: Tensor  # int64 [N,S], segment of every superpixel, composed from level 1
    class_token: Tensor  # [N,C], after pooling
    centroids: Tensor  # [N,K_l,C], tokens of the next stage

    def rows(self, start: int) -> Level:
        """The level for the images of the batch from `start` on."""
        return Level(*(getattr(self, part.name)[start:] for part in fields(self)))


@dataclass
class CastOutput:
    """Result of a forward pass. Baselines fill `embedding` and `logits` only."""

    embedding: Tensor  # [N,C]
    logits: Tensor | None = None  # [N,classes]
    dense: Tensor | None = None  # [N,S,n], per superpixel, for fused and dense models
    levels: list[Level] = field(default_factory=list)
    empty: Tensor | None = None  # bool [N,S], True for superpixels without pixels
    taxonomy: tuple[Tensor, ...] = ()  # logits of every level, [N,classes], fine to coarse; the first is `logits`
    stage_tokens: tuple[Tensor, ...] = ()  # [N,C] each: the class token as the blocks of each stage leave it

    @property
    def scores(self) -> dict[str, Tensor]:
        """Class scores by the names of `ModelSpec.score_names`; empty without a classifier."""
        every = self.taxonomy or (() if self.logits is None else (self.logits,))
        return {f"logits{number}" if number > 1 else "logits": logits for number, logits in enumerate(every, 1)}


def projector(dim: int, hidden: int, out: int, layers: int) -> nn.Sequential:
    """MoCo-v3 MLP: bias-free Linear, BatchNorm, ReLU; the last BatchNorm without affine parameters."""
    widths = [dim] + [hidden] * (layers - 1) + [out]
    modules: list[nn.Module] = []
    for i in range(layers):
        modules.append(nn.Linear(widths[i], widths[i + 1], bias=False))
        if i < layers - 1:
            modules += [nn.BatchNorm1d(widths[i + 1]), nn.ReLU(inplace=True)]
        else:
            modules.append(nn.BatchNorm1d(widths[i + 1], affine=False))
    return nn.Sequential(*modules)


def make_head(spec: ModelSpec) -> nn.Module:
    if spec.head == "projector":
        return projector(spec.embed_dim, *spec.head_dims, layers=3)
    return nn.Linear(spec.embed_dim, spec.num_classes) if spec.num_classes else nn.Identity()


def with_logits(features: CastOutput, head: nn.Module) -> CastOutput:
    """The output with the class scores of its embedding; as it is without a head."""
    return features if isinstance(head, nn.Identity) else replace(features, logits=head(features.embedding))


def check_heads(spec: ModelSpec) -> None:
    """Raises InputError for a taxonomy that this model cannot have, or one that is not consistent."""
    if not spec.taxonomy:
        return
    if spec.fused or spec.head != "linear":
        raise InputError(
            f"{spec.name} cannot have heads of a taxonomy, which read class tokens.",
            found=f"family {spec.family}" + (" with a projector" if spec.head != "linear" else ""),
            remedy="take a model of the families cast and cast_deit: create_model('cast_deit_small', taxonomy=...)",
        )
    check_taxonomy(spec.taxonomy)
    if spec.taxonomy[0].num_classes != spec.num_classes:
        raise InputError(
            f"num_classes is {spec.num_classes}, but the taxonomy has {spec.taxonomy[0].num_classes} finest classes.",
            remedy="leave num_classes out: the taxonomy gives it",
        )


def token_count(
    spec: ModelSpec, superpixels: Tensor, requested: int | Literal["batch"] | None, training: bool = False
) -> int:
    """S of a call: given, the batch's largest label + 1 ("batch", the reference's rule), or what SEEDS gives.

    In training on a GPU and in compiled graphs a label that does not fit stops the run on the device (see `require`).

    Raises:
        InputError: when a label does not fit, or for labels that are not an integer [N,H,W] map.
    """
    if superpixels.ndim != 3 or superpixels.is_floating_point():
        raise InputError(
            f"The superpixels are {superpixels.dtype} {list(superpixels.shape)}, not an integer map [N,H,W].",
            remedy="give one label map per image, as torch.int32 or int64",
        )
    if requested == "batch":
        return int(superpixels.max()) + 1
    count = requested
    if count is None:
        height, width = superpixels.shape[-2:]
        asked = height * width // 256 if spec.family == "segmenter" else spec.superpixels.count
        count = seeds_count(height, width, asked)

    def error() -> InputError:
        return InputError(
            f"The superpixel labels {int(superpixels.min())}..{int(superpixels.max())} do not lie in 0..{count - 1}.",
            remedy="pass num_superpixels=N with N above the largest label, or relabel the map",
        )

    fits = ((superpixels >= 0) & (superpixels < count)).all()
    require(fits, error, "A superpixel label lies outside of the model's tokens.", training=training)
    return count


def size_error(spec: ModelSpec, image: Tensor, side: int) -> InputError:
    """For images [N,3,H,W] that are not `side` pixels wide and high."""
    return InputError(
        f"The image has {image.shape[-2]} x {image.shape[-1]} pixels, but {spec.name} works on {side} x {side}.",
        remedy="resize the image, or create the model with image_size=N",
    )


class Cast(Model):
    """CAST in all published variants. Parameter names are those of the published checkpoints."""

    def __init__(self, spec: ModelSpec, sampler: Sampler = "float64") -> None:
        super().__init__(spec)
        check_heads(spec)
        dim, heads = spec.embed_dim, spec.num_heads
        learned = spec.positions == "learned"

        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if learned:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + spec.position_grid**2, dim))
        else:
            self.pos_embed = nn.Parameter(sincos_positions(spec.position_grid, dim), requires_grad=False)
            self.pe_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=False)
        self.patch_embed = ConvStem(dim)

        depth = sum(spec.depths)
        rates = [spec.drop_path * i / max(depth - 1, 1) for i in range(depth)]
        blocks = [Block(dim, heads, drop_path=rate) for rate in rates]
        flat = spec.family != "cast_seg"  # cast_seg numbers the blocks of each stage from 0 and has no flat list
        if flat:
            self.blocks = nn.ModuleList(blocks)
            self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_head(spec)
        for name, taxonomy_level in zip(self.head_names[1:], spec.taxonomy[1:], strict=True):
            self.add_module(name, nn.Linear(dim, taxonomy_level.num_classes))
        start = 0
        for level, size in enumerate(spec.depths, 1):
            stage = numbered(blocks[start : start + size], start if flat else 0)
            self.add_module(f"blocks{level}", stage)
            pool = GraphPooling(dim, heads, spec.clusters[level - 1], sampler)
            self.add_module(f"pool{level}", nn.ModuleDict({"pool_block": pool}))
            start += size
        if spec.fused:
            self.block_fusion = BlockFusion(dim)
        else:
            self.pool4.requires_grad_(False)  # its segments are outputs, but no gradient reaches it

    @property
    def head_names(self) -> tuple[str, ...]:
        """Attributes of the heads of the taxonomy, fine to coarse."""
        return HEAD_NAMES[: max(1, len(self.spec.taxonomy))]

    def stage(self, level: int) -> nn.Sequential:
        """Blocks of stage 1..4."""
        return self.get_submodule(f"blocks{level}")  # type: ignore[return-value]

    def pooling(self, level: int) -> GraphPooling:
        """Pooling after stage 1..4."""
        return self.get_submodule(f"pool{level}.pool_block")  # type: ignore[return-value]

    def position_map(self) -> Tensor:
        """Positions as [1,grid,grid,C], without the class row."""
        grid = self.spec.position_grid
        positions = self.pos_embed[:, 1:] if self.spec.positions == "learned" else self.pos_embed
        return positions.view(1, grid, grid, -1)

    def class_position(self) -> Tensor:
        return self.pos_embed[:, :1] if self.spec.positions == "learned" else self.pe_token

    def tokens(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class token [N,1,C], superpixel tokens [N,S,C] and the mask of empty ones, bool [N,S]."""
        features = self.patch_embed(image)
        n, h, w, _ = features.shape
        on_grid = not self.spec.fused or self.spec.stage == "pretrain"
        if num_superpixels == "batch" and on_grid:  # the reference counts after down-sampling
            superpixels = nearest_labels(superpixels, h, w)
        count = token_count(self.spec, superpixels, num_superpixels, self.training)
        if on_grid:
            if h != self.spec.position_grid or w != self.spec.position_grid:
                side = 8 * self.spec.position_grid
                raise size_error(self.spec, image, side)
            superpixels = nearest_labels(superpixels, h, w)
            x = segment_mean(features, superpixels, count)
            positions = segment_mean(self.position_map(), superpixels, count)
        else:
            x = resized_segment_mean(features, superpixels, count, "bilinear")
            positions = resized_segment_mean(self.position_map(), superpixels, count, "bicubic")
        empty = segment_sizes(superpixels, count) <= 0.5
        class_token = (self.cls_token + self.class_position()).expand(n, -1, -1)
        return class_token, x + positions, empty

    def forward(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        """One pass.

        Args:
            image: normalised float [N,3,H,W].
            superpixels: integer labels [N,H,W]; the segmentation variants take any resolution.
            num_superpixels: S. Default: what SEEDS gives for the input size; "batch": largest label of the batch + 1.
        """
        return self.forward_head(self.forward_features(image, superpixels, num_superpixels))

    @read_at_the_end
    def forward_features(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        t, x, empty = self.tokens(image, superpixels, num_superpixels)
        mask: Tensor | None = empty
        levels: list[Level] = []
        class_tokens: list[Tensor] = []
        for level in range(1, 5):
            z = self.stage(level)(torch.cat([t, x], 1))
            class_tokens.append(z[:, 0])
            pooled = self.pooling(level)(z[:, :1], z[:, 1:], mask)
            labels = compose_labels([*(done.logits for done in levels), pooled.logits])[-1]
            levels.append(
                Level(z[:, 1:], pooled.logits, pooled.sampled, labels, pooled.class_token[:, 0], pooled.centroids)
            )
            t, x, mask = pooled.class_token, pooled.centroids, None
        stage_tokens = tuple(class_tokens)
        if not self.spec.fused:
            embedding = self.norm(class_tokens[3])
            return CastOutput(embedding, None, None, levels, empty, stage_tokens=stage_tokens)
        fused = self.block_fusion(
            [level.tokens for level in levels],
            [level.class_token[:, None] for level in levels],
            [level.labels for level in levels[:3]],
        )
        tokens = fused[:, 1:]
        embedding = fused[:, 0] if self.spec.family == "cast_seg_deit" else tokens.mean(1)
        return CastOutput(embedding, None, tokens, levels, empty, stage_tokens=stage_tokens)

    def forward_head(self, features: CastOutput) -> CastOutput:
        spec = self.spec
        if spec.family == "cast_seg_deit":  # its head is stored and never read
            return features
        if spec.taxonomy:
            read = [*features.stage_tokens[:3], features.embedding]
            logits = tuple(
                self.get_submodule(name)(read[level.stage - 1])
                for name, level in zip(self.head_names, spec.taxonomy, strict=True)
            )
            return replace(features, logits=logits[0], taxonomy=logits)
        if spec.fused and spec.stage != "pretrain":
            assert features.dense is not None
            tokens = features.dense
            return replace(features, dense=self.head(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]))
        return with_logits(features, self.head)

    def initialise(self) -> Cast:
        """Random weights as the reference draws them (MoCo: Xavier; DeiT: truncated normal, poolings as torch does)."""
        if self.spec.positions == "learned":
            initialise_deit(self, skip=("pool", "block_fusion"))
        else:
            initialise_moco(self)
        return self


def initialise_moco(model: nn.Module) -> None:
    """Xavier-uniform Linears with q, k, v as separate maps, zero biases, class token N(0, 1e-6).

    Heads keep torch's default: projectors are added after this pass.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or name.split(".")[0] in HEAD_NAMES:
            continue
        if name.endswith("qkv"):
            bound = math.sqrt(6.0 / (module.weight.shape[0] // 3 + module.weight.shape[1]))
            nn.init.uniform_(module.weight, -bound, bound)
        else:
            nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.get_parameter("cls_token"), std=1e-6)


def initialise_deit(model: nn.Module, skip: tuple[str, ...] = ()) -> None:
    """Linears, class token and learned positions truncated normal 0.02, zero biases."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith(skip):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name in ("cls_token", "pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
