"""Top-1 and top-5 of a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cast_sdk.training.distributed import World


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A loader's batch as normalised images, superpixels and targets on the device."""
    import torch

    from cast_sdk.training.data.transforms import normalise

    images, superpixels, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    images = normalise(images)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, superpixels, targets


def accuracy(
    model: nn.Module, views: Any, world: World, batch: int, *, precision: str = "fp32", workers: int = 0
) -> dict[str, float]:
    """Top-1 and top-5 in percent and the mean cross entropy over all images, shared among the processes."""
    import torch
    import torch.nn.functional as F

    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.loop import DTYPES

    sampler = EpochSampler(len(views), batch, rank=world.rank, world=world.size, shuffle=False, drop_last=False)
    device = world.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    mode = model.training
    model.eval()
    with torch.no_grad():
        for packed in loader(views, sampler, workers):
            images, superpixels, targets = to_device(packed, device)
            with torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES):
                logits = model(images, superpixels, num_superpixels=views.count(superpixels)).logits.float()
            hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
            loss = F.cross_entropy(logits, targets, reduction="sum")
            sums += torch.stack(
                [hits[:, :1].sum(), hits.sum(), loss, torch.tensor(len(images), device=device)]
            ).double()
    model.train(mode)
    top1, top5, loss, total = world.sum(sums).tolist()
    return {"top1": 100 * top1 / total, "top5": 100 * top5 / total, "loss": loss / total}
