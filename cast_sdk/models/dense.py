"""Models with a class per superpixel: Segmenter's mask transformer and the SPML pixel classifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_sdk.models.base import Model
from cast_sdk.models.cast import Cast, CastOutput, token_count
from cast_sdk.models.layers import Block
from cast_sdk.models.sampling import Sampler
from cast_sdk.models.superpixel_ops import nearest_labels
from cast_sdk.spec import ModelSpec


class MaskTransformer(nn.Module):
    """Scores every superpixel against class embeddings: tokens [N,S,C] -> [N,S,classes]."""

    def __init__(self, dim: int, classes: int, layers: int, num_heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.classes = classes
        self.cls_emb = nn.Parameter(torch.empty(1, classes, dim))
        self.proj_patch = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.proj_classes = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.blocks = nn.ModuleList(
            [Block(dim, num_heads, eps=1e-5, dropout=dropout, norms_first=True) for _ in range(layers)]
        )
        self.proj_dec = nn.Linear(dim, dim)
        self.decoder_norm = nn.LayerNorm(dim)
        self.mask_norm = nn.LayerNorm(classes)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.proj_dec(tokens)
        x = torch.cat([x, self.cls_emb.expand(x.shape[0], -1, -1)], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_norm(x)
        patches = x[:, : -self.classes] @ self.proj_patch
        classes = x[:, -self.classes :] @ self.proj_classes
        patches = patches / patches.norm(dim=-1, keepdim=True)
        classes = classes / classes.norm(dim=-1, keepdim=True)
        return self.mask_norm(patches @ classes.transpose(1, 2))


class Segmenter(Model):
    """cast_seg_deit encoder with a mask-transformer decoder. `dense` holds class scores per superpixel."""

    def __init__(self, spec: ModelSpec, encoder: ModelSpec, sampler: Sampler = "float64") -> None:
        super().__init__(spec)
        self.encoder = Cast(encoder, sampler)
        self.decoder = MaskTransformer(spec.embed_dim, spec.num_classes, spec.decoder_layers, spec.decoder_heads)

    def forward(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        """image: normalised float [N,3,H,W], zero-padded here to multiples of 8; superpixels: integer [N,h,w]."""
        return self.forward_head(self.forward_features(image, superpixels, num_superpixels))

    def forward_features(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        count = token_count(self.spec, superpixels, num_superpixels, self.training)
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 8, 0, -height % 8))
        out: CastOutput = self.encoder(image, superpixels, count)
        return out

    def forward_head(self, features: CastOutput) -> CastOutput:
        return replace(features, dense=self.decoder(features.dense))

    def masks(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> Tensor:
        """Class scores per pixel [N,classes,H,W], for losses and sliding windows."""
        dense = self(image, superpixels, num_superpixels).dense
        return spread(dense, superpixels, image.shape[-2], image.shape[-1])

    def initialise(self) -> Segmenter:
        self.encoder.initialise()
        return self


def spread(dense: Tensor, superpixels: Tensor, height: int, width: int) -> Tensor:
    """Per-superpixel values [N,S,n] to pixels [N,n,height,width] through the (nearest-resized) label map."""
    labels = nearest_labels(superpixels, height, width).long().flatten(1)
    pixels = dense.gather(1, labels[..., None].expand(-1, -1, dense.shape[-1]))
    return pixels.transpose(1, 2).unflatten(2, (height, width))


class Spml(Model):
    """MoCo segmentation backbone for PASCAL VOC: token embeddings, optionally a pixel classifier.

    The classifier is made of 1x1 convolutions, so in evaluation it runs once per superpixel; in training its
    BatchNorm needs `pixel_embeddings`.
    """

    def __init__(self, spec: ModelSpec, backbone: ModelSpec, sampler: Sampler = "float64") -> None:
        super().__init__(spec)
        self.vit_backbone = Cast(backbone, sampler)
        self.semantic_classifier = pixel_classifier(spec) if spec.classifier != "none" else None

    def pixel_embeddings(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> tuple[Tensor, CastOutput]:
        """Token embedding of every pixel of the label map, [N,C,h,w], and the backbone's output."""
        out: CastOutput = self.vit_backbone(image, superpixels, num_superpixels)
        assert out.dense is not None
        return spread(out.dense, superpixels, *superpixels.shape[-2:]), out

    def forward(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        """`dense`: class logits per superpixel with a classifier, else token embeddings."""
        return self.forward_head(self.forward_features(image, superpixels, num_superpixels))

    def forward_features(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        out: CastOutput = self.vit_backbone(image, superpixels, num_superpixels)
        return out

    def forward_head(self, features: CastOutput) -> CastOutput:
        if self.semantic_classifier is None:
            return features
        assert features.dense is not None
        classes = self.semantic_classifier(features.dense.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        return replace(features, dense=classes)

    def initialise(self) -> Spml:
        self.vit_backbone.initialise()
        return self


def pixel_classifier(spec: ModelSpec) -> nn.Sequential:
    """1x1 convolutions from embeddings [N,C,h,w] to class logits [N,classes,h,w]."""
    dim = spec.embed_dim
    if spec.classifier == "linear":
        return nn.Sequential(nn.Conv2d(dim, spec.num_classes, 1))
    return nn.Sequential(
        nn.Conv2d(dim, dim, 1, bias=False),
        nn.BatchNorm2d(dim),
        nn.ReLU(inplace=True),
        nn.Conv2d(dim, spec.num_classes, 1),
    )


def cluster_index(labels: Tensor, superpixels: Tensor) -> Tensor:
    """Contiguous segment index of every pixel over a batch, for prototypes.

    Args:
        labels: composed level labels [N,S]; superpixels: [N,h,w].

    Returns:
        int64 [N,h,w]: labels per pixel, offset per image by n * (max + 1), then renumbered 0..M-1 in sorted order.
    """
    pixels = labels.gather(1, superpixels.flatten(1).long()).view(superpixels.shape)
    offset = torch.arange(pixels.shape[0], device=pixels.device)[:, None, None] * (pixels.max() + 1)
    return (pixels + offset).unique(return_inverse=True)[1]
