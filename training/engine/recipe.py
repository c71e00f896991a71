"""Recipes: YAML files in `training/recipes/`, checked against these dataclasses.

    recipe = load_recipe("deit_cast_small", ["train.batch=256", "schedule.epochs=100"])

A name is a file of that folder without its suffix; a path to a YAML file works too. Unknown keys are errors that name
the nearest known one. `to_dict` goes into every checkpoint, so a run says how it was made.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cast_sdk.arguments import shown
from cast_sdk.errors import RecipeError
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings
from cast_sdk.system.files import kind_at
from cast_sdk.training.engine.recipe_values import check_numbers, parse_yaml, read_yaml

log = logging.getLogger(__name__)
FOLDER = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Model:
    name: str = "cast_small"  # a registered name
    options: dict[str, Any] = field(default_factory=dict)  # fields of ModelSpec that differ from the registered ones
    sampler: Literal["float64", "matrix", "dgl"] = "matrix"  # float64: the reference's arithmetic, slower
    dropout: float | None = None  # of the poolings; None keeps the reference's 0.1
    init: str = ""  # checkpoint to start from
    # probe: the head begins as a linear classifier fitted to the embeddings of the start's frozen encoder
    head_start: Literal["random", "probe"] = "random"


Source = Literal["crop", "denormalised"]


@dataclass(frozen=True)
class Superpixels:
    count: int = 196
    bins: int = 15
    iterations: int = 20
    source: Source = "crop"  # denormalised: the round trip of DeiT or Segmenter, see transforms.py
    invert: bool = False  # SEEDS on (256 - v) mod 256, as the reference's Segmenter does by an overflow

    def settings(self) -> SuperpixelSettings:
        """What training items are made with and what the trained model carries: the same."""
        return SuperpixelSettings(self.count, self.bins, self.iterations, self.invert)


@dataclass(frozen=True)
class Augment:
    image_size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)  # area of the random resized crop
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: float = 0.5
    thumbnail: int = 0  # larger images become thumbnails of so many pixels a side first; 0: they stay
    resolution: float = 0.0  # probability of another resolution before the crop
    rand_augment: str = ""  # timm's notation, e.g. "rand-m9-mstd0.5-inc1"
    erase: float = 0.0  # probability of random erasing, after normalisation
    repeats: int = 1  # copies of each image per epoch (repeated augmentation)
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5  # how often cutmix replaces mixup where both are on
    eval_resize: int = 256  # short side before the centre crop; 0: stretch the whole image to image_size
    # Normalisation in evaluation, and of the way back to the picture that superpixels see (source denormalised).
    # Training itself always normalises with ImageNet's: so H-CAST treats iNaturalist.
    eval_mean: tuple[float, float, float] = IMAGENET_MEAN
    eval_std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Optimizer:
    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: float = 1e-3
    reference_batch: int | None = None  # linear scaling: lr is per so many images
    weight_decay: float = 0.05
    decay_rule: Literal["all", "timm"] = "timm"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False  # sgd only
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    clip: float | None = None  # gradient norm
    layer_decay: float = 1.0  # adamw and sgd: each stage's rate is this part of the next one's; the head has all of it


@dataclass(frozen=True)
class Schedule:
    # per iteration, per epoch, DeiT's one-epoch lag, polynomial per iteration
    # hcast_april, hcast_june: deit's with the period of H-CAST's two public revisions, see schedules.period
    kind: Literal["cosine", "epoch_cosine", "deit", "hcast_april", "hcast_june", "poly"] = "cosine"
    epochs: int = 100
    warmup: float = 0.0  # epochs
    warmup_lr: float = 1e-6  # deit and hcast only
    minimum: float = 0.0
    power: float = 0.9  # poly only
    warmup_steps: int = 0  # poly only: from a tenth of the rate up
    steps: int | None = None  # end after so many optimizer steps instead of `epochs`
    minutes: float | None = None  # end after this training time instead of `epochs`

    @property
    def ends_by(self) -> Literal["minutes", "steps", "epochs"]:
        """Which knob ends the run."""
        return "minutes" if self.minutes is not None else "steps" if self.steps is not None else "epochs"


@dataclass(frozen=True)
class Phase:
    """From `start` (fraction of the schedule, taken at the start of an epoch) on, these settings hold."""

    start: float = 0.0
    superpixels: int | None = None
    clusters: tuple[int, ...] = ()


@dataclass(frozen=True)
class Moco:
    feature_dim: int = 256
    hidden_dim: int = 4096
    temperature: float = 0.2
    momentum: float = 0.99  # rises to 1 along a cosine
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float] = (1.0, 0.1)  # probability for view 1 and view 2
    blur_radius: tuple[float, float] = (0.1, 2.0)
    solarise: tuple[float, float] = (0.0, 0.2)  # probability for view 1 and view 2


@dataclass(frozen=True)
class Probe:
    """`passes` > 0: compute the frozen encoder's features of that many augmented passes once and train on those."""

    passes: int = 0
    eval_batch: int = 256


