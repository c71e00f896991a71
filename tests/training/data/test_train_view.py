"""The view of supervised training against timm's and torchvision's: each step, each parameter, and all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment
from timm.data.random_erasing import RandomErasing

from cast_sdk import bundled
from cast_sdk.errors import RecipeError
from cast_sdk.training.data.augment import colours
from cast_sdk.training.data.augment.erasing import erase, erased_box
from cast_sdk.training.data.augment.randaugment import FILL, STEPS, RandAugment
from cast_sdk.training.data.augment.resolution import as_thumbnail, other_resolution
from cast_sdk.training.data.augment.train_view import TrainView
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.recipe.settings import Augment
from tests.training.data.distributions import close, measures

DRAWS = 500
PHOTO = Image.open(bundled.photos()[0]).convert("RGB").resize((150, 112))
PIXELS = np.array(PHOTO)
FACTORS = (0.1, 0.7, 1.0, 1.9)

# timm's function, arguments, and how much of the pixels may be one code off.
THEIRS = {
    "AutoContrast": (auto_augment.auto_contrast, [()], 0),
    "Equalize": (auto_augment.equalize, [()], 0),
    "Invert": (auto_augment.invert, [()], 0),
    "Posterize": (auto_augment.posterize, [(bits,) for bits in range(1, 9)], 0),
    "Solarize": (auto_augment.solarize, [(0,), (1,), (128,), (256,)], 0),
    "SolarizeAdd": (auto_augment.solarize_add, [(0,), (50,), (128,)], 0),
    "Color": (auto_augment.color, [(factor,) for factor in FACTORS], 0.01),
    "Contrast": (auto_augment.contrast, [(factor,) for factor in FACTORS], 1),
    "Brightness": (auto_augment.brightness, [(factor,) for factor in FACTORS], 0),
    "Sharpness": (auto_augment.sharpness, [(factor,) for factor in FACTORS], 0.01),
    "Rotate": (auto_augment.rotate, [(-30.0,), (0.0,), (5.5,), (27.0,)], 0),
    "ShearX": (auto_augment.shear_x, [(-0.3,), (0.0,), (0.017,), (0.27,)], 0.02),
    "ShearY": (auto_augment.shear_y, [(-0.3,), (0.0,), (0.017,), (0.27,)], 0.02),
    "TranslateX": (auto_augment.translate_x_rel, [(-0.449,), (0.0,), (0.0171,), (0.271,)], 0.02),
    "TranslateY": (auto_augment.translate_y_rel, [(-0.449,), (0.0,), (0.0171,), (0.271,)], 0.02),
}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_step_is_timms(name, interpolation):
    theirs, arguments, share = THEIRS[name]
    resample = getattr(Image.Resampling, interpolation.upper())
    for values in arguments:
        expected = np.asarray(theirs(PHOTO, *values, fillcolor=FILL, resample=resample)).astype(int)
        found = STEPS[name](PIXELS, *(values or (0,)), interpolation)
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() <= share, (name, values)
        assert found.flags.c_contiguous and found.dtype == np.uint8


def test_steps_on_pictures_of_one_colour_and_of_two():
    plain = np.full((8, 8, 3), (200, 100, 0), np.uint8)
    two = plain.copy()
    two[:4] = (10, 100, 255)
    for picture in (plain, two):
        for step, theirs in ((colours.autocontrast, ImageOps.autocontrast), (colours.equalise, ImageOps.equalize)):
            np.testing.assert_array_equal(step(picture), np.asarray(theirs(Image.fromarray(picture))))
    assert not colours.posterise(plain, 0).any()  # timm may ask for 0 bits, which new Pillow refuses


def their_draws(notation: str, draws: int, seeded) -> list[list[tuple[str, float]]]:
    """Steps and arguments that timm draws."""
    augment = auto_augment.rand_augment_transform(notation, {"img_mean": FILL, "interpolation": 3})
    drawn: list[list[tuple[str, float]]] = []

    def recorder(name: str):
        name = name.removesuffix("Increasing").removesuffix("Rel")
        return lambda image, *values, **_: drawn[-1].append((name, values[0] if values else 0)) or image

    for op in augment.ops:
        op.aug_fn = recorder(op.name)
    with seeded(3):
        for _ in range(draws):
            drawn.append([])
            augment(PHOTO)
    return drawn


@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.8", "rand-m8-mstd101-inc1-mmax6"])
def test_randaugment_draws_what_timm_draws(notation, loader_benchmark):
    theirs = their_draws(notation, 8 * DRAWS, loader_benchmark.seeded)
    generator, augment = np.random.default_rng(5), RandAugment.parse(notation)
    ours = [augment.drawn(generator) for _ in range(8 * DRAWS)]
    assert {len(drawn) for drawn in ours} == {len(drawn) for drawn in theirs}
    assert close(*(np.array([len(drawn) for drawn in all_draws]) for all_draws in (ours, theirs))) < 3
    for name in STEPS:
        sides = []
        for all_draws in (ours, theirs):
            counts = np.array([sum(step == name for step, _ in drawn) for drawn in all_draws])
            sides.append((counts, np.array([value for drawn in all_draws for step, value in drawn if step == name])))
        (our_counts, our_values), (their_counts, their_values) = sides
        assert close(our_counts, their_counts) < 3, name
        for measure in (np.asarray, np.abs, lambda values: np.abs(values - 1)):  # either way, and away from 0 and 1
            assert close(measure(our_values), measure(their_values)) < 3, name


@pytest.mark.parametrize("notation", ["rand-m9.5", "rand-foo", "rand-m9-tweights", "augmix-m3", "rand-m", "9"])
def test_another_notation_is_refused(notation):
    with pytest.raises(RecipeError, match=r"(?s)is '.*, which is not timm's.*rand-m9-mstd0\.5-inc1"):
        TrainView(Augment(rand_augment=notation))


def test_rectangles_are_erased_as_timm_erases_them(loader_benchmark):
    theirs_of = RandomErasing(0.6, mode="pixel", max_count=1, device="cpu")
    generator, shape = np.random.default_rng(2), (3, 40, 60)

    def parameters(image: np.ndarray) -> list[float]:
        """Erased or not; of what was erased: area, logarithm of the aspect, place, and the noise."""
        changed = (image != 100).any(0)
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        if not len(rows):
            return [0.0] * 8
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        noise = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert changed.sum() == height * width
        place = [rows[0] / (shape[1] - height), columns[0] / (shape[2] - width)]
        return [1.0, height * width, np.log(height / width), *place, noise.mean(), noise.std(), np.abs(noise).max()]

    ours, theirs = [], []
    with loader_benchmark.seeded(4):
        for _ in range(4 * DRAWS):
            image = np.full(shape, 100, np.float32)
            box = erased_box(*shape[1:], 0.6, generator)
            if box is not None:
                erase(image, box, generator)
            ours.append(parameters(image))
            theirs.append(parameters(theirs_of(torch.full(shape, 100.0)).numpy()))
    assert (close(np.array(ours), np.array(theirs)) < 3).all()


def test_nothing_is_erased_where_the_recipe_does_not():
    assert all(erased_box(32, 32, 0.0, np.random.default_rng(seed)) is None for seed in range(50))


def test_views_have_the_distribution_of_the_reference(loader_benchmark):
    augment = load_recipe("deit_cast_small", ["augment.image_size=96"]).augment
    theirs_of, view_of = loader_benchmark.deit_view(augment), TrainView(augment)
    image = torch.from_numpy(PIXELS).permute(2, 0, 1)
    ours, theirs = [], []
    for draw in range(DRAWS):
        ours.append(measures(view_of(PIXELS, np.random.default_rng((0, draw)))))
        with loader_benchmark.seeded(7, draw):
            theirs.append(measures(theirs_of(image).permute(1, 2, 0).contiguous().numpy()))
    assert (close(np.array(ours), np.array(theirs)) < 3).all()


def test_half_the_views_are_flipped():
    def views(flip: float) -> list[np.ndarray]:
        view_of = TrainView(Augment(image_size=16, flip=flip))
        return [view_of(PIXELS, np.random.default_rng(draw)) for draw in range(DRAWS)]

    usual, mirrored, either = views(0.0), views(1.0), views(0.5)
    np.testing.assert_array_equal(np.stack(usual)[:, :, ::-1], mirrored)
    flipped = sum(np.array_equal(one, other) for one, other in zip(either, mirrored, strict=True))
    same = sum(np.array_equal(one, other) for one, other in zip(either, usual, strict=True))
    assert flipped + same == DRAWS and abs(flipped / DRAWS - 0.5) < 3 * 0.5 / DRAWS**0.5


def test_photographs_become_thumbnails_and_thumbnails_stay():
    photo = np.array(Image.open(bundled.photos()[0]).convert("RGB"))
    small = as_thumbnail(photo, 64)
    assert small.shape == (64, 64, 3) and small.dtype == np.uint8
    plain = np.array(Image.fromarray(photo).resize((64, 64), Image.Resampling.BOX))
    error = np.abs(small.astype(int) - plain)
    assert 0.5 < error.mean() < 12, "JPEG leaves traces, and red is red"
    assert as_thumbnail(small, 64) is small


def test_other_resolutions_are_smaller_and_keep_the_mean():
    sides, contrasts = [], []
    for seed in range(60):
        small = other_resolution(PIXELS, np.random.default_rng(seed))
        sides.append(small.shape[0] / PIXELS.shape[0])
        contrasts.append(small.std() / PIXELS.std())
        assert abs(small.mean() - PIXELS.mean()) < 4 and small.dtype == np.uint8
    assert 0.54 < min(sides) < 0.65 and 0.9 < max(sides) <= 1
    assert min(contrasts) < 1 < max(contrasts), "some are blurred, some sharpened"


def test_a_recipe_without_the_two_draws_what_it_drew_before():
    plain, both = Augment(image_size=48), Augment(image_size=48, thumbnail=64, resolution=1.0)
    view = TrainView(plain)(PIXELS, np.random.default_rng(3))
    assert np.array_equal(view, TrainView(Augment(image_size=48, thumbnail=500))(PIXELS, np.random.default_rng(3)))
    assert not np.array_equal(view, TrainView(both)(PIXELS, np.random.default_rng(3)))
