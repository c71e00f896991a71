"""Is the exported graph the model? Reference in torch against ONNX Runtime, on real images.

Labels come from arg-maxima, sampling from the farthest of many points and merging from the most similar pairs, so a
difference in the last bit decides where two candidates are equal. Differences in such near ties are counted apart, by
the reference alone, which runs in float32 and in float64:

    a superpixel   whose two best segments differ by less than `TIE_GAP` in pooling logits (5 x cosine), at this or a
                   finer level
    an image       whose sampler had two points within rounding of each other (`clearly_sampled`), at this or a finer
                   level; for errors, one that float32 itself moves beyond the bar

The bars apply to all others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cast_sdk.errors import ExportError
from cast_sdk.export.verification.photos import Inputs, Progress
from cast_sdk.export.verification.report import Check, Report
from cast_sdk.models.cast import CastOutput, Level
from cast_sdk.runtime.backends.feeding import Feeder
from cast_sdk.runtime.backends.onnxruntime import import_onnxruntime, session_options
from cast_sdk.runtime.backends.ports import ASSIGNMENT, POSITIONS
from cast_sdk.spec import ModelSpec

Arrays = dict[str, npt.NDArray[Any]]
TIE_GAP = 1e-4
TIE_MARGIN = 5e-6


@dataclass(frozen=True)
class Bars:
    """What a float32 graph must reach."""

    error: float = 1e-4  # of embedding and logits, relative to the largest magnitude
    images: float = 0.98  # share of images with equal labels
    superpixels: float = 0.999  # share of superpixels with equal labels


def run_reference(
    model: nn.Module, spec: ModelSpec, inputs: Inputs, count: int, dtype: torch.dtype = torch.float32
) -> Iterator[CastOutput]:
    """The training model, whose parameters are of this dtype, image by image."""
    mean, std = (torch.tensor(values, dtype=dtype).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    was_training = model.training
    model.eval()
    try:
        for image, labels in zip(inputs.image, inputs.superpixels, strict=True):
            pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2).to(dtype) / 255
            with torch.inference_mode():
                output = model((pixels - mean) / std, torch.from_numpy(labels)[None].long(), count or None)
            yield output  # outside: the mode is the thread's, and whoever reads along would run in it
    finally:
        model.train(was_training)


def open_session(model: bytes, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU; 0 threads: as many as there are cores."""
    onnxruntime = import_onnxruntime()
    options = session_options(onnxruntime, threads)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: Inputs, batch: int | None) -> Iterator[Arrays]:
    """Outputs per image (no batch axis). A static batch is filled up with the last image; a dynamic one gets two."""
    names = [value.name for value in session.get_outputs()]
    shapes = {value.name: tuple(value.shape[1:]) for value in session.get_inputs()}
    feeder = Feeder(shapes, {name: shapes[name] for name in (ASSIGNMENT, POSITIONS) if name in shapes})
    step = batch or 2
    for begin in range(0, len(inputs), step):
        chosen = np.minimum(np.arange(begin, begin + step), len(inputs) - 1)
        with feeder.feed(inputs.image[chosen], inputs.superpixels[chosen]) as feed:
            values = session.run(names, feed)
        for row in range(min(step, len(inputs) - begin)):
            yield {name: value[row] for name, value in zip(names, values, strict=True)}


