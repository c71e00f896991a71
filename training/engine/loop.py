"""The training loop every program here uses: it runs a `Task` (see task.py).

The loop owns what all recipes share: schedules, precision, accumulation, clocks, logs, checkpoints, resuming, signals.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cast_sdk.errors import CastError, NotFiniteError, RecipeError
from cast_sdk.system.files import kind_at
from cast_sdk.training.data.dataset import loader
from cast_sdk.training.engine import checkpointing, schedules
from cast_sdk.training.engine.optim import scale_lr
from cast_sdk.training.engine.options import Options
from cast_sdk.training.engine.recipe.settings import Phase
from cast_sdk.training.engine.runlog import RunLog, check_ours, duration, saved
from cast_sdk.training.engine.task import Task

_NAMED_EPOCHS = 10_000  # whose checkpoints are looked for before a new run
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Position:
    """How far a run is."""

    epoch: int = 0
    step: int = 0  # finished in this epoch
    total: int = 0  # finished in all epochs
    seconds: float = 0.0  # of training, over all starts


def run_task(task: Task, options: Options) -> dict[str, float]:
    """Train to the end of the recipe's schedule, or on from where OUT's checkpoint is. Returns the best metrics."""
    return Loop(task, options).run()


class Loop:
    def __init__(self, task: Task, options: Options) -> None:
        self.task, self.options, self.recipe, self.world = task, options, task.recipe, task.world
        self.sampler, self.optimizer = task.sampler(), task.optimizer()
        workers = 0 if task.in_memory else options.workers
        self.batches = loader(task.views, self.sampler, workers, pin=self.world.device.type == "cuda")
        self.at = Position()
        self.best: dict[str, float] = {}
        train = self.recipe.train
        self.steps = len(self.sampler) // train.accumulation  # optimizer steps per epoch
        if self.steps == 0:
            raise RecipeError(
                f"The batch ({train.batch}) is larger than the training split ({self.sampler.length} images).",
                remedy="--set train.batch=N with a smaller N",
            )
        torch.backends.cudnn.benchmark = train.cudnn_benchmark
        torch.backends.cudnn.allow_tf32 = train.tf32 != "off"
        torch.backends.cuda.matmul.allow_tf32 = train.tf32 == "all"
        device = self.world.device.type
        fp16 = train.precision == "fp16"
        if fp16 and device == "cpu":
            raise RecipeError(
                "train.precision is fp16, which needs a GPU.",
                found="device cpu",
                remedy="--set train.precision=bf16 (or fp32)",
            )
        self.scaler = torch.amp.GradScaler(device, enabled=fp16)
        self.stop = False
        self.losses: list[Tensor] = []  # of the steps since the last report or save
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
        if schedule.kind in ("deit", "hcast_april", "hcast_june"):
            epochs = schedules.period(schedule.kind, schedule.epochs)
            lr = schedules.deit_cosine(
                int(epoch), base, epochs, int(schedule.warmup), schedule.warmup_lr, schedule.minimum
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
        world.decided_by_main(lambda: options.out.mkdir(parents=True, exist_ok=True))
        resumed = self._resume()
        world.decided_by_main(lambda: self._check_folder(resumed))
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
        stream = iter(self.batches)
        reported = time.monotonic()
        while self.at.step < self.steps and self.fraction() < 1:
            self.losses.append(self._step(stream))
            self._tick()
            if len(self.losses) >= self.options.log_every or self.at.step == self.steps:
                rate = len(self.losses) * self.recipe.train.batch / (time.monotonic() - reported)
                self._report(log, rate)
                reported = time.monotonic()
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
                    loss = self._loss(batch)
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

    def _loss(self, batch: Any) -> Tensor:
        try:
            return self.task.loss(batch, self.fraction())
        except NotFiniteError as error:
            raise self._diverged("Tokens are NaN or infinite") from error
        except (CastError, RuntimeError, ValueError) as error:
            # Weights that are NaN make a loss fail in ways that do not say so.
            if not all(bool(value.isfinite().all()) for value in self.task.model.parameters()):
                raise self._diverged("Weights are NaN or infinite") from error
            raise

    def _tick(self) -> None:
        """Advance the clock of the first process and stop everywhere when one process was told to."""
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        if self.world.size == 1:  # nobody to ask, so nothing to wait for on a GPU
            self.at.seconds += seconds
            return
        shared = self.world.sum(
            torch.tensor([seconds if self.world.main else 0.0, float(self.stop)], device=self.world.device)
        )
        self.at.seconds += float(shared[0])
        self.stop = bool(shared[1] > 0)

    def _mean_loss(self) -> float:
        """Of the steps since the last report, over all processes.

        Raises:
            RecipeError: it is NaN or infinite: the training has diverged. The same on every process.
        """
        loss = float(self.world.mean(torch.stack(self.losses).mean()))
        if not math.isfinite(loss):
            raise self._diverged(f"The loss is {loss}")
        return loss

    def _check_weights(self) -> None:
        """Raises RecipeError before weights that are NaN or infinite replace those of the last checkpoint."""
        state = self.task.model.state_dict()
        bad = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
        anywhere = self.world.sum(torch.tensor(float(bool(bad)), device=self.world.device))
        if bool(anywhere > 0):
            named = f" ({bad[0]})" if bad else ""
            raise self._diverged(f"Weights are NaN or infinite{named}")

    def _diverged(self, what: str) -> RecipeError:
        kept = self.options.out / self.task.rolling
        return RecipeError(
            f"{what} at epoch {self.at.epoch}, step {self.at.step}: the training has diverged.",
            found=f"{kept} is as it was last saved" if kept.is_file() else "nothing was saved before",
            remedy="a lower optimizer.lr, a longer schedule.warmup or optimizer.clip=1",
        )

    def _report(self, log: RunLog, rate: float) -> None:
        loss = self._mean_loss()
        self.losses = []
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
                kept = " (best)" if is_best and self.task.best_file else ""
                log.say(f"epoch {self.at.epoch} validation: {_text(metrics)}{kept}")
        self._save(self.at.epoch - 1, is_best)

    # ---------------------------------------------------------------- checkpoints

    def _save(self, epoch: int | None, is_best: bool = False) -> None:
        """Write the rolling checkpoint, and the kept ones when `epoch` (0-based) is finished.

        Raises:
            RecipeError: the training has diverged; nothing is written then.
        """
        if self.losses:
            self._mean_loss()
        self._check_weights()
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
        kept = [] if epoch is None else self.task.files(epoch, is_best, self.fraction())
        for name in [*kept, self.task.rolling]:
            checkpointing.save(checkpoint, self.options.out / name)

    def _check_folder(self, resumed: bool) -> None:
        """Files of others stay. The first process looks, as it writes into the folder at once afterwards.

        Raises:
            RecipeError: a log of something else, or files that a new run would replace.
        """
        out = self.options.out
        log = out / "log.jsonl"
        check_ours(log)
        # A log of a run that was killed before the end of its first save: it begins again.
        if resumed or (kind_at(log) == "file" and not saved(out)):
            return
        epochs = range(min(max(self.recipe.schedule.epochs, self.recipe.schedule.steps or 0), _NAMED_EPOCHS))
        names = (name for epoch in epochs for name in self.task.files(epoch, True, float(epoch == epochs[-1])))
        checkpointing.check_new(out, self.task.rolling, names)

    def _resume(self) -> bool:
        raw = self.world.decided_by_main(self._stored)
        if raw is None:
            return False
        path = self.options.out / self.task.rolling
        stored = checkpointing.resume_entry(raw, path)
        with checkpointing.restoring(path):
            self.task.restore(raw)
            self.optimizer.load_state_dict(raw["optimizer"])
            self.scaler.load_state_dict(raw["scaler"])
        if stored.step > self.steps:
            raise RecipeError(
                f"{path} is at step {stored.step} of an epoch, which has {self.steps} now.",
                remedy="resume with the same data, or start another --out",
            )
        self.at = Position(stored.epoch, stored.step, stored.total, stored.seconds)
        self.best = dict(stored.best)
        return True

    def _stored(self) -> dict[str, Any] | None:
        """The rolling checkpoint where there is one. The first process looks, so no other needs the file."""
        path = self.options.out / self.task.rolling
        if not path.is_file():
            return None
        size = None if self.options.allow_world_size else self.world.size
        return checkpointing.load(path, self.recipe.to_dict(), size)

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
