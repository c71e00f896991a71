"""A teacher's class scores for the training images: computed once, kept beside the data, read in training.

    scores = teacher_scores(Path("DATA"), source)     # float16 [images, classes], DATA/train-teacher.npy

`write_scores` asks the teacher (any function of a batch) and can be interrupted: what is finished is kept in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.errors import InputError
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data.arrays import read_array
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.engine import provenance

Scores = npt.NDArray[np.float16]
Pixels = npt.NDArray[np.uint8]
FILE = "train-teacher.npy"
PART = 2048  # images


def teacher_scores(data: Path, source: ImageSource) -> Scores:
    """The stored scores of the images of `source`, in its order.

    Raises:
        InputError: when the file is missing, or was made for other images or classes.
    """
    path = data / FILE
    remedy = "prepare_data.py soft-labels --help; or --set teacher.weight=0"
    scores: Scores = read_array(path, "no teacher's scores", remedy)
    if scores.shape != (len(source), len(source.classes)):
        raise InputError(
            f"The teacher's scores were not made for these {len(source)} images x {len(source.classes)} classes.",
            found=f"{path} of shape {list(scores.shape)}",
            remedy="compute them again: prepare_data.py soft-labels",
        )
    return scores


def write_scores(
    data: Path,
    source: ImageSource,
    teacher: Callable[[list[Pixels]], npt.NDArray[np.floating]],
    progress: Callable[[int], None] = lambda done: None,
    identity: Mapping[str, Any] | None = None,
) -> Path:
    """Ask the teacher for every image and write `DATA/train-teacher.npy`.

    Args:
        data: folder of the data set; finished parts lie in `train-teacher.parts/` until all are done.
        source: the training images.
        teacher: RGB images uint8 [h, w, 3] -> scores [images, classes].
        progress: called with the number of finished images.
        identity: of the teacher, plain values: finished parts of another one are refused.

    Raises:
        RecipeError: the parts are those of another teacher or of other images.
    """
    from cast_sdk.training.data.dataset import decode

    parts = data / "train-teacher.parts"
    images = provenance.fingerprint(zip(source.names, map(source.size, range(len(source))), strict=True))
    provenance.keep(parts, {"teacher": identity, "fingerprint": images, "part": PART})
    files = []
    for start in range(0, len(source), PART):
        stop = min(start + PART, len(source))
        files.append(parts / f"{start:07d}.npy")
        if not files[-1].exists():
            pixels = [decode(source.read(i), source.names[i]).permute(1, 2, 0).numpy() for i in range(start, stop)]
            with atomic_write(files[-1]) as temporary, temporary.open("wb") as file:
                np.save(file, np.asarray(teacher(pixels), np.float16))
        progress(stop)
    with atomic_write(data / FILE) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([read_array(part) for part in files]))
    for part in (*files, parts / provenance.FILE):
        part.unlink()
    parts.rmdir()
    return data / FILE


def strongest(scores: Scores, count: int, temperature: float) -> Scores:
    """Scores [images, classes] of which each image's `count` highest are kept; its others share one value.

    At `temperature` the probability of the kept classes stays what it was. Such rows compress to a few bytes a class
    that is kept, and are read like any others.
    """
    if count >= scores.shape[1]:
        return scores
    softened = scores.astype(np.float64) / temperature
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, np.argsort(-softened, 1, kind="stable")[:, :count], True, 1)
    others = np.where(kept, -np.inf, softened)
    highest = others.max(1, keepdims=True)
    mean = np.exp(others - highest).sum(1, keepdims=True) / (scores.shape[1] - count)
    shared = temperature * (np.log(mean) + highest)
    return np.where(kept, scores, shared).astype(np.float16)


def soft_cross_entropy(logits: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Cross entropy of the student's softened classes with the teacher's, times temperature^2 (Hinton et al., 2015).

    Args:
        logits: the student's [N,classes].
        scores: the teacher's [N,classes].
        temperature: both are divided by it.
    """
    target = (scores / temperature).softmax(-1)
    return F.cross_entropy(logits / temperature, target) * temperature**2
