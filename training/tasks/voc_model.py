"""PASCAL VOC with the MoCo segmentation backbone: segment prototypes, nearest-neighbour votes, softmax fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from cast_sdk.errors import RecipeError
from cast_sdk.models import create_model, load_model
from cast_sdk.models.cast import Cast, CastOutput
from cast_sdk.models.dense import Spml, cluster_index
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit
from cast_sdk.training.data.sampler import Key
from cast_sdk.training.engine.optim import trainable
from cast_sdk.training.engine.recipe import Recipe

LONG_SIDE = 512  # of an image at test time
NEIGHBOURS = 20
_MEAN, _STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """A photograph as the test programs see it: longer side 512, superpixels of the native size."""

    image: Tensor  # float32 [1,3,h,w], normalised
    superpixels: Tensor  # int32 [1,h,w]
    count: int  # S

    def nearest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A native-size map at this size."""
        return nearest_resize(values, (self.image.shape[2], self.image.shape[3]))


def prepare(image: Pixels, settings: SuperpixelSettings) -> Prepared:
    """SEEDS on the native image, then image (bilinear) and labels (nearest) to longer side 512."""
    height, width = image.shape[:2]
    ratio = min(LONG_SIDE / height, LONG_SIDE / width)
    size = int(height * ratio), int(width * ratio)
    labels = nearest_resize(superpixels_for(image, settings), size)
    pixels = cv2.resize(image.astype(np.float32) / 255, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy((pixels - _MEAN) / _STD).permute(2, 0, 1)[None]
    return Prepared(tensor, torch.from_numpy(labels)[None], seeds_count(height, width, settings.count))


def nearest_resize(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Nearest neighbour, to (height, width)."""
    return cast("npt.NDArray[Any]", cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))


# ------------------------------------------------------------------------------------------- retrieval


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
            "Retrieval needs a MoCo checkpoint of the segmentation family.",
            found=f"{path}: {type(model).__name__}",
            remedy="pre-train one: python training/pretrain.py --recipe coco_cast_small ...",
        )
    return model.eval()


# ------------------------------------------------------------------------------------------- fine-tuning


def build_spml(recipe: Recipe, split: DenseSplit) -> Spml:
    """Backbone with a softmax pixel classifier; the backbone from the MoCo checkpoint `model.init` when given."""
    torch.manual_seed(recipe.train.seed)
    model = create_model(
        recipe.model.name,
        sampler=recipe.model.sampler,
        num_classes=len(split.class_names),
        class_names=split.class_names,
        palette=split.palette,
        superpixels=transforms.settings(recipe.superpixels),
        **recipe.model.options,
    )
    if not isinstance(model, Spml) or model.semantic_classifier is None:
        raise RecipeError("VOC fine-tuning trains an spml model with a classifier.", found=recipe.model.name)
    if recipe.model.init:
        start = load_model(recipe.model.init, stage="segmentation", num_classes=0).state_dict()
        ours = model.vit_backbone.state_dict()
        misfit = [key for key in ours if key not in start or start[key].shape != ours[key].shape]
        if misfit:
            raise RecipeError(
                "model.init must hold the recipe's backbone.",
                found=f"{recipe.model.init}: {len(misfit)} of {len(ours)} tensors do not fit, first {misfit[0]}",
                remedy="give a MoCo checkpoint of cast_seg_small, or set model.options to its sizes",
            )
        model.vit_backbone.load_state_dict({key: start[key] for key in ours})
    return model.train()


class PixelLoss(nn.Module):
    """Model and loss as one module, so that DDP sees the whole forward pass."""

    def __init__(self, model: Spml) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, superpixels: Tensor, target: Tensor, count: int) -> Tensor:
        """Cross entropy of the pixel classifier: logits at the label map's resolution, resized to the target's.

        Args:
            image: normalised [N,3,H,W].
            superpixels: [N,h,w], labels below `count`.
            target: [N,H,W], labels beyond the classes do not count.
        """
        embeddings, _ = self.model.pixel_embeddings(image, superpixels, count)
        assert self.model.semantic_classifier is not None
        return resized_cross_entropy(self.model.semantic_classifier(embeddings), target)


def resized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of bilinearly resized logits [N,classes,h,w]; labels beyond the classes are left out."""
    logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    target = target.long()
    return F.cross_entropy(logits, torch.where(target >= logits.shape[1], IGNORE, target), ignore_index=IGNORE)


def parameter_groups(model: Spml, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Weights, biases (twice the rate, no decay), classifier weights (10 times) and biases (20 times, no decay).

    Tensors whose name ends in neither, that is the class token, are not trained.
    """
    groups: list[dict[str, Any]] = []
    for prefix, factor in (("vit_backbone.", 1.0), ("semantic_classifier.", 10.0)):
        for kind, scale, decay in (("weight", 1.0, weight_decay), ("bias", 2.0, 0.0)):
            tensors = [p for name, p in trainable(model) if name.startswith(prefix) and name.endswith(kind)]
            rate = lr * factor * scale
            groups.append({"params": tensors, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups


class RateInBufferSGD(torch.optim.Optimizer):
    """SGD whose momentum buffer holds steps, not gradients: v = momentum * v + lr * (g + decay * p); p = p - v."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "step" not in state:
                    state["step"] = torch.zeros_like(parameter)
                slope = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state["step"].mul_(group["momentum"]).add_(slope, alpha=group["lr"])
                parameter.sub_(state["step"])
        return loss


class VocViews(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Training items: normalised float32 [3,H,W], superpixels int32 [H/2,W/2] and class map uint8 [H,W].

    Flip, random scale, padding with the mean colour, random crop; SEEDS on the halved crop. Items depend on (seed,
    epoch, position) alone.
    """

    def __init__(self, split: DenseSplit, recipe: Recipe) -> None:
        self.split, self.config, self.flip, self.seed = split, recipe.dense, recipe.augment.flip, recipe.train.seed
        self.settings = transforms.settings(recipe.superpixels)

    def __len__(self) -> int:
        return len(self.split)

    def count(self) -> int:
        """Superpixels S of an item."""
        return seeds_count(self.config.crop // 2, self.config.crop // 2, self.settings.count)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        index, epoch, position = key
        generator = np.random.default_rng((self.seed, epoch, position))
        pixels, label = self.split.read(index)
        image = pixels.astype(np.float32) / np.float32(255)
        if generator.random() < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image, label = self._crop(np.ascontiguousarray(image), np.ascontiguousarray(label), generator)
        side = self.config.crop // 2
        half = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        superpixels = superpixels_for((half * 255).astype(np.uint8), self.settings)
        normalised = torch.from_numpy((image - _MEAN) / _STD).permute(2, 0, 1)
        return normalised, torch.from_numpy(superpixels), torch.from_numpy(label)

    def _crop(
        self, image: npt.NDArray[np.float32], label: Pixels, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], Pixels]:
        side = self.config.crop
        factor = generator.uniform(*self.config.scale)
        height, width = int(label.shape[0] * factor), int(label.shape[1] * factor)
        image = cast("npt.NDArray[np.float32]", cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
        label = nearest_resize(label, (height, width))
        padded = np.empty((max(height, side), max(width, side), 3), np.float32)
        padded[:] = _MEAN
        classes = np.full(padded.shape[:2], IGNORE, np.uint8)
        padded[:height, :width], classes[:height, :width] = image, label
        top = int(generator.integers(padded.shape[0] - side + 1))
        left = int(generator.integers(padded.shape[1] - side + 1))
        area = slice(top, top + side), slice(left, left + side)
        return np.ascontiguousarray(padded[area]), np.ascontiguousarray(classes[area])


@torch.inference_mode()
def predict(model: nn.Module, image: Pixels, settings: SuperpixelSettings) -> Pixels:
    """Class map uint8 [h, w] of the fine-tuned model at the native size."""
    prepared = prepare(image, settings)
    device = next(model.parameters()).device
    superpixels = prepared.superpixels.to(device)
    scores = model(prepared.image.to(device), superpixels, prepared.count).dense[0]
    classes = scores.argmax(1).to(torch.uint8)[superpixels[0].long()].cpu().numpy()
    return nearest_resize(classes, (image.shape[0], image.shape[1]))
