"""Where a scene ends, and when superpixels begin anew."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from cast_sdk.runtime.preprocess import prepare
from cast_sdk.runtime.tracking.film import Film, Look, is_cut, worn
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.superpixels import can_continue, superpixels_for

SETTINGS = SuperpixelSettings(count=196, bins=15, iterations=6)


@pytest.fixture(scope="module")
def pictures(data_dir):
    files = sorted((data_dir / "bsds500" / "images" / "train").glob("*.jpg"))[:60]
    return [cv2.resize(cv2.imread(str(file)), (224, 224), interpolation=cv2.INTER_AREA) for file in files]


def look(image):
    return Look.at(np.ascontiguousarray(image))


def test_photographs_in_turn_are_cuts(pictures):
    cuts = [is_cut(look(a), look(b)) for a, b in itertools.pairwise(pictures)]
    assert np.mean(cuts) > 0.9


def test_motion_noise_and_light_are_not(data_dir, pictures):
    rng = np.random.default_rng(0)
    for picture in pictures[::6]:
        for other in (
            np.roll(picture, 24, 1),
            np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8),
            cv2.convertScaleAbs(picture, alpha=1.08),
            cv2.GaussianBlur(picture, (9, 9), 3),
        ):
            assert not is_cut(look(other), look(picture))
    drive = sorted((data_dir / "camvid" / "val").glob("0016E5_*.jpg"))
    looks = [look(cv2.resize(cv2.imread(str(file)), (224, 224))) for file in drive[::4]]  # four frames a second
    assert not any(is_cut(a, b) for a, b in zip(looks[1:], looks, strict=False))


@pytest.mark.skipif(not can_continue(), reason="needs the package's own kernel")
def test_superpixels_go_on_until_the_cut(pictures):
    film = Film(SETTINGS, go_on=True)
    scenes, labels = [], []
    for picture in (pictures[0], np.roll(pictures[0], 1, 1), pictures[1], pictures[1]):
        prepared = prepare(picture, (224, 224))
        film.add(prepared)
        scenes.append(prepared.scene)
        labels.append(prepared.superpixels)
    assert scenes == [0, 0, 1, 1]
    fresh = [superpixels_for(picture[..., ::-1].copy(), SETTINGS) for picture in (pictures[0], pictures[1])]
    assert np.array_equal(labels[0], fresh[0]) and np.array_equal(labels[2], fresh[1])
    assert not np.array_equal(labels[3], fresh[1]), "four more passes"


def test_without_going_on_every_frame_is_fresh(pictures):
    film = Film(SETTINGS, go_on=False)
    for picture in pictures[:2] + pictures[:2]:
        prepared = prepare(picture, (224, 224))
        film.add(prepared)
        assert np.array_equal(prepared.superpixels, superpixels_for(prepared.image, SETTINGS))
    assert film.scene == 3


@pytest.mark.skipif(not can_continue(), reason="needs the package's own kernel")
def test_long_motion_wears_superpixels_out_and_they_begin_anew(pictures):
    """A camera that turns for long: superpixels pile up on one side and stretch on the other."""
    wide = np.concatenate([pictures[3], pictures[3][:, ::-1]], 1)
    film = Film(SETTINGS, go_on=True)
    for t in range(400):
        prepared = prepare(np.ascontiguousarray(np.roll(wide, -3 * t, 1)[:, :224]), (224, 224))
        film.add(prepared)
        assert not worn(prepared.superpixels)
    assert film.scene == 0


def test_worn():
    good = (np.arange(64)[:, None] // 8 * 8 + np.arange(64)[None] // 8).astype(np.int32)
    assert not worn(good)
    squeezed = np.where(good % 8 < 7, good // 8 * 8 + 1, good).astype(np.int32)  # one of each row takes seven places
    assert worn(squeezed)
