"""Equal to Pillow, pixel for pixel, compiled and not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cast_sdk.runtime import resample
from cast_sdk.runtime.preprocess import fit_geometry, prepare
from cast_sdk.runtime.resample import resample_window
from cast_sdk.superpixels.kernels import native_library


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
    for array in (image, np.asfortranarray(image), np.pad(image, ((2, 3), (1, 4), (0, 2)))[2:-3, 1:-4, :3]):
        for found in both(array, resized, top, left, size, cubic=cubic):
            assert np.array_equal(found, expected[top:, left:])
    for found in both(image[..., ::-1], resized, top, left, size, cubic=cubic, reverse=True):
        assert np.array_equal(found, expected[top:, left:]) and found.flags.c_contiguous


def both(*arguments, **options) -> list[np.ndarray]:
    """What the compiled function gives, where there is one, and what NumPy gives."""
    found = [resample_window(*arguments, **options)] if native_library() is not None else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_library", lambda: None)
        return [*found, resample_window(*arguments, **options)]


def test_the_compiled_function_is_there_where_the_kernel_is():
    assert (resample._library() is None) == (native_library() is None)


def test_the_callers_array_is_not_what_comes_back():
    image = np.zeros((8, 8, 3), np.uint8)
    for reverse in (False, True):
        assert not np.shares_memory(resample_window(image, (8, 8), 0, 0, (8, 8), reverse=reverse), image)


@pytest.mark.parametrize("shape", [(480, 640), (90, 300), (300, 150), (128, 128), (50, 70), (1, 1)])
def test_a_stretched_frame_equals_what_evaluation_shows(shape):
    transforms = pytest.importorskip("torchvision.transforms", reason="compares with torchvision's own transforms")
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = np.asarray(transforms.Resize((128, 128))(Image.fromarray(image[..., ::-1])))
    apart = np.abs(prepare(image, (128, 128)).image.astype(int) - expected)
    # Which axis goes first changes how values between two are rounded, where both are resized.
    rows_first = shape[0] / shape[1] > 1.5  # in Pillow 13
    assert apart.max() <= rows_first


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (1000, 97)])
def test_crop_equals_the_reference_evaluation(shape):
    transforms = pytest.importorskip("torchvision.transforms", reason="compares with torchvision's own transforms")
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = np.asarray(reference(Image.fromarray(image[..., ::-1])))
    assert np.array_equal(prepare(image, (224, 224), "crop").image, expected)
    assert fit_geometry(shape, (224, 224), "crop").to_frame(np.zeros((224, 224), np.int32)).shape == shape
