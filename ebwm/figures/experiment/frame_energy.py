"""Energies and errors of predicted frames along walks, scores of each position of a clip, and their rank correlations."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.data.task import state_errors
from ebwm.figures.experiment.tables import rank_correlation
from ebwm.figures.experiment.walks import initial, trace

__all__ = ["FrameWalks", "frame_scores", "rank_within", "walk_frames"]

FEWEST = 5  # clips of a group that has a rank correlation


class FrameWalks(NamedTuple):
    """Walks from several starts in each context."""

    energies: Float[Tensor, "steps clips positions"]  # means over starts; steps: the start and each step
    errors: Float[Tensor, "steps clips positions"]  # SmoothL1 of single candidates, means over starts
    ends: Float[Tensor, "starts clips positions features"]  # predicted states after some steps

    def by_step(self) -> pd.DataFrame:  # columns step, clip, position, energy and error
        """Energies and errors as a table."""
        step, clip, position = np.indices(self.energies.shape).reshape(3, -1)
        values = {name: part.double().cpu().numpy().ravel() for name, part in
                  (("energy", self.energies), ("error", self.errors))}
        return pd.DataFrame(dict(step=step, clip=clip, position=position, **values))


@torch.no_grad()
def walk_frames(
    model: nn.Module,  # an EBT
    clips: Float[Tensor, "clips frames features"],
    steps: int,  # of each walk
    trained: int,  # steps after which the ends are kept
    starts: int,  # number
    generator: torch.Generator,  # draws the starts
) -> FrameWalks:
    """Walk from noise in the contexts of clips."""
    context, target = clips[:, :-1], clips[:, 1:]
    landscape, energies, errors, ends = model.landscape(context), 0, 0, []
    for _ in range(starts):
        states, energy, _ = trace(model, landscape, initial(model, context, generator), steps, model.decode)
        energies, errors = energies + energy, errors + state_errors(states, target.expand_as(states))
        ends.append(states[trained])
    return FrameWalks(energies / starts, errors / starts, torch.stack(ends))


def frame_scores(
    walked: FrameWalks,
    clips: Float[Tensor, "clips frames features"],  # of the walks
    trained: int,  # steps of a prediction
) -> pd.DataFrame:  # one row for each clip and position
    """Error of a prediction, and scores that may tell it: of the energy, the spread of ends, and of the context alone."""
    context = clips[:, :-1]
    motion = torch.full(context.shape[:2], torch.nan, device=clips.device)
    motion[:, 1:] = state_errors(context[:, :-1], context[:, 1:])
    columns = {"error": walked.errors[trained], "energy": walked.energies[trained], "start_energy": walked.energies[0],
               "drop": walked.energies[trained] - walked.energies[0],
               "spread": walked.ends.var(0, correction=0).mean(-1), "motion": motion, "far": context.square().mean(-1)}
    clip, position = np.indices(context.shape[:2]).reshape(2, -1)
    values = {name: part.double().cpu().numpy().ravel() for name, part in columns.items()}
    return pd.DataFrame(dict(clip=clip, position=position, **values))


def rank_within(
    frame: pd.DataFrame,  # rows of clips and positions
    score: str,  # column
    target: str,  # column
    by: Sequence[str] = ("position",),  # columns of the groups
) -> float:
    """Rank correlation of two columns over the clips of a group, mean over groups."""
    groups = frame.dropna(subset=[score, target]).groupby(list(by))
    found = [rank_correlation(*rows[[score, target]].to_numpy().T) for _, rows in groups if len(rows) >= FEWEST]
    return float(np.mean(found))
