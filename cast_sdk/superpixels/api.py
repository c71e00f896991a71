"""The public functions: checks, colour conversion and threads around one of the two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import shown, whole
from cast_sdk.errors import InputError
from cast_sdk.superpixels.grid import seeds_grid
from cast_sdk.superpixels.kernels import borrow, continue_labels, kernel_class, native_library
from cast_sdk.system.processor import available_cores

if TYPE_CHECKING:
    from cast_sdk.spec import SuperpixelSettings

Labels = npt.NDArray[np.int32]
MAX_ITERATIONS = 10_000


def backend() -> Literal["native", "opencv"]:
    """Which kernel computes the superpixels here: the package's own, or OpenCV's contrib module. Labels are the same.

    Raises:
        MissingDependencyError: when neither exists; the message says what to install.
    """
    return kernel_class().name


def seeds(image_rgb: npt.NDArray[np.uint8], num_superpixels: int = 196, bins: int = 15, iterations: int = 20) -> Labels:
    """SEEDS superpixels of one image (Van den Bergh et al., IJCV 2015), in LAB colour, prior 2, one level of blocks.

    Safe to call from several threads; the kernel runs without the interpreter lock.

    Args:
        image_rgb: uint8 [H, W, 3], red first.
        num_superpixels: How many are asked for; `seeds_count` says how many result.
        bins: Histogram bins per LAB channel, 1 to 16.
        iterations: Passes over the pixels, at most 10,000.

    Returns:
        int32 [H, W], labels 0..seeds_count(H, W, num_superpixels)-1.

    Raises:
        InputError: for another dtype or shape, or an image too small for so many superpixels.
        MissingDependencyError: as `backend`.
    """
    _check_image(image_rgb)
    _check_settings(bins, iterations)
    height, width = image_rgb.shape[:2]
    seeds_grid(height, width, num_superpixels)
    labels = np.empty((height, width), np.int32)
    _segment(image_rgb, num_superpixels, bins, iterations, labels)
    return labels


def seeds_batch(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    num_superpixels: int = 196,
    bins: int = 15,
    iterations: int = 20,
    *,
    threads: int | None = None,
    out: Labels | None = None,
) -> Labels:
    """SEEDS superpixels of several images of one size, on several threads.

    Args:
        images: uint8 [B, H, W, 3], or a sequence of [H, W, 3] arrays of equal size; red first.
        num_superpixels: As for `seeds`.
        bins: As for `seeds`.
        iterations: As for `seeds`.
        threads: How many to use; default: the cores this process may use. 1 stays on the calling thread, which suits
            worker processes of a data loader.
        out: int32 [B, H, W] to write into, C-contiguous.

    Returns:
        int32 [B, H, W]; `out` when given.

    Raises:
        InputError: as `seeds`, for unequal sizes, for an unusable `out`, or for fewer than one thread.
        MissingDependencyError: as `backend`.
    """
    if not isinstance(images, (np.ndarray, Sequence)) or isinstance(images, (str, bytes)):
        raise InputError(f"The images are {shown(images)}, not a sequence of arrays.")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        _check_image(images)  # one image is no batch of rows
        raise InputError("One image was given for a batch.", remedy="give [image], or call seeds()")
    batch = list(images)
    for image in batch:
        _check_image(image)
    _check_settings(bins, iterations)
    if len({image.shape for image in batch}) != 1:
        raise InputError(
            "The batch is empty." if not batch else "The images of the batch are not all of one size.",
            found=", ".join(sorted({str(image.shape) for image in batch})) or None,
            remedy="give at least one image" if not batch else "resize them, or call seeds() for each",
        )
    height, width = batch[0].shape[:2]
    seeds_grid(height, width, num_superpixels)
    if threads is not None:
        whole(threads, "threads", 1)
    labels = np.empty((len(batch), height, width), np.int32) if out is None else out
    _check_out(labels, (len(batch), height, width))

    def work(index: int) -> None:
        _segment(batch[index], num_superpixels, bins, iterations, labels[index])

    workers = min(len(batch), available_cores() if threads is None else threads)
    if workers == 1:
        for index in range(len(batch)):
            work(index)
    else:
        # A pool for the call alone: one that lives on would be dead in a forked worker process.
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(len(batch))))
    return labels


def continue_seeds(
    image_rgb: npt.NDArray[np.uint8], labels: Labels, num_superpixels: int = 196, bins: int = 15, passes: int = 4
) -> Labels:
    """SEEDS superpixels of the next frame of a film, started from those of the frame before.

    The boundaries move from where they were to where they fit this image: a superpixel keeps its number and stays with
    what it covers, and a few passes are enough. The first frame, and each one that has little in common with the one
    before, takes `seeds`: superpixels are neither born nor parted here, and long motion one way wears them out.

    Args:
        image_rgb: uint8 [H, W, 3], red first.
        labels: int32 [H, W] from `seeds` or `continue_seeds` with the same size and count.
        num_superpixels, bins: As for `seeds`.
        passes: Over the pixels.

    Returns:
        int32 [H, W], a new array; the same for the same image and labels.

    Raises:
        InputError: as `seeds`, and for labels of another shape, dtype or grid.
        MissingDependencyError: without the package's own kernel: OpenCV's has no such start.
    """
    _check_image(image_rgb)
    _check_settings(bins, passes)
    height, width = image_rgb.shape[:2]
    grid = seeds_grid(height, width, num_superpixels)
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32 or labels.shape != (height, width):
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InputError(
            f"The labels to continue are {found}, and the image needs int32 {[height, width]}.",
            remedy="take the result of seeds() for a frame of the same size",
        )
    out = np.empty((height, width), np.int32)
    if not continue_labels(_lab(image_rgb), np.ascontiguousarray(labels), num_superpixels, bins, passes, out):
        raise InputError(
            f"The labels to continue are not superpixels of this grid, which has 0..{grid.count - 1}.",
            found=f"labels {labels.min()}..{labels.max()}",
            remedy="take the result of seeds() with the same num_superpixels",
        )
    return out


def can_continue() -> bool:
    """Whether `continue_seeds` works here: it needs the package's own kernel."""
    return native_library() is not None


