"""Farthest-point sampling, the step that chooses the segments of the next level."""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.system.installing import pip_install

log = logging.getLogger(__name__)
Sampler = Literal["float64", "matrix", "dgl"]


def farthest_points(points: Tensor, count: int, sampler: Sampler = "float64") -> Tensor:
    """Indices of `count` points, each the farthest (squared L2) from those chosen before, starting at index 0.

    Args:
        points: [N,P,C], P >= 1. No gradient flows through the choice.
        count: points to choose; with fewer distinct points the choice repeats index 0.
        sampler: "float64": distances in double precision, as DGL computes them; "matrix": one float32 distance matrix
            of mean-centred points, much faster and equal except at near-ties; "dgl": DGL's own operator (extra `dgl`).
            On GPUs the first two run as one fused kernel that picks the same indices.

    Returns:
        int64 [N,count]; ties go to the lowest index.
    """
    points = points.detach()
    fused = fused_kernels() if points.is_cuda else None
    if sampler == "float64":
        return fused.by_differences(points, count) if fused else _by_differences(points.double(), count)
    if sampler == "matrix":
        distances = squared_distances(points)
        return fused.by_matrix(distances, count) if fused else _by_matrix(distances, count)
    if sampler == "dgl":
        return _dgl(points, count)
    raise InputError(f"Unknown sampler {sampler!r}.", remedy="choose 'float64' (the default), 'matrix' or 'dgl'")


def squared_distances(points: Tensor) -> Tensor:
    """Pairwise squared distances [N,P,P] in float32 from mean-centred points (|a|^2 + |b|^2 - 2 a.b)."""
    with torch.autocast(points.device.type, enabled=False):
        centred = points.float() - points.float().mean(1, keepdim=True)
        norms = centred.square().sum(-1)
        gram = centred @ centred.transpose(1, 2)
        return norms[:, :, None] + norms[:, None, :] - 2 * gram


@functools.cache
def fused_kernels() -> ModuleType | None:
    """Kernels that pick all points in one launch; None without Triton, where the loops below give the same indices."""
    try:
        from cast_sdk.models.sampling import kernels
    except ImportError as error:
        log.warning("farthest-point sampling launches hundreds of small GPU kernels (%s): pip install triton", error)
        return None
    return kernels


def _by_differences(points: Tensor, count: int) -> Tensor:
    rows = torch.arange(points.shape[0], device=points.device)
    chosen = torch.zeros(points.shape[0], dtype=torch.long, device=points.device)
    nearest = torch.full(points.shape[:2], torch.inf, dtype=points.dtype, device=points.device)
    picks = [chosen]
    for _ in range(count - 1):
        distance = (points - points[rows, chosen][:, None]).square_().sum(-1)
        nearest = torch.minimum(nearest, distance)
        chosen = nearest.argmax(1)
        picks.append(chosen)
    return torch.stack(picks, 1)


def _by_matrix(distances: Tensor, count: int) -> Tensor:
    rows = torch.arange(distances.shape[0], device=distances.device)
    chosen = torch.zeros(distances.shape[0], dtype=torch.long, device=distances.device)
    nearest = distances[:, 0]
    picks = [chosen]
    for _ in range(count - 1):
        chosen = nearest.argmax(1)
        picks.append(chosen)
        nearest = torch.minimum(nearest, distances[rows, chosen])
    return torch.stack(picks, 1)


def _dgl(points: Tensor, count: int) -> Tensor:
    os.environ.setdefault("DGLBACKEND", "pytorch")  # else DGL writes a configuration file into the home folder
    try:
        from dgl.geometry import farthest_point_sampler
    except ImportError as error:
        raise MissingDependencyError(
            "DGL, which sampler='dgl' needs, cannot be imported.",
            found=str(error),
            remedy=f"{pip_install('dgl')}, or use the default sampler, which picks the same points",
        ) from error
    return farthest_point_sampler(points.double(), count, start_idx=0)
