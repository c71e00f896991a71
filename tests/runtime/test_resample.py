"""Equal to Pillow, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cast_sdk.runtime.preprocess import fit_geometry, prepare
from cast_sdk.runtime.resample import resample_window


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(st.integers(1, 60), st.integers(1, 60)), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_resize_and_window_equal_pillow(shape, resized, cubic):
    rng = np.random.default_rng(shape[0] * 100 + shape[1])
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    narrow = Image.fromarray(image).resize((resized[1], shape[0]), kind)  # columns first, whatever Pillow's version
    expected = np.asarray(narrow.resize(resized[::-1], kind))
    top, left = resized[0] // 3, resized[1] // 3
    size = (resized[0] - top, resized[1] - left)
    assert np.array_equal(resample_window(image, resized, top, left, size, cubic=cubic), expected[top:, left:])


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (1000, 97)])
def test_crop_equals_the_reference_evaluation(shape):
    transforms = pytest.importorskip("torchvision.transforms", reason="compares with torchvision's own transforms")
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = np.asarray(reference(Image.fromarray(image[..., ::-1])))
    assert np.array_equal(prepare(image, (224, 224), "crop").image, expected)
    assert fit_geometry(shape, (224, 224), "crop").to_frame(np.zeros((224, 224), np.int32)).shape == shape
