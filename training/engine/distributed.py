"""One process or many: torchrun's or SLURM's environment, DDP and batch statistics over all processes.

world = start()                       # NCCL on GPUs, Gloo on CPUs; a single process without torchrun
model = world.wrap(model, sync_bn=recipe.train.sync_bn)
mean = world.mean(tensor); world.main  # True on rank 0
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Torch imports this module sooner or later, and its functions take the process group of that moment as their default
# argument. Here there is none yet. A group kept by it would keep Gloo's threads beyond the end of the interpreter,
# and one that then asks for the GIL aborts the process.
import torch.distributed.nn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cast_sdk.errors import RecipeError
from cast_sdk.system.processor import available_cores

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        return self.rank == 0

    def per_process(self, batch: int, accumulation: int = 1) -> int:
        """Images per process and forward pass of a global batch.

        Raises:
            RecipeError: when the batch does not divide.
        """
        parts = self.size * accumulation
        if batch % parts:
            raise RecipeError(
                f"train.batch is {batch}, which does not divide by {parts}.",
                found=f"batch {batch} over {self.size} processes x {accumulation} accumulated steps",
                remedy=f"--set train.batch={max(batch // parts, 1) * parts}",
            )
        return batch // parts

    def wrap(self, model: nn.Module, sync_bn: bool = False) -> nn.Module:
        """DDP around the model when there are several processes; statistics over all of them with `sync_bn`."""
        if self.size == 1:
            return model
        if sync_bn:
            model = synchronise_batch_norm(model, self.device)
        ids = [self.local_rank] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        return self.sum(value) / self.size

    def from_main(self, value: Any) -> Any:
        """A picklable object of rank 0, on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """A picklable object of every process, in the order of the ranks, on every process."""
        if self.size == 1:
            return [value]
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return parts

    def decided_by_main(self, decide: Callable[[], Value]) -> Value:
        """What rank 0 decides, on every process; tensors in it come one by one, and lie on the CPU.

        An error of rank 0 is raised everywhere, so that nobody waits for a process that has given up.
        """
        if self.size == 1:
            return decide()
        skeleton: Any = None
        tensors: list[Tensor] = []
        error: Exception | None = None
        if self.main:
            try:
                skeleton, tensors = without_tensors(decide())
            except Exception as failure:  # whatever it is, the others must hear of it
                error = failure
        skeleton, shapes, error = self.from_main((skeleton, [(one.shape, one.dtype) for one in tensors], error))
        if error is not None:
            raise error
        received = []
        for number, (shape, dtype) in enumerate(shapes):
            tensor = tensors[number].contiguous() if self.main else torch.empty(shape, dtype=dtype)
            shared = tensor.to(self.device)
            dist.broadcast(shared, src=0)
            received.append(shared.cpu())
        return with_tensors(skeleton, received)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def finish(self) -> None:
        """Leave the process group and end its threads. Models of `wrap` must be out of use."""
        if self.size > 1 and dist.is_initialized():
            gc.collect()  # DDP holds the group in reference cycles
            dist.destroy_process_group()


@dataclass(frozen=True)
class _Slot:
    """Where a tensor was."""

    number: int


def without_tensors(value: Any) -> tuple[Any, list[Tensor]]:
    """Nested dicts, lists and tuples with a slot for each tensor, and the tensors."""
    tensors: list[Tensor] = []

    def walk(part: Any) -> Any:
        if isinstance(part, Tensor):
            tensors.append(part.detach())
            return _Slot(len(tensors) - 1)
        if isinstance(part, dict):
            return {key: walk(item) for key, item in part.items()}
        return type(part)(walk(item) for item in part) if type(part) in (list, tuple) else part

    return walk(value), tensors


def with_tensors(value: Any, tensors: list[Tensor]) -> Any:
    """The inverse of `without_tensors`."""
    if isinstance(value, _Slot):
        return tensors[value.number]
    if isinstance(value, dict):
        return {key: with_tensors(item, tensors) for key, item in value.items()}
    return type(value)(with_tensors(item, tensors) for item in value) if type(value) in (list, tuple) else value


def has_gpu(device: str) -> bool:
    """Whether a `device` "auto", "cpu" or "cuda" is a GPU.

    It is not opened: that is left to the programs, as some GPUs take one process at a time.

    Raises:
        RecipeError: there is none for "cuda".
    """
    found = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not found:
        raise RecipeError("There is no CUDA GPU for --device cuda.", remedy="--device cpu")
    return found


def start(device: str = "auto") -> World:
    """Join the process group of torchrun or of srun, or stay alone. `device`: "auto", "cpu" or "cuda"."""
    os.environ.update(slurm_environment(os.environ))
    device = "cuda" if has_gpu(device) else "cpu"
    size, rank, local = (int(os.environ.get(key, default)) for key, default in _ENVIRONMENT)
    where = torch.device("cuda", local % max(1, torch.cuda.device_count())) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(where)
    else:
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if "OMP_NUM_THREADS" not in os.environ or local_size > 1:
            torch.set_num_threads(max(1, available_cores() // local_size))
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return World(rank, size, local, where)


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for a task of srun; none outside of a step of several tasks, and where they are set already.

    The tasks of one node are numbered by SLURM_LOCALID, all meet on the first node of the step, and the port comes from
    the numbers of the job and of the step. A task that sees only its own GPU takes that one.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" in environment or not tasks.isdigit() or int(tasks) < 2 or "SLURM_PROCID" not in environment:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
    here = int(environment.get("SLURM_NODEID", "0"))
    found = {
        "WORLD_SIZE": tasks,
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", tasks))[here]),
        "MASTER_ADDR": first_host(nodes),
        "MASTER_PORT": str(20000 + (int(environment.get("SLURM_JOB_ID", "0")) + 997 * _step(environment)) % 20000),
    }
    return {name: environment.get(name, value) for name, value in found.items()}


def _step(environment: Mapping[str, str]) -> int:
    """The number of a step: steps of one job may run at the same time on one node."""
    step = environment.get("SLURM_STEP_ID", "0")
    return int(step) if step.isdigit() else 0


def first_host(nodes: str) -> str:
    """The first name of SLURM's list: "n[07-12,3],m1" gives "n07"."""
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes


def tasks_per_node(text: str) -> list[int]:
    """SLURM's "2(x3),1" as [2, 2, 2, 1]."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


_ENVIRONMENT = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every BatchNorm use the statistics of the global batch. Keys stay the same."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.forward = _SyncForward(module)  # type: ignore[method-assign, assignment]
    return model


class _AllReduce(torch.autograd.Function):
    """Sum over all processes; so is its gradient, as every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _SyncForward:
    """Forward of a BatchNorm over all processes for CPUs, where torch's SyncBatchNorm does not run."""

    def __init__(self, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        bn = self.module
        if not bn.training:
            return type(bn).forward(bn, x)
        values = x if x.dtype == torch.float64 else x.float()
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        ones = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _AllReduce.apply(torch.cat([values.sum(axes), ones]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = _AllReduce.apply(centred.square().sum(axes)) / count
        if bn.track_running_stats:
            with torch.no_grad():
                momentum = bn.momentum if bn.momentum is not None else 0.1
                bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
                bn.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
                bn.running_var.lerp_(variance * count / (count - 1), momentum)  # type: ignore[union-attr]
        out = centred * (variance + bn.eps).rsqrt().view(shape)
        if bn.affine:
            out = out * bn.weight.view(shape) + bn.bias.view(shape)
        return out.to(x.dtype)
