"""Refusals of recipes, prediction, generation, the training step for tokens, and the fused kernels."""

import inspect
import math

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

TOKENS = torch.zeros(2, 4, dtype=torch.long)
STATES = torch.zeros(2, 4, 8)


def model(vocabulary=None, **settings):
    return EBT(8, 1, 2, vocabulary=vocabulary, generator=generator(0, "weights"), **settings)


def lose(recipe, made=None, context=STATES, target=STATES, **options):
    return lambda: recipe((made or model)(), context, target, **options)


def tokens(walk=None, **options):
    """A token model's training step."""
    return lambda: S1(walk)(model(11), TOKENS, TOKENS, **options)


def step(**options):
    options = {"targets": TOKENS, "begin": lambda y, *chunk: y.zero_(), **options}
    return lambda: vocabulary_step(model(11).landscape(TOKENS), **options)


def write(make=lambda: model(11), prompts=((1,),), count=2, **settings):
    return lambda: list(generate_tokens(make(), prompts, count, **settings))


def diverged():
    made = model(11)
    made.head.weight.data.fill_(torch.inf)
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


def error(call, kind, argument):
    """The rows of a table: label, call, type of the error, and the named argument."""
    return kind, call, ValueError, argument


replayed = Replay(4)
replayed.add(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
latents, words = lambda: model(candidates="latent"), lambda: model(5)
CASES = [error(call, kind, argument) for kind, call, argument in [
    ("steps of S1", lambda: S1(steps=0), "steps=0"),
    ("start of S1", lambda: S1(start="random"), "start='random'"),
    ("update of S1", lambda: S1(update="other"), "update='other'"),
    ("rows of S1", lambda: S1(rows=0), "rows=0"),
    ("steps of S2", lambda: S2(steps=0), "steps=0"),
    ("most of S2", lambda: S2(3, most=2), "most=2"),
    ("spread of S2", lambda: S2(spread=0.5), "spread=0.5"),
    ("unroll of S2", lambda: S2(unroll=0), "unroll=0"),
    ("noise of S2", lambda: S2(noise=-1.0), "noise=-1"),
    ("clamp of S2", lambda: S2(clamp=0.0), "clamp=0"),
    ("replay of S2", lambda: S2(replay=-1.0), "replay=-1"),
    ("no replay buffer", lose(S2(), generator=generator(0)), "replay=None"),
    ("replay buffer of another shape", lose(S2(), generator=generator(0), replay=replayed), "replay"),
    ("steps of contrastive", lambda: Contrastive(steps=0), "steps=0"),
    ("start of contrastive", lambda: Contrastive(start="data"), "start='data'"),
    ("std of score matching", lambda: ScoreMatching(0.0), "std=0"),
    ("contrastive latents", lose(Contrastive(), latents, generator=generator(0)), "candidates='latent'"),
    ("scores of tokens", lose(ScoreMatching(), words, TOKENS, TOKENS), "candidates='tokens'"),
    ("no generator", tokens(), "generator=None"),
    ("shape of start", tokens(start=torch.zeros(1, 4, 11)), "start"),
    ("shape of the walk's start", tokens(Walk(start=torch.zeros(1, 4, 11))), "start"),
    ("unknown tokens in a loss", lambda: cross_entropy(torch.zeros(1, 3), torch.tensor([3])), "targets"),
    ("only ignored tokens", lambda: valid_targets(TOKENS, 0, 11), "targets"),
    ("unknown tokens", step(targets=TOKENS + 11), "targets"),
    ("shape of targets", step(targets=TOKENS[:, 1:]), "targets"),
    ("update of the step", step(update="other"), "update='other'"),
    ("rows of the step", step(rows=-1), "rows=-1"),
    ("steps of a walk", lambda: Walk(0), "steps=0"),
    ("steps of a prediction", lambda: predict(model(), STATES, 0, start="zeros"), "steps=0"),
    ("samples of a prediction", lambda: predict(model(), STATES, samples=0, start="zeros"), "samples=0"),
    ("choice", lambda: predict(model(), STATES, by="best", start="last"), "by='best'"),
    ("shape of a score", lambda: choose(propose(model(), STATES, start="last"), torch.zeros(2)), "by"),
    ("states to generate", lambda: generate(model(), STATES, 0), "count=0"),
    ("samples to generate", lambda: generate(model(), STATES, 1, samples=0), "samples=0"),
    ("generation of tokens as states", lambda: generate(model(11), TOKENS, 1), "model"),
    ("tokens to generate", write(count=0), "count=0"),
    ("negative temperature", write(temperature=-0.1), "temperature=-0.1"),
    ("temperature that is not a number", write(temperature=math.nan), "temperature=nan"),
    ("no probability", write(top_p=0.0), "top_p=0"),
    ("probability above 1", write(top_p=1.1), "top_p=1.1"),
    ("window of one token", write(window=1), "window=1"),
    ("unknown end", write(end=[11]), "end=11"),
    ("no prompts", write(prompts=[]), "prompts"),
    ("empty prompt", write(prompts=[[1], []]), "prompts[1]"),
    ("unknown token", write(prompts=[[1, 11]]), "prompts[0]"),
    ("negative token", write(prompts=[[-1]]), "prompts[0]"),
    ("fractional token", write(prompts=[[1.5]]), "prompts[0]"),
    ("tokens as prompts", write(prompts=[1, 2]), "prompts[0]"),
    ("number of seeds", write(seed=[1, 2]), "seed"),
    ("steps of generation", write(steps=0), "steps=0"),
    ("samples of generation", write(samples=0), "samples=0"),
    ("start of generation", write(start="here"), "start='here'"),
    ("step size of generation", write(step_size=-1.0), "step_size=-1"),
    ("diverged walks", write(diverged, step_size=0.5), "step_size=0.5"),
    *((f"{name} of a Transformer", write(transformer, **{name: 2}), f"{name}=2")
      for name in ("samples", "steps", "walk", "start")),
    ("generation with a GRU", write(lambda: GRU(8, 1, vocabulary=11, generator=generator(0))), "model"),
    *((f"generation with a {kind.__name__} of vectors",
       write(lambda k=kind: k(8, 1, 2, generator=generator(0))),
       "model") for kind in (EBT, Transformer, JointEBT)),
]] + [("unknown setting of a walk", lambda: S1(stepsize=2.0), TypeError, "stepsize")]
if kernels.triton is not None:
    CASES += [error(call, f"kernel: {kind}", argument) for kind, call, argument in [
        ("dtype", fused(q=lambda q: q.long()), "q.dtype"),
        ("width of a head", fused(q=lambda q: q[..., :4]), "q.shape"),
        ("number of axes", fused(q=lambda q: q[0]), "q.shape"),
        ("another dtype", fused(k=lambda k: k.half()), "k.dtype"),
        ("another device", fused(v=lambda v: v.to("meta")), "v.device"),
        ("number of states", fused(context_v=lambda v: v[:, :, 1:]), "context_v.shape"),
        ("number of positions", fused(positions=lambda p: p[1:]), "positions.shape"),
        ("fractional positions", fused(positions=lambda p: p.double()), "positions.dtype"),
    ]]
