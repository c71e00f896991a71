"""Finding a person's labelled images, splitting them, planning for them."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from own_data import blob, write_classes, write_image

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.models import model_spec
from cast_sdk.training.own.classes.labelled import TEST, TRAIN, VAL, find_labelled
from cast_sdk.training.own.classes.planning import Choices, plan_classification
from cast_sdk.training.own.images import look_at
from cast_sdk.training.own.run_folder import claim
from cast_sdk.training.own.splitting import copies, split_off


def test_class_folders_with_everything_that_lies_about(tmp_path):
    data = write_classes(tmp_path / "my birds", {"robin": 3, "great tit": 2})
    (data / "empty").mkdir()
    (data / ".git").mkdir()
    write_image(data / ".git" / "no.jpg", blob(0, 0))
    (data / "robin" / "._photo 00.jpg").write_bytes(b"x")
    (data / "__MACOSX").mkdir()
    write_image(data / "loose.jpg", blob(0, 0))
    write_image(data / "robin" / "deeper" / "photo 00.jpg", blob(0, 9))
    found = find_labelled(data)
    assert found.classes == ["great tit", "robin"] and np.bincount(found.labels).tolist() == [2, 4]
    assert found.split is None
    assert "class folders without images are left out (1): empty" in found.notes
    assert any("images beside the class folders are left out (1)" in note for note in found.notes)


def test_train_and_validation_folders(tmp_path):
    write_classes(tmp_path / "train", {"a": 2, "b": 2, "c": 2})
    write_classes(tmp_path / "valid", {"a": 1, "c": 1})
    found = find_labelled(tmp_path)
    assert found.split is not None and found.split.tolist().count(VAL) == 2
    assert found.classes == ["a", "b", "c"]
    assert set(found.labels[found.split == VAL].tolist()) == {0, 2}  # numbered by name, not by place
    write_classes(tmp_path / "valid", {"d": 1})
    with pytest.raises(InputError, match="1 classes of valid/ are not in train/: d"):
        find_labelled(tmp_path)


def test_a_table(tmp_path):
    write_classes(tmp_path, {"x": 3})
    table = tmp_path / "mine.csv"
    lines = ["path,class,split", 'x/photo 00.jpg,"cat, black",train', "x/photo 01.jpg,dog,train"]
    table.write_text("\n".join([*lines, "x/photo 02.jpg,dog,val", ""]))
    found = find_labelled(table)
    assert found.classes == ["cat, black", "dog"]
    assert found.split is not None and found.split.tolist() == [TRAIN, TRAIN, VAL]
    table.write_text("x/photo 00.jpg,cat\nx/photo 01.jpg,dog\n")
    assert len(find_labelled(table)) == 2  # without a header
    table.write_text("path,class\nx/gone.jpg,cat\n")
    with pytest.raises(InputError, match=r"1 images of .* do not exist, first x/gone\.jpg"):
        find_labelled(table)
    table.write_text("path;class\nx/photo 00.jpg;cat\n")
    with pytest.raises(InputError, match="commas, not semicolons"):
        find_labelled(table)
    table.write_text("path,class\nx/photo 00.jpg,cat\nx/photo 00.jpg,dog\n")
    with pytest.raises(InputError, match="names 1 images twice"):
        find_labelled(table)


def test_test_images_are_for_judging_only(tmp_path):
    folders = tmp_path / "folders"
    for split, classes in {"train": {"a": 3, "b": 2}, "val": {"a": 1, "b": 1}, "test": {"a": 2, "new": 1}}.items():
        write_classes(folders / split, classes)
    table = tmp_path / "table.csv"
    table.write_text(
        "".join(f"{p.relative_to(tmp_path)},{p.parts[-2]},{p.parts[-3]}\n" for p in folders.rglob("*.jpg"))
    )
    for data in (folders, table):
        trained, judged = find_labelled(data), find_labelled(data, judging=True)
        assert np.bincount(trained.split).tolist() == [5, 2] and trained.classes == ["a", "b"]
        assert any("test" in note and "not used in training" in note for note in trained.notes)
        assert np.bincount(judged.split).tolist() == [5, 2, 3] and judged.classes == ["a", "b", "new"]
        names = {judged.names[at] for at in np.flatnonzero(judged.split == TEST)}
        assert all("test/" in name for name in names) and not judged.notes
        assert sorted(judged.classes[at] for at in judged.labels[judged.split == TEST]) == ["a", "a", "new"]


def test_a_test_split_alone_can_be_judged(tmp_path):
    write_classes(tmp_path / "test", {"a": 2, "b": 1})
    found = find_labelled(tmp_path, judging=True)
    assert found.classes == ["a", "b"] and found.split.tolist() == [TEST] * 3
    with pytest.raises(InputError, match=r"only one class.*: test"):
        find_labelled(tmp_path)  # for training, "test" is the name of a class
    table = tmp_path / "t.csv"
    table.write_text("test/a/photo 00.jpg,a,test\n")
    assert find_labelled(table, least=1, judging=True).split.tolist() == [TEST]
    with pytest.raises(InputError, match="has no training image"):
        find_labelled(table)


def test_shards_of_a_test_split(tmp_path):
    write_classes(tmp_path, {"a": 1})
    jpeg = (tmp_path / "a" / "photo 00.jpg").read_bytes()
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    for split, count in (("train", 3), ("test", 2)):
        with tarfile.open(tmp_path / f"{split}-00.tar", "w") as shard:
            for number in range(count):
                for name, data in ((f"{number}.jpg", jpeg), (f"{number}.cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    assert find_labelled(tmp_path).split is None and len(find_labelled(tmp_path)) == 3
    assert find_labelled(tmp_path, judging=True).split.tolist() == [TRAIN] * 3 + [TEST] * 2
    (tmp_path / "train-00.tar").unlink()
    assert find_labelled(tmp_path, judging=True).split.tolist() == [TEST] * 2


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, {"train": 2, "bus": 2})
    (tmp_path / "backup.tar").write_bytes(b"no shard")
    assert find_labelled(tmp_path).classes == ["bus", "train"]


def test_one_class_or_none_is_refused(tmp_path):
    write_classes(tmp_path / "one", {"only": 3})
    with pytest.raises(InputError, match="There is only one class"):
        find_labelled(tmp_path / "one")
    write_image(tmp_path / "flat" / "a.jpg", blob(0, 0))
    with pytest.raises(InputError, match=r"(?s)no class folders.*1 images without a class"):
        find_labelled(tmp_path / "flat")
    with pytest.raises(InputError, match="does not exist"):
        find_labelled(tmp_path / "nowhere")


def test_unreadable_images_are_found_beforehand(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "broken.jpg").write_bytes((tmp_path / "a" / "photo 00.jpg").read_bytes()[:300])
    (tmp_path / "b" / "empty.jpg").write_bytes(b"")
    found = find_labelled(tmp_path)
    survey = look_at(found)
    assert sorted(found.names[at] for at in survey.bad) == ["a/broken.jpg", "b/empty.jpg"]
    assert survey.short_side == 48
    assert len(found.without(list(survey.bad))) == 4


def test_the_split_is_stratified_and_seeded():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    split = split_off(labels, 0.2, 0)
    judged = np.bincount(labels[split == VAL], minlength=4)
    assert judged.tolist() == [20, 2, 1, 0]  # never all of a class
    assert (split_off(labels, 0.2, 0) == split).all()
    assert (split_off(labels, 0.2, 1) != split).any()


def test_copies_stay_on_one_side():
    contents = [b"%d" % (number // 4) for number in range(80)]  # four copies of each
    groups = copies(contents)
    split = split_off(np.zeros(80, np.int64), 0.25, 3, groups)
    assert all(len(set(split[groups == group].tolist())) == 1 for group in np.unique(groups))
    assert 16 <= (split == VAL).sum() <= 24


def test_the_plan_follows_the_data_and_the_person():
    spec = model_spec("cast_tiny")
    few = plan_classification(spec, "bundled", np.repeat([0, 1], [30, 10]), 500, Choices())
    many = plan_classification(spec, "bundled", np.arange(8000) % 2, 500, Choices())
    assert few.recipe.schedule.epochs > many.recipe.schedule.epochs
    assert few.recipe.train.batch < many.recipe.train.batch
    assert few.recipe.train.class_balance == 1 and many.recipe.train.class_balance == 0
    assert any("10 to 30 training images" in line and "rare" in line for line in few.lines)
    asked = Choices(epochs=3, image_size=64, batch=4, lr=0.01, balance="no", overrides=("augment.flip=0",))
    own = plan_classification(spec, "bundled", np.repeat([0, 1], [30, 10]), 500, asked).recipe
    assert (own.schedule.epochs, own.augment.image_size, own.train.batch, own.optimizer.lr) == (3, 64, 4, 0.01)
    assert own.train.class_balance == 0 and own.augment.flip == 0
    assert own.augment.mixup > 0 and any("mixed in pairs" in line for line in few.lines)
    odd = plan_classification(spec, "bundled", np.repeat([0, 1], [30, 10]), 500, Choices(batch=5))
    assert odd.recipe.augment.mixup == 0 and not any("mixed" in line for line in odd.lines)
    with pytest.raises(RecipeError, match="both given"):
        plan_classification(
            spec, "bundled", np.array([0, 1]), 500, Choices(epochs=3, overrides=("schedule.minutes=2",))
        )
    with pytest.raises(InputError, match="not a multiple of 8"):
        plan_classification(spec, "bundled", np.array([0, 1]), 500, Choices(image_size=50))
    with pytest.raises(InputError, match="learned its positions"):
        plan_classification(model_spec("cast_deit_small"), "x.pth", np.array([0, 1]), 500, Choices(image_size=64))


def test_a_run_folder_is_never_mixed(tmp_path):
    made = {"program": "classify", "data": "a", "fingerprint": "1", "recipe": {"train": {"batch": 8}}}
    assert not claim(tmp_path / "new", made)
    assert claim(tmp_path / "new", made)
    assert not claim(tmp_path / "new", {**made, "data": "b"})  # nothing was trained yet
    assert not claim(tmp_path / "new", made)
    (tmp_path / "new" / "log.jsonl").touch()
    with pytest.raises(RecipeError, match=r"(?s)another run.*train\.batch: 8 there, 4 now"):
        claim(tmp_path / "new", {**made, "recipe": {"train": {"batch": 4}}})
    with pytest.raises(RecipeError, match="not the same any more"):
        claim(tmp_path / "new", {**made, "fingerprint": "2"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds other files"):
        claim(tmp_path / "full", made)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    for number, record in enumerate(['{"mine": 1}', "[1]", "{", '{"made_by": {}}']):  # of another program
        foreign = tmp_path / f"foreign{number}"
        foreign.mkdir()
        for name, text in (("run.json", record), ("split.csv", "precious"), ("report.html", "old")):
            (foreign / name).write_text(text)
        with pytest.raises(RecipeError, match="holds other files"):
            claim(foreign, made)
        assert (foreign / "run.json").read_text() == record and (foreign / "split.csv").read_text() == "precious"
    (tmp_path / "begun").mkdir()
    claim(tmp_path / "begun", made)
    (tmp_path / "begun" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="another run"):
        claim(tmp_path / "begun", {**made, "data": "b"})


def test_an_empty_validation_folder_is_told_and_a_split_made(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
    found = find_labelled(tmp_path)
    assert found.split is None and any("holds no images" in note for note in found.notes)


def test_a_table_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "birds.csv").write_bytes("blå.jpg,a\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"birds.csv is not text in UTF-8"):
        find_labelled(tmp_path / "birds.csv")
