"""Refusals of energies, samplers, schedules, stopping rules, replay buffers, contexts and models."""

import math
from functools import partial

import torch

from ebwm import checks, modifiers, sampler, schedules, stopping, thinking
from ebwm.baselines import Transformer
from ebwm.ebt import EBT, EBTOptions
from ebwm.joint import JointEBT
from ebwm.replay import Replay
from ebwm.sampler import State, evaluate, gradient_descent, hmc, langevin, mala, nesterov, run
from ebwm.settings import generator
from ebwm.walk import Walk, walk_of
from tests.helpers import refused, rows

ONES, STATES, LONG = torch.ones(3, 2), torch.ones(2, 3, 16), torch.tensor([0.1, -0.1, 0.1])
META = torch.ones(3, 2, device="meta")
NAN = math.nan
DESCENTS, SAMPLERS = (gradient_descent, sampler.softmax_descent, nesterov), (langevin, mala, hmc)
bowl = lambda y: y.square().sum(-1)
descent = gradient_descent(0.1)
unit_stop = stopping.budget(1)


def ebt(**settings):
    return EBT(16, 1, 2, generator=generator(0), **settings)


def landscape(states=STATES):
    return ebt().landscape(states)


def joint(**settings):
    return JointEBT(16, 1, 2, **{"rows": 3, "generator": generator(0), **settings})


def cache(batch=2, states=1):
    held = ebt().cache(batch, 4)
    if states:
        held.append(torch.ones(batch, states, 16))
    return held


def without_graph(model):
    with torch.no_grad():
        here = model.landscape(STATES)
    return here.value_and_grad(STATES, create_graph=True)


def older_landscape():
    """The cache holds as many states as before, but others."""
    held = ebt().cache(2, 4)
    first = held.append(torch.ones(2, 1, 16))
    held.rewind(0)
    held.append(torch.zeros(2, 1, 16))
    return first(torch.ones(2, 1, 16))


