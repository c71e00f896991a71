"""What every program does before it trains: messages for people and images from disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cast_sdk.errors import CastError
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.distributed import World


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
