"""MoCo pre-training and the linear probe: recipes against the facts, killed runs, two processes, official files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.models import load_model
from cast_sdk.models.checkpoints.layouts import official_state
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training import linear_probe, pretrain
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dataset import Images, LabelledViews, loader
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.optim import build_optimizer
from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe
from cast_sdk.training.engine.recipe.settings import Moco
from cast_sdk.training.engine.runlog import read_log
from cast_sdk.training.engine.schedules import scaled_lr
from cast_sdk.training.tasks import pretraining
from cast_sdk.training.tasks import probe as probing

ROOT = Path(__file__).parents[2]
MICRO = """
program: pretrain
notes: For tests.
model:
  name: cast_tiny
  options: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: 2, clusters: [4, 3, 3, 2]}
superpixels: {count: 16, bins: 5, iterations: 4}
augment: {image_size: 32, scale: [0.3, 1.0]}
optimizer: {name: adamw, lr: 2.0e-3, weight_decay: 0.1, decay_rule: all}
schedule: {kind: cosine, epochs: 2, warmup: 0.2}
train: {batch: 8, seed: 3}
moco: {hidden_dim: 24, feature_dim: 12}
"""
PROBE = """
program: linear_probe
notes: For tests.
model:
  name: cast_tiny
  options: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: 2, clusters: [4, 3, 3, 2]}
