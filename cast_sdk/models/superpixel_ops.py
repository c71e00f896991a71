"""From feature maps to superpixel tokens: nearest labels, segment means, resized segment means."""

from __future__ import annotations

import torch
from torch import Tensor

from cast_sdk.superpixels.assignment import Mode, taps


def nearest_labels(labels: Tensor, height: int, width: int) -> Tensor:
    """Down-sample label maps [N,H,W] to [N,height,width]: cell (i, j) takes (floor(i H / height), floor(j W / width)).

    Integer in, integer out; the scale is computed in float32, as nearest interpolation does.
    """
    if labels.shape[-2:] == (height, width):
        return labels

    def index(size_in: int, size_out: int) -> Tensor:
        scale = torch.tensor(size_in, dtype=torch.float32) / size_out
        cells = torch.arange(size_out, dtype=torch.float32, device=labels.device)  # a copy would make the host wait
        return (cells * scale).floor().long().clamp_(max=size_in - 1)

    rows, columns = index(labels.shape[-2], height), index(labels.shape[-1], width)
    return labels[..., rows[:, None], columns]


def segment_sizes(labels: Tensor, count: int) -> Tensor:
    """Pixels per label: [N,h,w] integer -> [N,count] float32."""
    flat = labels.flatten(1).long()
    sizes = torch.zeros(flat.shape[0], count, device=labels.device)
    return sizes.scatter_add_(1, flat, torch.ones(flat.shape, device=labels.device))


def segment_mean(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Mean feature of the pixels of each label, zero for absent labels.

    Args:
        features: [N,h,w,C] or [1,h,w,C], shared by the batch.
        labels: integer [N,h,w], values in 0..count-1.
        count: number of segments S.

    Returns:
        [N,S,C] in the dtype of the features (sums in float32 or better).
    """
    n, h, w = labels.shape
    channels = features.shape[-1]
    flat = labels.flatten(1).long() + count * torch.arange(n, device=labels.device)[:, None]
    values = features.reshape(features.shape[0], h * w, channels).expand(n, -1, -1)
    values = values.to(torch.promote_types(features.dtype, torch.float32))
    sums = torch.zeros(n * count, channels, dtype=values.dtype, device=features.device)
    sums = sums.index_add(0, flat.flatten(), values.reshape(-1, channels))
    sizes = segment_sizes(labels, count).clamp_(min=1)
    return (sums.view(n, count, channels) / sizes[..., None]).to(features.dtype)


def resize_taps(cells: int, pixels: int, mode: Mode) -> tuple[Tensor, Tensor]:
    """`cast_sdk.superpixels.assignment.taps` as tensors: cell int64 and weight float32, [pixels, n] both."""
    known = taps.__wrapped__ if torch.compiler.is_compiling() else taps  # compilers do not see a cache, and warn of it
    index, weight = known(cells, pixels, mode)
    return torch.from_numpy(index).long(), torch.from_numpy(weight)


def resized_assignment(labels: Tensor, count: int, grid: tuple[int, int], mode: Mode) -> Tensor:
    """The matrix A [N,S,h*w] with A @ grid features = segment mean of the features resized to the label map.

    Resizing and averaging are both linear, so their product is applied at once and the full-resolution feature map
    (400 MB at 512 pixels and width 384) is never made. Rows of absent labels are zero.
    """
    n, height, width = labels.shape
    h, w = grid
    device = labels.device
    row_index, row_weight = (t.to(device) for t in resize_taps(h, height, mode))
    column_index, column_weight = (t.to(device) for t in resize_taps(w, width, mode))
    base = (labels.long() + count * torch.arange(n, device=device)[:, None, None]) * (h * w)
    matrix = torch.zeros(n * count * h * w, device=device)
    for a in range(row_index.shape[1]):
        for b in range(column_index.shape[1]):
            cell = row_index[:, a, None] * w + column_index[None, :, b]
            weight = row_weight[:, a, None] * column_weight[None, :, b]
            matrix.index_add_(0, (base + cell).flatten(), weight.expand(n, -1, -1).flatten())
    sizes = segment_sizes(labels, count).clamp_(min=1)
    return matrix.view(n, count, h * w) / sizes[..., None]


def resized_segment_mean(features: Tensor, labels: Tensor, count: int, mode: Mode) -> Tensor:
    """Segment mean of features [N or 1,h,w,C] resized to the resolution of the labels [N,H,W] -> [N,S,C]."""
    grid = (features.shape[1], features.shape[2])
    if labels.shape[1:] == grid:
        return segment_mean(features, labels, count)
    matrix = resized_assignment(labels, count, grid, mode)
    return matrix.to(features.dtype) @ features.flatten(1, 2)
