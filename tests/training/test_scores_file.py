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


def test_pictures_belong_to_scores_beside_them(tmp_path):
    pictures = tmp_path / "images"
    scores_file.check(tmp_path / "scores_ss.json", pictures)
    (pictures / "pred").mkdir(parents=True)
    with pytest.raises(ExportError, match="is there already"):
        scores_file.check(tmp_path / "scores_ss.json", pictures)
    (tmp_path / "scores_old.json").write_text("{}")
    with pytest.raises(ExportError, match="is there already"):
        scores_file.check(tmp_path / "scores_ss.json", pictures)
    scores_file.write(tmp_path / "scores_ms.json", {})
    scores_file.check(tmp_path / "scores_ss.json", pictures)


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
    result = CliRunner().invoke(program.main, [*arguments, "--data", str(data), "--out", str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "was not written by this package" in result.output + str(result.stderr)
    assert (tmp_path / name).read_text() == mine
