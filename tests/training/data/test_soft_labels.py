"""A teacher's scores: asked once, kept, read in the order of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.teacher import soft_labels


def brightness(images):
    return np.stack([[image.mean(), -image.mean(), 1, 0] for image in images])


def test_scores_are_kept_in_the_order_of_the_images(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(soft_labels, "PART", 10)
    source = open_source(shards, "train")
    asked = []

    def interrupted(images):
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return brightness(images)

    with pytest.raises(KeyboardInterrupt):
        soft_labels.write_scores(tmp_path, source, interrupted)
    asked.clear()

    def counted(images):
        asked.append(len(images))
        return brightness(images)

    path = soft_labels.write_scores(tmp_path, source, counted)
    assert sum(asked) == len(source) - 20  # two parts were there already
    scores = soft_labels.teacher_scores(tmp_path, source)
    assert path.is_file() and scores.dtype == np.float16 and not (tmp_path / "train-teacher.parts").exists()
    from cast_sdk.training.data.dataset import decode

    for index in (0, 25, len(source) - 1):
        assert scores[index, 0] == pytest.approx(decode(source.read(index), "").float().mean().item(), rel=2e-3)


def test_scores_of_other_data_are_refused(tmp_path, shards):
    source = open_source(shards, "train")
    with pytest.raises(InputError, match="soft-labels"):
        soft_labels.teacher_scores(tmp_path, source)
    np.save(tmp_path / soft_labels.FILE, np.zeros((len(source), 3), np.float16))
    with pytest.raises(InputError, match=r"48 images x 4 classes"):
        soft_labels.teacher_scores(tmp_path, source)


def test_parts_of_another_teacher_are_not_kept(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(soft_labels, "PART", 10)
    source = open_source(shards, "train")

    def interrupted(images):
        if list((tmp_path / "train-teacher.parts").glob("*.npy")):
            raise KeyboardInterrupt
        return brightness(images)

    with pytest.raises(KeyboardInterrupt):
        soft_labels.write_scores(tmp_path, source, interrupted, identity={"sha256": "one"})
    with pytest.raises(RecipeError, match="results of something else"):
        soft_labels.write_scores(tmp_path, source, brightness, identity={"sha256": "another"})
    soft_labels.write_scores(tmp_path, source, brightness, identity={"sha256": "one"})
    assert not (tmp_path / "train-teacher.parts").exists()


def test_soft_cross_entropy_is_least_at_the_teacher():
    scores = torch.tensor([[2.0, 0, -1]])
    at = soft_labels.soft_cross_entropy(scores, scores, 2)
    entropy = -((scores / 2).softmax(-1) * (scores / 2).log_softmax(-1)).sum()
    assert at == pytest.approx(4 * float(entropy), rel=1e-5)
    assert at < soft_labels.soft_cross_entropy(torch.zeros(1, 3), scores, 2)
    hard = soft_labels.soft_cross_entropy(torch.tensor([[1.0, 0, 0]]), torch.tensor([[50.0, 0, 0]]), 1)
    assert hard == pytest.approx(F.cross_entropy(torch.tensor([[1.0, 0, 0]]), torch.tensor([0])).item(), rel=1e-5)
