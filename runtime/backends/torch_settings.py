"""What torch computes with: float32 that is float32, and the precisions that a device has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cast_sdk.arguments import one_of
from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.system.processor import bfloat16_units, processor_name

PRECISIONS = ("fp32", "bf16", "fp16")


def check_precision(precision: str, device: str) -> None:
    """Refuse what a device does not compute in.

    Args:
        precision: one of `PRECISIONS`.
        device: "cpu" or "cuda".

    Raises:
        InputError: for an unknown precision, and for fp16 on the CPU.
        MissingDependencyError: for bf16 on a processor without instructions for it.
    """
    one_of(precision, "precision", PRECISIONS)
    if device == "cuda" or precision == "fp32":
        return
    if precision == "fp16":
        raise InputError(
            "precision='fp16' is for GPUs: processors compute it slower than fp32.",
            remedy="use precision='fp32', or 'bf16' where the processor has it",
        )
    if not bfloat16_units():
        raise MissingDependencyError(
            "This processor lacks the bfloat16 instructions (AVX512_BF16 or AMX) that precision='bf16' needs.",
            found=processor_name(),
            remedy="use precision='fp32'",
        )


@contextlib.contextmanager
def exact_float32(torch: Any) -> Iterator[None]:
    """Within, products and convolutions of float32 are float32.

    A card would round their factors to TF32, and a processor to bfloat16, where the program around has allowed it; for
    convolutions torch allows TF32 by default. Ten bits move labels. The settings are the process's and are put back.
    """
    backends = torch.backends
    places = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    before = [place.fp32_precision for place in places]
    older = _older_settings(torch)
    if older is not None:
        _set_older(torch, False, "highest")
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            _set_older(torch, *older)
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _older_settings(torch: Any) -> tuple[bool, str] | None:
    """The settings by their older names, which compilers read; None where a program has left them behind."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses to say them once the newer names say something else
        return None


def _set_older(torch: Any, convolutions: bool, products: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
