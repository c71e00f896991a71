"""ModelSpec: the one description of a model that travels in every checkpoint, ONNX file and engine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from cast_sdk.arguments import real, whole
from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.taxonomy import Taxonomy, check_taxonomy

SCHEMA_VERSION = 1
_AGAIN = "export the model again with this version of cast_sdk"
# What a description may ask for: nothing that would take all memory or never end. `name[]` is the length of a list.
RANGES = {
    "embed_dim": (1, 16384),
    "depths": (0, 1000),
    "depths[]": (1, 16),
    "num_heads": (1, 1024),
    "clusters": (1, 2**20),
    "clusters[]": (0, 16),
    "num_classes": (0, 2**22),
    "image_size": (1, 16384),
    "position_grid": (1, 4096),
    "patch_size": (1, 1024),
    "head_dims": (1, 2**20),
    "decoder_layers": (0, 1000),
    "decoder_heads": (0, 1024),
    "drop_path": (0, 1),
    "count": (1, 2**20),
    "bins": (1, 16),
    "iterations": (0, 10_000),
    "mean": (-1e4, 1e4),
    "std": (1e-6, 1e4),
    "class_names[]": (0, 2**22),
    "palette": (0, 255),
    "palette[]": (0, 2**22),
    "stage": (1, 4),
    "taxonomy[]": (0, 16),
}

Family = Literal["cast", "cast_seg", "cast_deit", "cast_seg_deit", "vit", "vit_conv", "tome", "segmenter", "spml"]
Stage = Literal["pretrain", "segmentation"]
Head = Literal["none", "linear", "projector"]
Grouping = Literal["assigned", "merged"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SuperpixelSettings:
    """How SEEDS is run for a model. The pipelines of the reference differ, and a model knows its own."""

    count: int = 196  # asked for; SEEDS may give fewer (cast_sdk.superpixels.seeds_count)
    bins: int = 15  # histogram bins per LAB channel
    iterations: int = 20  # passes over the pixels
    invert: bool = False  # Segmenter models saw superpixels of (256 - v) mod 256


@dataclass(frozen=True)
class ModelSpec:
    """Architecture, preprocessing and names of one model. Plain data: no torch, JSON in and out.

    `image_size` is the side of the square input in pixels; `position_grid` the side of the grid of stored position
    embeddings (28 = 224 / 8), which the segmentation families resize to the label map.

    `grouping` says how a `Runtime` makes the levels of a hierarchical model: "assigned", as the reference does, every
    superpixel in the segment that each pooling prefers for it; or "merged", neighbours merged by these soft assignments
    and by colour (`cast_sdk.superpixels.merged_levels`): connected segments that follow outlines more closely.
    """

    name: str
    family: Family
    embed_dim: int
    depths: tuple[int, ...]  # blocks per stage; one entry for the baselines
    num_heads: int
    clusters: tuple[int, ...]  # segments after each of the four poolings; empty for the baselines
    num_classes: int  # width of the linear head; 0 without one
    image_size: int
    position_grid: int
    patch_size: int = 8
    stage: Stage | None = None  # cast_seg and spml only
    head: Head = "linear"
    head_dims: tuple[int, int] = (4096, 256)  # hidden and output width of a projector head
    decoder_layers: int = 0  # mask-transformer blocks of a Segmenter
    decoder_heads: int = 0
    classifier: Literal["none", "softmax", "linear"] = "none"  # SPML pixel classifier
    drop_path: float = 0.0
    superpixels: SuperpixelSettings = field(default_factory=SuperpixelSettings)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    class_names: tuple[str, ...] = ()
    taxonomy: Taxonomy = ()  # levels fine to coarse, one head each (H-CAST); class_names are the finest level's
    palette: tuple[tuple[int, int, int], ...] = ()  # RGB per class of a dense head
    grouping: Grouping = "assigned"  # how `Runtime` makes the levels of its results
    temperature: float = 1.0  # class scores are divided by it before the softmax; 1: not calibrated
    unsure_below: float = 0.0  # calibrated probability of the best class below which none is named; 0: always named
    licence: str = ""
    source: str = ""  # where the weights came from, for people

    def __post_init__(self) -> None:
        try:
            real(self.temperature, "temperature", 0, above=True)
            real(self.unsure_below, "unsure_below", 0, 1)
        except InputError as error:
            raise ArtifactError(error.problem) from error

    @property
    def positions(self) -> Literal["fixed", "learned"]:
        """Sin-cos positions (MoCo family and baselines) or trained ones (DeiT family)."""
        return "learned" if self.family in ("cast_deit", "cast_seg_deit", "segmenter") else "fixed"

    @property
    def fused(self) -> bool:
        """True when the output is read from fused segments and not from the class token."""
        return self.family in ("cast_seg", "cast_seg_deit", "segmenter", "spml")

    @property
    def hierarchical(self) -> bool:
        """True when the model groups superpixels into four levels."""
        return bool(self.clusters)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the class scores among the outputs, fine to coarse: "logits" and, of a taxonomy, "logits2", ..."""
        return ("logits", *(f"logits{number}" for number in range(2, len(self.taxonomy) + 1)))

    def class_name(self, index: int, level: int = 1) -> str:
        """Name of a class of a level of the taxonomy (1: the finest, or the only one); "class N" where it has none.

        Raises:
            InputError: for a class or level that the model does not have.
        """
        level = whole(level, "level", 1, max(1, len(self.taxonomy)))
        names = self.class_names if level == 1 else self.taxonomy[level - 1].class_names
        classes = self.num_classes if level == 1 else self.taxonomy[level - 1].num_classes
        index = whole(index, "class", 0, max(classes, len(names)) - 1 if classes or names else None)
        return names[index] if index < len(names) else f"class {index}"

    @property
    def uses_superpixels(self) -> bool:
        return self.family not in ("vit", "vit_conv")

    @property
    def dense(self) -> bool:
        """True when the model gives a class per superpixel (`semantic`)."""
        return self.family == "segmenter" or self.classifier != "none"

    @property
    def has_logits(self) -> bool:
        """True when a pass gives `logits` for the whole image: class scores, or what a projector makes of it."""
        whole_image = not self.fused or (self.family == "cast_seg" and self.stage == "pretrain")
        return whole_image and (self.head == "projector" or self.num_classes > 0)

    def to_dict(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelSpec:
        """Rebuild a spec.

        Raises:
            ArtifactError: for another schema version, or for fields that are unknown, missing, of another type, out of
                range (`RANGES`) or not consistent.
        """
        data = dict(data)
        version = data.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"The model description has schema {version}; this version of cast_sdk reads schema {SCHEMA_VERSION}.",
                remedy="upgrade cast-sdk, or export the model again with this version",
            )
        spec = build(cls, data, "the model description", RANGES, remedy=_AGAIN)
        _check_taxonomy(spec)
        _check_sizes(spec)
        return spec

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Rebuild a spec from JSON text.

        Raises:
            ArtifactError: see `from_dict`.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError("The model description is not JSON.", found=str(error), remedy=_AGAIN) from error
        if not isinstance(data, dict):
            raise ArtifactError(
                "The model description is not a JSON object.",
                found=f"JSON of type {type(data).__name__}",
                remedy=_AGAIN,
            )
        return cls.from_dict(data)


