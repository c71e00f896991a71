"""The folder of a run: made once, known again by what made it, and never mixed with anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cast_sdk.errors import RecipeError
from cast_sdk.system.files import atomic_write
from cast_sdk.training.engine import provenance
from cast_sdk.training.engine.recipe.settings import Recipe

FILE, SPLIT, RECIPE, REPORT = "run.json", "split.csv", "recipe.yaml", "report.html"
MODEL, GRAPH = "model.safetensors", "model.onnx"
START = "start.json"  # the accuracy before fine-tuning
_BEFORE_TRAINING = {FILE, SPLIT, RECIPE, START}


def claim(out: Path, description: Mapping[str, Any]) -> bool:
    """Make the folder of a run, or find it again. True when this run was begun here before.

    Args:
        out: the folder.
        description: `program`, `data`, `fingerprint`, `recipe` and more: plain values that decide the result.

    Raises:
        RecipeError: for a folder of something else, or of a run of other data or options.
    """
    description = json.loads(json.dumps(description))
    before = made_by(out)
    if before is not None:
        differences = list(provenance.differences(before, description))
        if not differences:
            return True
        if {path.name for path in out.iterdir()} - _BEFORE_TRAINING:
            raise RecipeError(
                f"{out} is the folder of another run.",
                found="; ".join(differences[:4]),
                remedy="give another --out for this one, or the same data and options to go on there",
            )
        for name in _BEFORE_TRAINING:  # a run that never began is made anew
            (out / name).unlink(missing_ok=True)
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    provenance.write(out / FILE, description)
    return False


def check_free(out: Path, data: Path | None = None) -> None:
    """Before long work: a folder that `claim` could make or find again, and that does not lie inside of `data`.

    Raises:
        RecipeError: see `claim`; for a folder whose pictures would become images of the data.
    """
    if data is not None and data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise RecipeError(
            f"The folder of the run, {out}, lies inside of the data.",
            remedy=f"give --out another one, such as {data.resolve().parent / 'runs' / data.resolve().name}",
        )
    if not out.exists() or made_by(out) is not None:
        return
    if not out.is_dir() or any(out.iterdir()):
        what = "is a file" if not out.is_dir() else "holds other files"
        raise RecipeError(f"{out} {what}, so nothing is written there.", remedy="give --out a new folder")


def made_by(out: Path) -> dict[str, Any] | None:
    """What made the run of a folder; None where its record is missing, or is none of this package's."""
    return provenance.read(out / FILE)


def absolute(model: str) -> str:
    """A path that stays right in another folder; names and addresses as they are."""
    return str(Path(model).resolve()) if Path(model).is_file() else model


def write_recipe(out: Path, recipe: Recipe) -> None:
    """`recipe.yaml` with every value."""
    import yaml

    with atomic_write(out / RECIPE) as temporary:
        temporary.write_text(yaml.safe_dump(plain(recipe.to_dict()), sort_keys=False, allow_unicode=True))


def plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def eval_every(epochs: int) -> int:
    """Epochs between validations: about ten points of a curve."""
    return max(1, round(epochs / 10))
