"""VOC: preparation, prototypes and votes, softmax fine-tuning and its optimizer."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dense_folders import class_map, coco_pairs, voc_folder
from golden_tools import GOLDEN, drawn, inputs
from PIL import Image

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.models import MoCo, create_model, load_model, model_spec, save_official
from cast_sdk.models.checkpoints.reading import read_file
from cast_sdk.models.dense import pixel_classifier
from cast_sdk.training import voc
from cast_sdk.training.data.dense.opening import open_split
from cast_sdk.training.data.prepare import dense as prepare_dense
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.tasks.voc_finetuning import (
    RateInBufferSGD,
    VocViews,
    build_spml,
    half_superpixels,
    parameter_groups,
    resized_cross_entropy,
)
from cast_sdk.training.tasks.voc_prediction import prepare, voc_superpixels
from cast_sdk.training.tasks.voc_retrieval import load_backbone, majority, nearest_classes, prototypes

SIZES = {"embed_dim": 48, "depths": [1, 1, 1, 1], "num_heads": 4}
SETTINGS = [
    f"model.options={json.dumps(SIZES)}",
    "dense.crop=128",
    "superpixels.count=256",
    "train.batch=2",
    "schedule.steps=3",
    "schedule.warmup_steps=1",
]


@pytest.fixture
def home(data_dir, tmp_path):
    root = voc_folder(data_dir, tmp_path / "VOCdevkit")
    prepare_dense.convert_voc(root)
    return root


@pytest.fixture
def checkpoint(tmp_path):
    """A MoCo pre-training checkpoint of a narrow cast_seg, as the COCO run writes it."""
    torch.manual_seed(0)
    spec = model_spec("cast_seg_small", head="projector", head_dims=(64, 256), num_classes=0, **SIZES)
    path = tmp_path / "checkpoint_0149.pth.tar"
    save_official(MoCo(spec), path, "moco", epoch=150)
    return path


def run(*arguments):
    return CliRunner().invoke(voc.main, [str(argument) for argument in arguments])


def test_preparation(home, data_dir):
    train, val = (open_split("voc", home, name) for name in ("train", "val"))
    assert [pair.name for pair in train.pairs] == ["2008_000000", "2008_000001", "2008_000003"]  # train+ without val
    assert [pair.name for pair in val.pairs] == ["2008_000002"]
    expected = class_map(coco_pairs(data_dir, 4)[2][1], 21)
    np.testing.assert_array_equal(val.read(0)[1][2:], expected[2:])
    assert (val.read(0)[1][:2] == 255).all() and train.pairs[1].label.parent.name == "clsimg"
    (home / "VOC2012" / "segcls" / "2008_000002.png").unlink()
    with pytest.raises(RecipeError, match="1 files of VOC val are missing"):
        open_split("voc", home, "val")


def test_pascal_context_from_both_kinds_of_annotation(data_dir, tmp_path):
    from scipy.io import savemat

    pairs = coco_pairs(data_dir, 2)
    names = ["2008_000002", "2008_000005"]
    for kind in ("torch", "mat"):
        root = tmp_path / kind / "VOC2010"
        sets = root / "ImageSets" / "Main"
        for folder in (root / "JPEGImages", sets, tmp_path / kind / "raw"):
            folder.mkdir(parents=True)
        for (image, _), name, split in zip(pairs, names, ("train", "val"), strict=True):
            Image.open(image).convert("RGB").save(root / "JPEGImages" / f"{name}.jpg")
            (sets / f"{split}.txt").write_text(f"{name}\n2008_000999\n")
        raw = tmp_path / kind / "raw"
        for (_, mask), name, split in zip(pairs, names, ("train", "val"), strict=True):
            classes = class_map(mask, 60)
            if kind == "torch":
                torch.save({int(name.replace("_", "")): Image.fromarray(classes)}, raw / f"{split}.pth")
            else:
                savemat(raw / f"{name}.mat", {"LabelMap": classes.astype(np.uint16) + 100})
        if kind == "mat":
            lines = ["100: wallpaper", *(f"{100 + index}: {name}" for index, name in _context_names())]
            (raw / "labels.txt").write_text("\n".join(lines))
        prepare_dense.convert_pcontext(root.parent, raw)
        split = open_split("pcontext", root, "val")
        np.testing.assert_array_equal(split.read(0)[1], class_map(pairs[1][1], 60))
    with pytest.raises(RecipeError, match=r"No train\.pth and val\.pth"):
        prepare_dense.convert_pcontext(root, tmp_path)


def _context_names():
    from cast_sdk.training.data.dense.pcontext import CLASSES

    return list(enumerate(CLASSES))[1:]


def test_votes_are_exact_in_blocks():
    torch.manual_seed(0)
    memory = torch.nn.functional.normalize(torch.randn(900, 16), dim=1)
    labels, queries = torch.randint(0, 4, (900,)), torch.nn.functional.normalize(torch.randn(30, 16), dim=1)
    top = (queries @ memory.T).argsort(dim=1, descending=True)[:, :20]
    expected = [int(np.bincount(labels[row].numpy(), minlength=4).argmax()) for row in top]
    for block in (7, 100, 10_000):
        assert nearest_classes(queries, memory, labels, 4, block=block).tolist() == expected
    tie = nearest_classes(queries[:1], queries[:1].repeat(4, 1), torch.tensor([3, 1, 1, 3]), 4)
    assert tie.tolist() == [1]
    clusters = np.array([[0, 0, 1, 1, 1]])
    assert majority(clusters, np.array([[4, 2, 255, 255, 7]], np.uint8), 2).tolist() == [2, 255]


def test_prototypes_are_area_weighted(home, checkpoint):
    """Against the definition on pixels: gather, normalise, add up per segment, normalise."""
    from cast_sdk.models.dense import spread

    backbone = load_backbone(checkpoint)
    assert backbone.spec.clusters == (320, 160, 80, 40) and backbone.spec.position_grid == 64
    image, truth = open_split("voc", home, "val").read(0)
    prepared = prepare(image, voc_superpixels())
    assert max(prepared.image.shape[2:]) == 512 and prepared.superpixels.shape[1:] == prepared.image.shape[2:]
    found = prototypes(backbone, prepared, truth)
    with torch.inference_mode():
        dense = backbone(prepared.image, prepared.superpixels, prepared.count).dense
        height, width = prepared.image.shape[2:]
        pixels = torch.nn.functional.normalize(
            spread(dense, prepared.superpixels, height, width)[0].flatten(1).T, dim=1
        )
        sums = torch.zeros(len(found.vectors), pixels.shape[1]).index_add_(0, found.clusters.flatten(), pixels)
    torch.testing.assert_close(found.vectors, torch.nn.functional.normalize(sums, dim=1), atol=1e-5, rtol=1e-4)
    assert len(found.vectors) <= 40 and len(found.labels) == len(found.vectors)


def test_retrieval_program(home, checkpoint, tmp_path):
    result = run("retrieve", "--ckpt", checkpoint, "--data", home, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "results"
    files = sorted((folder / "train+" / "semantic_prototype").glob("*.npz"))
    assert [file.stem for file in files] == ["2008_000000", "2008_000001", "2008_000003"]
    with np.load(files[0]) as stored:
        assert stored["prototype"].shape[1] == 256
        np.testing.assert_allclose(np.linalg.norm(stored["prototype"], axis=1), 1, atol=1e-5)
    classes = np.array(Image.open(folder / "val" / "semantic_gray" / "2008_000002.png"))
    truth = open_split("voc", home, "val").read(0)[1]
    assert classes.shape == truth.shape and classes.max() < 21
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    hit = [
        (classes == c)[truth == c].sum() / (((classes == c) | (truth == c)) & (truth < 21)).sum()
        for c in np.unique(truth[truth < 21])
    ]
    assert scores["mean_iou"] == pytest.approx(100 * sum(hit) / 21, abs=0.01)
    before = files[0].stat().st_mtime_ns
    assert (
        run("retrieve", "--ckpt", checkpoint, "--data", home, "--out", tmp_path / "out", "--device", "cpu").exit_code
        == 0
    )
    assert files[0].stat().st_mtime_ns == before  # kept, not made again
    files[0].write_bytes(b"PK")
    damaged = run("retrieve", "--ckpt", checkpoint, "--data", home, "--out", tmp_path / "out", "--device", "cpu")
    assert damaged.exit_code == 1 and f"{files[0]} holds no prototypes" in damaged.output
    image = home / "VOC2012" / "JPEGImages" / "2008_000001.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    other = run("retrieve", "--ckpt", checkpoint, "--data", home, "--out", tmp_path / "out", "--device", "cpu")
    assert other.exit_code == 1 and "results of something else" in other.output


def test_loss_against_the_fixture():
    with np.load(GOLDEN / "units.npz") as file:
        data = {key: torch.from_numpy(file[key]) for key in file.files if key.startswith("classifier/")}
    for kind in ("softmax", "linear"):
        spec = create_model(
            "spml_cast_small", embed_dim=48, num_heads=4, depths=[1, 1, 1, 1], num_classes=7, classifier=kind
        ).spec
        classifier = pixel_classifier(spec).eval()
        with torch.no_grad():
            for key, tensor in classifier.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(drawn(f"semantic_classifier.{key}", tuple(tensor.shape), f"{kind}:")))
            logits = classifier(data[f"classifier/{kind}/emb"])
            torch.testing.assert_close(logits, data[f"classifier/{kind}/logit"], atol=1e-5, rtol=1e-4)
            loss = resized_cross_entropy(logits, data[f"classifier/{kind}/label"])
        assert float(loss) == pytest.approx(float(data[f"classifier/{kind}/loss"]), rel=1e-5)


def test_parameter_groups_and_optimizer():
    recipe = load_recipe("voc_finetune_cast_small", SETTINGS)
    split = type("Split", (), {"class_names": tuple("abc"), "palette": ()})()
    model = build_spml(recipe, split)
    groups = parameter_groups(model, 3e-3, 1e-4)
    assert [group["lr"] for group in groups] == pytest.approx([3e-3, 6e-3, 3e-2, 6e-2])
    assert [group["weight_decay"] for group in groups] == [1e-4, 0, 1e-4, 0]
    grouped = sum(len(group["params"]) for group in groups)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert grouped == len(names) - 1 and "vit_backbone.cls_token" in names
    biases = {id(parameter) for parameter in groups[1]["params"]}
    assert id(model.vit_backbone.pooling(1).centroid_fc.bias) in biases

    value = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = RateInBufferSGD([{"params": [value], "lr": 0.1, "base_lr": 0.1}], 0.1, 0.9, 0.5)
    value.grad = torch.tensor([1.0])
    optimizer.step()  # v = 0.1 * (1 + 0.5 * 2) = 0.2
    assert value.item() == pytest.approx(1.8)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()  # v = 0.9 * 0.2 + 0.01 * (1 + 0.9) = 0.199: the old rate stays in the buffer
    assert value.item() == pytest.approx(1.601)


def test_superpixels_of_the_halved_bytes_are_the_fixtures():
    stored = inputs()
    for image, labels in zip(stored["im512"], stored["seg512_half"], strict=True):
        crop = image.astype(np.float32) / np.float32(255)
        found = half_superpixels((crop * 255).astype(np.uint8), voc_superpixels())
        np.testing.assert_array_equal(found, labels)


def test_finetuning_program(home, checkpoint, tmp_path):
    recipe = load_recipe("voc_finetune_cast_small", SETTINGS)
    image, superpixels, label = VocViews(open_split("voc", home, "train"), recipe)[(0, 0, 1)]
    assert image.shape == (3, 128, 128) and superpixels.shape == (64, 64) and label.shape == (128, 128)
    settings = [part for setting in [*SETTINGS, f"model.init={checkpoint}"] for part in ("--set", setting)]
    arguments = ["finetune", "--recipe", "voc_finetune_cast_small", "--data", home, *settings, "--device", "cpu"]
    result = run(*arguments, "--out", tmp_path / "run", "--log-every", 1)
    assert result.exit_code == 0, result.output
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in log if line["kind"] == "step"]
    expected = [min(0.06 * (1 - step / 3) ** 0.9, 0.006 if step == 0 else 1) for step in range(3)]
    assert rates == pytest.approx(expected, rel=1e-4)
    stored = read_file(tmp_path / "run" / "model-2.pth")
    assert "vit_backbone.block_fusion.proj_blocks.2.weight" in stored["embedding_model"]
    assert set(stored["prediction_model"]) >= {"semantic_classifier.0.weight", "semantic_classifier.3.bias"}
    start = load_model(checkpoint, stage="segmentation", num_classes=0)
    torch.testing.assert_close(stored["embedding_model"]["vit_backbone.cls_token"], start.cls_token.detach())
    moved = stored["embedding_model"]["vit_backbone.block_fusion.proj_blocks.2.weight"]
    assert not torch.equal(moved, start.block_fusion.proj_blocks[2].weight)
    result = run("evaluate", "--ckpt", tmp_path / "run" / "model-2.pth", "--data", home, "--out", tmp_path / "eval")
    assert result.exit_code == 0, result.output
    final = [line for line in log if line["kind"] == "validation"][-1]
    assert json.loads((tmp_path / "eval" / "scores.json").read_text())["mean_iou"] == pytest.approx(
        final["mean_iou"], abs=0.01
    )


def test_bad_input(home, tmp_path):
    broken = home / "sbd" / "dataset" / "cls" / "2008_000001.mat"
    broken.write_bytes(b"MATLAB")
    (home / "sbd" / "dataset" / "clsimg" / "2008_000001.png").unlink()
    with pytest.raises(InputError, match=r"2008_000001\.mat"):
        prepare_dense.convert_voc(home)
    photo = home / "VOC2012" / "JPEGImages" / "2008_000002.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(InputError, match="2008_000002"):
        open_split("voc", home, "val").read(0)
    with pytest.raises(RecipeError, match="SBD's benchmark"):
        prepare_dense.convert_voc(tmp_path / "nothing")
