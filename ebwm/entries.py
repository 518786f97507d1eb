"""Entries of configurations: types with limits, which pydantic checks, and refusals of one line."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache, wraps
from types import NoneType
from typing import Annotated, Any, Literal, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ebwm.checks import allowed, refusal, suggestion

__all__ = ["Amount", "Count", "Fraction", "Number", "Positive", "Workers", "from_text",
           "from_value", "section"]

LARGEST, LARGEST_NUMBER = 10**12, 1e30  # beyond these an update cannot compute
TYPES = {"bool": "must be true or false", "int": "must be an integer", "float": "must be a number",
         "string": "must be a text"}

# A type, its limits for pydantic, and the rule that a refusal states.
Count = Annotated[int, Field(ge=1, le=LARGEST), "must be at least 1"]
Workers = Annotated[int, Field(ge=0, le=1024), "must be at least 0"]  # more than 1,024 are more than a machine can start
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER), "must be a finite number"]
Positive = Annotated[float, Field(gt=0, le=LARGEST_NUMBER), "must be a finite number above 0"]
Amount = Annotated[float, Field(ge=0, le=LARGEST_NUMBER), "must be a finite number, 0 or more"]
Fraction = Annotated[float, Field(gt=0, lt=1), "must be above 0 and below 1"]


@dataclass_transform(frozen_default=True)
def section(
    error: type[Exception] = ValueError,  # raised for a value that is refused
) -> Callable[[type], type]:  # decorator of a class
    """A frozen data class whose values are checked by their types when it is made.

    A wrong value is refused in one line, as in `batch=0: must be at least 1`.
    """

    def decorate(kind: type) -> type:
        made = dataclass(kind, frozen=True, config=ConfigDict(strict=True, extra="forbid"))
        types = {entry.name: entry.type for entry in fields(made)}
        construct = made.__init__

        @wraps(construct)
        def checked(self: Any, *values: Any, **named: Any) -> None:
            try:
                construct(self, *values, **named)
            except ValidationError as problems:
                raise _refused(problems, types, error) from None

        made.__init__ = checked
        return made

    return decorate


def from_text(
    name: str,  # of the entry
    text: str,  # as on a command line; "none" is None
    declared: Any,  # type of the entry
    error: type[Exception] = ValueError,  # raised for a text that is refused
) -> Any:
    """Read the value of an entry."""
    if text.lower() == "none" and NoneType in get_args(declared):
        return None
    return _checked(name, text, declared, error, "validate_strings")


def from_value(
    name: str,  # of the entry
    value: Any,  # as in JSON
    declared: Any,  # type of the entry
    error: type[Exception] = ValueError,  # raised for a value that is refused
) -> Any:
    """Check the value of an entry; an integer is a number."""
    return _checked(name, value, declared, error, "validate_python", strict=True)


def _checked(name: str, value: Any, declared: Any, error: type[Exception], method: str, **options: Any) -> Any:
    try:
        return getattr(_adapter(declared), method)(value, **options)
    except ValidationError as problems:
        raise _refusal(name, _main(problems), declared, error) from None


_adapter = cache(TypeAdapter)


def _main(problems: ValidationError) -> dict[str, Any]:
    """The problem that says most: a wrong argument, or a wrong type or limit before "not one of these words"."""
    order = {"unexpected_keyword_argument": 0, "unexpected_positional_argument": 0, "literal_error": 2}
    return min(problems.errors(), key=lambda problem: order.get(problem["type"], 1))


def _refused(problems: ValidationError, types: dict[str, Any], error: type[Exception]) -> Exception:
    problem = _main(problems)
    if problem["type"] == "value_error":  # raised by __post_init__
        return problem["ctx"]["error"]
    name = problem["loc"][0]
    if problem["type"].startswith("unexpected"):
        return TypeError(f"{problems.title}: {problem['msg']}: {name}")
    name = list(types)[name] if isinstance(name, int) else name  # of a positional argument
    return _refusal(name, problem, types[name], error)


def _refusal(name: str, problem: dict[str, Any], declared: Any, error: type[Exception]) -> Exception:
    value, kind, words = problem["input"], problem["type"], list(_words(declared))
    if kind == "literal_error":
        return refusal(name, value, allowed(words), suggestion(value, words), error)
    if kind.partition("_")[0] in TYPES:
        return refusal(name, value, ", or ".join([TYPES[kind.partition("_")[0]], *map(_shown, words)]), error=error)
    value, most = float(value) if isinstance(value, str) else value, problem["ctx"].get("le")
    rule = _rule(declared) if most is None or value != value else f"must be at most {most:g}"
    return refusal(name, value, rule, error=error)


def _parts(declared: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return (declared,) if get_origin(declared) in (Annotated, Literal) else get_args(declared) or (declared,)


def _words(declared: Any) -> Iterator[Any]:
    """Single values that an entry may have."""
    for part in _parts(declared):
        yield from get_args(part) if get_origin(part) is Literal else [None] if part is NoneType else []


def _rule(declared: Any) -> str:
    """The rule of the numbers of an entry."""
    return next(part.__metadata__[-1] for part in _parts(declared) if get_origin(part) is Annotated)


def _shown(word: Any) -> str:
    return str(word).lower()
