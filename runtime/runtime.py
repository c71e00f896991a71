"""Runtime: a loaded model and the four stages from a frame to its result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cast_sdk import bundled
from cast_sdk.arguments import one_of, shown
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.hub import names
from cast_sdk.runtime import preprocess
from cast_sdk.runtime.backends.base import Backend, run_padded
from cast_sdk.runtime.backends.named import named_file
from cast_sdk.runtime.backends.opening import is_checkpoint, open_backend
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.preprocess import FITS, Fit, Prepared
from cast_sdk.runtime.result import Segmentation
from cast_sdk.spec import Grouping, ModelSpec

if TYPE_CHECKING:
    from cast_sdk.runtime.streaming import Stream
    from cast_sdk.runtime.tracking.film import Film

GROUPINGS = ("auto", "assigned", "merged")
_MAX_BATCH = 16  # of a model with a dynamic batch; more gains nothing and costs memory


class Runtime:
    """A loaded model, ready for frames.

    `segment` is all most programs need. The stages (`prepare`, `add_superpixels`, `infer`, `finish`) can be called one
    by one and from different threads; `stream` does that. A model from a file is run once before the constructor
    returns, so that the first frame takes no longer than the others.

    Args:
        model: an `.onnx`, `.engine`, `.pth`, `.pth.tar` or `.safetensors` file; a published name such as
            "cast_small.deit_in1k" or an hf:// address, which is downloaded, exported once with torch and run from the
            cache from then on; or an open backend. None: the bundled model.
        backend: "auto" chooses by the suffix; or "onnxruntime", "openvino", "tensorrt", "torch".
        device: "auto", "cpu" or "cuda".
        fit: "stretch" resizes the whole frame to the model's size; "crop" is the reference's evaluation (short side
            256, centre 224): pixels outside the crop get label -1.
        grouping: how levels are made of the network's output (`ModelSpec.grouping`): "auto" as the model says; "merged"
            needs a checkpoint, or a graph with soft assignments.
        threads: CPU threads of the network; None: the cores of this process, at most 8.
        spinning: let idle threads of ONNX Runtime spin during a run; None: for a moment, see `open_backend`.
        export: options of the export of a name: batch, image_size, precision ("fp32", "fp16"), soft_assignments,
            stage, superpixels, tokens, as `export_onnx` has them.
        options: further options of one backend, see `open_backend`.

    Raises:
        ArtifactError, InputError, MissingDependencyError: see `open_backend`.
        CheckpointError, ExportError: a name that cannot be downloaded or exported, see `backends.named`.

    Examples:
        >>> rt = Runtime("cast_s.onnx")  # doctest: +SKIP
        >>> rt.segment("dog.jpg").top(1)  # doctest: +SKIP
        [(207, 'golden retriever', 0.93)]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Backend | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        fit: Fit = "stretch",
        grouping: Literal["auto", "assigned", "merged"] = "auto",
        threads: int | None = None,
        spinning: bool | None = None,
        export: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        one_of(fit, "fit", FITS)
        one_of(grouping, "grouping", GROUPINGS)
        self.fit: Fit = fit
        start = perf_counter()
        if model is None:
            model = bundled.path(bundled.MODEL)
        source, opened_from = None, model
        if isinstance(model, (str, os.PathLike)):
            source = names.find(model)
            model = named_file(model, backend, export) or model
            opened_from = os.path.abspath(model)  # noqa: PTH100 - a link may lead elsewhere later
        elif export:
            raise InputError("export= was given for an open backend.", remedy="it is for names; leave it out")
        self._arguments: dict[str, Any] = {
            "model": opened_from,
            "backend": backend,
            "device": device,
            "fit": fit,
            "grouping": grouping,
            "threads": threads,
            "spinning": spinning,
            **options,
        }
        if isinstance(model, (str, os.PathLike)):
            self.path: str | None = os.fspath(model)
            if grouping == "merged" and is_checkpoint(model, backend):
                options.setdefault("soft_assignments", True)
            self.backend: Backend = open_backend(model, backend, device, threads=threads, spinning=spinning, **options)
            self.backend.spec = names.credited(self.backend.spec, source)
        else:
            if not isinstance(model, Backend):
                raise InputError(
                    f"The model is {shown(model)}, not a file or an open backend.",
                    remedy='name a file: Runtime("cast_s.onnx")',
                )
            if (backend, device) != ("auto", "auto") or threads is not None or spinning or options:
                raise InputError(
                    "The backend is open already and takes no options.", remedy="give them where it is opened"
                )
            self.path, self.backend = None, model
        self.grouping: Grouping = self.spec.grouping if grouping == "auto" else grouping
        self._check_grouping()
        self._closed = False
        if self.path is not None:
            self._warm_up()
        self.load_ms = (perf_counter() - start) * 1e3

    @property
    def spec(self) -> ModelSpec:
        """The model's description."""
        return self.backend.spec

    @property
    def info(self) -> ExportInfo:
        """Static shapes and precision of the graph."""
        return self.backend.info

    @property
    def device(self) -> str:
        """What the network runs on: "cpu" or "cuda"."""
        return self.backend.device

    def segment(self, frame: Frame) -> Segmentation:
        """Class, embedding and nested segments of one frame.

        Args:
            frame: uint8 [h, w, 3] BGR as OpenCV gives it (also [h, w] and [h, w, 1] grey, and [h, w, 4] BGRA, whose
                alpha is left out); a path; the bytes of an image file; a file object opened in binary mode, such as
                BytesIO, read from where it stands; an http or https address (at most 64 MiB, 30 s and 5 redirects); a
                PIL image; or a torch tensor, RGB or grey, uint8 or float in 0..1, [3, h, w] or [h, w, 3].

        Raises:
            InputError: for anything else, and for what cannot be read or can be read in two ways.
        """
        return self.segment_batch([frame])[0]

    def segment_batch(self, frames: Iterable[Frame]) -> list[Segmentation]:
        """Results of several frames, in order; each is what `segment` gives for it alone.

        Pays where the network takes several images at once: an export with `batch=None` (any number) or a fixed batch,
        on a GPU above all. All frames are held in memory together; for many, use `stream` or call it in parts.

        Args:
            frames: each as `segment` takes it, of any sizes and kinds; an empty list gives an empty list. One array
                uint8 [n, h, w, 3] BGR is a batch too.

        Raises:
            InputError: for anything else, and when one of them cannot be used; then none is segmented.
        """
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise InputError(
                f"The frames are one array of shape {frames.shape}.", remedy="call segment(frame), or give [frame]"
            )
        if isinstance(frames, (str, bytes, os.PathLike)) or not isinstance(frames, Iterable):
            raise InputError(
                f"The frames are {shown(frames)}, not a sequence of frames.",
                remedy="call segment(frame), or give a list",
            )
        if not isinstance(frames, (list, tuple, np.ndarray)):  # what is made one by one may use one buffer for all
            from cast_sdk.runtime.sources.files import own

            frames = map(own, frames)
        prepared = [self.add_superpixels(self.prepare(frame)) for frame in frames]
        return [self.finish(item, row) for item, row in zip(prepared, self.infer(prepared), strict=True)]

    def stream(self, source: str | int | os.PathLike[str] | Iterable[Frame], **options: Any) -> Stream:
        """Results of a camera, video, folder or any iterable of frames, pipelined and in order.

        See `cast_sdk.runtime.streaming.stream` for the options.
        """
        from cast_sdk.runtime.streaming import stream

        return stream(self, source, **options)

    def _check_grouping(self) -> None:
        missing = [name for name in self._assignments() if name not in self.info.outputs]
        if self.grouping == "merged" and (missing or not self.spec.hierarchical):
            if self.path is not None:  # opened here
                self.backend.close()
            raise InputError(
                f"The levels of {self.spec.name} cannot be merged.",
                found=f"no outputs {', '.join(missing)}" if missing else "a model without levels",
                remedy="export it with --soft-assignments" if missing else 'leave grouping="merged" out',
            )

    def _assignments(self) -> list[str]:
        return [f"assignment{number}" for number in range(1, len(self.spec.clusters) + 1)]

    def _warm_up(self) -> None:
        """One picture of noise through all stages but the last: first runs allocate, and load what is loaded late."""
        shape = (self.info.height, self.info.width, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.infer([self.add_superpixels(self.prepare(noise))])

    def prepare(self, frame: Frame) -> Prepared:
        """First stage: read, check, resize. Thread-safe."""
        size = (self.info.height, self.info.width)
        return preprocess.prepare(frame, size, self.fit, cubic=self.spec.positions == "learned")

    def add_superpixels(self, prepared: Prepared, film: Film | None = None) -> Prepared:
        """Second stage: superpixels with the settings of the model's family, into `prepared`.

        Thread-safe without `film`, which takes the frames of one film in order and may continue their superpixels.
        """
        start = perf_counter()
        if self.spec.uses_superpixels:
            if film is not None:
                film.add(prepared)
            else:
                from cast_sdk.superpixels import superpixels_for

                prepared.superpixels = superpixels_for(prepared.image, self.spec.superpixels)
            assert prepared.superpixels is not None
            highest = int(prepared.superpixels.max())
            if highest >= self.info.num_superpixels:
                raise InputError(
                    f"The image has {highest + 1} superpixels, and the model takes {self.info.num_superpixels}.",
                    remedy="export the model again with the size and superpixel settings it is run with",
                )
        else:
            prepared.superpixels = np.zeros(prepared.image.shape[:2], np.int32)
        prepared.timing["superpixels"] = (perf_counter() - start) * 1e3
        return prepared

    def infer(self, prepared: Sequence[Prepared]) -> list[dict[str, np.ndarray]]:
        """Third stage: the network. One row of outputs per frame; a static batch is filled up and cut again."""
        if self._closed:
            raise InputError("This Runtime is closed.", remedy="create a new Runtime")
        rows: list[dict[str, np.ndarray]] = []
        step = self.info.batch or min(max(len(prepared), 1), _MAX_BATCH)
        for begin in range(0, len(prepared), step):
            part = list(prepared[begin : begin + step])
            start = perf_counter()
            image = np.stack([item.image for item in part])
            superpixels = np.stack([_superpixels(item) for item in part])
            outputs = run_padded(self.backend, image, superpixels)
            elapsed = (perf_counter() - start) * 1e3 / len(part)
            for index, item in enumerate(part):
                item.timing["model"] = elapsed
                rows.append({name: value[index] for name, value in outputs.items()})
        return rows

    def finish(self, prepared: Prepared, outputs: dict[str, np.ndarray]) -> Segmentation:
        """Last stage: the hierarchy and the result of one frame. Thread-safe.

        Raises:
            ArtifactError: when the model's numbers are not finite or its levels do not nest.
        """
        start = perf_counter()
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ArtifactError(
                    f"The model's output {name!r} is NaN or infinite.",
                    found=repr(self),
                    remedy="export it again in fp32, with verification, and compare",
                )
        classes = outputs.get("semantic")
        if classes is not None and not 0 <= classes.min() <= classes.max() < max(1, self.spec.num_classes):
            raise ArtifactError(
                f"The model gives classes {classes.min()}..{classes.max()} and describes {self.spec.num_classes}.",
                remedy="export it again",
            )
        hierarchy = None
        if self.spec.uses_superpixels:
            superpixels = _superpixels(prepared)
            if self.grouping == "merged":
                from cast_sdk.superpixels import merged_levels

                assignments = [outputs[name] for name in self._assignments()]
                levels = merged_levels(prepared.image, superpixels, assignments)
            else:
                levels = [outputs[f"level{n + 1}"] for n in range(len(self.spec.clusters))]
            hierarchy = Hierarchy.from_labels(superpixels, levels)
        timing = prepared.timing
        result = Segmentation(
            spec=self.spec,
            geometry=prepared.geometry,
            hierarchy=hierarchy,
            outputs=outputs,
            frame=prepared.frame,
            timing=timing,
            source=prepared.source,
            scene=prepared.scene,
        )
        timing["postprocess"] = (perf_counter() - start) * 1e3
        timing["total"] = sum(value for stage, value in timing.items() if stage != "total")
        return result

    def close(self) -> None:
        """Free the model. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self.backend.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as for a spawned process, a Runtime is its file and its options; unpickling opens it again."""
        if self.path is None:
            raise InputError(
                "A Runtime of an open backend cannot be pickled or copied.", remedy="make it from a file: Runtime(PATH)"
            )
        return _open_again, (self._arguments,)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return (
            f"Runtime({self.spec.name}, {type(self.backend).__name__} on {self.device}, "
            f"{info.precision}, {info.height}x{info.width}, {info.num_superpixels} superpixels)"
        )


def _open_again(arguments: dict[str, Any]) -> Runtime:
    return Runtime(**arguments)


def _superpixels(prepared: Prepared) -> np.ndarray:
    if prepared.superpixels is None:
        raise InputError("The frame has no superpixels yet.", remedy="call add_superpixels between prepare and infer")
    return prepared.superpixels
