"""Shapes and types of arguments and results are checked while tests run: at every call this would double their time."""

import functools
import types

import jaxtyping
import torch

FIRST, LATER = 100, 50  # each function's first calls, and one of so many later ones
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
_checked = jaxtyping.jaxtyped


def _jaxtyped(function=None, *, typechecker):
    """`jaxtyping.jaxtyped`, but most calls go straight to the function."""
    if function is None:
        return functools.partial(_jaxtyped, typechecker=typechecker)
    checked, calls = _checked(function, typechecker=typechecker), 0
    if not isinstance(function, types.FunctionType):
        return checked

    @functools.wraps(checked)
    def call(*arguments, **named):
        nonlocal calls
        if torch.compiler.is_compiling():
            return function(*arguments, **named)
        calls += 1
        return (checked if calls <= FIRST or not calls % LATER else function)(*arguments, **named)

    return call


def check():
    """Check the functions of all modules of the package that are imported from now on."""
    jaxtyping.jaxtyped = _jaxtyped
    jaxtyping.install_import_hook("ebwm", CHECKER)