@dataclass(frozen=True)
class Dense:
    """Dense segmentation: sizes are in pixels, `superpixels.count` belongs to one crop or window."""

    data: Literal["", "ade20k", "pcontext", "camvid", "voc"] = ""
    short_side: int = 512  # images are resized to it, keeping their aspect ...
    aspect: float = 4.0  # ... while the long side stays within short_side * aspect
    scale: tuple[float, float] = (0.5, 2.0)  # random factor on that size in training
    crop: int = 512  # training crop
    category_cap: float = 0.75  # crops in which one class covers more are drawn again, up to 10 times
    photometric: bool = True  # brightness, contrast, saturation, hue
    class_balance: float = 0.0  # power x: a class weighs 1 / (its share of pixels)^x in the loss
    window: int = 512  # sliding windows of validation and evaluation
    train_stride: int = 512  # validation while training
    stride: int = 480  # final evaluation
    absent: Literal["skip", "zero"] = "skip"  # classes in neither map: left out of the mean, or 0 (VOC)


@dataclass(frozen=True)
class Taxonomy:
    """One head per level of a tree of classes (H-CAST); without a tree the model has one head."""

    tree: str = ""  # a published name such as cub200, a table beside the recipes, or a CSV file
    kl_weight: float = 0.5  # of the tree-path loss; 0: cross entropies alone


@dataclass(frozen=True)
class Teacher:
    """Soft labels from `DATA/train-teacher.npy` (prepare_data.py soft-labels)."""

    weight: float = 0.0  # the teacher's part of the loss; the labels have the rest
    temperature: float = 2.0  # both sides' scores are divided by it; the loss is multiplied by its square


@dataclass(frozen=True)
class Levels:
    """A loss on the segments (tasks/levels.py) from `DATA/regions.npz` (prepare_data.py regions)."""

    weight: float = 0.0  # 0: off, as in every published recipe
    batch: int = 16  # crops with known regions per process and step, besides the labelled images
    scale: tuple[float, float] = (0.3, 1.0)  # area of those crops
    tokens: float = 0.5  # weight of the part on the tokens themselves


@dataclass(frozen=True)
class Train:
    batch: int = 256  # over all processes and accumulated steps
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_bn: bool = False
    ema: float | None = None  # decay of the averaged weights
    ema_aliases: bool = False  # DeiT averages block tensors twice a step, once per name
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: bool = False  # torch.compile: the first step takes minutes, later ones less
    cudnn_benchmark: bool = True  # on GPUs: try cuDNN's algorithms, as all published programs do
    tf32: Literal["off", "convolutions", "all"] = "convolutions"  # on GPUs, where precision is fp32; torch's default
    seed: int = 0
    drop_last: bool = True
    # power x: an image of a class of n images is drawn n^-x times as often; 0: once an epoch, 1: all classes alike
    class_balance: float = 0.0


