"""torch: runs checkpoints directly, without an export. The only backend that imports torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.spec import ModelSpec, Stage
from cast_sdk.system.installing import pip_install


class TorchBackend(StaysBehind):
    """A checkpoint in eager torch, float32. See `Backend`.

    Args:
        path: any checkpoint that `cast_sdk.load_model` opens.
        device: "auto" takes CUDA when torch has it.
        threads: number of torch's threads, a setting of the whole process; None leaves it alone.
        stage: passed to `load_model`, for `cast_seg_*` checkpoints.
    """

    engine_name = "torch"
    native = ("_model",)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        stage: Stage | None = None,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                "torch, which runs checkpoints, cannot be imported.",
                found=str(error),
                remedy=f"{pip_install('export')}, or export it once elsewhere: "
                f"cast-export --ckpt {os.fspath(path)} --out MODEL.onnx",
            ) from error
        from cast_sdk.models import load_model
        from cast_sdk.superpixels import seeds_count

        if device == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError(
                "torch cannot use a GPU here.",
                found=f"torch {torch.__version__} without a usable GPU",
                remedy="use device='cpu', or install torch's CUDA build",
            )
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if threads is not None:
            torch.set_num_threads(threads)
        self._torch: Any = torch
        model: Any = load_model(path, stage=stage)
        self._model: Any = model.eval().to(self.device)
        self.spec: ModelSpec = model.spec
        side = self.spec.image_size
        count = seeds_count(side, side, self.spec.superpixels.count) if self.spec.uses_superpixels else 0
        outputs = ["embedding"]
        outputs += self.spec.score_names if self.spec.has_logits else ()
        outputs += [f"level{n + 1}" for n in range(len(self.spec.clusters))]
        outputs += ["semantic", "dense"] if self.spec.dense else []
        self.info = ExportInfo(
            precision="fp32",
            batch=None,
            height=side,
            width=side,
            num_superpixels=count,
            outputs=tuple(outputs),
            created_by=f"torch {torch.__version__}",
        )
        shape = (1, 1, 1, 3)
        self._mean = torch.tensor(self.spec.mean, device=self.device).view(shape)
        self._std = torch.tensor(self.spec.std, device=self.device).view(shape)
        watch(self)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        self.check_process()
        if self._model is None:
            raise InputError("This backend is closed.", remedy="open the model again")
        torch = self._torch
        cudnn = torch.backends.cudnn
        with (
            torch.inference_mode(),
            # Convolutions would round their products to TF32, and that moves labels.
            cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False),
        ):
            pixels = torch.from_numpy(image).to(self.device).float() / 255
            pixels = ((pixels - self._mean) / self._std).permute(0, 3, 1, 2)
            labels = torch.from_numpy(superpixels).to(self.device).long()
            out = self._model(pixels, labels, self.info.num_superpixels)
        values = {"embedding": out.embedding, **out.scores}
        values |= {f"level{n}": level.labels.int() for n, level in enumerate(out.levels, start=1)}
        if self.spec.dense:
            values |= {"semantic": out.dense.argmax(-1).int(), "dense": out.dense}
        return {name: values[name].cpu().numpy() for name in self.info.outputs}

    def close(self) -> None:
        self.drop()
