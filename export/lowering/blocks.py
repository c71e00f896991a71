"""Inference-only layers built from the trained ones: folded, rank-agnostic, with their precision written in.

`dtype` is the type of the matrix products and convolutions. What needs range or precision stays in float32 around
them: the residual stream, norm statistics, softmax, similarities, sampling distances and class scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_sdk.export.lowering import folding
from cast_sdk.export.lowering.ranks import being_exported, linear, merge_heads, rows, split_heads
from cast_sdk.export.lowering.sampling import sample_tokens
from cast_sdk.models.layers import Attention, Block, ConvStem, PatchEmbed
from cast_sdk.models.pooling import SIMILARITY_SCALE, BlockFusion, CentroidAttention, GraphPooling


class LoweredLinear(nn.Module):
    """x W^T + b in `dtype`, from an input of any float type.

    A layer without bias gets one of zeros: only then exporters write `Gemm`, the one form that runtimes quantise well.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(dtype))
        zeros = torch.zeros(len(weight))
        self.register_buffer("bias", (zeros if bias is None else bias.detach()).to(dtype))

    @classmethod
    def of(cls, layer: nn.Module, dtype: torch.dtype = torch.float32) -> LoweredLinear:
        assert isinstance(layer, nn.Linear)
        return cls(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.to(self.weight.dtype), self.weight, self.bias)


class LoweredNorm(nn.Module):
    """LayerNorm in float32."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, nn.LayerNorm)
        self.eps = norm.eps
        self.register_buffer("weight", norm.weight.detach())
        self.register_buffer("bias", norm.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps)


class LoweredAttention(nn.Module):
    """Self-attention with the query scale folded into qkv; float32 out."""

    def __init__(self, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        weight, bias = folding.fold_query_scale(attention.qkv.weight, attention.qkv.bias, attention.num_heads)
        self.qkv = LoweredLinear(weight, bias, dtype)
        self.proj = LoweredLinear.of(attention.proj, dtype)

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [..., T, C]; `key_bias` float32 [..., 1, 1, T]. Returns the output and the keys [..., heads, T, D]."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        if being_exported():  # one operator for each step, with the softmax in float32
            scores = (q @ k.transpose(-2, -1)).float()
            if key_bias is not None:
                scores = scores + key_bias
            out = scores.softmax(-1).to(v.dtype) @ v
        else:
            bias = None if key_bias is None else key_bias.to(q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
        return self.proj(merge_heads(out)).float(), k


class LoweredMlp(nn.Module):
    """Linear, exact GELU, linear; float32 out."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc1, self.fc2 = LoweredLinear.of(fc1, dtype), LoweredLinear.of(fc2, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x))).float()


class LoweredBlock(nn.Module):
    """Transformer block. `forward` is the plain one; token merging runs between `attend` and `mix`."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, Block)
        self.norm1, self.norm2 = LoweredNorm(block.norm1), LoweredNorm(block.norm2)
        self.attn = LoweredAttention(block.attn, dtype)
        self.mlp = LoweredMlp(block.mlp.fc1, block.mlp.fc2, dtype)

    def attend(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, keys = self.attn(self.norm1(x), key_bias)
        return x + out, keys

    def mix(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.attend(x)[0])


class LoweredStem(nn.Module):
    """uint8 image [B,H,W,3] -> features [..., h * w, C], with the normalisation inside.

    Of a `ConvStem` the last 1x1 convolution is left out: `projection` holds it, to be applied behind the segment mean.
    """

    offset: Tensor

    def __init__(
        self,
        stem: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        squeeze: bool,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.dtype, self.squeeze, self.padding = dtype, squeeze, padding
        self.register_buffer("offset", 255 * torch.tensor(mean))
        self.projection: tuple[Tensor, Tensor] | None = None
        if isinstance(stem, PatchEmbed):
            layers: list[tuple[tuple[Tensor, Tensor], nn.Conv2d, bool]] = [
                ((stem.proj.weight, stem.proj.bias), stem.proj, False)  # type: ignore[list-item]
            ]
        else:
            assert isinstance(stem, ConvStem)
            modules = list(stem.proj)
            layers = []
            for conv, norm in zip(modules[:-1:3], modules[1:-1:3], strict=True):
                assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                layers.append((folding.fold_batchnorm_after(conv.weight, conv.bias, norm), conv, True))
            last = modules[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            self.projection = (last.weight.detach().flatten(1), last.bias.detach())
        self.convolutions = nn.ModuleList()
        for number, ((weight, bias), conv, relu) in enumerate(layers):
            if number == 0:
                weight = folding.fold_normalisation(weight, std)
            self.convolutions.append(_Convolution(weight, bias, conv, relu, dtype))

    def forward(self, image: Tensor) -> Tensor:
        height, width = int(image.shape[1]), int(image.shape[2])
        # Whole rows of pixels at once: on a CPU three channels at a time take seven times as long.
        x = image.float().reshape(-1, 3 * width) - self.offset.repeat(width)
        x = x.reshape(-1, height, width, 3).permute(0, 3, 1, 2)
        down, right = self.padding  # the padding of the reference is zero after the normalisation
        if down:
            x = torch.cat([x, x[:, :, :down] * 0], 2)
        if right:
            x = torch.cat([x, x[:, :, :, :right] * 0], 3)
        x = x.to(self.dtype)
        for convolution in self.convolutions:
            x = convolution(x)
        channels, cells = int(x.shape[1]), int(x.shape[2]) * int(x.shape[3])
        x = x.reshape(channels, cells) if self.squeeze else x.reshape(-1, channels, cells)
        return x.transpose(-2, -1)


class _Convolution(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, like: nn.Conv2d, relu: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride, self.padding, self.relu = like.stride, like.padding, relu
        self.register_buffer("weight", weight.detach().to(dtype))
        self.register_buffer("bias", bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return F.relu(x) if self.relu else x


class LoweredNodes(nn.Module):
    """Unit-length node features of a pooling: x + Attn(LN(x)), centred over the tokens, plus a learned vector."""

    bias: Tensor

    def __init__(self, nodes: CentroidAttention, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm, self.attn = LoweredNorm(nodes.norm), LoweredAttention(nodes.attn, dtype)
        self.register_buffer("bias", nodes.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm(x))[0]
        x = x - x.mean(-2, keepdim=True) + self.bias
        return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


class LoweredGrouping(nn.Module):
    """First half of a graph pooling: which tokens seed segments, and which token belongs to which segment."""

    def __init__(self, pooling: GraphPooling, dtype: torch.dtype) -> None:
        super().__init__()
        self.clusters = pooling.clusters
        self.nodes = LoweredNodes(pooling.centroid_fc, dtype)

    def forward(self, x: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sampled tokens int64 [..., K] and pooling logits float32 [..., T, K] of tokens [..., T, C]."""
        sampled = sample_tokens(x, self.clusters, present)
        nodes = self.nodes(x)
        return sampled, nodes @ (SIMILARITY_SCALE * rows(nodes, sampled)).transpose(-2, -1)