@dataclass(frozen=True)
class Recipe:
    name: str = ""
    program: Literal["supervised", "pretrain", "linear_probe", "segment", "voc"] = "supervised"
    notes: str = ""  # what it reproduces and every deliberate difference
    model: Model = field(default_factory=Model)
    superpixels: Superpixels = field(default_factory=Superpixels)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    train: Train = field(default_factory=Train)
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    moco: Moco = field(default_factory=Moco)
    dense: Dense = field(default_factory=Dense)
    probe: Probe = field(default_factory=Probe)
    teacher: Teacher = field(default_factory=Teacher)
    levels: Levels = field(default_factory=Levels)
    phases: tuple[Phase, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def list_recipes() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """The file of a recipe: one of this package by its name, or any other by its path.

    Raises:
        RecipeError: when there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if kind_at(path) != "file":
        near = difflib.get_close_matches(name, list_recipes(), 3)
        raise RecipeError(
            f"There is no recipe {name!r}.",
            remedy="one of: " + ", ".join(near or list_recipes()),
        )
    return path


def load_recipe(name: str, overrides: Iterable[str] = (), program: str | None = None) -> Recipe:
    """Read a recipe and apply `section.key=value` overrides (values in YAML notation).

    Raises:
        RecipeError: for an unknown recipe, key or program, or a value of the wrong type.
    """
    path = recipe_file(name)
    data = read_yaml(path) or {}
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {shown(data)} in place of keys with values.")
    overrides = epochs_obey(data, list(overrides))
    for one in overrides:
        override(data, one)
    data.setdefault("name", path.stem)
    recipe = recipe_from_dict(data)
    if program is not None and recipe.program != program:
        raise RecipeError(
            f"{recipe.name} is a recipe for {recipe.program}, and this program is {program}.",
            remedy=f"python training/{recipe.program}.py --recipe {recipe.name} ...",
        )
    return recipe


def override(data: dict[str, Any], text: str) -> None:
    """Put `section.key=value` (the value in YAML notation) into a recipe's data.

    Raises:
        RecipeError: for a text without a value, or a key below a value.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set {text} gives no value.", remedy="--set key=value, for example --set train.batch=64")
    *sections, last = (part.strip() for part in key.split("."))
    target = data
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            remedy = f"--set {key.strip().rpartition('.')[0]}=VALUE"
            raise RecipeError(f"{section} is a value and has no keys below it.", found=text, remedy=remedy)
    target[last] = parse_yaml(value, f"--set {text}")


def epochs_obey(data: Mapping[str, Any], overrides: list[str]) -> list[str]:
    """Overrides by which `schedule.epochs` ends the run where only it was given on the command line, which is said.

    Raises:
        RecipeError: when another end was given there too: minutes and steps would leave the epochs without effect.
    """
    given = {key.strip(): value.strip() for key, _, value in (one.partition("=") for one in overrides)}
    if "schedule.epochs" not in given:
        return overrides
    recipe_schedule = data.get("schedule")
    for end in ("minutes", "steps"):
        name = f"schedule.{end}"
        if given.get(name, "null").lower() not in ("null", "~", ""):
            raise RecipeError(
                f"schedule.epochs and {name} were both given, and only one can end the run.",
                found=f"schedule.epochs={given['schedule.epochs']}, {name}={given[name]}",
                remedy=f"leave out --set {name}=..., or --set schedule.epochs=...",
            )
        if name not in given and isinstance(recipe_schedule, Mapping) and recipe_schedule.get(end) is not None:
            log.warning("schedule.epochs ends this run, not the recipe's %s=%s", name, recipe_schedule[end])
            overrides = [*overrides, f"{name}=null"]
    return overrides


def knobs(recipe: Recipe) -> dict[str, Any]:
    """All settings by their dotted names, such as "train.batch"; without name, program and notes."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(recipe):
        value = getattr(recipe, one.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{one.name}.{knob.name}": getattr(value, knob.name) for knob in dataclasses.fields(value)}
        elif one.name not in ("name", "program", "notes"):
            found[one.name] = value
    return found


# Knobs that only some optimizers and schedules have.
_OF_OPTIMIZER = {
    "adamw": {"betas", "eps", "layer_decay"},
    "sgd": {"momentum", "nesterov", "layer_decay"},
    "muon": {"betas", "eps", "muon_lr", "muon_momentum"},
}
_OF_SCHEDULE = {
    "cosine": {"warmup"},
    "epoch_cosine": {"warmup"},
    "deit": {"warmup", "warmup_lr"},
    "hcast_april": {"warmup", "warmup_lr"},
    "hcast_june": {"warmup", "warmup_lr"},
    "poly": {"power", "warmup_steps"},
}


def _without_effect(recipe: Recipe) -> set[str]:
    """Knobs that other knobs of the recipe put out of action."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    idle = {f"optimizer.{knob}" for knob in set().union(*_OF_OPTIMIZER.values()) - _OF_OPTIMIZER[optimizer.name]}
    idle |= {f"schedule.{knob}" for knob in set().union(*_OF_SCHEDULE.values()) - _OF_SCHEDULE[schedule.kind]}
    if recipe.taxonomy.tree:
        idle |= {"teacher.weight", "teacher.temperature"}  # the heads of a tree learn from labels alone
    else:
        idle.add("taxonomy.kl_weight")
    if schedule.minutes is not None:
        idle.add("schedule.steps")
    if not recipe.teacher.weight:
        idle.add("teacher.temperature")
    if not recipe.levels.weight:
        idle |= {"levels.batch", "levels.scale", "levels.tokens"}
    # Where minutes or steps end a run, its epochs are the unit of warm-up and of schedules that change once an epoch.
    if schedule.ends_by != "epochs" and (
        schedule.kind == "poly" or (schedule.kind == "cosine" and not schedule.warmup)
    ):
        idle.add("schedule.epochs")
    return idle


def check_knobs(recipe: Recipe, program: str, reads: Collection[str], fixed: Mapping[str, Any]) -> None:
    """Refuse knobs that have no effect: a run must not be described by what it does not do.

    Args:
        recipe: to check.
        program: for the message.
        reads: knobs that the program uses, or whole sections.
        fixed: knobs that have this value in the program whatever the recipe says, so the recipe must say it.

    Raises:
        RecipeError: naming every knob with another value than its default that is not used.
    """
    given, default = knobs(recipe), knobs(Recipe())
    for name, value in fixed.items():
        if given[name] != value:
            raise RecipeError(
                f"{name} is {given[name]!r}, and {program} knows only {value!r}.", remedy=f"--set {name}={value}"
            )
    idle = _without_effect(recipe)
    unused = [
        name
        for name, value in given.items()
        if value != default[name]
        and name not in fixed
        and (name in idle or not {name, name.partition(".")[0]} & set(reads))
    ]
    if unused:
        raise RecipeError(
            f"{program} does not use {', '.join(unused)} as {recipe.name or 'the recipe'} sets it.",
            found=", ".join(f"{name}={given[name]!r}" for name in unused),
            remedy="remove it from the recipe or the --set options",
        )


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data.

    Raises:
        RecipeError: for an unknown key, a value of the wrong type, or a number out of its range.
    """
    recipe: Recipe = _build(Recipe, data, "")
    found = knobs(recipe)
    phases = found.pop("phases")
    for one in (found, *({f"phases.{key}": value for key, value in vars(phase).items()} for phase in phases)):
        check_numbers(one)
    _check_soft_losses(recipe)
    return recipe


def _check_soft_losses(recipe: Recipe) -> None:
    teacher = recipe.teacher
    if teacher.weight and (recipe.augment.mixup or recipe.augment.cutmix):
        raise RecipeError(
            "Mixed images have no soft labels: a teacher was asked about single images.",
            found=f"teacher.weight {teacher.weight} with mixup or cutmix",
            remedy="--set augment.mixup=0 --set augment.cutmix=0, or --set teacher.weight=0",
        )


def _build(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where or 'The recipe'} is {shown(data)} in place of keys with values.")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1)
            raise RecipeError(
                f"There is no setting {where + '.' if where else ''}{str(key) or repr(key)}.",
                remedy=f"did you mean {near[0]!r}?" if near else "one of: " + ", ".join(hints),
            )
        values[key] = _convert(hints[key], value, f"{where + '.' if where else ''}{key}")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal and any(value == one and type(value) is type(one) for one in arguments):
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, where) for item in value)
        if len(value) == len(arguments):
            return tuple(_convert(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    expected = "one of " + ", ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", hint)
    raise RecipeError(f"{where} is {shown(value)}, which is not {expected}.", remedy=f"--set {where}=VALUE")
