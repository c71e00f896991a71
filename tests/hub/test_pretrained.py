"""Models that are adapted, saved, pushed and opened again."""

from __future__ import annotations

import json

import pytest
import torch
from test_base import MODELS, WHOLE

import cast_sdk
from cast_sdk.errors import CheckpointError, ExportError, InputError
from cast_sdk.hub.cards import card
from cast_sdk.models import Cast, Model, create_model, load_model, model_spec
from cast_sdk.models.baselines import Vit
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.taxonomy import TaxonomyLevel

DEIT = "cast_small.deit_in1k"


def inputs():
    labels = (torch.arange(64 * 64).view(1, 64, 64) * 25) // (64 * 64)
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), labels, 25


@pytest.mark.parametrize("case", MODELS)
def test_features_and_head_are_the_pass(case):
    name, options, _ = MODELS[case]
    model = create_model(name, **options).eval()
    with torch.inference_mode():
        whole, features = model(*inputs()), model.forward_features(*inputs())
        again = model.forward_head(features)
    assert features.logits is None and features.embedding.shape[-1] == model.spec.embed_dim
    assert torch.equal(whole.embedding, features.embedding) and torch.equal(again.embedding, whole.embedding)
    for key in ("logits", "dense"):
        one, other = getattr(whole, key), getattr(again, key)
        assert (one is None and other is None) or torch.equal(one, other)


def test_features_of_a_taxonomy():
    levels = (TaxonomyLevel("fine", 5, 2), TaxonomyLevel("coarse", 2, 4))
    model = create_model("cast_deit_small", **{**WHOLE, "taxonomy": levels}).eval()
    with torch.inference_mode():
        whole, again = model(*inputs()), model.forward_head(model.forward_features(*inputs()))
    assert len(whole.taxonomy) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.taxonomy, again.taxonomy, strict=True))


@pytest.mark.parametrize("name", ["cast_small", "cast_deit_small", "vit_conv_small", "tome_small"])
def test_a_fresh_classifier(name):
    sizes = next(options for known, options, _ in MODELS.values() if known.startswith(name.split("_small")[0]))
    model = create_model(name, **sizes)
    before = model.head
    model.reset_classifier(7)
    assert model.head is not before and model.spec.num_classes == 7
    assert model.eval()(*inputs()).logits.shape == (1, 7)
    model.reset_classifier(0)
    assert model(*inputs()).logits is None
    with pytest.raises(InputError, match="cannot have -1"):
        model.reset_classifier(-1)
    for wrong in ("a", 2.5, None, True):
        with pytest.raises(InputError, match="A classifier cannot have"):
            model.reset_classifier(wrong)


def test_a_fresh_classifier_takes_the_taxonomy_and_calibration_away():
    levels = (TaxonomyLevel("fine", 5, 2), TaxonomyLevel("coarse", 2, 4))
    model = create_model("cast_small", **{**WHOLE, "taxonomy": levels, "temperature": 2.0, "unsure_below": 0.5})
    model.reset_classifier(3)
    assert (model.spec.taxonomy, model.spec.temperature, model.spec.unsure_below) == ((), 1.0, 0.0)
    assert not any(key.startswith("family_head") for key in model.state_dict())
    assert model.eval()(*inputs()).logits.shape == (1, 3)


def test_models_that_keep_their_classes():
    for case in ("segmenter", "spml"):
        name, options, _ = MODELS[case]
        with pytest.raises(InputError):
            create_model(name, **options).reset_classifier(3)


def test_published_weights_for_new_classes(server, models):
    model = create_model(DEIT, pretrained=True, num_classes=4, drop_path=0.1)
    assert model.training and model.spec.drop_path == 0.1 and model.head.out_features == 4
    original = next(value for name, value in models[0].items() if "deit" in name)
    assert torch.equal(model.blocks1[0].attn.qkv.weight, original.blocks1[0].attn.qkv.weight)
    assert torch.equal(create_model("cast_deit_small", pretrained=True).head.weight, original.head.weight)


