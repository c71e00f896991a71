"""What dense segmentation must beat (the most frequent class everywhere, a classifier of superpixel colours), and the
best that a class per superpixel can reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cast_sdk.errors import MissingDependencyError
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit
from cast_sdk.training.metrics.semantic import ConfusionMatrix

Features = npt.NDArray[np.float32]


def class_pixels(split: DenseSplit, indices: Sequence[int]) -> npt.NDArray[np.int64]:
    """Pixels of each class: int64 [n]."""
    counts = np.zeros(256, np.int64)
    for index in indices:
        counts += np.bincount(split.read(index)[1].ravel(), minlength=256)
    return counts[: len(split.class_names)]


def majority_class(train: DenseSplit, val: DenseSplit, step: int = 1) -> ConfusionMatrix:
    """Every pixel of `val` gets the most frequent class of every `step`-th image of `train`."""
    winner = int(class_pixels(train, range(0, len(train), step)).argmax())
    confusion = ConfusionMatrix(len(val.class_names))
    for index in range(len(val)):
        label = val.read(index)[1]
        confusion.update(np.full_like(label, winner), label)
    return confusion


def superpixel_features(
    image: npt.NDArray[np.uint8], settings: SuperpixelSettings, position: bool
) -> tuple[Features, npt.NDArray[np.int32]]:
    """Mean and standard deviation of the LAB colour of each superpixel, with its centre on request.

    Returns:
        float32 [S, 6 or 8], zero for superpixels without pixels, and the label map int32 [h, w].
    """
    labels = superpixels_for(image, settings)
    flat, count = labels.ravel(), int(labels.max()) + 1
    area = np.maximum(np.bincount(flat, minlength=count), 1)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    columns = []
    for channel in range(3):
        mean = np.bincount(flat, lab[:, channel], count) / area
        square = np.bincount(flat, lab[:, channel] ** 2, count) / area
        columns += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
    if position:
        height, width = labels.shape
        rows, places = np.mgrid[:height, :width]
        columns += [
            np.bincount(flat, axis.ravel(), count) / area / side for axis, side in ((rows, height), (places, width))
        ]
    return np.stack(columns, 1).astype(np.float32), labels


def superpixel_colour(
    train: DenseSplit,
    val: DenseSplit,
    settings: SuperpixelSettings,
    position: bool = False,
    step: int = 1,
    seed: int = 0,
) -> ConfusionMatrix:
    """A random forest on superpixel colours (scikit-learn), trained on the majority class of each superpixel.

    Args:
        train, val: splits of one data set.
        settings: of the superpixels, for images of native size.
        position: give the forest the superpixel's place in the image too.
        step: use every `step`-th training image.
        seed: of the forest.
    """
    forest = _forest(seed)
    rows, targets, weights = [], [], []
    for index in range(0, len(train), step):
        image, label = train.read(index)
        features, superpixels = superpixel_features(image, settings, position)
        pairs = superpixels.ravel().astype(np.int64) * 256 + label.ravel()
        counts = np.bincount(pairs, minlength=len(features) * 256).reshape(-1, 256)[:, :IGNORE]
        valid = counts.sum(1) > 0
        rows.append(features[valid])
        targets.append(counts[valid].argmax(1))
        weights.append(counts[valid].sum(1))
    forest.fit(np.concatenate(rows), np.concatenate(targets), sample_weight=np.concatenate(weights))
    confusion = ConfusionMatrix(len(val.class_names))
    for index in range(len(val)):
        image, label = val.read(index)
        features, superpixels = superpixel_features(image, settings, position)
        confusion.update(forest.predict(features)[superpixels], label)
    return confusion


def superpixel_oracle(val: DenseSplit, settings: SuperpixelSettings) -> ConfusionMatrix:
    """Every superpixel gets its majority class of the ground truth: no class per superpixel can do better."""
    confusion = ConfusionMatrix(len(val.class_names))
    for index in range(len(val)):
        image, label = val.read(index)
        superpixels = superpixels_for(image, settings)
        pairs = superpixels.ravel().astype(np.int64) * 256 + label.ravel()
        counts = np.bincount(pairs, minlength=(int(superpixels.max()) + 1) * 256).reshape(-1, 256)
        confusion.update(counts[:, : len(val.class_names)].argmax(1)[superpixels], label)
    return confusion


def _forest(seed: int) -> Any:
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise MissingDependencyError(
            "scikit-learn, which the colour baseline needs, is missing.",
            found=str(error),
            remedy="pip install scikit-learn",
        ) from error
    return RandomForestClassifier(n_estimators=50, min_samples_leaf=20, random_state=seed)
