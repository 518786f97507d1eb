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
