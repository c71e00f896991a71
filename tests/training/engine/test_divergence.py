"""A run that diverges: nothing replaces its last good checkpoint, and the message says NaN."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from cast_sdk.training.supervised import main


def train(micro, folders, out, *extra):
    arguments = ["--recipe", micro, "--data", folders, "--out", out, "--device", "cpu", *extra]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def diverging(monkeypatch):
    """Make the loss of a step NaN; with `silent` only the weights, and the loss stays as it is."""
    from cast_sdk.training.tasks.classification import Classification

    def arrange(step: int, *, silent: bool = False) -> None:
        loss, after, seen = Classification.loss, Classification.after_step, [0]

        def spoiled_loss(self, batch, fraction):
            value = loss(self, batch, fraction)
            return value if silent or seen[0] != step else value * float("nan")

        def spoiled_after(self, fraction):
            if silent and seen[0] == step:
                with torch.no_grad():
                    next(self.model.parameters()).fill_(float("nan"))
            seen[0] += 1
            after(self, fraction)

        monkeypatch.setattr(Classification, "loss", spoiled_loss)
        monkeypatch.setattr(Classification, "after_step", spoiled_after)

    return arrange


# An epoch has 6 steps. Reports come once in 50, so each of these saves is the first that could notice.
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("step", "extra"),
    [(8, ("--save-minutes", "0")), (10, ())],
    ids=["at a timed save", "at the end of an epoch"],
)
def test_the_last_good_checkpoint_stays(micro, folders, tmp_path, diverging, step, extra, silent):
    diverging(step, silent=silent)
    result = train(micro, folders, tmp_path, *extra)
    assert result.exit_code == 1, result.output
    assert "NaN" in result.output.replace("nan", "NaN") and "has diverged" in result.output
    assert "as it was last saved" in result.output
    kept = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert kept["resume"]["total"] <= step
    assert all(bool(value.isfinite().all()) for value in kept["model"].values())
    assert not [path.name for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_a_run_that_diverges_at_once_saves_nothing(micro, folders, tmp_path, diverging):
    diverging(0)
    result = train(micro, folders, tmp_path)
    assert result.exit_code == 1 and "are NaN or infinite at epoch 0, step 1" in result.output, result.output
    assert "nothing was saved before" in result.output
    assert not (tmp_path / "checkpoint.pth").exists()


def test_a_real_rate_that_is_too_high_is_called_a_divergence(micro, folders, tmp_path):
    result = train(micro, folders, tmp_path, "--set", "optimizer.lr=1.0e+30", "--set", "schedule.warmup=0")
    assert result.exit_code == 1 and "the training has diverged" in result.output, result.output
    assert "distinct tokens" not in result.output and "NaN" in result.output


def test_an_interruption_saves_no_weights_that_are_nan(micro, folders, tmp_path, diverging, monkeypatch):
    from cast_sdk.training.engine.loop import Loop

    diverging(2)
    tick = Loop._tick

    def stop_after_three(self):
        tick(self)
        self.stop = self.at.total >= 3

    monkeypatch.setattr(Loop, "_tick", stop_after_three)
    result = train(micro, folders, tmp_path)
    assert result.exit_code == 1 and "has diverged" in result.output
    assert not (tmp_path / "checkpoint.pth").exists()
