"""The published weights: where they are and the numbers they were published with.

The numbers are those of the CAST release; docs/reproduce.md says how to get each, and which have been repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

REPOSITORY = "twke/CAST"


@dataclass(frozen=True)
class Published:
    """One published file. `model` is the registered name that it opens as."""

    name: str
    model: str
    path: str  # in the repository
    trained_on: str
    results: tuple[tuple[str, float], ...]  # (what was measured, value)

    @property
    def uri(self) -> str:
        """What `load_model` and `cast-export --ckpt` take."""
        return f"hf://{REPOSITORY}/{self.path}"


def _moco(name: str, folder: str, top1: float | None, *more: tuple[str, float], model: str = "") -> Published:
    results = ((("ImageNet-1K linear probe, top-1 %", top1),) if top1 is not None else ()) + more
    path = f"snapshots/moco/imagenet1k/{folder}/checkpoint_0099.pth.tar"
    return Published(name, model or folder, path, "MoCo-v3, ImageNet-1K, 100 epochs", results)


PUBLISHED = (
    _moco("CAST-S", "cast_small", 68.1),
    _moco("CAST-SD", "cast_small_deep", 69.1),
    _moco(
        "CAST-B",
        "cast_base",
        72.4,
        ("PartImageNet objects, mIoU %", 29.67),
        ("PartImageNet parts, mIoU %", 13.21),
    ),
    _moco("ViT-S", "vit_small", 67.9, model="vit_conv_small"),
    _moco("ViT-B", "vit_base", 72.5, model="vit_conv_base"),
    Published(
        "CAST-S COCO, epoch 149",
        "cast_seg_small",
        "snapshots/moco/coco/cast_small/checkpoint_0149.pth.tar",
        "MoCo-v3, COCO train2017, 150 of 400 epochs",
        (("VOC val, 20-nearest-neighbour retrieval, mIoU %", 38.4),),
    ),
    Published(
        "CAST-S COCO, epoch 399",
        "cast_seg_small",
        "snapshots/moco/coco/cast_small/checkpoint_0399.pth.tar",
        "MoCo-v3, COCO train2017, 400 epochs",
        (("VOC val after fine-tuning, mIoU %", 67.6),),
    ),
    Published(
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