def test_what_published_weights_do_not_take():
    for wrong in (7, -0.1, "a"):
        with pytest.raises(InputError, match=r"cannot be made(.|\n)*drop_path"):
            create_model("cast_tiny.bundled", pretrained=True, drop_path=wrong)
    with pytest.raises(InputError, match="embed_dim cannot be given with published weights"):
        create_model(DEIT, pretrained=True, embed_dim=48)
    with pytest.raises(InputError, match=r"several weights(.|\n)*cast_small.moco_coco_ep150"):
        create_model("cast_seg_small", pretrained=True)
    with pytest.raises(InputError, match="no weights"):
        create_model("segmenter_cast_small", pretrained=True)
    assert create_model(DEIT, embed_dim=24, num_heads=2, depths=(1, 1, 1, 1)).spec.family == "cast_deit"


def small(**more):
    return create_model("cast_small", **{**WHOLE, "class_names": tuple("abcde"), "licence": "MIT", **more})


def test_a_folder_is_written_and_opened(tmp_path):
    model = small()
    model.save_pretrained(tmp_path / "mine")
    for again in (Model.from_pretrained(tmp_path / "mine"), load_model(tmp_path / "mine")):
        assert again.spec == model.spec
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["cast_sdk"]["num_classes"] == 5
    readme = tmp_path / "mine" / "README.md"
    assert "5: a, b, c, d, e" in readme.read_text()
    readme.write_text("my own words")
    model.save_pretrained(tmp_path / "mine")
    assert readme.read_text() == "my own words"
    with pytest.raises(CheckpointError, match=r"folder without model.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_of_others_in_the_folder_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(ExportError, match=r"not written by this package(.|\n)*another --out or folder"):
        small().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_model_goes_to_the_hub_and_comes_back(server, tmp_path):
    model = small()
    assert model.push_to_hub("me/mine") == "hf://me/mine"
    assert set(server.pushed["me/mine"]) == {"README.md", "config.json", "model.safetensors"}
    for again in (Model.from_pretrained("me/mine"), load_model("hf://me/mine")):
        assert again.spec.source == "hf://me/mine" and again.spec.class_names == model.spec.class_names
        assert torch.equal(again.head.weight, model.head.weight)
    server.pushed["me/mine"]["README.md"] = b"my own words"
    model.reset_classifier(2)
    model.push_to_hub("me/mine")
    assert server.pushed["me/mine"]["README.md"] == b"my own words"
    assert b'"num_classes": 2' in server.pushed["me/mine"]["config.json"]


@pytest.mark.parametrize("text", ["checkpoints/best.pth", "best/CAST.pth.TAR", "runs/last", "runs/last.safetensors"])
def test_a_path_is_not_looked_for_on_the_hub(server, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match=f"{text} does not exist"):
        Model.from_pretrained(text)
    assert not server.log


def test_a_class_opens_its_own_models():
    assert type(Cast.from_pretrained("cast_tiny.bundled")) is Cast
    with pytest.raises(InputError, match=r"cast_tiny.bundled is a Cast, not a Vit.(.|\n)*Cast.from_pretrained"):
        Vit.from_pretrained("cast_tiny.bundled")


def test_a_graph_on_the_hub_runs_as_it_is(server):
    from cast_sdk import bundled

    server.pushed["me/graph"] = {"model.onnx": bundled.path(bundled.MODEL).read_bytes()}
    with cast_sdk.Runtime("hf://me/graph/model.onnx") as runtime:
        assert runtime.segment(bundled.photos()[0]).num_levels == 4


@pytest.mark.parametrize("status, remedy", [(401, "hf auth login"), (403, "may write to me/mine"), (500, "again")])
def test_a_hub_that_refuses(server, status, remedy):
    server.refused = status
    with pytest.raises(ExportError, match=rf"(?s)could not be uploaded to me/mine.*{remedy}"):
        small().push_to_hub("me/mine")


def test_malformed_repositories(tmp_path):
    with pytest.raises(InputError, match="owner/name"):
        small().push_to_hub("mine")


def test_a_card_says_what_the_description_says():
    spec = model_spec("cast_small", class_names=("a|b", "c\nd"), licence="Some: licence", num_classes=2)
    text = card(spec)
    head, body = text.split("---\n")[1:3]
    assert 'license_name: "Some: licence"' in head and "pipeline_tag: image-classification" in head
    assert "a\\|b, c d" in body and "64, 32, 16, 8" in body
    plain = card(model_spec("vit_small", superpixels=SuperpixelSettings()))
    assert "Superpixels" not in plain and "baseline" in plain
