"""What every program does before it trains: messages for people and images from disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cast_sdk.errors import CastError, InputError
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import World


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Print a CastError as its message and exit with status 1."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        yield
    except CastError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def load_images(root: Path, split: str, on_bad: Any, cache: bool, world: World) -> Images:
    """The images of a split, decoded into memory with `cache`."""
    images = Images(open_source(root, split), on_bad)
    if cache:
        if world.main:
            print(f"decoding {len(images)} {split} images", flush=True)
        images.cache()
    return images


def check_same_classes(images: Mapping[str, Images]) -> None:
    """Class folders are numbered in sorted order, so one that is missing in a split would shift all labels after it.

    Raises:
        InputError: naming the folders that only some splits have.
    """
    folders = {}
    for split, data in images.items():
        root = data.source.root / split
        if root.is_dir() and not any(data.source.root.glob(f"{split}-*.tar")):
            folders[split] = {path.name for path in root.iterdir() if path.is_dir()}
    for split, names in folders.items():
        missing = sorted(set().union(*folders.values()) - names)
        if missing:
            raise InputError(
                "Every split must have the same class folders.",
                found=f"{len(missing)} missing in {split}/: {', '.join(missing[:6])}",
                remedy="add them, or remove those classes from the other splits",
            )
