"""MoCo-v3: base encoder, momentum encoder and predictor."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.models.base import Model
from cast_sdk.models.building import build
from cast_sdk.models.cast import projector
from cast_sdk.models.sampling import Sampler
from cast_sdk.spec import ModelSpec


class MoCo(Model):
    """Two copies of an encoder with a projector head, and a predictor on the base side.

    The loss of one call is ctr(q1, k2) + ctr(q2, k1) with ctr(q, k) = 2 T * cross-entropy of q k^T / T against the own
    row (MoCo-v3, Chen et al. 2021); keys are gathered from all processes.
    """

    def __init__(self, spec: ModelSpec, temperature: float = 0.2, sampler: Sampler = "float64") -> None:
        super().__init__(spec)
        self.temperature = temperature
        self.base_encoder = build(spec, sampler)
        self.momentum_encoder = build(spec, sampler)
        hidden, out = spec.head_dims
        for encoder in (self.base_encoder, self.momentum_encoder):
            # Published checkpoints list the projector last: there it replaced the encoder's first head.
            encoder._modules["head"] = encoder._modules.pop("head")
        self.predictor = projector(out, hidden, out, layers=2)
        self.copy_base()

    def initialise(self) -> MoCo:
        self.base_encoder.initialise()
        self.copy_base()
        return self

    def copy_base(self) -> None:
        """Start the momentum encoder at the base encoder's parameters, without gradient."""
        pairs = zip(self.base_encoder.parameters(), self.momentum_encoder.parameters(), strict=True)
        for base, momentum in pairs:
            momentum.data.copy_(base.data)
            momentum.requires_grad_(False)

    @torch.no_grad()
    def update_momentum(self, momentum: float) -> None:
        """p_m <- m p_m + (1 - m) p_b over parameters; BatchNorm statistics are the momentum encoder's own."""
        pairs = zip(self.base_encoder.parameters(), self.momentum_encoder.parameters(), strict=True)
        for base, slow in pairs:
            slow.mul_(momentum).add_(base.detach(), alpha=1 - momentum)

    def forward(
        self,
        views: tuple[Tensor, Tensor],
        superpixels: tuple[Tensor, Tensor],
        momentum: float,
        num_superpixels: int | Literal["batch"] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and the vectors it came from: z1, z2 (projector), q1, q2 (predictor), k1, k2 (momentum).

        Args:
            views: two normalised image batches [N,3,H,W]; superpixels: their label maps [N,H,W].
            momentum: m of this step.
        """
        z = [self.base_encoder(x, s, num_superpixels).logits for x, s in zip(views, superpixels, strict=True)]
        q = [self.predictor(features) for features in z]
        with torch.no_grad():
            self.update_momentum(momentum)
            k = [self.momentum_encoder(x, s, num_superpixels).logits for x, s in zip(views, superpixels, strict=True)]
        loss = contrast(q[0], k[1], self.temperature) + contrast(q[1], k[0], self.temperature)
        return loss, {"z1": z[0], "z2": z[1], "q1": q[0], "q2": q[1], "k1": k[0], "k2": k[1]}


def contrast(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """2 T * mean cross-entropy of unit-normalised q [N,D] against unit-normalised keys of all processes."""
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    rank = 0
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        rank = dist.get_rank()
        gathered = [torch.empty_like(k) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, k.contiguous())
        k = torch.cat(gathered)
    logits = q @ k.T / temperature
    target = torch.arange(q.shape[0], device=q.device) + rank * q.shape[0]
    return 2 * temperature * F.cross_entropy(logits, target)
