"""Checkpoint files as people have them."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch

import cast_sdk
from cast_sdk.artifact import SPEC_KEY
from cast_sdk.errors import CheckpointError, InputError

SMALL = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2), "num_classes": 10}


@pytest.fixture(scope="module")
def model():
    return cast_sdk.create_model("cast_tiny", **SMALL).eval()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


WRAPPED = {
    "data_parallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "compiled": lambda s: {"model": prefixed(s, "_orig_mod.")},
    "compiled and parallel": lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
    "parallel and compiled": lambda s: prefixed(s, "_orig_mod.module."),
    "averaged": lambda s: {"state_dict": {**prefixed(s, "module."), "n_averaged": torch.tensor(5)}},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.4"},
    "lightning, compiled": lambda s: {"state_dict": prefixed(s, "model._orig_mod.")},
    "net": lambda s: {"state_dict": prefixed(s, "net.")},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3},
    "numpy scalars": lambda s: {"model": s, "best": np.float64(0.5), "epoch": np.int64(3)},
    "plain": lambda s: dict(s),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers(model, tmp_path, name):
    raw = {**WRAPPED[name](model.state_dict()), SPEC_KEY: model.spec.to_json()}
    torch.save(raw, tmp_path / "a.pth")
    opened = cast_sdk.load_model(tmp_path / "a.pth")
    assert opened.spec == model.spec
    assert all(torch.equal(value, opened.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content, words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b"<html><body>404</body></html>", "is a web page"),
        (b"", "is empty"),
        (b"PK\x03\x04 half a download", "not a complete"),
    ],
)
def test_files_that_are_none(tmp_path, content, words, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        cast_sdk.load_model(path)


def test_a_protocol_that_cannot_be_read_safely(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "a.pth", pickle_protocol=pickle.HIGHEST_PROTOCOL)
    try:
        opened = cast_sdk.load_model(tmp_path / "a.pth", num_heads=3, clusters=SMALL["clusters"])
    except CheckpointError as error:
        assert "pickle protocol" in str(error) and "torch.save(object, path)" in str(error)
    else:  # a torch whose safe reader knows the protocol
        assert all(torch.equal(value, opened.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(model, tmp_path, value):
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for key in state:
        if key.endswith("norm1.weight"):
            state[key][0] = value
    torch.save({"model": state, SPEC_KEY: model.spec.to_json()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"(?s)NaN or infinite.*norm1\.weight"):
        cast_sdk.load_model(tmp_path / "a.pth")


def test_what_a_file_does_not_say_is_said_and_can_be_given(model, tmp_path, caplog):
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        guessed = cast_sdk.load_model(tmp_path / "a.pth")
    assert guessed.spec.clusters == (64, 32, 16, 8) and guessed.spec.num_heads == 12
    assert "does not say how many heads" in caplog.text and "64/32/16/8" in caplog.text
    caplog.clear()
    given = cast_sdk.load_model(tmp_path / "a.pth", num_heads=3, clusters=(16, 8, 4, 2))
    assert given.spec.clusters == (16, 8, 4, 2) and given.spec.num_heads == 3 and not caplog.text


@pytest.mark.parametrize(
    "given", [{"num_heads": 7}, {"num_heads": 0}, {"clusters": (1, 2)}, {"clusters": (4, 3, 2, 0)}]
)
def test_what_is_given_must_fit(model, tmp_path, given):
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError):
        cast_sdk.load_model(tmp_path / "a.pth", **given)
