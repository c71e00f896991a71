"""Frames that are torch tensors: RGB, as torchvision has them. Torch itself is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError

_CHANNELS = (1, 3)


def is_tensor(frame: object) -> bool:
    """Whether an object is a torch tensor (or of a class made from it)."""
    names = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(frame).__mro__)
    return ("torch", "Tensor") in names


def to_bgr(tensor: Any) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] BGR of a tensor [3, h, w], [h, w, 3], [1, h, w], [h, w, 1] or [h, w] in RGB or grey.

    uint8 as it is; floats in 0..1 times 255, rounded.

    Raises:
        InputError: for another shape or type, values outside 0..1, NaN, and shapes that can be read both ways.
    """
    kind = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    last = _channels_last(shape, kind)
    if kind != "uint8" and not tensor.is_floating_point():
        raise InputError(
            f"The tensor holds {kind} values, not uint8 or floats in 0..1.",
            remedy="for values in 0..255: tensor.to(torch.uint8)",
        )
    if tensor.is_meta or str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        what = "no values" if tensor.is_meta else "quantized values" if tensor.is_quantized else "a sparse layout"
        raise InputError(
            f"The tensor has {what}.", remedy="give a dense tensor: tensor.to_dense(), or tensor.dequantize()"
        )
    values = tensor.detach().cpu()
    array = values.numpy() if kind == "uint8" else _scaled(values.float().numpy(), kind)
    if array.ndim == 2:
        array = array[..., None]
    elif not last:
        array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., ::-1])


def _channels_last(shape: tuple[int, ...], kind: str) -> bool:
    """Whether the channels come last."""
    said = f"{kind} tensor of shape {list(shape)}"
    if len(shape) == 4:
        raise InputError(
            f"The tensor is a batch: {said}.", remedy="give tensor[0], or segment_batch(list(tensor)) for all of it"
        )
    if len(shape) not in (2, 3):
        raise InputError(f"The tensor is not an image: {said}.", remedy="give [3, height, width] or [height, width, 3]")
    if 0 in shape:
        raise InputError(f"The tensor is empty: {said}.", remedy="check the crop that made it")
    if len(shape) == 2:
        return False
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if first and last:
        raise InputError(
            f"The tensor can be read with its channels first or last: {said}.",
            remedy="give a NumPy array height x width x 3 in BGR, which is read in one way only",
        )
    if not first and not last:
        alpha = 4 in (shape[0], shape[2])
        raise InputError(
            f"The tensor has no axis of 1 or 3 channels: {said}.",
            remedy="leave the alpha channel out: tensor[:3] or tensor[..., :3]"
            if alpha
            else "give [3, height, width] or [height, width, 3]",
        )
    return last


def _scaled(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite(values).all():
        raise InputError(f"The {kind} tensor holds NaN or infinite values.", remedy="find where they come from")
    if lowest < 0 or highest > 1:
        raise InputError(
            f"The {kind} tensor has values outside 0..1.",
            found=f"{lowest:.3g} to {highest:.3g}",
            remedy="for values in 0..255: tensor.round().to(torch.uint8)"
            if lowest >= 0 and highest <= 255
            else "give the image before its normalisation; the model normalises itself",
        )
    return np.rint(values * np.float32(255)).astype(np.uint8)
