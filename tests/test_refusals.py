"""Bad arguments are refused by one line that names the argument; the cases lie in tests/refusals."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

from tests import refusals

AREAS = [importlib.import_module(f"tests.refusals.{m.name}") for m in pkgutil.iter_modules(refusals.__path__)]
CASES = [pytest.param(*case[1:], id=f"{area.__name__.rpartition('.')[2]}-{case[0]}")
         for area in AREAS for case in area.CASES]


@pytest.mark.parametrize("call, error, argument", CASES)
def test_bad_arguments_are_refused_by_name(call, error, argument):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__} is not {error.__name__}"
    assert message and "\n" not in message, "the message must be one line"
    assert argument in message, f"the message does not name {argument!r}: {message}"


WRONG_TYPES = """
import torch
from ebwm import EBT, sampler
states, bowl = torch.ones(2, 3, 16), lambda y: y.square().sum(-1)
model = EBT(16, 1, 2)
for call in (lambda: model.landscape(None), lambda: model.landscape(states.numpy()),
             lambda: sampler.run(bowl, states.numpy(), sampler.gradient_descent(0.1), 1),
             lambda: sampler.run(bowl, states, None, 1), lambda: sampler.evaluate(lambda y: None, states)):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(str(error).partition("=")[0].partition(" ")[0])
"""


def test_arguments_of_other_types_are_refused_by_name():
    """In a process of its own, because the types of the signatures are checked in the tests alone."""
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["context", "context", "start", "kernel", "energy"]


WRONG_TYPES_OF_TRAINING = """
from ebwm import diagnostics, interop
from ebwm.evaluation import statistics, uncertainty
from ebwm.explore import scenes
from ebwm.figures import curves
from ebwm.settings import generator
from ebwm.training import learner, run
model = learner.ModelConfig()
for call in (lambda: run.train(3), lambda: run.train("smoke", overrides=3), lambda: run.train("smoke", overrides=[3]),
             lambda: run.train("smoke", runs=3), lambda: run.resume(None), lambda: learner.load_learner(None),
             lambda: learner.make_learner(None, 3, 0), lambda: learner.make_learner(model, "a", 0),
             lambda: learner.make_learner(model, 3, "a"), lambda: statistics.bootstrap([1, 2], resamples=1.5),
             lambda: statistics.wilson(1.5, 3), lambda: uncertainty.calibration([0.5], [1], 1.5),
             lambda: uncertainty.mode_coverage(None, None, 1.0), lambda: diagnostics.r_hat(None),
             lambda: interop.read_weights(3), lambda: scenes.run_scene(None), lambda: scenes.trained_scene("a"),
             lambda: curves.draw(None)):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(str(error).partition("=")[0])
"""


def test_arguments_of_other_types_are_refused_by_name_in_training():
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES_OF_TRAINING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (
        "config overrides entry runs path folder config task seed resamples successes bins modes samples weights "
        "folder config logs").split()
