"""Refusals of ebwm.interop."""

import functools

from ebwm.baselines import Transformer
from ebwm.ebt import EBT
from ebwm.interop import from_official, to_official
from ebwm.joint import JointEBT

MODELS = {
    "candidate_token": lambda: EBT(16, 1, 2, step_conditioning="candidate_token", embed="identity"),
    "latent": lambda: EBT(16, 1, 2, candidates="latent", embed="affine"),
    "linear": lambda: EBT(16, 1, 2),
    "JointEBT": lambda: JointEBT(16, 1, 2),
    "Transformer": lambda: Transformer(16, 1, 2),
}
weights = lambda: to_official(EBT(16, 1, 2, embed="identity"))

CASES = [
    *((name, lambda make=make: to_official(make()), ValueError, name) for name, make in MODELS.items()),
    *((f"heads={n}", functools.partial(lambda n: from_official(weights(), heads=n), n), ValueError, "heads")
      for n in (None, 0, 3)),
]
