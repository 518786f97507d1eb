"""Checks of arguments, and the one form of their messages: `name=value: what is allowed; what to do`."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from numbers import Integral, Real
from typing import Any

__all__ = ["MOST", "accepts", "allowed", "at_least", "between", "changed", "finite", "fraction", "instance", "name_of",
           "one_of", "pair", "positive", "refusal", "sizes", "suggestion", "whole"]

MOST = 10**9  # largest number of steps, samples or new states; a larger one is a mistake


def refusal(
    name: str,  # of the argument or entry
    value: Any,  # that was given
    rule: str,  # what is allowed, as in "must be at least 1"
    remedy: str = "",  # what to do, if the rule does not say it
    error: type[Exception] = ValueError,  # the kind of exception
) -> Exception:  # to be raised
    """An exception with a one-line message: `name=value: rule; remedy`."""
    message = f"{name}={_shown(value)}: {rule}" + (f"; {remedy}" if remedy else "")
    return error(" ".join(message.split()))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"


def _is_number(value: Any) -> bool:
    """Whether a value is a real number, or an array or tensor with one entry and no axes."""
    return isinstance(value, Real) or (getattr(value, "ndim", None) == 0 and not isinstance(value, str))


def at_least(name: str, value: float, least: float, error: type[Exception] = ValueError) -> None:
    """Raise unless `value >= least`; NaN is refused."""
    if not (_is_number(value) and value >= least):
        raise refusal(name, value, f"must be at least {least:g}", error=error)


def positive(name: str, value: float, error: type[Exception] = ValueError) -> None:
    """Raise unless `0 < value < inf`."""
    if not (_is_number(value) and 0 < value < math.inf):
        raise refusal(name, value, "must be a finite number above 0", error=error)


def finite(name: str, value: float, error: type[Exception] = ValueError) -> None:
    """Raise unless `value` is a finite number, 0 or more."""
    if not (_is_number(value) and 0 <= value < math.inf):
        raise refusal(name, value, "must be a finite number, 0 or more", error=error)


def between(name: str, value: float, low: float, high: float, error: type[Exception] = ValueError) -> None:
    """Raise unless `low <= value <= high`."""
    if not (_is_number(value) and low <= value <= high):
        raise refusal(name, value, f"must be from {low:g} to {high:g}", error=error)


def fraction(name: str, value: float, error: type[Exception] = ValueError) -> None:
    """Raise unless `0 < value < 1`."""
    if not (_is_number(value) and 0 < value < 1):
        raise refusal(name, value, "must be above 0 and below 1", error=error)


def whole(name: str, value: int, least: int = 1, most: float = MOST) -> None:
    """Raise unless `value` is an integer from `least` to `most`; bool, float and str are refused."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        rule = f"must be an integer, at least {least}"
        raise refusal(name, value, rule, f"not {type(value).__name__}", TypeError)
    at_least(name, value, least)
    if value > most:
        raise refusal(name, value, f"must be at most {most:,}")


def sizes(**values: int | None) -> None:
    """Raise unless each value is an integer of at least 1, or None for a size that is not given."""
    for name, value in values.items():
        if value is not None:
            whole(name, value, most=math.inf)


def instance(name: str, value: Any, kinds: type | tuple[type, ...], rule: str, remedy: str = "") -> None:
    """Raise TypeError unless `value` is an instance of one of the classes."""
    if not isinstance(value, kinds):
        raise refusal(name, None if value is None else type(value).__name__, rule, remedy, TypeError)


def changed(settings: Any, changes: dict[str, Any], what: str, function: Callable | None = None) -> Any:
    """A data class with some fields changed; an unknown name is refused as a wrong `what`.

    The message lists the fields, and the parameters of the method `function` that takes them as further keywords.
    """
    _, *parameters = inspect.signature(function).parameters.values() if function else [None]
    known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    known += [field.name for field in fields(settings)]
    for name in changes:
        one_of(what, name, known, TypeError)
    return replace(settings, **changes)


def one_of(name: str, value: Any, known: Iterable[Any], error: type[Exception] = ValueError) -> None:
    """Raise unless `value` is one of the known values; suggests the one with the most similar name."""
    known = list(known)
    if getattr(value, "ndim", 0) or value not in known:  # an array has no single answer
        raise refusal(name, value, allowed(known), suggestion(value, known), error)


def accepts(name: str, function: Callable, positional: Sequence[str], keywords: Sequence[str], remedy: str) -> None:
    """Raise unless `function` can be called with these arguments; builtins without a signature are not checked."""
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(keywords))
    except TypeError:
        call = ", ".join([*positional, *(f"{keyword}=..." for keyword in keywords)])
        raise refusal(name, name_of(function), f"must be callable as {name}({call})", remedy, TypeError) from None
    except ValueError:
        return


def pair(name: str, function: Callable, made: Any, expected: str) -> tuple:
    """The two values that a function returned; anything else is refused."""
    if not (isinstance(made, tuple) and len(made) == 2):
        raise refusal(name, name_of(function), f"must return {expected}, not {type(made).__name__}", error=TypeError)
    return made


def name_of(function: Any) -> str:
    """Name of a function or class, or the representation of another object."""
    return getattr(function, "__qualname__", repr(function))


def allowed(known: Iterable[Any]) -> str:
    """The rule "must be one of ..." for some values."""
    return f"must be one of {', '.join(map(str, known))}"


def suggestion(value: Any, known: Iterable[Any]) -> str:
    """The remedy "did you mean 'x'?", or nothing if no known name is similar."""
    close = difflib.get_close_matches(str(value), [str(item) for item in known], 1)
    return f"did you mean {close[0]!r}?" if close else ""
