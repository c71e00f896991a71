"""The training loop every program here uses.

A program writes a `Task` (model, loss, validation, the official checkpoint layout) and hands it over:

    task = Supervised(...)                        # a Task
    Loop(task, recipe, sampler, batches, optimizer, world, options).run()

The loop owns what all recipes share: schedules, precision, accumulation, clocks, logs, checkpoints, resuming, signals.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cast_sdk.errors import RecipeError
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.engine import checkpointing, schedules
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.optim import scale_lr
from cast_sdk.training.engine.recipe import Phase, Recipe
from cast_sdk.training.engine.runlog import RunLog, duration

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Task(Protocol):
    """What a program adds to the loop."""

    wrapped: nn.Module  # as called: the model itself, or DDP around it

    @property
    def model(self) -> nn.Module:
        """As saved."""

    def loss(self, batch: Any) -> Tensor:
        """Mean loss of one batch of this process; runs under autocast."""

    def after_step(self, fraction: float) -> None:
        """After each optimizer step; `fraction` of the schedule is done (EMA, momentum encoder)."""

    def enter_phase(self, phase: Phase) -> None:
        """Settings that hold from this epoch on."""

    def validate(self) -> dict[str, float]:
        """Metrics over the validation split, the same on every process; empty without one."""

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        """Whether validation results `new` beat `best`."""

    def files(self, epoch: int, is_best: bool) -> list[str]:
        """Names under which the checkpoint of finished `epoch` is kept besides the rolling one."""

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        """The official layout, with `outer` (optimizer, scaler, resume, ...) beside the model."""

    def restore(self, raw: dict[str, Any]) -> None:
        """Load the model parts of `checkpoint` again."""


@dataclass(frozen=True)
class Options:
    """What a user chooses per machine; none of it changes the result."""

    out: Path
    log_every: int = 50  # steps
    eval_every: int = 1  # epochs
    save_minutes: float = 5.0
    allow_world_size: bool = False
    tensorboard: bool = True
    rolling: str = "checkpoint.pth"  # the file a run resumes from


@dataclass
class Position:
    """How far a run is."""

    epoch: int = 0
    step: int = 0  # finished in this epoch
    total: int = 0  # finished in all epochs
    seconds: float = 0.0  # of training, over all starts


class Loop:
    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        sampler: EpochSampler,
        batches: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        world: World,
        options: Options,
    ) -> None:
        self.task, self.recipe, self.sampler, self.batches = task, recipe, sampler, batches
        self.optimizer, self.world, self.options = optimizer, world, options
        self.at = Position()
        self.best: dict[str, float] = {}
        self.steps = len(sampler) // recipe.train.accumulation  # optimizer steps per epoch
        if self.steps == 0:
            raise RecipeError(
                "An epoch holds at least one batch.",
                found=f"{sampler.length} images, batch {recipe.train.batch}",
                remedy="--set train.batch=N with a smaller N",
            )
        device = world.device.type
        fp16 = recipe.train.precision == "fp16"
        if fp16 and device == "cpu":
            raise RecipeError("fp16 needs a GPU.", found="device cpu", remedy="--set train.precision=bf16 (or fp32)")
        self.scaler = torch.amp.GradScaler(device, enabled=fp16)
        self.stop = False
        self.clock = time.monotonic()

    # ---------------------------------------------------------------- schedule

    def epochs(self) -> float:
        """Position in the schedule in epochs; with `schedule.minutes` the clock's part of its `epochs`."""
        schedule = self.recipe.schedule
        if schedule.minutes is not None:
            return min(self.at.seconds / (60 * schedule.minutes), 1.0) * schedule.epochs
        if schedule.steps is not None:
            return min(self.at.total / schedule.steps, 1.0) * schedule.epochs
        return min(self.at.epoch + self.at.step / self.steps, schedule.epochs)

    def fraction(self) -> float:
        """Part of the schedule that is done, 0 to 1."""
        return self.epochs() / self.recipe.schedule.epochs

    def lr_factor(self) -> float:
        """Learning rate of the next step over its base value."""
        schedule = self.recipe.schedule
        base = self.optimizer.param_groups[-1]["base_lr"]
        epoch = self.epochs()
        if schedule.kind == "deit":
            lr = schedules.deit_cosine(
                int(epoch), base, schedule.epochs, int(schedule.warmup), schedule.warmup_lr, schedule.minimum
            )
        elif schedule.kind == "poly":
            lr = schedules.poly(self.fraction(), base, 1.0, schedule.power, schedule.minimum)
            lr = schedules.warm(self.at.total, base, lr, schedule.warmup_steps)
        else:
            epoch = math.floor(epoch) if schedule.kind == "epoch_cosine" else epoch
            lr = schedules.cosine(epoch, base, schedule.epochs, schedule.warmup, schedule.minimum)
        return lr / base

    def phase(self) -> Phase | None:
        current = None
        for phase in self.recipe.phases:
            if self.fraction() >= phase.start:
                current = phase
        return current

    # ---------------------------------------------------------------- running

    def run(self) -> dict[str, float]:
        """Train to the end of the schedule, from the rolling checkpoint if there is one. Returns the best metrics."""
        options, world = self.options, self.world
        if world.main:
            options.out.mkdir(parents=True, exist_ok=True)
        world.barrier()
        resumed = self._resume()
        with RunLog(options.out, world.main, options.tensorboard) as log, self._signals():
            log.record("start", resumed=resumed, world=world.size, recipe=self.recipe.to_dict())
            if resumed:
                log.say(f"resumed at epoch {self.at.epoch}, step {self.at.step} of {self.steps}")
            self.clock = time.monotonic()
            while self.fraction() < 1 and not self.stop:
                self._epoch(log)
            if self.stop:
                self._save(None)
                log.say("interrupted; the same command resumes")
            else:
                log.say(f"finished after {duration(self.at.seconds)}: {_text(self.best)}")
            log.record("end", None, finished=not self.stop, seconds=self.at.seconds, **self.best)
        return self.best

    def _epoch(self, log: RunLog) -> None:
        phase = self.phase()
        if phase is not None:
            self.task.enter_phase(phase)
        self.sampler.set_position(self.at.epoch, self.at.step * self.recipe.train.accumulation)
        log.bar(f"epoch {self.at.epoch}", self.steps, self.at.step)
        self.task.wrapped.train()
        saved = self.at.seconds
        losses: list[Tensor] = []
        stream = iter(self.batches)
        reported = time.monotonic()
        while self.at.step < self.steps and self.fraction() < 1:
            losses.append(self._step(stream))
            self._tick()
            if len(losses) >= self.options.log_every or self.at.step == self.steps:
                rate = len(losses) * self.recipe.train.batch / (time.monotonic() - reported)
                self._report(log, losses, rate)
                losses, reported = [], time.monotonic()
            if self.stop:
                return
            if self.at.seconds - saved > 60 * self.options.save_minutes:
                self._save(None)
                saved = self.at.seconds
        self.at.epoch, self.at.step = self.at.epoch + 1, 0
        self._finish_epoch(log)

    def _step(self, stream: Iterator[Any]) -> Tensor:
        train, device = self.recipe.train, self.world.device
        checkpointing.seed_step(train.seed, self.at.total, self.world.rank)
        scale_lr(self.optimizer, self.lr_factor())
        total = torch.zeros((), device=device)
        for part in range(train.accumulation):
            batch = next(stream)
            last = part == train.accumulation - 1
            quiet = contextlib.nullcontext() if last or self.world.size == 1 else self.task.wrapped.no_sync()  # type: ignore[operator]
            with quiet:
                with torch.autocast(device.type, DTYPES.get(train.precision), enabled=train.precision in DTYPES):
                    loss = self.task.loss(batch)
                self.scaler.scale(loss / train.accumulation).backward()
            total += loss.detach() / train.accumulation
        clip = self.recipe.optimizer.clip
        if clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.model.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.at.step += 1
        self.at.total += 1
        self.task.after_step(self.fraction())
        return total

    def _tick(self) -> None:
        """Advance the clock of the first process and stop everywhere when one process was told to."""
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        shared = self.world.sum(
            torch.tensor([seconds if self.world.main else 0.0, float(self.stop)], device=self.world.device)
        )
        self.at.seconds += float(shared[0])
        self.stop = bool(shared[1] > 0)

    def _report(self, log: RunLog, losses: list[Tensor], rate: float) -> None:
        loss = float(self.world.mean(torch.stack(losses).mean()))
        if not math.isfinite(loss):
            raise RecipeError(
                "The loss must stay finite.",
                found=f"{loss} at epoch {self.at.epoch}, step {self.at.step}",
                remedy="a lower optimizer.lr, a longer schedule.warmup or optimizer.clip=1; then resume",
            )
        fraction = self.fraction()
        left = self.at.seconds * (1 - fraction) / fraction if fraction else math.inf
        lr = self.optimizer.param_groups[-1]["lr"]
        log.record("step", self.at.total, epoch=self.at.epoch, loss=loss, lr=lr, images_per_second=rate, done=fraction)
        note = f"loss {loss:.3f}  lr {lr:.2e}  {rate:.0f} images/s"
        log.advance(self.at.step, note)
        if log.progress is None:
            log.say(f"epoch {self.at.epoch} {self.at.step}/{self.steps}  {note}  {fraction:.0%}, {duration(left)} left")

    def _finish_epoch(self, log: RunLog) -> None:
        is_best = False
        if self.at.epoch % self.options.eval_every == 0 or self.fraction() >= 1:
            metrics = self.task.validate()
            if metrics:
                is_best = self.task.better(metrics, self.best)
                self.best = metrics if is_best else self.best
                log.record("validation", self.at.total, epoch=self.at.epoch, done=self.fraction(), **metrics)
                log.say(f"epoch {self.at.epoch} validation: {_text(metrics)}{' (best)' if is_best else ''}")
        self._save(self.at.epoch - 1, is_best)

    # ---------------------------------------------------------------- checkpoints

    def _save(self, epoch: int | None, is_best: bool = False) -> None:
        """Write the rolling checkpoint, and the kept ones when `epoch` (0-based) is finished."""
        if not self.world.main:
            return
        resume = {
            "recipe": self.recipe.to_dict(),
            "world_size": self.world.size,
            "epoch": self.at.epoch,
            "step": self.at.step,
            "total": self.at.total,
            "seconds": self.at.seconds,
            "best": self.best,
        }
        outer = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            checkpointing.RESUME_KEY: resume,
        }
        checkpoint = self.task.checkpoint(self.at.epoch - 1 if epoch is None else epoch, outer)
        kept = [] if epoch is None else self.task.files(epoch, is_best)
        for name in [*kept, self.options.rolling]:
            checkpointing.save(checkpoint, self.options.out / name)

    def _resume(self) -> bool:
        path = self.options.out / self.options.rolling
        if not path.is_file():
            return False
        raw = checkpointing.load(
            path, self.recipe.to_dict(), None if self.options.allow_world_size else self.world.size
        )
        stored = raw[checkpointing.RESUME_KEY]
        self.task.restore(raw)
        self.optimizer.load_state_dict(raw["optimizer"])
        self.scaler.load_state_dict(raw["scaler"])
        self.at = Position(stored["epoch"], stored["step"], stored["total"], stored["seconds"])
        self.best = dict(stored["best"])
        return True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the current step, with a checkpoint; a second Ctrl-C ends it at once."""

        def handler(number: int, _: Any) -> None:
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True

        previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, old in previous.items():
                signal.signal(number, old)


def _text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()) or "no validation"
