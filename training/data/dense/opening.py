"""A split of a dense data set by its name."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.errors import RecipeError
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.data.dense.base import DenseSplit


def open_split(data: str, root: Path, split: str, on_bad: OnBadImage = "error") -> DenseSplit:
    """A split of one of the data sets "ade20k", "pcontext", "voc" and "camvid".

    Raises:
        RecipeError: for another name or layout.
    """
    from cast_sdk.training.data.dense.ade20k import ade20k
    from cast_sdk.training.data.dense.camvid import camvid
    from cast_sdk.training.data.dense.pcontext import pcontext
    from cast_sdk.training.data.dense.voc import voc

    readers = {"ade20k": ade20k, "pcontext": pcontext, "voc": voc, "camvid": camvid}
    if data not in readers:
        raise RecipeError(
            f"There is no dense data set {data!r}.", remedy="--set dense.data=NAME, one of " + ", ".join(readers)
        )
    found = readers[data](root, split)
    found.on_bad = on_bad
    return found
