"""Reports: what their pictures and tables say of names, numbers and places."""

from __future__ import annotations

import json
import shlex
from html import unescape

import numpy as np
import pytest

from cast_sdk.training.data.dense.base import DenseSplit, Pair
from cast_sdk.training.metrics import saving
from cast_sdk.training.metrics.curve import draw_classification, span
from cast_sdk.training.metrics.dense_pictures import draw_examples, palette
from cast_sdk.training.metrics.saving import words
from cast_sdk.training.own.page import Page
from cast_sdk.training.own.pictures import draw_confusion


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, kept open."""
    drawn = []
    monkeypatch.setattr(saving.pyplot(), "close", drawn.append)
    yield drawn
    monkeypatch.undo()
    saving.pyplot().close("all")


def test_names_are_drawn_as_they_are():
    assert words("US$ and $") == r"US\$ and \$" and words("_background_") == " _background_"
    assert words("a long name", 7) == "a long…" and words("short", 7) == "short"


def test_the_end_of_a_command_line_can_be_copied(tmp_path):
    page = Page("mine")
    graph = tmp_path / 'my "runs"' / "model.onnx"
    page.how_to_use(graph, "seg.top(3)")
    text = unescape("".join(page.parts))
    line = next(line for line in text.replace("<pre>", "\n").splitlines() if "cast-segment" in line)
    assert shlex.split(line.replace("</pre>", ""))[3] == str(graph)
    assert f"Runtime({json.dumps(str(graph))})" in text


def test_numbers_stand_on_the_right_and_sentences_do_not():
    page = Page("mine")
    page.table((), [("a", 3, "78.3 %", "1,204", "78.3 % of 23 images", "2x")])
    assert page.parts[-1].count("<td class=n>") == 3


def test_an_axis_begins_at_0_only_where_the_values_rise_from_below():
    assert span([2.0, 40.0]) == (0.0, pytest.approx(47.6))
    low, high = span([71.0, 73.5, 76.0])
    assert 60 < low < 71 and 76 < high < 80
    assert span([100.0])[1] > 100 and span([]) == (0.0, 100.5)


def test_the_curve_has_a_line_for_the_start(tmp_path, figures):
    lines = [{"kind": "start", "recipe": {"train": {"batch": 4, "label_smoothing": 0.1}}}]
    lines += [{"kind": "step", "step": step, "loss": 1 / step} for step in (1, 2)]
    lines += [{"kind": "validation", "step": step, "top1": 70.0 + step, "ema_top1": 75.0} for step in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_classification(tmp_path, tmp_path / "curve.png", "$ birds $", 73.5)
    (figure,) = figures
    right = figure.axes[1]
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ["last weights", "averaged weights", "before fine-tuning"]
    assert right.get_ylim()[1] > 75 and (tmp_path / "curve.png").is_file()


def test_examples_have_their_files_and_every_class_in_the_legend(tmp_path, figures):
    split = DenseSplit([Pair("a", tmp_path / "a.jpg", tmp_path / "a.png")], ("_background_", "road $"))
    image, label = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    draw_examples([(image, label, label)], split, palette(split), tmp_path / "examples.jpg", ["a.jpg: 90 % right"])
    (figure,) = figures
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [" _background_", r"road \$"]
    assert "a.jpg: 90 % right" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.filterwarnings("error")
def test_letters_of_other_fonts_are_drawn(tmp_path, figures):
    """A letter that only another font of matplotlib has, and one that none has."""
    from matplotlib.font_manager import findfont, get_font

    own, other = (set(get_font(findfont(name)).get_charmap()) for name in ("DejaVu Sans", "STIXGeneral"))
    letter = chr(min(other - own))
    draw_confusion(np.diag([3, 4]), [letter, "\U0010fffd"], tmp_path / "confusion.png")
    (figure,) = figures
    assert len(figure.axes[0].get_yticklabels()[0].get_fontfamily()) > 1
    draw_confusion(np.diag([3, 4]), ["a", "b"], tmp_path / "plain.png")
    assert len(figures[1].axes[0].get_yticklabels()[0].get_fontfamily()) == 1