superpixels: {count: 16, bins: 5, iterations: 4}
augment: {image_size: 32, eval_resize: 0}
optimizer: {name: sgd, lr: 0.5, weight_decay: 0.0, decay_rule: all}
schedule: {kind: epoch_cosine, epochs: 3}
train: {batch: 20, drop_last: false}
"""
MOCO = [name for name in list_recipes() if name.startswith("moco_")]
LINCLS = [name for name in list_recipes() if name.startswith("lincls_")]


@pytest.fixture(autouse=True)
def one_thread():
    """Micro models: the threads of a pool would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def recipes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain_recipes")
    for name, text in (("moco", MICRO), ("probe", PROBE)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


# ---------------------------------------------------------------- recipes against the facts


def test_every_published_row_has_both_recipes():
    in1k = {"cast_small", "cast_small_deep", "cast_base", "vit_conv_small", "vit_conv_base"}
    rows = {f"in1k_{name}" for name in in1k} | {
        f"in100_{name}" for name in ("cast_small", "vit_conv_small", "tome_small")
    }
    assert {f"moco_{row}" for row in rows} | {"moco_coco_cast_seg_small"} == set(MOCO)
    assert {f"lincls_{row}" for row in rows} == set(LINCLS)


@pytest.mark.parametrize("name", MOCO)
def test_pretraining_recipe(name, golden_dir):
    recipe = load_recipe(name, program="pretrain")
    lr = scaled_lr(recipe.optimizer.lr, recipe.train.batch, recipe.optimizer.reference_batch)
    assert (lr, recipe.train.batch, recipe.train.sync_bn, recipe.train.precision) == (1.5e-4, 256, True, "fp16")
    epochs = {"in1k": (100, 10), "in100": (200, 20), "coco": (400, 40)}[name.split("_")[1]]
    assert (recipe.schedule.epochs, recipe.schedule.warmup) == epochs
    assert (recipe.augment.image_size, recipe.augment.scale) == (224, (0.08, 1.0))
    assert (recipe.superpixels.count, recipe.superpixels.bins, recipe.superpixels.iterations) == (196, 15, 20)
    assert recipe.moco == Moco()

    with torch.device("meta"):
        model = pretraining.create(recipe)
    (group,) = build_optimizer(model, recipe.optimizer, lr).param_groups
    assert group["weight_decay"] == 0.1 and group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(group["params"]) == len(trained)
    assert not any(key.startswith("momentum_encoder") or "pos_embed" in key or "pe_token" in key for key in trained)
    hierarchical, fused = model.spec.hierarchical, model.spec.fused
    assert any("pool4" in key for key in trained) == (hierarchical and fused)  # frozen in the classification family
    assert any("pool3" in key for key in trained) == hierarchical

    arch = recipe.model.name + ("_pretrain" if fused else "")
    expected = json.loads((golden_dir / "manifests" / f"moco_{arch}.json").read_text())
    assert list(official_state(model, "moco")) == list(expected)


@pytest.mark.parametrize("name", LINCLS)
def test_probe_recipe(name, golden_dir):
    recipe = load_recipe(name, program="linear_probe")
    lr = scaled_lr(recipe.optimizer.lr, recipe.train.batch, recipe.optimizer.reference_batch)
    in1k = "in1k" in name
    assert (lr, recipe.train.batch) == ((120.0, 1024) if in1k else (0.8, 256))
    assert (recipe.schedule.kind, recipe.schedule.epochs, recipe.schedule.warmup) == ("epoch_cosine", 90, 0)
    assert recipe.train.precision == "fp32" and not recipe.train.drop_last and not recipe.train.sync_bn
    assert (recipe.augment.eval_resize, recipe.augment.interpolation) == (256, "bilinear")
    with torch.device("meta"):
        model = probing.create(recipe, "random", [str(label) for label in range(100)])
    assert model.head.weight.shape[0] == 1000
    (group,) = build_optimizer(model, recipe.optimizer, lr).param_groups
    assert len(group["params"]) == 2 and group["momentum"] == 0.9 and group["weight_decay"] == 0.0
    path = golden_dir / "manifests" / f"lincls_{recipe.model.name}.json"
    if path.exists():
        assert list(official_state(model, "lincls")) == list(json.loads(path.read_text()))


# ---------------------------------------------------------------- views


def test_superpixels_belong_to_the_finished_view_and_items_to_their_key(folders, recipes):
    recipe = load_recipe(str(recipes / "moco.yaml"))
    data = TwoViews(Images(open_source(folders, "train")), recipe)
    (first, second), maps = data[5, 1, 2]
    assert first.dtype == torch.uint8 and first.shape == (3, 32, 32) and not torch.equal(first, second)
    for view, labels in zip((first, second), maps, strict=True):
        rgb = view.permute(1, 2, 0).contiguous().numpy()
        assert torch.equal(labels, torch.from_numpy(superpixels_for(rgb, data.settings)))
    assert torch.equal(data[5, 1, 2][0][1], second)
    assert not torch.equal(data[5, 2, 2][0][1], second)
    in_worker = next(iter(loader(data, EpochSampler(len(data), 4, seed=3), workers=1)))
    here = next(iter(loader(data, EpochSampler(len(data), 4, seed=3))))
    assert torch.equal(in_worker[0][0], here[0][0]) and torch.equal(in_worker[1][1], here[1][1])


def test_models_without_superpixels_get_none(folders):
    recipe = load_recipe("moco_in100_vit_conv_small")
    images = Images(open_source(folders, "train"))
    for data in (TwoViews(images, recipe, superpixels=False), LabelledViews(images, recipe, True, superpixels=False)):
        labels = data[0, 0, 0][1]
        labels = labels[0] if isinstance(labels, tuple) else labels
        assert labels.numel() == 0 and data.count(labels) is None


# ---------------------------------------------------------------- two processes


def one_step(world: World, recipe_path: str, data: str) -> dict[str, torch.Tensor]:
    """In float64: BatchNorm over eight rows amplifies float32 rounding in the gradients to 1e-4."""
    torch.set_num_threads(1)
    original, transforms.normalise = transforms.normalise, lambda images: images.double() / 255 - 0.5
    try:
        recipe = load_recipe(recipe_path, ["train.sync_bn=true", "model.dropout=0"])
        model = pretraining.create(recipe).double()
        views = TwoViews(Images(open_source(data, "train")), recipe)
        task = pretraining.Pretraining(recipe, model, views, world)
        sampler = EpochSampler(len(views), world.per_process(8), rank=world.rank, world=world.size, seed=1)
        loss = task.loss(next(iter(loader(views, sampler))), 0.0)
        loss.backward()
    finally:
        transforms.normalise = original
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    state = {f"state {name}": value.detach() for name, value in model.state_dict().items()}
    return {"loss": world.mean(loss.detach().clone()), **gradients, **state}


def worker(rank: int, recipe: str, data: str, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    from torch import distributed

    from cast_sdk.training.engine.distributed import start

    distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    world = start("cpu")
    torch.save(one_step(world, recipe, data), Path(out) / f"{rank}.pt")
    world.finish()


def test_two_processes_give_the_loss_and_gradients_of_one(folders, recipes, tmp_path):
    """Keys of all processes are negatives, and batch statistics are those of the global batch."""
    mp.spawn(worker, (str(recipes / "moco.yaml"), str(folders), str(tmp_path)), nprocs=2)
    alone = one_step(World(), str(recipes / "moco.yaml"), str(folders))
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt")
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            scale = max(float(value.abs().max()), 1e-3)
            torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5 * scale, msg=name)


# ---------------------------------------------------------------- runs


def start(recipe, data, out, *extra):
    command = [sys.executable, "training/pretrain.py", "--recipe", recipe, "--data", data, "--out", out]
    command += ["--device", "cpu", "--log-every", 1, "--save-minutes", 0, "--keep-every", 1, *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(part) for part in command], cwd=ROOT, env=environment, **pipes)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def invoke(program, *arguments):
    from click.testing import CliRunner

    words = [str(argument) for argument in (*arguments, "--device", "cpu")]
    return CliRunner(env={"OMP_NUM_THREADS": "1"}).invoke(program.main, words)


