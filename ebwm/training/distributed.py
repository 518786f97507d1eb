"""One process or many: the device, the precision, and how gradients and weights of several processes meet."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ebwm.compat import require

__all__ = ["Alone", "Together", "clip", "full", "like", "norm_of", "processes"]


class Alone:
    """One process."""

    rank, ranks = 0, 1

    def __init__(
        self,
        device: torch.device,  # to compute on
        precision: str = "32-true",  # or "bf16-mixed"
    ):
        self.device, self.precision = device, precision

    def take(
        self,
        model: nn.Module,  # is moved to the device, and sharded or kept in step where there are several
    ) -> None:
        """Prepare a model; work on it goes through `work`."""
        model.to(self.device)

    def work(
        self,
        job: Callable,  # uses the model
        *inputs: Any,  # what it is called with
    ) -> Any:  # what it returns
        """Do something with the model's weights: a loss, a prediction."""
        if self.precision == "32-true":
            return job(*inputs)
        with torch.autocast(self.device.type, torch.bfloat16):
            return job(*inputs)

    def learn(
        self,
        job: Callable[..., Tensor],  # gives a loss
        *inputs: Any,  # what it is called with
        last: bool = True,  # of the parts of a batch: then gradients of all processes meet
    ) -> Tensor:  # the loss, without its graph
        """A loss, and its gradients added to those of the weights."""
        loss = self.work(job, *inputs)
        loss.backward()
        return loss.detach()

    def mean(
        self,
        value: Tensor,  # a number of this process
    ) -> Tensor:  # their mean
        """The mean over processes."""
        return value

    def gather(
        self,
        value: Any,  # of this process
    ) -> list[Any]:  # one for each process, on all of them
        """What all processes have."""
        return [value]

    def share(
        self,
        value: Any,  # of the first process
    ) -> Any:
        """What the first process has."""
        return value


class _Work(nn.Module):
    """A model whose forward pass is any work on it: there wrappers gather its weights."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, job: Callable, *inputs: Any) -> Any:
        return job(*inputs)


class Together(Alone):
    """Several processes that torchrun has started, led by Lightning Fabric."""

    def __init__(
        self,
        device: torch.device,  # its kind says on what to compute
        precision: str = "32-true",  # or "bf16-mixed"
        strategy: str = "ddp",  # "ddp": each has all weights | "fsdp": each has a shard of them (FSDP2)
    ):
        fabric = require("lightning_fabric", "training")
        strategies = require("lightning_fabric.strategies", "training")
        local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        nodes = int(os.environ["WORLD_SIZE"]) // local
        self.shards = strategy == "fsdp"
        if self.shards:
            size = int(os.environ["WORLD_SIZE"])
            chosen = strategies.ModelParallelStrategy(_shard, data_parallel_size=size, tensor_parallel_size=1)
        else:
            chosen = strategies.DDPStrategy(find_unused_parameters=False)
        self.fabric = fabric.Fabric(
            accelerator=device.type, devices=local, num_nodes=nodes, strategy=chosen, precision=precision)
        self.fabric.launch()
        super().__init__(self.fabric.device, precision)
        self.rank, self.ranks = self.fabric.global_rank, self.fabric.world_size

    def take(self, model: nn.Module) -> None:
        model.to(self.device)
        self.apart = [p for p in model.parameters() if not p.ndim and p.requires_grad] if self.shards else []
        self.module = self.fabric.setup_module(_Work(model))

    def work(self, job: Callable, *inputs: Any) -> Any:
        return self.module(job, *inputs)

    def learn(self, job: Callable[..., Tensor], *inputs: Any, last: bool = True) -> Tensor:
        with self.fabric.no_backward_sync(self.module, enabled=not last):
            loss = self.module(job, *inputs)
            self.fabric.backward(loss)
        if last:
            for weight in (p for p in self.apart if p.grad is not None):
                weight.grad = self.mean(weight.grad)
        return loss.detach()

    def mean(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.ranks

    def gather(self, value: Any) -> list[Any]:
        values = [None] * self.ranks
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def part(self) -> None:
        """Let the others go; what holds on to them goes first, or it would wait for them for ever."""
        self.module = None
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Shard all weights as one group, which its inner gradients need whole; single numbers can't be cut."""
    from torch.distributed.fsdp import fully_shard

    single = {p for p in module.parameters() if not p.ndim}
    return fully_shard(module, mesh=mesh["data_parallel"], ignored_params=single)


def full(
    tensor: Tensor,  # a weight, its gradient, or what an optimiser keeps of it; perhaps in shards
) -> Tensor:  # whole, on every process
    """Put shards together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(
    value: Tensor,  # whole
    model: Tensor,  # a weight, perhaps in shards
) -> Tensor:  # cut as the weight is
    """Cut a tensor into the shards of another."""
    value = value.to(model.device, model.dtype)
    if not hasattr(model, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, model.device_mesh, model.placements)


def norm_of(
    tensors: list[Tensor],  # some perhaps in shards
) -> Tensor:  # the same on every process
    """The norm of all entries together."""
    parts = [[t for t in tensors if hasattr(t, "full_tensor") == cut] for cut in (False, True)]
    norms = [full(nn.utils.get_total_norm(part)) for part in parts if part]
    if len(norms) < 2:
        return norms[0] if norms else torch.zeros(())
    return torch.stack(norms).norm()


def clip(
    weights: Iterable[Tensor],  # with their gradients; some perhaps in shards
    largest: float,  # norm of all gradients together
) -> Tensor:  # their norm before, the same on every process
    """Shorten gradients that are longer together than they may be."""
    weights = [p for p in weights if p.grad is not None]
    norm = norm_of([p.grad for p in weights])
    for cut in (False, True):
        part = [p for p in weights if hasattr(p, "full_tensor") == cut]
        nn.utils.clip_grads_with_norm_(part, largest, norm)
    return norm


@contextlib.contextmanager
def processes(
    device: torch.device,  # to compute on
    precision: str = "32-true",  # or "bf16-mixed"
    strategy: str = "auto",  # "auto" and "ddp": each process has all weights | "fsdp": shards
) -> Iterator[Alone]:  # this process among the others
    """The processes of a run: those that torchrun has started, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone(device, precision)
        return
    together = Together(device, precision, "fsdp" if strategy == "fsdp" else "ddp")
    try:
        yield together
    finally:
        together.part()
