"""The update of EBT-Policy: equal to the authors' code, and independent of the batch where it should be."""

import ast
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ebwm.policy.walk import PRESETS, PolicyWalk, descend, noise_schedule, policy_kernel, policy_loss, walk_chunks
from ebwm.sampler import run
from ebwm.settings import generator

CHECKOUT = os.environ.get("OFFICIAL_EBT_POLICY")  # of github.com/ZhiChengAIR/benchmarks
SHAPE = 3, 4, 2


class Stub(nn.Module):
    """An energy of chunks [b n a], in float64."""

    def __init__(self):
        super().__init__()
        draw = generator(0, "stub")
        self.weight = nn.Parameter(torch.randn(8, 8, generator=draw, dtype=torch.float64) / 4)

    def forward(self, sample, cond=None, memory_mask=None):
        return (sample.flatten(1) @ self.weight).tanh().square().unflatten(1, SHAPE[1:])

    def energy(self, y):
        return self(y).mean((-1, -2))


def authors(stub: Stub, walk: PolicyWalk) -> object:
    """The authors' class with the settings of a walk, without the packages that its module imports."""
    root = Path(CHECKOUT) / "robomimic"
    names = {"torch": torch, "nn": nn, "F": torch.nn.functional, "Optional": __import__("typing").Optional,
             "random": __import__("random"), "math": __import__("math"), "Module": nn.Module, "PolicyAlgo": object}
    for file, kinds in (("models/base_nets.py", {"RMSNorm"}), ("models/schedulers.py", None),
                        ("algo/precious_policy.py", {"PreciousPolicy"})):
        tree = ast.parse((root / file).read_text())
        body = [n for n in tree.body if isinstance(n, ast.ClassDef) and (kinds is None or n.name in kinds)]
        for node in body:
            node.decorator_list = []
            for function in ast.walk(node):
                if isinstance(function, ast.FunctionDef):
                    function.returns = None
                    for argument in [*function.args.args, *function.args.kwonlyargs]:
                        argument.annotation = None
        exec(compile(ast.Module(body, []), file, "exec"), names)
    theirs = names["PreciousPolicy"].__new__(names["PreciousPolicy"])
    theirs.nets = {"policy": {"energy_pred_net": stub}}
    theirs.alpha = torch.tensor(walk.step_size, dtype=torch.float64)
    theirs.ebl_norm, theirs.mu, theirs.truncate_mcmc = names["RMSNorm"](2), walk.momentum, not walk.every
    theirs.clamp_futures_grad, theirs.clamp_futures_grad_max_change = walk.clamp is not None, walk.clamp
    theirs.scale_alpha_with_energy_temp, theirs.randomize_mcmc_step_size_scale = walk.temperature, walk.spread
    low, high = walk.noise[1], walk.noise[0]
    theirs.langevin_dynamics_scheduler = names["LangevinDynamicsCosineAnnealingScheduler"](low, high, 0.0, False)
    return theirs


@pytest.mark.skipif(not CHECKOUT, reason="OFFICIAL_EBT_POLICY is not set")
@pytest.mark.parametrize("walk", [
    replace(PRESETS["authors"], spread=1.0, step_size=3.0, temperature=2.0),
    replace(PRESETS["paper"], spread=1.0, step_size=0.5, clamp=0.01),
])
def test_the_update_equals_the_authors_code(walk):
    stub, steps = Stub(), 5
    theirs, start = authors(stub, walk), torch.randn(SHAPE, generator=generator(1, "start"), dtype=torch.float64)
    kernel, expected, velocity = policy_kernel(walk, walk.step_size), start, torch.zeros_like(start)
    for index in range(steps):
        expected, _, _ = theirs._energy_step(
            trajectory=expected, cond_tokens=None, memory_mask=None, velocity=velocity, inference_mode=True,
            final_stop=index == steps - 1, mcmc_step=index)
    found = run(stub.energy, start, kernel, steps)
    assert torch.allclose(found.state.y, expected, rtol=0, atol=1e-14)
    schedule = [theirs.langevin_dynamics_scheduler._get_sigma(index, steps) for index in range(steps)]
    assert noise_schedule(walk, steps) == pytest.approx(schedule, rel=1e-6)


