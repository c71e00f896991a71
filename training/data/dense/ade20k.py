"""ADE20K scene parsing, 150 classes: ADEChallengeData2016/{images,annotations}/{training,validation}; raw 0 = void."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.training.data.dense.base import DenseSplit, find_home, paired

_FOLDERS = {"train": "training", "val": "validation"}

CLASSES = tuple(
    """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
    seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
    counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
    pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
    light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel,
    pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
    canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
    ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture,
    hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
    radiator, glass, clock, flag""".replace("\n    ", " ").split(", ")
)


def ade20k(root: Path, split: str) -> DenseSplit:
    """Images and class maps of "train" (20,210) or "val" (2,000).

    Raises:
        RecipeError: for another layout or missing label files.
    """
    folder = _FOLDERS.get(split, split)
    below = ["ADEChallengeData2016", "ade20k/ADEChallengeData2016"]
    remedy = "unpack ADEChallengeData2016.zip (data.csail.mit.edu/places/ADEchallenge) and give its folder"
    home = find_home(root, below, [f"images/{folder}", f"annotations/{folder}"], "ADE20K", remedy)
    images = sorted((home / "images" / folder).glob("*.jpg"))
    labels = [home / "annotations" / folder / f"{path.stem}.png" for path in images]
    return DenseSplit(paired(images, labels, f"ADE20K {split}"), CLASSES, void=(0,), shift=1)
