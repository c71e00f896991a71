"""The supervised program, run as people run it: learning, killing and resuming, two processes, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from supervised_runs import assert_same, finish, here, killed_in_the_second_epoch, start, weights

from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.models import load_model, save_native
from cast_sdk.training.engine.runlog import RunLog, check_ours, read_log

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole_run(folders, micro, tmp_path_factory):
    """An uninterrupted run: 2 epochs of 6 steps."""
    out = tmp_path_factory.mktemp("whole")
    output = finish(start(micro, folders, out, "--log-every", 1))
    return out, output


def test_a_run_writes_logs_and_checkpoints_that_open(whole_run, folders):
    out, output = whole_run
    assert "finished" in output
    steps = read_log(out, "step")
    assert [entry["step"] for entry in steps] == list(range(1, 13))
    assert all(entry["images_per_second"] > 0 for entry in steps)
    assert len(read_log(out, "validation")) == 2
    assert any((out / "tensorboard").iterdir())
    model = load_model(out / "best_checkpoint.pth")
    assert model.spec.class_names == ("class0", "class1", "class2", "class3")
    assert model.spec.superpixels.bins == 5
    raw = weights(out)
    assert raw["epoch"] == 1
    assert {"model", "model_ema", "optimizer", "lr_scheduler", "epoch", "scaler", "args"} <= raw.keys()


def test_evaluate_gives_the_accuracy_of_the_log(whole_run, folders):
    from click.testing import CliRunner

    from cast_sdk.training.evaluate import main

    out, _ = whole_run
    last = read_log(out, "validation")[-1]
    for extra, prefix in ([], ""), (["--ema"], "ema_"):
        arguments = [
            "--model",
            str(out / "checkpoint.pth"),
            "--data",
            str(folders),
            "--device",
            "cpu",
            "--json",
            *extra,
        ]
        result = CliRunner().invoke(main, arguments)
        metrics = json.loads(result.stdout.splitlines()[-1])
        assert metrics["images"] == 16
        for name in ("top1", "top5", "loss"):
            assert metrics[name] == pytest.approx(last[prefix + name], rel=1e-4)
    exported = out / "model.onnx"
    export_onnx(load_model(out / "checkpoint.pth"), exported, verify=False)
    result = CliRunner().invoke(main, ["--model", str(exported), "--data", str(folders), "--json"])
    metrics = json.loads(result.stdout.splitlines()[-1])
    assert metrics["images"] == 16
    for name in ("top1", "top5"):
        assert metrics[name] == pytest.approx(last[name], abs=100 / 16)  # a near tie may move one image
    missing = CliRunner().invoke(main, ["--model", str(out / "nothing.pth"), "--data", str(folders)])
    assert missing.exit_code == 1 and "does not exist" in missing.output


def test_kill_and_resume_gives_the_same_weights_bit_for_bit(whole_run, folders, micro, tmp_path):
    killed_in_the_second_epoch(micro, folders, tmp_path)
    output = finish(start(micro, folders, tmp_path, "--log-every", 1))
    assert "resumed at epoch 1" in output
    assert_same(weights(whole_run[0]), weights(tmp_path))


def test_sigterm_saves_and_the_same_command_goes_on(whole_run, folders, micro, tmp_path):
    process = start(micro, folders, tmp_path, "--log-every", 1)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "log.jsonl").exists() and len(read_log(tmp_path, "step")) >= 3:
            break
        time.sleep(0.005)
    process.terminate()
    assert "interrupted; the same command resumes" in finish(process)
    finish(start(micro, folders, tmp_path, "--log-every", 1))
    assert_same(weights(whole_run[0]), weights(tmp_path))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--set", "optimizer.lr=0.5"), "optimizer.lr: 0.002 in the checkpoint, 0.5 now"),
        (("--set", "train.batch=7000"), "The batch (7000) is larger than the training split"),
        (("--set", "train.precision=fp16"), "train.precision is fp16, which needs a GPU"),
        (("--set", "train.bach=8"), "did you mean 'batch'"),
    ],
)
def test_refusals_name_the_reason_and_lose_nothing(whole_run, folders, micro, extra, words):
    out, _ = whole_run
    before = (out / "checkpoint.pth").read_bytes()
    result = here(micro, folders, out, *extra)
    assert result.exit_code == 1
    assert words in result.output
    assert (out / "checkpoint.pth").read_bytes() == before


def test_a_missing_data_folder_is_named(micro, tmp_path):
    result = here(micro, tmp_path / "nowhere", tmp_path / "out")
    assert result.exit_code == 1 and "nowhere does not exist" in result.output


def test_two_processes_train_one_model(folders, micro, tmp_path):
    once = ("--set", "schedule.epochs=1")
    assert "finished" in finish(start(micro, folders, tmp_path, *once, "--save-minutes", 0, processes=2))
    assert weights(tmp_path)["resume"]["world_size"] == 2
    refused = here(micro, folders, tmp_path, *once)
    assert "2 in the checkpoint, 1 now" in refused.output and "--nproc-per-node 2" in refused.output
    accepted = here(micro, folders, tmp_path, *once, "--allow-world-size")
    assert accepted.exit_code == 0 and "finished" in accepted.output


def test_accumulated_steps_are_one_step_of_the_whole_batch(folders, micro, tmp_path):
    """A ViT has no batch statistics, so halves of a batch give the gradient of the whole."""
    vit = ("model.name=vit_small", "model.options={embed_dim: 32, depths: [2], num_heads: 2}")
    plain = (*vit, "optimizer.name=sgd", "optimizer.lr=0.05", "schedule.epochs=1", "augment.image_size=32")
    settings = [argument for setting in plain for argument in ("--set", setting)]
    found = []
    for parts in (1, 2):
        out = tmp_path / str(parts)
        result = here(micro, folders, out, *settings, "--set", f"train.accumulation={parts}", "--log-every", 1)
        assert result.exit_code == 0, result.output
        assert [entry["step"] for entry in read_log(out, "step")] == list(range(1, 7))
        found.append(weights(out)["model"])
    assert load_model(tmp_path / "1" / "checkpoint.pth").spec.family == "vit"
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-5), name


def test_mixed_images_train_reproducibly_and_differently(folders, micro, tmp_path):
    mixed = ("--set", "augment.mixup=0.8", "--set", "augment.cutmix=1.0")
    runs = []
    for name, extra in (("one", mixed), ("two", mixed), ("plain", ())):
        result = here(micro, folders, tmp_path / name, "--set", "schedule.epochs=1", *extra)
        assert result.exit_code == 0, result.output
        runs.append(weights(tmp_path / name))
    assert_same(runs[0], runs[1])
    assert any(not torch.equal(value, runs[2]["model"][name]) for name, value in runs[0]["model"].items())


def test_help_is_quick_to_import_and_the_module_is_the_same_program():
    def help_of(*arguments):
        command = [sys.executable, "-X", "importtime", *arguments, "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    script, module = help_of("training/supervised.py"), help_of("-m", "cast_sdk.training.supervised")
    assert script.returncode == module.returncode == 0
    assert script.stdout.partition("\n")[2] == module.stdout.partition("\n")[2]
    assert "torch" not in script.stderr and "numpy" not in script.stderr


def test_soft_labels_and_levels_join_the_labels_and_resume(folders, micro, tmp_path):
    import numpy as np

    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for split in ("train", "val"):
        (data / split).symlink_to(folders / split)
    np.save(data / "train-teacher.npy", 4 * np.eye(4, dtype=np.float16).repeat(12, 0))
    rows = np.arange(40) // 10
    maps = np.stack([rows[:, None] * np.ones(40), rows[:, None] // 2 * np.ones(40)] * 2).astype(np.uint8)
    images = np.repeat(np.repeat(60 * rows[:, None, None], 40, 1), 3, 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 40, (3, 40, 40, 3), np.uint8)
    np.savez(data / "regions.npz", images=images[None] + noise, maps=maps[None].repeat(3, 0))
    settings = [
        part for value in ("teacher.weight=0.5", "levels.weight=1", "levels.batch=2") for part in ("--set", value)
    ]
    result = here(micro, data, out, *settings)
    assert result.exit_code == 0, result.output
    losses = [entry["loss"] for entry in read_log(out, "step")]
    assert all(np.isfinite(losses))
    saved = weights(out)["model"]
    fresh = weights_of_init(micro, folders)
    key = "pool4.pool_block.centroid_fc.attn.qkv.weight"
    assert not torch.equal(saved[key], fresh[key])

    again = here(micro, data, tmp_path / "warm", *settings, "--set", f"model.init={out / 'checkpoint.pth'}",
                 "--set", "augment.image_size=48")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert load_model(tmp_path / "warm" / "checkpoint.pth").spec.image_size == 48


def weights_of_init(recipe, data):
    from cast_sdk.training.engine.models import create
    from cast_sdk.training.engine.recipe.files import load_recipe

    return create(load_recipe(str(recipe)), ["a", "b", "c", "d"]).state_dict()


def test_a_finished_run_becomes_weights_a_card_and_a_curve(whole_run, folders, tmp_path):
    from click.testing import CliRunner

    from cast_sdk.training.publish import main

    files = {"weights": tmp_path / "small.safetensors", "card": tmp_path / "README.md", "curve": tmp_path / "curve.png"}
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    done = CliRunner().invoke(main, ["--run", str(whole_run[0]), "--data", str(folders), *options])
    assert done.exit_code == 0, done.output
    model, card = load_model(files["weights"]), files["card"].read_text()
    assert model.spec.num_classes == 4 and model.spec.licence == "MIT"
    assert "It knows 4 classes" in card and "on 16 validation images" in card and "labels only" in card
    assert files["curve"].read_bytes().startswith(b"\x89PNG") and "mixed" not in card

    # Half of the weights from a file: here those of zeros, so half of all weights.
    zeros = load_model(files["weights"])
    for value in zeros.state_dict().values():
        value.zero_()
    save_native(zeros, tmp_path / "zeros.safetensors")
    options[1] = str(tmp_path / "mixed.safetensors")
    mix = ["--mix", f"0.5:{tmp_path / 'zeros.safetensors'}"]
    done = CliRunner().invoke(main, ["--run", str(whole_run[0]), "--data", str(folders), *options, *mix])
    assert done.exit_code == 0 and "mixed weights" in files["card"].read_text(), done.output
    mixed, before = load_model(options[1]), Path(options[1]).read_bytes()
    onto_itself = ["--mix", f"0.5:{options[1]}"]
    done = CliRunner().invoke(main, ["--run", str(whole_run[0]), "--data", str(folders), *options, *onto_itself])
    assert done.exit_code == 1 and "which is mixed in" in done.output and Path(options[1]).read_bytes() == before
    # Of the last and the averaged weights the better ones are taken, which the mixing may change.
    ratios = [mixed.blocks1[0].norm1.weight.mean() / model.blocks1[0].norm1.weight.mean()]
    ratios += [mixed.pos_embed.abs().mean() / model.pos_embed.abs().mean()]
    torch.testing.assert_close(torch.stack(ratios), torch.full((2,), 0.5), rtol=0.02, atol=0)


def test_a_card_says_what_the_loss_looked_at():
    from cast_sdk.training.publish import level_note, signals_of, start_of

    recipe = {"model": {"init": "a.pth"}, "teacher": {"weight": 0.5}, "levels": {"weight": 0.5}}
    assert signals_of(recipe) == "labels, a teacher's soft labels and a loss on the levels"
    assert start_of(recipe) == "earlier weights" and "all four" in level_note(recipe)
    recipe = {"model": {"init": ""}, "teacher": {"weight": 0.0}, "levels": {"weight": 0.0}}
    assert signals_of(recipe) == "labels only"
    assert start_of(recipe) == "random weights" and "random weights" in level_note(recipe)


def test_images_are_not_mixed_in_odd_numbers(micro, folders, tmp_path):
    result = here(micro, folders, tmp_path / "run", "--set", "augment.mixup=0.4", "--set", "train.batch=5")
    assert result.exit_code == 1 and "Images are mixed in pairs" in result.output
    assert "Remedy: make train.batch even" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "end", "finished": true}',
        '{"kind": "start", "resumed": true}',
        '{"kind": "step", "epoch": 1}',
        '{"kind": "validation", "epoch": 2}',
    ],
)
def test_the_best_checkpoint_of_a_run_without_its_rolling_one_stays(micro, folders, tmp_path, line):
    lines = ['{"kind": "start", "resumed": false}', '{"kind": "validation", "epoch": 1}', line]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "best_checkpoint.pth").write_text("of weeks")
    result = here(micro, folders, tmp_path, "--set", "schedule.epochs=1")
    assert result.exit_code == 1 and "best_checkpoint.pth of something else" in result.output, result.output
    assert (tmp_path / "best_checkpoint.pth").read_text() == "of weeks"


PLACED = [
    (kind, name) for kind in ("file", "pipe", "dangling link") for name in ("best_checkpoint.pth", "checkpoint.pth")
]


@pytest.mark.parametrize(
    ("kind", "name"), [*PLACED, ("file", "log.jsonl"), ("pipe", "log.jsonl")]
)  # a log may be a link
def test_a_new_run_replaces_nothing(micro, folders, tmp_path, kind, name):
    out = tmp_path / "run"
    out.mkdir()
    if kind == "file":
        (out / name).write_text("mine")
    elif kind == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to("nowhere")
    result = here(micro, folders, out)
    assert result.exit_code == 1 and name in result.output and result.output.startswith("error: "), result.output
    assert [path.name for path in out.iterdir()] == [name]
    assert kind != "file" or (out / name).read_text() == "mine"


def test_a_run_that_was_killed_in_its_first_save_begins_again(micro, folders, tmp_path):
    """The best checkpoint is written before the rolling one."""
    (tmp_path / "log.jsonl").write_text(
        '{"kind": "start"}\n{"kind": "step", "epoch": 0}\n{"kind": "validation", "epoch": 1}\n'
    )
    (tmp_path / "best_checkpoint.pth").write_text("of the killed run")
    result = here(micro, folders, tmp_path, "--set", "schedule.epochs=1")
    assert result.exit_code == 0 and (tmp_path / "checkpoint.pth").is_file(), result.output


@pytest.mark.parametrize(
    "left", ['{"ki', "", "\n", "\0\0\0\n" + '{"kind": "start"}\n'], ids=["cut", "empty", "line", "nul"]
)
def test_a_log_that_a_killed_process_left_is_gone_on_with(tmp_path, left):
    (tmp_path / "log.jsonl").write_text(left)
    check_ours(tmp_path / "log.jsonl")
    with RunLog(tmp_path, tensorboard=False):
        pass
