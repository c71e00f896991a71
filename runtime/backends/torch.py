"""torch: runs checkpoints directly, without an export. The only backend that imports torch."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.feeding import Feeder, matrix_shapes
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.runtime.backends.ports import expected_inputs
from cast_sdk.runtime.backends.torch_graphs import StaticRuns, TorchGpu
from cast_sdk.runtime.backends.torch_settings import check_precision, exact_float32
from cast_sdk.spec import ModelSpec, Stage
from cast_sdk.system.installing import pip_install

Arrays = dict[str, np.ndarray]


class TorchBackend(StaysBehind):
    """A checkpoint in torch. See `Backend`. Thread-safe: runs come one after another.

    The model is lowered as for an export: the same numbers from fewer operators, none of which waits for a value. On a
    GPU it runs from pinned buffers on a stream of its own and replays a CUDA graph for each of the first batch sizes.

    Args:
        path: any checkpoint that `cast_sdk.load_model` opens.
        device: "auto" takes CUDA when torch has it.
        threads: number of torch's threads, a setting of the whole process; None leaves it alone.
        stage: passed to `load_model`, for `cast_seg_*` checkpoints.
        precision: "fp32" (never TF32), or products in "bf16" or "fp16" between float32 islands: bf16 on GPUs and on
            processors that compute with it, fp16 on GPUs. Segment labels change on many images.
        eager: run the training model itself, operator by operator and in fp32: for comparisons.
        soft_assignments: also give `assignment1..4`, as models whose levels are merged do.
        cuda_graph: None: replay a CUDA graph where capturing works, with a warning where it does not; True: insist;
            False: never.

    Raises:
        CheckpointError: see `load_model`.
        InputError: for options that do not fit each other or the device.
        MissingDependencyError: without torch, a GPU or the bfloat16 instructions that were asked for.
        EngineError: when a CUDA graph was insisted on and cannot be had.
    """

    engine_name = "torch"
    native = ("_run",)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        stage: Stage | None = None,
        precision: str = "fp32",
        eager: bool = False,
        soft_assignments: bool = False,
        cuda_graph: bool | None = None,
    ) -> None:
        torch = import_torch(path)
        if device == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError(
                "torch cannot use a GPU here.",
                found=f"torch {torch.__version__} without a usable GPU",
                remedy="use device='cpu', or install torch's CUDA build",
            )
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        check_precision(precision, self.device)
        if eager and precision != "fp32":
            raise InputError(
                f"eager=True and precision={precision!r} were given together.",
                remedy="leave eager out: the training model runs in fp32 alone",
            )
        if cuda_graph and (eager or self.device == "cpu"):
            raise InputError(
                "cuda_graph=True was given for " + ("eager=True." if eager else "the CPU."),
                remedy="leave cuda_graph out",
            )
        if threads is not None:
            torch.set_num_threads(threads)
        from cast_sdk.models import load_model

        model: Any = load_model(path, stage=stage, sampler="matrix" if self.device == "cuda" else "float64")
        model = model.eval()
        self._lock = threading.Lock()
        self._run: Any
        if eager:
            self._run = Eager(torch, model, self.device, soft_assignments)
        else:
            self._run = Static(torch, model, self.device, precision, cuda_graph, soft_assignments)
        self.spec: ModelSpec = self._run.spec
        self.info: ExportInfo = self._run.info
        watch(self)

    @property
    def timing(self) -> dict[str, float]:
        """Milliseconds of the last run on a GPU: "upload", "compute", "download", "gpu" by its clock; "wall"."""
        return dict(getattr(self._run, "timing", {}))

    @property
    def graphs(self) -> list[int]:
        """Batch sizes that replay a CUDA graph."""
        return list(getattr(self._run, "graphs", []))

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> Arrays:
        check_batch(self.info, image, superpixels)
        with self._lock:
            self.check_process()
            if self._run is None:
                raise InputError("This backend is closed.", remedy="open the model again")
            if self.spec.uses_superpixels:
                check_labels(superpixels, self.info.num_superpixels)
            outputs: Arrays = self._run(image, superpixels)
            return outputs

    def close(self) -> None:
        with self._lock:
            if self._run is not None:
                self._run.close()
            self.drop()


class Static:
    """The lowered model. On the CPU segmentation models take what superpixels make of the image from the C++ kernel."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        device: str,
        precision: str,
        cuda_graph: bool | None,
        soft_assignments: bool = False,
    ) -> None:
        from cast_sdk.export.lowering.lower import Shipped, lower
        from cast_sdk.export.lowering.options import export_info, graph_options
        from cast_sdk.superpixels.kernels import native_library

        target = "cpu" if device == "cpu" and native_library() is not None else "any"
        self.spec, options = graph_options(
            model.spec,
            batch=None,
            precision=precision,
            target=target,
            tokens=bool(model.spec.dense),
            soft_assignments=soft_assignments,
        )
        # Of what comes with tokens, the class scores of a dense head are wanted, as Eager has them.
        module = Shipped(lower(model, options, self.spec), without=("tokens",))
        self.info = export_info(options, module.output_names, created_by=f"torch {torch.__version__}")
        self._torch = torch
        self._module: Any = module.to(device).to(memory_format=torch.channels_last)
        ports = expected_inputs(self.spec, self.info)
        self._feeder = Feeder(ports, matrix_shapes(self.spec, self.info))
        self._runs: StaticRuns | None = None
        if device == "cuda":
            inputs = {
                name: (tuple(int(side or 0) for side in shape[1:]), dtype) for name, (dtype, shape) in ports.items()
            }
            self._runs = StaticRuns(self._module, inputs, module.output_names, TorchGpu(torch), cuda_graph=cuda_graph)

    @property
    def timing(self) -> dict[str, float]:
        return self._runs.timing if self._runs else {}

    @property
    def graphs(self) -> list[int]:
        return self._runs.graphs if self._runs else []

    def __call__(self, image: np.ndarray, superpixels: np.ndarray) -> Arrays:
        torch = self._torch
        with self._feeder.feed(image, superpixels) as feed:
            if self._runs is not None:
                return self._runs.run(feed)
            with torch.inference_mode(), exact_float32(torch):
                values = self._module(*map(torch.from_numpy, feed.values()))
        return {name: value.numpy() for name, value in zip(self.info.outputs, values, strict=True)}

    def close(self) -> None:
        if self._runs is not None:
            self._runs.close()
        self._feeder.clear()


