"""The fixtures' weight rule, inputs and comparisons (NumPy and torch)."""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD

GOLDEN = Path(__file__).parent / "golden"


def drawn(key: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """The value that the rule gives a floating tensor of this key and shape."""
    rng = np.random.RandomState(zlib.crc32((salt + key).encode()) & 0x7FFFFFFF)
    r = rng.standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last in ("cls_token", "cls_emb", "pos_embed"):
        value = 0.02 * r
    elif last == "running_mean":
        value = 0.1 * r
    elif last == "running_var":
        value = 1 + 0.1 * np.abs(r)
    elif len(shape) >= 2:
        value = r * (1 / np.sqrt(np.prod(shape[1:])))
    elif last == "weight" and len(shape) == 1:
        value = 1 + 0.1 * r
    else:
        value = 0.02 * r
    return value.astype(np.float32)


def canonical_keys(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Each tensor once; of two aliases of a block the `blocksK.` name."""
    names: dict[int, str] = {}
    state = model.state_dict()
    for key, value in state.items():
        known = names.get(value.data_ptr()) if value.numel() else None
        if known is not None and value.data_ptr() in names:
            if ".blocks." in f".{known}":
                names[value.data_ptr()] = key
            continue
        names[value.data_ptr()] = key
    keep = set(names.values())
    return {key: value for key, value in state.items() if key in keep}


def draw_weights(model: torch.nn.Module, salt: str = "", prefixes: dict[str, str] | None = None) -> int:
    """Fill a model by the rule; returns the state_crc of the drawn tensors.

    `prefixes` renames the start of our keys to the fixture's, e.g. {"vit_backbone.": "embedding_model.vit_backbone."}.
    """
    frozen = {name for name, p in model.named_parameters() if name.endswith(("pe_token",)) or _is_fixed(model, name)}
    values: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for key, tensor in canonical_keys(model).items():
            if not tensor.is_floating_point() or key in frozen:
                continue
            name = key
            for ours, theirs in (prefixes or {}).items():
                if key.startswith(ours):
                    name = theirs + key.removeprefix(ours)
            values[name] = drawn(name, tuple(tensor.shape), salt)
            tensor.copy_(torch.from_numpy(values[name]))
    crc = 0
    for name in sorted(values):
        crc = zlib.crc32(values[name].astype("<f4").tobytes(), crc)
    return crc


def _is_fixed(model: torch.nn.Module, name: str) -> bool:
    return name.endswith("pos_embed") and model.spec.positions == "fixed"


@lru_cache(maxsize=1)
def inputs() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "inputs.npz") as file:
        return {key: file[key] for key in file.files}


def load_case(name: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays["meta"]))


def normalised(images: np.ndarray) -> torch.Tensor:
    """uint8 [n,H,W,3] -> float32 [n,3,H,W], computed in float32 throughout."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def fixture_slice(array: np.ndarray) -> np.ndarray:
    flat = np.asarray(array).reshape(-1)
    return flat[(np.arange(64) * flat.size) // 64]


def assert_close(actual, expected, tolerance: float, what: str = "") -> None:
    """Largest difference relative to the largest magnitude of the expected array."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    scale = max(np.abs(expected).max(), 1e-12)
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f"{what}: relative error {error:.2e} above {tolerance:.0e}"
