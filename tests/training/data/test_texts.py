"""Names in arrays, and sources that worker processes share."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.texts import Texts


def test_texts_are_a_sequence():
    names = ["a.jpg", "", "ümlaut/ß.png", os.fsdecode(b"\xff.jpg")]
    texts = Texts(names)
    assert list(texts) == names and len(texts) == 4 and texts[-1] == names[-1] and texts[1:3] == names[1:3]
    assert texts.index("ümlaut/ß.png") == 2 and "b.jpg" not in texts and list(Texts([])) == []
    assert list(pickle.loads(pickle.dumps(texts))) == names
    with pytest.raises(IndexError):
        texts[4]


def test_a_source_travels_to_a_worker_without_its_names(folders):
    source = open_source(folders, "train")
    packed = bytes(ForkingPickler.dumps(source))
    assert source.names[0].encode() not in packed and len(packed) < 4000  # 48 paths alone are longer
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        assert pool.apply(source.read, (5,)) == source.read(5)
    assert source.labels.dtype == np.int64 and isinstance(source._places, torch.Tensor)
