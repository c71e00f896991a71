"""What a recipe may say, as dataclasses. `Recipe.to_dict` goes into every checkpoint, so a run says how it was made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings


@dataclass(frozen=True)
class Model:
    name: str = "cast_small"  # a registered name
    options: dict[str, Any] = field(default_factory=dict)  # fields of ModelSpec that differ from the registered ones
    sampler: Literal["float64", "matrix", "dgl"] = "matrix"  # float64: the reference's arithmetic, slower
    dropout: float | None = None  # of the poolings; None keeps the reference's 0.1
    init: str = ""  # checkpoint to start from
    # probe: the head begins as a linear classifier fitted to the embeddings of the start's frozen encoder
    head_start: Literal["random", "probe"] = "random"


Source = Literal["crop", "denormalised"]


@dataclass(frozen=True)
class Superpixels:
    count: int = 196
    bins: int = 15
    iterations: int = 20
    source: Source = "crop"  # denormalised: the round trip of DeiT or Segmenter, see transforms.py
    invert: bool = False  # SEEDS on (256 - v) mod 256, as the reference's Segmenter does by an overflow

    def settings(self) -> SuperpixelSettings:
        """What training items are made with and what the trained model carries: the same."""
        return SuperpixelSettings(self.count, self.bins, self.iterations, self.invert)


@dataclass(frozen=True)
class Augment:
    image_size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)  # area of the random resized crop
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: float = 0.5
    thumbnail: int = 0  # larger images become thumbnails of so many pixels a side first; 0: they stay
    resolution: float = 0.0  # probability of another resolution before the crop
    rand_augment: str = ""  # timm's notation, e.g. "rand-m9-mstd0.5-inc1"
    erase: float = 0.0  # probability of random erasing, after normalisation
    repeats: int = 1  # copies of each image per epoch (repeated augmentation)
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_switch: float = 0.5  # how often cutmix replaces mixup where both are on
    eval_resize: int = 256  # short side before the centre crop; 0: stretch the whole image to image_size
    # Normalisation in evaluation, and of the way back to the picture that superpixels see (source denormalised).
    # Training itself always normalises with ImageNet's: so H-CAST treats iNaturalist.
    eval_mean: tuple[float, float, float] = IMAGENET_MEAN
    eval_std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Optimizer:
    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: float = 1e-3
    reference_batch: int | None = None  # linear scaling: lr is per so many images
    weight_decay: float = 0.05
    decay_rule: Literal["all", "timm"] = "timm"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False  # sgd only
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    clip: float | None = None  # gradient norm
    layer_decay: float = 1.0  # adamw and sgd: each stage's rate is this part of the next one's; the head has all of it


@dataclass(frozen=True)
class Schedule:
    # per iteration, per epoch, DeiT's one-epoch lag, polynomial per iteration
    # hcast_april, hcast_june: deit's with the period of H-CAST's two public revisions, see schedules.period
    kind: Literal["cosine", "epoch_cosine", "deit", "hcast_april", "hcast_june", "poly"] = "cosine"
    epochs: int = 100
    warmup: float = 0.0  # epochs
    warmup_lr: float = 1e-6  # deit and hcast only
    minimum: float = 0.0
    power: float = 0.9  # poly only
    warmup_steps: int = 0  # poly only: from a tenth of the rate up
    steps: int | None = None  # end after so many optimizer steps instead of `epochs`
    minutes: float | None = None  # end after this training time instead of `epochs`

    @property
    def ends_by(self) -> Literal["minutes", "steps", "epochs"]:
        """Which knob ends the run."""
        return "minutes" if self.minutes is not None else "steps" if self.steps is not None else "epochs"


@dataclass(frozen=True)
class Phase:
    """From `start` (fraction of the schedule, taken at the start of an epoch) on, these settings hold."""

    start: float = 0.0
    superpixels: int | None = None
    clusters: tuple[int, ...] = ()


@dataclass(frozen=True)
class Moco:
    feature_dim: int = 256
    hidden_dim: int = 4096
    temperature: float = 0.2
    momentum: float = 0.99  # rises to 1 along a cosine
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float] = (1.0, 0.1)  # probability for view 1 and view 2
    blur_radius: tuple[float, float] = (0.1, 2.0)
    solarise: tuple[float, float] = (0.0, 0.2)  # probability for view 1 and view 2


@dataclass(frozen=True)
class Probe:
    """`passes` > 0: compute the frozen encoder's features of that many augmented passes once and train on those."""

    passes: int = 0
    eval_batch: int = 256


