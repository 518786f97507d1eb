"""Variants of the EBT for the ablation: no attention to the candidate itself, and dense attention over both streams."""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ebwm.attention import dense_attention, dense_mask, visible_context
from ebwm.blocks import rotary
from ebwm.ebt import EBT
from ebwm.energy import Landscape
from ebwm.evaluation.cost import flops, seconds

__all__ = ["Dense", "DenseLandscape", "WithoutSelf", "compare_updates"]


class WithoutSelf(EBT):
    """Candidates that attend to their context, and not to themselves."""

    def candidate_energy(
        self,
        candidates: Tensor,  # [b s c]
        memory: Any,  # keys and values of the context, by layer
        positions: Tensor,  # of the candidates
        step: int = 0,  # of the walk; not used
    ) -> Tensor:  # [b s]
        """Energies of candidates for a context."""
        visible = visible_context(positions, memory[0][0].shape[2])
        rotation = rotary(positions + self.ahead, self.head_dim, candidates.dtype)
        x = self.embed_candidates(candidates)
        for block, (k, v) in zip(self.blocks, memory, strict=True):
            x = block(x, rotation, partial(_context_alone, context_k=k, context_v=v, visible=visible))
        return self.read_out(x, None)


def _context_alone(q: Tensor, k: Tensor, v: Tensor, context_k: Tensor, context_v: Tensor, visible: Tensor) -> Tensor:
    scores = (q @ context_k.mT * q.shape[-1] ** -0.5).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ context_v


class DenseLandscape(Landscape):
    """Energies by masked attention over context and candidates together."""

    def __init__(
        self,
        model: EBT,  # of vector states
        states: Tensor,  # context [b s c]
    ):
        self.model, self.states = model, states

    def energy(
        self,
        y: Tensor,  # candidates [b s c]
    ) -> Tensor:  # [b s]
        """Energies of candidates."""
        model, length = self.model, y.shape[1]
        places = torch.cat([torch.arange(length, device=y.device), torch.arange(length, device=y.device) + 1])
        rotation = rotary(places, model.head_dim, y.dtype)
        attend = partial(dense_attention, mask=dense_mask(length, y.device))
        x = torch.cat([model.embed_states(self.states), model.embed_candidates(y)], 1)
        for block in model.blocks:
            x = block(x, rotation, attend)
        return model.read_out(x[:, length:], None)


class Dense(EBT):
    """An EBT whose landscapes use dense attention over both streams."""

    def landscape(
        self,
        context: Tensor,  # states [b s c]
    ) -> DenseLandscape:
        """The landscape of a context."""
        return DenseLandscape(self, context)


def compare_updates(
    losses: Mapping[str, Callable[[], Tensor]],  # training loss of each way, with its graph
    rounds: int,  # of the timing
) -> list[dict[str, Any]]:  # rows with loss, time ratio to the first, FLOPs and bytes that the backward pass needs
    """What an update costs."""
    updates = {way: lambda loss=loss: loss().backward() for way, loss in losses.items()}
    took = seconds(updates, rounds)
    return [dict(way=way, loss=loss().item(), ratio=took[way].ratio, flops=flops(updates[way]).total,
                 memory=_saved_bytes(loss)) for way, loss in losses.items()]


class _Saved:
    """A tensor that is saved for the backward pass."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def _saved_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes of the tensors that are saved for the backward pass of a result; those that were freed before do not count."""
    alive: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        alive.add(saved := _Saved(tensor))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        kept = function()
        storages = (saved.tensor.untyped_storage() for saved in alive)
        total = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    del kept
    return total
