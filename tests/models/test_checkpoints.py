"""Official layouts, inference from keys, our own format, and files that must be refused."""

import argparse
import json
import pickle

import pytest
import torch

from cast_sdk.errors import CheckpointError, ExportError, InputError
from cast_sdk.models import (
    MoCo,
    build,
    create_model,
    list_models,
    load_model,
    load_native,
    model_spec,
    save_native,
    save_official,
)
from cast_sdk.models.checkpoints.layouts import official_state
from cast_sdk.models.checkpoints.reading import read_file
from cast_sdk.models.infer import infer_spec

TINY = {"embed_dim": 48, "depths": (2, 1, 1, 1), "num_classes": 10}
TINY_CLUSTERS = {**TINY, "clusters": (64, 32, 16, 8)}


def manifest(golden_dir, name):
    return json.loads((golden_dir / "manifests" / f"{name}.json").read_text())


def model_of(name):
    """The registered model and layout that a manifest's file name stands for."""
    kind, _, arch = name.partition("_")
    if kind == "moco":
        stage = {"stage": "pretrain"} if arch.startswith("cast_seg") else {}
        return MoCo(model_spec(arch.removesuffix("_pretrain"), head="projector", **stage)), "moco"
    if kind == "lincls":
        return build(model_spec(arch)), "lincls"
    if kind == "deit":
        return build(model_spec(arch.replace("cast_", "cast_deit_"))), "deit"
    if kind == "segmenter":
        classes = 150 if "ade20k" in arch else 60
        return build(model_spec("segmenter_cast_small", num_classes=classes)), "segmenter"
    if kind == "spml":
        flavour = arch.split("_")[1]
        options = {
            "finetune": {"classifier": "softmax"},
            "linear": {"classifier": "linear"},
            "retrieval": {"classifier": "none", "head": "projector"},
        }[flavour]
        return build(model_spec("spml_cast_small", **options)), "spml"
    assert kind == "plain"
    stage = {"stage": "segmentation"} if arch == "cast_seg_small" else {}
    return build(model_spec(arch, **stage)), "plain"


MANIFESTS = [
    "deit_cast_base", "deit_cast_base_deep", "deit_cast_small", "deit_cast_small_deep",
    "lincls_cast_base", "lincls_cast_small", "lincls_cast_small_deep", "lincls_tome_small", "lincls_vit_conv_small",
    "moco_cast_base", "moco_cast_base_deep", "moco_cast_seg_base_pretrain", "moco_cast_seg_small_pretrain",
    "moco_cast_small", "moco_cast_small_deep", "moco_tome_small", "moco_vit_base", "moco_vit_conv_base",
    "moco_vit_conv_small", "moco_vit_small",
    "plain_cast_seg_deit_small", "plain_cast_seg_small",
    "segmenter_ade20k_cast_small", "segmenter_pcontext_cast_small",
    "spml_voc_finetune_cast_small", "spml_voc_linear_cast_small", "spml_voc_retrieval_embedding_cast_small",
]  # fmt: skip


