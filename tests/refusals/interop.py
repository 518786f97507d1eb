"""Refusals of ebwm.interop."""

import os
from pathlib import Path
from unittest import mock

import torch

from benchmarks import official as theirs
from ebwm.baselines import Transformer
from ebwm.ebt import EBT
from ebwm.interop import from_official, to_official
from ebwm.joint import JointEBT
from tests.helpers import rows

MODELS = {
    "candidate_token": lambda: EBT(16, 1, 2, step_conditioning="candidate_token", embed="identity"),
    "latent": lambda: EBT(16, 1, 2, candidates="latent", embed="affine"),
    "linear": lambda: EBT(16, 1, 2),
    "JointEBT": lambda: JointEBT(16, 1, 2),
    "Transformer": lambda: Transformer(16, 1, 2),
}


def load(edit=lambda weights: weights, heads=2):
    """Import edited weights."""
    return lambda: from_official(edit(to_official(EBT(16, 1, 2, embed="identity"))), heads=heads)


def without(name):
    return load(lambda weights: {n: t for n, t in weights.items() if n != name})


def having(**more):
    return load(lambda weights: weights | {name.replace("__", "."): t for name, t in more.items()})


def changed(change, part=""):
    return load(lambda weights: {n: change(t) if part in n else t for n, t in weights.items()})


FAKE = theirs.Official(*[torch.nn.Module] * 4, {})
CASES = rows(
    *((load(heads=heads), "heads") for heads in (None, 0, 3)),
    (having(transformer__norm__bias=torch.ones(16)), "unexpected: transformer.norm.bias"),
    (having(**{f"x{i}": torch.ones(1) for i in range(18)}), "12 more"),
    (having(output__weight=torch.ones(16, 16)), "Transformer++"),
    (having(alpha=3), "weights['alpha']='int'"),
    (having(alpha=torch.tensor(5e-5)), "alpha=5e-05"),
    (having(alpha=torch.tensor(float("nan"))), "alpha=nan"),
    (without("alpha"), "missing: alpha"),
    (without("transformer.norm.weight"), "transformer.norm.weight"),
    (changed(lambda t: t[:4], "0.attention.wv"), "0.attention.wv.weight [4, 16] instead of [16, 16]"),
    (changed(lambda t: t.repeat(2, 1), "feed_forward"), "ffn_dim"),
    (changed(lambda t: t.half(), "wq"), "weights='torch.float16, torch.float32'"),
    (changed(lambda t: t.long()), "weights='torch.int64'"),
    (load(lambda w: {}), "weights=''"),
    (load(lambda w: w | {f"model.{n}": t for n, t in w.items()}), "prefix"),
    (load(lambda w: {"state_dict": w, "hyper_parameters": {"ebt_act_func": "gelu"}}), "ebt_act_func='gelu'"),
    (load(lambda w: {"state_dict": list(w)}), "weights='list'"),
    *((lambda bad=bad: theirs.video(FAKE, 8, 1, 1, 4, **{bad: "time"}), bad) for bad in ("trunkate", "kind")),
    (mock.patch.dict(os.environ, {"OFFICIAL_EBT": ""})(lambda: theirs.load()), "OFFICIAL_EBT"),
    (lambda: theirs.load("absent"), "absent"),
    (lambda: theirs.load(Path(__file__).parent), "has no model"),
    *((lambda make=make: to_official(make()), name) for name, make in MODELS.items()),
)