CASES = [
    *refused(partial(checks.positive, "positive"), argument="positive", value=[0.0, math.inf]),
    *refused(partial(checks.finite, "finite"), argument="finite", value=[-1.0, math.inf]),
    *refused(partial(checks.between, "between", low=0, high=5), argument="between", value=[-1, 7]),
    # samplers
    *(row for make in (*DESCENTS, *SAMPLERS) for row in refused(make, step_size=[-0.1, NAN, math.inf, LONG])),
    *(row for make in (mala, hmc) for row in refused(make, step_size=0.0)),
    *(row for make in (mala, hmc) for row in refused(partial(make, 0.1), temperature=[0.0, -1.0, NAN])),
    *refused(partial(langevin, 0.1), temperature=[-1.0, NAN]),
    *refused(partial(nesterov, 0.1), momentum=[1.0, NAN]),
    *refused(partial(hmc, 0.1), steps=0),
    *refused(partial(modifiers.noisy, descent), std=-1.0),
    *refused(partial(modifiers.clamped, descent), value=None, norm=0.0),
    *refused(partial(run, bowl, ONES, descent), steps=[0, 10**13]),
    *refused(partial(run, bowl, ONES, descent, 1), unroll=[0, -1]),
    *refused(partial(schedules.linear, 0, 1), steps=0),
    *refused(partial(schedules.geometric, steps=3, first=1, last=1), first=0, last=-1),
    *refused(partial(schedules.cosine, first=0, last=1, steps=3), first=NAN, last=math.inf),
    *refused(partial(schedules.random_step_sizes, items=(2,), generator=generator(0), step_size=1.0, spread=2.0),
             spread=0.5, step_size=-1.0),
    *refused(partial(schedules.random_steps, least=2, most=3, generator=generator(0)), least=0, most=1),
    *refused(partial(stopping.run_until, bowl, ONES, descent, stop=unit_stop), steps=0),
    *refused(stopping.budget, steps=0),
    *refused(stopping.energy_change, tolerance=0.0),
    *refused(stopping.gradient_norm, tolerance=-1.0),
    *refused(Replay, capacity=0),
    *refused(Walk, steps=0, start="middle", update="both", noise=-1.0, clamp=0.0),
    # models
    *refused(partial(EBT, 16, depth=1, heads=2), heads=[3, 0], depth=0, step_size=[-3.0, "Auto"]),
    *refused(ebt, state_dim=[0, -1], vocabulary=0, action_dim=0, embedding_std=[-1.0, NAN]),
    *refused(partial(Transformer, depth=1, heads=2), dim=0),
    *refused(partial(Transformer, 16, 1, 2), vocabulary=0, action_dim=0, embedding_std=NAN),
    *refused(EBTOptions, candidates="pixels", step_conditioning="film", embed="mlp", gradient="autograd"),
    *refused(ebt, conditioned_steps=0),
    *refused(partial(ebt, step_conditioning="adaln"), gradient=["handwritten", "fused"]),
    *refused(partial(ebt, state_dim=3), embed="identity"),
    *refused(partial(ebt, vocabulary=5), embed="affine", candidates="latent"),
    *refused(joint, step_conditioning="context_token", rows=0, candidate_dim=0),
    *refused(partial(joint, step_conditioning="adaln"), conditioned_steps=0),
    *refused(joint, gradient="fused", candidates="latent", embed="affine", embedding_std=0.03),
    *refused(partial(run, bowl, steps=1, kernel=mala(0.1), generator=generator(0)), start=ONES * NAN),
    *refused(partial(run, bowl, ONES, steps=2), kernel=[[descent]]),
    *(row for make in (gradient_descent, nesterov, *SAMPLERS)
      for row in refused(lambda step_size, make=make: run(bowl, ONES, make(step_size), 1, generator(0)),
                         step_size=torch.ones(2))),
    *(row for kernel in (langevin(0.1), mala(0.1), hmc(0.1), modifiers.noisy(descent, 1.0))
      for row in refused(partial(run, bowl, ONES, kernel, 1), generator=None)),
    *(row for make in SAMPLERS for row in refused(
        partial(make(0.1), bowl, State(META, META[:, 0], META)), generator=generator(0))),
    *refused(partial(evaluate, y=ONES), energy=[lambda y: torch.ones(7) * y.sum(), lambda y: y.square().mT]),
    *refused(partial(sampler.init_candidates, recent=ONES, start="noise"), generator=None, start="middle"),
    *refused(partial(stopping.run_until, bowl, kernel=descent, steps=3, stop=unit_stop), start=ONES / 0),
    *refused(lambda steps: stopping.run_until(bowl, ONES, descent, 3, stopping.budget(steps)),
             steps=torch.ones(2).long()),
    # contexts
    *refused(lambda states: landscape(states), states=[
        STATES[..., 1:], STATES[0], STATES[:, :0], STATES[:0], STATES.double(), STATES.to("meta"), STATES.to_sparse()]),
    *refused(lambda states: ebt(vocabulary=5).landscape(states),
             states=[torch.tensor([[1, 5]]), torch.ones(1, 2), torch.ones(1, 2).bool()]),
    *refused(partial(thinking.predict, ebt(), generator=generator(0)), context=[STATES * NAN, STATES / 0]),
    *refused(partial(thinking.predict, ebt(), STATES, generator=generator(0)), samples=10**15, steps=10**12),
    *(row for bad in ((0, 1), (1, 0)) for row in rows((partial(ebt().cache, *bad), "=0"))),
    *refused(lambda lengths: cache().append(STATES, lengths), lengths=[[4, 1], [-1, 1], [0, 0], [1, 2, 3]]),
    *refused(lambda states: cache().append(states), states=[torch.ones(2, 4, 16), torch.ones(3, 1, 16)]),
    *refused(lambda samples: landscape().expand(samples).expand(2), samples=[0, 2]),
    *rows((lambda: walk_of(None, {"stepsize": 1}), "stepsize"), error=TypeError),
]
CASES += rows(
    (lambda: checks.one_of("start", "nois", ("noise", "last")), "mean 'noise'"),
    (lambda: schedules.scheduled(langevin, step_size=[1.0], temperature=[1.0, 0.5]), "schedules"),
    (lambda: Replay(2).add(torch.ones(1), torch.ones(2)), "parts"),
    (lambda: Replay(2).load_state_dict({"a": ONES}), "state"),
    (lambda: evaluate(lambda y: torch.ones(3), ONES), "requires_grad=False"),
    (lambda: EBT.from_size("xxxl"), "size"),
    (lambda: EBT(16, 1, 8, gradient="fused").landscape(STATES).value_and_grad(STATES), "gradient"),
    (lambda: ebt().bfloat16().landscape(STATES), "dtype"),
    (lambda: ebt().landscape((STATES, ONES[None])), "context"),
    (lambda: ebt(action_dim=2).landscape(STATES), "context"),
    (lambda: ebt(action_dim=2).landscape((STATES, torch.ones(2, 2, 2))), "actions"),
    (lambda: landscape()(torch.ones(2, 1, 16)), "candidates"),
    (lambda: landscape().value_and_grad(STATES.double()), "candidates"),
    (lambda: landscape().select(torch.tensor([6])), "items"),
    (lambda: cache(states=0).append(STATES, [0, 2]), "lengths"),  # a context stays empty
    (lambda: cache().rewind(2), "length"),
    (lambda: cache().select(torch.tensor([True, False])), "rows"),
    (lambda: thinking.predict(joint(), None), "start"),
    (lambda: joint(state_dim=4).landscape(), "context"),
    (lambda: joint().landscape(torch.ones(2, 3, 4)), "context"),
    (lambda: joint(state_dim=4).landscape(torch.ones(2, 3, 5)), "context"),
    (lambda: joint(state_dim=16).landscape(STATES).select(torch.tensor([1]))(STATES), "candidates"),
    (lambda: joint().landscape()(torch.ones(2, 4, 16)), "candidates"),
    (lambda: joint().cache(1, 1), "JointEBT"),
    (lambda: thinking.generate(joint(state_dim=4), torch.ones(1, 2, 4), 1), "JointEBT"),
    (lambda: thinking.generate(ebt(action_dim=2), (STATES, torch.ones(2, 3, 2)), 2), "actions.shape=[2, 3, 2]"),
    (lambda: thinking.generate(ebt(), (STATES, torch.ones(2, 4, 2)), 2), "context"),
    (lambda: thinking.generate(ebt(action_dim=2), STATES, 2), "context"),
)
CASES += rows(
    (older_landscape, "cache"),
    *((lambda make=make: without_graph(make()), "context")
      for make in (ebt, partial(ebt, gradient="eager"), partial(joint, state_dim=16))),
    (lambda: cache(states=0).append(STATES).value_and_grad(STATES, create_graph=True), "context"),
    error=RuntimeError,
)
HALF = torch.ones(3, 2).bfloat16()
CASES += rows(
    (lambda: evaluate(lambda y: y.square(), ONES), "energy"),
    (lambda: evaluate(lambda y: y.square().sum(), ONES), "energy"),
    *((partial(run, bowl, HALF, make(0.1), 1, generator(0)), "candidates.dtype") for make in (mala, hmc)),
    *((partial(run, lambda y: bowl(y).half(), ONES, make(0.1), 1, generator(0)), "energy.dtype")
      for make in (mala, hmc)),
)
CASES += rows(
    *((partial(run, bowl, ONES, kernel, 1), "kernel") for kernel in (gradient_descent, lambda *a, **k: None)),
    (lambda: stopping.run_until(bowl, ONES, lambda *a, **k: None, 1, unit_stop), "kernel"),
    error=TypeError,
)
