"""How good are the levels of a hierarchy as segmentations? Measured against the segmentations that people drew.

BSDS500 (folder with images/ and groundTruth/), the bundled model, the same network untrained, and the baselines:
    python training/hierarchy.py --data BSDS500 --split val --method bundled --method random:cast_tiny \\
        --method superpixels --method merge --out runs/hierarchy
Any checkpoint or exported artifact; a ViT is grouped by spherical k-means:
    python training/hierarchy.py --data BSDS500 --method cast_base.pth --method vit_conv_base.pth --out runs/base
Any folder of label maps of the same names as the images (.png, .npy, .mat; several per image are several annotators):
    python training/hierarchy.py --images photos --labels maps --method model.onnx --out runs/own

Writes OUT/hierarchy.json, hierarchy.md (the printed table) and pictures/. Methods whose results OUT holds are not
measured again, so that a new checkpoint can be compared with baselines of before.
`python -m cast_sdk.training.hierarchy` is the same program.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cast_sdk.arguments import whole
from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.common import FiniteRange, OrdinaryPath
from cast_sdk.runtime.commands.program import Command

if TYPE_CHECKING:
    from cast_sdk.training.data.dense.bsds import AnnotatedImage
    from cast_sdk.training.metrics.levels import Grouping, Levels
    from cast_sdk.training.metrics.partition import HierarchyScores

_MOST = 2**20  # superpixels, segments
METHODS = (
    "a checkpoint or artifact, bundled, random:NAME[:{field: value}] (with assigned: or merged: before it, levels made "
    "so), superpixels or merge[:{size: N, superpixels: N}]"
)


@dataclass(frozen=True)
class Method:
    name: str
    levels: Levels
    note: str  # what it is, for the table
    key: str = ""  # equal when its results must be: digest of the weights, numbers of segments


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--data", type=OrdinaryPath(path_type=Path), help="BSDS500: folder with images/ and groundTruth/.")
@click.option("--split", default="val", show_default=True, help="Split of BSDS500.")
@click.option("--images", type=OrdinaryPath(path_type=Path), help="Instead of --data: a folder of images ...")
@click.option("--labels", type=OrdinaryPath(path_type=Path), help="... and one of label maps.")
@click.option("--method", "methods", multiple=True, required=True, metavar="METHOD", help=f"Repeatable: {METHODS}.")
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for the results.")
@click.option(
    "--size",
    type=click.IntRange(8, 16384),
    help="Side for superpixels and merge [default: that of the first CAST, else 224].",
)
@click.option("--superpixels", type=click.IntRange(1), help="Superpixels of merge [default: likewise, else 196].")
@click.option("--segments", help="Segments per level, e.g. 64,32,16,8 [default: the clusters of the first CAST].")
@click.option(
    "--tolerance",
    type=FiniteRange(0, 1),
    default=0.0075,
    show_default=True,
    help="Boundary distance over the image diagonal.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N images.")
@click.option("--pictures", type=click.IntRange(0), default=4, show_default=True, help="How many images to draw.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of random weights and k-means."
)
def main(
    data: Path | None,
    split: str,
    images: Path | None,
    labels: Path | None,
    methods: tuple[str, ...],
    out: Path,
    size: int | None,
    superpixels: int | None,
    segments: str | None,
    tolerance: float,
    limit: int | None,
    pictures: int,
    seed: int,
) -> None:
    from cast_sdk.training.data.dense.bsds import bsds500, label_folder
    from cast_sdk.training.engine import provenance
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.metrics import hierarchy_results

    with errors_for_people():
        if data is not None:
            entries, source = bsds500(data, split), f"BSDS500 {split}"
        elif images is not None and labels is not None:
            entries, source = label_folder(images, labels), f"{images.name} with {labels.name}"
        else:
            raise InputError(
                "No images are given.", remedy="--data BSDS500 --split val, or --images FOLDER --labels FOLDER"
            )
        entries = entries[:limit]
        opened = open_methods(methods, size, superpixels, segments, seed)
        files = provenance.of_files(
            (f"{entry.name}/{path.name}", path) for entry in entries for path in (entry.image, *entry.truths)
        )
        where = {"data": source, "images": len(entries), "fingerprint": files, "tolerance": tolerance, "seed": seed}
        known = hierarchy_results.begin(out, where, {method.name: method.key for method in opened})
        scores = known | evaluate(entries, opened, tolerance, out / "pictures", pictures, tuple(known))
        text = table(source, len(entries), opened, scores)
        results = {
            method.name: {"note": method.note, "key": method.key, **dataclasses.asdict(scores[method.name])}
            for method in opened
        }
        hierarchy_results.write(out, where, results, text)
        print(text)


def open_methods(
    names: Sequence[str],
    size: int | None = None,
    superpixels: int | None = None,
    segments: str | None = None,
    seed: int = 0,
) -> list[Method]:
    """The methods of the command line. Networks are opened first: the others take their sizes from the first CAST.

    Raises:
        InputError: for a name that is none of METHODS.
        CheckpointError, ArtifactError: for a file that cannot be opened.
    """
    from cast_sdk.spec import SuperpixelSettings
    from cast_sdk.training.metrics.levels import Grouping

    counts = _counts(segments) if segments is not None else None
    grouping: Grouping | None = None
    opened: dict[str, Method] = {}
    networks = [name for name in names if name.partition(":")[0] not in ("superpixels", "merge")]
    # CAST before ViT, whose number of clusters it decides.
    for name in sorted(networks, key=lambda name: "vit" in name):
        levels, spec, note, digest = _open_network(name, grouping, counts, seed)
        used = _made(name)[0] if spec.hierarchical else counts or (grouping.segments if grouping else ())
        opened[name] = Method(_short(name), levels, note, f"{digest} {used}")
        if grouping is None and spec.hierarchical:
            settings = dataclasses.replace(spec.superpixels, count=superpixels or spec.superpixels.count)
            grouping = Grouping(size or spec.image_size, settings, counts or spec.clusters)
    if grouping is None:
        grouping = Grouping(size or 224, SuperpixelSettings(superpixels or 196), counts or (64, 32, 16, 8))
    for name in set(names) - set(networks):
        opened[name] = _baseline(name, grouping)
    return [opened[name] for name in dict.fromkeys(names)]


def _counts(text: str) -> tuple[int, ...]:
    """Segments per level, fine to coarse."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not all(1 <= count <= _MOST for count in counts) or list(counts) != sorted(counts, reverse=True):
        raise InputError(
            f"--segments {text!r} are no numbers of segments.", remedy="give falling numbers: --segments 64,32,16,8"
        )
    return counts


