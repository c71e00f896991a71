"""What made the files of a folder: copies of the data are the same, other files are not, and foreign folders stay."""

import os

import pytest

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine import provenance


def test_a_copy_of_the_data_is_the_same_and_another_folder_is_not(tmp_path):
    for name in ("one", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_text(name[:3].ljust(3))
        os.utime(tmp_path / name / "1.png", ns=(len(name), len(name)))
    of = provenance.of_files
    found = of([("val/1.png", tmp_path / "one" / "1.png")])
    assert found == of([("val/1.png", tmp_path / "copy" / "1.png")])
    assert found != of([("train/1.png", tmp_path / "one" / "1.png")])
    (tmp_path / "one" / "1.png").write_text("longer")
    assert found != of([("val/1.png", tmp_path / "one" / "1.png")])


def test_what_a_file_system_makes_is_no_result(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".snapshot").mkdir()
    provenance.keep(tmp_path, {"seed": 1})
    assert provenance.read(tmp_path / provenance.FILE) == {"seed": 1}
    (tmp_path / "result.npy").touch()
    provenance.keep(tmp_path, {"seed": 1})
    with pytest.raises(RecipeError, match="something else"):
        provenance.keep(tmp_path, {"seed": 2})


@pytest.mark.parametrize("seed", [1, 2])
def test_a_record_that_another_process_writes_at_this_moment(tmp_path, monkeypatch, seed):
    read, looks = provenance.read, []

    def late(file):
        found = read(file)
        if not looks:  # between this look and the one into the folder
            provenance.write(file, {"seed": seed})
            (tmp_path / "result.npy").touch()
        looks.append(file)
        return found

    monkeypatch.setattr(provenance, "read", late)
    if seed == 1:
        provenance.keep(tmp_path, {"seed": 1})
    else:
        with pytest.raises(RecipeError, match=r"something else(.|\n)*seed: 2 there, 1 now"):
            provenance.keep(tmp_path, {"seed": 1})
