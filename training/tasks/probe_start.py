"""A head that begins as a linear classifier of the frozen encoder's embeddings (LP-FT, Kumar et al., 2022).

Fine-tuning a good encoder under a random head first spoils the encoder; under a fitted one it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_sdk.errors import RecipeError
from cast_sdk.training.data.dataset import LabelledViews, loader, to_device
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.progress import progress

AT_MOST = 20_000  # images that the start is fitted to
PENALTY = 50.0  # on the squared weights of the standardised features, over the number of images


@torch.no_grad()
def embeddings(
    model: nn.Module, views: LabelledViews, indices: npt.NDArray[np.integer], batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Embeddings float32 [N,C] and labels [N] of some images, on the CPU, by the model in evaluation mode."""
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    found, labels = [], []
    sampler = EpochSampler(len(indices), batch, shuffle=False, drop_last=False)
    chosen = _Chosen(views, indices)
    for packed in progress(loader(chosen, sampler), "embedding the training images"):
        images, superpixels, targets = to_device(packed, device)
        output = model(images, superpixels, num_superpixels=views.count(superpixels))
        found.append(output.embedding.float().cpu())
        labels.append(targets.cpu())
    model.train(mode)
    return torch.cat(found), torch.cat(labels)


def fit_linear(
    features: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None, penalty: float = PENALTY
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: weight [classes,C] and bias [classes] for the features as they are.

    Args:
        features: float32 [N,C]; standardised inside.
        labels: [N].
        classes: their number.
        weights: how much each image counts, [N]; default: all alike.
        penalty: of the squared weights of the standardised features, times 1/N.
    """
    mean, deviation = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
    inputs = (features - mean) / deviation
    counts = torch.ones(len(labels)) if weights is None else weights / weights.mean()
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        fit = (counts * F.cross_entropy(inputs @ weight.T + bias, labels, reduction="none")).mean()
        total = fit + penalty / len(labels) * weight.square().sum()
        total.backward()
        return total

    solver.step(objective)
    with torch.no_grad():
        scaled = weight / deviation
        return scaled, bias - scaled @ mean


def start_head(model: Any, views: LabelledViews, world: World, weights: npt.NDArray[np.float64] | None) -> None:
    """Fit the head to the training images; every process gets the same one.

    Args:
        model: with a linear head.
        views: the training images as in evaluation.
        world: the processes; the first one fits.
        weights: how much each image counts.

    Raises:
        RecipeError: for a model with the heads of a taxonomy.
    """
    if model.spec.taxonomy:
        raise RecipeError(
            "The heads of a taxonomy do not begin as a linear probe.", remedy="--set model.head_start=random"
        )
    indices = np.arange(len(views))
    if len(indices) > AT_MOST:
        indices = np.sort(np.random.default_rng(0).permutation(len(views))[:AT_MOST])
    fitted = None
    if world.main:
        features, labels = embeddings(model, views, indices)
        chosen = None if weights is None else torch.from_numpy(weights[indices]).float()
        fitted = fit_linear(features, labels, model.spec.num_classes, chosen)
    weight, bias = world.from_main(fitted)
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)


class _Chosen(torch.utils.data.Dataset[Any]):
    """Some items of another data set, by their place among them."""

    def __init__(self, views: LabelledViews, indices: npt.NDArray[np.integer]) -> None:
        self.views, self.indices = views, indices

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        index = int(self.indices[key[0]])
        return self.views[(index, 0, index)]
