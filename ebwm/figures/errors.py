"""What goes wrong with figures, told in one line."""

import difflib
from collections.abc import Iterable

__all__ = ["FigureError", "NotebookError", "suggest"]


class FigureError(ValueError):
    """A request about figures that cannot be met; the message is one line and says what is allowed."""


class NotebookError(RuntimeError):
    """A figure's notebook failed; the message is one line and says where the partial notebook lies."""


def suggest(
    name: str,  # the unknown name
    allowed: Iterable[str],  # the known ones
) -> str:
    """The end of an error message about an unknown name: the nearest known one, and all of them."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}allowed: {', '.join(allowed) or 'none'}"
