"""Results of one photograph: of the bundled model, with a dense head, with tokens, and cut to the centre."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from cast_sdk import Runtime, bundled


@pytest.fixture(scope="session")
def photograph(tmp_path_factory):
    """A file of an odd size."""
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    image = cv2.imread(str(bundled.photos()[0]))
    cv2.imwrite(str(path), cv2.resize(image, (211, 157)))
    return path


@pytest.fixture(scope="session")
def seg(photograph):
    with Runtime() as runtime:
        return runtime.segment(photograph)


@pytest.fixture(scope="session")
def cropped(photograph):
    with Runtime(fit="crop") as runtime:
        return runtime.segment(photograph)


@pytest.fixture(scope="session")
def dense(seg):
    """As a model with a dense head and tokens gives it."""
    rng = np.random.default_rng(0)
    superpixels = len(seg.outputs["level1"])
    counts = (superpixels, *seg.spec.clusters[:3])
    tokens = {f"tokens{n}": rng.random((count, 6), np.float32) for n, count in enumerate(counts, 1)}
    scores = rng.random((superpixels, 5)).astype(np.float32)
    outputs = {**seg.outputs, **tokens, "dense": scores, "semantic": scores.argmax(1).astype(np.int32)}
    spec = dataclasses.replace(seg.spec, family="segmenter", num_classes=5, class_names=("sky", "cat", "<a>", "d", "e"))
    return dataclasses.replace(seg, spec=spec, outputs=outputs)
