"""Refusals of ebwm.baselines and ebwm.diffusion."""

from functools import partial
from importlib.util import find_spec

import torch

from ebwm.baselines import GRU, Transformer, recurrent_width
from ebwm.diffusion import LEVELS, DiffusionTransformer, denoising_error, diffuse, diffusion_loss
from ebwm.settings import generator
from tests.helpers import refused

STATES, LEVEL = torch.zeros(2, 3, 16), torch.zeros(2, 3, dtype=torch.long)


def gru(states, **settings):
    return GRU(16, 1, generator=generator(0), **settings)(states)


CASES = [
    *refused(recurrent_width, dim=0),
    *refused(GRU, dim=0, depth=0),
    *refused(partial(Transformer, 16, depth=1), depth=0, heads=[0, 3, 16]),
    *refused(Transformer.from_size, name="huge", argument="size"),
    *refused(partial(gru, state_dim=5), states=STATES),
    *refused(partial(gru, vocabulary=5), states=[STATES, STATES[..., 0], LEVEL + 5, LEVEL.bool()]),
    *refused(gru, states=STATES[:, :0]),
    *refused(partial(gru, action_dim=2), argument="actions", states=STATES),
    *refused(gru, argument="actions", states=[(STATES, STATES)]),
]
if find_spec("diffusers"):
    model, steady = DiffusionTransformer(16, 1, 2, generator=generator(0)), {"generator": generator(0)}
    denoise = lambda **given: model.denoise(
        **{"candidates": STATES, "context": model.encode_context(STATES), "levels": LEVEL} | given)
    CASES += [
        *refused(partial(DiffusionTransformer, 16, 1, 2), predicts="noise"),
        *refused(partial(diffuse, model, STATES, **steady), steps=[0, 7]),
        *refused(partial(diffuse, model, STATES, 2, **steady), samples=0, eta=2.0),
        *refused(denoise, candidates=STATES[:, :2], levels=[LEVEL[:, :1], LEVEL + LEVELS]),
        *refused(partial(diffusion_loss, model, STATES, STATES, **steady), highest=2.0),
        *refused(partial(denoising_error, model, STATES, STATES, **steady), draws=0),
        *refused(model.encode_context, states=STATES[..., :4]),
    ]
