"""Sources, sampler and views: layouts, determinism, bad data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cast_sdk.errors import InputError
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings
from cast_sdk.superpixels import seeds
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dataset import Images, LabelledViews, decode, loader
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.metrics.accuracy import evaluation_views
from cast_sdk.training.tasks import pretraining
from cast_sdk.training.tasks.classification import Classification


def test_folders_and_shards_give_the_same_pictures(folders, shards):
    a, b = open_source(folders, "train"), open_source(shards, "train")
    assert len(a) == len(b) == 48
    assert a.classes == ["class0", "class1", "class2", "class3"]
    assert b.classes == ["name 0", "name 1", "name 2", "name 3"]
    ours = {(int(a.labels[i]), a.read(i)) for i in range(48)}
    assert ours == {(int(b.labels[i]), b.read(i)) for i in range(48)}


def test_a_missing_split_an_empty_class_and_a_missing_label_are_named(tmp_path, folders, shards):
    with pytest.raises(InputError, match=r"(?s)test/<class>/.*train, val"):
        open_source(folders, "test")
    (tmp_path / "train" / "full").mkdir(parents=True)
    (tmp_path / "train" / "full" / "a.jpg").write_bytes(b"x")
    (tmp_path / "train" / "hollow").mkdir()
    with pytest.raises(InputError, match="hollow"):
        open_source(tmp_path, "train")
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "nowhere", "train")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "train-00.tar").write_bytes((shards / "train-00.tar").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"train-00\.tar|without"):
        open_source(torn, "train")


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_corrupt_jpeg_is_reported_with_its_path(tmp_path, policy, caplog):
    from tests.training.conftest import write_folders

    root = write_folders(tmp_path / "data", train=3, val=1)
    bad = root / "train" / "class1" / "001.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    images = Images(open_source(root, "train"), policy)
    index = images.source.names.index(str(bad))
    if policy == "error":
        with pytest.raises(InputError, match=r"(?s)class1/001\.jpg.*--on-bad-image skip"):
            images.image(index)
    else:
        image, label = images.image(index)
        follower, follower_label = images.image(index + 1)
        assert torch.equal(image, follower) and label == follower_label
        assert "class1/001.jpg" in caplog.text


def test_sampler_covers_an_epoch_whatever_the_number_of_processes():
    def epoch(world, batch):
        samplers = [EpochSampler(50, batch, rank=rank, world=world, seed=1) for rank in range(world)]
        for sampler in samplers:
            sampler.set_position(3)
        return [sorted(key for part in parts for key in part) for parts in zip(*samplers, strict=True)]

    assert epoch(1, 8) == epoch(2, 4) == epoch(4, 2)
    assert len(epoch(1, 8)) == 6
    first = EpochSampler(50, 8, seed=1)
    first.set_position(3, 4)
    assert [sorted(batch) for batch in first] == epoch(1, 8)[4:]
    first.set_position(4)
    assert [sorted(batch) for batch in first] != epoch(1, 8)


def test_repeated_augmentation_has_deits_epoch_length():
    sampler = EpochSampler(1281167, 128, world=8, rank=5, repeats=3)
    assert len(sampler) == 1251
    sampler = EpochSampler(600, 3, world=3, repeats=3)
    copies = [sorted(key[0] for key in batch) for batch in sampler]
    other = EpochSampler(600, 3, world=3, rank=1, repeats=3)
    assert copies == [sorted(key[0] for key in batch) for batch in other]  # the copies of an image spread over ranks
    keys = {key for batch in sampler for key in batch} | {key for batch in other for key in batch}
    assert len(keys) == 2 * 3 * len(sampler)


def views(folders, micro, *overrides, train=True):
    recipe = load_recipe(str(micro), overrides)
    return LabelledViews(Images(open_source(folders, "train")), recipe, train)


def test_items_depend_on_seed_epoch_and_position_alone(folders, micro):
    data = views(folders, micro)
    image, labels, target = data[(5, 2, 11)]
    torch.rand(7)
    state = torch.get_rng_state()
    again = data[(5, 2, 11)]
    assert torch.equal(image, again[0]) and torch.equal(labels, again[1])
    assert torch.equal(state, torch.get_rng_state())  # the global random state is untouched
    assert not torch.equal(image, data[(5, 3, 11)][0])
    assert image.dtype == torch.uint8 and labels.dtype == torch.int32
    assert image.shape == (3, 32, 32) and labels.shape == (32, 32) and target == 0
    sampler = EpochSampler(len(data), 8, seed=3)
    sampler.set_position(1)
    in_process = next(iter(loader(data, sampler)))
    in_worker = next(iter(loader(data, sampler, workers=1)))
    assert all(torch.equal(a, b) for a, b in zip(in_process, in_worker, strict=True))


def test_superpixels_belong_to_the_augmented_view(folders, micro):
    image, labels, _ = views(folders, micro)[(7, 0, 0)]
    expected = seeds(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), 16, 5, 4)
    assert np.array_equal(labels.numpy(), expected)


def test_deits_round_trip_loses_the_codes_it_is_known_to_lose():
    codes = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    normalised = transforms.normalise(codes[None])[0]
    back = torch.from_numpy(transforms.denormalised_uint8(normalised)).permute(2, 0, 1)
    lost = (codes.int() - back.int()).flatten(1)
    assert lost.unique().tolist() == [0, 1]
    assert lost.sum(1).tolist() == [174, 53, 23]


def test_deits_erased_values_wrap_around():
    over = (torch.tensor([1.5, -0.5, 0.5]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    pixels = transforms.denormalised_uint8(over.view(3, 1, 1))
    assert pixels.ravel().tolist()[:2] == [382 - 256, 256 - 127]


def test_deit_recipe_computes_superpixels_after_erasing(folders):
    recipe = load_recipe("deit_cast_small", ["augment.image_size=64", "augment.erase=1.0", "superpixels.count=16"])
    data = LabelledViews(Images(open_source(folders, "train")), recipe, train=True)
    image, labels, _ = data[(3, 0, 0)]
    assert image.dtype == torch.float32 and image.shape == (3, 64, 64)
    assert np.array_equal(labels.numpy(), seeds(transforms.denormalised_uint8(image), 16, 5, 15))


def test_grey_and_transparent_files_are_read_as_rgb():
    import io

    from PIL import Image

    for mode in ("L", "RGBA", "P"):
        buffer = io.BytesIO()
        Image.new(mode, (5, 4)).save(buffer, "PNG")
        assert decode(buffer.getvalue(), mode).shape == (3, 4, 5)


def test_a_model_carries_the_superpixels_it_is_trained_and_evaluated_with(folders, micro):
    expected = SuperpixelSettings(16, 5, 4, invert=True)
    images = {split: Images(open_source(folders, split)) for split in ("train", "val")}
    task = Classification.build(load_recipe(str(micro), ["superpixels.invert=true"]), images, World())
    assert task.model.spec.superpixels == task.views.settings == task.validation.settings == expected
    assert evaluation_views(task.model.spec, images["val"]).settings == expected
    encoder = pretraining.create(load_recipe("tiny_moco", ["superpixels.invert=true"]))
    assert encoder.spec.superpixels == SuperpixelSettings(25, 5, 8, invert=True)
