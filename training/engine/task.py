"""What a training program adds to the loop: a `Task` has the model, the training items, the loss and the validation.

class Classification(Task):
    program, layout, reads = "supervised", "deit", SHARED | {"augment", "train.ema"}

    def loss(self, batch: Any, fraction: float) -> Tensor: ...

run_task(Classification.open(recipe, run, world), run.options)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cast_sdk.errors import RecipeError
from cast_sdk.models.base import Model
from cast_sdk.models.checkpoints.layouts import Kind, official_checkpoint
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.optim import build_optimizer
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.knobs import check_knobs
from cast_sdk.training.engine.recipe.settings import Phase, Recipe
from cast_sdk.training.engine.schedules import scaled_lr

# Knobs that every job uses.
SHARED = frozenset(
    {
        "model.name",
        "model.options",
        "model.sampler",
        "superpixels.count",
        "superpixels.bins",
        "superpixels.iterations",
        "superpixels.invert",
        "optimizer",
        "schedule",
        "train.batch",
        "train.accumulation",
        "train.precision",
        "train.seed",
        "train.compile",
        "train.cudnn_benchmark",
        "train.tf32",
    }
)


class Task(ABC):
    """One training job.

    Attributes:
        program: the recipes' name for it.
        layout: official layout of its checkpoints.
        reads: knobs of a recipe that it uses, such as "augment.flip", or whole sections; others are refused.
        fixed: knobs that have one value in this job, which a recipe must state.
        rolling: the file that a run resumes from.
        best_file: where the checkpoint with the best validation is kept; "": nowhere.
        metric: the result of `validate` that decides which is best, the higher the better.
        in_memory: items need no loader processes.
        model: as saved.
        views: training items by (index, epoch, position).
        wrapped: the model as called: itself, or DDP around it.
    """

    program: ClassVar[str]
    layout: ClassVar[Kind]
    reads: ClassVar[frozenset[str]]
    fixed: ClassVar[Mapping[str, Any]] = {}
    rolling: ClassVar[str] = "checkpoint.pth"
    best_file: ClassVar[str] = ""
    metric: ClassVar[str] = ""
    in_memory: bool = False

    def __init__(
        self, recipe: Recipe, model: Model, views: Dataset[Any], world: World, called: nn.Module | None = None
    ) -> None:
        """`called` is what the loss calls where that is not the model itself."""
        self.check(recipe)
        self.recipe, self.model, self.views, self.world = recipe, model, views, world
        self.wrapped = world.wrap(model if called is None else called, recipe.train.sync_bn)
        if recipe.train.compile:
            self.wrapped.compile()

    @classmethod
    @abstractmethod
    def open(cls, recipe: Recipe, run: Run, world: World) -> Task:
        """The task with its data and model, as the command line asks."""

    @classmethod
    def begins_anew(cls, out: Path, world: World) -> bool:
        """Whether a run into `out` has nothing to resume. The first process looks, and all follow."""
        return world.decided_by_main(lambda: not (out / cls.rolling).is_file())

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raises RecipeError for a knob that this job does not use."""
        check_knobs(recipe, cls.program, cls.reads, cls.fixed)

    # ---------------------------------------------------------------- data and optimizer

    def drop_last(self) -> bool:
        """Leave out the incomplete last batch of an epoch."""
        return self.recipe.train.drop_last

    def sampler(self) -> EpochSampler:
        train, world = self.recipe.train, self.world
        return EpochSampler(
            len(self.views),  # type: ignore[arg-type]
            world.per_process(train.batch, train.accumulation),
            seed=train.seed,
            repeats=self.recipe.augment.repeats,
            rank=world.rank,
            world=world.size,
            drop_last=self.drop_last(),
        )

    def trained(self) -> nn.Module:
        """What the optimizer moves: the model, and what a job trains beside it."""
        return self.model

    def optimizer(self) -> torch.optim.Optimizer:
        config = self.recipe.optimizer
        lr = scaled_lr(config.lr, self.recipe.train.batch, config.reference_batch)
        return build_optimizer(self.trained(), config, lr)

    # ---------------------------------------------------------------- steps

    @abstractmethod
    def loss(self, batch: Any, fraction: float) -> Tensor:
        """Mean loss of one batch of this process, with `fraction` of the schedule done; runs under autocast."""

    def after_step(self, fraction: float) -> None:  # noqa: B027 (most jobs have nothing to do)
        """After each optimizer step; `fraction` of the schedule is done."""

    def enter_phase(self, phase: Phase) -> None:
        """Settings that hold from this epoch on."""
        raise RecipeError(f"{self.program} has no phases, the recipe has.", remedy="remove `phases` from the recipe")

    # ---------------------------------------------------------------- validation and checkpoints

    def validate(self) -> dict[str, float]:
        """Metrics over the validation split, the same on every process; empty without one."""
        return {}

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        """Whether validation results `new` beat `best`."""
        return new[self.metric] > best.get(self.metric, -1.0)

    def files(self, epoch: int, is_best: bool, fraction: float) -> list[str]:
        """Names under which the checkpoint of finished `epoch` is kept besides the rolling one."""
        return [self.best_file] if is_best and self.best_file else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        """The official layout, with `outer` (optimizer, scaler, resume, ...) beside the model."""
        return official_checkpoint(self.model, self.layout, epoch=epoch, **outer)

    def restore(self, raw: dict[str, Any]) -> None:
        """Load the model parts of `checkpoint` again."""
        state = raw["state_dict"] if "state_dict" in raw else raw["model"]
        self.model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
