"""The real comparison: eight classes of thirty photographs each, and masks of photographs in three layouts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from own_data import write_image
from PIL import Image

import cast_sdk
from cast_sdk.training.commands.main import main
from cast_sdk.training.own.classes.labelled import find_labelled
from cast_sdk.training.own.dense.base import split_of
from cast_sdk.training.own.dense.finding import find_masked

DATA = Path(os.environ.get("CAST_SDK_DATA", "/nowhere"))
THINGS = {"sky": 0, "building": 1, "road": 3, "pavement": 4, "tree": 5, "sign": 6, "fence": 7, "car": 8}

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="needs CAST_SDK_DATA with camvid and coco128"),
]


def write_street(root: Path, train: int, val: int) -> Path:
    """Crops around things of CamVid, of other frames in train and of another drive in val."""
    for split, wanted in (("train", train), ("val", val)):
        files = sorted((DATA / "camvid" / f"{split}annot").iterdir())
        masks = [np.array(Image.open(file)) for file in files]
        for name, value in THINGS.items():
            rng = np.random.default_rng([value, wanted])
            made = 0
            for at in np.tile(rng.permutation(len(masks)), 12):
                label = masks[at]
                rows, columns = np.nonzero(label == value)
                if len(rows) < 150 or made == wanted:
                    continue
                side = int(np.clip(2 * np.sqrt(len(rows)), 40, 128))
                pick = rng.integers(len(rows))
                top = int(np.clip(rows[pick] - side // 2, 0, label.shape[0] - side))
                left = int(np.clip(columns[pick] - side // 2, 0, label.shape[1] - side))
                area = slice(top, top + side), slice(left, left + side)
                if (label[area] == value).mean() < 0.2:
                    continue
                photo = np.array(Image.open(DATA / "camvid" / split / f"{files[at].stem}.jpg").convert("RGB"))
                write_image(root / split / name / f"{made:02d}.png", photo[area])
                made += 1
            assert made == wanted, (split, name, made)
    return root


def embeddings(data: Path):
    """The bundled model's embedding of every image, its label, and whether it judges."""
    images = find_labelled(data)
    with cast_sdk.Runtime() as runtime:
        found = np.stack([runtime.segment(place[0]).embedding for place in images.places])
    assert images.split is not None
    return found, images.labels, images.split == 1


def test_fine_tuning_beats_what_the_frozen_model_allows(tmp_path):
    from sklearn.linear_model import LogisticRegression

    data = write_street(tmp_path / "street", 30, 110)
    found, labels, judging = embeddings(data)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    centroids = np.stack([unit[~judging & (labels == label)].mean(0) for label in range(len(THINGS))])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    nearest = 100 * float(((unit[judging] @ centroids.T).argmax(1) == labels[judging]).mean())
    mean, deviation = found[~judging].mean(0), found[~judging].std(0) + 1e-6
    scaled = (found - mean) / deviation
    # The probe has the strength that suits the judging images best: more than it could know.
    probes = [
        100 * LogisticRegression(C=c, max_iter=2000).fit(scaled[~judging], labels[~judging]).score(
            scaled[judging], labels[judging]
        )
        for c in (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
    ]  # fmt: skip
    out = tmp_path / "run"
    result = CliRunner().invoke(main, ["classify", str(data), "--out", str(out)])
    assert result.exit_code == 0, result.output
    judged = json.loads(
        CliRunner().invoke(main, ["evaluate", str(out / "model.onnx"), str(data), "--split", "val", "--json"]).output
    )
    print(f"nearest centroid {nearest:.1f}, probe {max(probes):.1f}, fine-tuned {judged['accuracy']:.1f}")
    assert judged["accuracy"] > max(nearest, *probes)
    report = (out / "report.html").read_text()
    assert f"{judged['accuracy']:.1f} % right" in report  # the exported file and the checkpoint say the same


def write_layouts(root: Path, count: int) -> list[Path]:
    """The same masks of COCO photographs (person, sky, tree and the rest) as index PNG, COCO JSON and LabelMe."""
    import cv2

    values = {1: 1, 187: 2, 184: 3}
    files = sorted((DATA / "coco128" / "masks" / "train2017").iterdir())
    made, images, annotations = 0, [], []
    for file in files:
        raw = np.array(Image.open(file))
        if not np.isin(raw, list(values)).mean() > 0.1 or made == count:
            continue
        photo = DATA / "coco128" / "images" / "train2017" / f"{file.stem}.jpg"
        label, drawn = np.zeros(raw.shape, np.uint8), []
        for value, number in values.items():
            outlines, _ = cv2.findContours((raw == value).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            for outline in outlines:
                if len(outline) >= 20:
                    area = int(cv2.fillPoly(np.zeros_like(label), [outline], 1).sum())
                    drawn.append((-area, number, outline))
        drawn.sort(key=lambda one: one[0])  # the smaller on top, as with COCO
        for _, number, outline in drawn:
            cv2.fillPoly(label, [outline], number)
        shapes = [(number, (outline[:, 0].astype(float) + 0.5).tolist()) for _, number, outline in drawn]
        for layout in ("index/images", "coco/images", "labelme"):
            (root / layout).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, root / layout / photo.name)
        (root / "index" / "masks").mkdir(exist_ok=True)
        Image.fromarray(label).save(root / "index" / "masks" / f"{file.stem}.png")
        images.append({"id": made, "file_name": photo.name, "height": raw.shape[0], "width": raw.shape[1]})
        annotations += [
            {"image_id": made, "category_id": number, "segmentation": [np.ravel(points).tolist()]}
            for number, points in shapes
        ]
        polygons = [{"label": f"{number}", "points": points, "shape_type": "polygon"} for number, points in shapes]
        content = {"shapes": polygons, "imagePath": photo.name}
        (root / "labelme" / f"{file.stem}.json").write_text(json.dumps(content))
        made += 1
    categories = [{"id": number, "name": f"{number}"} for number in values.values()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco" / "masks.json").write_text(json.dumps(content))
    assert made == count
    return [root / "index", root / "coco", root / "labelme"]


def test_three_layouts_of_photographs_train_alike(tmp_path):
    maps = []
    layouts = write_layouts(tmp_path, 20)
    for data in layouts:
        masked = find_masked(data)
        assert len(masked.class_names) == 4
        split = split_of(masked, np.argsort([path.stem for path in masked.images]))
        maps.append([split.read(at)[1] for at in range(len(split))])
    for first, second, third in zip(*maps, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    pixels = np.bincount(np.concatenate([one.ravel() for one in maps[0]]), minlength=4)
    most = 100 * pixels.max() / pixels.sum() / 4  # mean IoU of naming one class everywhere
    for data in layouts:
        out = tmp_path / f"run {data.name}"
        arguments = ["segment", str(data), "--out", str(out), "--image-size", "128", "--epochs", "6"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        judge = ["evaluate", str(out / "model.onnx"), str(data), "--json"]
        result = json.loads(CliRunner().invoke(main, judge).stdout)
        print(f"{data.name}: mean IoU {result['mean_iou']:.1f} %, by the commonest class alone {most:.1f} %")
        assert result["images"] == 20 and result["mean_iou"] > 1.5 * most