@pytest.fixture(scope="module")
def run(folders, recipes, tmp_path_factory):
    """An uninterrupted run of 2 epochs of 6 steps."""
    out = tmp_path_factory.mktemp("moco")
    finish(start(recipes / "moco.yaml", folders, out))
    return out


def load(path):
    return torch.load(path, weights_only=True)


def test_files_have_the_published_layout(run):
    assert {path.name for path in run.glob("*.tar")} == {
        "checkpoint.pth.tar",
        "checkpoint_0000.pth.tar",
        "checkpoint_0001.pth.tar",
    }
    raw = load(run / "checkpoint_0001.pth.tar")
    assert {"epoch", "arch", "state_dict", "optimizer", "scaler"} <= raw.keys()
    assert raw["epoch"] == 2 and raw["arch"] == "cast_tiny"
    parts = {".".join(key.split(".")[:2]) for key in raw["state_dict"]}
    assert parts == {"module.base_encoder", "module.momentum_encoder", "module.predictor"}
    (group,) = raw["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.1
    steps = read_log(run, "step")
    assert [entry["step"] for entry in steps] == list(range(1, 13)) and steps[0]["lr"] == 0.0
    model = load_model(run / "checkpoint_0001.pth.tar")
    assert torch.equal(model.norm.weight, raw["state_dict"]["module.base_encoder.norm.weight"])


def test_kill_and_resume_gives_the_same_weights_bit_for_bit(run, folders, recipes, tmp_path):
    process = start(recipes / "moco.yaml", folders, tmp_path)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "checkpoint_0000.pth.tar").exists() and len(read_log(tmp_path, "step")) >= 9:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resume = load(tmp_path / "checkpoint.pth.tar")["resume"]
    assert resume["epoch"] == 1 and 0 < resume["step"] < 6  # in the middle of the second epoch
    assert "resumed at epoch 1" in finish(start(recipes / "moco.yaml", folders, tmp_path))
    whole, again = load(run / "checkpoint.pth.tar"), load(tmp_path / "checkpoint.pth.tar")
    assert all(torch.equal(whole["state_dict"][key], value) for key, value in again["state_dict"].items())
    for key, entry in again["optimizer"]["state"].items():
        assert all(torch.equal(whole["optimizer"]["state"][key][name], value) for name, value in entry.items())


