"""MoCo's views against torchvision's: each step by itself, and the distribution of all together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cast_sdk import bundled
from cast_sdk.superpixels import seeds
from cast_sdk.training.data import colours, transforms
from cast_sdk.training.data.crops import random_box, resized
from cast_sdk.training.data.views import augmented
from cast_sdk.training.engine.recipe import Augment, Moco

DRAWS = 500
PHOTO = Image.open(bundled.photos()[0]).convert("RGB")
VIEW = np.asarray(PHOTO.resize((224, 224)))


@pytest.fixture(scope="module")
def torchvision_view():
    path = Path(__file__).parents[3] / "benchmarks" / "loader.py"
    spec = importlib.util.spec_from_file_location("loader_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.torchvision_view


STEPS = {
    "brightness": (colours.brightness, functional.adjust_brightness, (0.6, 1.0, 1.4), 0),
    "contrast": (colours.contrast, functional.adjust_contrast, (0.6, 1.0, 1.4), 1),
    "saturation": (colours.saturation, functional.adjust_saturation, (0.8, 1.0, 1.2), 1),
    "hue": (colours.hue, functional.adjust_hue, (-0.1, 0.03, 0.1), 8),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_colour_step_is_torchvisions(name):
    ours, theirs, values, tolerance = STEPS[name]
    for value in values:
        expected = np.asarray(theirs(Image.fromarray(VIEW), value)).astype(int)
        difference = ours(VIEW, value).astype(int) - expected
        assert np.abs(difference).max() <= tolerance and np.abs(difference.mean()) < 0.6


def test_the_other_steps_are_pillows():
    image = Image.fromarray(VIEW)
    assert np.abs(colours.grey(VIEW).astype(int) - np.asarray(functional.rgb_to_grayscale(image, 3))).max() <= 1
    np.testing.assert_array_equal(colours.solarise(VIEW), np.asarray(functional.solarize(image, 128)))
    for radius in (0.1, 0.7, 2.0):
        expected = np.asarray(image.filter(ImageFilter.GaussianBlur(radius))).astype(int)
        difference = colours.blur(VIEW, radius) - expected
        assert np.abs(difference).mean() < 1 and np.abs(difference.mean()) < 0.6
    box = (30, 20, 180, 160)
    expected = v2.functional.resized_crop(PHOTO, 20, 30, 140, 150, [96, 96], v2.InterpolationMode.BILINEAR)
    np.testing.assert_array_equal(np.asarray(resized(PHOTO, box, 96, "bilinear")), np.asarray(expected))


def close(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences of the means in standard errors."""
    error = np.sqrt(ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs))
    return np.abs(ours.mean(0) - theirs.mean(0)) / np.maximum(error, 1e-12)


def test_boxes_are_drawn_as_torchvision_draws_them():
    generator = np.random.default_rng(0)
    for height, width in ((375, 500), (100, 700)):
        ours = np.array([random_box(height, width, (0.08, 1.0), generator) for _ in range(DRAWS)])
        ours = np.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], 1)
        crop, image = v2.RandomResizedCrop(224), torch.empty(3, height, width)
        with transforms.seeded(1):
            drawn = [crop.make_params([image]) for _ in range(DRAWS)]
        theirs = np.array([[one[key] for key in ("top", "left", "height", "width")] for one in drawn])
        both = [np.column_stack([one, one[:, 2] * one[:, 3], one[:, 2] / one[:, 3]]) for one in (ours, theirs)]
        assert (close(*both) < 3).all()


def measures(view: np.ndarray) -> list[float]:
    """Mean colour, contrast, saturation, hue, sharpness, and which side is brighter."""
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(float)
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV).astype(float)
    sharpness = np.log1p(np.abs(cv2.Laplacian(grey, cv2.CV_64F)).mean())
    half = grey.shape[1] // 2
    side = grey[:, :half].mean() - grey[:, half:].mean()
    angle = np.deg2rad(2 * hsv[..., 0])
    return [
        *view.mean((0, 1)),
        grey.std(),
        hsv[..., 1].mean(),
        np.cos(angle).mean(),
        np.sin(angle).mean(),
        sharpness,
        side,
    ]


@pytest.mark.parametrize("view", [0, 1])
def test_views_have_torchvisions_distribution(view, torchvision_view):
    augment, moco = Augment(image_size=96), Moco()
    theirs_of = torchvision_view(augment, moco, view)
    ours, theirs = [], []
    for draw in range(DRAWS):
        ours.append(measures(augmented(PHOTO, augment, moco, view, np.random.default_rng((0, draw)))))
        with transforms.seeded(7, draw):
            theirs.append(measures(np.asarray(theirs_of(PHOTO))))
    assert (close(np.array(ours), np.array(theirs)) < 3).all()


def test_deits_way_back_from_a_table_is_the_formula():
    view = torch.from_numpy(VIEW.copy()).permute(2, 0, 1)
    image = transforms.normalise(view[None])[0]
    statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    np.testing.assert_array_equal(
        transforms.denormalised_view(view, image, None, *statistics), transforms.denormalised_uint8(image)
    )
    erased = image.clone()
    erased[:, 40:90, 100:130] = torch.randn(3, 50, 30)
    found = transforms.denormalised_view(view, erased, image, *statistics)
    np.testing.assert_array_equal(found, transforms.denormalised_uint8(erased))
    np.testing.assert_array_equal(seeds(found, 196, 5, 15), seeds(transforms.denormalised_uint8(erased), 196, 5, 15))
