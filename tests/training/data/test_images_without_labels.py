"""Images without labels, from which a model learns all classes that a teacher knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from supervised_runs import assert_same, finish, here, killed_in_the_second_epoch, start, weights

from cast_sdk.models import create_model, load_model
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.prepare.bundled import jpeg, write_images
from cast_sdk.training.data.prepare.packing import test_splits as splits_to_test
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.teacher.others import OtherViews
from cast_sdk.training.data.transforms import normalise
from cast_sdk.training.engine.distributed import start as start_world
from cast_sdk.training.engine.optim import build_optimizer
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.recipe.settings import Optimizer
from cast_sdk.training.tasks.classification import Classification
from cast_sdk.training.tasks.further_classes import FurtherClasses
from cast_sdk.training.tasks.levels import level_loss


def with_others(folders, data):
    """The micro data with a teacher's scores, and five images without labels, of classes 2, 3 and further ones."""
    data.mkdir()
    for split in ("train", "val"):
        (data / split).symlink_to(folders / split)
    np.save(data / "train-teacher.npy", 4 * np.eye(4, dtype=np.float16).repeat(12, 0))
    noise = np.random.default_rng(0).integers(0, 255, (5, 40, 40, 3), np.uint8)
    write_images(data / "others-00.tar", [(jpeg(image, 40), 0) for image in noise])
    np.save(data / "others-teacher.npy", 4 * np.eye(5, 7, 2, dtype=np.float16))
    return data


OTHERS = ("--set", "teacher.weight=0.5", "--set", "teacher.others=2")


def test_images_without_labels_teach_further_classes_and_resume(folders, micro, tmp_path):
    data, whole, killed = with_others(folders, tmp_path / "data"), tmp_path / "whole", tmp_path / "killed"
    finish(start(micro, data, whole, *OTHERS))  # on as many threads as the others, or sums would differ
    saved = weights(whole)
    assert saved["further"]["weight"].shape == (3, 32) and saved["further"]["bias"].std() > 0
    assert load_model(whole / "checkpoint.pth").spec.num_classes == 4

    killed_in_the_second_epoch(micro, data, killed, *OTHERS)
    finish(start(micro, data, killed, *OTHERS))
    assert_same(saved, weights(killed))
    assert all(torch.equal(value, weights(killed)["further"][key]) for key, value in saved["further"].items())


def test_images_without_labels_change_the_model_and_not_its_form(folders, micro, tmp_path):
    data = with_others(folders, tmp_path / "data")
    runs = [weights_after(micro, data, tmp_path / name, *OTHERS, *more) for name, more in (
        ("others", ()), ("none", ("--set", "teacher.others=0"))
    )]  # fmt: skip
    assert "further" not in runs[1]
    assert runs[0]["model"].keys() == runs[1]["model"].keys()
    assert not torch.equal(runs[0]["model"]["head.weight"], runs[1]["model"]["head.weight"])


def weights_after(*arguments):
    result = here(*arguments)
    assert result.exit_code == 0, result.output
    return weights(arguments[2])


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (None, "has no images without labels"),
        ((5, 4), "no more than the data's 4 classes"),
        ((4, 7), "were not made for these 5 images"),
    ],
)
def test_unfit_images_without_labels_are_refused(folders, micro, tmp_path, scores, words):
    data = with_others(folders, tmp_path / "data")
    if scores is None:
        (data / "others-00.tar").unlink()
    else:
        np.save(data / "others-teacher.npy", np.ones(scores, np.float16))
    result = here(micro, data, tmp_path / "run", *OTHERS)
    assert result.exit_code != 0 and words in result.output
    assert not (tmp_path / "run").exists()


def test_further_classes_learn_at_the_rate_of_the_head():
    model = create_model("cast_tiny", num_classes=4)
    both = FurtherClasses(model, 3)
    for settings in (Optimizer(name="adamw", layer_decay=0.5), Optimizer(name="muon")):
        optimizer = build_optimizer(both, settings, 1e-3)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rates[id(both.further.weight)] == rates[id(model.head.weight)] == 1e-3
        assert len(rates) == len({id(p) for p in both.parameters() if p.requires_grad})


@pytest.mark.parametrize("own", [0.0, 0.25])
def test_each_kind_of_image_has_its_own_loss(folders, micro, tmp_path, own):
    """Labelled, without labels and with regions in one pass: the loss is that of each kind alone, put together."""
    data = with_others(folders, tmp_path / "data")
    rows = np.arange(40) // 10
    maps = np.stack([rows[:, None] * np.ones(40), rows[:, None] // 2 * np.ones(40)] * 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), np.uint8)
    np.savez(data / "regions.npz", images=noise, maps=maps[None].repeat(3, 0))
    own_loss = f"teacher.others_own={own}"
    settings = ["teacher.weight=0.5", "teacher.others=3", own_loss, "levels.weight=0.7", "levels.batch=2"]
    recipe = load_recipe(str(micro), settings)
    images = {split: Images(open_source(data, split)) for split in ("train", "val")}
    task = Classification.build(recipe, images, start_world("cpu"))
    task.further.eval()
    items = [task.views[index, 0, index] for index in (0, 17, 30, 41)]
    batch = torch.utils.data.default_collate(items)
    with torch.no_grad():
        task.further.further.bias.copy_(torch.tensor([2.0, -1.0, 0.5]))
        torch.manual_seed(5)
        found = task.loss(batch, 0.0)

        torch.manual_seed(5)
        known, others = task.regions.batch(2), task.others.batch(3)

        def passed(some, maps):
            return task.further(normalise(some), maps, num_superpixels=task.views.count(maps))

        of_labelled = task._class_loss(passed(*batch[:2])[0].logits, batch[2], batch[3])
        output, further = passed(others.images, others.superpixels)
        target = (others.scores / 2).softmax(1)
        of_others = -4 * (target * (torch.cat([output.logits, further], 1) / 2).log_softmax(1)).sum(1).mean()
        among_own = (others.scores[:, :4] / 2).softmax(1)
        of_others += own * -4 * (among_own * (output.logits / 2).log_softmax(1)).sum(1).mean()
        levels = passed(known.images, known.superpixels)[0].levels
        expected = (4 * of_labelled + 3 * of_others) / 7 + 0.7 * level_loss(levels, known.shares, recipe.levels.tokens)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_scores_are_those_of_the_image_that_takes_a_bad_ones_place(folders, micro, tmp_path):
    data = with_others(folders, tmp_path / "data")
    good = jpeg(np.full((40, 40, 3), 90, np.uint8), 40)
    write_images(data / "others-00.tar", [(b"no image", 0), *[(good, 0)] * 4])
    scores = np.arange(35).reshape(5, 7).astype(np.float16)
    np.save(data / "others-teacher.npy", scores)
    views = LabelledViews(Images(open_source(data, "others"), "skip"), load_recipe(str(micro)), True, scores=scores)
    assert views[0, 0, 0][-1].tolist() == scores[1].tolist()
    batch = OtherViews(data, load_recipe(str(micro)), 4, "skip").batch(30)
    assert batch.scores.shape == (30, 7) and scores[0].tolist() not in batch.scores.tolist()


def test_they_are_no_split_to_test_with(tmp_path):
    for name in ("train-00.tar", "val-00.tar", "tiny-00.tar", "others-00.tar"):
        (tmp_path / name).write_bytes(b"")
    assert splits_to_test(tmp_path) == ["tiny"]