def _check_sizes(spec: ModelSpec) -> None:
    """Refuse sizes that no model of the family can have."""
    if spec.embed_dim % spec.num_heads:
        raise ArtifactError(
            f"The model description has a width of {spec.embed_dim} and {spec.num_heads} heads.",
            remedy="the heads divide the width",
        )
    if spec.grouping == "merged" and not spec.hierarchical:
        raise ArtifactError(
            f"The model description merges levels, and {spec.family} has none.", remedy='grouping is "assigned"'
        )
    stages = 4 if spec.family not in ("vit", "vit_conv", "tome") else 0
    for name, sizes in (("depths", spec.depths), ("clusters", spec.clusters)):
        if stages and len(sizes) != stages:
            raise ArtifactError(
                f"The model description has {name} {list(sizes)}.", remedy=f"{spec.family} has {stages} stages"
            )


def _check_taxonomy(spec: ModelSpec) -> None:
    if not spec.taxonomy:
        return
    try:
        check_taxonomy(spec.taxonomy)
    except InputError as error:
        raise ArtifactError(
            "The taxonomy of the model description is not consistent.", found=error.problem, remedy=_AGAIN
        ) from error
    finest = spec.taxonomy[0].num_classes
    if finest != spec.num_classes:
        raise ArtifactError(
            f"The model description has {spec.num_classes} classes and a taxonomy of {finest}.", remedy=_AGAIN
        )
