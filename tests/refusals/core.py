"""Refusals of energies, samplers, schedules, stopping rules, replay buffers, contexts and models."""

import math

import torch

from ebwm import modifiers, sampler, schedules, stopping, thinking
from ebwm.baselines import Transformer
from ebwm.ebt import EBT, EBTOptions
from ebwm.joint import JointEBT
from ebwm.replay import Replay
from ebwm.sampler import State, evaluate, gradient_descent, hmc, langevin, mala, nesterov, run
from ebwm.settings import generator
from ebwm.walk import Walk, walk_of

ONES, STATES, LONG = torch.ones(3, 2), torch.ones(2, 3, 16), torch.tensor([0.1, -0.1, 0.1])
META = torch.ones(3, 2, device="meta")
bowl = lambda y: y.square().sum(-1)
descent = gradient_descent(0.1)


def ebt(**settings):
    return EBT(16, 1, 2, generator=generator(0), **settings)


def landscape(**settings):
    return ebt(**settings).landscape(STATES)


def joint(**settings):
    return JointEBT(16, 1, 2, **{"rows": 3, "generator": generator(0), **settings})


def cache(batch=2, states=1):
    held = ebt().cache(batch, 4)
    held.append(torch.ones(batch, states, 16))
    return held


def without_graph(model):
    with torch.no_grad():
        here = model.landscape(STATES)
    return here.value_and_grad(STATES, create_graph=True)


def changed_weights():
    model = ebt()
    here = model.landscape(STATES)
    with torch.no_grad():
        model.head.weight.add_(1)
    return here(STATES)


def older_landscape():
    held = ebt().cache(2, 4)
    first = held.append(torch.ones(2, 1, 16))
    held.append(torch.ones(2, 1, 16))
    return first(torch.ones(2, 1, 16))


def rows(error, *cases):
    return [(f"{argument} {index}", call, error, argument) for index, (call, argument) in enumerate(cases)]


