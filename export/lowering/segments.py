"""From label maps to superpixel tokens with dense products only: no scatter, no data-dependent shape.

At the resolution of the stem grid (classification) the assignment matrix is a plain one-hot comparison, S x h w.

At the resolution of the image (segmentation: 1024 superpixels on 512 x 512 pixels) that matrix would have 268 million
entries. Two facts make it small. Resizing and averaging are linear, so the wanted matrix relates superpixels to grid
cells, and a cell only meets the pixels of its resize window. And a label written in two digits, s = base * p + q, is
the outer product of two short one-hot vectors, so the weighted count of every label in a window is one small matrix
product [base x pixels] @ [pixels x base]. `WindowedCounts` does this along the rows of pixels; the columns follow by
one product with the other resize matrix. Exact, since all it does is to reorder sums.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cast_sdk.export.lowering.folding import separable_positions
from cast_sdk.export.lowering.ranks import reshaped
from cast_sdk.models.superpixel_ops import resize_taps


class GridAssignment(nn.Module):
    """Averaging matrix float32 [..., S, h * w] and presence [..., S, 1] from label maps [..., H, W].

    Labels are taken at the top-left pixel of each cell (`nearest_labels`).
    """

    row: Tensor
    column: Tensor
    ids: Tensor

    def __init__(self, size: tuple[int, int], grid: tuple[int, int], count: int) -> None:
        super().__init__()
        self.register_buffer("row", _nearest(size[0], grid[0]))
        self.register_buffer("column", _nearest(size[1], grid[1]))
        self.register_buffer("ids", torch.arange(count, dtype=torch.int32)[:, None])

    def forward(self, superpixels: Tensor) -> tuple[Tensor, Tensor]:
        cells = superpixels.index_select(-2, self.row).index_select(-1, self.column)
        cells = reshaped(cells, 2, 1, len(self.row) * len(self.column))
        members = (cells == self.ids).float()
        sizes = members.sum(-1, keepdim=True)
        return members / sizes.clamp(min=1), sizes.clamp(max=1)


class GridPositions(nn.Module):
    """Mean position of each superpixel on the stem grid, plus `bias` for those that have cells.

    The rows of the averaging matrix sum to one, or to zero for an empty superpixel, which therefore stays zero.
    """

    rows: Tensor
    columns: Tensor
    table: Tensor

    def __init__(self, table: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.grid = (table.shape[0], table.shape[1])
        parts = separable_positions(table)
        self.separable = parts is not None
        half = table.shape[-1] // 2
        if parts is not None:
            self.register_buffer("rows", parts[0] + bias[:half])
            self.register_buffer("columns", parts[1] + bias[half:])
        else:
            self.register_buffer("table", table.flatten(0, 1) + bias)

    def forward(self, assignment: Tensor) -> Tensor:
        if not self.separable:
            return assignment @ self.table
        cells = reshaped(assignment, 2, int(assignment.shape[-2]), *self.grid)
        return torch.cat([cells.sum(-1) @ self.rows, cells.sum(-2) @ self.columns], -1)


class WindowedCounts(nn.Module):
    """Weighted label counts per grid cell, float32 [..., h * w, S]: sum over pixels of U[y,i] V[x,j] [label = s].

    Args:
        vertical: U [H, h]. horizontal: V [W, w]. Both are banded for a resize; any matrix gives the right answer.
        count: S.
        budget: entries of a digit's one-hot array to stay below where that costs little; the cells are worked off in
            chunks of rows.
    """

    index: Tensor
    weight: Tensor
    low_ids: Tensor
    high_ids: Tensor

    def __init__(self, vertical: Tensor, horizontal: Tensor, count: int, budget: int = 4_000_000) -> None:
        super().__init__()
        self.count = count
        self.base = 2 ** math.ceil(math.log2(count) / 2)
        index, weight = _windows(horizontal)
        self.columns, self.window = index.shape
        self.register_buffer("index", index.flatten())
        self.register_buffer("weight", weight[:, None, :])
        self.register_buffer("low_ids", torch.arange(self.base).float()[:, None])
        self.register_buffer("high_ids", torch.arange(-(-count // self.base)).float()[:, None])
        # Chunks overlap by a window of rows: below a few windows each, most of the work would be done twice.
        rows = max(budget // (index.numel() * self.base), 4 * _windows(vertical)[0].shape[1])
        self.parts = nn.ModuleList(_RowChunk(*part) for part in _row_chunks(vertical, rows))

    def forward(self, superpixels: Tensor) -> Tensor:
        labels = superpixels.float()
        high = (labels * (1 / self.base)).floor()
        low = labels - self.base * high
        parts = [part(self._rows(part.cut(high), part.cut(low))) for part in self.parts]  # type: ignore[operator]
        cells = torch.cat(parts, -2) if len(parts) > 1 else parts[0]
        labels_per_cell = len(self.high_ids) * self.base
        cells = reshaped(cells, 2, int(cells.shape[-2]) * self.columns, labels_per_cell)
        return cells[..., : self.count]

    def _rows(self, high: Tensor, low: Tensor) -> Tensor:
        """Counts within the rows of pixels: [..., H, W] digits -> [..., H, w * n], n >= S."""
        first = torch.eq(self._windowed(high), self.high_ids).float() * self.weight
        second = torch.eq(self._windowed(low), self.low_ids).float()
        counts = first @ second.transpose(-2, -1)
        return reshaped(counts, 4, int(high.shape[-2]), self.columns * len(self.high_ids) * self.base)

    def _windowed(self, digits: Tensor) -> Tensor:
        windows = digits.index_select(-1, self.index)
        return reshaped(windows, 2, int(digits.shape[-2]), self.columns, 1, self.window)


class _RowChunk(nn.Module):
    """The cells of a few grid rows, from the pixel rows that touch them."""

    matrix: Tensor

    def __init__(self, start: int, matrix: Tensor) -> None:
        super().__init__()
        self.start, self.stop = start, start + matrix.shape[1]
        self.register_buffer("matrix", matrix)

    def cut(self, digits: Tensor) -> Tensor:
        return digits[..., self.start : self.stop, :]

    def forward(self, counts: Tensor) -> Tensor:
        """[..., rows, n] -> [..., cells, n]."""
        return self.matrix @ counts


class ResizedAssignment(nn.Module):
    """As `GridAssignment`, for features resized bilinearly to the label maps (`resized_segment_mean`)."""

    def __init__(self, size: tuple[int, int], grid: tuple[int, int], count: int) -> None:
        super().__init__()
        self.counts = WindowedCounts(*_resize_matrices(grid, size, "bilinear"), count)

    def forward(self, superpixels: Tensor) -> tuple[Tensor, Tensor]:
        counts = self.counts(superpixels).transpose(-2, -1)
        sizes = counts.sum(-1, keepdim=True).round()  # the weights of a pixel sum to one
        return counts / sizes.clamp(min=1), sizes.clamp(max=1)


class ResizedPositions(nn.Module):
    """As `GridPositions`, for positions resized bicubically to the label maps.

    Separable positions need the rows and the columns of each superpixel only; others the bicubic counts per cell.
    """

    rows: Tensor
    columns: Tensor
    table: Tensor

    def __init__(self, table: Tensor, bias: Tensor, size: tuple[int, int], count: int) -> None:
        super().__init__()
        parts = separable_positions(table)
        vertical, horizontal = _resize_matrices((table.shape[0], table.shape[1]), size, "bicubic")
        self.separable = parts is not None
        half = table.shape[-1] // 2
        if parts is not None:
            # Bicubic weights sum to one, so the resize of a map that varies along one axis is a resize of that axis.
            self.row_counts = WindowedCounts(torch.eye(size[0]), torch.ones(size[1], 1), count)
            self.column_counts = WindowedCounts(torch.eye(size[1]), torch.ones(size[0], 1), count)
            self.register_buffer("rows", vertical @ parts[0] + bias[:half])
            self.register_buffer("columns", horizontal @ parts[1] + bias[half:])
        else:
            self.counts = WindowedCounts(vertical, horizontal, count)
            self.register_buffer("table", table.flatten(0, 1) + bias)

    def forward(self, superpixels: Tensor) -> Tensor:
        if not self.separable:
            counts = self.counts(superpixels).transpose(-2, -1)
            return _mean(counts, self.table)
        rows = self.row_counts(superpixels).transpose(-2, -1)
        columns = self.column_counts(superpixels.transpose(-2, -1)).transpose(-2, -1)
        return torch.cat([_mean(rows, self.rows), _mean(columns, self.columns)], -1)


class GivenAssignment(nn.Module):
    """As `ResizedAssignment`, from the averaging matrix itself: graphs for CPUs take it as an input.

    A processor makes it from the label map in a hundredth of the time of the products above
    (`cast_sdk.superpixels.assignment`).
    """

    def forward(self, assignment: Tensor) -> tuple[Tensor, Tensor]:
        return assignment, assignment.sum(-1, keepdim=True).round()  # rows sum to one, or to zero when empty


class GivenPositions(nn.Module):
    """As `ResizedPositions`, from the averaging matrix of the positions."""

    table: Tensor

    def __init__(self, table: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table.flatten(0, 1) + bias)

    def forward(self, assignment: Tensor) -> Tensor:
        return assignment @ self.table


def _mean(counts: Tensor, table: Tensor) -> Tensor:
    return (counts @ table) / counts.sum(-1, keepdim=True).round().clamp(min=1)


def _nearest(size: int, cells: int) -> Tensor:
    """Source index of each cell, as `nearest_labels` chooses it."""
    scale = torch.tensor(size, dtype=torch.float32) / cells
    return (torch.arange(cells).float() * scale).floor().long().clamp(max=size - 1)


def _resize_matrices(
    grid: tuple[int, int], size: tuple[int, int], mode: Literal["bilinear", "bicubic"]
) -> tuple[Tensor, Tensor]:
    """U [H, h] and V [W, w] of a separable resize from `grid` (h, w) to `size` (H, W)."""
    matrices = []
    for cells, pixels in zip(grid, size, strict=True):
        index, weight = resize_taps(cells, pixels, mode)
        matrices.append(torch.zeros(pixels, cells).scatter_add_(1, index, weight))
    return matrices[0], matrices[1]


def _windows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels that touch each cell and their weights, [cells, k] both, from V [pixels, cells]; padded with weight 0."""
    spans = [column.nonzero().flatten() for column in matrix.T]
    length = max(int(span[-1] - span[0]) + 1 for span in spans)
    starts = torch.tensor([min(int(span[0]), len(matrix) - length) for span in spans])
    index = starts[:, None] + torch.arange(length)
    return index, matrix.T.gather(1, index)


def _row_chunks(matrix: Tensor, rows: int) -> list[tuple[int, Tensor]]:
    """Split U [H, h] by cells into (first pixel row, its transposed part [cells, pixel rows]) of about `rows` rows."""
    chunks, begin, cells = [], 0, matrix.shape[1]
    while begin < cells:
        end = begin + 1
        first = int(matrix[:, begin].nonzero()[0])
        while end < cells and int(matrix[:, end].nonzero()[-1]) - first < rows:
            end += 1
        used = matrix[:, begin:end].any(1).nonzero().flatten()
        start, stop = int(used[0]), int(used[-1]) + 1
        chunks.append((start, matrix[start:stop, begin:end].T.contiguous()))
        begin = end
    return chunks
