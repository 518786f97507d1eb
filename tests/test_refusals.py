"""Bad arguments are refused by one line that names the argument; the cases lie in tests/refusals."""

import importlib
import pkgutil
import subprocess
import sys
import traceback

import pytest

from tests import refusals

AREAS = [importlib.import_module(f"tests.refusals.{m.name}") for m in pkgutil.iter_modules(refusals.__path__)]
CASES = [pytest.param(*case[1:], id=f"{area.__name__.rpartition('.')[2]}-{case[0]}")
         for area in AREAS for case in area.CASES]


@pytest.mark.parametrize("call, error, argument", CASES)
def test_bad_arguments_are_refused_by_name(call, error, argument):
    with pytest.raises(error) as caught:
        call()
    traceback.clear_frames(caught.tb)  # closes files of generators that were refused in the middle
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__} is not {error.__name__}"
    assert message and "\n" not in message, "the message must be one line"
    assert argument in message, f"the message does not name {argument!r}: {message}"


WRONG_TYPES = {  # names in messages, and the calls
    "context": "model.landscape(None) | model.landscape(states.numpy()) | generate(model, (states, states), 1)",
    "len(context)": "EBT(16, 1, 2, action_dim=2).landscape((states,))",
    "actions": "EBT(16, 1, 2, action_dim=2).landscape((states, None))",
    "candidates": "model.landscape(states)(None) | evaluate(bowl, 3.0) | joint.value_and_grad(None) | joint(None) | "
                  "JointEBT(16, 1, 2, 3, gradient='eager').landscape(None).value_and_grad([1.0])",
    "items": "model.landscape(states).select(None)",
    "items.dtype": "model.landscape(states).select(states)",
    "model": "predict(None, states) | generate(None, states, 1) | S1()(None, states, states)",
    "walk": "predict(model, states, 1.5) | predict(model, states, Walk) | S1('a') | PolicySettings(walk=(1, 2)) | "
            "PolicySettings.named('ebt', walk=None) | learner.ebt_learner(model, 3, S1(), 1.5)",
    "dim": "EBT(None, 1, 2) | EBT(16.5, 1, 2)",
    "heads": "EBT(16, 1, 2.0)",
    "vocabulary": "EBT(16, 1, 2, vocabulary=1.5)",
    "folder": "model.save(3) | EBT.load(3) | learner.load_learner(None) | scenes.run_scene(None)",
    "generator": "EBT(16, 1, 2, generator=3) | predict(model, states, generator=3) | run(bowl, states, descent, 1, 3)",
    "start": "run(bowl, states.numpy(), descent, 1) | Walk(start=3) | Walk(start=states.numpy())",
    "steps": "Walk(1.5) | run(bowl, states, descent, 'a') | budget(1.5) | schedules.linear(0, 1, 1.5) | "
             "PolicySettings.named('ebt', steps=2.5) | PolicySettings(steps='abc')",
    "updates": "PolicySettings.named('ebt', updates='abc')",
    "every": "PolicySettings.named('ebt', every='False')",
    "learned": "PolicySettings.named('ebt', learned=None)",
    "through": "PolicySettings.named('ebt', through=1)",
    "noise": "PolicySettings.named('ebt', noise=0.1) | PolicySettings.named('ebt', noise=(0.1,))",
    "steps.dtype": "budget(torch.tensor([1.5]))",
    "step_size": "sampler.gradient_descent(None) | Walk(step_size='a') | sampler.mala(torch.tensor(1j))",
    "kernel": "run(bowl, states, None, 1) | Walk(kernel=3) | modifiers.guarded(None)",
    "state": "run(bowl, states, lambda *args, **settings: (1, 2), 1) | Replay(3).load_state_dict(None)",
    "stop": "predict(model, states, start='zeros', stop=lambda *args: True) | Walk(stop=budget) | either(3)",
    "by.dtype": "choose(propose(model, states, start='last'), torch.ones(1, 2, 3) * 1j)",
    "energy": "evaluate(lambda y: None, states) | evaluate(None, states) | evaluate(lambda y: bowl(y).long(), states)",
    "parts": "Replay(3).add(None)",
    "target": "S1()(model, states, None) | S2()(model, states, states.numpy())",
    "prompts": "generate_tokens(EBT(16, 1, 2, vocabulary=7), None, 2)",
    "prompts[0]": "generate_tokens(EBT(16, 1, 2, vocabulary=7), 'abc', 2)",
    "end": "generate_tokens(EBT(16, 1, 2, vocabulary=7), [[1]], 2, end=3)",
    "config": "training.train(3) | learner.make_learner(None, 3, 0) | scenes.trained_scene('a')",
    "overrides": "training.train('smoke', overrides=3)",
    "entry": "training.train('smoke', overrides=[3])",
    "runs": "training.train('smoke', runs=3)",
    "path": "training.resume(None)",
    "task": "learner.make_learner(learner.ModelConfig(), 'a', 0)",
    "seed": "learner.make_learner(learner.ModelConfig(), 3, 'a')",
    "resamples": "statistics.bootstrap([1, 2], resamples=1.5)",
    "successes": "statistics.wilson(1.5, 3)",
    "ours": "statistics.paired_rates([1, 0], [1, 1])",
    "len(ours)": "statistics.paired_rates([True], [True, False])",
    "bins": "uncertainty.calibration([0.5], [1], 1.5)",
    "modes": "uncertainty.mode_coverage(None, None, 1.0)",
    "samples": "diagnostics.r_hat(None)",
    "weights": "interop.read_weights(3)",
    "logs": "curves.draw(None)",
}
ACCEPTED = (  # calls with integers of NumPy
    "list(generate_tokens(EBT(16, 1, 2, vocabulary=7), [[1]], 1, seed=numpy.int64(3))) | "
    "learner.ebt_learner(EBT(16, 1, 2), Vectors(16), S1(), walk=numpy.int64(3))")
CALLS = f"""
import numpy
import torch
from ebwm import EBT, S1, S2, JointEBT, Walk, diagnostics, generate, interop, modifiers, predict, sampler, schedules
from ebwm.data.task import Vectors
from ebwm.evaluation import statistics, uncertainty
from ebwm.explore import scenes
from ebwm.figures import curves
from ebwm.generation import generate_tokens
from ebwm.policy.policies import PolicySettings
from ebwm.replay import Replay
from ebwm.sampler import evaluate, run
from ebwm.stopping import budget, either
from ebwm.thinking import choose, propose
from ebwm.training import learner
from ebwm.training import run as training
states, bowl, descent = torch.ones(2, 3, 16), lambda y: y.square().sum(-1), sampler.gradient_descent(0.1)
model, joint = EBT(16, 1, 2), JointEBT(16, 1, 2, 3).landscape(None)
for name, calls in {WRONG_TYPES}.items():
    for call in calls.split(" | "):
        try:
            eval(call)
        except (TypeError, ValueError) as error:
            if str(error).partition("=")[0].partition(" ")[0] != name or len(str(error).splitlines()) > 1:
                print(call, error)
        else:
            print(call, "is accepted")
for call in {ACCEPTED!r}.split(" | "):
    eval(call)
"""


def test_arguments_of_other_types_are_refused_by_name():
    """In a process of its own, because the types of the signatures are checked in the tests alone."""
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True)
    assert done.stdout == ""
