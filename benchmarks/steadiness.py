"""How steady segments are on films: with and without tracking.

    CAST_SDK_DATA=FOLDER python benchmarks/steadiness.py [MODEL.onnx] [--frames 40] [--photos 4] [--only pan,camvid]

Films are made from photographs (coco128), so that the motion of every pixel is known: a still with noise, a pan, a zoom
and a moving cut-out at 2 pixels a frame, and `test://`. CamVid's 15 frames a second of 0016E5 have no known motion:
there it is an estimate by optical flow, and annotations say how well segments fit what is there.

Per level: `same`, the share of pixels whose id (track id where there are tracks) is that of the same point in the frame
before; `colour`, the share whose overlay colour changes visibly; `IoU`, of the best one-to-one matching of the two
frames' segments; `near`, the share of pixels on which the segments shown agree with those of that frame alone.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import films
import numpy as np

import cast_sdk
from cast_sdk.runtime.output.colours import segment_colours
from cast_sdk.runtime.runtime import GROUPINGS
from cast_sdk.runtime.sources.scene import Scene

VISIBLE = 16  # of 255 in any channel
WARM = 8  # frames at the start that are not counted
STEP = 3  # every third row and column is compared
WAYS = {
    "as before": {},
    "ids only": {"track": True, "memory": 0, "continue_superpixels": False},
    "ids, continued": {"track": True, "memory": 0},
    "memory only": {"track": True, "continue_superpixels": False},
    "track=True": {"track": True},
}


def moved(labels: np.ndarray, before: np.ndarray) -> np.ndarray:
    """What the frame before, [h, w], had at the points of this one: `before` is `Shot.before`, or samples of it."""
    return labels[before[0], before[1]]


def matching(now: np.ndarray, last: np.ndarray) -> tuple[float, float]:
    """Mean IoU of the best one-to-one matching of two label maps, and the share of pixels that it agrees on."""
    from scipy.optimize import linear_sum_assignment

    shape = int(now.max()) + 1, int(last.max()) + 1
    common = np.bincount(np.ravel(now) * np.int64(shape[1]) + np.ravel(last), minlength=shape[0] * shape[1])
    common = common.reshape(shape)
    rows, columns = linear_sum_assignment(-common)
    both = common[rows, columns]
    union = common.sum(1)[rows] + common.sum(0)[columns] - both
    return float((both / np.maximum(union, 1)).mean()), float(both.sum() / common.sum())


def purity(labels: np.ndarray, classes: np.ndarray) -> float:
    """Share of annotated pixels that have the most frequent class of their segment (11: not annotated)."""
    known = classes < 11
    common = np.bincount(labels[known] * 11 + classes[known], minlength=11 * (labels.max() + 1)).reshape(-1, 11)
    return float(common.max(1).sum() / common.sum())


def measure(
    rt: cast_sdk.Runtime, shots: list[films.Shot], classes: list[np.ndarray] | None = None, **options: object
) -> dict[str, np.ndarray]:
    """Means over the frames, one value per level 0..4."""
    levels = range(len(rt.spec.clusters) + 1)
    rows: dict[str, list[float]] = defaultdict(list)
    last: list[np.ndarray] = []
    last_tables: list[np.ndarray] = []
    last_ids: list[np.ndarray] = []
    every = np.s_[::STEP, ::STEP]
    for seg, shot in zip(rt.stream([shot.frame for shot in shots], **options), shots, strict=True):
        labels = [seg.labels(level) for level in levels]
        tables = segment_colours(seg)
        if shot.before is not None and seg.index >= WARM:
            before = shot.before[:, ::STEP, ::STEP]
            known, here = before[0] >= 0, [x[every] for x in labels]
            alone = [x[every] for x in own(rt, seg)]
            was = [moved(x, before) for x in last]
            for n in levels:
                ids, old = (here[n], was[n]) if not seg.tracking else (seg.tracks(n)[here[n]], last_ids[n][was[n]])
                step = np.abs(tables[n][here[n]].astype(np.int16) - last_tables[n][was[n]]).max(-1)
                rows["same"].append(float((ids == old)[known].mean()))
                rows["colour"].append(float((step > VISIBLE)[known].mean()))
                rows["IoU"].append(matching(here[n][known], was[n][known])[0])
                rows["near"].append(matching(here[n], alone[n])[1])
                rows["segments"].append(seg.num_segments(n))
                if classes is not None:
                    rows["purity"].append(purity(labels[n], classes[seg.index]))
        last, last_tables = labels, tables
        last_ids = list(seg.tracking.ids) if seg.tracking else []
    return {name: np.reshape(values, (-1, len(levels))).mean(0) for name, values in rows.items()}


def own(rt: cast_sdk.Runtime, seg: cast_sdk.Segmentation) -> list[np.ndarray]:
    """The segments of a frame alone at its size, of all levels, whatever tracking made of them."""
    assert seg.hierarchy is not None and seg.frame is not None
    prepared = rt.prepare(seg.frame)
    prepared.superpixels = seg.hierarchy.ids[0][seg.hierarchy.superpixels]  # as the network numbers them
    alone = rt.finish(prepared, seg.outputs)
    return [alone.labels(level) for level in range(alone.num_levels + 1)]


def photographs(data: Path, count: int) -> list[np.ndarray]:
    files = sorted((data / "coco128" / "images" / "train2017").glob("*.jpg"))
    return [cv2.imread(str(file)) for file in files[:: len(files) // (count + 1)][: count + 1]]


def scene(count: int) -> Iterator[films.Shot]:
    """`test://` at 20 frames a second; its parts move by less than 3 pixels, and are compared where they are."""
    drawn = Scene(640, 480)
    still = np.stack(np.mgrid[:480, :640]).astype(np.int32)
    for t in range(count):
        yield films.Shot(drawn.draw(round(t * 1.5)), still if t else None)


def camvid(data: Path, count: int) -> tuple[list[films.Shot], list[np.ndarray]]:
    pictures = sorted((data / "camvid" / "val").glob("0016E5_*.jpg"))[:count]
    classes = [cv2.imread(str(p.parents[1] / "valannot" / f"{p.stem}.png"), cv2.IMREAD_UNCHANGED) for p in pictures]
    return list(films.estimated(cv2.imread(str(p)) for p in pictures)), classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--grouping", default="auto", choices=GROUPINGS, help="how levels are made")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--photos", type=int, default=4, help="films of each kind")
    parser.add_argument("--only", help="the kinds of films, by comma: still,pan,zoom,cutout,scene,camvid")
    parser.add_argument("--ways", help=f"by comma: {','.join(WAYS)}")
    chosen = parser.parse_args()
    data = Path(os.environ["CAST_SDK_DATA"])
    pictures, count = photographs(data, chosen.photos), chosen.frames
    kinds: dict[str, Callable[[int], Iterator[films.Shot]]] = {
        "still": lambda i: films.still(pictures[i], count),
        "pan": lambda i: films.pan(pictures[i], count),
        "zoom": lambda i: films.zoom(pictures[i], count),
        "cutout": lambda i: films.cutout(pictures[i], pictures[i + 1], count),
    }
    ways = {name: options for name, options in WAYS.items() if not chosen.ways or name in chosen.ways.split(",")}
    with cast_sdk.Runtime(chosen.model, grouping=chosen.grouping) as rt:
        print(rt)
        for kind in (chosen.only or "still,pan,zoom,cutout,scene,camvid").split(","):
            for way, options in ways.items():
                if kind == "camvid":
                    shots, classes = camvid(data, 101)
                    results = [measure(rt, shots, classes, **options)]
                elif kind == "scene":
                    results = [measure(rt, list(scene(count)), **options)]
                else:
                    results = [measure(rt, list(kinds[kind](i)), **options) for i in range(chosen.photos)]
                line = f"{kind:7s} {way:15s}"
                for name in results[0]:
                    values = np.mean([result[name] for result in results], 0)
                    line += f"  {name} " + " ".join(f"{v:.2f}" if name != "segments" else f"{v:.0f}" for v in values)
                print(line, flush=True)


if __name__ == "__main__":
    main()
