"""One process or several: device, precision, and how gradients and weights are combined across processes."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ebwm.compat import require

__all__ = ["Distributed", "SingleProcess", "clip_gradients", "full_tensor", "process_group", "shard_like",
           "total_norm"]


class SingleProcess:
    """A world of one process."""

    rank, size = 0, 1

    def __init__(
        self,
        device: torch.device,  # to compute on
        precision: str = "32-true",  # or "bf16-mixed"
    ):
        self.device, self.precision = device, precision

    def setup(
        self,
        model: nn.Module,  # moved to the device, and wrapped or sharded for several processes
    ) -> None:
        """Prepare a model; `forward` and `backward` then use it."""
        model.to(self.device)

    def forward(
        self,
        job: Callable,  # uses the model
        *inputs: Any,  # arguments of the job
    ) -> Any:  # its result
        """Compute with the model's weights: a loss, a prediction."""
        with self.autocast():
            return job(*inputs)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Products of forward passes in the precision of the run."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else contextlib.nullcontext()

    def backward(
        self,
        job: Callable[..., Tensor],  # computes a loss
        *inputs: Any,  # arguments of the job
        last: bool = True,  # whether this is the last part of a batch: gradients are then averaged over processes
    ) -> Tensor:  # the loss, detached
        """Compute a loss and accumulate its gradients."""
        loss = self.forward(job, *inputs)
        loss.backward()
        return loss.detach()

    def mean(
        self,
        value: Tensor,  # of this process
    ) -> Tensor:
        """Mean over processes."""
        return value

    def gather(
        self,
        value: Any,  # of this process
    ) -> list[Any]:  # one for each process, on all of them
        """Values of all processes."""
        return [value]

    def broadcast(
        self,
        value: Any,  # of this process
    ) -> Any:
        """Value of the first process."""
        return value


class _Model(nn.Module):
    """A model whose forward pass runs any job: wrappers gather its weights there."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, job: Callable, *inputs: Any) -> Any:
        return job(*inputs)


class Distributed(SingleProcess):
    """Several processes started by torchrun, through Lightning Fabric."""

    def __init__(
        self,
        device: torch.device,  # its type is the accelerator
        precision: str = "32-true",  # or "bf16-mixed"
        strategy: str = "ddp",  # "ddp": each process has all weights | "fsdp": each has a shard (FSDP2)
    ):
        fabric = require("lightning_fabric", "training")
        strategies = require("lightning_fabric.strategies", "training")
        size = int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        self.sharded, self.module = strategy == "fsdp", None
        if self.sharded:
            chosen = strategies.ModelParallelStrategy(_shard, data_parallel_size=size, tensor_parallel_size=1)
        else:
            chosen = strategies.DDPStrategy(find_unused_parameters=False)
        # Fabric's mixed precision would round contexts and targets as well, so `forward` sets autocast.
        self.fabric = fabric.Fabric(
            accelerator=device.type, devices=local, num_nodes=size // local, strategy=chosen, precision="32-true")
        self.fabric.launch()
        super().__init__(self.fabric.device, precision)
        self.rank, self.size = self.fabric.global_rank, self.fabric.world_size

    def setup(self, model: nn.Module) -> None:
        model.to(self.device)
        scalars = [p for p in model.parameters() if not p.ndim and p.requires_grad]
        self.unsharded = scalars if self.sharded else []
        self.module = self.fabric.setup_module(_Model(model))

    def forward(self, job: Callable, *inputs: Any) -> Any:
        with self.autocast():
            return self.module(job, *inputs)

    def backward(self, job: Callable[..., Tensor], *inputs: Any, last: bool = True) -> Tensor:
        with self.fabric.no_backward_sync(self.module, enabled=not last):
            loss = self.forward(job, *inputs)
            self.fabric.backward(loss)
        if last:
            for weight in (p for p in self.unsharded if p.grad is not None):
                weight.grad = self.mean(weight.grad)
        return loss.detach()

    def mean(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.size

    def gather(self, value: Any) -> list[Any]:
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def shutdown(self) -> None:
        """Destroy the process group; the wrapped model is released first, which would otherwise deadlock."""
        self.module = None
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Shard all weights as one group, which inner gradients need whole; scalars cannot be sharded."""
    from torch.distributed.fsdp import fully_shard

    scalars = {p for p in module.parameters() if not p.ndim}
    return fully_shard(module, mesh=mesh["data_parallel"], ignored_params=scalars)


def full_tensor(
    tensor: Tensor,  # a weight, its gradient, or an optimiser's state of it; may be sharded
) -> Tensor:  # unsharded, on every process
    """Gather the shards of a tensor."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(
    value: Tensor,  # unsharded
    weight: Tensor,  # may be sharded
) -> Tensor:  # sharded as the weight is, of its device and type
    """Shard a tensor as another one."""
    value = value.to(weight.device, weight.dtype)
    if not hasattr(weight, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, weight.device_mesh, weight.placements)


def _by_sharding(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Unsharded and sharded tensors; torch's functions of several tensors do not take a mixture."""
    tensors = list(tensors)
    parts = [[t for t in tensors if hasattr(t, "full_tensor") == sharded] for sharded in (False, True)]
    return [part for part in parts if part]


def total_norm(
    tensors: Iterable[Tensor],  # some may be sharded
) -> Tensor:  # the same on every process
    """Norm of all entries together."""
    norms = [full_tensor(nn.utils.get_total_norm(part)) for part in _by_sharding(tensors)]
    if len(norms) < 2:
        return norms[0] if norms else torch.zeros(())
    return torch.stack(norms).norm()


def clip_gradients(
    weights: Iterable[Tensor],  # with gradients; some may be sharded
    largest: float,  # norm of all gradients together
) -> Tensor:  # their norm before clipping, the same on every process
    """Clip gradients by their norm, as `torch.nn.utils.clip_grad_norm_` does for tensors that are sharded alike."""
    weights = [p for p in weights if p.grad is not None]
    norm = total_norm(p.grad for p in weights)
    for part in _by_sharding(weights):
        nn.utils.clip_grads_with_norm_(part, largest, norm)
    return norm


@contextlib.contextmanager
def process_group(
    device: torch.device,  # to compute on
    precision: str = "32-true",  # or "bf16-mixed"
    strategy: str = "auto",  # "auto" and "ddp": each process has all weights | "fsdp": shards
) -> Iterator[SingleProcess]:  # the world of this process
    """The processes of a run: those started by torchrun, or this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SingleProcess(device, precision)
        return
    world = Distributed(device, precision, "fsdp" if strategy == "fsdp" else "ddp")
    try:
        yield world
    finally:
        world.shutdown()
