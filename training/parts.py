"""PartImageNet: how well do segments name objects and parts with an open vocabulary?

    python training/parts.py segments --model cast_base.pth.tar --data PartImageNet --out pred_segs/cast
    python training/parts.py segments --model vit_conv_base.pth.tar --data PartImageNet --out pred_segs/vit
    python training/parts.py segments --model sam_vit_h_4b8939.pth --sam vit_h --data PartImageNet --out pred_segs/sam
    python training/parts.py evaluate --segments pred_segs/cast --data PartImageNet --out runs/parts

CAST gives its levels, a ViT spherical k-means on its patch tokens (64/32/16/8), SAM its masks. CLIP names level 4 as
objects and level 3 as their parts; the score is the mean over images of the macro Jaccard index. Every image counts;
`--reference` instead repeats the published program, which silently drops images with an empty part segment.
Needs open_clip_torch and pycocotools, SAM needs segment-anything.
`python -m cast_sdk.training.parts` is the same program.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.runtime.commands.program import Group

if TYPE_CHECKING:
    from cast_sdk.training.data.dense.partimagenet import PartImageNet
    from cast_sdk.training.tasks.open_vocabulary import TextImageEncoder

_DATA = click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help="PartImageNet folder.")
_SPLIT = click.option("--split", default="val", show_default=True)
_DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)


@click.group(cls=Group, help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


@main.command("segments", help="Write the segments of every image; continues where it stopped.")
@click.option("--model", required=True, type=OrdinaryPath(path_type=Path), help="CAST or ViT checkpoint, or SAM's.")
@click.option("--sam", type=click.Choice(["vit_h", "vit_l", "vit_b"]), help="The checkpoint is of this SAM.")
@_DATA
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for level1..level4 or masks.")
@_SPLIT
@_DEVICE
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of k-means.")
@click.option("--reference", is_flag=True, help="Number of tokens and padding as the published program has them.")
def segments_command(
    model: Path, sam: str | None, data: Path, out: Path, split: str, device: str, seed: int, reference: bool
) -> None:
    from cast_sdk.training.data.dense.partimagenet import PartImageNet
    from cast_sdk.training.engine import provenance
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        images = PartImageNet.open(data, split)
        where = start(device).device
        segment, weights = _sam(model, sam, where) if sam else _network(model, where, seed, reference)
        paths = [images.path(record) for record in images.images]
        files = provenance.of_files((path.relative_to(images.root).as_posix(), path) for path in paths)
        made_by = {"weights": weights, "sam": sam, "seed": seed, "reference": reference, "fingerprint": files}
        provenance.keep(out, made_by)
        made = write_segments(images, segment, out)
        print(f"{made} of {len(images.images)} images segmented, the others were there")


@main.command("evaluate", help="Name the segments with CLIP and score them.")
@click.option("--segments", "folder", required=True, type=OrdinaryPath(path_type=Path), help="Output of `segments`.")
@_DATA
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for scores.json.")
@_SPLIT
@_DEVICE
@click.option("--clip", default="ViT-B-16", show_default=True, help="OpenCLIP architecture.")
@click.option("--pretrained", default="openai", show_default=True, help="Its weights: a tag or a file.")
@click.option("--reference", is_flag=True, help="Drop images with an empty part segment, as the published program.")
def evaluate_command(
    folder: Path, data: Path, out: Path, split: str, device: str, clip: str, pretrained: str, reference: bool
) -> None:
    from cast_sdk.training.data.dense.partimagenet import PartImageNet
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.metrics import scores_file
    from cast_sdk.training.tasks.open_vocabulary import OpenClip

    with errors_for_people():
        scores_file.check(out / "scores.json")
        images = PartImageNet.open(data, split)
        encoder = OpenClip(clip, pretrained, start(device).device)
        scores = evaluate(images, folder, encoder, reference)
        out.mkdir(parents=True, exist_ok=True)
        scores_file.write(out / "scores.json", scores)
        print(f"object {scores['object']:.2f} / part {scores['part']:.2f} over {scores['images']} images"
              f" ({scores['dropped']} dropped)")  # fmt: skip


def _network(path: Path, device: Any, seed: int, reference: bool) -> tuple[Any, str]:
    """What segments an image, and a fingerprint of its weights."""
    import numpy as np

    from cast_sdk.errors import InputError
    from cast_sdk.models import load_model
    from cast_sdk.models.baselines import Vit
    from cast_sdk.training.engine import provenance
    from cast_sdk.training.tasks.open_vocabulary import cast_segments, crop, vit_segments

    model: Any = load_model(path).to(device)
    weights = provenance.of_model(model)
    if isinstance(model, Vit):
        return lambda image: vit_segments(model, np.array(crop(image)), (64, 32, 16, 8), seed), weights
    if not model.spec.hierarchical or model.spec.fused:
        raise InputError(
            f"{path} is neither a classification CAST nor a ViT.",
            found=f"family {model.spec.family}",
            remedy="give a cast_* or vit_* checkpoint",
        )
    return lambda image: cast_segments(model, np.array(crop(image)), reference), weights


def _sam(path: Path, kind: str, device: Any) -> tuple[Any, str]:
    from cast_sdk.errors import MissingDependencyError
    from cast_sdk.system.files import sha256
    from cast_sdk.training.tasks.open_vocabulary import sam_masks

    try:
        from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
    except ImportError as error:
        raise MissingDependencyError(
            "segment-anything, which makes SAM's masks, is missing.",
            found=str(error),
            remedy="pip install git+https://github.com/facebookresearch/segment-anything",
        ) from error
    generator = SamAutomaticMaskGenerator(sam_model_registry[kind](checkpoint=str(path)).to(device))
    return lambda image: sam_masks(generator, image), sha256(path)


def write_segments(data: PartImageNet, segment: Any, out: Path) -> int:
    """Segments of every image as files; returns how many were made, those that exist are kept."""
    import numpy as np
    from PIL import Image

    from cast_sdk.system.files import atomic_write
    from cast_sdk.training.data.dense.base import read_rgb
    from cast_sdk.training.engine.progress import progress

    made = 0
    for record in progress(data.images, "segmenting"):
        path = data.path(record)
        last = [out / "level4" / f"{path.stem}.npy", out / "masks" / f"{path.stem}.npz"]
        if any(file.is_file() for file in last):
            continue
        found = segment(Image.fromarray(read_rgb(path)))
        made += 1
        if isinstance(found, np.ndarray):
            targets: list[tuple[Path, Any]] = [(last[1], {"packed": np.packbits(found, axis=-1)})]
        else:
            targets = [(out / f"level{n}" / f"{path.stem}.npy", level) for n, level in enumerate(found, 1)]
        for file, values in targets:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **values) if isinstance(values, dict) else np.save(stream, values)
    return made


def evaluate(data: PartImageNet, folder: Path, encoder: TextImageEncoder, reference: bool = False) -> dict[str, Any]:
    """Mean scores in percent, and how many images they count."""
    import numpy as np
    from PIL import Image

    from cast_sdk.training.data.dense.base import read_rgb
    from cast_sdk.training.engine.progress import progress
    from cast_sdk.training.tasks.open_vocabulary import (
        MissingSegment,
        Vocabulary,
        crop_classes,
        load_segments,
        score_image,
    )

    words = Vocabulary.encode(data, encoder)
    scores: list[tuple[float, float]] = []
    dropped: list[str] = []
    for record in progress(data.images, "naming"):
        path = data.path(record)
        image = Image.fromarray(read_rgb(path))
        objects, parts = (crop_classes(part) for part in data.truth(record))
        segments = load_segments(folder, path.stem)
        try:
            scores.append(score_image(encoder, words, image, segments, (objects, parts), reference))
        except MissingSegment:
            dropped.append(path.stem)
    means = 100 * np.mean(scores, axis=0) if scores else (float("nan"), float("nan"))
    return {
        "object": round(float(means[0]), 2),
        "part": round(float(means[1]), 2),
        "images": len(scores),
        "dropped": len(dropped),
        "dropped_images": dropped,
    }


if __name__ == "__main__":
    main()
