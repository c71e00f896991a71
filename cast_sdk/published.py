"""The published weights: their names, where they are and the numbers they were published with.

A name is an architecture, a dot and a tag: how and on what the weights were trained. The architecture is called as the
release calls it; `model` is the registered model that the file opens as.

The numbers are those of the CAST release; docs/reproduce.md says how to get each, and which have been repeated. The
release states no digest for its files. So a first download is compared with the hub's own digest alone; it is kept
then, and later downloads must equal it.
"""

from __future__ import annotations

from dataclasses import dataclass

REPOSITORY = "twke/CAST"


@dataclass(frozen=True)
class Published:
    """Published weights. A function that takes a name or a path of weights takes an entry as well."""

    name: str  # short: architecture, dot, tag
    title: str  # in the release's tables
    model: str  # registered name that the file opens as
    path: str  # in the repository
    trained_on: str
    results: tuple[tuple[str, float], ...]  # (what was measured, value)
    sha256: str = ""  # as stated by whoever published the file; "": not stated, so kept from the first download

    @property
    def uri(self) -> str:
        """The address of the file."""
        return f"hf://{REPOSITORY}/{self.path}"

    def __str__(self) -> str:
        return self.name

    def __fspath__(self) -> str:
        return self.name


def _moco(name: str, title: str, folder: str, top1: float, *more: tuple[str, float], model: str = "") -> Published:
    return Published(
        f"{name}.moco_in1k",
        title,
        model or folder,
        f"snapshots/moco/imagenet1k/{folder}/checkpoint_0099.pth.tar",
        "MoCo-v3, ImageNet-1K, 100 epochs",
        (("ImageNet-1K linear probe, top-1 %", top1), *more),
    )


PUBLISHED = (
    _moco("cast_small", "CAST-S", "cast_small", 68.1),
    _moco("cast_small_deep", "CAST-SD", "cast_small_deep", 69.1),
    _moco(
        "cast_base",
        "CAST-B",
        "cast_base",
        72.4,
        ("PartImageNet objects, mIoU %", 29.67),
        ("PartImageNet parts, mIoU %", 13.21),
    ),
    _moco("vit_conv_small", "ViT-S", "vit_small", 67.9, model="vit_conv_small"),
    _moco("vit_conv_base", "ViT-B", "vit_base", 72.5, model="vit_conv_base"),
    Published(
        "cast_small.moco_coco_ep150",
        "CAST-S COCO, epoch 149",
        "cast_seg_small",
        "snapshots/moco/coco/cast_small/checkpoint_0149.pth.tar",
        "MoCo-v3, COCO train2017, 150 of 400 epochs",
        (("VOC val, 20-nearest-neighbour retrieval, mIoU %", 38.4),),
    ),
    Published(
        "cast_small.moco_coco",
        "CAST-S COCO, epoch 399",
        "cast_seg_small",
        "snapshots/moco/coco/cast_small/checkpoint_0399.pth.tar",
        "MoCo-v3, COCO train2017, 400 epochs",
        (("VOC val after fine-tuning, mIoU %", 67.6),),
    ),
    Published(
        "cast_small.deit_in1k",
        "CAST-S supervised",
        "cast_deit_small",
        "snapshots/deit/imagenet1k/cast_small/best_checkpoint.pth",
        "DeiT recipe, ImageNet-1K, 300 epochs",
        (
            ("ImageNet-1K, top-1 %", 80.4),
            ("ADE20K val after fine-tuning, mIoU %", 43.1),
            ("Pascal Context val after fine-tuning, mIoU %", 49.1),
        ),
    ),
)
