"""What a recipe may hold: plain values in YAML, and numbers in their ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cast_sdk.errors import RecipeError

_MOST_VALUES = 100_000
SHARE = (0, 1)
POSITIVE = (5e-324, math.inf)
NOT_NEGATIVE = (0, math.inf)
COUNT = (1, 2**31 - 1)

# Smallest and largest value of every number, by its dotted name; both are allowed.
RANGES: dict[str, tuple[float, float]] = {
    "model.dropout": SHARE,
    "superpixels.count": (1, 2**20),
    "superpixels.bins": (1, 16),
    "superpixels.iterations": (0, 10_000),
    "augment.image_size": (8, 16384),
    "augment.scale": (1e-6, 1),
    "augment.flip": SHARE,
    "augment.thumbnail": (0, 16384),
    "augment.resolution": SHARE,
    "augment.erase": SHARE,
    "augment.repeats": (1, 1024),
    "augment.mixup": NOT_NEGATIVE,
    "augment.cutmix": NOT_NEGATIVE,
    "augment.mix_switch": SHARE,
    "augment.eval_resize": (0, 16384),
    "augment.eval_mean": (-1e4, 1e4),
    "augment.eval_std": (1e-6, 1e4),
    "optimizer.lr": NOT_NEGATIVE,
    "optimizer.reference_batch": COUNT,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.betas": (0, 1 - 1e-12),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.momentum": SHARE,
    "optimizer.muon_lr": NOT_NEGATIVE,
    "optimizer.muon_momentum": SHARE,
    "optimizer.clip": POSITIVE,
    "optimizer.layer_decay": (1e-6, 1),
    "schedule.epochs": (1, 10**9),
    "schedule.warmup": NOT_NEGATIVE,
    "schedule.warmup_lr": NOT_NEGATIVE,
    "schedule.minimum": NOT_NEGATIVE,
    "schedule.power": NOT_NEGATIVE,
    "schedule.warmup_steps": (0, 2**31 - 1),
    "schedule.steps": COUNT,
    "schedule.minutes": POSITIVE,
    "train.batch": COUNT,
    "train.accumulation": COUNT,
    "train.ema": SHARE,
    "train.label_smoothing": SHARE,
    "train.seed": (0, 2**31 - 1),
    "train.class_balance": SHARE,
    "taxonomy.kl_weight": NOT_NEGATIVE,
    "moco.feature_dim": (1, 2**20),
    "moco.hidden_dim": (1, 2**20),
    "moco.temperature": POSITIVE,
    "moco.momentum": SHARE,
    "moco.jitter": NOT_NEGATIVE,
    "moco.jitter_probability": SHARE,
    "moco.grey": SHARE,
    "moco.blur": SHARE,
    "moco.blur_radius": NOT_NEGATIVE,
    "moco.solarise": SHARE,
    "dense.short_side": (8, 16384),
    "dense.aspect": (1, 1e4),
    "dense.scale": (1e-3, 1e3),
    "dense.crop": (8, 16384),
    "dense.category_cap": SHARE,
    "dense.class_balance": NOT_NEGATIVE,
    "dense.window": (8, 16384),
    "dense.train_stride": (1, 16384),
    "dense.stride": (1, 16384),
    "probe.passes": (0, 10**6),
    "probe.eval_batch": COUNT,
    "teacher.weight": SHARE,
    "teacher.temperature": POSITIVE,
    "teacher.others": (0, 2**20),
    "teacher.others_own": NOT_NEGATIVE,
    "levels.weight": NOT_NEGATIVE,
    "levels.batch": (1, 2**20),
    "levels.scale": (1e-6, 1),
    "levels.tokens": NOT_NEGATIVE,
    "phases.start": SHARE,
    "phases.superpixels": (1, 2**20),
    "phases.clusters": (1, 2**20),
}
# Pairs that are a smallest and a largest value.
_INTERVALS = ("augment.scale", "dense.scale", "levels.scale", "moco.blur_radius")


def check_numbers(values: dict[str, Any]) -> None:
    """Refuse a number that is not finite, out of its range, or the larger end of an interval before the smaller one.

    Args:
        values: settings by their dotted names; None and what is no number passes.

    Raises:
        RecipeError: naming the setting.
    """
    for name, value in values.items():
        entries = value if isinstance(value, tuple) else (value,)
        for entry in entries:
            if isinstance(entry, (int, float)) and not isinstance(entry, bool):
                low, high = RANGES[name]
                if not (low <= entry <= high and math.isfinite(entry)):
                    raise RecipeError(f"{name} is {entry!r}.", remedy=f"give {_text(low, high)}")
        if name in _INTERVALS and value[0] > value[1]:
            raise RecipeError(f"{name} goes from {value[0]} to {value[1]}.", remedy="give the smaller number first")


def _text(low: float, high: float) -> str:
    if high == math.inf:
        return "a positive number" if low > 0 else "0 or a positive number"
    return f"a number from {low:.12g} to {high:.12g}"


def read_yaml(path: Path) -> Any:
    """Plain data of a recipe file.

    Raises:
        RecipeError: it cannot be read, or as for `parse_yaml`.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read.", found=error.strerror) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"The recipe {path} is not text in UTF-8.", found=str(error)) from error
    return parse_yaml(text, f"The recipe {path}")


def parse_yaml(text: str, what: str) -> Any:
    """Plain data from YAML.

    Raises:
        RecipeError: it is not YAML, holds tags, or grows beyond `_MOST_VALUES` by references to itself.
    """
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        found = where + str(getattr(error, "problem", None) or error or "too deeply nested").splitlines()[0]
        raise RecipeError(f"{what} is not YAML of plain values.", found=found) from error
    waiting, seen = [data], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise RecipeError(f"{what} holds more than {_MOST_VALUES} values.", remedy="write it without references")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return data
