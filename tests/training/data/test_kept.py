"""Decoded images that stay in memory."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from cast_sdk.training.data.kept import Kept


def images(count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randint(0, 256, (4 + at, 6, 3), dtype=torch.uint8, generator=generator).permute(2, 0, 1)
        for at in range(count)
    ]
    made[2] = torch.empty(0)  # one that cannot be read
    return made


def test_what_was_kept_comes_back():
    kept = Kept(iter(images()))
    assert len(kept) == 5 and not kept[2].numel()
    for at, image in enumerate(images()):
        assert torch.equal(kept[at], image) and kept[at].stride() == image.stride()
    with pytest.raises(IndexError):
        kept[5]
    again = pickle.loads(pickle.dumps(kept))
    assert torch.equal(again[4], kept[4])


class Numbers(Dataset):
    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> int:
        return int(self.kept[index].sum())


def test_many_images_reach_a_worker_with_few_open_files():
    resource = pytest.importorskip("resource", reason="limits of open files as POSIX has them")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = Kept(torch.full((3, 1, 1), at % 256, dtype=torch.uint8) for at in range(1500))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, limits[1]), limits[1]))
    try:
        loader = DataLoader(Numbers(kept), batch_size=500, num_workers=1, multiprocessing_context="forkserver")
        found = torch.cat(list(loader))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found.tolist() == [3 * (at % 256) for at in range(1500)]
