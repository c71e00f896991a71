"""The doors of the package, each with the kinds of bad input that it is tried with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_bulk
import hostile_files
import hostile_network
import hostile_own
import hostile_running
import hostile_service
import numpy as np
from hostile_commands import command_cases
from hostile_good import encoded
from hostile_harness import Case
from hostile_inputs import FILES, NAMES, VALUES, write_file

from cast_sdk import bundled
from cast_sdk.runtime import Runtime

_RECIPE = """
program: supervised
model: {name: cast_tiny, options: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: 2, clusters: [8, 4, 3, 2]}}
superpixels: {count: 16, bins: 5, iterations: 4}
augment: {image_size: 32, eval_resize: 0}
schedule: {epochs: 1}
train: {batch: 8}
"""


class Doors:
    """The cases, and the good files that they spoil.

    Args:
        folder: where the good files are made.
        seed: of the mutations.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        import torch

        from cast_sdk.models import create_model, save_native

        self.folder, self.seed = folder, seed
        photo = folder / "photo.png"
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        photo.write_bytes(encoded(".png", image))
        torch.manual_seed(0)
        tiny = create_model(
            "cast_tiny", embed_dim=32, depths=(1, 1, 1, 1), num_heads=2, clusters=(8, 4, 3, 2), num_classes=3
        )
        save_native(tiny.eval(), folder / "tiny.safetensors")
        torch.save({"state_dict": tiny.state_dict()}, folder / "tiny.pth")
        (folder / "micro.yaml").write_text(_RECIPE)
        for name, pixels in (("images", image), ("labels", image[..., 0] // 128)):
            (folder / name).mkdir()
            (folder / name / "photo.png").write_bytes(encoded(".png", pixels))
        self.good = {
            "photo": photo,
            "model": Path(bundled.path(bundled.MODEL)),
            "checkpoint": folder / "tiny.safetensors",
            "state": folder / "tiny.pth",
            "recipe": folder / "micro.yaml",
            "data": folder,
            "images": folder / "images",
            "labels": folder / "labels",
        }
        self.runtime = Runtime()
        self.result = self.runtime.segment(str(photo))
        self.right = [self.result.labels(level).copy() for level in range(5)]

    def prepare(self, folder: Path) -> None:
        """Files of the user in the folder of a case."""
        shutil.copy(self.good["photo"], folder / "photo.png")
        (folder / "notes.txt").write_text("mine")
        (folder / "results").mkdir()
        (folder / "results" / "photo.png").write_text("mine too")
        for name in ("out.onnx", "out.safetensors", "w.safetensors", "card.md", "curve.png"):
            (folder / name).write_text("mine as well")

    def still_right(self) -> bool:
        """Whether a good image still gives what it gave before."""
        again = self.runtime.segment(str(self.good["photo"]))
        return all(np.array_equal(again.labels(level), labels) for level, labels in enumerate(self.right))

    def cases(self) -> list[Case]:
        """All of them, always in the same order."""
        subjects = (hostile_running, hostile_files, hostile_network, hostile_service, hostile_bulk, hostile_own)
        found = [case for subject in subjects for case in subject.cases(self)]
        return [*found, *command_cases(self.good, self.seed)]

    def files(self, door: str, suffix: str, data: bytes, act: Callable[[Path], object]) -> Iterator[Case]:
        """A door that takes a file, by every kind of file and name."""
        for kind in FILES:

            def spoil(kind: str = kind) -> object:
                return act(write_file(kind, Path(f"bad{suffix}"), data, self.seed))

            yield Case(door, f"file, {kind}", spoil, refused="changed" not in kind)
        for kind, name in NAMES.items():
            yield Case(door, f"name, {kind}", lambda name=name: act(Path(name) if name else name), refused=True)

    @staticmethod
    def values(door: str, act: Callable[[Any], object], known: tuple[str, ...] = ()) -> Iterator[Case]:
        """A door that takes a value, by every kind; `known` are kinds that it may take."""
        for kind, value in VALUES.items():
            yield Case(door, f"value, {kind}", lambda value=value: act(value), refused=kind not in known)
