"""A micro data set and a micro recipe that a CPU trains in seconds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

MICRO = """
program: supervised
notes: Eight blobs of colour, for tests.
model:
  name: cast_tiny
  options: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: 2, clusters: [8, 4, 3, 2]}
superpixels: {count: 16, bins: 5, iterations: 4}
augment: {image_size: 32, scale: [0.5, 1.0], eval_resize: 0}
optimizer: {name: adamw, lr: 2.0e-3}
schedule: {kind: cosine, epochs: 2, warmup: 0.2}
train: {batch: 8, ema: 0.9, label_smoothing: 0.1, seed: 3}
"""


def picture(label: int, number: int, size: int = 32) -> np.ndarray:
    """uint8 [size,size,3]: smooth noise around a colour that tells the class."""
    rng = np.random.default_rng([label, number])
    coarse = rng.integers(0, 90, (6, 6, 3)).astype(np.float32)
    colour = np.array([[150, 40, 40], [40, 150, 40], [40, 40, 150], [120, 120, 20]][label % 4], np.float32)
    grown = np.repeat(np.repeat(coarse, size // 4, 0), size // 4, 1)[:size, :size]
    return np.clip(grown + colour + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_folders(root: Path, train: int = 12, val: int = 4, classes: int = 4) -> Path:
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03d}.jpg").write_bytes(jpeg(picture(label, number + 1000 * (split == "val"))))
    return root


def write_shards(root: Path, train: int = 12, val: int = 4, classes: int = 4, shards: int = 2) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        for shard in range(shards):
            with tarfile.open(root / f"{split}-{shard:02d}.tar", "w") as tar:
                for number in range(shard, count, shards):
                    for label in range(classes):
                        key = f"{label}_{number}"
                        image = jpeg(picture(label, number + 1000 * (split == "val")))
                        for suffix, data in (("jpg", image), ("cls", str(label).encode())):
                            member = tarfile.TarInfo(f"{key}.{suffix}")
                            member.size = len(data)
                            tar.addfile(member, io.BytesIO(data))
    (root / "classes.txt").write_text("".join(f"n{label}\tname {label}, other\n" for label in range(classes)))
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """train/ and val/ class folders: 4 classes, 48 and 16 pictures of 32 x 32."""
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """The same pictures as tar shards."""
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def micro(tmp_path_factory) -> Path:
    """A recipe file that trains in seconds."""
    path = tmp_path_factory.mktemp("recipes") / "micro.yaml"
    path.write_text(MICRO)
    return path
