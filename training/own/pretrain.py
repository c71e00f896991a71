"""`cast-train pretrain`: MoCo-v3 on a folder of images, labelled or not."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from cast_sdk.errors import InputError
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sources import ImageSource, open_source
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine import provenance
from cast_sdk.training.engine.distributed import start
from cast_sdk.training.engine.loop import Loop
from cast_sdk.training.engine.options import Options
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import visible_images
from cast_sdk.training.own.classes.planning import length_of
from cast_sdk.training.tasks.pretraining import Pretraining, create

log = logging.getLogger("cast_sdk.training")


def find_images(data: Path) -> ImageSource:
    """All images of a folder and of the folders inside, or those of its shards; labels are not read.

    Raises:
        InputError: when there are none.
    """
    if not data.is_dir():
        raise InputError(f"The data folder {data} does not exist.", remedy="give a folder of images")
    if any(data.glob("train-*.tar")):
        return open_source(data, "train")
    files = visible_images(data)
    if not files:
        raise InputError(f"There are no images in {data}.", remedy="give a folder of images, deep or flat")
    names = [str(path.relative_to(data)) for path in files]
    return ImageSource(data, "", [(str(path), -1, 0) for path in files], np.zeros(len(files), np.int64), names, [""])


def pretrain(
    data: Path, out: Path, recipe_name: str, overrides: tuple[str, ...], device: str, workers: int, on_bad: Any
) -> bool:
    """Pre-train to the end of the recipe. False when it was interrupted: the same call goes on.

    Raises:
        CastError: for data, a recipe or a folder that do not fit, before anything is written.
    """
    run_folder.check_free(out, data)
    recipe = load_recipe(recipe_name, overrides, "pretrain")
    Pretraining.check(recipe)
    source = find_images(data)
    if len(source) < recipe.train.batch:
        raise InputError(
            f"There are {len(source)} images in {data}, fewer than a batch ({recipe.train.batch}).",
            remedy=f"--batch {max(2, len(source))}, and more images: contrast needs them",
        )
    made_by = {
        "program": "pretrain",
        "data": str(data.resolve()),
        "fingerprint": provenance.fingerprint(zip(source.names, map(source.size, range(len(source))), strict=True)),
        "recipe": recipe.to_dict(),
    }
    world = start(device)
    if world.main:
        log.info("data       %s: %d images, labels are not read", data, len(source))
        log.info("plan       recipe %s: %s", recipe.name, " ".join(recipe.notes.split()))
        log.info("plan       %s, %d a step, at %d x %d pixels", length_of(recipe, len(source)), recipe.train.batch,
                 recipe.augment.image_size, recipe.augment.image_size)  # fmt: skip
        log.info("out        %s", out)
    world.decided_by_main(lambda: run_folder.claim(out, made_by))
    model = create(recipe).to(world.device)
    views = TwoViews(Images(source, on_bad), recipe, model.spec.uses_superpixels)
    loop = Loop(Pretraining(recipe, model, views, world), Options(out, workers, tensorboard=False))
    loop.run()
    if world.main and not loop.stop:
        log.info("next: cast-train classify LABELLED --model %s", shlex.quote(str(out / Pretraining.rolling)))
    world.finish()
    return not loop.stop