def verify(
    model: nn.Module,
    spec: ModelSpec,
    graph: bytes,
    inputs: Inputs,
    *,
    batch: int | None,
    count: int,
    sampled_graph: bytes | None = None,
    bars: Bars | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare a float32 graph with the model it came from.

    Args:
        model: the training model.
        spec: the description at the graph's input size.
        graph: the file that is shipped.
        inputs: real images, prepared.
        batch: of the graph; None: dynamic.
        count: S.
        sampled_graph: the same graph with the extra outputs `sampled1..4`.
        progress: called with (images done, total).
    """
    onnxruntime = import_onnxruntime()
    runs = [run_session(open_session(graph), inputs, batch)]
    if sampled_graph is not None:
        runs.append(run_session(open_session(sampled_graph), inputs, batch))
    return Report(
        len(inputs),
        f"torch {torch.__version__} (eager, float32)",
        f"onnxruntime {onnxruntime.__version__}",
        verify_outputs(model, spec, inputs, runs, count, bars, progress),
    )


def verify_outputs(
    model: nn.Module,
    spec: ModelSpec,
    inputs: Inputs,
    runs: Sequence[Iterator[Arrays]],
    count: int,
    bars: Bars | None = None,
    progress: Progress | None = None,
) -> list[Check]:
    """Compare what a float32 artifact gives with the model it came from. Arguments as of `verify`.

    Args:
        runs: outputs of each image, without batch axis: of the artifact, and perhaps of one with `sampled1..4`.
    """
    bars = bars or Bars()
    tally = _Tally(spec)
    reference = run_reference(model, spec, inputs, count)
    exact = run_reference(copy.deepcopy(model).double(), spec, inputs, count, torch.float64)
    for number, (expected, precise, *found) in enumerate(zip(reference, exact, *runs, strict=True), 1):
        sampled = {k: v for k, v in found[1].items() if k.startswith("sampled")} if len(found) > 1 else {}
        tally.add(expected, precise, found[0] | sampled)
        if progress is not None:
            progress(number, len(inputs))
    return tally.checks(bars)


@dataclass(frozen=True)
class Difference:
    """One output of one image."""

    found: float  # largest difference of the graph from the reference in float32
    rounding: float  # that of the reference in float64
    magnitude: float

    def tied(self, bar: float) -> bool:
        """Float32 alone moves the reference beyond the bar: it decided something."""
        return min(self.found, self.rounding) > bar * self.magnitude


class _Tally:
    """Collects the comparison of one image after another."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.errors: dict[str, list[Difference]] = {}
        self.equal: dict[str, list[npt.NDArray[np.bool_]]] = {}
        self.decided: dict[str, list[npt.NDArray[np.bool_]]] = {}

    def add(self, expected: CastOutput, exact: CastOutput, found: Arrays) -> None:
        values, doubles = _numbers(expected), _numbers(exact)
        for name in values:
            if name in found:
                self._error(name, found[name], values[name], doubles[name])
        if not all(np.isfinite(found[name]).all() for name in found if found[name].dtype.kind == "f"):
            raise ExportError(
                "The exported graph gives outputs that are NaN or infinite.",
                remedy="check the checkpoint for such weights; in half precision, export with --precision fp32",
            )
        clear_image = True
        for number, (clear_image, clear) in enumerate(clear_labels(expected, exact), 1):
            level = expected.levels[number - 1]
            self._labels(f"level{number}", found[f"level{number}"], level.labels[0].numpy(), clear & clear_image)
            if f"sampled{number}" in found:
                sampled = level.sampled[0].numpy()
                self._labels(
                    f"sampled{number}", found[f"sampled{number}"], sampled, np.full(sampled.shape, clear_image)
                )
        if "semantic" in found and expected.dense is not None:
            scores = expected.dense[0].numpy()
            best = np.sort(scores, axis=-1)[:, -2:]
            decided = (best[:, 1] - best[:, 0] >= TIE_GAP * np.abs(scores).max()) & clear_image
            self._labels("semantic", found["semantic"], scores.argmax(-1), decided)

    def _error(self, name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], exact: npt.NDArray[Any]) -> None:
        error, rounding = (float(np.abs(other.astype(np.float64) - expected).max()) for other in (found, exact))
        self.errors.setdefault(name, []).append(Difference(error, rounding, float(np.abs(expected).max())))

    def _labels(
        self, name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], decided: npt.NDArray[np.bool_]
    ) -> None:
        self.equal.setdefault(name, []).append(found == expected)
        self.decided.setdefault(name, []).append(np.broadcast_to(decided, expected.shape))

    def checks(self, bars: Bars) -> list[Check]:
        checks = []
        for name, errors in self.errors.items():
            clear = [error for error in errors if not error.tied(bars.error)] or errors
            worst, largest = max(error.found for error in clear), max(error.magnitude for error in clear)
            value = worst / max(largest, 1e-12)
            checks.append(Check(name, "error", value, bars.error, len(clear), len(errors) - len(clear)))
        for name, equal in self.equal.items():
            checks += label_checks(name, equal, self.decided[name], bars)
        return checks


def _numbers(output: CastOutput) -> Arrays:
    """Float outputs of one image by their names in the graph."""
    values = {"embedding": output.embedding, **output.scores}
    if output.dense is not None:
        values["dense"] = output.dense
    values |= {f"assignment{number}": level.logits.softmax(-1) for number, level in enumerate(output.levels, 1)}
    return {name: value[0].numpy() for name, value in values.items()}


