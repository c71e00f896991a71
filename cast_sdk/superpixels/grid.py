"""The block grid that SEEDS starts from, and with it the number of superpixels. Pure Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cast_sdk.arguments import whole
from cast_sdk.errors import InputError

MAX_COUNT = 32767  # labels of 15 bits in the kernel
MAX_SIDE = 65535  # pixels


@dataclass(frozen=True)
class SeedsGrid:
    """A division of the image into even blocks, of `block_height` x `block_width` pixels or slightly more.

    Two by two blocks make one superpixel; where their number is odd, one row or column of superpixels gets three.
    """

    block_height: int
    block_width: int
    block_rows: int
    block_columns: int

    @property
    def rows(self) -> int:
        """Rows of superpixels."""
        return self.block_rows // 2

    @property
    def columns(self) -> int:
        """Columns of superpixels."""
        return self.block_columns // 2

    @property
    def count(self) -> int:
        """Number of superpixels: labels are 0..count-1."""
        return self.rows * self.columns


def seeds_grid(height: int, width: int, num_superpixels: int) -> SeedsGrid:
    """The grid that OpenCV's SEEDS uses for `num_levels=1` (which it raises to two levels).

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        num_superpixels: How many are asked for; the grid may give fewer.

    Raises:
        InputError: when the image is too small for so many superpixels (a block would be under one pixel), when fewer
            than two rows or columns of superpixels or just 4x4 blocks result (OpenCV crashes on some of these sizes),
            or for more than `MAX_COUNT`.
    """
    height, width = whole(height, "height", 0, MAX_SIDE), whole(width, "width", 0, MAX_SIDE)
    num_superpixels = whole(num_superpixels, "num_superpixels", -(2**31), 2**31 - 1)
    if min(height, width, num_superpixels) < 1:
        raise InputError(
            f"An image of {height} x {width} pixels cannot be divided into {num_superpixels} superpixels.",
            remedy="give a positive size and a positive number of superpixels",
        )
    rows = math.isqrt(num_superpixels * height // width)
    columns = rows * width // height
    if height < 2 * rows or width < 2 * columns:
        raise InputError(
            f"An image of {height} x {width} pixels is too small for {num_superpixels} superpixels.",
            found="a superpixel would start with less than 2 x 2 pixels",
            remedy=f"ask for at most {height * width // 4} superpixels, or enlarge the image",
        )
    if min(rows, columns) >= 2:
        block_height, block_width = -(-height // (2 * rows)), -(-width // (2 * columns))
        grid = SeedsGrid(block_height, block_width, height // block_height, width // block_width)
        if grid.count > MAX_COUNT:
            raise InputError(
                f"{grid.count} superpixels are too many.",
                found=f"{num_superpixels} asked for on {height} x {width} pixels",
                remedy=f"ask for fewer; the kernel counts up to {MAX_COUNT}",
            )
        # On exactly 4x4 blocks OpenCV sometimes changes its mind about the grid.
        if min(grid.rows, grid.columns) >= 2 and grid.block_rows * grid.block_columns > 16:
            return grid
    raise InputError(
        f"SEEDS cannot divide an image of {height} x {width} pixels into {num_superpixels} superpixels.",
        found="fewer than two rows or two columns of them, or no more than 4 x 4 blocks to start from",
        remedy="ask for more superpixels, or crop the image nearer to a square",
    )


def seeds_count(height: int, width: int, num_superpixels: int = 196) -> int:
    """Number of superpixels that SEEDS gives for an image size.

    Raises:
        InputError: as `seeds_grid`.
    """
    return seeds_grid(height, width, num_superpixels).count
