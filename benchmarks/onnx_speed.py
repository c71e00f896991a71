"""The network and the whole frame: ONNX Runtime against eager torch, interleaved in one process.

    python benchmarks/onnx_speed.py FOLDER_OF_PHOTOGRAPHS [--model cast_small] [--threads 2] [--rounds 30] [--int8]
    python benchmarks/onnx_speed.py FOLDER --model segmenter_cast_small --image-size 512 --threads 1 --clock cpu --int8

Exports the model (random weights unless --ckpt names a checkpoint), then runs each variant on one photograph after
another in turn. Ratios are eager time / variant time per round; their median, and the ratio of the minima. On a busy
machine use --threads 1 --clock cpu: the time of the calling thread, in which everything then runs.

The frame is from a decoded photograph to the segmentation: resize, superpixels, network, hierarchy. Its reference is
OpenCV's SEEDS and eager torch, and needs cv2.ximgproc:

    pip install --no-deps --target build/opencv-contrib "opencv-contrib-python>=5"
    PYTHONPATH=build/opencv-contrib python benchmarks/onnx_speed.py ...
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import torch

from cast_sdk.export.lowering.options import resizes
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.verification.photos import find_images
from cast_sdk.models import create_model, load_model
from cast_sdk.models.pooling import GraphPooling
from cast_sdk.models.saving import save_native
from cast_sdk.runtime import Runtime
from cast_sdk.superpixels.kernels import NativeKernel, OpenCVKernel
from cast_sdk.system.processor import bfloat16_units

Run = Callable[[int], object]


def eager(model: torch.nn.Module, spec) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """The training model on uint8 pixels and labels, with the outputs of the graph."""
    mean, std = (torch.tensor(value).view(1, 1, 1, 3) for value in (spec.mean, spec.std))

    @torch.inference_mode()
    def run(image: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        pixels = ((torch.from_numpy(image).float() / 255 - mean) / std).permute(0, 3, 1, 2)
        out = model(pixels, torch.from_numpy(labels).long())
        values = {"embedding": out.embedding, "logits": out.logits}
        values |= {f"level{n}": level.labels.int() for n, level in enumerate(out.levels, 1)}
        values["semantic"] = out.dense.argmax(-1).int() if spec.dense else None
        return {name: value.numpy() for name, value in values.items() if value is not None}

    return run


def with_sampler(model: torch.nn.Module, sampler: str) -> torch.nn.Module:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, GraphPooling):
            module.sampler = sampler
    return model


def interleave(
    variants: dict[str, Run], rounds: int, clock: Callable[[], float], pause: float
) -> dict[str, list[float]]:
    """Milliseconds per variant and round, after two rounds that are not counted, `pause` seconds before each run."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, run in variants.items():
            time.sleep(pause)
            start = clock()
            run(number)
            if number >= 2:
                times[name].append(1e3 * (clock() - start))
    return times


