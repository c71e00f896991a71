"""Dense segmentation: readers, augmentation, loss, windows, training, resuming and evaluation."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from dense_folders import ade_folder, camvid_folder
from golden_tools import GOLDEN
from PIL import Image

from cast_sdk import bundled
from cast_sdk.errors import InputError, RecipeError
from cast_sdk.models import create_model, load_model, save_native, save_official
from cast_sdk.models.checkpoints.reading import read_file
from cast_sdk.models.dense import spread
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training import segment
from cast_sdk.training.data.dense.opening import open_split
from cast_sdk.training.data.dense.transforms import DenseViews, pad, photometric, random_crop, scaled_size, seen
from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe
from cast_sdk.training.metrics import scores_file
from cast_sdk.training.tasks import windows
from cast_sdk.training.tasks.dense import class_histogram, class_weights, superpixel_cross_entropy
from cast_sdk.training.tasks.segmentation import build_segmenter

TINY = {"embed_dim": 48, "depths": [1, 1, 1, 1], "num_heads": 4, "clusters": [16, 8, 4, 2], "decoder_layers": 1}
SETTINGS = [
    "model.init=''",
    f"model.options={json.dumps({**TINY, 'decoder_heads': 2, 'position_grid': 8})}",
    "superpixels.count=36",
    "dense.crop=96",
    "dense.window=96",
    "dense.short_side=112",
    "dense.train_stride=96",
    "dense.stride=64",
    "train.batch=2",
    "schedule.epochs=2",
]


@pytest.fixture
def camvid(data_dir, tmp_path):
    return camvid_folder(data_dir, tmp_path / "CamVid")


def run(*arguments):
    return CliRunner().invoke(segment.main, [str(argument) for argument in arguments])


def train(camvid, out, *more):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return run(
        "train", "--recipe", "camvid_cast_tiny", "--data", camvid, "--out", out, *settings, "--device", "cpu", *more
    )


def test_windows_against_the_fixture():
    with np.load(GOLDEN / "units.npz") as file:
        image, places = torch.from_numpy(file["window/in"])[0], file["window/anchors"]
        merged, flipped = (torch.from_numpy(file[f"window/{name}"]) for name in ("merged", "merged_flip"))
    ours = windows.positions(20, 27, 12, 8)
    np.testing.assert_array_equal(ours, places)
    scores = windows.merge([image[:, y : y + 12, x : x + 12] for y, x in ours], ours, 20, 27)
    torch.testing.assert_close(windows.probabilities(scores, 25, 31), merged)
    torch.testing.assert_close(windows.probabilities(scores, 25, 31, flipped=True), flipped)


def test_windows_cover_everything_once_or_more():
    assert windows.anchors(512, 512, 480) == [0]
    assert windows.anchors(683, 512, 480) == [0, 171]
    assert windows.anchors(1024, 512, 512) == [0, 512]
    assert windows.enlarged_size(200, 400, 256) == (256, 512)
    assert windows.enlarged_size(300, 400, 256) == (300, 400)
    with pytest.raises(InputError, match="No windows of 128 pixels"):
        windows.anchors(100, 128, 64)


def test_loss_on_superpixels_is_the_pixel_loss():
    torch.manual_seed(0)
    superpixels = torch.randint(0, 9, (2, 14, 10))
    target = torch.randint(0, 5, (2, 14, 10))
    target[:, :3] = 255
    scores = torch.randn(2, 9, 5, requires_grad=True)
    ours = superpixel_cross_entropy(scores, superpixels, target)
    (gradient,) = torch.autograd.grad(ours, scores)
    pixels = F.cross_entropy(spread(scores, superpixels, 14, 10), target, ignore_index=255)
    torch.testing.assert_close(ours, pixels)
    torch.testing.assert_close(gradient, torch.autograd.grad(pixels, scores)[0])
    weights = class_weights(np.array([50, 30, 15, 5, 0]), 0.5)
    assert weights[4] == 0 and float(weights[3] / weights[0]) == pytest.approx(10**0.5)
    weighted = F.cross_entropy(spread(scores, superpixels, 14, 10), target, weights, ignore_index=255)
    torch.testing.assert_close(superpixel_cross_entropy(scores, superpixels, target, weights), weighted)
    assert class_histogram(superpixels, target, 9, 5).sum() == (target != 255).sum()
    assert superpixel_cross_entropy(scores, superpixels, torch.full_like(target, 255)) == 0


def test_augmentation(photos):
    generator = np.random.default_rng(0)
    assert scaled_size(300, 900, 2048, 512) == (512, 1536)
    assert scaled_size(300, 3000, 2048, 512) == (205, 2048)
    image = np.array(Image.open(photos[0]).convert("RGB"))
    label = np.zeros(image.shape[:2], np.uint8)
    label[:, :8] = 1  # a crop away from this border would hold one class only
    for _ in range(5):
        cropped, classes = random_crop(image, label, 64, 0.95, generator)
        assert cropped.shape == (64, 64, 3) and classes.shape == (64, 64)
    changed = [photometric(image, generator) for _ in range(4)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    assert any((one != image).any() for one in changed)
    padded, classes = pad(image[:50], label[:50], 64)
    assert padded.shape[:2] == (64, max(64, image.shape[1])) and (classes[50:] == 255).all()
    assert (padded[60, 0] == (123, 116, 103)).all()


def test_seeds_see_what_the_published_segmenter_makes_of_a_crop():
    """Its steps: subtract and multiply in float32 (mmcv), then back in float32 and cut off."""
    codes = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)[None]
    mean, std = np.array([123.68, 116.28, 103.53]), np.array([58.4, 57.12, 57.38])
    normalised = codes.astype(np.float32)
    cv2.subtract(normalised, mean[None], normalised)
    cv2.multiply(normalised, 1 / std[None], normalised)
    back = torch.from_numpy(normalised) * torch.from_numpy(std).float() + torch.from_numpy(mean).float()
    expected = back.numpy().astype(np.uint8)
    found = seen(codes, "denormalised")
    np.testing.assert_array_equal(found, expected)
    assert (codes.astype(int) - found).sum((0, 1)).tolist() == [20, 2, 14]
    assert seen(codes, "crop") is codes
    assert (seen(np.full((1, 1, 3), [123, 116, 103], np.uint8), "denormalised") == [123, 116, 103]).all()  # padding


def test_published_recipes_have_the_batch_statistics_and_superpixels_of_one_process():
    for name, batch in (("ade20k_cast_small", 8), ("pcontext_cast_small", 16)):
        recipe = load_recipe(name)
        assert recipe.train.batch == batch and recipe.train.sync_bn
        assert recipe.superpixels.source == "denormalised" and recipe.superpixels.invert


def test_superpixels_of_items_and_windows_are_of_what_is_seen(camvid):
    recipe = load_recipe("camvid_cast_tiny", [*SETTINGS, "superpixels.source=denormalised"])
    image, superpixels, _ = DenseViews(open_split("camvid", camvid, "train"), recipe)[(1, 0, 3)]
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    settings = recipe.superpixels.settings()
    np.testing.assert_array_equal(superpixels, superpixels_for(seen(pixels, "denormalised"), settings))
    assert not np.array_equal(superpixels, superpixels_for(pixels, settings))


def test_items_depend_on_seed_epoch_and_position_alone(camvid):
    recipe = load_recipe("camvid_cast_tiny", SETTINGS)
    views = DenseViews(open_split("camvid", camvid, "train"), recipe)
    image, superpixels, label = views[(1, 0, 3)]
    assert image.shape == (3, 96, 96) and superpixels.shape == label.shape == (96, 96)
    assert int(superpixels.max()) < views.count() == 36
    torch.testing.assert_close(views[(1, 0, 3)][0], image)
    assert not torch.equal(views[(1, 1, 3)][0], image)


def test_readers(data_dir, tmp_path, camvid):
    split = open_split("camvid", camvid, "val")
    image, label = split.read(0)
    assert image.shape == (120, 160, 3) and set(np.unique(label)) <= {*range(11), 255} and (label == 255).any()
    ade = open_split("ade20k", ade_folder(data_dir, tmp_path / "ADEChallengeData2016").parent, "train")
    raw = np.array(Image.open(ade.pairs[0].label))
    label = ade.read(0)[1]
    assert (label[raw == 0] == 255).all() and (label[raw > 0] == raw[raw > 0] - 1).all() and len(ade.class_names) == 150


def test_bad_data(camvid, tmp_path):
    with pytest.raises(RecipeError, match="not the folder of CamVid: no train, trainannot"):
        open_split("camvid", tmp_path / "CamVid" / "train", "train")
    broken = sorted((camvid / "train").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(InputError, match=broken.name):
        open_split("camvid", camvid, "train").read(1)
    patient = open_split("camvid", camvid, "train", "skip")
    np.testing.assert_array_equal(patient.read(1)[0], patient.read(2)[0])
    label = sorted((camvid / "trainannot").iterdir())[0]
    Image.fromarray(np.full((120, 160), 40, np.uint8)).save(label)
    with pytest.raises(InputError, match=r"0\.\.10"):
        open_split("camvid", camvid, "train").read(0)
    label.unlink()
    result = train(camvid, tmp_path / "run")
    assert result.exit_code == 1 and label.name in result.output + (result.stderr or "")


def test_encoder_from_a_classifier(camvid, tmp_path):
    recipe = load_recipe("camvid_cast_tiny", SETTINGS)
    split = open_split("camvid", camvid, "train")
    sizes = {key: TINY[key] for key in ("embed_dim", "depths", "num_heads", "clusters")}
    source = create_model("cast_small", image_size=64, num_classes=7, **sizes)
    save_native(source, tmp_path / "cast.safetensors")
    model = build_segmenter(
        load_recipe("camvid_cast_tiny", [*SETTINGS, f"model.init={tmp_path}/cast.safetensors"]), split
    )
    torch.testing.assert_close(model.encoder.pos_embed[:, 1:], source.pos_embed)
    assert (model.encoder.pos_embed[:, 0] == 0).all() and model.encoder.pos_embed.requires_grad
    torch.testing.assert_close(model.encoder.blocks[3].mlp.fc2.weight, source.blocks[3].mlp.fc2.weight)
    assert model.spec.class_names[0] == "sky" and model.spec.num_classes == 11
    other = create_model("cast_small", image_size=96, num_classes=7, **sizes)
    save_native(other, tmp_path / "other.safetensors")
    with pytest.raises(RecipeError, match="pos_embed"):
        build_segmenter(load_recipe("camvid_cast_tiny", [*SETTINGS, f"model.init={tmp_path}/other.safetensors"]), split)
    save_official(model, tmp_path / "segmenter.pth", "segmenter")
    again = build_segmenter(load_recipe("camvid_cast_tiny", [*SETTINGS, f"model.init={tmp_path}/segmenter.pth"]), split)
    torch.testing.assert_close(again.decoder.cls_emb, model.decoder.cls_emb)
    split.class_names = split.class_names[:5]  # other classes: the encoder alone
    fewer = build_segmenter(load_recipe("camvid_cast_tiny", [*SETTINGS, f"model.init={tmp_path}/segmenter.pth"]), split)
    torch.testing.assert_close(fewer.encoder.pos_embed, model.encoder.pos_embed)
    assert fewer.decoder.cls_emb.shape[1] == 5 and build_segmenter(recipe, split).training


@pytest.mark.parametrize("name", ["camvid_cast_tiny", "camvid_cast_tiny_balanced"])
def test_the_recipes_have_the_sizes_of_the_bundled_model(camvid, name):
    recipe = load_recipe(name, ["model.init=bundled"])
    model = build_segmenter(recipe, open_split("camvid", camvid, "train"))
    source = load_model(str(bundled.path(bundled.WEIGHTS)))
    torch.testing.assert_close(model.encoder.pos_embed[:, 1:], source.pos_embed)


def test_training_resumes_bit_for_bit_and_evaluates(camvid, tmp_path):
    whole = train(camvid, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    validations = [line for line in log if line["kind"] == "validation"]
    assert len(validations) == 2 and 0 <= validations[-1]["mean_iou"] <= 100

    import cast_sdk.training.engine.loop as loop

    step = loop.Loop._step
    calls = []

    def stop_in_the_middle(self, stream):
        calls.append(1)
        self.stop = len(calls) == 3
        return step(self, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_step", stop_in_the_middle)
        assert train(camvid, tmp_path / "parts").exit_code == 0
    assert len(calls) == 3
    assert train(camvid, tmp_path / "parts").exit_code == 0
    first, second = (read_file(tmp_path / name / "checkpoint.pth") for name in ("whole", "parts"))
    assert first["n_cls"] == 11 and first["epoch"] == 1 and set(first) >= {"model", "optimizer", "lr_scheduler"}
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])

    checkpoint = tmp_path / "whole" / "best_checkpoint.pth"
    model = load_model(checkpoint)
    assert model.spec.class_names[3] == "road" and model.spec.superpixels.count == 36
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["--recipe", "camvid_cast_tiny", "--data", camvid, "--ckpt", checkpoint, *settings, "--device", "cpu"]
    result = run("evaluate", *arguments, "--out", tmp_path / "eval", "--stride", 96, "--save-images")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "eval" / "scores_ss.json").read_text())
    best = max(line["mean_iou"] for line in validations)
    assert scores["mean_iou"] == pytest.approx(best, abs=0.01) and scores["images"] == 4
    assert len(list((tmp_path / "eval" / "images" / "pred").glob("*.png"))) == 4
    predicted = np.array(Image.open(next((tmp_path / "eval" / "images" / "pred").glob("*.png"))))
    assert predicted.shape == (120, 160) and predicted.max() < 11
    result = run("pictures", *arguments[:4], "--run", tmp_path / "whole", "--out", tmp_path / "docs", "--images", 2)
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "docs" / "camvid_cast_tiny_curve.png").width > 800
    assert Image.open(tmp_path / "docs" / "camvid_cast_tiny_examples.jpg").width > 800
    multi = run("evaluate", *arguments, "--out", tmp_path / "eval", "--multi-scale")
    assert multi.exit_code == 0 and (tmp_path / "eval" / "scores_ms.json").is_file()
    refused = run("evaluate", *arguments[:4], "--ckpt", tmp_path / "whole" / "log.jsonl", "--out", tmp_path / "eval")
    assert refused.exit_code == 1


def test_baselines(camvid, tmp_path):
    result = run("baselines", "--recipe", "camvid_cast_tiny", "--data", camvid, "--out", tmp_path / "base")
    assert result.exit_code == 0, result.output
    scores = scores_file.read(tmp_path / "base" / "baselines.json")
    train_labels, labels = (
        [open_split("camvid", camvid, name).read(i)[1] for i in range(4)] for name in ("train", "val")
    )
    pooled = np.concatenate([label.ravel() for label in train_labels])
    winner = np.bincount(pooled[pooled < 11]).argmax()
    valid = np.concatenate([label[label < 11] for label in labels])
    assert scores["majority class"]["pixel_accuracy"] == pytest.approx(100 * (valid == winner).mean(), abs=0.01)
    accuracy = [scores[name]["pixel_accuracy"] for name in scores]
    assert accuracy[0] < accuracy[1] and accuracy[-1] == max(accuracy) > 85 and len(accuracy) == 4


@pytest.mark.parametrize("name", [name for name in list_recipes() if load_recipe(name).program == "segment"])
def test_recipes_are_complete(name):
    recipe = load_recipe(name)
    assert recipe.dense.data and recipe.schedule.kind == "poly"
    expected = recipe.dense.crop**2 // 256
    assert recipe.superpixels.count == expected and recipe.dense.window == recipe.dense.crop
    if recipe.dense.data in ("ade20k", "pcontext"):
        assert recipe.superpixels.invert and recipe.optimizer.nesterov and recipe.schedule.minimum == 1e-5
