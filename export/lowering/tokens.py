"""The start of a lowered superpixel model: image and label map in, tokens out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from cast_sdk.export.lowering.blocks import LoweredLinear, LoweredStem
from cast_sdk.export.lowering.ranks import beside
from cast_sdk.export.lowering.segments import (
    GivenAssignment,
    GivenPositions,
    GridAssignment,
    GridPositions,
    ResizedAssignment,
    ResizedPositions,
)
from cast_sdk.models.baselines import Tome
from cast_sdk.models.cast import Cast

if TYPE_CHECKING:
    from cast_sdk.export.lowering.options import GraphOptions


class Tokens(nn.Module):
    """Class and superpixel tokens [..., 1 + S, C] and the presence of the superpixels [..., S, 1].

    The stem's last convolution is linear and works on single cells, so it is applied to the S segment means instead of
    the h x w cells. Its bias, like a position, counts for superpixels with pixels alone and joins the position table.
    """

    class_token: Tensor

    def __init__(self, model: Cast | Tome, options: GraphOptions) -> None:
        super().__init__()
        spec = model.spec
        size = (options.height, options.width)
        grid = (-(-size[0] // 8), -(-size[1] // 8))
        padding = (8 * grid[0] - size[0], 8 * grid[1] - size[1])
        self.stem = LoweredStem(model.patch_embed, spec.mean, spec.std, options.dtype, options.squeeze, padding)
        assert self.stem.projection is not None
        weight, bias = self.stem.projection
        self.projection = LoweredLinear(weight, None, options.dtype)

        class_position: Tensor
        if isinstance(model, Tome):
            table = model.pos_embed.detach().view(*grid, -1)
            class_position = model.pe_token
        else:
            table = model.position_map().detach()[0]
            class_position = model.class_position()
        self.register_buffer("class_token", (model.cls_token + class_position).detach()[0])
        count = options.num_superpixels
        self.assignment: nn.Module
        self.positions: nn.Module
        if options.target == "cpu":
            self.assignment, self.positions = GivenAssignment(), GivenPositions(table, bias)
            self.shared = False
        elif not spec.fused or spec.stage == "pretrain":
            self.assignment = GridAssignment(size, grid, count)
            self.positions = GridPositions(table, bias)
            self.shared = True
        else:
            self.assignment = ResizedAssignment(size, grid, count)
            self.positions = ResizedPositions(table, bias, size, count)
            self.shared = False

    def forward(self, image: Tensor, *superpixels: Tensor) -> tuple[Tensor, Tensor]:
        """image uint8 [B,H,W,3], superpixels int32 [..., H, W]; for CPUs the matrices [..., S, cells] of both."""
        features = self.stem(image)
        assignment, present = self.assignment(superpixels[0])
        positions = self.positions(assignment if self.shared else superpixels[-1])
        x = self.projection(assignment.to(features.dtype) @ features).float() + positions
        return beside(x, before=self.class_token), present
