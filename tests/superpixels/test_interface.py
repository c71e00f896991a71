"""seeds, seeds_batch, superpixels_for, seeds_count: results, checks and messages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.superpixels import backend, kernels, seeds, seeds_batch, seeds_count, superpixels_for


@pytest.fixture(scope="module")
def inputs(golden_dir):
    path = golden_dir / "inputs.npz"
    if not path.is_file():
        pytest.skip("the fixtures of the reference models are not here")
    with np.load(path) as file:
        return dict(file)


def random_image(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_reference_maps_of_224_pixels(inputs):
    for image, moco, deit in zip(inputs["im224"], inputs["seg224"], inputs["seg224_deit"], strict=True):
        assert np.array_equal(seeds(image), moco)
        assert np.array_equal(seeds(image, bins=5, iterations=15), deit)
    assert np.array_equal(seeds_batch(inputs["im224_v2"], threads=2), inputs["seg224_v2"])


def test_reference_maps_of_512_pixels(inputs):
    settings = SuperpixelSettings(count=1024, bins=5, iterations=15)
    inverted = SuperpixelSettings(count=1024, bins=5, iterations=15, invert=True)
    for image, full, wrapped in zip(inputs["im512"], inputs["seg512_full"], inputs["seg512_wrap"], strict=True):
        assert np.array_equal(superpixels_for(image, settings), full)
        assert np.array_equal(superpixels_for(image, inverted), wrapped)


@pytest.mark.parametrize(
    ("height", "width", "count", "expected"),
    [
        (224, 224, 196, 196),
        (512, 512, 1024, 1024),
        (480, 480, 900, 900),
        (375, 500, 1024, 910),
        (333, 500, 1024, 805),
        (64, 64, 36, 25),
    ],
)
def test_count(height, width, count, expected):
    assert seeds_count(height, width, count) == expected


def test_labels_stay_below_the_count():
    labels = seeds(random_image(50, 90), 40)
    assert labels.dtype == np.int32
    assert labels.shape == (50, 90)
    assert set(np.unique(labels)) <= set(range(seeds_count(50, 90, 40)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (random_image().astype(np.float32), r"is float32 \[64, 64, 3\], not an RGB array of uint8 \[H, W, 3\]"),
        (random_image()[..., 0], r"uint8 \[64, 64\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        ("photo.jpg", "str"),
        (random_image(10, 10), "at most 25 superpixels"),
    ],
)
def test_unusable_images(image, message):
    with pytest.raises(InputError, match=message):
        seeds(image)


def test_unusable_settings():
    with pytest.raises(InputError, match="bins is 17"):
        seeds(random_image(), 16, bins=17)
    with pytest.raises(InputError, match="iterations is -1"):
        seeds(random_image(), 16, iterations=-1)
    for settings in (
        {"iterations": 2**32},
        {"iterations": 1.0},
        {"bins": "5"},
        {"bins": True},
        {"num_superpixels": 16.0},
    ):
        (name,) = settings
        with pytest.raises(InputError, match=f"{name} is .*, not a whole number"):
            seeds(random_image(), **settings)
    with pytest.raises(InputError, match="fewer than two rows or two columns"):
        seeds(random_image(), 1)
    with pytest.raises(InputError, match="no more than 4 x 4 blocks"):
        seeds_count(24, 24, 4)
    with pytest.raises(InputError, match="into 0 superpixels"):
        seeds(random_image(), 0)
    with pytest.raises(InputError, match="up to 32767"):
        seeds_count(1000, 1000, 250_000)


def test_batch_equals_single_images_whatever_the_threads():
    images = [random_image(48, 80, seed) for seed in range(7)]
    expected = np.stack([seeds(image, 24, 5, 4) for image in images])
    out = np.empty_like(expected)
    for threads in (None, 1, 2, 7):
        assert seeds_batch(images, 24, 5, 4, threads=threads, out=out) is out
        assert np.array_equal(out, expected)


def test_batches_that_are_refused():
    images = [random_image(), random_image()]
    with pytest.raises(InputError, match=r"not all of one size(.|\n)*\(32, 64, 3\), \(64, 64, 3\)"):
        seeds_batch([random_image(), random_image(32, 64)], 16)
    with pytest.raises(InputError, match="batch is empty"):
        seeds_batch([], 16)
    with pytest.raises(InputError, match="threads is 0"):
        seeds_batch(images, 16, threads=0)
    with pytest.raises(InputError, match=r"threads is 1\.5"):
        seeds_batch(images, 16, threads=1.5)
    with pytest.raises(InputError, match="One image was given"):
        seeds_batch(random_image(), 16)
    with pytest.raises(InputError, match="not a sequence"):
        seeds_batch("photo.jpg", 16)
    for out in (
        np.empty((2, 64, 64), np.int64),
        np.empty((1, 64, 64), np.int32),
        np.empty((2, 64, 128), np.int32)[..., ::2],
    ):
        with pytest.raises(InputError, match=r"cannot be written into `out`(.|\n)*C-contiguous int32"):
            seeds_batch(images, 16, out=out)


def test_views_of_other_memory_are_read_in_their_own_order():
    image = random_image()
    flipped = image[:, ::-1]
    assert np.array_equal(seeds(flipped, 16), seeds(np.ascontiguousarray(flipped), 16))


def test_threads_do_not_share_buffers():
    images = [random_image(seed=seed) for seed in range(4)]
    expected = [seeds(image, 64, 5, 6) for image in images]
    wrong = []

    def work(index):
        for _ in range(30):
            if not np.array_equal(seeds(images[index], 64, 5, 6), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_can_go_on():
    code = (
        "import os, numpy as np; from cast_sdk.superpixels import seeds_batch\n"
        "images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)\n"
        "before = seeds_batch(images, 16, threads=2); child = os.fork()\n"
        "after = seeds_batch(images, 16, threads=2); same = np.array_equal(before, after)\n"
        "if child == 0: os._exit(not same)\n"
        "raise SystemExit(not same or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_import_is_light():
    code = "import sys, cast_sdk.superpixels as s; s.seeds_count(224, 224); raise SystemExit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_any_kernel(monkeypatch):
    import cv2

    monkeypatch.setattr(kernels, "native_library", lambda: None)
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    kernels.kernel_class.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"(?s)No SEEDS kernel.*C\+\+ compiler"):
            backend()
    finally:
        kernels.kernel_class.cache_clear()


def test_a_kernel_of_another_machine_is_named(monkeypatch, tmp_path):
    (tmp_path / "_seeds.abi3.so").write_bytes(b"not a library")
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    kernels.native_library.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="does not load on this machine"):
            kernels.native_library()
    finally:
        kernels.native_library.cache_clear()
