"""Photographs that a teacher names: which are taken, and what the data set holds afterwards."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cast_sdk.training.data.prepare import photographs as ours
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.teacher import soft_labels
from cast_sdk.training.prepare_data import main

ALL = 6  # classes of the teacher
COLUMNS = [4, 1, 2]  # the data set's


def scene(seed: int, size: tuple[int, int] = (150, 200)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def by_blue(images):
    """A teacher that sees class 0 to 5 by the blue of the whole image, RGB."""
    scores = np.zeros((len(images), ALL), np.float32)
    for row, image in zip(scores, images, strict=True):
        row[int(image[:, :, 2].mean() * ALL / 256)] = 4
    return scores


def blue(level: int, seed: int = 0) -> np.ndarray:
    image = scene(seed)
    image[:, :, 0] = (level + 0.5) * 256 / ALL
    return image


def test_only_photographs_of_known_classes_are_named():
    seen = ours.judged([blue(4), blue(0), blue(2), blue(1)], by_blue, COLUMNS, 0.3)
    assert [one.label for one in seen] == [0, 2, 1]
    assert [one.scores.argmax() for one in seen] == [0, 2, 1]
    share = np.exp(4) / (np.exp(4) + ALL - 1)
    assert seen[0].probability == pytest.approx(share, rel=1e-5)
    assert not ours.judged([blue(4)], by_blue, COLUMNS, share + 0.001)
    kept = cv2.imdecode(np.frombuffer(seen[0].encoded, np.uint8), cv2.IMREAD_COLOR)
    assert kept.shape == (ours.PHOTO_SIDE, ours.PHOTO_SIDE, 3)


def test_a_part_is_asked_about_where_the_whole_is_not_named():
    def by_height(images):
        scores = np.zeros((len(images), ALL), np.float32)
        scores[np.arange(len(images)), [1 if image.shape[0] < 200 else 0 for image in images]] = 9
        return scores

    whole = [scene(1, (240, 320)), scene(2, (150, 160))]  # the second is named; 0.65 of the first is 156 pixels
    assert [one.label for one in ours.judged(whole, by_height, COLUMNS, 0.3)] == [1]
    assert [one.label for one in ours.judged(whole, by_height, COLUMNS, 0.3, parts=True)] == [1, 1]
    part = ours.part_of(whole[0], np.random.default_rng(3))
    assert part.shape == (156, 156, 3) and np.shares_memory(part, whole[0])
    assert not ours.judged([scene(3, (201, 160))], by_height, COLUMNS, 0.3, parts=True)  # 104 pixels are too few


def test_what_the_teacher_sees_less_surely_or_as_something_else_has_its_scores_and_the_likeliest_name():
    def scores(images):
        return np.array([[9, 3, 1, 0, 2, 0], [2.1, 2, 1, 0, 2.2, 0]], np.float32)[: len(images)]

    seen = ours.judged([scene(1), scene(2)], scores, COLUMNS, 0.5, others=True)
    assert [(one.named, one.label) for one in seen] == [(False, 1), (False, 0)]
    assert np.allclose([one.scores for one in seen], [[2, 3, 1, 9, 0, 0], [2.2, 2, 1, 2.1, 0, 0]], atol=1e-3)
    assert seen[0].probability < 0.01
    assert ours.judged([scene(1), scene(2)], scores, COLUMNS, 0.5) == []
    assert [one.named for one in ours.judged([scene(1), scene(2)], scores, COLUMNS, 0.2, others=True)] == [False, True]


def test_a_copy_is_known_by_its_whole_where_a_part_is_named():
    def small_ones(images):
        scores = np.zeros((len(images), ALL), np.float32)
        scores[:, 0] = [0 if image.shape[0] < 200 else 9 for image in images]
        scores[:, 1] = 5
        return scores

    tested = scene(1, (240, 320))
    (part,) = ours.judged([tested], small_ones, COLUMNS, 0.3, parts=True)
    assert ours.choose([part], 9, ours.print_of(tested)[None]) == []
    assert ours.choose([part], 9, ours.print_of(scene(2, (240, 320)))[None]) == [part]


def encoded_again(image, side, quality):
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def noisy_sky():
    even = np.tile(np.linspace(120, 200, 300)[:, None, None], (1, 400, 3))
    image = even + np.random.default_rng(0).normal(0, 4, even.shape)
    image[200:, :150] = 30
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("image", [scene(5, (300, 400)), noisy_sky()], ids=["scene", "sky"])
def test_a_print_survives_scaling_and_another_encoding(image):
    kept = ours.print_of(image)
    assert ours.alike(ours.print_of(encoded_again(image, 160, 90)), kept[None])
    assert ours.alike(ours.print_of(encoded_again(image, 100, 50)), kept[None])
    others = np.array([ours.print_of(scene(seed)) for seed in range(6, 30)])
    assert not ours.alike(kept, others)
    assert not ours.alike(kept, others[:0])


@pytest.mark.parametrize("side", [70, 90, 120])
def test_things_on_a_white_ground_are_told_apart(side):
    def on_white(seed):
        image = np.full((200, 200, 3), 255, np.uint8)
        at = (200 - side) // 2
        image[at : at + side, at : at + side] = scene(seed, (side, side))
        return ours.print_of(image)

    others = np.array([on_white(seed) for seed in range(20)])
    assert not ours.alike(on_white(20), others)
    assert ours.alike(on_white(7), others)


def one(seed, label, probability, likeliest=0):
    scores = np.eye(ALL, dtype=np.float16)[likeliest]
    return ours.Judged(True, probability, label, scores, ours.print_of(scene(seed)), b"")


def test_the_surest_are_chosen_without_copies():
    seen = [one(1, 0, 0.5), one(2, 0, 0.9), one(2, 0, 0.8), one(3, 0, 0.7), one(4, 1, 0.6), one(5, 1, 0.4)]
    none = np.empty((0, ours.PRINT), np.float32)
    assert [(one.label, one.probability) for one in ours.choose(seen, 2, none)] == [
        (0, 0.9), (0, 0.7), (1, 0.6), (1, 0.4)
    ]  # fmt: skip
    tests = np.array([ours.print_of(scene(4))])
    assert [one.probability for one in ours.choose(seen, 9, tests)] == [0.9, 0.7, 0.5, 0.4]


def test_any_are_taken_of_each_class_of_the_teacher_without_copies():
    seen = [
        one(seed, 0, 0.1, likeliest) for seed, likeliest in ((1, 5), (2, 5), (2, 5), (3, 5), (4, 3), (1, 3), (6, 0))
    ]
    tests = np.array([ours.print_of(scene(4))])
    taken = ours.assorted(seen, 9, tests)
    assert [int(one.scores.argmax()) for one in taken] == [0, 3, 5, 5, 5]
    assert len({one.print.tobytes() for one in taken}) == 4  # the scene under two classes is in both
    assert [int(one.scores.argmax()) for one in ours.assorted(seen, 1, tests)] == [0, 3, 5]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set of three classes with a teacher's scores: two thumbnails, one photograph, and one test image."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "classes.txt").write_text("n4\tfour\nn1\tone\nn2\ttwo\n")
    images = [(ours.jpeg(scene(90), 64), 0), (ours.jpeg(scene(91), 64), 2), (ours.jpeg(scene(92), 160), 1)]
    ours.write_images(folder / "train-00.tar", images)
    ours.write_images(folder / "imagenette-00.tar", [(ours.jpeg(blue(2, 7), 160), 2)])
    np.save(folder / soft_labels.FILE, np.arange(9).reshape(3, 3).astype(np.float16))
    (tmp_path / "teacher.onnx").write_bytes(b"")
    monkeypatch.setattr("timm.data.ImageNetInfo.label_names", lambda self: [f"n{n}" for n in range(ALL)])

    def open_teacher(path, columns, sides, threads):
        assert list(columns) == list(range(ALL)) and sides == (224, 224)
        return by_blue

    monkeypatch.setattr(ours, "open_teacher", open_teacher)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Five that are named, one of them a copy of a test image; one too small, one broken, one of no class."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, image in {
        "a": blue(4, 1), "b": blue(0, 2), "c": blue(1, 3), "d": blue(2, 7), "more/e": blue(1, 4), "more/f": blue(1, 5)
    }.items():  # fmt: skip
        cv2.imwrite(str(folder / f"{name}.png"), image)
    cv2.imwrite(str(folder / "small.png"), blue(4, 9)[:100])
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def run(data, photos, *more):
    arguments = ["photographs", "--data", data, "--teacher", data.parent / "teacher.onnx", "--images", photos, *more]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_and_scores_stay_in_one_order(data, photos, tmp_path):
    apart = tmp_path / "apart"
    apart.mkdir()
    cv2.imwrite(str(apart / "tested.jpg"), blue(1, 4))
    result = run(data, photos, "--apart", apart, "--thumbnails")
    assert result.exit_code == 0, result.output
    assert "left out because they cannot be read: 1, such as" in result.output
    assert "left out because a side has fewer than 120 pixels: 1, such as" in result.output
    assert "5 of 8 are named; 3 of them, of 2 classes, are taken" in result.output
    source = open_source(data, "train")
    # d is a copy of a test image and e one of --apart; the photograph that was there comes again, as a thumbnail
    assert source.labels.tolist() == [0, 2, 1, *[0, 1, 1] * 2, 1]
    scores = soft_labels.teacher_scores(data, source)
    assert scores[:3].tolist() == np.arange(9).reshape(3, 3).tolist()
    assert scores[3:9].argmax(1).tolist() == [0, 1, 1, 0, 1, 1] and scores[9].tolist() == [6, 7, 8]
    last = cv2.imdecode(np.frombuffer(source.read(9), np.uint8), cv2.IMREAD_COLOR)
    assert last.shape == (64, 64, 3)

    before = contents(data)
    again = run(data, photos)
    assert again.exit_code != 0 and "holds photographs already" in again.output and contents(data) == before


def test_options_reach_the_choice(data, photos):
    result = run(data, photos, "--most", "1", "--copies", "3")
    assert result.exit_code == 0, result.output
    assert open_source(data, "train").labels.tolist() == [0, 2, 1, *[0, 1] * 3]


def test_others_have_the_scores_of_all_classes_and_a_split_of_their_own(data, photos):
    result = run(data, photos, "--most", "1", "--copies", "3", "--others", "2")
    assert result.exit_code == 0, result.output
    assert "others-00.tar: 4 images" in result.output
    assert open_source(data, "train").labels.tolist() == [0, 2, 1, *[0, 1] * 3]
    # b (class 0 of the teacher), a (4) and two of class 1; d is a copy of a test image. The data's 4, 1, 2 come first.
    assert len(open_source(data, "others")) == 4
    scores = np.load(data / "others-teacher.npy")
    assert scores.shape == (4, ALL) and scores.argmax(1).tolist() == [0, 1, 1, 3]

    for name in ("others-00.tar", "others-teacher.npy"):
        (data / name).rename(data.parent / name)
    (data / "train-photographs.tar").unlink()
    for name in ("others-00.tar", "others-teacher.npy"):
        (data.parent / name).rename(data / name)
        before = contents(data)
        again = run(data, photos, "--others", "2")
        assert again.exit_code != 0 and f"holds photographs already ({name})" in again.output
        assert contents(data) == before
        (data / name).unlink()


@pytest.mark.parametrize(("options", "taken"), [((), 2), (("--parts",), 3)])
def test_parts_are_asked_about_on_request(data, photos, options, taken):
    half = blue(0, 6)
    half = np.vstack([half, half])  # its inner part is bluer than the whole
    half[120:180, 60:120, 0] = 255
    cv2.imwrite(str(photos / "half.png"), half)
    result = run(data, photos, *options, "--copies", "1", "--apart", photos.parent / "photos" / "more")
    assert result.exit_code == 0, result.output
    assert len(open_source(data, "train")) == 3 + taken


@pytest.mark.parametrize("options", [("--sure", "0.99"), ()])
def test_nothing_is_written_where_nothing_is_left(data, photos, options):
    for name in () if options else ("a", "c", "more/e", "more/f"):
        (photos / f"{name}.png").unlink()  # only the copy of a test image has a known class then
    before = contents(data)
    result = run(data, photos, *options)
    assert result.exit_code != 0 and "No photograph is left to train on" in result.output
    assert ("all of them copies" in result.output) == (not options)
    assert contents(data) == before


def test_an_interruption_leaves_what_was_there(data, photos, monkeypatch):
    before = contents(data)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ours.np, "save", full)
    result = run(data, photos, "--thumbnails")
    assert result.exit_code != 0 and contents(data) == before


@pytest.mark.parametrize("name", ["train-x.tar", "", None], ids=["behind", "folders", "no photographs"])
def test_what_cannot_be_added_to_is_refused_before_the_teacher_is_asked(data, photos, tmp_path, monkeypatch, name):
    monkeypatch.setattr(ours, "open_teacher", lambda *arguments: pytest.fail("asked"))
    expected = "There is no image to ask the teacher about"
    if name is None:
        photos = tmp_path / "empty"
        photos.mkdir()
    elif name:
        (data / name).write_bytes((data / "train-00.tar").read_bytes())
        expected = "would come behind the photographs"
    else:
        (data / "train-00.tar").unlink()
        expected = "has no shards of training images"
    before = contents(data)
    result = run(data, photos)
    assert result.exit_code != 0 and expected in result.output and contents(data) == before
