"""Many names in two arrays: worker processes share them, where a list of strings is pickled for and copied by each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor


class Texts(Sequence[str]):
    """Strings, such as paths, that do not change. File names that are not UTF-8 stay what they are."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode(errors="surrogateescape") for text in texts]
        self.ends = shared(np.cumsum([len(one) for one in encoded], dtype=np.int64))
        self.bytes = shared(np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        start = int(self.ends[at - 1]) if at else 0
        return self.bytes[start : int(self.ends[at])].numpy().tobytes().decode(errors="surrogateescape")


def shared(values: np.ndarray) -> Tensor:
    """An array in memory that worker processes see without a copy."""
    return torch.from_numpy(values.copy()).share_memory_()
