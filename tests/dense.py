"""The energies of an EBT by masked attention over context and candidates together: a slow reference."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ebwm.attention import dense_attention, dense_mask
from ebwm.blocks import rotary
from ebwm.ebt import EBT
from ebwm.energy import Landscape
from ebwm.states import states_of


class DenseLandscape(Landscape):
    def __init__(self, model: EBT, context: Tensor | tuple[Tensor, Tensor], step: int = 0):
        self.model, self.context, self.step = model, context, step

    def at_step(self, step):
        step = min(step, self.model.conditioned_steps - 1)
        return self if step == self.step else DenseLandscape(self.model, self.context, step)

    def energy(self, y):
        model, length = self.model, states_of(self.context).shape[1]
        places, mask = torch.arange(length, device=y.device), dense_mask(length, y.device)
        places = torch.cat([places, places + 1])
        rows = [model.embed_states(self.context), model.embed_candidates(y)]
        if model.columns_before:
            rows.insert(0, model.step_embedding.weight[self.step].expand(len(y), 1, -1))
            places = torch.cat([torch.tensor([-1], device=places.device), places])
            mask = F.pad(mask, (1, 0, 1, 0))
            mask[0, 0] = mask[1 + length :, 0] = True
            mask[1 : 1 + length, 0] = model.step_conditioning == "context_token"
        rotation, condition = rotary(places, model.head_dim, y.dtype), model.condition(self.step)
        x = torch.cat(rows, 1)
        for block in model.blocks:
            x = block(x, rotation, partial(dense_attention, mask=mask), condition)
        return model.read_out(x[:, -length:], condition)