class LoweredValues(nn.Module):
    """Second half of a graph pooling: the tokens of the next stage, class token first."""

    def __init__(self, pooling: GraphPooling, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.fc1 = LoweredNorm(pooling.fc1[0]), LoweredLinear.of(pooling.fc1[1], dtype)
        self.norm2, self.fc2 = LoweredNorm(pooling.fc2[0]), LoweredLinear.of(pooling.fc2[1], dtype)

    def forward(self, z: Tensor, sampled: Tensor | None = None, assignment: Tensor | None = None) -> Tensor:
        """[..., 1 + T, C], sampled [..., K] and softmax [..., T, K] -> [..., 1 + K, C].

        Without an assignment the class token alone, [..., 1, C]: nothing reads the segments of the last pooling.
        """
        t = z[..., :1, :]
        if sampled is None or assignment is None:
            return t + self.fc2(self.norm2(F.gelu(self.fc1(self.norm1(t))))).float()
        values = F.gelu(self.fc1(self.norm1(z)))
        shares = assignment.transpose(-2, -1)
        shares = (shares / shares.sum(-1, keepdim=True)).to(values.dtype)
        means = torch.cat([values[..., :1, :], shares @ values[..., 1:, :]], -2)
        seeds = torch.cat([t, rows(z[..., 1:, :], sampled)], -2)
        return seeds + self.fc2(self.norm2(means)).float()


class LoweredFusion(nn.Module):
    """Block fusion with BatchNorm folded and the projection applied to each level before it is spread.

    A linear map commutes with the choice of rows, so the coarse levels are projected at their own few segments.
    """

    def __init__(self, fusion: BlockFusion, dtype: torch.dtype) -> None:
        super().__init__()
        norm, layer = fusion.proj_blocks[0].norm, fusion.proj_blocks[2]
        assert isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear)
        weight, bias = folding.fold_batchnorm_before(norm, layer.weight, layer.bias)
        first, *others = weight.chunk(4, 1)
        self.projections = nn.ModuleList(
            [LoweredLinear(first, bias, dtype), *(LoweredLinear(part, None, dtype) for part in others)]
        )

    def forward(self, tokens: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """tokens: four of [..., S_l, C]; labels: three composed [..., S] -> [..., S, C]."""
        own = [projection(x).float() for projection, x in zip(self.projections, tokens, strict=True)]
        fused = own[0]
        for level, index in zip(own[1:], labels, strict=True):
            fused = fused + rows(level, index)
        return fused

    def class_token(self, tokens: Sequence[Tensor]) -> Tensor:
        """Class tokens of four levels, each [..., 1, C] -> [..., 1, C]."""
        parts = [projection(t).float() for projection, t in zip(self.projections, tokens, strict=True)]
        return parts[0] + parts[1] + parts[2] + parts[3]


def lower_layers(layers: Sequence[nn.Module]) -> nn.Sequential:
    """Linear layers and 1x1 convolutions with their BatchNorms folded, in float32, for class scores and projections."""
    lowered: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            lowered.append(LoweredLinear(layer.weight.flatten(1), layer.bias))
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            previous = lowered.pop()
            assert isinstance(previous, LoweredLinear)
            lowered.append(LoweredLinear(*folding.fold_batchnorm_after(previous.weight, previous.bias, layer)))
        else:
            assert isinstance(layer, nn.ReLU)
            lowered.append(nn.ReLU())
    return nn.Sequential(*lowered)


def lower_head(head: nn.Module) -> nn.Sequential | None:
    """A linear head or a projector; None for a model without."""
    if isinstance(head, nn.Identity):
        return None
    return lower_layers(list(head) if isinstance(head, nn.Sequential) else [head])