@pytest.mark.skipif(not CHECKOUT, reason="OFFICIAL_EBT_POLICY is not set")
def test_the_preset_has_the_settings_of_the_authors_template():
    template = json.loads((Path(CHECKOUT) / "robomimic/exps/templates/precious_policy.json").read_text())
    theirs, walk = template["algo"]["precious"], PRESETS["authors"]
    found = dict(mu=walk.momentum, max_sigma=walk.noise[0], min_sigma=walk.noise[1], max_mcmc_steps=walk.predicted,
                 min_grad=walk.tolerance, randomize_mcmc_step_size_scale=walk.spread,
                 scale_alpha_with_energy_temp=walk.temperature, mcmc_num_steps=walk.least,
                 randomize_mcmc_num_steps=walk.most - walk.least - 1, mcmc_step_size=walk.step_size,
                 clamp_future_grads=walk.clamp is not None, mcmc_step_size_learnable=walk.learned,
                 truncate_mcmc=not walk.every)
    assert found == {name: theirs[name] for name in found}
    assert walk.normalise == PRESETS["paper"].normalise == "batch" and PRESETS["paper"].momentum == walk.momentum


@pytest.mark.skipif(not CHECKOUT, reason="OFFICIAL_EBT_POLICY is not set")
def test_the_gradient_of_the_loss_equals_the_authors_code():
    walk = replace(PRESETS["authors"], spread=1.0, step_size=3.0, temperature=2.0, noise=(0.0, 0.0), least=4, most=4)
    stub = Stub()
    theirs, target = authors(stub, walk), torch.zeros(SHAPE, dtype=torch.float64)
    theirs.langevin_dynamics_scheduler.apply_noise = lambda action, **rest: action  # theirs is 1e-6 at least
    velocity, draw = torch.zeros_like(target), generator(0, "training")
    torch.randint(4, 5, (), generator=draw)  # the number of steps, which the loss draws first
    y = torch.randn(SHAPE, generator=draw, dtype=torch.float64)
    for index in range(4):
        y, _, _ = theirs._energy_step(
            trajectory=y, cond_tokens=None, memory_mask=None, velocity=velocity, inference_mode=False,
            final_stop=index == 3, mcmc_step=index, num_mcmc_steps=4)
    expected = torch.autograd.grad((y - target).square().mean(), stub.weight)[0]
    loss = policy_loss(stub.energy, target, walk, walk.step_size, generator(0, "training"))
    assert torch.allclose(torch.autograd.grad(loss, stub.weight)[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("over, same", [("none", True), ("sample", True), ("batch", False)])
def test_a_chunk_depends_on_its_batch_only_with_normalisation_over_it(over, same):
    stub, start = Stub(), torch.randn(SHAPE, generator=generator(0, "start"), dtype=torch.float64)
    walk = PolicyWalk(normalise=over, predicted=4)
    alone, together = (walk_chunks(stub.energy, part, walk, 1.0).state.y[0] for part in (start[:1], start))
    assert torch.allclose(alone, together, atol=1e-12) == same


@pytest.mark.parametrize("stop, equal", [("batch", True), ("gradient", False)])
def test_chunks_stop_together_by_the_authors_rule_alone(stop, equal):
    bowl, start = lambda y: y.square().sum((-1, -2)), torch.tensor([1.0, 0.01]).view(2, 1, 1).expand(2, 4, 2)
    walk = PolicyWalk(predicted=50, stop=stop, tolerance=1e-2, momentum=0.0)
    counts = walk_chunks(bowl, start, walk, 0.1).evaluations
    assert (counts[0] == counts[1]) == equal and counts.max() < 50


@pytest.mark.parametrize("changes", [{}, {"every": True}, {"through": True}, {"temperature": 1.0, "spread": 1.5}])
def test_a_loss_repeats_and_reaches_energy_and_step_size(changes):
    stub, alpha = Stub(), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    walk, target = PolicyWalk(least=2, most=3, noise=(0.2, 0.01), **changes), torch.zeros(SHAPE, dtype=torch.float64)
    first, again = (policy_loss(stub.energy, target, walk, alpha, generator(0, "training")) for _ in range(2))
    gradients = torch.autograd.grad(first, [stub.weight, alpha])
    assert first == again and all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("changes", [
    {}, {"momentum": 0.9}, {"normalise": "sample"}, {"normalise": "batch", "momentum": 0.5, "temperature": 2.0},
    {"clamp": 0.01}])
def test_descending_ends_where_a_walk_with_all_its_facts_does(changes):
    walk, start = PolicyWalk(**changes), torch.randn(3, 4, 2, generator=generator(0, "start"))
    bowl = lambda y: (y - 1).square().sum((-1, -2)) / 20
    facts, end = (function(bowl, start, walk, 0.3, 5) for function in (walk_chunks, descend))
    assert torch.equal(end.y, facts.state.y) and torch.equal(end.energy, facts.info.energy[-1])
    with pytest.raises(ValueError, match=r"walk.stop='energy': must be 'none'; use walk_chunks"):
        descend(bowl, start, PolicyWalk(stop="energy"), 0.3)