CASES = rows(
    ValueError,
    # samplers
    *((lambda make=make, size=size: make(size), "step_size") for size in (-0.1, math.nan, LONG)
      for make in (gradient_descent, sampler.softmax_descent, nesterov, langevin, mala, hmc)),
    *((lambda make=make: make(0.0), "step_size") for make in (mala, hmc)),
    *((lambda make=make, t=t: make(0.1, temperature=t), "temperature") for t in (0.0, -1.0, math.nan)
      for make in (mala, hmc)),
    (lambda: langevin(0.1, temperature=-1.0), "temperature"),
    (lambda: langevin(0.1, temperature=math.nan), "temperature"),
    (lambda: nesterov(0.1, momentum=1.0), "momentum"),
    (lambda: nesterov(0.1, momentum=math.nan), "momentum"),
    (lambda: hmc(0.1, steps=0), "steps"),
    (lambda: modifiers.noisy(descent, -1.0), "std"),
    (lambda: modifiers.clamped(descent), "value"),
    (lambda: modifiers.clamped(descent, norm=0.0), "norm"),
    (lambda: run(bowl, ONES, descent, 0), "steps"),
    (lambda: run(bowl, ONES, [descent], 2), "kernel"),
    *((lambda kernel=kernel: run(bowl, ONES * math.nan, kernel, 1, generator(0)), "start")
      for kernel in (descent, mala(0.1), modifiers.guarded(nesterov(0.1)))),
    *((lambda make=make: run(bowl, ONES, make(torch.ones(2)), 1, generator(0)), "step_size")
      for make in (gradient_descent, nesterov, langevin, mala, hmc)),
    *((lambda kernel=kernel: run(bowl, ONES, kernel, 1), "generator")
      for kernel in (langevin(0.1), mala(0.1), hmc(0.1), modifiers.noisy(descent, 1.0))),
    *((lambda make=make: make(0.1)(bowl, State(META, META[:, 0], META), generator=generator(0)), "generator")
      for make in (langevin, mala, hmc)),
    (lambda: evaluate(lambda y: torch.ones(7) * y.sum(), ONES), "energy"),
    (lambda: evaluate(lambda y: y.square().mT, ONES), "energy"),
    (lambda: sampler.init_candidates("noise", ONES), "generator"),
    (lambda: sampler.init_candidates("middle", ONES), "start"),
    # schedules, stopping rules, replay buffers, walks
    (lambda: schedules.linear(0, 1, 0), "steps"),
    (lambda: schedules.geometric(0, 1, 3), "first"),
    (lambda: schedules.geometric(1, -1, 3), "last"),
    (lambda: schedules.scheduled(langevin, step_size=[1.0], temperature=[1.0, 0.5]), "schedules"),
    (lambda: schedules.random_step_sizes(1.0, 0.5, (2,), generator(0)), "spread"),
    (lambda: schedules.random_steps(3, 2, generator(0)), "most"),
    (lambda: schedules.random_steps(0, 2, generator(0)), "least"),
    (lambda: stopping.run_until(bowl, ONES / 0, descent, 3, stopping.budget(1)), "start"),
    (lambda: stopping.run_until(bowl, ONES, descent, 0, stopping.budget(1)), "steps"),
    (lambda: stopping.run_until(bowl, ONES, descent, 3, stopping.budget(torch.ones(2).long())), "steps"),
    (lambda: stopping.budget(0), "steps"),
    (lambda: stopping.energy_change(0.0), "tolerance"),
    (lambda: stopping.gradient_norm(-1.0), "tolerance"),
    (lambda: Replay(0), "capacity"),
    (lambda: Replay(2).add(torch.ones(1), torch.ones(2)), "parts"),
    (lambda: Walk(0), "steps"),
    (lambda: Walk(start="middle"), "start"),
    (lambda: Walk(update="both"), "update"),
    (lambda: Walk(noise=-1.0), "noise"),
    (lambda: Walk(clamp=0.0), "clamp"),
    # models and landscapes
    (lambda: EBT(16, 1, 3), "heads"),
    (lambda: EBT(16, 1, 0), "heads"),
    (lambda: EBT(16, 0, 2), "depth"),
    (lambda: Transformer(0, 1, 2), "dim"),
    (lambda: ebt(step_size=-3.0), "step_size"),
    (lambda: EBT.from_size("xxxl"), "size"),
    (lambda: EBTOptions(candidates="pixels"), "candidates"),
    (lambda: EBTOptions(step_conditioning="film"), "step_conditioning"),
    (lambda: EBTOptions(embed="mlp"), "embed"),
    (lambda: EBTOptions(gradient="autograd"), "gradient"),
    (lambda: ebt(conditioned_steps=0), "conditioned_steps"),
    (lambda: ebt(gradient="handwritten", step_conditioning="adaln"), "gradient"),
    (lambda: EBT(16, 1, 8, gradient="fused").landscape(STATES).value_and_grad(STATES), "gradient"),
    (lambda: ebt(embed="identity", state_dim=3), "embed"),
    (lambda: ebt(embed="affine", vocabulary=5), "embed"),
    (lambda: ebt(candidates="latent", vocabulary=5), "candidates"),
    (lambda: ebt().bfloat16().landscape(STATES), "dtype"),
    (lambda: ebt().landscape(torch.ones(2, 3, 15)), "states"),
    (lambda: ebt().landscape(torch.ones(3, 16)), "states"),
    (lambda: ebt().landscape(torch.ones(2, 0, 16)), "states"),
    (lambda: ebt().landscape(STATES.double()), "states"),
    (lambda: ebt(vocabulary=5).landscape(torch.tensor([[1, 5]])), "states"),
    (lambda: ebt(vocabulary=5).landscape(torch.ones(1, 2)), "states"),
    (lambda: ebt().landscape((STATES, ONES[None])), "context"),
    (lambda: ebt(action_dim=2).landscape(STATES), "context"),
    (lambda: ebt(action_dim=2).landscape((STATES, torch.ones(2, 2, 2))), "actions"),
    (lambda: landscape()(torch.ones(2, 1, 16)), "candidates"),
    (lambda: landscape().value_and_grad(STATES.double()), "candidates"),
    (lambda: landscape().select(torch.tensor([6])), "items"),
    (lambda: landscape().expand(0), "samples"),
    (lambda: landscape().expand(2).expand(2), "samples"),
    (lambda: cache().append(torch.ones(2, 4, 16)), "states"),
    (lambda: cache().append(torch.ones(3, 1, 16)), "states"),
    (lambda: cache().append(torch.ones(2, 1, 16), [2, 1]), "lengths"),
    (lambda: cache().rewind(2), "length"),
    (lambda: joint(step_conditioning="context_token"), "step_conditioning"),
    (lambda: joint(rows=0), "rows"),
    (lambda: joint(step_conditioning="adaln", conditioned_steps=0), "conditioned_steps"),
    (lambda: thinking.predict(joint(), None), "start"),
    (lambda: joint(state_dim=4).landscape(), "context"),
    (lambda: joint().landscape(torch.ones(2, 3, 4)), "context"),
    (lambda: joint(state_dim=4).landscape(torch.ones(2, 3, 5)), "context"),
    (lambda: joint(state_dim=16).landscape(STATES).select(torch.tensor([1]))(STATES), "candidates"),
    (lambda: joint().landscape()(torch.ones(2, 4, 16)), "candidates"),
    (lambda: joint().cache(1, 1), "JointEBT"),
    (lambda: thinking.generate(joint(state_dim=4), torch.ones(1, 2, 4), 1), "JointEBT"),
) + rows(
    RuntimeError,
    (changed_weights, "parameters"),
    (older_landscape, "cache"),
    (lambda: without_graph(ebt()), "context"),
    (lambda: without_graph(ebt(gradient="eager")), "context"),
    (lambda: without_graph(joint(state_dim=16)), "context"),
) + rows(TypeError, (lambda: walk_of(None, {"stepsize": 1}), "stepsize"))
