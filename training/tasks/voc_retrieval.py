"""PASCAL VOC without training: segments of val get the label of their nearest segments of train+."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.errors import RecipeError
from cast_sdk.models import load_model
from cast_sdk.models.cast import Cast, CastOutput
from cast_sdk.models.dense import cluster_index
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data.arrays import read_arrays
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit
from cast_sdk.training.engine import provenance
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.metrics.semantic import ConfusionMatrix
from cast_sdk.training.tasks.voc_prediction import (
    Pixels,
    Prepared,
    nearest_resize,
    predict_split,
    prepare,
    voc_superpixels,
)

NEIGHBOURS = 20


@dataclass(frozen=True)
class Prototypes:
    """Segments of one image at level 4 and what they look like."""

    vectors: Tensor  # float32 [n,256], unit length
    clusters: Tensor  # int64 [h,w], 0..n-1 at the prepared size
    labels: npt.NDArray[np.int64] | None = None  # majority class of each segment, 255 included


@torch.inference_mode()
def prototypes(backbone: Cast, prepared: Prepared, truth: Pixels | None = None) -> Prototypes:
    """Unit-length sums of the unit-length pixel embeddings of every level-4 segment.

    Args:
        backbone: cast_seg in stage "segmentation" with its MoCo projector as the head.
        prepared: see `prepare`.
        truth: class map at the native size, to label the segments.
    """
    device = next(backbone.parameters()).device
    superpixels = prepared.superpixels.to(device)
    out: CastOutput = backbone(prepared.image.to(device), superpixels, prepared.count)
    assert out.dense is not None
    clusters = cluster_index(out.levels[3].labels, superpixels)[0]
    segments = int(clusters.max()) + 1
    embeddings = F.normalize(out.dense[0], dim=1)
    # Pixels of superpixel s in segment k: every pixel of a superpixel has its embedding.
    pairs = clusters.flatten() * prepared.count + superpixels[0].flatten().long()
    area = torch.bincount(pairs, minlength=segments * prepared.count).view(segments, prepared.count)
    vectors = F.normalize(area.to(embeddings.dtype) @ embeddings, dim=1)
    labels = None
    if truth is not None:
        labels = majority(clusters.cpu().numpy(), prepared.nearest(truth), segments)
    return Prototypes(vectors, clusters, labels)


def majority(clusters: npt.NDArray[np.integer], truth: Pixels, segments: int) -> npt.NDArray[np.int64]:
    """Most frequent label (0..255, the lowest on ties) of each segment."""
    pairs = clusters.astype(np.int64).ravel() * 256 + truth.ravel()
    return np.bincount(pairs, minlength=segments * 256).reshape(segments, 256).argmax(1)


def nearest_classes(
    queries: Tensor,
    memory: Tensor,
    labels: Tensor,
    num_classes: int,
    neighbours: int = NEIGHBOURS,
    block: int = 1 << 16,
) -> Tensor:
    """Majority class among the nearest memory entries by dot product; the lowest class on ties: int64 [Q].

    The memory is searched in blocks, so that at most Q x block similarities exist at a time; the result is exact.

    Args:
        queries: [Q,C]. memory: [M,C]. labels: integer [M], classes below `num_classes`.
        neighbours: entries that vote (all of a smaller memory).
        block: memory entries at a time.
    """
    best = queries.new_full((len(queries), 0), -torch.inf)
    votes = labels.new_zeros((len(queries), 0))
    for begin in range(0, len(memory), block):
        part = slice(begin, begin + block)
        scores = torch.cat([best, queries @ memory[part].to(queries.device, queries.dtype).T], 1)
        found = torch.cat([votes, labels[part].expand(len(queries), -1)], 1)
        best, index = scores.topk(min(neighbours, scores.shape[1]), 1)
        votes = found.gather(1, index)
    counts = torch.zeros(len(queries), num_classes, dtype=torch.long, device=votes.device)
    counts.scatter_add_(1, votes.long(), torch.ones_like(votes, dtype=torch.long))
    return counts.argmax(1)


def load_backbone(path: Any, sampler: Any = "matrix") -> Cast:
    """A COCO MoCo checkpoint as the retrieval backbone: stage "segmentation", 64 x 64 positions, projector kept."""
    model = load_model(path, stage="segmentation", keep_projector=True, sampler=sampler)
    if not isinstance(model, Cast) or model.spec.family != "cast_seg":
        raise RecipeError(
            f"{path} is no MoCo checkpoint of the segmentation family.",
            found=type(model).__name__,
            remedy="pre-train one: python training/pretrain.py --recipe coco_cast_small ...",
        )
    return model.eval()


def retrieve(
    backbone: Cast,
    splits: dict[str, DenseSplit],
    out: Path,
    neighbours: int = NEIGHBOURS,
    block: int = 65536,
    world: World | None = None,
) -> ConfusionMatrix:
    """Prototypes of "train" as files, then the votes on "val"; images of both are shared among the processes."""
    settings = voc_superpixels()
    memory, labels = build_memory(backbone, splits["train"], out / "results" / "train+" / "semantic_prototype", world)
    count = len(splits["val"].class_names)

    def predict(image: Pixels) -> Pixels:
        found = prototypes(backbone, prepare(image, settings))
        classes = nearest_classes(found.vectors.cpu(), memory, labels, count, neighbours, block)
        return nearest_resize(classes.numpy().astype("uint8")[found.clusters.cpu().numpy()], image.shape[:2])

    return predict_split(predict, splits["val"], out, world)


def build_memory(backbone: Cast, split: DenseSplit, folder: Path, world: World | None = None) -> tuple[Tensor, Tensor]:
    """Prototypes [M,C] and classes [M] of all images, void ones left out; files that exist are read, not made again.

    The images are shared among the processes, which need no common folder; every process gets all prototypes.
    """
    world = world or World()
    settings = voc_superpixels()
    files = [
        (f"{kind}/{pair.name}", path)
        for pair in split.pairs
        for kind, path in (("image", pair.image), ("label", pair.label))
    ]
    made_by = {
        "weights": provenance.of_model(backbone),
        "superpixels": dataclasses.asdict(settings),
        "fingerprint": provenance.of_files(files),
    }
    # The first process before the others, which find its record where the folder is a common one.
    world.decided_by_main(lambda: provenance.keep(folder, made_by))
    if not world.main:
        provenance.keep(folder, made_by)
    own: dict[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    for index in progress(range(len(split))[world.rank :: world.size], "prototypes"):
        pair = split.pairs[index]
        file = folder / f"{pair.name}.npz"
        if not file.is_file():
            image, truth = split.read(index)
            made = prototypes(backbone, prepare(image, settings), truth)
            assert made.labels is not None
            with atomic_write(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, prototype=made.vectors.cpu().numpy(), prototype_label=made.labels)
        vector, label = read_arrays(file, ("prototype", "prototype_label"), "no prototypes")
        own[index] = vector[label != IGNORE], label[label != IGNORE]
    every = {index: found for part in world.gather(own) for index, found in part.items()}
    vectors, labels = zip(*(every[index] for index in range(len(split))), strict=True)
    return torch.from_numpy(np.concatenate(vectors)), torch.from_numpy(np.concatenate(labels))