def _baseline(name: str, grouping: Grouping) -> Method:
    """ "superpixels" or "merge", with sizes of their own after a colon."""
    from cast_sdk.training.metrics.levels import merge_levels, seeds_levels

    kind, _, text = name.partition(":")
    fields = _fields(text)
    if unknown := sorted({*fields} - {"size", "superpixels"}):
        raise InputError(f"{kind} has no field {', '.join(unknown)}.", remedy=f"{kind}:{{size: N, superpixels: N}}")
    count = whole(fields.get("superpixels", grouping.superpixels.count), f"superpixels of {kind}", 1, _MOST)
    size = whole(fields.get("size", grouping.size), f"size of {kind}", 8, 16384)
    settings = dataclasses.replace(grouping.superpixels, count=count)
    grouping = dataclasses.replace(grouping, size=size, superpixels=settings)
    where = f"at {grouping.size} x {grouping.size}"
    label = f"{kind} {grouping.size} px" if text else kind
    if kind == "superpixels":
        return Method(label, seeds_levels(grouping), f"SEEDS {where}, computed anew for each level", str(grouping))
    note = f"{settings.count} SEEDS superpixels {where}, merged by mean colour (region adjacency graph)"
    return Method(label, merge_levels(grouping), note, str(grouping))


def _fields(text: str) -> dict[str, Any]:
    from cast_sdk.training.engine.recipe.values import parse_yaml

    fields = parse_yaml(text, repr(text)) if text else {}
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise InputError(
            f"{text!r} are no fields of a method.",
            remedy="write {field: value}, as in random:vit_conv_small:{embed_dim: 192, num_heads: 6}",
        )
    return fields


