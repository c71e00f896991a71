"""PartImageNet: reader, segments, naming by a text-image encoder, scoring and the programs."""

import hashlib
import json
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from dense_folders import parts_folder
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from cast_sdk.errors import InputError, MissingDependencyError, RecipeError
from cast_sdk.models import create_model, save_native
from cast_sdk.training import parts
from cast_sdk.training.data.dense.partimagenet import PartImageNet, decode_mask
from cast_sdk.training.data.prepare import dense as prepare_dense
from cast_sdk.training.metrics.semantic import image_jaccard
from cast_sdk.training.tasks.open_vocabulary import (
    MissingSegment,
    OpenClip,
    Vocabulary,
    cast_segments,
    crop,
    crop_classes,
    load_segments,
    masked,
    masks_of,
    name_objects,
    name_parts,
    sam_masks,
    score_image,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


class ColourEncoder:
    """A text-image encoder small enough for a test: mean colours, and a fixed direction for every word."""

    def preprocess(self, image):
        pixels = torch.from_numpy(np.array(crop(image))).permute(2, 0, 1).float() / 255
        return (pixels - 0.45) / 0.25

    def images(self, batch):
        return F.normalize(torch.cat([batch.mean((2, 3)), batch.std((2, 3))], 1), dim=1)

    def texts(self, names):
        seeds = [int(hashlib.md5(name.encode()).hexdigest()[:8], 16) for name in names]
        rows = [torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return F.normalize(torch.stack(rows), dim=1)


@pytest.fixture
def home(data_dir, tmp_path):
    return parts_folder(data_dir, tmp_path / "PartImageNet")


def run(*arguments):
    return CliRunner().invoke(parts.main, [str(argument) for argument in arguments])


def test_reader(home, caplog):
    data = PartImageNet.open(home)
    assert data.objects == ("Bird", "Car") and data.parts[2] == "Car Body" and data.parts_of(1) == [2, 3]
    objects, pieces = data.truth(data.images[0])
    assert "left out" in caplog.text  # the polygon of one point
    assert objects.shape == (data.images[0]["height"], data.images[0]["width"])
    assert objects[5, 5] == 0 and pieces[5, 5] == 0  # the box comes last and overwrites
    assert (objects == 2).any() and (pieces[objects == 2] == 4).all()  # background comes after the last class
    assert set(np.unique(objects[pieces < 4] * 2 + pieces[pieces < 4] % 2)) <= {0, 1, 2, 3}
    with pytest.raises(InputError):
        data.truth(data.images[0], tolerate=False)
    with pytest.raises(InputError, match="neither polygons nor run lengths"):
        decode_mask({"counts": 3}, 4, 4)
    with pytest.raises(RecipeError, match=r"train\.json"):
        PartImageNet.open(home, "train")
    assert "ready for parts.py" in CliRunner().invoke(prepare_dense.partimagenet_command, ["--data", str(home)]).output


def words(data):
    eye = torch.eye(6)
    return Vocabulary(data, eye[:3], (eye[3:5], eye[4:6]))


def test_naming_by_hand(home):
    data = PartImageNet.open(home)
    labels = np.array([[0, 0, 1, 1], [2, 2, 1, 1]])
    masks = masks_of(labels, strict=True)
    objects = name_objects(torch.eye(6)[[0, 1, 2]], masks, words(data))
    np.testing.assert_array_equal(objects, [[0, 0, 1, 1], [2, 2, 1, 1]])
    found = name_parts(torch.eye(6)[[4, 5, 3]], masks, objects, words(data))
    # Bird's second part, Car's second part, background although the vector is a bird's.
    np.testing.assert_array_equal(found, [[1, 1, 3, 3], [4, 4, 3, 3]])
    whole = np.ones((1, 2, 4), bool)
    np.testing.assert_array_equal(name_parts(torch.eye(6)[[5]], whole, objects[::-1], words(data)), np.full((2, 4), 4))
    overlapping = np.array([[[1, 1, 1, 0]], [[0, 0, 1, 1]]], bool)
    np.testing.assert_array_equal(name_objects(torch.eye(6)[[0, 1]], overlapping, words(data), True), [[0, 0, 0, 1]])
    np.testing.assert_array_equal(
        name_parts(torch.eye(6)[[3, 4]], overlapping, np.array([[0, 0, 0, 1]], np.uint8), words(data)), [[0, 0, 1, 1]]
    )


def test_empty_segments():
    labels = np.array([[0, 0, 2, 2]])
    assert len(masks_of(labels, strict=False)) == 2
    with pytest.raises(MissingSegment):
        masks_of(labels, strict=True)
    image = torch.arange(8.0).view(2, 1, 4)
    out = masked(image, masks_of(labels, strict=False))
    assert out.shape == (2, 2, 1, 4) and (out[0, :, :, 2:] == 0.5).all() and (out[0, :, :, :2] == image[..., :2]).all()


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (120, 90)])
def test_ground_truth_is_resized_as_the_notebook_resizes_it(shape):
    """Tensors take the pixel at floor(i * scale) of each axis."""
    classes = np.random.default_rng(0).integers(0, 12, shape).astype(np.uint8)
    short = min(shape)
    height, width = (int(224 * side / short) for side in shape)
    rows, columns = (np.arange(new) * old // new for new, old in ((height, shape[0]), (width, shape[1])))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    expected = classes[rows][:, columns][top : top + 224, left : left + 224]
    found = crop_classes(classes)
    assert found.shape == (224, 224) and np.mean(found != expected) < 0.02  # float rounding of the scale
    centres = np.array(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
    centre = centres[top : top + 224, left : left + 224]
    assert shape == (224, 224) or np.mean(centre != expected) > 0.1  # what Pillow would give


def test_scores_against_torchmetrics(home):
    data = PartImageNet.open(home)
    encoder = ColourEncoder()
    vocabulary = Vocabulary.encode(data, encoder)
    image = Image.open(data.path(data.images[0])).convert("RGB")
    objects, pieces = (crop_classes(part) for part in data.truth(data.images[0]))
    rows = np.arange(224)[:, None] // 56
    levels = [rows * 4 + np.arange(224) // 56, rows * 2 + np.arange(224) // 112, rows // 2 + 0 * np.arange(224)]
    ours = score_image(encoder, vocabulary, image, levels, (objects, pieces), strict=True)
    masks = masks_of(levels[-1], True)
    named = name_objects(encoder.images(masked(encoder.preprocess(image), masks)), masks, vocabulary)
    tensors = [torch.from_numpy(part.astype(np.int64)) for part in (named, objects)]
    theirs = multiclass_jaccard_index(*tensors, num_classes=3, average="macro")
    assert ours[0] == pytest.approx(float(theirs), abs=1e-6) == pytest.approx(image_jaccard(named, objects, 3))


def test_reference_padding_of_cast_segments(photos):
    torch.manual_seed(0)
    model = create_model("cast_small", embed_dim=48, depths=[1, 1, 1, 1], num_heads=4).eval()
    pixels = np.array(crop(Image.open(photos[2]).convert("RGB")))
    for reference in (False, True):
        levels = cast_segments(model, pixels, reference)
        assert [level.shape for level in levels] == [(224, 224)] * 4
        assert all(len(np.unique(level)) <= count for level, count in zip(levels, (64, 32, 16, 8), strict=True))


def test_programs(home, tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_native(create_model("cast_tiny").eval(), tmp_path / "cast.safetensors")
    vit = create_model("vit_conv_small", embed_dim=48, depths=[1], num_heads=4)
    save_native(vit.eval(), tmp_path / "vit.safetensors")
    monkeypatch.setattr("cast_sdk.training.tasks.open_vocabulary.OpenClip", lambda *arguments: ColourEncoder())
    for name in ("cast", "vit"):
        arguments = ("--model", tmp_path / f"{name}.safetensors", "--data", home, "--out", tmp_path / name)
        result = run("segments", *arguments, "--device", "cpu")
        assert result.exit_code == 0 and result.output.startswith("3 of 3"), result.output
        assert run("segments", *arguments).output.startswith("0 of 3")
        for options, expected in (((), 3), (("--reference",), None)):
            out = tmp_path / "scores" / name
            result = run("evaluate", "--segments", tmp_path / name, "--data", home, "--out", out, *options)
            assert result.exit_code == 0, result.output
            scores = json.loads((out / "scores.json").read_text())
            assert scores["images"] + scores["dropped"] == 3 and scores["images"] == (expected or scores["images"])
    missing = tmp_path / "cast" / "level3" / "n01500001_12.npy"
    missing.unlink()
    assert (
        "continues where it stopped"
        in run("evaluate", "--segments", tmp_path / "cast", "--data", home, "--out", tmp_path / "s").stderr
    )


def test_sam_masks_are_sorted_and_kept(tmp_path, photos):
    class Generator:
        def generate(self, image):
            small, large = np.zeros(image.shape[:2], bool), np.ones(image.shape[:2], bool)
            small[3:9, 5:7] = True
            return [{"area": 12, "segmentation": small}, {"area": 224 * 224, "segmentation": large}]

    masks = sam_masks(Generator(), Image.open(photos[0]).convert("RGB"))
    assert masks.shape == (2, 224, 224) and masks[0].all() and masks[1].sum() == 12
    (tmp_path / "masks").mkdir()
    np.savez(tmp_path / "masks" / "one.npz", packed=np.packbits(masks, axis=-1))
    np.testing.assert_array_equal(load_segments(tmp_path, "one"), masks)


def test_openclip_is_asked_as_published(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match="open_clip_torch"):
        OpenClip()
    asked = {}

    class Network(torch.nn.Module):
        def encode_image(self, batch):
            return batch.flatten(1)[:, :4] * 3

        def encode_text(self, tokens):
            return tokens.float()

    def create(model, pretrained):
        asked["model"] = (model, pretrained)
        return Network(), None, lambda image: torch.ones(3, 2, 2)

    fake = types.ModuleType("open_clip")
    fake.create_model_and_transforms = create
    fake.get_tokenizer = lambda model: lambda texts: asked.setdefault("texts", texts) and torch.ones(len(texts), 4)
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    encoder = OpenClip()
    assert asked["model"] == ("ViT-B-16", "openai")
    torch.testing.assert_close(encoder.images(torch.ones(2, 3, 2, 2)).norm(dim=1), torch.ones(2))
    assert encoder.texts(["Bird Head"]).shape == (1, 4) and asked["texts"] == ["a photo of a Bird Head"]


def test_segments_of_another_model_are_not_kept(home, tmp_path):
    model = create_model("cast_tiny", num_classes=3)
    for name in ("a", "b"):
        torch.manual_seed(len(name) + ord(name))
        save_native(
            create_model("cast_tiny", num_classes=3) if name == "b" else model, tmp_path / f"{name}.safetensors"
        )
    words = ("segments", "--data", home, "--out", tmp_path / "out", "--device", "cpu")
    assert run(*words, "--model", tmp_path / "a.safetensors").exit_code == 0
    files = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.npy"))}
    again = run(*words, "--model", tmp_path / "a.safetensors")
    assert again.exit_code == 0 and again.output.startswith("0 of "), again.output
    for other in (("--model", tmp_path / "b.safetensors"), ("--model", tmp_path / "a.safetensors", "--seed", 5)):
        refused = run(*words, *other)
        assert refused.exit_code == 1 and "results of something else" in refused.output, refused.output
    (tmp_path / "out" / "made_by.json").unlink()
    assert "says what made them" in run(*words, "--model", tmp_path / "a.safetensors").output
    assert all(path.read_bytes() == data for path, data in files.items())


@pytest.mark.parametrize("spoil", [b"", b"hello", b"PK\x03\x04", None])
def test_damaged_segments_are_named(tmp_path, spoil):
    good = {"level": np.zeros((4, 4), np.int64), "masks": np.zeros((1, 4, 1), np.uint8)}
    for level in range(1, 5):
        (tmp_path / f"level{level}").mkdir()
        np.save(tmp_path / f"level{level}" / "a.npy", good["level"])
    assert len(load_segments(tmp_path, "a")) == 4
    if spoil is None:
        np.save(tmp_path / "level2" / "a.npy", np.array([{}], object), allow_pickle=True)
    else:
        (tmp_path / "level2" / "a.npy").write_bytes(spoil)
    with pytest.raises(InputError, match=r"level2.a\.npy holds no segments"):
        load_segments(tmp_path, "a")
    (tmp_path / "masks").mkdir()
    np.savez(tmp_path / "masks" / "a.npz", other=good["masks"])
    with pytest.raises(InputError, match="holds no masks"):
        load_segments(tmp_path, "a")
    np.savez(tmp_path / "masks" / "a.npz", packed=good["masks"][0])
    with pytest.raises(InputError, match="masks of a are uint8"):
        load_segments(tmp_path, "a")
