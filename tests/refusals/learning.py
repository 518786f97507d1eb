"""Refusals of recipes, prediction, generation, the training step for tokens, and the fused kernels."""

import inspect
import math
from functools import partial

import torch

from ebwm.baselines import GRU, Transformer
from ebwm.ebt import EBT
from ebwm.generation import generate_tokens
from ebwm.gradient import kernels
from ebwm.gradient.vocabulary import valid_targets, vocabulary_step
from ebwm.joint import JointEBT
from ebwm.objective import S1, S2, Contrastive, ScoreMatching, cross_entropy
from ebwm.replay import Replay
from ebwm.settings import generator
from ebwm.thinking import choose, generate, predict, propose
from ebwm.walk import Walk
from tests.helpers import refused, rows

TOKENS = torch.zeros(2, 4, dtype=torch.long)
STATES = torch.zeros(2, 4, 8)


def model(vocabulary=None, **settings):
    return EBT(8, 1, 2, vocabulary=vocabulary, generator=generator(0, "weights"), **settings)


def lose(recipe, made=None, context=STATES, target=STATES, **options):
    return lambda: recipe((made or model)(), context, target, **options)


def step(**options):
    options = {"targets": TOKENS, "begin": lambda y, *chunk: y.zero_(), **options}
    return vocabulary_step(model(11).landscape(TOKENS), **options)


def write(make=lambda: model(11), prompts=((1,),), count=2, **settings):
    return lambda: list(generate_tokens(make(), prompts, count, **settings))


def diverged():
    made = model(11)
    made.head.weight.data.fill_(torch.inf)
    return made


def unstable():
    """The weights are finite, the walk is not."""
    made = model(11, step_size=1e38)
    made.head.weight.data.fill_(1e38)
    return made


def transformer():
    return Transformer(8, 1, 2, vocabulary=11, generator=generator(0))


def fused(**changes):
    """A call of a kernel with some tensors changed; without the run-time type checks of the tests."""
    shapes = {"q": 3, "k": 3, "v": 3, "context_k": 5, "context_v": 5}
    given = {name: torch.zeros(1, 2, rows, 8, dtype=torch.float64) for name, rows in shapes.items()}
    given["positions"] = torch.arange(3)
    q, k, v, *context = (changes.get(name, lambda x: x)(tensor) for name, tensor in given.items())
    return lambda: inspect.unwrap(kernels.forward)(kernels.QKV(q, k, v), kernels.Context(*context))


replayed = Replay(4)
replayed.add(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
latents, words = lambda: model(candidates="latent"), lambda: model(5)
CASES = [
    *refused(S1, steps=0, start="random", update="other", rows=0),
    *refused(partial(S2, 3), most=2, spread=0.5, unroll=0, noise=-1.0, clamp=0.0, replay=-1.0),
    *refused(S2, steps=0),
    *refused(Contrastive, steps=0, start="data", step_size=-1.0, temperature=-1.0, persistent=-1.0, regularise=-1.0),
    *refused(ScoreMatching, std=0.0),
    *refused(partial(predict, model(), STATES, start="zeros"), steps=0, samples=0, by="best"),
    *refused(partial(generate, model(), STATES, 1), samples=0),
    *refused(partial(generate, model(), STATES), count=0),
    *refused(lambda **bad: list(generate_tokens(model(11), **{"prompts": [[1]], "count": 2} | bad)),
             count=0, temperature=[-0.1, math.nan], top_p=[0.0, 1.1], window=1, seed=[[1, 2]], steps=0, samples=0,
             start="here", step_size=[-1.0, torch.ones(2)]),
    *refused(lambda **bad: list(generate_tokens(transformer(), [[1]], 2, **bad)), samples=2, steps=2, walk=2, start=2),
    *refused(lambda **bad: lose(S1(), lambda: model(11), TOKENS, TOKENS, **bad)(), generator=None,
             start=torch.zeros(1, 4, 11)),
    *refused(step, targets=[TOKENS + 11, TOKENS[:, 1:]], update="other", rows=-1),
    ("unknown setting of a walk", lambda: S1(stepsize=2.0), TypeError, "stepsize"),
]
CASES += rows(
    (lose(S1(Walk(start=torch.zeros(1, 4, 11))), lambda: model(11), TOKENS, TOKENS, generator=generator(0)), "start"),
    (lose(S2(), generator=generator(0)), "replay=None"),
    (lose(S2(), generator=generator(0), replay=replayed), "replay"),
    (lose(Contrastive(), latents, generator=generator(0)), "candidates='latent'"),
    (lose(ScoreMatching(), words, TOKENS, TOKENS), "candidates='tokens'"),
    (lambda: cross_entropy(torch.zeros(1, 3), torch.tensor([3])), "targets"),
    (lambda: valid_targets(TOKENS, 0, 11), "targets"),  # all are ignored
    (lambda: choose(propose(model(), STATES, start="last"), torch.zeros(2)), "by"),
    (lambda: generate(model(11), TOKENS, 1), "model"),
    (write(end=[11]), "end=11"),
    *((write(prompts=prompts), name) for prompts, name in (
        ([], "prompts"), ([[1], []], "prompts[1]"), ([[1, 11]], "prompts[0]"), ([[-1]], "prompts[0]"),
        ([[1.5]], "prompts[0]"), ([1, 2], "prompts[0]"))),
    (write(diverged), "model"),
    (write(unstable, step_size=1e37), "step_size=1e+37"),
    (write(lambda: GRU(8, 1, vocabulary=11, generator=generator(0))), "model"),
    *((write(lambda kind=kind: kind(8, 1, 2, generator=generator(0))), "model")  # of vectors
      for kind in (EBT, Transformer, JointEBT)),
)
if kernels.triton is not None:
    CASES += rows(
        (fused(q=lambda q: q.long()), "q.dtype"),
        (fused(q=lambda q: q[..., :4]), "q.shape"),
        (fused(q=lambda q: q[0]), "q.shape"),
        (fused(k=lambda k: k.half()), "k.dtype"),
        (fused(v=lambda v: v.to("meta")), "v.device"),
        (fused(context_v=lambda v: v[:, :, 1:]), "context_v.shape"),
        (fused(positions=lambda p: p[1:]), "positions.shape"),
        (fused(positions=lambda p: p.double()), "positions.dtype"),
    )
