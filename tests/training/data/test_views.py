"""MoCo's views against torchvision's: each step by itself, and the distribution of all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cast_sdk import bundled
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD
from cast_sdk.superpixels import seeds
from cast_sdk.training.data import transforms
from cast_sdk.training.data.augment import colours
from cast_sdk.training.data.augment.crops import random_box, resized
from cast_sdk.training.data.views import augmented
from cast_sdk.training.engine.recipe.settings import Augment, Moco
from tests.training.data.distributions import close, measures

DRAWS = 500
PHOTO = Image.open(bundled.photos()[0]).convert("RGB")
PIXELS, VIEW = np.array(PHOTO), np.asarray(PHOTO.resize((224, 224)))
IMAGENET, OTHER = (IMAGENET_MEAN, IMAGENET_STD), ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192))


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_resized_as_torchvision_resizes_them(interpolation):
    mode = v2.InterpolationMode(interpolation)
    for size in (96, 160):
        ours = resized(PIXELS, (30, 20, 180, 160), size, interpolation)
        tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
        theirs = v2.functional.resized_crop(tensor, 20, 30, 140, 150, [size, size], mode, antialias=True)
        np.testing.assert_array_equal(ours, theirs.permute(1, 2, 0).numpy())
        pillows = v2.functional.resized_crop(PHOTO, 20, 30, 140, 150, [size, size], mode)
        difference = ours.astype(int) - np.asarray(pillows)
        assert np.abs(difference).max() <= 2 and np.abs(difference).mean() < 0.1 and np.abs(difference.mean()) < 0.02


def test_boxes_are_drawn_as_torchvision_draws_them(loader_benchmark):
    generator = np.random.default_rng(0)
    for height, width in ((375, 500), (100, 700)):
        ours = np.array([random_box(height, width, (0.08, 1.0), generator) for _ in range(DRAWS)])
        ours = np.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], 1)
        crop, image = v2.RandomResizedCrop(224), torch.empty(3, height, width)
        with loader_benchmark.seeded(1):
            drawn = [crop.make_params([image]) for _ in range(DRAWS)]
        theirs = np.array([[one[key] for key in ("top", "left", "height", "width")] for one in drawn])
        both = [np.column_stack([one, one[:, 2] * one[:, 3], one[:, 2] / one[:, 3]]) for one in (ours, theirs)]
        assert (close(*both) < 3).all()


@pytest.mark.parametrize("view", [0, 1])
def test_views_have_torchvisions_distribution(view, loader_benchmark):
    augment, moco = Augment(image_size=96), Moco()
    theirs_of = loader_benchmark.torchvision_view(augment, moco, view)
    ours, theirs = [], []
    for draw in range(DRAWS):
        ours.append(measures(augmented(PIXELS, augment, moco, view, np.random.default_rng((0, draw)))))
        with loader_benchmark.seeded(7, draw):
            theirs.append(measures(np.asarray(theirs_of(PHOTO))))
    assert (close(np.array(ours), np.array(theirs)) < 3).all()


@pytest.mark.parametrize("there, back", [(IMAGENET, IMAGENET), (OTHER, OTHER), (IMAGENET, OTHER)])
def test_tables_give_what_the_formulas_give(there, back):
    image = transforms.normalised(VIEW, *there)
    view = transforms.planes(VIEW)
    assert torch.equal(view, torch.from_numpy(VIEW.copy()).permute(2, 0, 1)) and view.is_contiguous()
    assert torch.equal(image, transforms.normalise(view[None], *there)[0]) and image.is_contiguous()
    expected = transforms.denormalised_uint8(image, *back)
    np.testing.assert_array_equal(transforms.denormalised(VIEW, image, None, there, back), expected)
    box = (100, 40, 130, 90)
    image[:, 40:90, 100:130] = torch.randn(3, 50, 30, generator=torch.Generator().manual_seed(0))
    found, expected = (
        transforms.denormalised(VIEW, image, box, there, back),
        transforms.denormalised_uint8(image, *back),
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(seeds(found, 196, 5, 15), seeds(expected, 196, 5, 15))
