"""Programs one after another within a time: what is kept, what is left out, what is tried again."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import pytest

from cast_sdk.training.engine.chain import Chain, Step


@dataclass(frozen=True)
class Script(Step):
    """A step that runs Python code in place of a program."""

    def command(self):
        return [sys.executable, "-c", *map(str, self.words)]


@pytest.fixture
def chain(tmp_path):
    def begin(seconds=600.0):
        said = []
        made = Chain(tmp_path / "steps.json", time.monotonic() + seconds, said.append)
        made.said = said
        return made

    return begin


def test_a_step_that_has_finished_is_not_run_again(chain, tmp_path):
    code = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print('[1]')"
    step = Script("one", "x", [code], read=lambda text: {"list": json.loads(text)})
    first, second = chain(), chain()
    first.run([step])
    assert first.finished["one"]["list"] == [1] and "supervised" not in first.finished["one"]["command"]
    again = chain()
    again.run([step])
    assert again.finished == first.finished and (tmp_path / "runs").read_text() == "x"
    second.run([step])  # begun before the record was there
    assert (tmp_path / "runs").read_text() == "xx"


def test_what_fails_is_named_and_tried_again(chain, tmp_path):
    half, switch = tmp_path / "half", tmp_path / "switch"
    code = f"import os,sys; open({str(half)!r}, 'x'); sys.exit(0 if os.path.exists({str(switch)!r}) else 3)"
    step, after = Script("one", "x", [code], writes=[half]), Script("two", "x", ["1"], after=["one"])
    first = chain()
    first.run([step, after])
    assert first.failed == {"one": "ended with exit code 3"} and first.left_out == {"two": "without one"}
    assert not (tmp_path / "steps.json").exists() and half.exists()
    switch.touch()
    second = chain()
    second.run([step])  # its half-written result is removed before
    assert list(second.finished) == ["one"] and not second.failed


@pytest.mark.parametrize("exit_code", [143, 0])
def test_what_takes_too_long_is_told_to_end_and_left_out_unless_it_was_done(chain, tmp_path, exit_code):
    ended = tmp_path / "ended"
    code = f"""import signal, sys, time
def end(*_):
    open({str(ended)!r}, "w").close()
    sys.exit({exit_code})
signal.signal(signal.SIGTERM, end)
open({str(tmp_path / "begun")!r}, "w").close()
time.sleep(600)"""
    made = chain(3)
    made.run([Script("slow", "x", [code])])
    heard = (tmp_path / "begun").exists()  # else the machine was too slow for it to hear of the end
    assert ended.exists() == heard
    if heard and exit_code == 0:
        assert list(made.finished) == ["slow"] and not made.left_out
    else:
        assert "the time was over" in made.left_out["slow"] and not made.finished
    made.end = time.monotonic() - 1
    made.run([Script("late", "x", ["1"])])
    assert made.left_out["late"] == "the time was over" and made.said[-1].startswith("late: left out")


def test_a_program_that_was_interrupted_has_not_finished(chain):
    made = chain()
    made.run([Script("one", "x", ["1"], gives=lambda: None)])
    assert made.left_out == {"one": "interrupted"} and not made.finished


def test_nothing_is_made_of_what_has_not_finished(chain, tmp_path):
    half = tmp_path / "half"  # a checkpoint of a training that goes on
    steps = [
        Script("training", "x", [f"open({str(half)!r}, 'w').close()"], gives=lambda: None),
        Script("weights", "x", ["1"], after=["training"], writes=[tmp_path / "weights"]),
        Script("scores", "x", ["1"], after=["weights"]),
    ]
    made = chain()
    made.run(steps)
    assert half.exists() and not made.finished and not (tmp_path / "steps.json").exists()
    assert made.left_out == {"training": "interrupted", "weights": "without training", "scores": "without weights"}


@pytest.mark.parametrize("ends", [True, False])
def test_what_was_made_of_a_result_ends_with_it(chain, tmp_path, ends):
    weights, record = tmp_path / "weights", tmp_path / "steps.json"
    weights.write_text("of another training")
    done = {name: {"seconds": 1} for name in ("data", "weights", "scores", "levels")}
    record.write_text(json.dumps({"steps": done}))
    seen = tmp_path / "seen"
    watch = f"import shutil; shutil.copy({str(record)!r}, {str(seen)!r})"  # what is left, should this one be killed
    steps = [
        Script("data", "x", ["1"]),
        Script("training", "x", [watch], after=["data"], gives=lambda: {} if ends else None),
        Script("weights", "x", [f"open({str(weights)!r}, 'x').write('new')"], after=["training"], writes=[weights]),
        Script("scores", "x", ["print(7)"], after=["weights"], read=lambda text: {"top1": int(text)}),
        Script("levels", "x", ["1"]),
    ]
    made = chain()
    made.run(steps)
    assert not made.failed and list(json.loads(seen.read_text())["steps"]) == ["data", "levels"]
    if ends:
        assert weights.read_text() == "new" and made.finished["scores"]["top1"] == 7 and not made.left_out
    else:
        assert not weights.exists() and list(made.finished) == ["data", "levels"]
        assert made.left_out == {"training": "interrupted", "weights": "without training", "scores": "without weights"}
    assert json.loads(record.read_text())["steps"] == made.finished


def test_steps_are_programs_of_this_package():
    command = Step("levels", "hierarchy", ["--limit", 3]).command()
    assert command == [sys.executable, "-m", "cast_sdk.training.hierarchy", "--limit", "3"]