def _open_network(
    name: str, grouping: Grouping | None, counts: tuple[int, ...] | None, seed: int
) -> tuple[Levels, Any, str, str]:
    """Levels, ModelSpec, note, and what identifies the weights."""
    import torch

    from cast_sdk import bundled
    from cast_sdk.models import create_model, save_native
    from cast_sdk.spec import SuperpixelSettings
    from cast_sdk.system.files import sha256
    from cast_sdk.training.metrics.levels import Grouping, open_levels

    made, name = _made(name)
    if grouping is None and counts is not None:
        grouping = Grouping(224, SuperpixelSettings(), counts)
    path: Path | None = None
    if name == "bundled":
        path = bundled.path(bundled.MODEL)
    elif not name.startswith("random:"):
        path = Path(name)
        if not path.exists():
            raise InputError(f"There is no method and no file {name}.", remedy=f"give {METHODS}")
    if path is not None:
        levels, spec = open_levels(path, grouping, seed, made)
        return levels, spec, f"{path.name} ({spec.name}, {_grouped(spec, made)})", sha256(path)
    _, model_name, *rest = name.split(":", 2)
    torch.manual_seed(seed)
    model = create_model(model_name, **_fields("".join(rest))).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_native(model, file)
        levels, spec = open_levels(file, grouping, seed, made)
    return levels, spec, f"{spec.name} with random weights ({_grouped(spec, made)})", spec.to_json()


def _made(name: str) -> tuple[Literal["auto", "assigned", "merged"], str]:
    """How a method's levels are made, and the method."""
    if name.startswith("assigned:"):
        return "assigned", name.removeprefix("assigned:")
    if name.startswith("merged:"):
        return "merged", name.removeprefix("merged:")
    return "auto", name


def _grouped(spec: Any, made: str) -> str:
    how = spec.grouping if made == "auto" else made
    source = f"own levels, {how}" if spec.hierarchical else "spherical k-means on patch tokens"
    return f"{spec.image_size} px, {source}"


def _short(name: str) -> str:
    made, name = _made(name)
    if name.startswith("random:"):
        name = "random " + name.split(":")[1]
    elif "/" in name or "\\" in name:
        name = Path(name).name
    return name if made == "auto" else f"{name}, {made}"


