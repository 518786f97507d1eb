"""Bad arguments are refused by one line that names the argument; the cases lie in tests/refusals."""

import importlib
import pkgutil

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
