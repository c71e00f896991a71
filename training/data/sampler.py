"""Which images each process sees, as a pure function of seed, epoch and position: resuming needs no stored state."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

Key = tuple[int, int, int]  # image index, epoch, position in the epoch's global order


class EpochSampler(Sampler[list[Key]]):
    """Batches of one process.

    Every process walks the same permutation; of each global batch of `batch * world` entries process r takes entries
    r, r + world, ... So the global batches do not depend on the number of processes.

    Args:
        length: images in the split.
        batch: images per process and step.
        shuffle: draw a permutation per epoch; otherwise in order.
        repeats: copies of each image in a row (repeated augmentation): with 3 copies the processes of a global batch
            see different augmentations of one image, and the epoch keeps `length // 256 * 256` entries, as DeiT does.
        drop_last: leave out an incomplete last batch. Otherwise the last batch is smaller, and processes that get no
            image of it have one batch less: for evaluation, where processes need not step together.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        *,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        repeats: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.length, self.batch, self.rank, self.world = length, batch, rank, world
        self.shuffle, self.seed, self.repeats, self.drop_last = shuffle, seed, repeats, drop_last
        self.epoch = 0
        self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Go to batch `start` of an epoch; the next iteration begins there."""
        self.epoch, self.start = epoch, start

    @property
    def entries(self) -> int:
        return self.length // 256 * 256 if self.repeats > 1 else self.length

    def __len__(self) -> int:
        """Batches per epoch."""
        whole = self.batch * self.world
        return self.entries // whole if self.drop_last else -(-self.entries // whole)

    def order(self) -> list[int]:
        """Image indices of the epoch for all processes together."""
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        permutation = torch.randperm(self.length, generator=generator)
        if self.repeats > 1:
            permutation = permutation.repeat_interleave(self.repeats)[: self.entries]
        return permutation.tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order()
        whole = self.batch * self.world
        for batch in range(self.start, len(self)):
            positions = range(batch * whole + self.rank, min((batch + 1) * whole, len(order)), self.world)
            if positions:
                yield [(order[position], self.epoch, position) for position in positions]