def evaluate(
    entries: Sequence[AnnotatedImage],
    methods: Sequence[Method],
    tolerance: float = 0.0075,
    pictures: Path | None = None,
    drawn: int = 0,
    skip: Sequence[str] = (),
) -> dict[str, HierarchyScores]:
    """Scores of the methods but those in `skip`; `drawn` images, evenly spaced, are drawn with all methods."""
    import cv2

    from cast_sdk.decoding.reader import read_image
    from cast_sdk.system.files import atomic_write
    from cast_sdk.training.engine.progress import progress
    from cast_sdk.training.metrics.partition import PartitionScores, partition_scores, summarise_hierarchy

    if len({method.name for method in methods}) != len(methods):
        raise InputError("Two methods have the same name.", found=", ".join(method.name for method in methods))
    collected: dict[str, list[list[PartitionScores]]] = {
        method.name: [] for method in methods if method.name not in skip
    }
    drawn = min(drawn, len(entries))
    to_draw = {len(entries) * index // drawn for index in range(drawn)} if drawn else set()
    for number, entry in enumerate(progress(entries, "measuring")):
        bgr = read_image(str(entry.image))
        annotations = entry.annotations()
        truths = [annotation.labels for annotation in annotations]
        if truths[0].shape != bgr.shape[:2]:
            raise InputError(
                f"The annotation of {entry.name} has another size than its image.",
                found=f"{list(truths[0].shape)} for an image of {list(bgr.shape[:2])}",
            )
        outlines = [annotation.boundaries for annotation in annotations]
        rgb = bgr[..., ::-1]
        drawing = pictures is not None and number in to_draw
        levels = {method.name: method.levels(rgb) for method in methods if drawing or method.name in collected}
        for name, scores in collected.items():
            scores.append([partition_scores(labels, truths, outlines, tolerance) for labels in levels[name]])
        if pictures is not None and drawing:
            pictures.mkdir(parents=True, exist_ok=True)
            _, encoded = cv2.imencode(".jpg", picture(bgr, truths, levels), [cv2.IMWRITE_JPEG_QUALITY, 88])
            with atomic_write(pictures / f"{entry.name}.jpg") as temporary:
                temporary.write_bytes(encoded.tobytes())
    return {name: summarise_hierarchy(images) for name, images in collected.items()}


def picture(bgr: Any, truths: Sequence[Any], levels: dict[str, list[Any]], width: int = 220) -> Any:
    """Photograph and annotators in the first row, then one row per method, fine to coarse: uint8 BGR."""
    import cv2
    import numpy as np

    height = round(bgr.shape[0] * width / bgr.shape[1])

    def tile(labels: Any) -> Any:
        fill = segment_means(bgr, labels)
        edges = np.zeros(labels.shape, bool)
        edges[:, 1:] = labels[:, 1:] != labels[:, :-1]
        edges[1:] |= labels[1:] != labels[:-1]
        fill[cv2.dilate(edges.astype(np.uint8), np.ones((2, 2), np.uint8)) > 0] = 255
        return cv2.resize(fill, (width, height), interpolation=cv2.INTER_AREA)

    columns = max(len(maps) for maps in levels.values())
    rows = [("photograph and people", [cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA)])]
    rows[0][1].extend(tile(truth) for truth in truths[: columns - 1])
    rows += [(name, [tile(labels) for labels in maps]) for name, maps in levels.items()]
    gap, bar = 6, 22
    page = np.full((len(rows) * (height + bar + gap), columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, (name, tiles) in enumerate(rows):
        top = index * (height + bar + gap)
        cv2.putText(page, name, (2, top + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
        for column, cell in enumerate(tiles):
            left = column * (width + gap)
            page[top + bar : top + bar + height, left : left + width] = cell
    return page


def segment_means(image: Any, labels: Any) -> Any:
    """Every segment filled with its mean colour: uint8 [h, w, 3]."""
    import numpy as np

    from cast_sdk.training.metrics.partition import compact

    index, _ = compact(labels)
    counts = np.bincount(index)
    means = [np.bincount(index, image[..., channel].ravel()) / counts for channel in range(3)]
    return np.stack([mean[index] for mean in means], -1).round().astype(np.uint8).reshape(image.shape)


def table(source: str, images: int, methods: Sequence[Method], scores: dict[str, HierarchyScores]) -> str:
    """Markdown: one row per method and level, then the best level per data set and per image."""
    lines = [
        f"{source}, {images} images. Covering, PRI (probabilistic Rand index) and boundary F: higher is better; "
        "VI (variation of information, bits): lower.",
        "",
        "| method | level | segments | covering | PRI | VI | boundary P | R | F |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        for number, level in enumerate(scores[method.name].levels, 1):
            lines.append(
                f"| {method.name} | {number} | {level.segments:.1f} | {level.covering:.3f} | {level.rand:.3f} "
                f"| {level.information:.2f} | {level.precision:.3f} | {level.recall:.3f} | {level.f:.3f} |"
            )
    lines += [
        "",
        "Best level for the whole data set (ODS, the level in brackets) and for each image (OIS):",
        "",
        "| method | covering ODS | OIS | PRI ODS | OIS | VI ODS | OIS | F ODS | OIS |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        score = scores[method.name]
        cells = []
        for name, digits in (("covering", 3), ("rand", 3), ("information", 2), ("f", 3)):
            ods, ois = score.best_per_dataset[name], score.best_per_image[name]
            cells += [f"{ods:.{digits}f} ({score.best_level[name] + 1})", f"{ois:.{digits}f}"]
        lines.append(f"| {method.name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {method.name}: {method.note}" for method in methods), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