@dataclass(frozen=True)
class Dense:
    """Dense segmentation: sizes are in pixels, `superpixels.count` belongs to one crop or window."""

    data: Literal["", "ade20k", "pcontext", "camvid", "voc"] = ""
    short_side: int = 512  # images are resized to it, keeping their aspect ...
    aspect: float = 4.0  # ... while the long side stays within short_side * aspect
    scale: tuple[float, float] = (0.5, 2.0)  # random factor on that size in training
    crop: int = 512  # training crop
    category_cap: float = 0.75  # crops in which one class covers more are drawn again, up to 10 times
    photometric: bool = True  # brightness, contrast, saturation, hue
    class_balance: float = 0.0  # power x: a class weighs 1 / (its share of pixels)^x in the loss
    window: int = 512  # sliding windows of validation and evaluation
    train_stride: int = 512  # validation while training
    stride: int = 480  # final evaluation
    absent: Literal["skip", "zero"] = "skip"  # classes in neither map: left out of the mean, or 0 (VOC)


@dataclass(frozen=True)
class Taxonomy:
    """One head per level of a tree of classes (H-CAST); without a tree the model has one head."""

    tree: str = ""  # a published name such as cub200, a table beside the recipes, or a CSV file
    kl_weight: float = 0.5  # of the tree-path loss; 0: cross entropies alone


@dataclass(frozen=True)
class Teacher:
    """Soft labels from `DATA/train-teacher.npy` (prepare_data.py soft-labels)."""

    weight: float = 0.0  # the teacher's part of the loss; the labels have the rest
    temperature: float = 2.0  # both sides' scores are divided by it; the loss is multiplied by its square
    others: int = 0  # images without labels (DATA/others-*.tar) per process and step, besides the labelled ones
    others_own: float = 0.0  # weight of their loss among the data's classes alone, besides that among all classes


@dataclass(frozen=True)
class Levels:
    """A loss on the segments (tasks/levels.py) from `DATA/regions.npz` (prepare_data.py regions)."""

    weight: float = 0.0  # 0: off, as in every published recipe
    batch: int = 16  # crops with known regions per process and step, besides the labelled images
    scale: tuple[float, float] = (0.3, 1.0)  # area of those crops
    tokens: float = 0.5  # weight of the part on the tokens themselves


@dataclass(frozen=True)
class Train:
    batch: int = 256  # over all processes and accumulated steps
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_bn: bool = False
    ema: float | None = None  # decay of the averaged weights
    ema_aliases: bool = False  # DeiT averages block tensors twice a step, once per name
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: bool = False  # torch.compile: the first step takes minutes, later ones less
    cudnn_benchmark: bool = True  # on GPUs: try cuDNN's algorithms, as all published programs do
    tf32: Literal["off", "convolutions", "all"] = "convolutions"  # on GPUs, where precision is fp32; torch's default
    seed: int = 0
    drop_last: bool = True
    # power x: an image of a class of n images is drawn n^-x times as often; 0: once an epoch, 1: all classes alike
    class_balance: float = 0.0


@dataclass(frozen=True)
class Recipe:
    name: str = ""
    program: Literal["supervised", "pretrain", "linear_probe", "segment", "voc"] = "supervised"
    notes: str = ""  # what it reproduces and every deliberate difference
    model: Model = field(default_factory=Model)
    superpixels: Superpixels = field(default_factory=Superpixels)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    train: Train = field(default_factory=Train)
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    moco: Moco = field(default_factory=Moco)
    dense: Dense = field(default_factory=Dense)
    probe: Probe = field(default_factory=Probe)
    teacher: Teacher = field(default_factory=Teacher)
    levels: Levels = field(default_factory=Levels)
    phases: tuple[Phase, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