class Eager:
    """The training model itself."""

    def __init__(self, torch: Any, model: Any, device: str, soft_assignments: bool = False) -> None:
        from cast_sdk.export.lowering.options import export_info, graph_options, output_names

        self._torch, self._device, self._model = torch, device, model.to(device)
        self.spec, options = graph_options(
            model.spec, batch=None, tokens=bool(model.spec.dense), soft_assignments=soft_assignments
        )
        hidden = ("sampled", "tokens")  # which the training model does not give
        outputs = [name for name in output_names(self.spec, options) if not name.startswith(hidden)]
        self.info: ExportInfo = export_info(options, outputs, created_by=f"torch {torch.__version__}")
        shape = (1, 1, 1, 3)
        self._mean = torch.tensor(self.spec.mean, device=device).view(shape)
        self._std = torch.tensor(self.spec.std, device=device).view(shape)

    def __call__(self, image: np.ndarray, superpixels: np.ndarray) -> Arrays:
        torch = self._torch
        with torch.inference_mode(), exact_float32(torch):
            pixels = torch.from_numpy(image).to(self._device).float() / 255
            pixels = ((pixels - self._mean) / self._std).permute(0, 3, 1, 2)
            labels = torch.from_numpy(superpixels).to(self._device).long()
            out = self._model(pixels, labels, self.info.num_superpixels)
        values = {"embedding": out.embedding, **out.scores}
        values |= {f"level{n}": level.labels.int() for n, level in enumerate(out.levels, start=1)}
        values |= {f"assignment{n}": level.logits.softmax(-1) for n, level in enumerate(out.levels, start=1)}
        if self.spec.dense:
            values |= {"semantic": out.dense.argmax(-1).int(), "dense": out.dense}
        return {name: values[name].cpu().numpy() for name in self.info.outputs}

    def close(self) -> None:
        """Nothing to do: what nobody holds is freed."""


def import_torch(path: str | os.PathLike[str]) -> Any:
    """The torch module. Raises MissingDependencyError without it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "torch, which runs checkpoints, cannot be imported.",
            found=str(error),
            remedy=f"{pip_install('export')}, or export it once elsewhere: "
            f"cast-export --ckpt {os.fspath(path)} --out MODEL.onnx",
        ) from error
    return torch


def check_labels(superpixels: np.ndarray, count: int) -> None:
    """Raises InputError unless all labels int32 lie in 0..count-1. Here, since a GPU could say so only much later."""
    if superpixels.size and int(superpixels.view(np.uint32).max()) >= count:  # negative ones are large without a sign
        raise InputError(
            f"The superpixel labels {superpixels.min()}..{superpixels.max()} do not lie in 0..{count - 1}.",
            remedy="use Runtime, which makes them, or number them from 0 below the model's count",
        )
