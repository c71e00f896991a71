"""Parameter groups and optimizers of the recipes.

optimizer = build_optimizer(model, recipe.optimizer, lr)
scale_lr(optimizer, factor)  # each group keeps its own `base_lr`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe.settings import Optimizer

Named = Iterable[tuple[str, nn.Parameter]]
NO_DECAY_NAMES = ("pos_embed", "cls_token", "dist_token")


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Distinct parameters with gradients, by their first name (blocks have two)."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def decay_groups(named: Named, weight_decay: float, rule: str) -> list[dict[str, Any]]:
    """Groups for weight decay.

    Args:
        named: (name, parameter) pairs.
        rule: "all": one group, decay on every tensor (MoCo-v3); "timm": none for tensors of at most one dimension,
            biases, `pos_embed` and `cls_token` (DeiT).
    """
    named = list(named)
    if rule == "all":
        return [{"params": [parameter for _, parameter in named], "weight_decay": weight_decay}]

    def spared(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim <= 1 or name.endswith(".bias") or name.rpartition(".")[2] in NO_DECAY_NAMES

    plain = [parameter for name, parameter in named if spared(name, parameter)]
    decayed = [parameter for name, parameter in named if not spared(name, parameter)]
    return [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


# From the image to the head; parameters' names begin with one of them. What has none of these names comes first.
DEPTHS = ("", "blocks1", "pool1", "blocks2", "pool2", "blocks3", "pool3", "blocks4", "pool4", "norm", "head")
AFTER = ("block_fusion", "decoder", "further")  # of a Segmenter and of FurtherClasses, at the place of the head


def layer_groups(
    model: nn.Module, weight_decay: float, rule: str, lr: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups whose learning rates fall towards the image: `lr * layer_decay^d`, d stages before the head.

    The stages are the patch embedding, each stage's blocks, each pooling, the last norm and the head.

    Args:
        model: with blocks in four stages.
        weight_decay: see `decay_groups`.
        rule: see `decay_groups`.
        lr: of the head.
        layer_decay: 1 gives every stage the same rate.

    Raises:
        RecipeError: for a model without such stages.
    """
    depth: dict[int, int] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):  # blocks have a second name, by stage
        name = name.removeprefix("encoder.")
        place = max(at for at, start in enumerate(DEPTHS) if name.startswith(start))
        place = len(DEPTHS) - 1 if name.startswith(AFTER) else place
        depth[id(parameter)] = max(place, depth.get(id(parameter), 0))
    if DEPTHS.index("blocks1") not in depth.values():
        raise RecipeError(
            f"optimizer.layer_decay is {layer_decay}, and the model has no stages.",
            remedy="--set optimizer.layer_decay=1",
        )
    stages: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable(model):
        stages.setdefault(depth[id(parameter)], []).append((name, parameter))
    return [
        {**group, "lr": lr * layer_decay ** (len(DEPTHS) - 1 - stage)}
        for stage in sorted(stages)
        for group in decay_groups(stages[stage], weight_decay, rule)
        if group["params"]
    ]


def build_optimizer(model: nn.Module, config: Optimizer, lr: float) -> torch.optim.Optimizer:
    """The optimizer of a recipe at learning rate `lr` (after linear scaling).

    "muon" updates the matrices inside blocks and poolings by orthogonalised momentum and everything else by AdamW.
    """
    if config.layer_decay == 1:
        groups = decay_groups(trainable(model), config.weight_decay, config.decay_rule)
    else:
        groups = layer_groups(model, config.weight_decay, config.decay_rule, lr, config.layer_decay)
    optimizer: torch.optim.Optimizer
    if config.name == "adamw":
        fused = all(parameter.device.type in ("cpu", "cuda") for _, parameter in trainable(model))
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=fused)
    elif config.name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov)
    elif config.name == "muon":
        optimizer = MuonAdamW(list(trainable(model)), config, lr)
    else:
        raise RecipeError(f"There is no optimizer {config.name!r}.", remedy="--set optimizer.name=adamw (or sgd, muon)")
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
    return optimizer


def scale_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to `factor` times its own base rate."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon for hidden matrices and AdamW for the rest, behind one optimizer interface."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], config: Optimizer, lr: float) -> None:
        def hidden(name: str, parameter: nn.Parameter) -> bool:
            return parameter.ndim == 2 and ("blocks" in name or "pool" in name)

        matrices = [parameter for name, parameter in named if hidden(name, parameter)]
        rest = [(name, parameter) for name, parameter in named if not hidden(name, parameter)]
        self.muon = torch.optim.Muon(
            matrices, lr=config.muon_lr, weight_decay=config.weight_decay, momentum=config.muon_momentum
        )
        groups = decay_groups(rest, config.weight_decay, config.decay_rule)
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._link()

    def _link(self) -> None:
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]
        for group in self.param_groups:
            group.setdefault("base_lr", group["lr"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.muon.step()
        self.adamw.step()
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
        self._link()
