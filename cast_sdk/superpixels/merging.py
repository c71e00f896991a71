"""Nested segments by merging neighbouring superpixels, nearest pair first."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.superpixels.kernels import native_library

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

LAB_SCALE = 60.0  # CIELAB difference that counts as distance 1
NETWORK_WEIGHT = 2.0  # distance of two superpixels that the network puts into different segments at every level


def merged_levels(
    image_rgb: npt.NDArray[np.uint8], superpixels: Labels, assignments: Sequence[npt.NDArray[np.floating]]
) -> list[Labels]:
    """Levels of a CAST from merges: connected segments, guided by the network's soft assignments and by colour.

    The nearest two neighbouring regions are merged until as many are left as the network has segments at each level.
    Their distance is the difference of their mean colours in CIELAB (CIE 1976, D65) over `LAB_SCALE`, plus
    `NETWORK_WEIGHT` times one minus the cosine similarity of their superpixels' assignments to the segments of a
    level. The second term is averaged over the levels above the first and over the pixels of both regions.

    Args:
        image_rgb: uint8 [h, w, 3].
        superpixels: int32 [h, w], labels in 0..S-1; not every label needs a pixel.
        assignments: per level [S_l, K_l], rows that sum to 1: of the superpixels (S_1 = S) to segments, then of the
            segments of one level (S_l = K_(l-1)) to those of the next.

    Returns:
        One int32 [S] per level: the segment of each superpixel, 0..n-1 in the order of their first superpixels, with n
        at most K_l. Superpixels without a pixel are in segment 0.

    Raises:
        InputError: for labels that have no assignment, and arrays that do not belong together.
    """
    _check(image_rgb, superpixels, assignments)
    library = _library()
    if library is not None:
        return _compiled(library, image_rgb, superpixels, assignments)
    count = len(assignments[0])
    if not 0 <= superpixels.min() <= superpixels.max() < count:
        raise _outside(count)
    areas = np.bincount(superpixels.ravel(), minlength=count).astype(np.float64)
    sums = np.stack(
        [np.bincount(superpixels.ravel(), image_rgb[..., channel].ravel(), minlength=count) for channel in range(3)], 1
    )
    present = np.flatnonzero(areas)
    colours = _lab(sums[present] / areas[present, None])
    touch = neighbours(superpixels, count)[np.ix_(present, present)]
    apart = NETWORK_WEIGHT * (1 - together(assignments)[np.ix_(present, present)])
    levels = []
    for member in merge(areas[present], colours, touch, [matrix.shape[1] for matrix in assignments], apart):
        level = np.zeros(count, np.int32)
        level[present] = member
        levels.append(level)
    return levels


def together(assignments: Sequence[npt.NDArray[np.floating]]) -> Floats:
    """[S, S]: how much the network puts superpixels together, 0..1; `merged_levels` has the measure."""
    members: Floats | None = None
    total: Floats | None = None
    for number, matrix in enumerate(assignments):
        members = matrix.astype(np.float64) if members is None else members @ matrix
        if number or len(assignments) == 1:
            rows = members / np.sqrt((members * members).sum(1, keepdims=True))
            total = rows @ rows.T if total is None else total + rows @ rows.T
    assert total is not None
    mean: Floats = total / max(1, len(assignments) - 1)
    return mean


def neighbours(labels: npt.NDArray[np.integer], count: int | None = None) -> npt.NDArray[np.bool_]:
    """[S, S]: which labels share a side of a pixel."""
    if count is None:
        count = int(labels.max()) + 1
    touch = np.zeros((count, count), bool)
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        touch[a.ravel(), b.ravel()] = True
    touch |= touch.T
    np.fill_diagonal(touch, False)
    return touch


def merge(
    areas: Floats,
    colours: Floats,
    touch: npt.NDArray[np.bool_],
    segments: Sequence[int],
    apart: Floats,
    *,
    specks_first: bool = False,
) -> list[Labels]:
    """Merge the nearest neighbouring regions one pair at a time; int32 [S] region of each superpixel per number.

    Args:
        areas: pixels [S].
        colours: mean CIELAB colour [S, 3].
        touch: which are neighbours, bool [S, S].
        segments: numbers of regions to stop at, descending.
        apart: further distances [S, S], averaged over the pixels of merged regions.
        specks_first: reduce the distance of small regions (by Ward's factor over the mean area of the last number of
            regions), so that specks are merged first.
    """
    areas, colours, apart, touch = areas.copy(), colours.copy(), apart.copy(), touch.copy()
    count = len(areas)
    member = np.arange(count)
    alive = np.ones(count, bool)
    mean = areas.sum() / max(segments[-1], 1)

    def row(index: int) -> Floats:
        difference = colours - colours[index]
        distance: Floats = np.sqrt((difference * difference).sum(1)) / LAB_SCALE + apart[index]
        if specks_first:
            harmonic = areas * areas[index] / (areas + areas[index])
            distance *= np.sqrt(np.minimum(harmonic / mean, 1) + 0.02)
        distance[~(touch[index] & alive)] = np.inf
        return distance

    distances = np.stack([row(index) for index in range(count)])
    levels = []
    for target in segments:
        while alive.sum() > target:
            i, j = np.unravel_index(int(distances.argmin()), distances.shape)
            if not np.isfinite(distances[i, j]):
                break
            weight = areas[j] / (areas[i] + areas[j])
            colours[i] += weight * (colours[j] - colours[i])
            apart[i] += weight * (apart[j] - apart[i])
            apart[:, i] = apart[i]
            areas[i] += areas[j]
            touch[i] |= touch[j]
            touch[:, i] |= touch[:, j]
            touch[i, i] = False
            alive[j] = False
            member[member == j] = i
            distances[j] = distances[:, j] = np.inf
            distances[i] = distances[:, i] = row(int(i))
        levels.append(np.unique(member, return_inverse=True)[1].astype(np.int32))
    return levels


def _lab(rgb: Floats) -> Floats:
    """CIELAB (D65) of sRGB colours [n, 3] in 0..255."""
    share = rgb / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    x = (0.412453 * linear[:, 0] + 0.357580 * linear[:, 1] + 0.180423 * linear[:, 2]) / 0.95047
    y = 0.212671 * linear[:, 0] + 0.715160 * linear[:, 1] + 0.072169 * linear[:, 2]
    z = (0.019334 * linear[:, 0] + 0.119193 * linear[:, 1] + 0.950227 * linear[:, 2]) / 1.08883
    fx, fy, fz = (np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in (x, y, z))
    lab: Floats = np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)
    return lab


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = native_library()
    if library is None or not hasattr(library, "cast_merged_levels"):
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.cast_merged_levels.argtypes = [pointer, pointer, *[integer] * 3, pointer, pointer, integer, pointer]
    library.cast_merged_levels.restype = integer
    return library


def _compiled(
    library: ctypes.CDLL,
    image_rgb: npt.NDArray[np.uint8],
    superpixels: Labels,
    assignments: Sequence[npt.NDArray[np.floating]],
) -> list[Labels]:
    image = np.ascontiguousarray(image_rgb, np.uint8)
    labels = np.ascontiguousarray(superpixels, np.int32)
    matrices = [np.ascontiguousarray(matrix, np.float32) for matrix in assignments]
    count, levels = len(matrices[0]), len(matrices)
    out = np.empty((levels, count), np.int32)
    addresses = (ctypes.c_void_p * levels)(*(matrix.ctypes.data for matrix in matrices))
    segments = (ctypes.c_int * levels)(*(matrix.shape[1] for matrix in matrices))
    code = library.cast_merged_levels(
        image.ctypes.data, labels.ctypes.data, *labels.shape, count, addresses, segments, levels, out.ctypes.data
    )
    if code == -2:
        raise _outside(count)
    if code:
        raise MemoryError("no memory to merge superpixels")
    return list(out)


def _check(
    image_rgb: npt.NDArray[np.uint8], superpixels: Labels, assignments: Sequence[npt.NDArray[np.floating]]
) -> None:
    """Refuse what the kernel would read beyond."""
    shapes = [matrix.shape for matrix in assignments]
    chained = bool(shapes) and all(len(shape) == 2 and min(shape) > 0 for shape in shapes)
    chained = chained and all(fine[1] == coarse[0] for fine, coarse in itertools.pairwise(shapes))
    pictured = superpixels.ndim == 2 and superpixels.size > 0 and image_rgb.shape == (*superpixels.shape, 3)
    if not chained or not pictured or image_rgb.dtype != np.uint8 or superpixels.dtype.kind not in "iu":
        raise InputError(
            "The image, its superpixels and the assignments do not belong together.",
            found=f"{image_rgb.dtype} {list(image_rgb.shape)}, {superpixels.dtype} {list(superpixels.shape)}, "
            f"assignments {', '.join(str(list(shape)) for shape in shapes) or 'of no level'}",
            remedy="give uint8 [h, w, 3], integer [h, w], and [S, K1], [K1, K2], ... of one pass of the network",
        )


def _outside(count: int) -> InputError:
    return InputError(
        f"The superpixels have labels outside 0..{count - 1}, for which the network gives no assignment.",
        remedy="give the superpixels that the network was run with",
    )
