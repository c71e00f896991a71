"""What the comparison of the two architectures lets pass: .ci/aarch64_labels.py, fed with results of this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import cast_sdk

SCRIPT = Path(__file__).parents[2] / ".ci" / "aarch64_labels.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not a checkout")


@pytest.fixture(scope="module")
def check():
    found = importlib.util.spec_from_file_location("aarch64_labels", SCRIPT)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.PHOTOS = 1
    module.DECIDED = 0.5  # of the one photograph's two frames, one may have a near tie
    return module


@pytest.fixture(scope="module")
def runtime():
    """Levels as assigned: what is changed in them here is then seen in the maps."""
    with cast_sdk.Runtime(threads=1, grouping="assigned") as opened:
        yield opened


@pytest.fixture(scope="module")
def measured(check, runtime):
    return check.measure(runtime)


@pytest.fixture
def copied(measured):
    return {name: array.copy() for name, array in measured.items()}


def test_this_machine_agrees_with_itself(check, runtime, copied):
    assert check.compare(copied, runtime) == []


def test_merged_levels_are_made_again_from_the_assignments(check):
    with cast_sdk.Runtime(threads=1) as merged:
        measured = check.measure(merged)
        assert check.compare(measured, merged) == []
        measured["astronaut whole/assignment2"] = measured["astronaut whole/assignment2"][::-1].copy()
        assert "astronaut whole: map 4" in check.compare(measured, merged)


def test_other_labels_are_an_error_where_they_are_no_near_tie(check, runtime, copied, capsys):
    copied["astronaut cut/level2"] = (copied["astronaut cut/level2"] + 1) % 16
    assert "astronaut cut: level 2" in check.compare(copied, runtime)
    count = runtime.info.num_superpixels
    assert f"level 2 differs in {count} superpixels, 0 in near ties" in capsys.readouterr().out


def test_other_labels_of_an_image_whose_sampling_is_a_near_tie_pass(check, runtime, copied, capsys, monkeypatch):
    """Where rounding alone decides the sampling, other labels pass; the maps must say the same."""

    def undecided(runtime, images):
        for sure in rounding(runtime, images):
            yield [each & False for each in sure]

    rounding = check.rounding
    monkeypatch.setattr(check, "rounding", undecided)
    monkeypatch.setattr(check, "DECIDED", 0.0)
    copied["astronaut whole/level4"] = (copied["astronaut whole/level4"] + 1) % 4
    assert check.compare(copied, runtime) == ["astronaut whole: map 4"]
    count = runtime.info.num_superpixels
    assert f"level 4 differs in {count} superpixels, {count} in near ties" in capsys.readouterr().out


def test_levels_that_do_not_nest_are_an_error(check, runtime, copied):
    labels = copied["astronaut whole/level4"]
    labels[0] = (labels[0] + 1) % 4
    assert any("do not nest" in wrong for wrong in check.compare(copied, runtime))


@pytest.mark.parametrize(
    ("name", "index", "said"),
    [
        ("astronaut cut/image", (5, 5, 0), "astronaut cut: the resized image"),
        ("astronaut cut/superpixels", (0, 0), "astronaut cut: superpixels"),
        ("astronaut cut/embedding", 3, "astronaut cut: embedding"),
        ("astronaut whole/map3", (9, 9), "astronaut whole: map 3"),
        ("astronaut whole/seeds 196 15 20", (7, 7), "astronaut whole/seeds 196 15 20"),
    ],
)
def test_every_stage_is_compared(check, runtime, copied, name, index, said):
    copied[name][index] += 1
    assert any(wrong.startswith(said) for wrong in check.compare(copied, runtime))


@pytest.mark.parametrize(("count", "by", "wrong"), [(4, 1, False), (1, 2, True), (40, 1, True)])
def test_few_pixels_may_be_off_by_one_where_opencv_averages(check, count, by, wrong):
    here = np.full((96, 96, 3), 100, np.uint8)
    there = here.copy()
    there.reshape(-1)[:count] += by
    assert bool(check.check_pixels("cat whole", here, there)) == wrong
    assert check.check_pixels("cat cut", here, there)