def table(title: str, times: dict[str, list[float]]) -> None:
    base, *_ = times
    print(f"\n| {title} | ms median | ms min | times faster, median of rounds | times faster, minima |")
    print("|---|---|---|---|---|")
    for name, values in times.items():
        ratios = [one / other for one, other in zip(times[base], values, strict=True)]
        print(
            f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} "
            f"| {statistics.median(ratios):.2f} | {min(times[base]) / min(values):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="cast_small")
    parser.add_argument("--ckpt")
    parser.add_argument("--image-size", type=int, help="of segmentation models, such as 512")
    parser.add_argument("--openvino", action="store_true", help="also the same files on OpenVINO")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds before each run")
    parser.add_argument("--torch", action="store_true", help="also the checkpoint in torch, lowered, in fp32 and bf16")
    parser.add_argument("--int8", action="store_true", help="also an INT8 graph, calibrated on 64 of the photographs")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu is the time of one thread: use it with --threads 1")
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    model = (load_model(arguments.ckpt) if arguments.ckpt else create_model(arguments.model)).eval()
    photos = find_images(arguments.folder)
    size = {"image_size": arguments.image_size} if arguments.image_size else {}

    with tempfile.TemporaryDirectory() as folder:
        files = {"ONNX Runtime float32": Path(folder) / "fp32.onnx"}
        export_onnx(model, files["ONNX Runtime float32"], verify=False, **size)
        if resizes(model.spec):
            files["ONNX Runtime float32, target cpu"] = Path(folder) / "cpu.onnx"
            export_onnx(model, files["ONNX Runtime float32, target cpu"], target="cpu", verify=False, **size)
        if arguments.int8:
            files["ONNX Runtime int8"] = Path(folder) / "int8.onnx"
            export_onnx(
                model,
                files["ONNX Runtime int8"],
                **size,
                precision="int8",
                target="cpu",
                calibrate=photos[:64],
                keep_float=["none"],
                verify=False,
            )
        runtimes = {name: Runtime(path, threads=arguments.threads) for name, path in files.items()}
        if arguments.openvino:
            runtimes |= {
                name.replace("ONNX Runtime", "OpenVINO"): Runtime(path, backend="openvino", threads=arguments.threads)
                for name, path in files.items()
            }
        if arguments.threads > 1:
            runtimes |= {
                f"{name}, spinning={spinning}": Runtime(path, threads=arguments.threads, spinning=spinning)
                for name, path in files.items()
                for spinning in (True, False)
            }
        if arguments.torch:
            checkpoint = Path(folder) / "model.safetensors"
            save_native(model, checkpoint)
            for precision in ("fp32", "bf16") if bfloat16_units() else ("fp32",):
                runtimes[f"torch, lowered, {precision}"] = Runtime(
                    checkpoint, device="cpu", threads=arguments.threads, precision=precision
                )
    runtime = runtimes["ONNX Runtime float32"]
    frames = [
        frame for frame in (cv2.imread(str(path)) for path in photos[: arguments.rounds + 2]) if frame is not None
    ]
    prepared = [runtime.add_superpixels(runtime.prepare(frame)) for frame in frames]
    inputs = [(item.image[None], item.superpixels[None]) for item in prepared]
    reference = eager(model, runtime.spec)
    networks = {
        "eager torch": reference,
        "eager torch, sampler='matrix'": eager(with_sampler(model, "matrix"), model.spec),
    }
    networks |= {name: item.backend.run for name, item in runtimes.items()}

    print(
        f"{platform.machine()}, {arguments.threads} threads, {arguments.clock} clock, {arguments.rounds} rounds, "
        f"Python {platform.python_version()}, torch {torch.__version__}, onnxruntime {metadata.version('onnxruntime')}"
    )

    def on_inputs(run: Callable[[np.ndarray, np.ndarray], object]) -> Run:
        return lambda number: run(*inputs[number % len(inputs)])

    table(
        f"network, {runtime.spec.name}",
        interleave({k: on_inputs(v) for k, v in networks.items()}, arguments.rounds, clock, arguments.pause),
    )

    settings, size = runtime.spec.superpixels, runtime.info.height
    kernel = OpenCVKernel if hasattr(cv2, "ximgproc") else NativeKernel
    seeds = kernel(size, size, settings.count, settings.bins, settings.iterations)

    def reference_frame(number: int) -> object:
        item = runtime.prepare(frames[number % len(frames)])
        item.superpixels = np.empty((size, size), np.int32)
        seeds(cv2.cvtColor(item.image, cv2.COLOR_RGB2LAB), item.superpixels)
        outputs = reference(item.image[None], item.superpixels[None])
        return runtime.finish(item, {name: value[0] for name, value in outputs.items()})

    def segment(item: Runtime) -> Run:
        return lambda number: item.segment(frames[number % len(frames)])

    variants = {f"{kernel.__name__} and eager torch": reference_frame}
    variants |= {f"Runtime, {name}": segment(item) for name, item in runtimes.items()}
    table(f"frame to result, {runtime.spec.name}", interleave(variants, arguments.rounds, clock, arguments.pause))


if __name__ == "__main__":
    main()
