"""How a trained energy is used and judged: walks to choose from, and the ranks of true states among wrong ones."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ebwm.evaluation.uncertainty import auroc
from ebwm.figures.experiment.walks import initial, state_losses, trace
from ebwm.walk import Walk

__all__ = ["tried_walks", "wins"]


@torch.no_grad()
def tried_walks(
    model: nn.Module,  # an EBT
    clips: Tensor,  # [b s+1 c]
    sizes: Iterable[float],  # step sizes
    most: int,  # largest number of steps
    generator: Callable[[], torch.Generator],  # a new generator of the same noise for each walk
) -> pd.DataFrame:  # start, size, steps and valid_loss; a loss that is not finite is infinite
    """Losses of walks from noise and from the last state, with all step sizes, after powers of two of steps."""
    landscape, rows, sizes = model.landscape(clips[:, :-1]), [], list(sizes)
    for start in ("noise", "last"):
        for size in sizes:
            begin = initial(model, clips[:, :-1], generator(), start)
            losses = trace(model, landscape, begin, Walk(most, step_size=size), state_losses(clips[:, 1:])).values
            rows += [dict(start=start, size=size, steps=steps, valid_loss=float(losses[steps].mean()))
                     for steps in (2**power for power in range(most.bit_length()))]
    return pd.DataFrame(rows).fillna({"valid_loss": np.inf})


@torch.no_grad()
def wins(
    landscape: Callable[[Tensor], Tensor],  # energies of states in their contexts
    truth: Tensor,  # true states [b s c]
    wrong: Mapping[str, Tensor],  # wrong ones, by name
) -> pd.DataFrame:  # columns wrong, clip, wins, and `across`, the area under the curve of the states of all contexts
    """Share of positions of each clip where the true state has a lower energy than a wrong one."""
    true, parts = landscape(truth), []
    for name, states in wrong.items():
        false = landscape(states)
        share = ((false > true).double() + (false == true).double() / 2).mean(1).cpu()
        scores = -torch.cat([true.ravel(), false.ravel()]).double().cpu().numpy()
        across = auroc(scores, np.repeat([1, 0], true.numel())).value
        parts.append(pd.DataFrame(dict(wrong=name, clip=range(len(truth)), wins=share, across=across)))
    return pd.concat(parts, ignore_index=True)