def test_momentum_follows_its_schedule_within_epochs(folders, recipes, tmp_path, monkeypatch):
    from cast_sdk.models import MoCo
    from cast_sdk.training.engine.schedules import moco_momentum

    seen = []
    original = MoCo.update_momentum
    monkeypatch.setattr(MoCo, "update_momentum", lambda self, m: (seen.append(m), original(self, m))[1])
    result = invoke(pretrain, "--recipe", recipes / "moco.yaml", "--data", folders, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert seen == pytest.approx([moco_momentum(step / 6, 0.99, 2) for step in range(12)])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.accumulation=2", "accumulated steps would be another loss"),
        ("model.init=x.pth", "starts from random weights"),
        ("optimizer.lr=0.5", "optimizer.lr: 0.002 in the checkpoint, 0.5 now"),
        ("moco.hidden_dim=16", "moco.hidden_dim: 24 in the checkpoint, 16 now"),
    ],
)
def test_refusals_name_the_reason_and_lose_nothing(run, folders, recipes, override, words):
    before = (run / "checkpoint.pth.tar").read_bytes()
    result = invoke(pretrain, "--recipe", recipes / "moco.yaml", "--data", folders, "--out", run, "--set", override)
    assert result.exit_code == 1 and words in result.output
    assert (run / "checkpoint.pth.tar").read_bytes() == before


# ---------------------------------------------------------------- probe


def probe(recipes, folders, out, checkpoint, *extra):
    arguments = ("--recipe", recipes / "probe.yaml", "--data", folders, "--checkpoint", checkpoint, "--out", out)
    return invoke(linear_probe, *arguments, *extra)


@pytest.mark.parametrize("passes", [0, 2])
def test_probe_trains_the_head_alone(run, folders, recipes, tmp_path, passes):
    source = run / "checkpoint_0001.pth.tar"
    result = probe(recipes, folders, tmp_path, source, "--set", f"probe.passes={passes}")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("*.tar")} == {"checkpoint.pth.tar", "model_best.pth.tar"}
    raw = load(tmp_path / "checkpoint.pth.tar")
    assert {"epoch", "arch", "state_dict", "best_acc1", "optimizer"} <= raw.keys() and raw["epoch"] == 3
    validations = read_log(tmp_path, "validation")
    assert float(raw["best_acc1"]) == pytest.approx(max(entry["top1"] for entry in validations), abs=1e-3)
    pretrained = load(source)["state_dict"]
    for key, value in raw["state_dict"].items():
        if key not in ("module.head.weight", "module.head.bias"):
            assert torch.equal(value, pretrained[key.replace("module.", "module.base_encoder.")]), key
    assert raw["state_dict"]["module.head.weight"].abs().max() > 0.02  # it moved from N(0, 0.01)
    assert load_model(tmp_path / "model_best.pth.tar").spec.num_classes == 4


def test_probe_of_random_weights_and_of_a_checkpoint_that_does_not_fit(run, folders, recipes, tmp_path):
    assert probe(recipes, folders, tmp_path / "random", "random").exit_code == 0
    other = probe(
        recipes, folders, tmp_path / "other", run / "checkpoint.pth.tar", "--set", "model.options.embed_dim=48"
    )
    assert other.exit_code == 1 and "holds another model than the recipe's" in other.output
    narrow = probe(recipes, folders, tmp_path / "narrow", "random", "--set", "model.options.num_classes=2")
    assert narrow.exit_code == 1 and "The model has 2 classes, and the data has 4" in narrow.output


def test_the_sanity_check_finds_an_encoder_that_changed(recipes):
    model = probing.create(load_recipe(str(recipes / "probe.yaml")), "random", ["a", "b"])
    before = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("head")}
    probing.check_frozen(model, before, "file")
    model.patch_embed.proj[1].running_mean[0] += 1e-6
    with pytest.raises(CheckpointError, match=r"1 tensors differ from file, first patch_embed\.proj\.1\.running_mean"):
        probing.check_frozen(model, before, "file")


def test_probe_refuses_a_model_that_is_not_frozen(recipes, folders):
    recipe = load_recipe(str(recipes / "probe.yaml"))
    model = probing.create(recipe, "random", ["a", "b"])
    model.cls_token.requires_grad_(True)
    with pytest.raises(RecipeError, match=r"cls_token"):
        probing.LinearProbe(recipe, model, "random", None, None, World())


def test_a_class_folder_that_only_one_split_has_would_shift_labels(recipes, folders, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(folders, data)
    shutil.rmtree(data / "val" / "class1")
    result = probe(recipes, data, tmp_path / "out", "random")
    assert result.exit_code == 1 and "1 class folders are missing in val/: class1" in result.output
