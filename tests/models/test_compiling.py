"""A training step reads nothing back from the device, and compilers take the models whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cast_sdk.errors import InputError
from cast_sdk.models import checks, create_model
from cast_sdk.models.building import build
from cast_sdk.models.superpixel_ops import resized_segment_mean
from cast_sdk.taxonomy import TaxonomyLevel
from cast_sdk.training.data.transforms import normalise
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.tasks import pretraining
from cast_sdk.training.tasks.dense import superpixel_cross_entropy
from cast_sdk.training.tasks.levels import level_loss
from cast_sdk.training.tasks.taxonomy import TaxonomyLoss
from cast_sdk.training.tasks.voc_finetuning import PixelLoss

SIZES = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": 2, "clusters": (8, 4, 3, 2), "image_size": 64}
PLAIN = {"embed_dim": 24, "num_heads": 2, "image_size": 64}  # models without poolings
NAMES = [
    "cast_small",
    "cast_deit_small",
    "cast_seg_small",
    "cast_seg_deit_small",
    "segmenter_cast_small",
    "spml_cast_small",
    "tome_small",
    "vit_small",
    "vit_conv_small",
    "taxonomy",
    "levels",
]
WITHOUT_LOGITS = ("cast_seg_deit_small",)  # the Segmenter's encoder
S = 16
TREE = (TaxonomyLevel("fine", 5, 3), TaxonomyLevel("coarse", 2, 4, members=(0, 0, 1, 1, 1)))


def make(name: str, sampler: str = "matrix") -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "taxonomy":
        spec = create_model("cast_deit_small", num_classes=5, **SIZES).spec
        return build(dataclasses.replace(spec, taxonomy=TREE), sampler).train()
    options = PLAIN if name.startswith(("tome", "vit")) else SIZES
    return create_model("cast_small" if name == "levels" else name, num_classes=5, sampler=sampler, **options).train()


def loss_of(name: str, model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    images = normalise(images)
    if name.startswith("spml"):
        return PixelLoss(model)(images, labels, labels, S)
    if name.startswith("segmenter"):
        return superpixel_cross_entropy(model(images, labels, S).dense, labels, labels)
    output = model(images, labels, S)
    classes = labels[:, 0, 0].long() % 5
    if name == "taxonomy":
        return TaxonomyLoss(TREE, 0.1, 0.5)(output.taxonomy, classes)
    if name == "levels":
        shares = images.new_ones(len(images), S, 3) / 3
        return level_loss(output.levels, [shares] * 4) + output.embedding.mean()
    if name in WITHOUT_LOGITS:
        return output.dense.mean()
    logits = output.logits
    return torch.nn.functional.cross_entropy(logits, labels[:, 0, 0].long() % 5)


def inputs(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    rows = torch.arange(64) // 16
    labels = (4 * rows[:, None] + rows[None]).expand(2, -1, -1).to(torch.int32)
    return images.to(device), labels.to(device)


@pytest.mark.filterwarnings("error:.*lru_cache")
def test_resizing_is_compiled_at_every_size_without_a_warning():
    """Its weights are NumPy's and cached, which compilers must not see; nor may tensors of theirs stay in the cache."""
    compiled = torch.compile(resized_segment_mean, fullgraph=True, backend="eager")
    for cells, pixels in ((7, 56), (9, 70)):
        labels = torch.arange(pixels**2).view(1, pixels, pixels) % S
        features = torch.randn(1, cells, cells, 6)
        with FakeTensorMode():
            resized_segment_mean(
                torch.empty(1, cells, cells, 6), torch.empty(1, pixels, pixels, dtype=torch.int64), S, "bicubic"
            )
        expected = resized_segment_mean(features, labels, S, "bicubic")
        assert (compiled(features, labels, S, "bicubic") - expected).abs().max() < 1e-5


def to_fake_gpu(model: torch.nn.Module) -> torch.nn.Module:
    """A model on a GPU that is not there; below FakeTensorMode."""
    for module in model.modules():
        for key, value in module._parameters.items():
            if value is not None:
                moved = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                module._parameters[key] = torch.nn.Parameter(moved, value.requires_grad)
        for key, value in module._buffers.items():
            if value is not None:
                module._buffers[key] = torch.empty(value.shape, dtype=value.dtype, device="cuda")
    return model


def empty_inputs(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device=device)
    return images, torch.empty(2, 64, 64, dtype=torch.int32, device=device)


