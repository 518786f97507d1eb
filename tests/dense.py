"""The energies of a model by masked attention over context and candidates together: a slow reference."""

from functools import partial

import torch
import torch.nn.functional as F

from ebwm.attention import dense_attention, dense_mask
from ebwm.blocks import rotary
from ebwm.energy import Landscape
from ebwm.states import states_of


class DenseLandscape(Landscape):
    def __init__(self, model, context, step=0):
        self.model, self.context, self.step = model, context, step

    def at_step(self, step):
        step = min(step, self.model.conditioned_steps - 1)
        return self if step == self.step else DenseLandscape(self.model, self.context, step)

    def energy(self, y):
        return self.joint(y) if self.model.item_axes == 1 else self.causal(y)

    def causal(self, y):
        """Candidates of an EBT: each attends to the context up to its position, and to itself."""
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
        return self.attended(rows, places, mask, length)

    def joint(self, y):
        """Rows of a candidate of a JointEBT: each attends to the context and to all rows."""
        context = [] if self.context is None else [self.model.observe(self.context)]
        rows = [*context, self.model.embed(y)]
        places = torch.arange(sum(part.shape[1] for part in rows))
        seen = len(places) - y.shape[1]
        mask = (places[:, None] >= seen) | (places < seen)
        return self.attended(rows, places, mask, y.shape[1]).mean(-1)

    def attended(self, rows, places, mask, count):
        """Read out the last rows after all layers."""
        x, condition = torch.cat(rows, 1), self.model.condition(self.step)
        rotation = rotary(places, self.model.head_dim, x.dtype)
        for block in self.model.blocks:
            x = block(x, rotation, partial(dense_attention, mask=mask), condition)
        return self.model.read_out(x[:, -count:], condition)