def test_every_manifest_is_checked(golden_dir):
    assert sorted(path.stem for path in (golden_dir / "manifests").glob("*.json")) == sorted(MANIFESTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_layout_equals_the_manifest(golden_dir, name):
    """Keys, their order, shapes and types, without allocating the weights."""
    with torch.device("meta"):
        model, kind = model_of(name)
    state = official_state(model, kind)
    expected = manifest(golden_dir, name)
    if "retrieval" in name:
        assert not state["prediction_model"]
        state = state["embedding_model"]
    parts = [(state[key], expected[key]) for key in expected] if "embedding_model" in expected else [(state, expected)]
    for ours, theirs in parts:
        described = {k: [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in ours.items()}
        assert described == theirs
        assert list(described) == list(theirs), "the order decides which optimiser state belongs to which tensor"


@pytest.mark.parametrize("name", [n for n in MANIFESTS if n.startswith(("lincls", "deit", "segmenter", "spml"))])
def test_spec_is_inferred_from_the_published_keys(golden_dir, name):
    entries = manifest(golden_dir, name)
    if "embedding_model" in entries:
        entries = {**entries["embedding_model"], **entries["prediction_model"]}
    entries = {key.removeprefix("module."): value for key, value in entries.items()}
    state = {key: torch.empty(shape, device="meta") for key, (shape, _) in entries.items()}
    with torch.device("meta"):
        expected = model_of(name)[0].spec
    assert infer_spec(state) == expected


def small(name):
    """A quick model of every registered family that keeps the published cluster counts."""
    spec = model_spec(name)
    sizes = {"embed_dim": 48, "num_classes": 5}
    sizes["depths"] = (1,) * len(spec.depths)
    return create_model(name, **sizes)


@pytest.mark.parametrize("name", [n for n in list_models() if n.endswith("_small") or n == "cast_tiny"])
def test_round_trips(tmp_path, name):
    model = small(name)
    family = model.spec.family
    kind = family if family in ("segmenter", "spml") else "lincls"
    save_official(model, tmp_path / "official.pth", kind, epoch=3)
    save_native(model, tmp_path / "native.safetensors")
    for path in ("official.pth", "native.safetensors"):
        loaded = load_model(tmp_path / path)
        assert loaded.spec == model.spec
        assert not loaded.training
        for key, value in model.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)
    assert load_native(tmp_path / "native.safetensors").spec == model.spec


def test_half_precision_native_file(tmp_path):
    model = create_model("cast_tiny")
    save_native(model, tmp_path / "half.safetensors", torch.float16)
    loaded = load_native(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    torch.testing.assert_close(loaded.head.weight, model.head.weight.half().float())


@pytest.fixture
def moco():
    return MoCo(model_spec("cast_small", **TINY, head="projector", head_dims=(32, 16)))


def strip_spec(path):
    """As a file of the reference program: without our description."""
    raw = torch.load(path, weights_only=True)
    del raw["cast_sdk"]
    torch.save(raw, path)


def test_moco_checkpoint_gives_its_base_encoder(tmp_path, moco):
    path = tmp_path / "checkpoint_0099.pth.tar"
    optimizer = torch.optim.AdamW(moco.base_encoder.parameters())
    save_official(moco, path, "moco", epoch=100, optimizer=optimizer.state_dict(), scaler={"scale": 65536.0})
    for official in (False, True):
        if official:
            strip_spec(path)
        model = load_model(path)
        assert isinstance(model.head, torch.nn.Identity)
        torch.testing.assert_close(model.norm.weight, moco.base_encoder.norm.weight)
        kept = load_model(path, keep_projector=True)
        assert kept.spec.head == "projector" and kept.spec.head_dims == (32, 16)
        probe = load_model(path, num_classes=7)
        assert probe.head.weight.shape == (7, 48)


def test_moco_segmentation_checkpoint_opens_for_segmentation(tmp_path):
    spec = model_spec("cast_seg_small", **TINY, head="projector", head_dims=(32, 16))
    save_official(MoCo(spec), tmp_path / "coco.pth.tar", "moco")
    strip_spec(tmp_path / "coco.pth.tar")
    assert load_model(tmp_path / "coco.pth.tar").spec.stage == "pretrain"
    model = load_model(tmp_path / "coco.pth.tar", stage="segmentation")
    assert model.spec.clusters == (320, 160, 80, 40)
    assert model.pos_embed.shape == (1, 4096, 48)


def test_deit_checkpoint_with_argparse_namespace_and_one_alias(tmp_path):
    model = small("cast_deit_small")
    args = argparse.Namespace(lr=1e-3, model="cast_small", data=None)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("blocks.")}
    torch.save({"model": state, "model_ema": state, "optimizer": {}, "args": args, "epoch": 1}, tmp_path / "d.pth")
    loaded = load_model(tmp_path / "d.pth")
    torch.testing.assert_close(loaded.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)


def test_differing_block_copies_are_refused(tmp_path):
    model = small("cast_small")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["blocks.0.norm1.weight"] += 1
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"two copies of a transformer block that differ\.\n.*blocks\.0\.norm1\.weight"
    ):
        load_model(tmp_path / "x.pth")


def test_wrong_keys_are_named(tmp_path):
    model = small("cast_small")
    state = model.state_dict()
    del state["norm.weight"]
    state["norm.bias"] = torch.zeros(7)
    state["extra.thing"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "x.pth")
    text = str(error.value)
    assert "norm.weight missing" in text and "extra.thing unknown" in text
    assert "norm.bias (7,) instead of (48,)" in text and "Remedy:" in text


class Evil:
    def __reduce__(self):
        return print, ("code from the file ran",)


def write_evil(path):
    with path.open("wb") as file:
        pickle.dump({"model": Evil()}, file)


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"could run code when they are loaded.\n.*global: GLOBAL print\n"):
        read_file(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


def make_bad(tmp_path, what):
    path = tmp_path / f"{what}.pth"
    if what == "folder":
        path.mkdir()
    elif what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("this is not a checkpoint\n")
    elif what == "truncated":
        save_official(small("cast_small"), path, "lincls")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif what == "resnet":
        torch.save({"state_dict": {"layer1.0.conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}}, path)
    elif what == "list":
        torch.save([1, 2], path)
    elif what == "numbers":
        torch.save({"epoch": 3}, path)
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"missing\.pth does not exist"),
        ("folder", r"folder\.pth is a folder"),
        ("empty", "0 bytes"),
        ("text", "is not a PyTorch file"),
        ("truncated", "complete PyTorch file"),
        ("resnet", "is not of CAST"),
        ("list", "holds a list, not a dictionary"),
        ("numbers", r"holds no tensors.\n.*\[\'epoch\'\]"),
    ],
)
def test_bad_files(tmp_path, what, message):
    with pytest.raises(CheckpointError, match=message):
        load_model(make_bad(tmp_path, what))


def test_truncated_safetensors(tmp_path):
    save_native(small("cast_small"), tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:1000])
    with pytest.raises(CheckpointError, match=r"not a complete \.safetensors file"):
        load_model(tmp_path / "x.safetensors")


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    model = small("cast_small")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(ExportError, match=r"(?s)x\.pth cannot be written.*No space"):
        save_official(model, tmp_path / "x.pth", "lincls")
    assert not list(tmp_path.iterdir())


def test_registry_messages():
    with pytest.raises(InputError, match=r"^Unknown model 'cast_smal'\.\n.*cast_small"):
        create_model("cast_smal")
    with pytest.raises(InputError, match="'embed_dim'"):
        create_model("cast_small", embed_dims=48)
