"""Files of scores, and who may replace them."""

import json

import pytest
from click.testing import CliRunner

from cast_sdk.errors import ExportError, InputError
from cast_sdk.training import parts, segment, voc
from cast_sdk.training.metrics import scores_file


def test_a_file_of_ours_is_replaced(tmp_path):
    file = tmp_path / "scores.json"
    scores_file.check(file)
    scores_file.write(file, {"mean_iou": 1.5, "iou": {"road": None}})
    assert scores_file.read(file) == {"mean_iou": 1.5, "iou": {"road": None}}
    scores_file.check(file)


@pytest.mark.parametrize("text", ['{"mean_iou": 3.0}', "[1]", "not json", ""])
def test_a_file_of_somebody_else_stays(tmp_path, text):
    file = tmp_path / "scores.json"
    file.write_text(text)
    with pytest.raises(InputError):
        scores_file.read(file)
    with pytest.raises(ExportError, match="not replaced"):
        scores_file.check(file)


def test_pictures_go_into_folders_of_ours(tmp_path):
    file, pictures = tmp_path / "scores.json", tmp_path / "results" / "val"
    pictures.mkdir(parents=True)
    scores_file.check(file, pictures)  # an empty one
    assert not list(pictures.iterdir())
    scores_file.mark(pictures)
    (pictures / "a.png").write_bytes(b"ours")
    scores_file.check(file, pictures)  # after an interruption: no scores yet
    foreign = tmp_path / "images"
    foreign.mkdir()
    (foreign / "a.png").write_bytes(b"mine")
    with pytest.raises(ExportError, match="is there already"):
        scores_file.check(file, foreign)
    scores_file.check(file)


@pytest.mark.parametrize(
    ("program", "arguments", "name"),
    [
        (parts, ["evaluate", "--segments", "s"], "scores.json"),
        (voc, ["evaluate", "--ckpt", "c.pth"], "scores.json"),
        (voc, ["retrieve", "--ckpt", "c.pth"], "scores.json"),
        (segment, ["evaluate", "--recipe", "camvid_cast_tiny", "--ckpt", "c.pth"], "scores_ss.json"),
        (segment, ["baselines", "--recipe", "camvid_cast_tiny"], "baselines.json"),
    ],
)
def test_programs_refuse_before_the_work(tmp_path, program, arguments, name):
    mine = json.dumps({"mean_iou": 3.0})
    (tmp_path / name).write_text(mine)
    data = tmp_path / "data"
    data.mkdir()
    command = [*arguments, "--data", str(data), "--out", str(tmp_path)]
    result = CliRunner().invoke(program.main, command)
    assert result.exit_code == 1, result.output
    assert "was not written by this package" in result.output + str(result.stderr)
    assert (tmp_path / name).read_text() == mine


@pytest.mark.parametrize(
    ("program", "arguments", "picture"),
    [
        (voc, ["evaluate", "--ckpt", "c.pth"], "results/val/semantic_gray/2008_000002.png"),
        (voc, ["retrieve", "--ckpt", "c.pth"], "results/val/semantic_color/2008_000002.png"),
        (
            segment,
            ["evaluate", "--recipe", "camvid_cast_tiny", "--ckpt", "c", "--save-images"],
            "images/pred/a.png",
        ),
    ],
)
def test_programs_leave_pictures_alone(tmp_path, program, arguments, picture):
    mine = tmp_path / picture
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    data = tmp_path / "data"
    data.mkdir()
    result = CliRunner().invoke(program.main, [*arguments, "--data", str(data), "--out", str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "is there already" in result.output + str(result.stderr)
    assert mine.read_bytes() == b"mine"