def superpixels_for(image_rgb: npt.NDArray[np.uint8], settings: SuperpixelSettings) -> Labels:
    """Superpixels as a model expects them.

    Args:
        image_rgb: uint8 [H, W, 3], red first.
        settings: `ModelSpec.superpixels` of the model; with `invert`, SEEDS sees (256 - v) mod 256.

    Returns:
        int32 [H, W].

    Raises:
        InputError, MissingDependencyError: as `seeds`.
    """
    return seeds(_as_seen(image_rgb, settings), settings.count, settings.bins, settings.iterations)


def superpixels_after(
    image_rgb: npt.NDArray[np.uint8], labels: Labels, settings: SuperpixelSettings, passes: int = 4
) -> Labels:
    """`continue_seeds` with a model's settings.

    Args:
        image_rgb: uint8 [H, W, 3], red first.
        labels: int32 [H, W], of the frame before.
        settings: `ModelSpec.superpixels` of the model.
        passes: Over the pixels.

    Raises:
        InputError, MissingDependencyError: as `continue_seeds`.
    """
    return continue_seeds(_as_seen(image_rgb, settings), labels, settings.count, settings.bins, passes)


def _as_seen(image_rgb: npt.NDArray[np.uint8], settings: SuperpixelSettings) -> npt.NDArray[np.uint8]:
    if not settings.invert:
        return image_rgb
    _check_image(image_rgb)
    return np.negative(image_rgb)  # modulo 256


def _segment(image_rgb: npt.NDArray[np.uint8], count: int, bins: int, iterations: int, out: Labels) -> None:
    height, width = out.shape
    with borrow(height, width, count, bins, iterations) as kernel:
        kernel(_lab(image_rgb), out)


def _lab(image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    import cv2

    lab: npt.NDArray[Any] = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB)
    return lab


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        found = f"a {type(image).__name__}"
    elif image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        return
    else:
        found = f"{image.dtype} {list(image.shape)}"
    raise InputError(
        f"The image is {found}, not an RGB array of uint8 [H, W, 3].",
        remedy="convert it: values 0..255 as uint8, three channels last",
    )


def _check_settings(bins: int, iterations: int) -> None:
    whole(bins, "bins", 1, 16)
    whole(iterations, "iterations", 0, MAX_ITERATIONS)


def _check_out(out: Any, shape: tuple[int, ...]) -> None:
    if not (
        isinstance(out, np.ndarray)
        and out.dtype == np.int32
        and out.shape == shape
        and out.flags.c_contiguous
        and out.flags.writeable
    ):
        if isinstance(out, np.ndarray):
            layout = "C-contiguous" if out.flags.c_contiguous else "not C-contiguous"
            found = f"{out.dtype} {list(out.shape)}, {layout}, {'' if out.flags.writeable else 'not '}writeable"
        else:
            found = f"a {type(out).__name__}"
        raise InputError(
            "The labels cannot be written into `out`.",
            found=found,
            remedy=f"give a writeable C-contiguous int32 array of shape {list(shape)}, or leave `out` away",
        )
