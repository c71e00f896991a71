"""Data of strangers becomes a dataclass only when every field is of its type and in its range."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import pytest

from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError


@dataclasses.dataclass(frozen=True)
class Inner:
    count: int = 3
    sure: bool = False


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    sizes: tuple[int, ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kind: Literal["a", "b"] = "a"
    batch: int | None = None
    rate: float = 0.5
    inner: Inner = dataclasses.field(default_factory=Inner)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


GOOD = {"name": "x", "sizes": [1, 2], "mean": [0, 0.5, 1], "batch": None, "inner": {"count": 4}, "extra": {"a": [1]}}


def outer(**changes: Any) -> Outer:
    data = json.loads(json.dumps({**GOOD, **changes}))
    return build(
        Outer, data, "the record", {"count": (1, 10), "sizes": (0, 5), "sizes[]": (1, 3)}, remedy="make it again"
    )


def test_good_data():
    assert outer() == Outer("x", (1, 2), (0.0, 0.5, 1.0), inner=Inner(4), extra={"a": [1]})
    assert outer(batch=3).batch == 3 and isinstance(outer(rate=1).rate, float)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"name": 5}, "name is 5, not text"),
        ({"name": None}, "name is None, not text"),
        ({"sizes": 5}, "sizes is 5, not a list"),
        ({"sizes": ["1"]}, "sizes is '1', not a whole number"),
        ({"sizes": [True]}, "sizes is True, not a whole number"),
        ({"sizes": [1.0]}, "not a whole number"),
        ({"sizes": []}, "length of sizes is 0"),
        ({"sizes": [1, 2, 3, 4]}, "length of sizes is 4"),
        ({"sizes": [9]}, "sizes is 9, outside of 0 to 5"),
        ({"mean": [1, 2]}, "mean has 2 entries, not 3"),
        ({"kind": "c"}, "not one of 'a', 'b'"),
        ({"kind": ["a"]}, "not one of"),
        ({"batch": "1"}, "batch is '1', not a whole number"),
        ({"rate": "fast"}, "rate is 'fast', not a number"),
        ({"rate": 10**400}, "not a number"),
        ({"inner": 3}, "inner is not an object"),
        ({"inner": {"count": 11}}, "inner.count is 11, outside of 1 to 10"),
        ({"inner": {"coumt": 1}}, "'inner.coumt' is unknown; the nearest known one is 'count'"),
        ({"inner": {"sure": 1}}, "inner.sure is 1, not true or false"),
        ({"extra": []}, "extra is [], not an object"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], words: str):
    with pytest.raises(ArtifactError) as caught:
        outer(**changes)
    assert words in caught.value.problem and caught.value.problem.startswith("The record cannot be used")
    assert caught.value.remedy == "make it again"


@pytest.mark.parametrize("data", [None, 5, [], "text", {"sizes": [1]}])
def test_what_is_no_object_or_lacks_a_field(data: object):
    with pytest.raises(ArtifactError):
        build(Outer, data, "the record", remedy="")


def test_numbers_that_are_none():
    with pytest.raises(ArtifactError, match="rate is nan"):
        build(Outer, json.loads('{"name": "x", "sizes": [1], "rate": NaN}'), "the record", remedy="")
