"""The weighted mean of several trainings' weights, which is often better than each of them.

It needs trainings that began with one another's weights: then the mean of two lies as low in the loss as they do
("model soups", Wortsman et al. 2022, and WiSE-FT, Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cast_sdk.errors import CheckpointError, InputError
from cast_sdk.models.base import Model
from cast_sdk.models.layers import resize_positions


def parse_share(text: str) -> tuple[float, str]:
    """Share and file of "SHARE:FILE".

    Raises:
        InputError: when it is none, or the share is not between 0 and 1.
    """
    share, colon, path = text.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not colon or not path or not 0 < value < 1:
        raise InputError(f"{text!r} is no share of weights.", remedy="give SHARE:FILE, as in 0.5:earlier.safetensors")
    return value, path


def mix(model: Model, others: Sequence[tuple[float, Model]]) -> None:
    """Replace the weights of `model` by a mean of its own and the others'; fixed positions are resized to its grid.

    Args:
        model: has what the shares of the others leave of 1.
        others: shares, together below 1, and models of the same architecture and classes.

    Raises:
        InputError: when the shares leave nothing.
        CheckpointError: when another model has other weights.
    """
    own = 1 - sum(share for share, _ in others)
    if own <= 0:
        raise InputError(
            f"The shares leave {own:g} for the run itself.", remedy="give shares that are below 1 together"
        )
    state = model.state_dict()
    parts = [(share, other.state_dict()) for share, other in others]
    for (_, theirs), (_, other) in zip(parts, others, strict=True):
        fixed = {"pos_embed"} if model.spec.positions == other.spec.positions == "fixed" else set()
        unlike = sorted(
            key
            for key in {*state, *theirs} - fixed
            if key not in state or key not in theirs or state[key].shape != theirs[key].shape
        )
        if unlike or other.spec.class_names != model.spec.class_names:
            raise CheckpointError(
                "Weights of different models cannot be mixed.",
                found=", ".join(unlike[:4]) or "other classes",
                remedy="mix trainings of one architecture and one data set",
            )
    means = {}  # before any is written: some have two names
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        means[key] = own * value.double()
        for share, theirs in parts:
            part = theirs[key]
            if part.shape != value.shape:
                part = resize_positions(part, round(value.shape[1] ** 0.5))
            means[key] += share * part.double()
    with torch.no_grad():
        for key, mean in means.items():
            state[key].copy_(mean)