def label_checks(
    name: str, equal: list[npt.NDArray[np.bool_]], clear: list[npt.NDArray[np.bool_]], bars: Bars
) -> list[Check]:
    """Rows of one label output: shares of images and of superpixels, near ties that differ left out.

    Args:
        name: of the output.
        equal: per image, which labels are equal: bool [S].
        clear: per image, which labels are no near tie: bool [S].

    An output whose items all differ in near ties has nothing to show, and its row (0 over 0) does not pass.
    """
    pairs = list(zip(equal, clear, strict=True))
    images = [bool((same | ~sure).all()) for same, sure in pairs if sure.any() or same.all()]
    share = float(np.mean(images)) if images else 0.0
    checks = [Check(name, "images", share, bars.images, len(images), len(pairs) - len(images))]
    if not name.startswith("sampled"):
        same, sure = np.concatenate(equal), np.concatenate(clear)
        decided = sure | same
        share = float(same[decided].mean()) if decided.any() else 0.0
        count = int(decided.sum())
        checks.append(Check(name, "superpixels", share, bars.superpixels, count, len(same) - count))
    return checks


def clear_labels(expected: CastOutput, exact: CastOutput) -> Iterator[tuple[bool, npt.NDArray[np.bool_]]]:
    """What rounding cannot change in the levels of one image, fine to coarse.

    Args:
        expected: the reference in float32.
        exact: the reference in float64.

    Yields:
        per level: whether the sampling of this level, and of those before, is no near tie; and the superpixels whose
        label at this level, and at those before, is none: bool [S].
    """
    empty = None if expected.empty is None else expected.empty[0]
    clear_image, clear = True, np.ones(1, bool)
    for number, (level, precise) in enumerate(zip(expected.levels, exact.levels, strict=True), 1):
        clear_image = clear_image and clearly_sampled(level, precise, empty if number == 1 else None)
        clear = _clear_superpixels(level, expected.levels[number - 2] if number > 1 else None, clear)
        yield clear_image, clear


def _clear_superpixels(level: Level, before: Level | None, clear: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Superpixels whose label at this level, and at those before, is no near tie: bool [S]."""
    best = level.logits[0].topk(2, dim=-1).values
    own = (best[:, 0] - best[:, 1] >= TIE_GAP).numpy()
    return own if before is None else clear & own[before.labels[0].numpy()]


def clearly_sampled(level: Level, exact: Level, empty: Tensor | None) -> bool:
    """Whether rounding cannot change what a sampler chose. For arguments see `sampling_margin`.

    The choices in float32 and float64 are the same, and of every step's two best points the exact distances differ by
    more than `TIE_MARGIN` and by more than twice what float32 moves one of them anywhere.
    """
    if not torch.equal(level.sampled, exact.sampled):
        return False
    rounded, _ = _nearest_chosen(level, empty)
    nearest, scale = _nearest_chosen(exact, empty)
    best = nearest.topk(2, dim=0).indices
    rounding = ((rounded - nearest).gather(0, best).abs().amax(0) / scale).max()
    return sampling_margin(exact, empty) >= max(TIE_MARGIN, 2 * float(rounding))


def sampling_margin(level: Level, empty: Tensor | None) -> float:
    """How clearly the sampler that chose `level.sampled` preferred the best point to the second, over its worst step.

    In float64: the smallest (best - second) / (best + norm / 10), of squared distances to the nearest chosen point,
    with the larger squared norm of the two points. Rounding moves a distance by a share of itself, because the tokens
    are rounded, and by a tenth of that share of the norms, because it is computed as norms less products.

    Args:
        level: one image's (or the first image's) level.
        empty: bool [S] at level 1.
    """
    nearest, scale = _nearest_chosen(level, empty)
    best = nearest.topk(2, dim=0).values
    return float(((best[0] - best[1]) / scale).min())


def _nearest_chosen(level: Level, empty: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared distance of each token to the nearest one chosen before a step [S,K], and the step's scale [K]."""
    x = level.tokens[0].double()
    present = torch.ones(len(x), 1, dtype=x.dtype) if empty is None else (~empty)[:, None].to(x.dtype)
    x = (x - (x * present).sum(0) / present.sum().clamp(min=1)) * present
    norms = x.square().sum(1)
    distances = torch.cdist(x, x[level.sampled[0]]).square_()
    nearest = torch.cat([norms[:, None], distances], 1)[:, :-1].cummin(1).values
    best = nearest.topk(2, dim=0)
    return nearest, (best.values[0] + norms[best.indices].amax(0) / 10).clamp(min=1e-300)
