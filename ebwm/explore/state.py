"""The state of an explorer as JSON: settings are checked when they are read."""

import dataclasses
import json
import math
import types
import typing
from typing import Any

from ..checks import refusal
from ..usage import UsageError

__all__ = ["settings_from", "state_text"]

COPY = "copy a whole state from an explorer of this kind"


def state_text(
    settings: Any,  # a dataclass of plain values
) -> str:  # JSON
    """Settings as JSON."""
    return json.dumps(dataclasses.asdict(settings))


def settings_from(
    kind: type,  # class of the settings
    text: str,  # of `state_text`
) -> Any:  # of this class
    """Read settings; anything that `state_text` would not write is refused with a `UsageError`."""
    try:
        values = json.loads(text)
    except ValueError:
        raise refusal("state", text, "must be JSON", COPY, UsageError) from None
    if not isinstance(values, dict):
        raise refusal("state", values, "must be an object of names and values", COPY, UsageError)
    hints = typing.get_type_hints(kind)
    wanted = [field.name for field in dataclasses.fields(kind)]
    for names, rule in ((set(values) - set(wanted), "is not a setting of this explorer"),
                        (set(wanted) - set(values), "is missing")):
        for name in sorted(names):
            raise refusal("state", name, rule, COPY, UsageError)
    return kind(**{name: _read(name, values[name], hints[name]) for name in wanted})


def _read(name: str, value: Any, hint: Any) -> Any:
    """A value of the type of a setting; JSON has lists for tuples."""
    if not _fits(value, hint):
        raise refusal(name, value, f"must be {_described(hint)}", COPY, UsageError)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, choice) for choice in _choices(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        same = (inner[0],) * len(value) if isinstance(value, list) and Ellipsis in inner else inner
        return isinstance(value, list) and (not same or len(value) == len(same)) and all(map(_fits, value, same))
    if isinstance(value, bool):
        return origin is bool
    if not isinstance(value, (int, float)):
        return not isinstance(origin, type) or isinstance(value, origin)
    return math.isfinite(value) and (origin is float or isinstance(value, origin))


def _described(hint: Any) -> str:
    names = {float: "a finite number", int: "an integer", str: "text", bool: "true or false", type(None): "null"}
    return " or ".join(names.get(choice, "a list" if typing.get_origin(choice) is tuple else str(choice))
                       for choice in _choices(hint))
