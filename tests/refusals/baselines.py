"""Refusals of ebwm.baselines and ebwm.diffusion."""

from importlib.util import find_spec

import torch

from ebwm.baselines import GRU, Transformer, recurrent_width
from ebwm.diffusion import LEVELS, DiffusionTransformer, denoising_error, diffuse, diffusion_loss
from ebwm.settings import generator

STATES, LEVEL = torch.zeros(2, 3, 16), torch.zeros(2, 3, dtype=torch.long)


def gru(**settings):
    return GRU(16, 1, generator=generator(0), **settings)


def noisy(use, **settings):
    """Apply a function to a small diffusion model."""
    return lambda: use(DiffusionTransformer(16, 1, 2, generator=generator(0), **settings))


CASES = [
    ("no width", lambda: recurrent_width(0), ValueError, "dim=0"),
    ("no width of a GRU", lambda: GRU(0), ValueError, "dim=0"),
    ("no layers of a GRU", lambda: GRU(16, 0), ValueError, "depth=0"),
    ("no layers", lambda: Transformer(16, 0), ValueError, "depth=0"),
    ("odd heads", lambda: Transformer(6, 1, 2), ValueError, "heads=2"),
    ("unknown size", lambda: Transformer.from_size("huge"), ValueError, "size='huge'"),
    ("other features", lambda: gru(state_dim=5)(STATES), ValueError, "states.shape=[2, 3, 16]"),
    ("no states", lambda: gru()(STATES[:, :0]), ValueError, "states.shape=[2, 0, 16]"),
    ("vectors for tokens", lambda: gru(vocabulary=5)(STATES), ValueError, "states.shape=[2, 3, 16]"),
    ("no actions", lambda: gru(action_dim=2)(STATES), ValueError, "actions.shape=None"),
    ("unknown actions", lambda: gru()((STATES, STATES)), ValueError, "actions.shape=[2, 3, 16]"),
]
if find_spec("diffusers"):
    CASES += [
        ("unknown output", noisy(lambda m: m, predicts="noise"), ValueError, "predicts='noise'"),
        ("no steps", noisy(lambda m: diffuse(m, STATES, 0, generator(0))), ValueError, "steps=0"),
        ("uneven steps", noisy(lambda m: diffuse(m, STATES, 7, generator(0))), ValueError, "steps=7"),
        ("no samples", noisy(lambda m: diffuse(m, STATES, 2, generator(0), 0)), ValueError, "samples=0"),
        ("too much noise", noisy(lambda m: diffuse(m, STATES, 2, generator(0), eta=2)), ValueError, "eta=2"),
        ("unequal candidates", noisy(lambda m: m.denoise(STATES[:, :2], m.encode_context(STATES), LEVEL)),
         ValueError, "candidates.shape=[2, 2, 16]"),
        ("unequal levels", noisy(lambda m: m.denoise(STATES, m.encode_context(STATES), LEVEL[:, :1])),
         ValueError, "levels.shape=[2, 1]"),
        ("unknown level", noisy(lambda m: m.denoise(STATES, m.encode_context(STATES), LEVEL + LEVELS)),
         ValueError, "levels=1000"),
        ("no probability", noisy(lambda m: diffusion_loss(m, STATES, STATES, generator(0), highest=2)),
         ValueError, "highest=2"),
        ("no draws", noisy(lambda m: denoising_error(m, STATES, STATES, generator(0), draws=0)),
         ValueError, "draws=0"),
        ("other states", noisy(lambda m: m.encode_context(STATES[..., :4])), ValueError, "states.shape"),
    ]
