"""Nested segments of a photograph from a model or a classical method, as label maps from fine to coarse.

Every method is a function `rgb uint8 [h, w, 3] -> [int32 [h, w], ...]`. CAST gives its own levels; a ViT's patch tokens
are grouped by spherical k-means; superpixels of several sizes and a merge of neighbouring superpixels by colour are the
baselines that need no network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.preprocess import fit_geometry, resize
from cast_sdk.spec import SuperpixelSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cast_sdk.models.baselines import Vit
    from cast_sdk.runtime import Runtime

MIN_SEGMENTS = 9  # SEEDS makes no grid smaller than 3 x 3

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Levels = Callable[[Pixels], list[Labels]]


@dataclass(frozen=True)
class Grouping:
    """What the methods without levels of their own need to know, usually taken from the CAST they are compared with."""

    size: int  # side in pixels that the photograph is stretched to
    superpixels: SuperpixelSettings
    segments: tuple[int, ...]  # segments per level, fine to coarse


def runtime_levels(runtime: Runtime) -> Levels:
    """Levels 1.. of a CAST checkpoint or exported artifact."""

    def levels(rgb: Pixels) -> list[Labels]:
        result = runtime.segment(np.ascontiguousarray(rgb[..., ::-1]))
        return [result.labels(level) for level in range(1, result.num_levels + 1)]

    return levels


def seeds_levels(grouping: Grouping) -> Levels:
    """SEEDS superpixels, computed anew for each number of segments: these levels do not nest, and have at least 9."""

    def levels(rgb: Pixels) -> list[Labels]:
        from cast_sdk.superpixels import seeds

        image, to_frame = _stretched(rgb, grouping.size)
        settings = grouping.superpixels
        counts = [max(count, MIN_SEGMENTS) for count in grouping.segments]
        return [to_frame(seeds(image, count, settings.bins, settings.iterations)) for count in counts]

    return levels


def merge_levels(grouping: Grouping) -> Levels:
    """Superpixels whose neighbours of most similar mean colour (CIELAB) are merged one pair at a time.

    scikit-image's region adjacency graph and its hierarchical merging; the order of merges is kept, so that the levels
    nest and have exactly the numbers of segments asked for.
    """

    def levels(rgb: Pixels) -> list[Labels]:
        from cast_sdk.superpixels import superpixels_for

        image, to_frame = _stretched(rgb, grouping.size)
        superpixels = superpixels_for(image, grouping.superpixels)
        composed = merge_by_colour(image, superpixels, grouping.segments)
        hierarchy = Hierarchy.from_labels(superpixels, composed)
        return [to_frame(hierarchy.labels(level)) for level in range(1, hierarchy.num_levels + 1)]

    return levels


def merge_by_colour(rgb: Pixels, superpixels: Labels, segments: Sequence[int]) -> list[Labels]:
    """Group superpixels by merging the most similar neighbours until `segments` are left.

    Args:
        rgb: uint8 [h, w, 3].
        superpixels: int32 [h, w], labels 0..S-1.
        segments: wanted numbers of segments, descending; a number of at least S leaves the superpixels alone.

    Returns:
        One int32 [S] per number: the segment of each superpixel.
    """
    from skimage.color import rgb2lab
    from skimage.graph import merge_hierarchical, rag_mean_color

    graph = rag_mean_color(rgb2lab(rgb), superpixels)
    merges: list[tuple[list[int], int]] = []

    def merge(graph: Any, source: int, target: int) -> None:
        nodes = graph.nodes
        merges.append((list(nodes[source]["labels"]), nodes[target]["labels"][0]))
        nodes[target]["total color"] += nodes[source]["total color"]
        nodes[target]["pixel count"] += nodes[source]["pixel count"]
        nodes[target]["mean color"] = nodes[target]["total color"] / nodes[target]["pixel count"]

    def weight(graph: Any, _: int, target: int, neighbour: int) -> dict[str, float]:
        difference = graph.nodes[target]["mean color"] - graph.nodes[neighbour]["mean color"]
        return {"weight": float(np.linalg.norm(difference))}

    left = graph.number_of_nodes()
    merge_hierarchical(superpixels, graph, np.inf, False, True, merge, weight)
    member = np.arange(int(superpixels.max()) + 1, dtype=np.int32)
    levels, steps = [], iter(merges)
    for count in segments:
        while left > count:
            sources, target = next(steps)
            member[sources] = member[target]
            left -= 1
        levels.append(member.copy())
    return levels


def vit_levels(model: Vit, segments: Sequence[int], seed: int = 0, iterations: int = 30) -> Levels:
    """Spherical k-means on the patch tokens of a ViT, level on level.

    The tokens of the last block (no final norm) are resized bilinearly to the pixels of the input, which are grouped
    into `segments[0]` clusters; each further level groups the prototypes of the level before.

    Args:
        model: a ViT in evaluation mode.
        segments: clusters per level, fine to coarse.
        seed: of the random initial labels, the same for every image.
        iterations: of k-means.
    """

    def levels(rgb: Pixels) -> list[Labels]:
        import torch

        image, to_frame = _stretched(rgb, model.spec.image_size)
        device = next(model.parameters()).device
        with torch.inference_mode():
            features = vit_pixel_features(model, torch.from_numpy(image)[None].to(device))[0]
            generator = torch.Generator(device).manual_seed(seed)
            maps = kmeans_hierarchy(features.flatten(0, 1), segments, generator, iterations)
        return [to_frame(level.view(features.shape[:2]).to(torch.int32).cpu().numpy()) for level in maps]

    return levels


def vit_pixel_features(model: Vit, images: Tensor) -> Tensor:
    """Patch tokens of uint8 RGB images [N,H,W,3], resized to every pixel: float [N,H,W,C]."""
    import torch.nn.functional as F

    from cast_sdk.training.data.transforms import normalise

    tokens = model.patch_tokens(normalise(images.permute(0, 3, 1, 2)))[:, 1:]
    grid = round(tokens.shape[1] ** 0.5)
    features = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    features = F.interpolate(features, size=images.shape[1:3], mode="bilinear", align_corners=False)
    return features.permute(0, 2, 3, 1)


def kmeans_hierarchy(
    points: Tensor, segments: Sequence[int], generator: torch.Generator, iterations: int = 30
) -> list[Tensor]:
    """Clusters of points [P,C] per level, int64 [P] each: every level groups the prototypes of the one before."""
    levels: list[Tensor] = []
    for count in segments:
        labels, points = spherical_kmeans(points, count, generator, iterations)
        levels.append(labels if not levels else labels[levels[-1]])
    return levels


def spherical_kmeans(
    points: Tensor, clusters: int, generator: torch.Generator, iterations: int = 30
) -> tuple[Tensor, Tensor]:
    """K-means by dot product with unit prototypes, from random initial labels (SegSort, Hwang et al. 2019).

    Args:
        points: [P,C], used as they are.
        clusters: K.
        generator: of the initial labels, on the points' device.
        iterations: of: prototype = normalised sum of its points; label = prototype of largest dot product.

    Returns:
        labels int64 [P] and unit prototypes [K,C] (zero for a cluster that lost all its points).
    """
    import torch
    import torch.nn.functional as F

    def prototypes(labels: Tensor) -> Tensor:
        sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, labels, points)
        return F.normalize(sums, dim=1)

    labels = torch.randint(clusters, (len(points),), generator=generator, device=points.device)
    for _ in range(iterations):
        labels = (points @ prototypes(labels).T).argmax(1)
    return labels, prototypes(labels)


def _stretched(rgb: Pixels, side: int) -> tuple[Pixels, Callable[[Labels], Labels]]:
    """The photograph at side x side pixels, and the way back for label maps."""
    geometry = fit_geometry((rgb.shape[0], rgb.shape[1]), (side, side), "stretch")
    return resize(np.ascontiguousarray(rgb[..., ::-1]), geometry), geometry.to_frame


def open_levels(
    model: str | os.PathLike[str],
    grouping: Grouping | None = None,
    seed: int = 0,
    made: Literal["auto", "assigned", "merged"] = "auto",
) -> tuple[Levels, Any]:
    """Levels of a checkpoint or exported artifact, and its ModelSpec: CAST's own, or k-means on a ViT.

    Args:
        model: a file that `Runtime` or `load_model` opens.
        grouping: number of clusters for a ViT; default 64/32/16/8.
        seed: of k-means.
        made: how the levels of a CAST are made, `Runtime(grouping=...)`.
    """
    from cast_sdk.models import load_model
    from cast_sdk.models.baselines import Vit
    from cast_sdk.runtime import Runtime

    if not str(model).endswith((".onnx", ".engine")):
        network = load_model(model)
        if isinstance(network, Vit):
            return vit_levels(network, grouping.segments if grouping else (64, 32, 16, 8), seed), network.spec
    runtime = Runtime(model, grouping=made)
    if not runtime.spec.hierarchical:
        raise InputError(
            f"{runtime.spec.name} is neither a CAST nor a ViT and has no segments.",
            found=f"family {runtime.spec.family}",
            remedy="give a cast_* or vit_* checkpoint",
        )
    return runtime_levels(runtime), runtime.spec
