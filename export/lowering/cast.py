"""The lowered CAST, in all its variants, and the decoders that read its fused tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cast_sdk.export.lowering.baselines import class_outputs
from cast_sdk.export.lowering.blocks import (
    LoweredBlock,
    LoweredFusion,
    LoweredGrouping,
    LoweredLinear,
    LoweredNorm,
    LoweredValues,
    lower_head,
    lower_layers,
)
from cast_sdk.export.lowering.options import GraphOptions
from cast_sdk.export.lowering.ranks import beside, entries
from cast_sdk.export.lowering.tokens import Tokens
from cast_sdk.models.cast import Cast
from cast_sdk.models.dense import MaskTransformer
from cast_sdk.spec import ModelSpec


class LoweredCast(nn.Module):
    """CAST in all variants, with the decoders that read its fused tokens.

    Row outputs (`embedding`, `logits`, `logits2`, ...) are [..., 1, n]; the others [..., S] or [..., S_l, n].
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
        self.head = None if self.class_readout or spec.taxonomy else lower_head(cast.head)
        names = cast.head_names if spec.taxonomy else ()
        self.taxonomy = nn.ModuleList(lower_layers([cast.get_submodule(name)]) for name in names)
        self.decoder = decoder

    def forward(self, image: Tensor, *superpixels: Tensor) -> dict[str, Tensor]:
        z, present = self.tokens(image, *superpixels)
        levels: dict[str, Tensor] = {}
        tokens: list[Tensor] = []
        class_tokens: list[Tensor] = []
        read: list[Tensor] = []
        labels: list[Tensor] = []
        for level, (stage, grouping) in enumerate(zip(self.stages, self.groupings, strict=True), 1):
            z = stage(z)
            read.append(z[..., :1, :])
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
            read[3] = self.norm(read[3])
            return class_outputs(read[3], self.head) | self.read_taxonomy(read) | levels
        if self.class_readout:
            class_tokens.append(self.values[3](z))
        return self.read_fused(self.fusion, tokens, class_tokens, labels) | levels

    def read_taxonomy(self, class_tokens: list[Tensor]) -> dict[str, Tensor]:
        """Scores of each level of a taxonomy from the class tokens of the stages, the last of them normalised."""
        heads = zip(self.spec.score_names, self.taxonomy, self.spec.taxonomy, strict=False)  # none without a taxonomy
        return {name: head(class_tokens[level.stage - 1]) for name, head, level in heads}

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
