"""Arguments of public functions: the error names the argument, and near misses are neither rounded nor converted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner
from standin import StandIn

import cast_sdk
from cast_sdk import bundled
from cast_sdk.arguments import one_of, real, shown, whole
from cast_sdk.errors import InputError
from cast_sdk.export import export_onnx
from cast_sdk.models import create_model, load_model, save_native
from cast_sdk.models.checkpoints.layouts import save_official
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.commands.segment import main
from cast_sdk.runtime.output.recorder import Recorder, read_records


@pytest.mark.parametrize("value", [3, np.int32(3), np.uint8(3)])
def test_whole_numbers_pass(value):
    found = whole(value, "count", 1, 3)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [0, 4, 3.0, "3", b"3", True, None, [3], math.nan, np.arange(3), 2**70])
def test_what_is_no_such_whole_number_is_named(value):
    with pytest.raises(InputError, match=r"^count is .*, not a whole number from 1 to 3\.$"):
        whole(value, "count", 1, 3)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.25), 0])
def test_numbers_pass(value):
    assert real(value, "share", 0, 1) == float(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None, 1j, np.zeros(2)])
def test_what_is_no_such_number_is_named(value):
    with pytest.raises(InputError, match=r"^share is .*, not a number from 0 to 1\.$"):
        real(value, "share", 0, 1)


def test_a_bound_can_be_left_out():
    assert real(-1e300, "shift") == -1e300 and whole(2**70, "count", 1) == 2**70
    with pytest.raises(InputError, match=r"^rate is 0, not a number above 0\.$"):
        real(0, "rate", 0, above=True)


@pytest.mark.parametrize("value", ["cuda", 3, None, ["cpu"], np.zeros(0)])
def test_words_are_those_of_a_list(value):
    with pytest.raises(InputError, match=r"There is no device (?s:.)*choose one of auto, cpu"):
        one_of(value, "device", ("auto", "cpu"))


def test_values_are_shown_on_one_short_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert shown("a\nb") == "'a\\nb'" and shown(Broken()) == "a Broken"
    assert len(shown("x" * 500)) == 60 and "\n" not in shown(np.zeros((9, 9)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rt, seg: seg.labels("1"), "There is no level '1'"),
        (lambda rt, seg: seg.labels(1.0), r"There is no level 1\.0"),
        (lambda rt, seg: seg.labels(True), "There is no level True"),
        (lambda rt, seg: seg.mask(1, -1), "has no segment -1"),
        (lambda rt, seg: seg.class_name(-1), "class is -1"),
        (lambda rt, seg: seg.class_name(3), "class is 3"),
        (lambda rt, seg: seg.top(-1), "count is -1"),
        (lambda rt, seg: seg.top(level=0), "no level 0 of classes"),
        (lambda rt, seg: seg.plot("2"), "There is no level '2'"),
        (lambda rt, seg: seg.plot([]), "There is no level to draw"),
        (lambda rt, seg: seg.plot(1, alpha=2), "alpha is 2"),
        (lambda rt, seg: seg.hierarchy.children(1, 99), "segment is 99"),
        (lambda rt, seg: rt.stream("test://", workers=0), "workers is 0"),
        (lambda rt, seg: rt.stream("test://", in_flight=1.5), r"in_flight is 1\.5"),
        (lambda rt, seg: rt.stream("test://", stall_timeout=-1), "stall_timeout is -1"),
        (lambda rt, seg: rt.stream("test://", width=0), "width is 0"),
        (lambda rt, seg: rt.stream("test://", track=True, memory="10"), "memory is '10'"),
        (lambda rt, seg: rt.stream("file://clip.mp4"), "three slashes"),
        (lambda rt, seg: rt.segment_batch("photo.jpg"), "not a sequence of frames"),
        (lambda rt, seg: rt.segment_batch(np.zeros((8, 8, 3), np.uint8)), "one array of shape"),
        (lambda rt, seg: Runtime(5), "The model is 5"),
        (lambda rt, seg: Runtime(threads=1.5), r"threads is 1\.5"),
        (lambda rt, seg: Runtime(threads=0), "threads is 0"),
        (lambda rt, seg: Runtime(spinning="no"), "spinning is 'no'"),
        (lambda rt, seg: Runtime(device=["cpu"]), "There is no device"),
        (lambda rt, seg: create_model("cast_tiny", std=(0, 0, 0)), r"std is 0\.0"),
        (lambda rt, seg: create_model("cast_tiny", num_heads=0), "num_heads is 0"),
        (lambda rt, seg: create_model("cast_tiny", num_heads=5), "a width of 192 and 5 heads"),
        (lambda rt, seg: create_model("cast_tiny", depths="1111"), "depths is '1111', not a list"),
        (lambda rt, seg: create_model("cast_tiny", depths=(1, 1)), r"depths \[1, 1\]"),
        (lambda rt, seg: create_model("cast_tiny", image_size=99), "99 pixels cannot be divided"),
        (lambda rt, seg: create_model(5), "Unknown model 5"),
    ],
)
def test_the_argument_is_named(call, words):
    with StandIn() as rt, pytest.raises(InputError, match=words):
        call(rt, rt.segment(np.zeros((48, 64, 3), np.uint8)))


def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    result = CliRunner().invoke(main, [""])
    assert result.exit_code == 1 and "An empty name was given" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("value", [5, b"a.png", None, 1.5, True, ["a"], object()])
def test_what_is_no_path_is_named(value, tmp_path, monkeypatch):
    """Every public function that takes a path."""
    monkeypatch.chdir(tmp_path)
    model = create_model("cast_tiny", embed_dim=32, depths=(1, 1, 1, 1), num_heads=2, clusters=(8, 4, 3, 2))
    with Runtime() as runtime:
        result = runtime.segment(bundled.photos()[0])
    graph = bundled.path(bundled.MODEL)
    for act in (
        lambda: result.save(value),
        lambda: result.save_as(value, "coco", 1),
        lambda: Recorder(value),
        lambda: read_records(value),
        lambda: save_native(model, value),
        lambda: save_official(model, value, kind="plain"),
        lambda: model.save_pretrained(value),
        lambda: load_model(value),
        lambda: export_onnx(model, value, verify=False),
        lambda: cast_sdk.build_engine(value, "x.engine"),
        lambda: cast_sdk.build_engine(graph, value),
    ):
        with pytest.raises(InputError, match="which is no path"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layout_is_named(tmp_path):
    model = create_model("cast_tiny", embed_dim=32, depths=(1, 1, 1, 1), num_heads=2, clusters=(8, 4, 3, 2))
    with pytest.raises(InputError, match="no layout 'pretrain'"):
        save_official(model, tmp_path / "a.pth", kind="pretrain")