@pytest.mark.parametrize("sampler", ["matrix", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_forward_and_loss_read_nothing_from_the_gpu(name, sampler):
    model = make(name, sampler)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake_gpu(model)
        images, labels = empty_inputs("cuda")
        loss = loss_of(name, model, images, labels)
        assert loss.device.type == "cuda" and loss.shape == () and loss.requires_grad
        if name == "cast_small":  # the control, which reads
            with pytest.raises(DataDependentOutputException):
                model(normalise(images), labels, "batch")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reads_no_value_at_all(name):
    """Backward, too, on tensors that have no values; fake GPUs have no streams for autograd."""
    model = make(name, "float64").to("meta")  # torch has no autocast for meta, which the matrix needs
    loss_of(name, model, *empty_inputs("meta")).backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    if name == "cast_small":
        with pytest.raises((RuntimeError, NotImplementedError)):
            model(normalise(empty_inputs("meta")[0]), empty_inputs("meta")[1], "batch")


def test_moco_reads_no_value_at_all():
    recipe = load_recipe(
        "tiny_moco", ["moco.hidden_dim=16", "moco.feature_dim=8", "augment.image_size=64", "model.sampler=float64"]
    )
    model = pretraining.create(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake_gpu(model)
        (one, labels), (other, _) = empty_inputs("cuda"), empty_inputs("cuda")
        loss, _ = model((normalise(one), normalise(other)), (labels, labels), 0.99, 25)
        assert loss.device.type == "cuda"
    model = pretraining.create(recipe).to("meta")
    (one, labels), (other, _) = empty_inputs("meta"), empty_inputs("meta")
    model((normalise(one), normalise(other)), (labels, labels), 0.99, 25)[0].backward()


@pytest.mark.parametrize("name", NAMES)
def test_the_compiler_takes_the_whole_model(name):
    torch._dynamo.reset()
    model = make(name)
    images, labels = inputs("cpu")
    model.eval()
    expected = model(normalise(images), labels, S)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    found = compiled(normalise(images), labels, S)
    for key in ("embedding", "logits", "dense"):
        if getattr(expected, key) is not None:
            torch.testing.assert_close(getattr(found, key), getattr(expected, key), rtol=1e-4, atol=1e-5)


def test_the_compiler_takes_moco_whole():
    torch._dynamo.reset()
    sizes = ["moco.hidden_dim=16", "moco.feature_dim=8", "augment.image_size=64"]
    model = pretraining.create(load_recipe("tiny_moco", sizes)).train()
    images, labels = (part[:1].expand(2, *part.shape[1:]) for part in inputs("cpu"))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    loss, _ = compiled((normalise(images), normalise(images.flip(-1))), (labels, labels), 0.99, S)
    loss.backward()
    assert loss.isfinite() and any(parameter.grad is not None for parameter in model.parameters())


def test_labels_are_still_checked_where_they_can_be_read():
    model = make("cast_small")
    images, labels = inputs("cpu")
    labels = labels.clone()
    labels[0, 0, 0] = S
    with pytest.raises(InputError, match=r"0\.\.16 do not lie in 0\.\.15"):
        model(normalise(images), labels, S)
    labels[0, 0, 0] = -1
    with pytest.raises(InputError, match=r"-1\.\.15"):
        model(normalise(images), labels, S)
    with pytest.raises(RuntimeError, match="outside of the model's tokens"):
        torch.compile(model, fullgraph=True, backend="eager")(normalise(images), labels, S)


class Reads(TorchDispatchMode):
    """Counts the values that are read back."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_an_evaluation_on_a_gpu_reads_the_checks_of_all_poolings_together(monkeypatch):
    monkeypatch.setattr(checks, "on_device", lambda condition: True)
    model = make("cast_small").eval()
    images, labels = inputs("cpu")
    with torch.no_grad(), Reads() as reads:
        model(normalise(images), labels, S)
    assert reads.count == 1  # of the labels, before they are used; the other four come as one list
    for value, message in ((0.0, "distinct tokens"), (float("nan"), "NaN")):
        with pytest.raises(InputError, match=message):
            model(torch.full((2, 3, 64, 64), value), labels * 0, S)
    monkeypatch.undo()
    with torch.no_grad(), Reads() as reads:
        model(normalise(images), labels, S)
    assert reads.count == 5
