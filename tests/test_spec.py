"""The model description: what travels, what old files lack, what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cast_sdk.errors import ArtifactError
from cast_sdk.models import model_spec
from cast_sdk.spec import ModelSpec


def test_calibration_travels():
    spec = dataclasses.replace(model_spec("cast_tiny"), temperature=1.3, unsure_below=0.45)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_descriptions_from_before_calibration_stay_readable():
    data = model_spec("cast_tiny").to_dict()
    del data["temperature"], data["unsure_below"]
    spec = ModelSpec.from_json(json.dumps(data))
    assert spec.temperature == 1.0 and spec.unsure_below == 0.0


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"temperature": float("inf")}, {"unsure_below": 1.2}, {"unsure_below": -0.1}]
)
def test_impossible_calibration_is_refused(change):
    data = {**model_spec("cast_tiny").to_dict(), **change}
    with pytest.raises(ArtifactError, match=r"temperature|unsure_below"):
        ModelSpec.from_dict(data)
